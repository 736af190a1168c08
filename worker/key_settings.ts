/** What the environment says about signing. Read by every isolate, and by the one place that remembers the keys. */

import {
  formatKeyReference,
  type KeyReference,
  parseKeyReference,
  parseWrappingReference,
  type WrappingReference,
} from '../keys/key_reference.ts'
import type { KmsAccess } from '../keys/kms.ts'
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

/** What signing takes. */
export interface KeySettings {
  readonly stamp: Stamp
  /** In the operator's order: of those for one algorithm the first signs, and all are published. */
  readonly sources: readonly KeyReference[]
  /** null where nothing is kept in KMS, nor can have been. */
  readonly kms: KmsAccess | null
  /** The first wraps, all unwrap. */
  readonly wrapping: readonly WrappingReference[]
  readonly times: KeyTimes
}

/** A JWKS of more keys is beyond what some relying parties keep. */
const MAX_SIGNING_KEYS = 20

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
  const sources = parseSigningKeys(need('SIGNING_KEY'), mode, problems)
  const wrapping = isCryptoKey(variables.WRAPPING_KEY)
    ? [{ keeper: 'secret' as const, secret: variables.WRAPPING_KEY }]
    : parseWrappingKeys(read('WRAPPING_KEY') ?? '', problems)
  if (wrapping.length === 0 && sources.some(({ keeper }) => keeper === 'wrapped'))
    problems.push('WRAPPING_KEY: is not set, and SIGNING_KEY lists wrapped keys')
  // A key that is listed no more signs until its successor may, and one that we have made is to be deleted after that.
  const { AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ROLE_ARN } = variables
  const hasAccess = Boolean(AWS_REGION && (AWS_ROLE_ARN || (AWS_ACCESS_KEY_ID && AWS_SECRET_ACCESS_KEY)))
  const usesKms = hasAccess || [...sources, ...wrapping].some(({ keeper }) => keeper === 'awskms')
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

function parseSigningKeys(text: string, mode: Mode, problems: string[]): readonly KeyReference[] {
  const references: KeyReference[] = []
  const names = new Set<string>()
  for (const [index, entry] of text
    .split(/[\s,]+/)
    .filter(Boolean)
    .entries()) {
    const where = `SIGNING_KEY: entry ${index + 1}`
    const reference = parseKeyReference(entry)
    if (!reference) {
      problems.push(`${where}: is none of awskms:<key>, awskms, wrapped, local:<name>, each with ?alg=… or without`)
      continue
    }
    if (reference.keeper === 'local' && mode === 'production') problems.push(`${where}: local keys are for development`)
    if (names.has(formatKeyReference(reference))) problems.push(`${where}: is listed twice`)
    names.add(formatKeyReference(reference))
    references.push(reference)
  }
  if (text !== '' && names.size === 0 && problems.every((problem) => !problem.startsWith('SIGNING_KEY')))
    problems.push('SIGNING_KEY: names no key')
  if (references.length > MAX_SIGNING_KEYS) problems.push(`SIGNING_KEY: more than ${MAX_SIGNING_KEYS} keys`)
  return references
}
