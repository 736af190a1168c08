/**
 * Certificates of others, as far as it takes to judge a path of them.
 *
 * What names, times and keys are is read from the octets themselves; extensions are read by a library, which is loaded only
 * when there is a certificate to read.
 *
 * @see [RFC 5280 §4](https://www.rfc-editor.org/rfc/rfc5280#section-4)
 */

import { explicit, INTEGER, integer, isSame, readElement, readTime, SEQUENCE } from './der.ts'
import { readParts, readSigned, type Signed } from './signed.ts'

/** A certificate that is believed without being verified: its own signature means nothing (RFC 5280 §6.1.1). */
export interface TrustAnchor {
  /** Name, DER, as {@link subject}. */
  readonly issuer: Uint8Array<ArrayBuffer>
  readonly subject: Uint8Array<ArrayBuffer>
  /** Seconds since the epoch, as {@link notAfter}. */
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array<ArrayBuffer>
  /** Each extension by its object identifier: whether it is critical. */
  readonly extensions: ReadonlyMap<string, boolean>
  /** URIs of the subject's alternative names. */
  readonly uris: readonly string[]
  readonly isCa: boolean
  /** null where there is no limit. */
  readonly pathLength: number | null
  /** Null where there is no such extension. */
  readonly keyUsage: {
    readonly digitalSignature: boolean
    readonly certSign: boolean
    readonly crlSign: boolean
  } | null
  /** Object identifiers, or null where there is no such extension. */
  readonly extendedKeyUsage: readonly string[] | null
}

export interface Certificate extends TrustAnchor {
  readonly signed: Signed
}

export type CertificateErrorCode = 'malformed' | 'version' | 'signature_algorithm' | 'extension_twice'

/** Thrown where a text is no certificate, or not one that we read. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'
  readonly code: CertificateErrorCode

  constructor(code: CertificateErrorCode) {
    super(`certificate not read: ${code.replaceAll('_', ' ')}`)
    this.code = code
  }
}

type Library = typeof import('@peculiar/x509')

/** A chain of the largest keys fits many times. */
const MAX_CERTIFICATE_BYTES = 16_384
const V3 = explicit(0, integer(Uint8Array.of(2)))

/**
 * @param der the whole of it is one certificate of version 3
 * @throws CertificateError
 */
export function readCertificate(der: Uint8Array<ArrayBuffer>): Promise<Certificate> {
  return reading(der, (x509) => {
    const signed = readSigned(der)
    if (!signed) throw new CertificateError('signature_algorithm')
    return { ...read(der, x509), signed }
  })
}

/**
 * @param der the whole of it is one certificate of version 3, signed by whatever algorithm
 * @throws CertificateError
 */
export function readTrustAnchor(der: Uint8Array<ArrayBuffer>): Promise<TrustAnchor> {
  return reading(der, (x509) => read(der, x509))
}

/**
 * The key alone, of a certificate that has been read before.
 *
 * @returns SubjectPublicKeyInfo, DER
 * @throws TypeError
 */
export function certificateKey(der: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const tbs = readElement(readParts(der).tbs, SEQUENCE).contents
  // Serial number, signature, issuer, validity, subject.
  let { rest } = readElement(tbs.subarray(V3.length), INTEGER)
  for (let passed = 0; passed < 4; passed++) rest = readElement(rest, SEQUENCE).rest
  return readElement(rest, SEQUENCE).whole
}

async function reading<T>({ length }: Uint8Array, read: (x509: Library) => T): Promise<T> {
  if (length > MAX_CERTIFICATE_BYTES) throw new CertificateError('malformed')
  // The library is one of decorators, and wants this before it is there itself.
  await import('@abraham/reflection')
  const x509 = await import('@peculiar/x509')
  try {
    return read(x509)
  } catch (error) {
    if (error instanceof CertificateError) throw error
    throw new CertificateError('malformed')
  }
}

function read(der: Uint8Array<ArrayBuffer>, x509: Library): TrustAnchor {
  const parts = readParts(der)
  const tbs = readElement(parts.tbs, SEQUENCE).contents
  if (!isSame(tbs.subarray(0, V3.length), V3)) throw new CertificateError('version')
  const serial = readElement(tbs.subarray(V3.length), INTEGER)
  const algorithm = readElement(serial.rest, SEQUENCE)
  // Only one of the two is signed (RFC 5280 §4.1.1.2).
  if (!isSame(algorithm.whole, parts.identifier)) throw new CertificateError('signature_algorithm')
  const issuer = readElement(algorithm.rest, SEQUENCE)
  const validity = readElement(issuer.rest, SEQUENCE)
  const notBefore = readTime(validity.contents)
  const notAfter = readTime(notBefore.rest)
  const subject = readElement(validity.rest, SEQUENCE)
  const publicKey = readElement(subject.rest, SEQUENCE)

  const certificate = new x509.X509Certificate(der)
  const extensions = new Map<string, boolean>()
  for (const { type, critical } of certificate.extensions) {
    if (extensions.has(type)) throw new CertificateError('extension_twice')
    extensions.set(type, critical)
  }
  const basicConstraints = certificate.getExtension(x509.BasicConstraintsExtension)
  const keyUsage = certificate.getExtension(x509.KeyUsagesExtension)
  const uses = (flag: number) => keyUsage !== null && (keyUsage.usages & flag) !== 0
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? []
  return {
    issuer: issuer.whole,
    subject: subject.whole,
    notBefore: notBefore.seconds,
    notAfter: notAfter.seconds,
    publicKey: publicKey.whole,
    extensions,
    uris: names.filter(({ type }) => type === 'url').map(({ value }) => value),
    isCa: basicConstraints?.ca === true,
    pathLength: basicConstraints?.pathLength ?? null,
    keyUsage: keyUsage && {
      digitalSignature: uses(x509.KeyUsageFlags.digitalSignature),
      certSign: uses(x509.KeyUsageFlags.keyCertSign),
      crlSign: uses(x509.KeyUsageFlags.cRLSign),
    },
    extendedKeyUsage: certificate.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String) ?? null,
  }
}
