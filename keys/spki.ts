/**
 * Public keys as certificates and requests have them, of the kinds that are certified.
 *
 * @see [RFC 5280 §4.1.2.7](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7)
 */

import { ALGORITHMS, type Hash, MIN_RSA_MODULUS_BITS } from './algorithms.ts'
import { isSame, NULL, objectIdentifier, readElement, SEQUENCE, sequence } from './der.ts'

/** Twice the largest that anybody uses. To verify with a key takes time that grows with the square of its size. */
const MAX_RSA_MODULUS_BITS = 8192
/** 65537, big-endian: the exponent that every maker of keys picks, and the only one that no reader refuses. */
const RSA_EXPONENT = Uint8Array.of(1, 0, 1)

/**
 * AlgorithmIdentifiers, each in its one encoding, with what WebCrypto calls the same.
 *
 * @see [RFC 5480 §2.1.1](https://www.rfc-editor.org/rfc/rfc5480#section-2.1.1) for keys of a named curve
 * @see [RFC 3279 §2.3.1](https://www.rfc-editor.org/rfc/rfc3279#section-2.3.1) for RSA keys
 */
const KINDS = [
  { identifier: ecPublicKey('1.2.840.10045.3.1.7'), key: ALGORITHMS.ES256.key },
  { identifier: ecPublicKey('1.3.132.0.34'), key: ALGORITHMS.ES384.key },
  { identifier: ecPublicKey('1.3.132.0.35'), key: ALGORITHMS.ES512.key },
  { identifier: sequence(objectIdentifier('1.2.840.113549.1.1.1'), NULL), key: ALGORITHMS.RS256.key },
]

function ecPublicKey(namedCurve: string): Uint8Array {
  return sequence(objectIdentifier('1.2.840.10045.2.1'), objectIdentifier(namedCurve))
}

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
 * @param spki SubjectPublicKeyInfo, DER
 * @param hash what RSA signatures of the key are to be verified with; nothing to a key of a curve
 * @returns a key that verifies, extractable: P-256, P-384, P-521, or RSA of 2048 to 8192 bits with exponent 65537
 * @throws PublicKeyError
 */
export async function importPublicKey(spki: Uint8Array<ArrayBuffer>, hash: Hash): Promise<CryptoKey> {
  const kind = kindOf(spki)
  // That a point is on its curve is seen here. What is not in the one form that keys are written in would be certified so.
  const key = await crypto.subtle.importKey('spki', spki, { ...kind, hash }, true, ['verify']).catch(() => null)
  if (!key || !isSame((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer, spki))
    throw new PublicKeyError('encoding')
  if (kind.name === 'ECDSA') return key
  const { modulusLength, publicExponent } = key.algorithm as unknown as RsaKeyAlgorithm
  if (modulusLength < MIN_RSA_MODULUS_BITS || !isSame(publicExponent, RSA_EXPONENT))
    throw new PublicKeyError('too_weak')
  if (modulusLength > MAX_RSA_MODULUS_BITS) throw new PublicKeyError('too_large')
  return key
}

/**
 * @param spki SubjectPublicKeyInfo, DER
 * @returns whether {@link importPublicKey} would look at it at all
 * @throws PublicKeyError `encoding`
 */
export function isKnownKind(spki: Uint8Array<ArrayBuffer>): boolean {
  return findKind(spki) !== null
}

function kindOf(spki: Uint8Array<ArrayBuffer>): Kind {
  const kind = findKind(spki)
  if (!kind) throw new PublicKeyError('kind')
  return kind
}

function findKind(spki: Uint8Array<ArrayBuffer>): Kind | null {
  let identifier: Uint8Array
  try {
    identifier = readElement(readElement(spki, SEQUENCE).contents, SEQUENCE).whole
  } catch {
    throw new PublicKeyError('encoding')
  }
  return KINDS.find((known) => isSame(known.identifier, identifier))?.key ?? null
}

type Kind = (typeof KINDS)[number]['key']

interface RsaKeyAlgorithm {
  readonly modulusLength: number
  readonly publicExponent: Uint8Array
}
