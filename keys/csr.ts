/**
 * PKCS #10 certification requests: whose key one is for, proven by its own signature. Of all else that a request says,
 * nothing is read (T-22).
 *
 * The only importer of @peculiar/x509, and only when there is a request to read: it costs about 20 ms of start-up.
 *
 * @see [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)
 */

import type { PublicKey } from '@peculiar/x509'
import { ALGORITHMS, MIN_RSA_MODULUS_BITS } from './algorithms.ts'
import { isSame, readElement, SEQUENCE } from './der.ts'

/** A request with an RSA-8192 key is below 3 KiB; attributes that nobody reads may add to it. */
const MAX_CSR_BYTES = 8192
/** Twice the largest that anybody uses. To verify with a key takes time that grows with the square of its size. */
const MAX_RSA_MODULUS_BITS = 8192
/** 65537, big-endian: the exponent that every maker of keys picks, and the only one that no reader refuses. */
const RSA_EXPONENT = Uint8Array.of(1, 0, 1)

/** Keys that are certified, as WebCrypto imports them (XS-13). */
const KINDS = [ALGORITHMS.ES256.key, ALGORITHMS.ES384.key, ALGORITHMS.ES512.key, ALGORITHMS.RS256.key]
const HASHES: ReadonlySet<unknown> = new Set(Object.values(ALGORITHMS).map(({ hash }) => hash))

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
  let csr: InstanceType<typeof Pkcs10CertificateRequest>
  let publicKey: PublicKey
  let behind: Uint8Array
  let hash: unknown
  try {
    behind = readElement(der, SEQUENCE).rest
    csr = new Pkcs10CertificateRequest(der)
    publicKey = csr.publicKey
    hash = (csr.signatureAlgorithm as { hash?: { name?: unknown } }).hash?.name
  } catch {
    throw new CsrError('not a PKCS #10 request')
  }
  // What stands behind a request is not signed, and another reader might make something of it.
  if (behind.length > 0) throw new CsrError('more than one request')
  // Before its signature: what a key of no allowed size costs to verify is not known.
  await checkKey(publicKey)
  if (!HASHES.has(hash)) throw new CsrError('signed with a weak hash, or none')
  // An algorithm that there is not throws here.
  const signed = await csr.verify().catch(() => false)
  if (!signed) throw new CsrError('not signed by its own key')
  return publicKey.rawData
}

/** @throws CsrError */
async function checkKey({ algorithm, rawData }: PublicKey): Promise<void> {
  const { name, namedCurve } = algorithm as { name: string; namedCurve?: string }
  const kind = KINDS.find((key) => key.name === name && key.namedCurve === namedCurve)
  if (!kind) throw new CsrError('not a kind of key that is certified')
  // That a point is on its curve is seen here. What is not in the one form that keys are written in would be certified so.
  const key = await crypto.subtle.importKey('spki', rawData, kind, true, ['verify']).catch(() => null)
  if (!key || !isSame((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer, rawData))
    throw new CsrError('not a public key')
  if (name === 'ECDSA') return
  const { modulusLength, publicExponent } = key.algorithm as unknown as RsaKeyAlgorithm
  if (modulusLength < MIN_RSA_MODULUS_BITS || !isSame(publicExponent, RSA_EXPONENT)) throw new CsrError('key too weak')
  if (modulusLength > MAX_RSA_MODULUS_BITS) throw new CsrError('key too large')
}

interface RsaKeyAlgorithm {
  readonly modulusLength: number
  readonly publicExponent: Uint8Array
}
