/**
 * How the worker shows a cluster's API server who it is. By default with a JWT-SVID that it signs for itself: the API
 * server trusts this issuer already, so nothing has to be stored anywhere (D5, T-9).
 */

import type { Log } from '../audit.ts'
import { FETCH_TIMEOUT_MS, fetchText, type HttpService } from '../fetch_json.ts'
import { mint, type Signers, sign } from '../mint.ts'
import type { Cluster } from '../policy/cluster.ts'
import { internalGrant } from '../policy/internal_grant.ts'
import { SharedCall } from '../shared_call.ts'
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts'

/** Long enough for one review with every look-up, short enough that a recorded token is worth little (T-9). */
const SELF_TTL_SECONDS = 60
/** Half of its life: what is sent has always as much before it, and KMS is asked twice a minute at most. */
const SELF_KEPT_SECONDS = SELF_TTL_SECONDS / 2
/** What an `Authorization` header can hold (RFC 6750 §2.1). */
const BEARER = /^[A-Za-z0-9._~+/-]+=*$/

/** The platform's bindings by name: those that are called `CLUSTER_…`, and no other (T-10). */
export type ClusterBindings = ReadonlyMap<string, HttpService | string>

/** What the outside world is to this module. */
export interface ReviewerDeps {
  /** Our issuer URL. */
  readonly issuer: string
  readonly trustDomain: TrustDomain
  readonly keyRing: Signers
  readonly bindings: ClusterBindings
  /** @returns what was sealed at run time for that purpose, or null if that can't be opened */
  unseal(sealed: string, purpose: string): Promise<string | null>
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
}

/** Thrown where there is no token to show. Holds none of it. */
export class ReviewerError extends Error {
  override readonly name = 'ReviewerError'
}

/** What the worker calls itself at that cluster, and nowhere else. No workload has such an ID (T-5). */
export function reviewerId(trustDomain: TrustDomain, cluster: string): SpiffeId {
  return SpiffeId.of(trustDomain, `/spiffe-edge/reviewer/${cluster}`)
}

/**
 * The audience of the worker's own tokens for that cluster. Below the issuer's URL, where no registration and no record
 * of a cluster can name one (T-7).
 */
export function reviewerAudience(issuer: string, cluster: string): string {
  return `${issuer}/reviewer/${cluster}`
}

/** The reviewer's username where the AuthenticationConfiguration gives names in the manner of service accounts. */
export function reviewerUsername(cluster: string): string {
  return `spiffe:spiffe-edge:reviewer:${cluster}`
}

/** Whether that cluster's API server has to know the worker as a user: where it looks things up as itself. */
export function reviewsItself({ connection, reviewer }: Cluster): boolean {
  return connection !== null && reviewer.by === 'self'
}

/**
 * @param reviewed the token that is being reviewed; null where the call is about no token
 * @returns the bearer token to call the cluster's API with
 * @throws ReviewerError, Refusal
 */
export type ReviewerToken = (reviewed: string | null) => Promise<string>

export function reviewerToken(cluster: Cluster, deps: ReviewerDeps): ReviewerToken {
  const { reviewer } = cluster
  switch (reviewer.by) {
    case 'self':
      return signedForItself(cluster.name, deps)
    case 'client':
      return async (reviewed) => {
        if (reviewed === null) throw new ReviewerError('there is no client whose token could be shown')
        return reviewed
      }
    case 'file':
      return async () => {
        const disk = deps.bindings.get(reviewer.binding)
        if (typeof disk !== 'object') throw new ReviewerError(`no such binding as ${reviewer.binding}`)
        const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
        // The host means nothing to a disk.
        const read = fetchText(`http://disk/${reviewer.path.replace(/^\/+/, '')}`, { through: disk, signal })
        return bearer(await read.catch(() => ''), `${reviewer.path} in ${reviewer.binding}`)
      }
    case 'secret':
      return async () => {
        const secret = deps.bindings.get(reviewer.binding)
        return bearer(typeof secret === 'string' ? secret : '', reviewer.binding)
      }
    case 'sealed':
      return async () => bearer((await deps.unseal(reviewer.sealed, reviewer.purpose)) ?? '', reviewer.purpose)
  }
}

/** @throws ReviewerError if `text` is no token: a newline in a header is an error that would repeat it */
function bearer(text: string, source: string): string {
  const token = text.trim()
  if (!BEARER.test(token)) throw new ReviewerError(`there is no token in ${source}`)
  return token
}

function signedForItself(cluster: string, deps: ReviewerDeps): ReviewerToken {
  const { issuer, trustDomain, keyRing, now, waitUntil, log } = deps
  const signing = new SharedCall<string>()
  let kept: { readonly token: string; readonly until: number } | null = null

  const signOne = async () => {
    const issuedAt = now()
    const grant = internalGrant({
      spiffeId: reviewerId(trustDomain, cluster),
      audience: reviewerAudience(issuer, cluster),
      ttlSeconds: SELF_TTL_SECONDS,
      notAfter: issuedAt + SELF_TTL_SECONDS,
    })
    const claims = mint(grant, issuer, crypto.randomUUID(), issuedAt)
    const { svid, publicJwk } = await sign(claims, grant, keyRing)
    // Every signature has its line, so that what KMS has signed can be compared with what was meant.
    log({ event: 'reviewer_issued', cluster, id: claims.jti, expires: claims.exp, kid: publicJwk.kid })
    kept = { token: svid, until: issuedAt + SELF_KEPT_SECONDS }
    return svid
  }
  return async () => (kept && now() < kept.until ? kept.token : signing.run(signOne, waitUntil))
}
