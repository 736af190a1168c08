/**
 * JWT-SVIDs: the claims of ours, and what a finished one must pass.
 *
 * @see [JWT-SVID](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md)
 */

import { type VerificationKey, verifyCompact } from '../../keys/jws.ts'
import { checkTimes, JwtError, parseAudience, parseJwt } from '../jwt.ts'
import { SpiffeId, SpiffeIdError, type TrustDomain } from './id.ts'

/** Short enough that a stolen SVID is spent before it has travelled far. The same as SPIRE's. */
export const DEFAULT_JWT_SVID_TTL_SECONDS = 300
/** The longest life of a JWT-SVID, and so also how long a key must stay published after its last signature. */
export const MAX_JWT_SVID_TTL_SECONDS = 3600

/** The claims of a JWT-SVID of ours. Times are whole seconds since the epoch: AWS refuses anything else. */
export interface JwtSvidClaims {
  readonly iss: string
  readonly sub: string
  readonly aud: string | readonly string[]
  readonly exp: number
  readonly iat: number
  readonly jti: string
}

/** Whose SVIDs are taken, and for whom. */
export interface JwtSvidExpectation {
  readonly trustDomain: TrustDomain
  /** The required `iss`, or null where the trust domain's bundle alone decides. */
  readonly issuer: string | null
  readonly audience: string
  /** The trust domain's JWT authorities by `kid`, and nobody else's (JWT-SVID §6.2). */
  readonly keys: ReadonlyMap<string, VerificationKey>
}

/**
 * @param token JWS Compact Serialization
 * @param now seconds since the epoch
 * @returns what the token says, and may be believed in; times are seconds since the epoch, and `issuedAt` is null where it does
 *   not say
 * @throws JwtError
 * @see [JWT-SVID §4](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#4-token-signing-and-validation)
 */
export async function verifyJwtSvid(
  token: string,
  expected: JwtSvidExpectation,
  now: number,
): Promise<{ spiffeId: SpiffeId; audience: readonly string[]; expiresAt: number; issuedAt: number | null }> {
  const jws = parseJwt(token)
  const { iss, sub, aud } = jws.payload
  const spiffeId = parseSubject(sub)
  if (spiffeId.trustDomain.name !== expected.trustDomain.name) throw new JwtError('trust_domain')
  const key = expected.keys.get(jws.header.kid)
  if (!key) throw new JwtError('key')
  if (!(await verifyCompact(jws, key))) throw new JwtError('signature')
  if (expected.issuer !== null && iss !== expected.issuer) throw new JwtError('issuer')
  const { expiresAt, issuedAt } = checkTimes(jws.payload, now)
  const audience = parseAudience(aud)
  if (!audience.includes(expected.audience)) throw new JwtError('audience')
  return { spiffeId, audience, expiresAt, issuedAt }
}

function parseSubject(sub: unknown): SpiffeId {
  try {
    if (typeof sub === 'string') return SpiffeId.parse(sub)
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
  }
  throw new JwtError('subject')
}
