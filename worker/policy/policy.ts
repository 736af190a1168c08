/** What the worker decides by, and what must hold between its parts, beyond the schema of each. */

import type * as z from 'zod/mini'
import { isCanonical, isPrivate, keyMark } from '../../keys/key_set.ts'
import { endpointUrlProblem } from '../endpoint_url.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Admin } from './admin.ts'
import type { Bans } from './ban.ts'
import { attestationAudiences, type Cluster, KUBESPIFFE_AUDIENCE } from './cluster.ts'
import {
  checkFederatedTrustDomain,
  type FederatedTrustDomain,
  type FederatedTrustDomainManifest,
  MAX_FEDERATED_TRUST_DOMAINS,
} from './federated_trust_domain.ts'
import type { OidcAttestor } from './oidc_attestor.ts'
import { demanded, isForPods, type Registration } from './registration.ts'
import type { RegistrationIndex } from './registration_index.ts'
import type { Revocations } from './revocation.ts'
import { idPattern } from './shared_identities.ts'
import { agreesWithFacts } from './spiffe_id_template.ts'
import type { VaultMount } from './vault_mount.ts'
import type { VaultOidcRole } from './vault_oidc_role.ts'
import type { VaultRole } from './vault_role.ts'

/** What the worker decides by. */
export interface Policy {
  readonly trustDomain: TrustDomain
  readonly clusters: ReadonlyMap<string, Cluster>
  readonly attestors: ReadonlyMap<string, OidcAttestor>
  /** By the name of the trust domain. */
  readonly federation: ReadonlyMap<string, FederatedTrustDomain>
  readonly registrations: RegistrationIndex
  readonly bans: Bans
  readonly revocations: Revocations
  readonly admins: readonly Admin[]
  readonly audiences: KnownAudiences
  readonly vault: VaultPolicy
}

/** What Vault's clients find here. */
export interface VaultPolicy {
  /** By where they are under `auth/`. */
  readonly mounts: ReadonlyMap<string, VaultMount>
  /** By `<mount>/<role>`. */
  readonly roles: ReadonlyMap<string, VaultRole>
  readonly oidcRoles: ReadonlyMap<string, VaultOidcRole>
}

/** Audiences by what they are for; no audience is for two things (T-7). */
export interface KnownAudiences {
  /** What subject tokens are made out to. */
  readonly attestation: ReadonlySet<string>
  /** What API servers take as bearer tokens. */
  readonly apiServers: ReadonlySet<string>
}

/** What of the configuration the manifest is judged by. */
export interface ManifestContext {
  readonly trustDomain: TrustDomain
  /** Our own issuer URL. */
  readonly issuer: string
  /** Whether a cluster's keys may be fetched over http from this machine: in development only. */
  readonly allowLoopbackHttp: boolean
  /** What of the platform's a cluster's record may name: services, and secrets as texts (T-10). null where nobody can know. */
  readonly bindings: ReadonlyMap<string, unknown> | null
}

/** @param logins audiences that tokens are made out to for a login at a mount of Vault's */
export function audiencesOf(
  clusters: Iterable<Cluster>,
  attestors: Iterable<OidcAttestor>,
  logins: Iterable<string>,
): KnownAudiences {
  const attestation = new Set(logins)
  const apiServers = new Set<string>()
  for (const cluster of clusters) {
    for (const audience of attestationAudiences(cluster)) attestation.add(audience)
    for (const audience of cluster.apiServerAudiences) apiServers.add(audience)
  }
  for (const { audience } of attestors) attestation.add(audience)
  return { attestation, apiServers }
}

/** @returns what is wrong with the clusters, each problem with the name of its object */
export function checkClusters(clusters: readonly Cluster[], context: ManifestContext): string[] {
  return [
    ...clusters.flatMap((cluster) =>
      checkCluster(cluster, context).map((problem) => `Cluster ${cluster.name}: ${problem}`),
    ),
    ...checkClusterAudiences(clusters, context),
    ...checkCeilings(clusters),
    ...checkKeySources(clusters),
    ...checkInlineKeys(clusters),
  ]
}

/** T-1: where the objects of two clusters could take the same SPIFFE ID, the author in one could keep it from the other. */
function checkCeilings(clusters: readonly Cluster[]): string[] {
  const owners = clusters.flatMap(({ name, ceiling }) =>
    (ceiling?.spiffeIDPrefixes ?? []).map((prefix) => ({ name, prefix: `${prefix}/` })),
  )
  const problems = new Set<string>()
  const sorted = owners.toSorted((one, other) => (one.prefix < other.prefix ? -1 : 1))
  // Whatever begins with a prefix stands right behind it.
  let last: (typeof sorted)[number] | undefined
  for (const owner of sorted) {
    if (last && owner.prefix.startsWith(last.prefix)) {
      if (last.name !== owner.name)
        problems.add(
          `Cluster ${owner.name}: spec.ceiling: ${owner.prefix.slice(0, -1)} is within that of Cluster ${last.name}`,
        )
    } else last = owner
  }
  return [...problems]
}

/** T-3: two clusters that publish at one place have one set of keys, and each could speak for the other. */
function checkKeySources(clusters: readonly Cluster[]): string[] {
  const owners = new Map<string, string>()
  return clusters.flatMap(({ name, issuer, keySource, connection }) => {
    if (keySource.from === 'inline') return []
    const [field, place] =
      keySource.from === 'url'
        ? ['spec.jwks.url', keySource.url]
        : keySource.from === 'connection'
          ? ['spec.connection', `${connection?.binding} ${connection?.url}`]
          : ['spec.jwks.discovery', `discovery of ${issuer}`]
    const owner = owners.get(place)
    owners.set(place, name)
    return owner === undefined ? [] : [`Cluster ${name}: ${field}: the keys would be those of Cluster ${owner}`]
  })
}

/** T-11: what makes an administrator makes nothing else, and comes from where nobody can reach in between. */
export function checkAdmin(admin: Admin, audiences: KnownAudiences, context: ManifestContext): string[] {
  if (admin.by === 'key') return []
  const problems: string[] = []
  const urlProblem = endpointUrlProblem(admin.issuer, context.allowLoopbackHttp)
  if (admin.issuer === context.issuer) problems.push('spec.token.issuer: is this issuer itself')
  else if (urlProblem !== null) problems.push(`spec.token.issuer: ${urlProblem}`)
  if (audiences.attestation.has(admin.audience)) problems.push('spec.token.audience: is an attestation audience')
  if (audiences.apiServers.has(admin.audience)) problems.push("spec.token.audience: is an API server's")
  return problems
}

/** T-11: a credential makes one administrator. Under two names it would be unclear which of them may do how much. */
export function checkAdmins(admins: readonly Admin[]): string[] {
  const owners = new Map<string, string>()
  return admins.flatMap((admin) => {
    const mark = JSON.stringify(
      admin.by === 'key' ? keyMark(admin.publicKey) : [admin.issuer, admin.audience, admin.subject],
    )
    const owner = owners.get(mark)
    owners.set(mark, admin.name)
    return owner === undefined ? [] : [`Admin ${admin.name}: spec: is that of Admin ${owner} too`]
  })
}

/** T-6: an attestor's issuer is none of ours and no cluster's, so that a token is good in one place only. */
export function checkAttestors(
  attestors: readonly OidcAttestor[],
  clusters: readonly Cluster[],
  context: ManifestContext,
): string[] {
  const issuers = new Map([[context.issuer, 'this issuer itself']])
  for (const { name, issuer } of clusters) issuers.set(issuer, `that of Cluster ${name}`)
  return attestors.flatMap(({ name, issuer, audience }) => {
    const problems: string[] = []
    const taken = issuers.get(issuer)
    if (taken) problems.push(`spec.issuer: is ${taken}`)
    issuers.set(issuer, `that of OIDCAttestor ${name}`)
    const problem = endpointUrlProblem(issuer, context.allowLoopbackHttp)
    if (problem !== null) problems.push(`spec.issuer: ${problem}`)
    // `<issuer>/admin` and the like are for tokens of ours. Our plain name is what a provider is told to make tokens out to.
    if (audience !== context.issuer && isInternalAudience(audience, context))
      problems.push(`spec.audience: ${audience} is reserved`)
    if (clusters.some(({ apiServerAudiences }) => apiServerAudiences.includes(audience)))
      problems.push(`spec.audience: ${audience} is an API server's`)
    return problems.map((text) => `OIDCAttestor ${name}: ${text}`)
  })
}

/** @returns what is wrong with the trust domains that are to be believed, each problem with the name of its object */
export function checkFederation(
  objects: readonly z.infer<typeof FederatedTrustDomainManifest>[],
  context: ManifestContext,
): string[] {
  const owners = new Map<string, string>()
  return objects.flatMap((object) => {
    const { name } = object.metadata
    const { trustDomain } = object.spec
    const owner = owners.get(trustDomain)
    owners.set(trustDomain, name)
    const problems = checkFederatedTrustDomain(object, context)
    if (owner !== undefined) problems.push(`spec.trustDomain: is that of FederatedTrustDomain ${owner} too`)
    // By name, so that nothing else of what has been applied is left out for it.
    else if (owners.size > MAX_FEDERATED_TRUST_DOMAINS)
      problems.push(`spec.trustDomain: is one more than the ${MAX_FEDERATED_TRUST_DOMAINS} that there may be`)
    return problems.map((text) => `FederatedTrustDomain ${name}: ${text}`)
  })
}

function checkCluster(cluster: Cluster, context: ManifestContext): string[] {
  const { issuer, keySource, connection } = cluster
  if (issuer === context.issuer) return ['spec.issuer: is this issuer itself']
  const urls: [string, string][] = []
  if (keySource.from === 'discovery') urls.push(['spec.issuer', issuer])
  if (keySource.from === 'url') urls.push(['spec.jwks.url', keySource.url])
  if (connection) urls.push(['spec.connection.url', connection.url])
  const problems = urls.flatMap(([field, url]) => {
    const problem = endpointUrlProblem(url, context.allowLoopbackHttp)
    return problem === null ? [] : [`${field}: ${problem}`]
  })
  if (connection && problems.length === 0 && new URL(connection.url).pathname !== '/')
    problems.push('spec.connection.url: has a path')
  problems.push(...checkBindings(cluster, context))
  if (!connection) problems.push(...whatNeedsConnection(cluster).map((field) => `${field}: needs spec.connection`))
  if (keySource.from === 'connection' && cluster.reviewer.by === 'client')
    problems.push('spec.jwks.connection: needs a reviewer other than client, who has no token to be verified with yet')
  if (cluster.audiences.length === 0 && cluster.serviceAccountAllowList.length === 0)
    problems.push('spec.audiences: is empty, which is for node attestation: needs spec.serviceAccountAllowList')
  return problems
}

/** @returns where a record names a binding that there is not, or not of that kind */
function checkBindings({ connection, reviewer }: Cluster, { bindings }: ManifestContext): string[] {
  if (!bindings) return []
  const needed: [field: string, binding: string, kind: 'service' | 'secret'][] = []
  if (connection && connection.binding !== null) needed.push(['spec.connection.binding', connection.binding, 'service'])
  if (reviewer.by === 'file') needed.push(['spec.reviewer.file.binding', reviewer.binding, 'service'])
  if (reviewer.by === 'secret') needed.push(['spec.reviewer.secret', reviewer.binding, 'secret'])
  return needed.flatMap(([field, binding, kind]) => {
    const value = bindings.get(binding)
    if (value === undefined) return [`${field}: there is no binding ${binding}`]
    return (typeof value === 'string') === (kind === 'secret') ? [] : [`${field}: ${binding} is no ${kind}`]
  })
}

function whatNeedsConnection({ keySource, liveness, serviceAccountAllowList }: Cluster): string[] {
  return [
    ...(keySource.from === 'connection' ? ['spec.jwks.connection'] : []),
    ...(liveness === 'tokenReview' ? ['spec.liveness'] : []),
    ...(serviceAccountAllowList.length > 0 ? ['spec.serviceAccountAllowList'] : []),
  ]
}

/** T-3: issuer and audience select one record. T-7: an audience has one kind, and names one API server. */
function checkClusterAudiences(clusters: readonly Cluster[], context: ManifestContext): string[] {
  const problems: string[] = []
  for (const cluster of clusters) {
    const others = clusters.filter((other) => other !== cluster)
    const sharesIssuer = others.some((other) => other.issuer === cluster.issuer)
    if (cluster.audiences.includes(KUBESPIFFE_AUDIENCE))
      problems.push(
        `Cluster ${cluster.name}: spec.audiences: ${KUBESPIFFE_AUDIENCE} is good at one door only: set spec.kubespiffe`,
      )
    for (const audience of attestationAudiences(cluster)) {
      const field = cluster.audiences.includes(audience) ? 'spec.audiences' : 'spec.kubespiffe'
      if (isInternalAudience(audience, context))
        problems.push(`Cluster ${cluster.name}: ${field}: ${audience} is reserved`)
      if (sharesIssuer && others.some((other) => attestationAudiences(other).includes(audience)))
        problems.push(
          `Cluster ${cluster.name}: ${field}: ${audience} is another cluster's too, and the issuer is shared`,
        )
    }
    for (const audience of cluster.apiServerAudiences) {
      const where = `Cluster ${cluster.name}: spec.apiServer.audiences: ${audience}`
      if (isInternalAudience(audience, context)) problems.push(`${where} is reserved`)
      if (others.some((other) => other.apiServerAudiences.includes(audience)))
        problems.push(`${where} is another cluster's too`)
      if (clusters.some((other) => attestationAudiences(other).includes(audience)))
        problems.push(`${where} is an attestation audience`)
    }
  }
  return problems
}

/** T-3: one key in two records would let each cluster speak for the other. */
function checkInlineKeys(clusters: readonly Cluster[]): string[] {
  const problems: string[] = []
  const owners = new Map<string, string>()
  for (const { name, keySource } of clusters) {
    if (keySource.from !== 'inline') continue
    if (keySource.keys.length === 0) problems.push(`Cluster ${name}: spec.jwks.inline: has no keys`)
    for (const jwk of keySource.keys) {
      if (!isCanonical(jwk)) problems.push(`Cluster ${name}: spec.jwks.inline: a key is not in its canonical form`)
      if (isPrivate(jwk)) problems.push(`Cluster ${name}: spec.jwks.inline: holds a private key`)
      const { kid } = jwk as { kid?: unknown }
      if (typeof kid !== 'string' || kid === '') problems.push(`Cluster ${name}: spec.jwks.inline: a key has no kid`)
      for (const mark of [`kid ${kid}`, keyMark(jwk)]) {
        const owner = owners.get(mark)
        if (owner !== undefined)
          problems.push(`Cluster ${name}: spec.jwks.inline: a key or kid stands in Cluster ${owner} too`)
        owners.set(mark, name)
      }
    }
  }
  return problems
}

/**
 * @param others what else there is in the policy
 * @returns what is wrong with a registration by itself
 */
export function checkRegistration(
  registration: Registration,
  { clusters, attestors, federation, audiences }: Pick<Policy, 'clusters' | 'attestors' | 'federation' | 'audiences'>,
  context: ManifestContext,
): string[] {
  const problems: string[] = []
  if (registration.oidc) {
    const { attestor } = registration.oidc
    if (!attestors.has(attestor)) problems.push(`spec.oidc.attestor: there is no OIDCAttestor ${attestor}`)
  } else if (registration.federated) {
    const { trustDomain } = registration.federated
    if (!federation.has(trustDomain))
      problems.push(`spec.federated.spiffeID: there is no FederatedTrustDomain for ${trustDomain}`)
  } else if (registration.clusters.length === 0) problems.push('spec.clusters: name them, there are several')
  if (!isForPods(registration) && registration.liveness !== 'none')
    problems.push('spec.liveness: only a pod has an API server to ask')
  for (const name of registration.clusters)
    if (!clusters.has(name)) problems.push(`spec.clusters: there is no Cluster ${name}`)
  for (const name of registration.federatesWith)
    if (!federation.has(name)) problems.push(`spec.federatesWith: there is no FederatedTrustDomain for ${name}`)
  if (registration.audiences.length === 0 && registration.svidTypes.includes('JWT'))
    problems.push('spec.audiences: is empty')
  for (const audience of registration.audiences) {
    if (isInternalAudience(audience, context)) problems.push(`spec.audiences: ${audience} is reserved`)
    if (audiences.attestation.has(audience)) problems.push(`spec.audiences: ${audience} is an attestation audience`)
  }
  for (const combination of registration.audienceCombinations)
    for (const audience of combination) {
      if (!registration.audiences.includes(audience))
        problems.push(`spec.audienceCombinations: ${audience} is not in spec.audiences`)
      if (audiences.apiServers.has(audience))
        problems.push(`spec.audienceCombinations: ${audience} is an API server's and goes with nothing else`)
    }
  for (const name of registration.clusters) {
    const cluster = clusters.get(name)
    if (cluster) problems.push(...checkLiveness(registration, cluster))
  }
  return [...problems, ...checkSpiffeId(registration, clusters.size > 1, context.trustDomain)]
}

/** Labels and life are known to the API server alone. */
function checkLiveness({ selectors, liveness }: Registration, cluster: Cluster): string[] {
  const problems: string[] = []
  if (liveness === 'tokenReview' && !cluster.connection)
    problems.push(`spec.liveness: Cluster ${cluster.name} has no spec.connection`)
  for (const selector of selectors) {
    const [, key] = /^k8s:pod-label:([^:]+):/.exec(selector) ?? []
    if (key !== undefined && (cluster.liveness !== 'tokenReview' || !cluster.allowedPodLabelKeys.includes(key)))
      problems.push(`spec.selectors: the label ${key} is not attested in Cluster ${cluster.name}`)
  }
  return problems
}

function checkSpiffeId(registration: Registration, severalClusters: boolean, trustDomain: TrustDomain): string[] {
  const problems: string[] = []
  const forPods = isForPods(registration)
  const standIns = {
    cluster: !forPods ? null : registration.clusters.length === 1 ? (registration.clusters[0] ?? null) : 'any-cluster',
    namespace: demanded(registration, 'k8s:ns') ?? (forPods ? 'any-namespace' : null),
    serviceAccountName: demanded(registration, 'k8s:sa') ?? (forPods ? 'any-service-account' : null),
    podName: 'any-pod',
    podUID: 'any-uid',
  }
  const id = registration.template.expand(trustDomain, standIns)
  if (severalClusters && isServiceAccountId(registration.template) && !registration.sharedIdentity)
    problems.push(
      'spec.spiffeID: with several clusters, /ns/…/sa/… does not say whose: begin with /cluster/{cluster}, or set sharedIdentity',
    )
  if (id === null) problems.push(`spec.spiffeID: ${forPods ? 'is too long' : 'only a pod can fill a variable'}`)
  else if (isReserved(id)) problems.push('spec.spiffeID: is reserved')
  else if (!agreesWithFacts(id, standIns))
    problems.push(
      'spec.spiffeID: names a namespace, service account or cluster that the selectors and spec.clusters do not',
    )
  return problems
}

/**
 * What an object that was read from a cluster may say: nothing but what the cluster's record allows, for pods of that
 * cluster alone (T-1). It is refused as a whole, never cut to fit.
 *
 * @param cluster undefined if its record is gone, and with it whatever it allowed
 */
export function checkCeiling(registration: Registration, cluster: Cluster | undefined): string[] {
  const ceiling = cluster?.ceiling
  if (!ceiling) return ['objects of this cluster are not read']
  const problems: string[] = []
  if (!isForPods(registration) || registration.clusters.some((name) => name !== cluster.name))
    problems.push('spec.clusters: another cluster')
  if (registration.sharedIdentity) problems.push('spec.sharedIdentity: is for the deployed manifest')
  const id = idPattern(registration, cluster.name)
  if (
    !ceiling.spiffeIDPrefixes.some((prefix) =>
      prefix
        .slice(1)
        .split('/')
        .every((segment, at) => segment === id[at]),
    )
  )
    problems.push('spec.spiffeID: outside of what the cluster may give')
  if (!registration.audiences.every((audience) => ceiling.audiences.includes(audience)))
    problems.push('spec.audiences: outside of what the cluster may give')
  if (registration.ttlSeconds > ceiling.maxTtlSeconds) problems.push('spec.ttlSeconds: above what the cluster may give')
  if (registration.x509TtlSeconds > ceiling.maxTtlSeconds)
    problems.push('spec.x509TtlSeconds: above what the cluster may give')
  if (!Object.keys(registration.claims).every((claim) => ceiling.claims.includes(claim)))
    problems.push('spec.claims: outside of what the cluster may give')
  if (!registration.federatesWith.every((name) => ceiling.federatesWith.includes(name)))
    problems.push('spec.federatesWith: outside of what the cluster may give')
  if (!registration.dnsNames.every((name) => ceiling.dnsSuffixes.some((suffix) => name.endsWith(suffix))))
    problems.push('spec.dnsNames: outside of what the cluster may give')
  return problems
}

/** Whether the AuthenticationConfiguration would map the IDs to names that do not say which cluster they are of (T-2). */
function isServiceAccountId({ segments }: Registration['template']): boolean {
  const literal = (index: number) => {
    const segment = segments[index]
    return segment && 'literal' in segment ? segment.literal : null
  }
  return segments.length === 4 && literal(0) === 'ns' && literal(2) === 'sa'
}

/** The issuer's own audiences: its name, and everything below it, such as `<issuer>/admin` (T-7, T-11). */
export function isInternalAudience(audience: string, { issuer }: ManifestContext): boolean {
  return audience === issuer || audience.startsWith(`${issuer}/`)
}
