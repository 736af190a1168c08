/** START HERE for keys: what it takes to sign, wherever the private key lives. */

import type { AlgorithmName } from './algorithms.ts'

/** The public half, with exactly the members that the strictest relying parties allow (`kid` is its RFC 7638 thumbprint). */
export type PublicJwk =
  | { kty: 'EC'; use: 'sig'; alg: AlgorithmName; kid: string; crv: string; x: string; y: string }
  | { kty: 'RSA'; use: 'sig'; alg: AlgorithmName; kid: string; n: string; e: string }

/**
 * What a key signs. One that signed both would let a certificate pass for a token somewhere, or the reverse (BU-9).
 *
 * @see [SPIFFE bundle §4.2.2](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#422-public-key-use)
 */
export type KeyUse = 'jwt-svid' | 'x509-svid'

export interface Signer {
  readonly publicJwk: PublicJwk
  /**
   * @param signingInput the bytes to sign, not their digest
   * @returns the signature in JOSE form: R‖S for ECDSA (RFC 7518 §3.4), the plain octets for RSA
   * @throws SigningError, and nothing else
   */
  sign(signingInput: Uint8Array): Promise<Uint8Array>
}

/** Why there is no signature. Names carry no key id, ARN or message of the key's keeper. */
export type SigningErrorCode =
  /** The keeper of the key asks us to slow down. */
  | 'throttled'
  /** It did not answer in time, could not be reached, or failed inside. */
  | 'unavailable'
  /** Our credentials do not allow it. */
  | 'denied'
  /** The key is disabled, pending deletion or gone. */
  | 'key_unusable'
  /** The key is of another usage, key spec or algorithm than configured. */
  | 'key_mismatch'
  /** The signature came from another key than the pinned one, or is not one. */
  | 'wrong_signature'
  /** The key has been revoked, for ever. */
  | 'revoked'
  /** The key has not been published for long enough. */
  | 'not_safe_yet'

/** Thrown by every {@link Signer}. The code is all it says: a message of the key's keeper could hold an ARN. */
export class SigningError extends Error {
  override readonly name = 'SigningError'
  readonly code: SigningErrorCode

  constructor(code: SigningErrorCode) {
    super(`signing failed: ${code}`)
    this.code = code
  }
}
