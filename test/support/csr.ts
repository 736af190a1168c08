/** Certification requests, good and bad, made by a library. */

import '@abraham/reflection'
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509'

const ALGORITHMS = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'RSA-2048': {
    name: 'RSASSA-PKCS1-v1_5',
    hash: 'SHA-256',
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
  },
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
