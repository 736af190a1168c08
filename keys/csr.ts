/**
 * PKCS #10 certification requests: whose key one is for, proven by its own signature. Of all else that a request says,
 * nothing is read (T-22).
 *
 * @see [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)
 * @see docs/adr/0007-own-writer-library-reader.md
 */

import { ALGORITHMS } from './algorithms.ts'
import { element, INTEGER, integer, isSame, readElement, SEQUENCE, sequence } from './der.ts'
import { isSignedBy, readSigned, type Signed, writeSigned } from './signed.ts'
import type { Signer } from './signer.ts'
import { importPublicKey, PublicKeyError } from './spki.ts'

/** A request with an RSA-8192 key is below 3 KiB; attributes that nobody reads may add to it. */
const MAX_CSR_BYTES = 8192

/** `v1`, which is written as 0. */
const VERSION_1 = integer(Uint8Array.of(0))
/** `attributes`: [0], implicit. */
const ATTRIBUTES = 0xa0

/** Thrown where a text is no request, or one that its key has not signed, or for a key that is not certified. Holds none of it. */
export class CsrError extends Error {
  override readonly name = 'CsrError'
}

/**
 * @param der the whole of it is one request, whose signature is right
 * @returns the SubjectPublicKeyInfo of its key, DER: P-256, P-384, P-521, or RSA of 2048 to 8192 bits with exponent 65537
 * @throws CsrError
 */
export async function readCsr(der: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  if (der.byteLength > MAX_CSR_BYTES) throw new CsrError('too large')
  let signed: Signed | null
  let publicKey: Uint8Array<ArrayBuffer>
  try {
    // What stands behind a request is not signed, and another reader might make something of it.
    if (readElement(der, SEQUENCE).rest.length > 0) throw new CsrError('more than one request')
    signed = readSigned(der)
    publicKey = readPublicKey(der)
  } catch (error) {
    throw error instanceof CsrError ? error : new CsrError('not a PKCS #10 request')
  }
  if (!signed) throw new CsrError('signed by an algorithm that is not taken')
  const key = await importPublicKey(publicKey, ALGORITHMS[signed.alg].hash).catch((error) => {
    throw error instanceof PublicKeyError ? new CsrError(error.message) : error
  })
  if (!(await isSignedBy(signed, key))) throw new CsrError('not signed by its own key')
  return publicKey.slice().buffer
}

/**
 * Where the key stands in a request. The subject before it and the attributes behind it are passed over: whatever they say
 * is said for nothing. Some clients leave the attributes out.
 *
 * @throws TypeError
 * @see [RFC 2986 §4.1](https://www.rfc-editor.org/rfc/rfc2986#section-4.1)
 */
function readPublicKey(der: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const info = readElement(readElement(der, SEQUENCE).contents, SEQUENCE)
  const version = readElement(info.contents, INTEGER)
  if (!isSame(version.whole, VERSION_1)) throw new TypeError('another version')
  const subject = readElement(version.rest, SEQUENCE)
  const publicKey = readElement(subject.rest, SEQUENCE)
  if (publicKey.rest.length > 0 && readElement(publicKey.rest, ATTRIBUTES).rest.length > 0)
    throw new TypeError('more than a request has')
  return publicKey.whole
}

/**
 * @param publicKey SubjectPublicKeyInfo, DER
 * @param signer of the same key
 * @returns a request, DER, that says nothing but whose key it is for
 * @throws SigningError
 */
export function writeCsr(publicKey: Uint8Array, signer: Signer): Promise<Uint8Array<ArrayBuffer>> {
  return writeSigned(sequence(VERSION_1, sequence(), publicKey, element(ATTRIBUTES)), signer)
}
