/** A certificate authority for tests: real certificates, made by a library. */

import '@abraham/reflection'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import type { TlsPair } from './plain_workerd.ts'

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

export interface TestCa {
  /** PEM. */
  readonly certificate: string
  /** @param names DNS names or IPv4 addresses of the server */
  issue(...names: string[]): Promise<TlsPair>
}

export async function createCa(commonName = 'spiffe-edge test CA'): Promise<TestCa> {
  const keys = await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])
  const validity = () => ({ notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) })
  const ca = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    keys,
    signingAlgorithm: P256,
    ...validity(),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  })
  return {
    certificate: ca.toString('pem'),
    async issue(...names) {
      const leaf = await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])
      const certificate = await sign(ca, keys.privateKey, leaf.publicKey, names, validity())
      const pkcs8 = await crypto.subtle.exportKey('pkcs8', leaf.privateKey)
      return { certificate: certificate.toString('pem'), key: PemConverter.encode(pkcs8, 'PRIVATE KEY') }
    },
  }
}

function sign(
  ca: X509Certificate,
  signingKey: CryptoKey,
  publicKey: CryptoKey,
  names: readonly string[],
  validity: { notBefore: Date; notAfter: Date },
): Promise<X509Certificate> {
  return X509CertificateGenerator.create({
    subject: `CN=${names[0]}`,
    issuer: ca.subject,
    publicKey,
    signingKey,
    signingAlgorithm: P256,
    ...validity,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(
        names.map((name) => ({ type: /^[\d.]+$/.test(name) ? 'ip' : 'dns', value: name }) as const),
      ),
    ],
  })
}
