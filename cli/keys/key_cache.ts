/**
 * The key caches of one cluster's API servers, from the outside. kube-apiserver looks at a JWKS again only when a token
 * comes whose `kid` it does not know (OK-5); so whoever wants it to look sends one.
 */

import { randomInt, randomUUID } from 'node:crypto'
import type { AlgorithmName } from '../../keys/algorithms.ts'
import { signCompact } from '../../keys/jws.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { isRecord } from '../admin_client.ts'
import type { KubeApi } from '../cluster/kubeconfig.ts'
import { Failure } from '../failure.ts'
import type { Terminal } from '../terminal.ts'
import { MetricError, readKeySets } from './key_set_metric.ts'
import type { Unproven, UnprovenReason } from './unproven.ts'

/** Which one of them answers is chosen anew for each connection: of ten, so many tries miss one once in 10^8 times. */
const TRIES_PER_APISERVER = 20
/** So many looks more, and the chance that there is another one that has not answered is below 1 in 100. */
const CONFIRMATIONS_PER_APISERVER = 4
const PAUSE_MS = 100
/** So often in a row, and it is no accident. */
const MAX_FAILURES = 5
/** Nudges before each look, at most: whoever takes turns in a fixed order would have one nudged and another one asked. */
const MAX_NUDGES = 3
/** A token that was good is so for 10 s more, whatever has become of its key: kube-apiserver remembers. */
const CANARY_ROUNDS = 8
const CANARY_PAUSE_MS = 5000
const CANARIES_PER_APISERVER = 5
const FIRST_CANARIES = 5
const NUDGE_LIFETIME_SECONDS = 60

const WHOAMI = '/apis/authentication.k8s.io/v1/selfsubjectreviews'

/** What an API server needs to see in a token to look for its key. */
export interface Nudge {
  readonly issuer: string
  /** null if it is not known; a key is looked for before the audience is. */
  readonly audience: string | null
  readonly alg: AlgorithmName
}

export interface KeySetSpread {
  /** How many different API servers have been seen. */
  readonly seen: number
  readonly problem: Unproven | null
}

type Whoami =
  /** With the time of the API server's own clock, in seconds since the epoch. */
  | { readonly is: 'refused'; readonly at: number | null }
  | { readonly is: 'accepted' }
  | { readonly is: 'unclear'; readonly detail: string }

/**
 * Makes the API servers look at the JWKS until as many as there should be say that they hold the right one.
 *
 * @param count how many there are
 * @param isRight whether the JWKS with this SHA-256 is the right one
 */
export async function spreadKeySet(
  api: KubeApi,
  nudge: Nudge,
  count: number,
  isRight: (sha256: string) => Promise<boolean>,
  terminal: Terminal,
): Promise<KeySetSpread> {
  const nextToken = await nudges(nudge)
  const seen = new Map<string, string>()
  const allRight = async () => {
    for (const keySet of new Set(seen.values())) if (!(await isRight(keySet))) return false
    return true
  }
  const end = (reason: UnprovenReason, detail: string | null = null) => ({
    seen: seen.size,
    problem: { reason, detail },
  })
  let settled = 0
  let unanswered = 0
  let unread = 0
  let unreadable = ''
  for (let tries = 0; tries < count * TRIES_PER_APISERVER || settled > 0; tries++) {
    if (tries > 0) await terminal.wait(PAUSE_MS)
    for (let left = 1 + randomInt(MAX_NUDGES); left > 0; left--) {
      const answer = await whoami(api, await nextToken())
      if (answer.is === 'accepted') return end('vouched_for')
      unanswered = answer.is === 'unclear' ? unanswered + 1 : 0
      if (answer.is === 'unclear' && unanswered === MAX_FAILURES) return end('unreachable', answer.detail)
    }
    // Whoever may not see the metrics can still nudge.
    if (unread === MAX_FAILURES) continue
    try {
      for (const [apiserver, keySet] of readKeySets(await api.metrics(), nudge.issuer)) seen.set(apiserver, keySet)
      unread = 0
    } catch (error) {
      if (!(error instanceof Failure || error instanceof MetricError)) throw error
      settled = 0
      unread++
      unreadable = error.message
      continue
    }
    if (seen.size > count) return end('more_apiservers')
    // One that was not counted must have the occasion to show itself.
    settled = seen.size === count && (await allRight()) ? settled + 1 : 0
    if (settled > CONFIRMATIONS_PER_APISERVER * (count + 1)) return { seen: seen.size, problem: null }
  }
  if (unread > 0) return end('metrics_unreadable', unreadable)
  if (seen.size === 0) return end('metric_missing')
  if (!(await allRight())) return end('other_key_set')
  return end('fewer_apiservers')
}

/**
 * @param canary a token of the key that is dead
 * @returns null if the API server accepts it, as it must before its refusal can prove anything
 */
export async function canaryAccepted(api: KubeApi, canary: string): Promise<Unproven | null> {
  let problem: Unproven = { reason: 'canary_never_accepted', detail: null }
  for (let tries = 0; tries < FIRST_CANARIES; tries++) {
    const answer = await whoami(api, canary)
    if (answer.is === 'accepted') return null
    problem =
      answer.is === 'unclear'
        ? { reason: 'unreachable', detail: answer.detail }
        : { reason: 'canary_never_accepted', detail: null }
  }
  return problem
}

/**
 * @param canary a token that was accepted before
 * @param expiresAt when it would be refused anyway, in seconds since the epoch
 * @param count how many API servers there are
 * @returns null if it is refused, over as many connections as that takes
 */
export async function canaryRefused(
  api: KubeApi,
  { token, expiresAt }: { readonly token: string; readonly expiresAt: number },
  nudge: Nudge,
  count: number,
  terminal: Terminal,
): Promise<Unproven | null> {
  const nextToken = await nudges(nudge)
  let problem: Unproven | null = null
  for (let round = 0; round < CANARY_ROUNDS; round++) {
    if (round > 0) {
      await terminal.wait(CANARY_PAUSE_MS)
      for (let tries = 0; tries < 2 * count; tries++) await whoami(api, await nextToken())
    }
    problem = null
    for (let tries = 0; tries < CANARIES_PER_APISERVER * count + 1 && problem === null; tries++)
      problem = judgeCanary(await whoami(api, token), expiresAt)
    if (problem === null || problem.reason === 'canary_expired') return problem
  }
  return problem
}

/** What has expired is refused by everybody, and says nothing of its key. */
function judgeCanary(answer: Whoami, expiresAt: number): Unproven | null {
  if (answer.is === 'accepted') return { reason: 'canary_still_accepted', detail: null }
  if (answer.is === 'unclear') return { reason: 'unreachable', detail: answer.detail }
  return answer.at !== null && answer.at < expiresAt ? null : { reason: 'canary_expired', detail: null }
}

/** @see [SelfSubjectReview](https://kubernetes.io/docs/reference/kubernetes-api/definitions/self-subject-review-v1-authentication/) */
async function whoami(api: KubeApi, token: string): Promise<Whoami> {
  try {
    const question = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' }
    const { status, headers, body } = await api.askAs(token, WHOAMI, question)
    if (status === 401) {
      const at = Date.parse(String(headers.date ?? '')) / 1000
      return { is: 'refused', at: Number.isNaN(at) ? null : at }
    }
    if (status === 201 && isRecord(body?.status) && isRecord(body.status.userInfo)) {
      const { username } = body.status.userInfo
      if (typeof username === 'string' && username !== '' && username !== 'system:anonymous') return { is: 'accepted' }
    }
    return { is: 'unclear', detail: `${api.server}: answers ${status} to who it takes a token for` }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { is: 'unclear', detail: error.message }
  }
}

/** @returns tokens that are all in order, but for a key that nobody has ever published, by another name each time */
async function nudges({ issuer, audience, alg }: Nudge): Promise<() => Promise<string>> {
  const { publicJwk, privateJwk } = await generateLocalKey(alg)
  const signer = await localSigner(publicJwk, privateJwk)
  return () => {
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: issuer,
      ...(audience !== null && { aud: audience }),
      sub: 'spiffe-edge-nudge',
      iat: now,
      exp: now + NUDGE_LIFETIME_SECONDS,
      jti: randomUUID(),
    }
    return signCompact({ alg, kid: randomUUID(), typ: 'JWT' }, claims, signer)
  }
}
