/**
 * Which pods get which identity, for whom, for how long. The manifest's form extends kubespiffe's `WorkloadRegistration`.
 */

import * as z from 'zod/mini'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { DNS_NAME, MAX_DNS_NAME_LENGTH } from '../spiffe/dns_name.ts'
import { SpiffeId, SpiffeIdError, type TrustDomain } from '../spiffe/id.ts'
import { DEFAULT_JWT_SVID_TTL_SECONDS, MAX_JWT_SVID_TTL_SECONDS } from '../spiffe/jwt_svid.ts'
import { DEFAULT_X509_SVID_TTL_SECONDS, MAX_X509_SVID_TTL_SECONDS } from '../spiffe/x509_svid.ts'
import { type Cluster, ClusterName, DistinctAudiences, KUBERNETES_NAME } from './cluster.ts'
import { TrustDomainName } from './federated_trust_domain.ts'
import { ClaimName, ClaimPattern, compilePattern } from './oidc_attestor.ts'
import { CLUSTER_SERVICE_ACCOUNT_ID, SERVICE_ACCOUNT_ID, SpiffeIdTemplate } from './spiffe_id_template.ts'

/** Below this a token is spent before a slow client has used it. */
const MIN_TTL_SECONDS = 30
/** A certificate takes a signature of the CA, and a server that has it a restart or a reload. */
const MIN_X509_TTL_SECONDS = 60

const KubernetesName = z.string().check(z.regex(KUBERNETES_NAME, 'not a Kubernetes name'))

const DistinctClusters = z.array(ClusterName).check(
  z.minLength(1),
  z.refine((names) => new Set(names).size === names.length, 'names a cluster twice'),
)

/** SPIRE allows as much; nobody has a use for more. */
const MAX_SELECTORS = 256

/** What SPIRE calls a selector: `type:name:value`. The types are those that our attestors give out. */
const Selector = z
  .string()
  .check(
    z.regex(
      /^k8s:(?:ns|sa|pod-name|pod-uid|node-name|pod-label:[A-Za-z0-9._/-]{1,317}):[\x21-\x7e]{1,512}$/,
      'not a selector that is attested here',
    ),
  )

/**
 * Claims that mean something to somebody who reads a token: those of the standards, and `node_name`, which only the
 * attestation of nodes may set (T-14).
 *
 * @see [JSON Web Token Claims](https://www.iana.org/assignments/jwt/jwt.xhtml)
 */
const RESERVED_CLAIMS: ReadonlySet<string> = new Set(
  (
    'iss sub aud exp nbf iat jti azp nonce auth_time at_hash c_hash acr amr sub_jwk cnf act may_act scope scp client_id sid ' +
    'events toe txn rph vc vp entitlements groups roles email email_verified phone_number phone_number_verified ' +
    'preferred_username upn oid tid hd node_name'
  ).split(' '),
)

const ExtraClaims = z.record(
  z.string().check(
    z.regex(/^[a-z][a-z0-9_]{0,63}$/, 'not a claim name'),
    z.refine((name) => !RESERVED_CLAIMS.has(name), 'a claim that means something already'),
  ),
  z.string().check(z.maxLength(256)),
)

/** A name for a certificate: letters, digits and hyphens, no wildcard. */
const DnsName = z.string().check(z.maxLength(MAX_DNS_NAME_LENGTH), z.regex(DNS_NAME, 'not a DNS name'))

/** A pattern for SPIFFE IDs of one trust domain, which is named in full. */
const SpiffeIdPattern = ClaimPattern.check(
  z.refine(isSpiffeIdPattern, 'not a pattern for SPIFFE IDs of one trust domain'),
)

/** The manifest's form of a registration. Every field is described in docs/manifest.md. */
export const RegistrationManifest = z.strictObject({
  apiVersion: z.literal('kubespiffe.io/v1alpha1'),
  kind: z.literal('WorkloadRegistration'),
  metadata: z.strictObject({ name: KubernetesName }),
  spec: z
    .strictObject({
      clusters: z.optional(DistinctClusters),
      selector: z.optional(
        z.strictObject({
          namespace: KubernetesName,
          serviceAccountName: KubernetesName,
          podName: z.optional(KubernetesName),
        }),
      ),
      selectors: z.optional(z.array(Selector).check(z.minLength(1), z.maxLength(MAX_SELECTORS))),
      oidc: z.optional(
        z.strictObject({
          attestor: ClusterName,
          subject: ClaimPattern,
          claims: z._default(z.record(ClaimName, ClaimPattern), {}),
        }),
      ),
      federated: z.optional(z.strictObject({ spiffeID: SpiffeIdPattern })),
      spiffeID: z.optional(z.string()),
      svidType: z.optional(z.enum(['JWT', 'X509'])),
      audiences: z._default(DistinctAudiences, []),
      audienceCombinations: z._default(z.array(DistinctAudiences.check(z.minLength(2))), []),
      ttlSeconds: z._default(
        z.int().check(z.minimum(MIN_TTL_SECONDS), z.maximum(MAX_JWT_SVID_TTL_SECONDS)),
        DEFAULT_JWT_SVID_TTL_SECONDS,
      ),
      x509TtlSeconds: z.optional(z.int().check(z.minimum(MIN_X509_TTL_SECONDS), z.maximum(MAX_X509_SVID_TTL_SECONDS))),
      alg: z.optional(z.enum(Object.keys(ALGORITHMS) as [AlgorithmName, ...AlgorithmName[]])),
      claims: z._default(ExtraClaims, {}),
      dnsNames: z._default(z.array(DnsName).check(z.maxLength(32)), []),
      federatesWith: z._default(
        z.array(TrustDomainName).check(z.refine((names) => new Set(names).size === names.length, 'names one twice')),
        [],
      ),
      hint: z.optional(z.string().check(z.regex(/^[\x20-\x7e]{1,64}$/, 'not 1 to 64 printable characters'))),
      liveness: z._default(z.enum(['none', 'tokenReview']), 'none'),
      sharedIdentity: z._default(z.boolean(), false),
    })
    .check(
      z.refine(
        ({ selector, selectors, oidc, federated }) =>
          [selector, selectors, oidc, federated].filter((one) => one !== undefined).length === 1,
        { message: 'exactly one of selector, selectors, oidc and federated', path: ['selector'] },
      ),
      z.refine(({ oidc, spiffeID, clusters }) => !oidc || (spiffeID !== undefined && clusters === undefined), {
        message: 'needs spec.spiffeID, and no spec.clusters',
        path: ['oidc'],
      }),
      z.refine(
        ({ federated, spiffeID, clusters }) => !federated || (spiffeID !== undefined && clusters === undefined),
        { message: 'needs spec.spiffeID, and no spec.clusters', path: ['federated'] },
      ),
    ),
})

/** Where an object came from, which decides what it may say (T-1): the deployment, an administrator, or a cluster. */
export type Source = 'manifest' | 'applied' | { readonly cluster: string }

export interface Registration {
  readonly name: string
  readonly source: Source
  readonly clusters: readonly string[]
  /** All of them must match. */
  readonly selectors: readonly string[]
  /** Set where no pod is meant, but a workload that a provider knows; then there are no clusters and no selectors. */
  readonly oidc: OidcSelector | null
  /** The same for a workload of another trust domain. */
  readonly federated: FederatedSelector | null
  /** A workload whose pods are meant, by the names that its controller gives them; null for all. */
  readonly podsOf: string | null
  readonly template: SpiffeIdTemplate
  readonly svidTypes: readonly SvidType[]
  readonly audiences: readonly string[]
  /** Sets of audiences that one token may be made out to (T-7). */
  readonly audienceCombinations: readonly ReadonlySet<string>[]
  readonly ttlSeconds: number
  /** The same for an X.509-SVID. */
  readonly x509TtlSeconds: number
  /** null: whatever the first signing key makes. */
  readonly alg: AlgorithmName | null
  /** Claims of the JWT-SVID besides its own. */
  readonly claims: Readonly<Record<string, string>>
  readonly dnsNames: readonly string[]
  /** Trust domains whose bundles the workload gets with its X.509-SVID. */
  readonly federatesWith: readonly string[]
  /** What the workload may know the identity by. */
  readonly hint: string | null
  /** Whether the cluster's API server must say that token and pod are alive. */
  readonly liveness: 'none' | 'tokenReview'
  /** Whether pods of several clusters may share one SPIFFE ID (T-2). */
  readonly sharedIdentity: boolean
}

export type SvidType = 'JWT' | 'X509'

/** Which tokens of a provider are meant. All of it must match. */
export interface OidcSelector {
  readonly attestor: string
  /** By name, `sub` among them. */
  readonly claims: ReadonlyMap<string, (value: unknown) => boolean>
}

/** Which SVIDs of another trust domain are meant. */
export interface FederatedSelector {
  readonly trustDomain: string
  matches(spiffeId: string): boolean
}

/**
 * @param clusters all there are, by name: with exactly one of them a registration need not name it, and its default SPIFFE
 *   ID does not (T-2)
 * @throws SpiffeIdError if the SPIFFE ID is not a template of `trustDomain`
 */
export function compileRegistration(
  { metadata, spec }: z.infer<typeof RegistrationManifest>,
  source: Source,
  trustDomain: TrustDomain,
  clusters: ReadonlyMap<string, Cluster>,
): Registration {
  const alone = clusters.size === 1
  const { selector, selectors, oidc, federated } = spec
  const spiffeId = spec.spiffeID ?? `${trustDomain}${alone ? SERVICE_ACCOUNT_ID : CLUSTER_SERVICE_ACCOUNT_ID}`
  return {
    name: typeof source === 'object' ? `${source.cluster}/${metadata.name}` : metadata.name,
    source,
    clusters:
      oidc || federated
        ? []
        : (spec.clusters ?? (typeof source === 'object' ? [source.cluster] : alone ? [...clusters.keys()] : [])),
    selectors: selector ? [`k8s:ns:${selector.namespace}`, `k8s:sa:${selector.serviceAccountName}`] : (selectors ?? []),
    oidc: oidc ? compileOidcSelector(oidc) : null,
    federated: federated ? compileFederatedSelector(federated) : null,
    podsOf: selector?.podName ?? null,
    template: SpiffeIdTemplate.parse(spiffeId, trustDomain),
    svidTypes: spec.svidType ? [spec.svidType] : ['JWT', 'X509'],
    audiences: spec.audiences,
    audienceCombinations: spec.audienceCombinations.map((combination) => new Set(combination)),
    ttlSeconds: spec.ttlSeconds,
    x509TtlSeconds: spec.x509TtlSeconds ?? defaultX509Ttl(source, clusters),
    alg: spec.alg ?? null,
    claims: spec.claims,
    dnsNames: spec.dnsNames,
    federatesWith: spec.federatesWith,
    hint: spec.hint ?? null,
    liveness: spec.liveness,
    sharedIdentity: spec.sharedIdentity,
  }
}

/** Who has said nothing of certificates is not left out for the default's being above the ceiling. */
function defaultX509Ttl(source: Source, clusters: ReadonlyMap<string, Cluster>): number {
  const ceiling = typeof source === 'object' ? clusters.get(source.cluster)?.ceiling : null
  return Math.min(DEFAULT_X509_SVID_TTL_SECONDS, ceiling?.maxTtlSeconds ?? Number.POSITIVE_INFINITY)
}

function compileOidcSelector({
  attestor,
  subject,
  claims,
}: {
  attestor: string
  subject: string
  claims: Record<string, string>
}): OidcSelector {
  const patterns = Object.entries({ ...claims, sub: subject })
  return { attestor, claims: new Map(patterns.map(([name, pattern]) => [name, compilePattern(pattern)])) }
}

function compileFederatedSelector({ spiffeID }: { spiffeID: string }): FederatedSelector {
  return { trustDomain: spiffeID.split('/')[2] ?? '', matches: compilePattern(spiffeID) }
}

/** Whether a pattern is one of SPIFFE IDs with a path, and only the path has wildcards. */
function isSpiffeIdPattern(pattern: string): boolean {
  try {
    const { trustDomain, path } = SpiffeId.parse(pattern.replaceAll(/\*{1,2}/g, 'x'))
    return path !== '' && pattern.startsWith(`${trustDomain}/`)
  } catch (error) {
    if (error instanceof SpiffeIdError) return false
    throw error
  }
}

/** Whether it selects pods, and no workload that something else than a cluster speaks for. */
export function isForPods({ oidc, federated }: Registration): boolean {
  return !oidc && !federated
}

/** @returns the value that a registration demands of a selector, or null if it leaves that open */
export function demanded({ selectors }: Registration, name: 'k8s:ns' | 'k8s:sa'): string | null {
  const selector = selectors.find((candidate) => candidate.startsWith(`${name}:`))
  return selector?.slice(name.length + 1) ?? null
}

/** The characters of the suffixes that Kubernetes generates, which spell no words. */
const GENERATED = '[bcdfghjklmnpqrstvwxz2456789]'
const POD_SUFFIX = new RegExp(`^-(?:(?:${GENERATED}{1,10}-)?${GENERATED}{5}|0|[1-9][0-9]{0,9})$`)

/**
 * Whether `podName` is `workload`, or a name that a Deployment, ReplicaSet, Job, DaemonSet or StatefulSet of that name
 * gives its pods. A convenience: whoever may create pods in the namespace may choose such a name (T-4).
 */
export function isPodOf(podName: string, workload: string): boolean {
  return podName === workload || (podName.startsWith(workload) && POD_SUFFIX.test(podName.slice(workload.length)))
}
