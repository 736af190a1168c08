/**
 * Attests a pod by its projected service account token, offline: with the cluster's public keys and nothing else.
 *
 * What this cannot see is a pod or service account that has been deleted since; the token's own end bounds that (D6).
 *
 * @see [Service account tokens](https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens)
 */

import * as z from 'zod/mini'
import { verifyCompact } from '../../keys/jws.ts'
import { checkTimes, JwtError, parseAudience, parseJwt } from '../jwt.ts'
import type { Cluster } from '../policy/cluster.ts'
import { Refusal } from '../refusal.ts'
import { attested, type Door, type PodAttestation } from './attestation.ts'
import { ClusterKeys, type ClusterKeysDeps } from './cluster_keys.ts'
import { podSelectors } from './selectors.ts'

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
  }),
})

interface Candidate {
  readonly cluster: Cluster
  readonly keys: ClusterKeys
}

export class ServiceAccountAttestor {
  readonly #byIssuer = new Map<string, Candidate[]>()

  /** @param previous whose keys are kept for clusters that have not changed */
  constructor(clusters: Iterable<Cluster>, deps: ClusterKeysDeps, previous?: ServiceAccountAttestor) {
    for (const cluster of clusters) {
      const candidate = { cluster, keys: previous?.keysOf(cluster) ?? new ClusterKeys(cluster, deps) }
      const sharing = this.#byIssuer.get(cluster.issuer)
      if (sharing) sharing.push(candidate)
      else this.#byIssuer.set(cluster.issuer, [candidate])
    }
  }

  /** @returns the keys of a cluster, if its record says the same of where they are */
  keysOf({ issuer, name, keySource, connection }: Cluster): ClusterKeys | undefined {
    const same = ({ cluster }: Candidate) =>
      cluster.name === name &&
      JSON.stringify([cluster.keySource, cluster.connection]) === JSON.stringify([keySource, connection])
    return this.#byIssuer.get(issuer)?.find(same)?.keys
  }

  /**
   * @param token the subject token
   * @param now seconds since the epoch
   * @throws Refusal
   */
  async attest(token: string, door: Door, now: number): Promise<PodAttestation> {
    try {
      return await this.#attest(token, door, now)
    } catch (error) {
      if (!(error instanceof JwtError)) throw error
      // A service account token has no more than these, so the names meet those of the refusals.
      throw new Refusal(`token_${error.code as Exclude<JwtError['code'], 'subject' | 'trust_domain'>}`, error.message)
    }
  }

  async #attest(token: string, door: Door, now: number): Promise<PodAttestation> {
    const jws = parseJwt(token)
    const { cluster, keys } = this.#selectCluster(jws.payload)
    const key = await keys.find(jws.header.kid)
    if (!key) throw new JwtError('key')
    if (!(await verifyCompact(jws, key))) throw new JwtError('signature')
    const { expiresAt } = checkTimes(jws.payload, now)
    const { data: claims } = ServiceAccountClaims.safeParse(jws.payload)
    if (!claims) throw new Refusal('token_claims', 'not the claims of a bound service account token')
    const { namespace, serviceaccount, pod = null, node = null } = claims['kubernetes.io']
    if (claims.sub !== `system:serviceaccount:${namespace}:${serviceaccount.name}`)
      throw new Refusal('token_claims', 'sub and kubernetes.io name different service accounts')
    if (!pod && cluster.requireBoundPod) throw new Refusal('token_unbound', 'bound to no pod')
    if (expiresAt - claims.iat > cluster.maxTokenLifetimeSeconds)
      throw new Refusal('token_lifetime', `made to live more than ${cluster.maxTokenLifetimeSeconds} s`)
    keys.prove(key)
    return attested({
      kind: 'pod',
      door,
      cluster: cluster.name,
      namespace,
      serviceAccount: serviceaccount,
      pod,
      node: node && { name: node.name, uid: node.uid ?? null },
      selectors: podSelectors({
        namespace,
        serviceAccountName: serviceaccount.name,
        pod,
        nodeName: node?.name ?? null,
      }),
      live: false,
      expiresAt,
    })
  }

  /**
   * Issuer and audience together select one record, and only its keys are tried (T-3). Every audience of the token must
   * be that record's: a token that is also good elsewhere could have come from there.
   */
  #selectCluster({ iss, aud }: Readonly<Record<string, unknown>>): Candidate {
    const sharing = typeof iss === 'string' ? this.#byIssuer.get(iss) : undefined
    if (!sharing) throw new JwtError('issuer')
    const audience = parseAudience(aud)
    const candidate = sharing.find(({ cluster }) => audience.every((value) => cluster.audiences.includes(value)))
    if (!candidate) throw new JwtError('audience')
    return candidate
  }
}
