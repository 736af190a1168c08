/** What a person's login has given, as it is kept. All of it is secret. */

import type { Credential } from '../exec_credential.ts'

/**
 * A token with less than this before it is replaced: a request is some time on its way, and the ExecCredential says ten
 * seconds less than the token does.
 */
export const NEARLY_OVER_SECONDS = 30

/** An SVID that is asked for with the person's token. */
export interface WantedSvid {
  readonly issuer: string
  readonly audience: readonly string[]
  readonly spiffeId: string | null
}

/** @returns by what an SVID is found again; null for the token itself */
export function nameOf(svid: WantedSvid | null): string | null {
  return svid && JSON.stringify([svid.issuer, [...svid.audience].sort(), svid.spiffeId])
}

export interface ExchangedSvid extends Credential {
  /** What was asked for, and of whom. */
  readonly wanted: string
}

export interface Session extends Credential {
  /** `sub` of the ID token: a refreshed one must have the same. */
  readonly subject: string | null
  readonly refreshToken: string | null
  /** Got for the token. */
  readonly svids: readonly ExchangedSvid[]
}

/** What the ExecCredential takes off, and a little to get there: with less than this a token is of no use. */
export const LAST_USE_SECONDS = 12

/** @param now seconds since the epoch */
export function isFresh({ expiresAt }: Credential, now: number, marginSeconds = NEARLY_OVER_SECONDS): boolean {
  return expiresAt - now > marginSeconds
}

/**
 * @param wanted an SVID; null is the token itself
 * @returns null if there is none that will do
 */
export function freshCredential(
  session: Session | null,
  wanted: string | null,
  now: number,
  marginSeconds = NEARLY_OVER_SECONDS,
): Credential | null {
  const credential = wanted === null ? session : session?.svids.find((svid) => svid.wanted === wanted)
  return credential && isFresh(credential, now, marginSeconds) ? credential : null
}

export function formatSession(session: Session): string {
  return JSON.stringify(session)
}

/** @returns null if it is none */
export function parseSession(text: string): Session | null {
  let value: Partial<Record<keyof Session, unknown>>
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof value !== 'object' || value === null) return null
  const { subject = null, refreshToken = null, svids = [] } = value
  const isTextOrNull = (one: unknown) => one === null || typeof one === 'string'
  return isCredential(value) && isTextOrNull(subject) && isTextOrNull(refreshToken) && Array.isArray(svids)
    ? ({ ...value, subject, refreshToken, svids: svids.filter(isExchanged) } as Session)
    : null
}

function isCredential(value: Partial<Record<keyof Credential, unknown>>): boolean {
  return typeof value.token === 'string' && Number.isSafeInteger(value.expiresAt)
}

function isExchanged(value: unknown): value is ExchangedSvid {
  if (typeof value !== 'object' || value === null) return false
  return isCredential(value) && typeof (value as ExchangedSvid).wanted === 'string'
}
