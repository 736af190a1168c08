/** What the environment says about signing. Read by every isolate, and by the one place that remembers the keys. */

import { ALGORITHMS } from '../keys/algorithms.ts'
import {
  formatKeyReference,
  type KeyReference,
  parseKeyReference,
  parseWrappingReference,
  type WrappingReference,
} from '../keys/key_reference.ts'
import type { KmsAccess } from '../keys/kms.ts'
import type { KeyUse } from '../keys/signer.ts'
import { endpointUrlProblem } from './endpoint_url.ts'
import { KEY_TIMES, type KeyTimes, parseKeyTimes } from './key_times.ts'
import { readKmsAccess } from './kms_access.ts'

export type Mode = 'production' | 'development'

/** What a storage belongs to. Keys of one trust domain, issuer or mode must never turn up in another (T-12). */
export interface Stamp {
  readonly mode: string
  readonly issuer: string
  readonly trustDomain: string
}

/** An entry of the operator's lists. */
export interface ListedKey {
  readonly use: KeyUse
  /** Its place in the list for that use, from 1. */
  readonly entry: number
  readonly reference: KeyReference
  /** One text for what keys of this entry come from, which no other entry has. */
  readonly source: string
}

/** The variable that has the list for each use. */
export const KEY_VARIABLES = { 'jwt-svid': 'SIGNING_KEY', 'x509-svid': 'CA_KEY' } as const satisfies Record<
  KeyUse,
  string
>

/** What signing takes. */
export interface KeySettings {
  readonly stamp: Stamp
  /** For each use in the operator's order: of those for one algorithm the first signs, and all are published. */
  readonly sources: readonly ListedKey[]
  /** null where nothing is kept in KMS, nor can have been. */
  readonly kms: KmsAccess | null
  /** The first wraps, all unwrap. */
  readonly wrapping: readonly WrappingReference[]
  readonly times: KeyTimes
}

/** A JWKS of more keys is beyond what some relying parties keep. */
const MAX_KEYS = 20

/**
 * The part of the environment that signing takes, for who has to do with nothing else.
 *
 * @returns null if something is wrong with it; the log of whoever reads all of the environment says what
 */
export function parseKeySettings(env: object): KeySettings | null {
  const problems: string[] = []
  const mode = (env as Record<string, unknown>).MODE === 'development' ? 'development' : 'production'
  const settings = readKeySettings(env, mode, problems)
  return problems.length > 0 ? null : settings
}

/** @param problems what is wrong is added to it, each with the name of its variable */
export function readKeySettings(env: object, mode: Mode, problems: string[]): KeySettings {
  const variables = env as Record<string, unknown>
  const read = (name: string): string | null => {
    const value = variables[name]
    if (typeof value !== 'string' || value === '') return null
    if (name.startsWith('AWS_') && value !== value.trim()) problems.push(`${name}: has blanks around it`)
    return value
  }
  const need = (name: string): string => {
    const value = read(name)
    if (value === null) problems.push(`${name}: is not set`)
    return value ?? ''
  }

  if ((read('MODE') ?? 'production') !== mode) problems.push(`MODE: must be ${mode} here`)
  const allowLoopbackHttp = mode === 'development'
  const issuer = need('ISSUER')
  const issuerProblem = issuer === '' ? null : describeIssuer(issuer, allowLoopbackHttp)
  if (issuerProblem) problems.push(`ISSUER: ${issuerProblem}`)
  const trustDomain = need('TRUST_DOMAIN')
  const sources = [
    ...parseKeyList('jwt-svid', need('SIGNING_KEY'), mode, problems),
    ...parseKeyList('x509-svid', read('CA_KEY') ?? '', mode, problems),
  ]
  const wrapping = isCryptoKey(variables.WRAPPING_KEY)
    ? [{ keeper: 'secret' as const, secret: variables.WRAPPING_KEY }]
    : parseWrappingKeys(read('WRAPPING_KEY') ?? '', problems)
  const wrapped = sources.find(({ reference }) => reference.keeper === 'wrapped')
  if (wrapping.length === 0 && wrapped)
    problems.push(`WRAPPING_KEY: is not set, and ${KEY_VARIABLES[wrapped.use]} lists wrapped keys`)
  // A key that is listed no more signs until its successor may, and one that we have made is to be deleted after that.
  const { AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ROLE_ARN } = variables
  const hasAccess = Boolean(AWS_REGION && (AWS_ROLE_ARN || (AWS_ACCESS_KEY_ID && AWS_SECRET_ACCESS_KEY)))
  const usesKms =
    hasAccess || [...sources.map(({ reference }) => reference), ...wrapping].some(({ keeper }) => keeper === 'awskms')
  const kms = usesKms
    ? readKmsAccess({ read, need, binding: (name) => variables[name] }, allowLoopbackHttp, problems)
    : null
  const times = parseTimes(read('ROTATE_AFTER_DAYS'), read('KEY_TIMES'), mode, problems)
  return { stamp: { mode, issuer, trustDomain }, sources, kms, wrapping, times }
}

/** Shorter, and the next key would have to be ready before the last one has left. */
const MIN_ROTATE_AFTER_DAYS = 1
/** Longer, and nobody knows any more that it works. */
const MAX_ROTATE_AFTER_DAYS = 366

function parseTimes(days: string | null, short: string | null, mode: Mode, problems: string[]): KeyTimes {
  if (short !== null) {
    const times = parseKeyTimes(short)
    if (mode === 'production') problems.push('KEY_TIMES: is for development')
    else if (!times) problems.push('KEY_TIMES: is not JSON with the times of keys')
    else return times
  }
  if (days === null) return KEY_TIMES
  const count = /^\d{1,3}$/.test(days) ? Number(days) : 0
  if (count < MIN_ROTATE_AFTER_DAYS || count > MAX_ROTATE_AFTER_DAYS)
    problems.push(`ROTATE_AFTER_DAYS: is not a number from ${MIN_ROTATE_AFTER_DAYS} to ${MAX_ROTATE_AFTER_DAYS}`)
  return { ...KEY_TIMES, replaceAfter: count * 86_400 }
}

/** Others than the first are for what was wrapped before. */
const MAX_WRAPPING_KEYS = 4

function parseWrappingKeys(text: string, problems: string[]): readonly WrappingReference[] {
  const entries = text.split(/[\s,]+/).filter(Boolean)
  if (entries.length > MAX_WRAPPING_KEYS) problems.push(`WRAPPING_KEY: more than ${MAX_WRAPPING_KEYS} keys`)
  return entries.flatMap((entry, index) => {
    const reference = parseWrappingReference(entry)
    if (!reference)
      problems.push(`WRAPPING_KEY: entry ${index + 1} is neither awskms:<key> nor aes:<base64 of 32 octets>`)
    return reference ?? []
  })
}

function isCryptoKey(value: unknown): value is CryptoKey {
  return value instanceof CryptoKey
}

/** @see [OpenID Connect Discovery §3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata) */
export function describeIssuer(issuer: string, allowLoopbackHttp: boolean): string | null {
  const problem = endpointUrlProblem(issuer, allowLoopbackHttp)
  if (problem) return problem
  if (issuer.endsWith('/')) return 'ends in a slash'
  // What else a path may hold, a router could take for a pattern or a client could spell in another way.
  return /^(?:\/[A-Za-z0-9._~-]+)*$/.test(new URL(issuer).pathname.replace(/^\/$/, ''))
    ? null
    : 'has a path with other characters than A-Z a-z 0-9 . _ ~ -'
}

/**
 * @param text entries, separated by blanks or commas
 * @param problems what is wrong is added to it
 */
export function parseKeyList(use: KeyUse, text: string, mode: Mode, problems: string[]): readonly ListedKey[] {
  const variable = KEY_VARIABLES[use]
  const listed: ListedKey[] = []
  const names = new Set<string>()
  const entries = text.split(/[\s,]+/).filter(Boolean)
  for (const [index, entry] of entries.entries()) {
    const where = `${variable}: entry ${index + 1}`
    const reference = parseKeyReference(entry)
    if (!reference) {
      problems.push(`${where}: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without`)
      continue
    }
    const name = formatKeyReference(reference)
    if (reference.keeper === 'local' && mode === 'production') problems.push(`${where}: local keys are for development`)
    if (use === 'x509-svid' && reference.alg !== null && ALGORITHMS[reference.alg].signatureOid === null)
      problems.push(`${where}: certificates are not signed with ${reference.alg}`)
    if (names.has(name)) problems.push(`${where}: is listed twice`)
    names.add(name)
    listed.push({ use, entry: index + 1, reference, source: sourceOf(use, name) })
  }
  if (text !== '' && entries.length === 0) problems.push(`${variable}: names no key`)
  if (listed.length > MAX_KEYS) problems.push(`${variable}: more than ${MAX_KEYS} keys`)
  return listed
}

/** Keys of one list are none of the other's, also where both say the same (BU-9). */
function sourceOf(use: KeyUse, name: string): string {
  return use === 'jwt-svid' ? name : `${use} ${name}`
}
