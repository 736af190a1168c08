/** The keys of a worker by its admin API: where each of them stands, and the two changes that an administrator can make (D3, D4). */

import { type AlgorithmName, isAlgorithmName } from '../../keys/algorithms.ts'
import { JwsError, parseCompact } from '../../keys/jws.ts'
import type { KeyUse } from '../../keys/signer.ts'
import { ClusterName } from '../../worker/policy/cluster.ts'
import { parseJsonObject } from '../../worker/strict_json.ts'
import { type AdminClient, bodyOf, isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { formatTime, printable } from '../terminal.ts'

export const KEEPERS = ['local', 'awskms', 'wrapped'] as const
export const PHASES = ['announced', 'published', 'active', 'retiring'] as const
export const KEY_FAILURES = [
  'key_mismatch',
  'denied',
  'key_unusable',
  'unavailable',
  'throttled',
  'revoked',
  'wrong_signature',
] as const

/** All times are seconds since the epoch, by the clock of the worker's state. */
export interface SigningKey {
  readonly kid: string
  readonly alg: AlgorithmName
  readonly keeper: (typeof KEEPERS)[number]
  /** By the worker itself. */
  readonly made: boolean
  /** Its place in SIGNING_KEY or CA_KEY, from 1; null: it is not listed, or no more. */
  readonly entry: number | null
  readonly phase: (typeof PHASES)[number]
  /** When the phase began. */
  readonly since: number
  readonly publishedAt: number | null
  /** Published: from when on every cache of every client has had the time to see it. */
  readonly safeAt: number | null
  /** Active and made by the worker: when its successor takes over by itself. */
  readonly dueAt: number | null
  /** Retiring: when it is published no more. */
  readonly goneAt: number | null
  /** Why it could not sign when it was last asked to. */
  readonly failed: (typeof KEY_FAILURES)[number] | null
}

/** A key that signs X.509-SVIDs. */
export interface Authority extends SigningKey {
  /** DER in base64; null before the key has signed it. */
  readonly certificate: string | null
}

export interface KmsHour {
  readonly start: number
  readonly calls: number
  readonly throttled: number
  readonly failed: number
  readonly meanMilliseconds: number
  readonly slowestMilliseconds: number
}

export interface Keys {
  /** By the clock of the worker's state. */
  readonly now: number
  /** Of the octets that the worker answers with; empty where it has nothing to answer with. */
  readonly jwks: { readonly sha256: string }
  /** How long an isolate may go on signing with what it knew. */
  readonly signingLeaseSeconds: number
  readonly defaultAlg: AlgorithmName | null
  /** What signs JWT-SVIDs. */
  readonly keys: readonly SigningKey[]
  readonly authorities: readonly Authority[]
  /** Entries of SIGNING_KEY and CA_KEY for which there is no key, or none that may sign. */
  readonly problems: readonly { readonly use: KeyUse; readonly entry: number; readonly reason: string }[]
  /** KMS keys that may exist although the worker does not use them: by the value of their tag `spiffe-edge:creation`. */
  readonly orphans: readonly string[]
  readonly revoked: readonly { readonly kid: string; readonly revokedAt: number }[]
  /** Newest hour first. null where no KMS is used. */
  readonly kms: { readonly hours: readonly KmsHour[] } | null
}

/** A token of the dead key, for one cluster's API server: as long as that accepts it, the key is not dead there (T-21). */
export interface Canary {
  readonly cluster: string
  readonly audience: string
  /** Never shown to anybody but that API server. */
  readonly token: string
  readonly alg: AlgorithmName
  /** Seconds since the epoch. */
  readonly expiresAt: number
}

export interface Revocation {
  readonly kid: string
  readonly use: KeyUse
  readonly revokedAt: number
  /** After it no isolate signs with the key. */
  readonly signingStopsAt: number
  /** One for each cluster; none if the key was revoked before. */
  readonly canaries: readonly Canary[]
  /** Why there is none although there should be: a code of the worker's. */
  readonly canaryProblem: string | null
}

export interface KeysClient {
  /** @throws Failure */
  keys(): Promise<Keys>
  /**
   * @param alg of the keys that are to be rotated; null is the default one
   * @returns what holds now
   * @throws Failure: above all if it is not safe yet, or there is no successor
   */
  rotate(use: KeyUse, alg: AlgorithmName | null): Promise<Keys>
  /** @throws Failure */
  revoke(kid: string): Promise<Revocation>
}

export function keysClient({ issuer, call }: AdminClient): KeysClient {
  const wrong = (what: string) => new Failure(`${issuer} answers with something that is not ${what}`)
  return {
    async keys() {
      const body = bodyOf(await call('keys'))
      if (!isKeys(body)) throw wrong('its list of keys')
      return body
    },
    async rotate(use, alg) {
      const answer = await call('keys/rotate', { use, alg })
      const { status, body } = answer
      if (status === 409 && body?.error === 'not_safe_yet' && isTime(body.safeAt))
        throw new Failure(`not rotated: the worker says that it is safe from ${formatTime(body.safeAt)} on`)
      if (status === 409 && body?.error === 'no_successor') throw new Failure(`not rotated: ${noSuccessor(use)}`)
      if (status === 409) throw new Failure('the worker refuses (409). Nothing was changed')
      const keys = bodyOf(answer)
      if (!isKeys(keys)) throw wrong('its list of keys: see with status what holds now')
      return keys
    },
    async revoke(kid) {
      const answer = await call('keys/revoke', { kid })
      if (answer.status === 404 && answer.body?.error === 'no_such_key')
        throw new Failure(`the worker has no key ${printable(kid)}. See with status which ones it has`)
      const revocation = revocationOf(bodyOf(answer))
      // An answer about another key must not be shown as what happened to this one.
      if (revocation?.kid !== kid) throw wrong('a revocation of this key: see with status what holds now')
      return revocation
    },
  }
}

export const USES: readonly KeyUse[] = ['jwt-svid', 'x509-svid']
/** Where an operator lists the keys for each use. */
export const VARIABLES = { 'jwt-svid': 'SIGNING_KEY', 'x509-svid': 'CA_KEY' } as const satisfies Record<KeyUse, string>

export function noSuccessor(use: KeyUse): string {
  return `no key that the worker makes itself is waiting. With keys that are listed, the order of ${VARIABLES[use]} decides`
}

/** ECMA-262 §21.4.1.1: later than this there is no date. */
const LAST_TIME = 8_640_000_000_000

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isTime(value: unknown): value is number {
  return isCount(value) && value <= LAST_TIME
}

function isDuration(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

function isOneOf(list: readonly string[], value: unknown): boolean {
  return typeof value === 'string' && list.includes(value)
}

function isListOf(value: unknown, isEntry: (entry: Record<string, unknown>) => boolean): boolean {
  return Array.isArray(value) && value.every((entry) => isRecord(entry) && isEntry(entry))
}

function isJwks(value: unknown): value is { sha256: string } {
  return isRecord(value) && typeof value.sha256 === 'string' && /^(?:[0-9a-f]{64})?$/.test(value.sha256)
}

function isSigningKey(key: Record<string, unknown>): boolean {
  return (
    isText(key.kid) &&
    isAlgorithmName(key.alg) &&
    isOneOf(KEEPERS, key.keeper) &&
    typeof key.made === 'boolean' &&
    (key.entry === null || (isCount(key.entry) && key.entry > 0)) &&
    isOneOf(PHASES, key.phase) &&
    isTime(key.since) &&
    [key.publishedAt, key.safeAt, key.dueAt, key.goneAt].every((time) => time === null || isTime(time)) &&
    (key.failed === null || isOneOf(KEY_FAILURES, key.failed))
  )
}

function isKmsHour(hour: Record<string, unknown>): boolean {
  return (
    isTime(hour.start) &&
    [hour.calls, hour.throttled, hour.failed].every(isCount) &&
    [hour.meanMilliseconds, hour.slowestMilliseconds].every(isDuration)
  )
}

function isKeys(value: unknown): value is Keys {
  return (
    isRecord(value) &&
    isTime(value.now) &&
    isJwks(value.jwks) &&
    isCount(value.signingLeaseSeconds) &&
    (value.defaultAlg === null || isAlgorithmName(value.defaultAlg)) &&
    isListOf(value.keys, isSigningKey) &&
    isListOf(value.authorities, (key) => isSigningKey(key) && (key.certificate === null || isText(key.certificate))) &&
    isListOf(value.problems, ({ use, entry, reason }) => isOneOf(USES, use) && isCount(entry) && isText(reason)) &&
    Array.isArray(value.orphans) &&
    value.orphans.every(isText) &&
    isListOf(value.revoked, ({ kid, revokedAt }) => isText(kid) && isTime(revokedAt)) &&
    (value.kms === null || (isRecord(value.kms) && isListOf(value.kms.hours, isKmsHour)))
  )
}

/** Its `jwks` is not read: what counts is what the issuer answers with. */
function revocationOf(body: unknown): Revocation | null {
  if (!isRecord(body)) return null
  const { kid, use, revokedAt, signingStopsAt, canaries, canaryProblem } = body
  if (!isText(kid) || !isOneOf(USES, use) || !isTime(revokedAt) || !isTime(signingStopsAt)) return null
  if (canaryProblem !== null && !(isText(canaryProblem) && /^[a-z_]{1,64}$/.test(canaryProblem))) return null
  if (!Array.isArray(canaries)) return null
  const read = canaries.map((entry) => canaryOf(entry, kid)).filter((canary) => canary !== null)
  if (read.length < canaries.length || new Set(read.map(({ cluster }) => cluster)).size < read.length) return null
  return { kid, use: use as KeyUse, revokedAt, signingStopsAt, canaries: read, canaryProblem }
}

/** A token of another key would prove nothing about this one. */
function canaryOf(entry: unknown, kid: string): Canary | null {
  if (!isRecord(entry)) return null
  const { cluster, audience, token } = entry
  if (!ClusterName.safeParse(cluster).success || !isText(audience) || !isText(token)) return null
  try {
    const { header, payload } = parseCompact(token, parseJsonObject)
    if (header.kid !== kid || !isTime(payload.exp)) return null
    return { cluster: cluster as string, audience, token, alg: header.alg, expiresAt: payload.exp }
  } catch (error) {
    if (!(error instanceof JwsError)) throw error
    return null
  }
}
