/** Certification requests, good and bad, made by a library. */

import '@abraham/reflection'
import { PemConverter, Pkcs10CertificateRequestGenerator } from '@peculiar/x509'

const rsa = (modulusLength: number, publicExponent = Uint8Array.of(1, 0, 1)) =>
  ({ name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', modulusLength, publicExponent }) as const

const ALGORITHMS = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'P-384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  'P-521': { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
  'RSA-1024': rsa(1024),
  'RSA-2048': rsa(2048),
  'RSA-3072': rsa(3072),
  'RSA-2048 with exponent 3': rsa(2048, Uint8Array.of(3)),
  'RSA-2048 with SHA-1': { ...rsa(2048), hash: 'SHA-1' },
  Ed25519: { name: 'Ed25519' },
} as const

/** @returns DER, and the key that it is for as SubjectPublicKeyInfo */
export async function makeCsr(
  kind: keyof typeof ALGORITHMS = 'P-256',
): Promise<{ der: Uint8Array<ArrayBuffer>; spki: ArrayBuffer }> {
  const signingAlgorithm = ALGORITHMS[kind]
  const keys = (await crypto.subtle.generateKey(signingAlgorithm, true, ['sign', 'verify'])) as CryptoKeyPair
  const csr = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=ignored', keys, signingAlgorithm })
  const spki = (await crypto.subtle.exportKey('spki', keys.publicKey)) as ArrayBuffer
  return { der: new Uint8Array(csr.rawData), spki }
}

export function base64(octets: Uint8Array): string {
  return btoa(String.fromCharCode(...octets))
}

/** @returns a certification request in PEM, and the private key that it is for, PKCS #8 in PEM */
export async function makeCsrWithKey(): Promise<{ csr: string; key: string }> {
  const signingAlgorithm = ALGORITHMS['P-256']
  const keys = (await crypto.subtle.generateKey(signingAlgorithm, true, ['sign', 'verify'])) as CryptoKeyPair
  const csr = await Pkcs10CertificateRequestGenerator.create({ name: 'CN=ignored', keys, signingAlgorithm })
  const pkcs8 = new Uint8Array((await crypto.subtle.exportKey('pkcs8', keys.privateKey)) as ArrayBuffer)
  return { csr: csr.toString('pem'), key: PemConverter.encode(pkcs8, 'PRIVATE KEY') }
}
