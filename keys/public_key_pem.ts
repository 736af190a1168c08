/** Public keys in PEM, as operators have them: by themselves, or in certificates. */

import { readCertificate } from './certificate.ts'
import { pemContents } from './pem.ts'
import { importPublicKey } from './spki.ts'

/**
 * @param text one PEM block, of a public key or a certificate
 * @returns the key as a JWK: RSA from 2048 bits, P-256, P-384 or P-521
 * @throws if it is none of these
 */
export async function readPublicKeyPem(text: string): Promise<JsonWebKey> {
  const spki = pemContents(text, 'PUBLIC KEY')
  const certificate = spki === null ? pemContents(text, 'CERTIFICATE') : null
  const der = Uint8Array.fromBase64(spki ?? certificate ?? '%')
  const key = await importPublicKey(certificate === null ? der : (await readCertificate(der)).publicKey, 'SHA-256')
  return (await crypto.subtle.exportKey('jwk', key)) as JsonWebKey
}
