/** From the terms of a grant to a signed JWT-SVID. Nothing else makes one. */

import type { AlgorithmName } from '../keys/algorithms.ts'
import { signCompact } from '../keys/jws.ts'
import { type PublicJwk, type Signer, SigningError } from '../keys/signer.ts'
import type { Grant } from './policy/authorize.ts'
import { isInternalGrant } from './policy/internal_grant.ts'
import { Refusal } from './refusal.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'
import { isReserved } from './spiffe/reserved.ts'

/** Where signers come from. */
export interface Signers {
  /**
   * @param alg null for whatever the first key makes
   * @throws Refusal `keys_unavailable` or `signing_unavailable`
   */
  signer(alg: AlgorithmName | null): Promise<Signer>
}

/** Long enough for a KMS that throttles to have caught its breath. */
const SIGNING_RETRY_AFTER_SECONDS = 2

/**
 * @param jti names this one token
 * @param now seconds since the epoch
 * @throws Refusal `spiffe_id_reserved`
 * @see [JWT-SVID §3](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#3-jwt-claims)
 */
export function mint(grant: Grant, iss: string, jti: string, now: number): JwtSvidClaims {
  const { spiffeId, audience, ttlSeconds, notAfter, claims } = grant
  // Authorizing refuses these too. Here it holds for every grant there will ever be (T-5).
  if (isReserved(spiffeId) && !isInternalGrant(grant))
    throw new Refusal('spiffe_id_reserved', 'nothing but the issuer itself has such an identity')
  return {
    // First, so that none of them could take the place of one below.
    ...claims,
    iss,
    sub: spiffeId.toString(),
    aud: audience.length === 1 ? (audience[0] as string) : audience,
    exp: Math.min(now + ttlSeconds, notAfter),
    iat: now,
    jti,
  }
}

/**
 * @returns the claims as a JWT-SVID, and the public half of the key that signed it
 * @throws Refusal `keys_unavailable` or `signing_unavailable`
 */
export async function sign(
  claims: JwtSvidClaims,
  grant: Grant,
  keyRing: Signers,
): Promise<{ svid: string; publicJwk: PublicJwk }> {
  try {
    const signer = await keyRing.signer(grant.alg)
    const { kid, alg } = signer.publicJwk
    return { svid: await signCompact({ alg, kid, typ: 'JWT' }, claims, signer), publicJwk: signer.publicJwk }
  } catch (error) {
    if (!(error instanceof SigningError)) throw error
    throw new Refusal('signing_unavailable', error.code, SIGNING_RETRY_AFTER_SECONDS)
  }
}
