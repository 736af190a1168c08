/**
 * PKCS #10 certification requests: whose key one is for, proven by its own signature. Of all else that a request says,
 * nothing is read (T-22).
 *
 * The library is loaded only when there is a request to read: it costs about 20 ms of start-up.
 *
 * @see [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)
 */

import type { PublicKey } from '@peculiar/x509'
import { ALGORITHMS } from './algorithms.ts'
import { readElement, SEQUENCE } from './der.ts'
import { isSignedBy, readSigned, type Signed } from './signed.ts'
import { importPublicKey, PublicKeyError } from './spki.ts'

/** A request with an RSA-8192 key is below 3 KiB; attributes that nobody reads may add to it. */
const MAX_CSR_BYTES = 8192

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
  // The library is one of decorators, and wants this before it is there itself.
  await import('@abraham/reflection')
  const { Pkcs10CertificateRequest } = await import('@peculiar/x509')
  let signed: Signed | null
  let publicKey: PublicKey
  try {
    // What stands behind a request is not signed, and another reader might make something of it.
    if (readElement(der, SEQUENCE).rest.length > 0) throw new CsrError('more than one request')
    signed = readSigned(der)
    publicKey = new Pkcs10CertificateRequest(der).publicKey
  } catch (error) {
    throw error instanceof CsrError ? error : new CsrError('not a PKCS #10 request')
  }
  if (!signed) throw new CsrError('signed by an algorithm that is not taken')
  const key = await importPublicKey(publicKey, ALGORITHMS[signed.alg].hash).catch((error) => {
    throw error instanceof PublicKeyError ? new CsrError(error.message) : error
  })
  if (!(await isSignedBy(signed, key))) throw new CsrError('not signed by its own key')
  return publicKey.rawData
}
