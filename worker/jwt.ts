/**
 * What every JWT must pass, whoever signed it: the first half of checking a service account token and a JWT-SVID.
 *
 * @see [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)
 * @see [RFC 8725](https://www.rfc-editor.org/rfc/rfc8725)
 */

import { JwsError, type JwsErrorCode, parseCompact, type UnverifiedJws } from '../keys/jws.ts'
import { parseJsonObject } from './strict_json.ts'

/** No token of a sane size is larger, and it bounds the work that a hostile one can cause. */
const MAX_TOKEN_BYTES = 16_384
/** How far a peer's clock may be ahead of ours. `exp` gets no such leeway: kube-apiserver gives none either. */
export const CLOCK_SKEW_SECONDS = 30

/** Why a JWT is not taken. */
export type JwtErrorCode =
  | 'too_large'
  | JwsErrorCode
  | 'claims'
  | 'issuer'
  | 'audience'
  | 'subject'
  | 'trust_domain'
  | 'key'
  | 'signature'
  | 'expired'
  | 'not_yet_valid'

/** Thrown wherever a JWT is checked. Never holds any of the token. */
export class JwtError extends Error {
  override readonly name = 'JwtError'
  readonly code: JwtErrorCode

  constructor(code: JwtErrorCode) {
    super(`not an acceptable JWT: ${code.replaceAll('_', ' ')}`)
    this.code = code
  }
}

/**
 * Reads a token without believing it.
 *
 * @param token JWS Compact Serialization
 * @param ignored header members that may be there and mean nothing
 * @throws JwtError
 */
export function parseJwt(token: string, ignored: readonly string[] = []): UnverifiedJws {
  if (token.length > MAX_TOKEN_BYTES) throw new JwtError('too_large')
  let jws: UnverifiedJws
  try {
    jws = parseCompact(token, parseJsonObject, ignored)
  } catch (error) {
    throw new JwtError(error instanceof JwsError ? error.code : 'malformed')
  }
  if (hasLookalikeClaim(jws.payload)) throw new JwtError('claims')
  return jws
}

/**
 * Checks `exp`, `nbf` and `iat`. `exp` must be there.
 *
 * @param now seconds since the epoch
 * @returns the token's times, in seconds since the epoch; a null `issuedAt` means that it does not say
 * @throws JwtError `claims`, `expired` or `not_yet_valid`
 * @see [RFC 7519 §4.1.4](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4)
 */
export function checkTimes(
  { exp, nbf, iat }: Readonly<Record<string, unknown>>,
  now: number,
): { expiresAt: number; issuedAt: number | null } {
  if (!isTime(exp) || !(nbf === undefined || isTime(nbf)) || !(iat === undefined || isTime(iat)))
    throw new JwtError('claims')
  if (exp <= now) throw new JwtError('expired')
  if (Math.max(nbf ?? 0, iat ?? 0) > now + CLOCK_SKEW_SECONDS) throw new JwtError('not_yet_valid')
  return { expiresAt: exp, issuedAt: iat ?? null }
}

/**
 * @returns the audiences of an `aud` claim: one string, or a list of at least one
 * @throws JwtError `claims`
 * @see [RFC 7519 §4.1.3](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3)
 */
export function parseAudience(aud: unknown): readonly string[] {
  if (typeof aud === 'string') return [aud]
  if (!Array.isArray(aud) || aud.length === 0 || !aud.every((value) => typeof value === 'string'))
    throw new JwtError('claims')
  return aud
}

/** A NumericDate in whole seconds, small enough for every language's integers. */
function isTime(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

const REGISTERED_CLAIMS = ['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti']

/**
 * Whether a decoder that ignores case, as Go's does, would take some claim for a registered one: `SUB`, or `ſub` with
 * the long s, which only upper-casing first brings down to ASCII. Such a token means two things to two readers.
 */
function hasLookalikeClaim(payload: object): boolean {
  return Object.keys(payload).some(
    (name) => !REGISTERED_CLAIMS.includes(name) && REGISTERED_CLAIMS.includes(name.toUpperCase().toLowerCase()),
  )
}
