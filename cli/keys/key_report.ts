/** Where every key stands, with the evidence: what the worker says, and what the issuer really answers with. */

import { X509Certificate } from 'node:crypto'
import type { KeyUse } from '../../keys/signer.ts'
import { Failure } from '../failure.ts'
import { formatTime, printable, table } from '../terminal.ts'
import { type Keys, type KeysClient, type SigningKey, VARIABLES } from './keys_client.ts'
import { fetchPublishedKeys } from './published_keys.ts'

export interface KeyEvidence {
  readonly kid: string
  /** Whether the issuer answers with it; null if that is not known. */
  readonly published: boolean | null
  /** Whether every client has had the time to see it. */
  readonly safe: boolean
}

/** What the issuer answered with, found through discovery. */
export interface Published {
  readonly url: string
  readonly sha256: string
  /** Whether the worker says the same. */
  readonly current: boolean
}

export interface KeyReport extends Keys {
  readonly published: Published | null
  /** Why that is not known. */
  readonly publishedProblem: string | null
  readonly evidence: readonly KeyEvidence[]
}

/** @throws Failure if the worker does not say */
export async function readKeyReport(issuer: string, client: KeysClient): Promise<KeyReport> {
  return reportOf(issuer, await client.keys())
}

/** @returns the report with what the issuer answers now, or why that is not known */
export async function reportOf(issuer: string, keys: Keys): Promise<KeyReport> {
  try {
    const { url, sha256, kids } = await fetchPublishedKeys(issuer)
    const published = { url, sha256, current: sha256 === keys.jwks.sha256 }
    return { ...keys, published, publishedProblem: null, evidence: evidenceOf(keys, kids) }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return { ...keys, published: null, publishedProblem: error.message, evidence: evidenceOf(keys, null) }
  }
}

function evidenceOf({ keys, now }: Keys, kids: ReadonlySet<string> | null): KeyEvidence[] {
  return keys.map(({ kid, phase, safeAt }) => ({
    kid,
    published: kids?.has(kid) ?? null,
    safe: phase === 'active' || (phase === 'published' && safeAt !== null && safeAt <= now),
  }))
}

const KEPT = { local: 'worker', awskms: 'AWS KMS', wrapped: 'worker, wrapped' } as const

/** @returns the keys as a table, and under it what the issuer answers with */
export function describeKeys({ keys, now, jwks, published, publishedProblem, evidence }: KeyReport): string {
  const rows = keys.map((key, index) => [
    key.kid,
    key.alg,
    KEPT[key.keeper],
    originOf(key),
    key.phase,
    formatTime(key.since),
    answered(evidence[index]),
    nextStep(key, now),
  ])
  const seen =
    published === null
      ? `What the issuer answers with is not known: ${publishedProblem}`
      : published.current
        ? `${published.url} answers with what the worker says: sha256 ${published.sha256}`
        : `${published.url} answers with sha256 ${published.sha256}, but the worker says ${jwks.sha256 || 'that it has nothing to answer with'}. A cache in between may hold it for a while.`
  return `${table([['KID', 'ALG', 'KEPT BY', 'FROM', 'PHASE', 'SINCE', 'ANSWERED', 'NEXT'], ...rows])}\n${printable(seen)}\n`
}

function answered(evidence: KeyEvidence | undefined): string {
  if (!evidence || evidence.published === null) return 'unknown'
  return evidence.published ? 'yes' : 'no'
}

function nextStep(
  { phase, made, safeAt, dueAt, goneAt, failed }: SigningKey,
  now: number,
  use: KeyUse = 'jwt-svid',
): string {
  const document = use === 'jwt-svid' ? 'the JWKS' : 'the bundle'
  const step = {
    announced: () => 'is published',
    published: () =>
      safeAt === null
        ? 'may sign, it is not known when'
        : safeAt <= now
          ? `may sign since ${formatTime(safeAt)}`
          : `may sign from ${formatTime(safeAt)}`,
    active: () =>
      dueAt !== null
        ? `its successor signs from ${formatTime(dueAt)}`
        : made
          ? 'none by itself'
          : `the order of ${VARIABLES[use]} decides`,
    retiring: () => (goneAt === null ? `leaves ${document}` : `leaves ${document} at ${formatTime(goneAt)}`),
  }[phase]()
  return failed === null ? step : `${step}; it could not sign: ${failed}`
}

/** @returns what signs X.509-SVIDs as a table; nothing where there is nothing */
export function describeAuthorities({ authorities, now }: Keys): string {
  if (authorities.length === 0) return ''
  const rows = authorities.map((key) => [
    key.kid,
    key.alg,
    KEPT[key.keeper],
    originOf(key),
    key.phase,
    formatTime(key.since),
    certificateEnd(key.certificate),
    nextStep(key, now, 'x509-svid'),
  ])
  return table([['CA KEY', 'ALG', 'KEPT BY', 'FROM', 'PHASE', 'SINCE', 'CERTIFICATE ENDS', 'NEXT'], ...rows])
}

function originOf({ made, entry }: SigningKey): string {
  return made ? 'the worker' : entry === null ? 'listed no more' : `entry ${entry}`
}

function certificateEnd(certificate: string | null): string {
  if (certificate === null) return 'not signed yet'
  try {
    const { validToDate } = new X509Certificate(Buffer.from(certificate, 'base64'))
    return formatTime(Math.floor(validToDate.getTime() / 1000))
  } catch {
    return 'not a certificate'
  }
}

/** @returns what is wrong, what is left over and what was revoked; nothing if there is none of it */
export function describeTroubles({ problems, orphans, revoked }: Keys): string {
  return [
    ...problems.map(({ use, entry, reason }) => `${VARIABLES[use]} entry ${entry}: ${reason}`),
    ...orphans.map(
      (id) => `KMS may have a key that the worker does not use: look for the tag spiffe-edge:creation=${id}`,
    ),
    ...revoked.map(({ kid, revokedAt }) => `${kid} was revoked at ${formatTime(revokedAt)}`),
  ]
    .map((line) => `${printable(line)}\n`)
    .join('')
}

/** KM-9. What an account really has stands in its Service Quotas alone. */
const QUOTA = `AWS allows so many cryptographic operations a second in an account and region, for ECC and RSA keys apart. What it documents
as default is 1000 each; older copies have 300 for ECC and 500 for RSA. They are shared with everything else in the account.
`

/** @returns the use of KMS hour by hour, and what it counts against; nothing where none is used */
export function describeKms({ kms }: Keys): string {
  if (kms === null) return ''
  const rows = kms.hours.map(({ start, calls, throttled, failed, meanMilliseconds, slowestMilliseconds }) => [
    formatTime(start),
    ...[calls, throttled, failed, Math.round(meanMilliseconds), Math.round(slowestMilliseconds)].map(String),
  ])
  const heading = ['KMS, HOUR OF', 'CALLS', 'THROTTLED', 'FAILED', 'MEAN MS', 'SLOWEST MS']
  return `${table([heading, ...rows])}\n${QUOTA}`
}
