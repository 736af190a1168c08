/**
 * Public keys as certificates and requests have them, of the kinds that are certified.
 *
 * @see [RFC 5280 §4.1.2.7](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7)
 */

import type { PublicKey } from '@peculiar/x509'
import { ALGORITHMS, type Hash, MIN_RSA_MODULUS_BITS } from './algorithms.ts'
import { isSame } from './der.ts'

/** Twice the largest that anybody uses. To verify with a key takes time that grows with the square of its size. */
const MAX_RSA_MODULUS_BITS = 8192
/** 65537, big-endian: the exponent that every maker of keys picks, and the only one that no reader refuses. */
const RSA_EXPONENT = Uint8Array.of(1, 0, 1)

const KINDS = [ALGORITHMS.ES256.key, ALGORITHMS.ES384.key, ALGORITHMS.ES512.key, ALGORITHMS.RS256.key]

/** Why a key is not certified. */
export type PublicKeyErrorCode = 'kind' | 'encoding' | 'too_weak' | 'too_large'

/** Thrown where a key is none, or not one that is certified. */
export class PublicKeyError extends Error {
  override readonly name = 'PublicKeyError'
  readonly code: PublicKeyErrorCode

  constructor(code: PublicKeyErrorCode) {
    super(`public key not taken: ${code.replace('_', ' ')}`)
    this.code = code
  }
}

/**
 * @param publicKey as the library has read it
 * @param hash what RSA signatures of the key are to be verified with; nothing to a key of a curve
 * @returns a key that verifies, extractable: P-256, P-384, P-521, or RSA of 2048 to 8192 bits with exponent 65537
 * @throws PublicKeyError
 */
export async function importPublicKey({ algorithm, rawData }: PublicKey, hash: Hash): Promise<CryptoKey> {
  const { name, namedCurve } = algorithm as { name: string; namedCurve?: string }
  const kind = KINDS.find((key) => key.name === name && key.namedCurve === namedCurve)
  if (!kind) throw new PublicKeyError('kind')
  // That a point is on its curve is seen here. What is not in the one form that keys are written in would be certified so.
  const key = await crypto.subtle.importKey('spki', rawData, { ...kind, hash }, true, ['verify']).catch(() => null)
  if (!key || !isSame((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer, rawData))
    throw new PublicKeyError('encoding')
  if (name === 'ECDSA') return key
  const { modulusLength, publicExponent } = key.algorithm as unknown as RsaKeyAlgorithm
  if (modulusLength < MIN_RSA_MODULUS_BITS || !isSame(publicExponent, RSA_EXPONENT))
    throw new PublicKeyError('too_weak')
  if (modulusLength > MAX_RSA_MODULUS_BITS) throw new PublicKeyError('too_large')
  return key
}

interface RsaKeyAlgorithm {
  readonly modulusLength: number
  readonly publicExponent: Uint8Array
}
