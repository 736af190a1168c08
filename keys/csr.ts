/**
 * PKCS #10 certification requests: whose key one is for, proven by its own signature. Of all else that a request says,
 * nothing is read (T-22).
 *
 * The only importer of @peculiar/x509, and only when there is a request to read: it costs about 20 ms of start-up.
 *
 * @see [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)
 */

/** A request with an RSA-4096 key is below 2 KiB; attributes that nobody reads may add to it. */
const MAX_CSR_BYTES = 8192

/** Thrown where a text is no request, or one that its key has not signed. Holds none of it. */
export class CsrError extends Error {
  override readonly name = 'CsrError'
}

/**
 * @param der the whole of it is one request, whose signature is right
 * @returns the SubjectPublicKeyInfo of its key, DER
 * @throws CsrError
 */
export async function readCsr(der: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  if (der.byteLength > MAX_CSR_BYTES) throw new CsrError('too large')
  // The library is one of decorators, and wants this before it is there itself.
  await import('@abraham/reflection')
  const { Pkcs10CertificateRequest } = await import('@peculiar/x509')
  let csr: InstanceType<typeof Pkcs10CertificateRequest>
  try {
    csr = new Pkcs10CertificateRequest(der)
  } catch {
    throw new CsrError('not a PKCS #10 request')
  }
  // What stands behind a request is not signed, and another reader might make something of it.
  if (csr.rawData.byteLength !== der.byteLength || lengthOf(der) !== der.byteLength)
    throw new CsrError('more than one request')
  // An algorithm that there is not, or a key that is none, throws here.
  const signed = await csr.verify().catch(() => false)
  if (!signed) throw new CsrError('not signed by its own key')
  return csr.publicKey.rawData
}

/** The length of the first DER element, which is all there should be. */
function lengthOf(der: Uint8Array): number {
  const [, first = 0, ...rest] = der.subarray(0, 6)
  if (first < 0x80) return 2 + first
  const octets = first & 0x7f
  return 2 + octets + rest.slice(0, octets).reduce((length, octet) => length * 256 + octet, 0)
}
