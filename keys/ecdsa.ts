/**
 * ECDSA signatures from the DER form that KMS gives, and X.509 carries, into the fixed-length form of JOSE.
 *
 * A signature has one DER encoding, so anything else is refused here instead of being repaired: a lenient reader would
 * make several signatures of one.
 *
 * @see [RFC 3279 §2.2.3](https://www.rfc-editor.org/rfc/rfc3279#section-2.2.3) for `SEQUENCE { INTEGER r, INTEGER s }`
 * @see [RFC 7518 §3.4](https://www.rfc-editor.org/rfc/rfc7518#section-3.4) for R‖S
 */

import { SigningError } from './signer.ts'

const SEQUENCE = 0x30
const INTEGER = 0x02
/** Announces one length octet more. No signature of the three curves is long enough to need a second one. */
const LONG_FORM = 0x81

/**
 * @param der the whole signature, with nothing behind it
 * @param scalarBytes length of R and of S in the result
 * @returns R‖S. That both are smaller than the order of the curve is for the verification to say.
 * @throws SigningError `wrong_signature` if `der` is not the DER encoding of two positive integers that fit
 * @see [X.690](https://www.itu.int/rec/T-REC-X.690) §8.3.2 and §10.1: shortest integers, shortest definite lengths
 */
export function joseSignature(der: Uint8Array, scalarBytes: number): Uint8Array {
  const sequence = contents(der, SEQUENCE)
  const r = contents(sequence.inside, INTEGER)
  const s = contents(r.behind, INTEGER)
  if (sequence.behind.length > 0 || s.behind.length > 0) throw new SigningError('wrong_signature')
  const signature = new Uint8Array(2 * scalarBytes)
  placeScalar(r.inside, signature.subarray(0, scalarBytes))
  placeScalar(s.inside, signature.subarray(scalarBytes))
  return signature
}

/** Splits `der` into what its first element holds and what comes behind that element. */
function contents(der: Uint8Array, wantedTag: number): { inside: Uint8Array; behind: Uint8Array } {
  const [tag, short = Number.NaN, long = Number.NaN] = der
  const [start, length] = short === LONG_FORM ? [3, long] : [2, short]
  const shortest = short === LONG_FORM ? length >= 0x80 : length < 0x80
  // NaN, where the text ends too soon, fails the comparison.
  if (tag !== wantedTag || !shortest || !(start + length <= der.length)) throw new SigningError('wrong_signature')
  return { inside: der.subarray(start, start + length), behind: der.subarray(start + length) }
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
