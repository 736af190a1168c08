/** From the terms of a grant to a signed SVID. Nothing else makes one. */

import type { AlgorithmName } from '../keys/algorithms.ts'
import { signCompact } from '../keys/jws.ts'
import { type PublicJwk, type Signer, SigningError } from '../keys/signer.ts'
import type { Grant, JwtGrant, X509Grant } from './policy/authorize.ts'
import { isInternalGrant } from './policy/internal_grant.ts'
import { Refusal } from './refusal.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'
import { isReserved } from './spiffe/reserved.ts'
import { signX509Svid, type X509Authority, type X509SvidTerms } from './spiffe/x509_svid.ts'

/** Where signers come from. */
export interface Signers {
  /**
   * @param alg null for whatever the first key makes
   * @throws Refusal `keys_unavailable` or `signing_unavailable`
   */
  signer(alg: AlgorithmName | null): Promise<Signer>
}

/** Where certificates come from. */
export interface X509Authorities {
  /**
   * @returns the one that signs
   * @throws Refusal `x509_not_configured`, `keys_unavailable` or `signing_unavailable`
   */
  x509Authority(): Promise<X509Authority>
  /**
   * @returns the certificates of all that have signed what may still be valid, DER
   * @throws Refusal `keys_unavailable`
   */
  x509Authorities(): Promise<readonly Uint8Array<ArrayBuffer>[]>
}

/** Before now, for those whose clock is a little behind (XS-14). */
const BACKDATED_SECONDS = 10

/** Long enough for a KMS that throttles to have caught its breath. */
const SIGNING_RETRY_AFTER_SECONDS = 2

/**
 * @param jti names this one token
 * @param now seconds since the epoch
 * @throws Refusal `spiffe_id_reserved`
 * @see [JWT-SVID §3](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#3-jwt-claims)
 */
export function mint(grant: JwtGrant, iss: string, jti: string, now: number): JwtSvidClaims {
  checkReserved(grant)
  const { spiffeId, audience, ttlSeconds, notAfter, claims } = grant
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
 * @param publicKey SubjectPublicKeyInfo, DER
 * @param authority that is to sign, and is not outlived
 * @param now seconds since the epoch
 * @throws Refusal `spiffe_id_reserved`, or `signing_unavailable` where the authority is at its end
 * @see [X509-SVID §3](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#3-hierarchy)
 */
export function mintX509(
  grant: X509Grant,
  publicKey: ArrayBuffer,
  authority: Pick<X509Authority, 'notAfter'>,
  now: number,
): X509SvidTerms {
  checkReserved(grant)
  const { spiffeId, dnsNames, ttlSeconds } = grant
  if (authority.notAfter <= now)
    throw new Refusal(
      'signing_unavailable',
      'the certificate of the authority has expired',
      SIGNING_RETRY_AFTER_SECONDS,
    )
  const notAfter = Math.min(now + ttlSeconds, grant.notAfter, authority.notAfter)
  return { spiffeId, dnsNames, publicKey, notBefore: now - BACKDATED_SECONDS, notAfter }
}

/** Authorizing refuses these too. Here it holds for every grant there will ever be (T-5). */
function checkReserved(grant: Grant): void {
  if (isReserved(grant.spiffeId) && !isInternalGrant(grant))
    throw new Refusal('spiffe_id_reserved', 'nothing but the issuer itself has such an identity')
}

/**
 * @returns the claims as a JWT-SVID, and the public half of the key that signed it
 * @throws Refusal `keys_unavailable` or `signing_unavailable`
 */
export async function sign(
  claims: JwtSvidClaims,
  grant: JwtGrant,
  keyRing: Signers,
): Promise<{ svid: string; publicJwk: PublicJwk }> {
  return signing(async () => {
    const signer = await keyRing.signer(grant.alg)
    const { kid, alg } = signer.publicJwk
    return { svid: await signCompact({ alg, kid, typ: 'JWT' }, claims, signer), publicJwk: signer.publicJwk }
  })
}

/**
 * @returns the terms as an X.509-SVID, DER
 * @throws Refusal `signing_unavailable`
 */
export async function signX509(terms: X509SvidTerms, authority: X509Authority): Promise<Uint8Array<ArrayBuffer>> {
  return signing(() => signX509Svid(terms, authority))
}

/** @throws Refusal in the place of a SigningError */
async function signing<T>(sign: () => Promise<T>): Promise<T> {
  try {
    return await sign()
  } catch (error) {
    if (!(error instanceof SigningError)) throw error
    throw new Refusal('signing_unavailable', error.code, SIGNING_RETRY_AFTER_SECONDS)
  }
}
