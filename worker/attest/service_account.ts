/**
 * Attests a pod by its projected service account token: offline, with the cluster's public keys and nothing else, and
 * then, where the cluster's record asks for it, by its API server's word.
 *
 * What offline verification cannot see is a pod or service account that has been deleted since; the token's own end bounds
 * that (D6).
 *
 * @see [Service account tokens](https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens)
 */

import * as z from 'zod/mini'
import { type UnverifiedJws, verifyCompact } from '../../keys/jws.ts'
import type { KubernetesApi } from '../cluster/kubernetes_api.ts'
import { checkTimes, JwtError, parseAudience, parseJwt } from '../jwt.ts'
import { attestationAudiences, type Cluster } from '../policy/cluster.ts'
import { Refusal } from '../refusal.ts'
import { attested, type Door, type PodAttestation } from './attestation.ts'
import { ClusterKeys, type ClusterKeysDeps } from './cluster_keys.ts'
import { podSelectors } from './selectors.ts'
import { type TokenFacts, TokenReviews } from './token_review.ts'

const Name = z.string().check(z.minLength(1))

/** The private claims of a bound token. Legacy tokens have flat claims instead, and do not pass. */
const ServiceAccountClaims = z.object({
  sub: Name,
  iat: z.number(),
  'kubernetes.io': z.object({
    namespace: Name,
    serviceaccount: z.object({ name: Name, uid: Name }),
    pod: z.optional(z.object({ name: Name, uid: Name })),
    node: z.optional(z.object({ name: Name, uid: z.optional(Name) })),
    warnafter: z.optional(z.number()),
  }),
})

/** One cluster, with what it takes to believe its tokens. */
export interface TokenSource {
  readonly cluster: Cluster
  readonly keys: ClusterKeys
  /** Both are null where the record names no API server. */
  readonly api: KubernetesApi | null
  readonly reviews: TokenReviews | null
}

/** What the outside world is to this module. */
export interface ServiceAccountAttestorDeps extends ClusterKeysDeps {
  /** @returns the means to call the cluster's API, or null where its record has no connection */
  api(cluster: Cluster): KubernetesApi | null
}

export class ServiceAccountAttestor {
  readonly #byName = new Map<string, TokenSource>()
  readonly #byIssuer = new Map<string, TokenSource[]>()

  /** @param previous whose keys and reviews are kept for clusters whose records have not changed */
  constructor(clusters: Iterable<Cluster>, deps: ServiceAccountAttestorDeps, previous?: ServiceAccountAttestor) {
    for (const cluster of clusters) {
      const before = previous?.source(cluster.name) ?? null
      const source = makeSource(cluster, deps, before)
      this.#byName.set(cluster.name, source)
      const sharing = this.#byIssuer.get(cluster.issuer)
      if (sharing) sharing.push(source)
      else this.#byIssuer.set(cluster.issuer, [source])
    }
  }

  /** @returns the cluster of that name, for the doors at which the request names one */
  source(name: string): TokenSource | null {
    return this.#byName.get(name) ?? null
  }

  /**
   * @param token the subject token
   * @param now seconds since the epoch
   * @throws Refusal
   */
  async attest(token: string, door: Door, now: number): Promise<PodAttestation> {
    const { source, jws } = refusing(() => {
      const unverified = parseJwt(token)
      return { source: this.#select(unverified.payload, door), jws: unverified }
    })
    const { cluster, reviews } = source
    const facts = await verifyServiceAccountToken(jws, source, cluster, now)
    const live = reviews !== null && cluster.liveness === 'tokenReview'
    const pod = live ? await reviews.review(token, facts, audiencesAt(door, cluster)) : null
    return attested({
      ...facts,
      kind: 'pod',
      door,
      cluster: cluster.name,
      selectors: podSelectors({
        namespace: facts.namespace,
        serviceAccountName: facts.serviceAccount.name,
        pod: facts.pod,
        nodeName: pod?.nodeName ?? facts.node?.name ?? null,
        ...(pod && { podLabels: pod.labels }),
      }),
      live,
    })
  }

  /**
   * Asks the API server about a workload that has been attested offline, because its registration wants it to be alive.
   *
   * @throws Refusal
   */
  async confirm(token: string, attestation: PodAttestation): Promise<void> {
    const { reviews = null, cluster } = this.#byName.get(attestation.cluster) ?? {}
    if (!reviews || !cluster)
      throw new Refusal('cluster_api_unavailable', `cluster ${attestation.cluster} has no connection`)
    await reviews.review(token, attestation, audiencesAt(attestation.door, cluster))
  }

  /**
   * Issuer and audience together select one record, and only its keys are tried (T-3). Every audience of the token must
   * be that record's: a token that is also good elsewhere could have come from there.
   */
  #select({ iss, aud }: Readonly<Record<string, unknown>>, door: Door): TokenSource {
    const sharing = typeof iss === 'string' ? this.#byIssuer.get(iss) : undefined
    if (!sharing) throw new JwtError('issuer')
    const audience = parseAudience(aud)
    const source = sharing.find(({ cluster }) => {
      const accepted = audiencesAt(door, cluster)
      return audience.every((value) => accepted.includes(value))
    })
    if (!source) throw new JwtError('audience')
    if (door === 'kubespiffe' && !source.cluster.kubespiffe)
      throw new Refusal('door_closed', `spec.kubespiffe of cluster ${source.cluster.name} is not set`)
    return source
  }
}

/** What a subject token must be made out to at a door where the request names no cluster (T-6). */
function audiencesAt(door: Door, cluster: Cluster): readonly string[] {
  return door === 'kubespiffe' ? attestationAudiences(cluster) : cluster.audiences
}

/** @param before whose parts are kept as far as what they are made of has not changed */
function makeSource(cluster: Cluster, deps: ServiceAccountAttestorDeps, before: TokenSource | null): TokenSource {
  if (before && isSame(before.cluster, cluster)) return before
  const api = deps.api(cluster)
  return {
    cluster,
    api,
    keys:
      before && isSame(keyOrigin(before.cluster), keyOrigin(cluster))
        ? before.keys
        : new ClusterKeys(cluster, deps, api),
    reviews: api && new TokenReviews(cluster, api, deps),
  }
}

/** All that decides which keys a cluster has. */
function keyOrigin({ issuer, keySource, connection, reviewer }: Cluster): object {
  return { issuer, keySource, connection, reviewer }
}

/** Records are plain data, made by one function, so their members are in one order. */
function isSame(one: object, other: object): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}

/** What a door may want otherwise than a cluster's record does. */
export interface TokenRules {
  readonly requireBoundPod: boolean
  /**
   * Whether a token that a kubelet mounts by default is taken, which says that it lives for a year and is to be renewed within
   * the hour (`warnafter`). It is over then.
   */
  readonly takesExtended?: boolean
}

/**
 * The offline half, for a token whose cluster is known. Its issuer and audience have been compared by then: they are how
 * the cluster was found.
 *
 * @param now seconds since the epoch
 * @throws Refusal
 */
export async function verifyServiceAccountToken(
  jws: UnverifiedJws,
  { cluster, keys }: TokenSource,
  { requireBoundPod, takesExtended = false }: TokenRules,
  now: number,
): Promise<TokenFacts & { readonly expiresAt: number }> {
  const key = await keys.find(jws.header.kid)
  if (!key) throw tokenRefusal(new JwtError('key'))
  if (!(await verifyCompact(jws, key))) throw tokenRefusal(new JwtError('signature'))
  const times = refusing(() => checkTimes(jws.payload, now))
  const { data: claims } = ServiceAccountClaims.safeParse(jws.payload)
  if (!claims) throw new Refusal('token_claims', 'not the claims of a bound service account token')
  const { namespace, serviceaccount, pod = null, node = null, warnafter } = claims['kubernetes.io']
  const expiresAt = takesExtended && warnafter !== undefined ? Math.min(warnafter, times.expiresAt) : times.expiresAt
  if (expiresAt <= now) throw tokenRefusal(new JwtError('expired'))
  if (claims.sub !== `system:serviceaccount:${namespace}:${serviceaccount.name}`)
    throw new Refusal('token_claims', 'sub and kubernetes.io name different service accounts')
  if (!pod && requireBoundPod) throw new Refusal('token_unbound', 'bound to no pod')
  if (expiresAt - claims.iat > cluster.maxTokenLifetimeSeconds)
    throw new Refusal('token_lifetime', `made to live more than ${cluster.maxTokenLifetimeSeconds} s`)
  keys.prove(key)
  return {
    namespace,
    serviceAccount: serviceaccount,
    pod,
    node: node && { name: node.name, uid: node.uid ?? null },
    expiresAt,
  }
}

/** @throws Refusal in the place of a JwtError */
export function refusing<T>(check: () => T): T {
  try {
    return check()
  } catch (error) {
    throw error instanceof JwtError ? tokenRefusal(error) : error
  }
}

/** The names of what is wrong meet those of the refusals. */
export function tokenRefusal({ code, message }: JwtError): Refusal {
  return new Refusal(`token_${code}`, message)
}
