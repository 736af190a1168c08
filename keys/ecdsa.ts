/**
 * ECDSA signatures from the DER form that KMS gives, and X.509 carries, into the fixed-length form of JOSE, and back.
 *
 * A signature has one DER encoding, so anything else is refused here instead of being repaired: a lenient reader would
 * make several signatures of one.
 *
 * @see [RFC 3279 §2.2.3](https://www.rfc-editor.org/rfc/rfc3279#section-2.2.3) for `SEQUENCE { INTEGER r, INTEGER s }`
 * @see [RFC 7518 §3.4](https://www.rfc-editor.org/rfc/rfc7518#section-3.4) for R‖S
 */

import { type Element, INTEGER, integer, readElement, SEQUENCE, sequence } from './der.ts'
import { SigningError } from './signer.ts'

/**
 * @param der the whole signature, with nothing behind it
 * @param scalarBytes length of R and of S in the result
 * @returns R‖S. That both are smaller than the order of the curve is for the verification to say.
 * @throws SigningError `wrong_signature` if `der` is not the DER encoding of two positive integers that fit
 * @see [X.690](https://www.itu.int/rec/T-REC-X.690) §8.3.2 and §10.1: shortest integers, shortest definite lengths
 */
export function joseSignature(der: Uint8Array, scalarBytes: number): Uint8Array<ArrayBuffer> {
  const pair = read(der, SEQUENCE)
  const r = read(pair.contents, INTEGER)
  const s = read(r.rest, INTEGER)
  if (pair.rest.length > 0 || s.rest.length > 0) throw new SigningError('wrong_signature')
  const signature = new Uint8Array(2 * scalarBytes)
  placeScalar(r.contents, signature.subarray(0, scalarBytes))
  placeScalar(s.contents, signature.subarray(scalarBytes))
  return signature
}

/**
 * @param jose R‖S, both of the same length, as a {@link Signer} gives it
 * @returns its DER encoding, as X.509 carries it
 */
export function derSignature(jose: Uint8Array): Uint8Array<ArrayBuffer> {
  const middle = jose.length / 2
  return sequence(integer(jose.subarray(0, middle)), integer(jose.subarray(middle)))
}

function read(der: Uint8Array, tag: number): Element {
  try {
    return readElement(der as Uint8Array<ArrayBuffer>, tag)
  } catch {
    throw new SigningError('wrong_signature')
  }
}

/** Writes a positive INTEGER, right-aligned, into a place that is all zero. */
function placeScalar(integer: Uint8Array, place: Uint8Array): void {
  const [first = 0, second = 0] = integer
  const negative = first >= 0x80
  // A zero octet in front is only there to keep the next one from being read as a sign. This refuses zero as well.
  const padded = first === 0 && second < 0x80
  const magnitude = first === 0 ? integer.subarray(1) : integer
  if (negative || padded || magnitude.length > place.length) throw new SigningError('wrong_signature')
  place.set(magnitude, place.length - magnitude.length)
}
