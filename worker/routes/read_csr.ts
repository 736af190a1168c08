/** Reads a CSR that came as a member of JSON, in two steps: what it is before anybody is asked, and whose key it has when it is known who is asking. */

import { CsrError, readCsr } from '../../keys/csr.ts'
import { pemContents } from '../../keys/pem.ts'
import { Refusal } from '../refusal.ts'

/**
 * @param csr PEM, or DER in base64
 * @returns DER, which need not be a CSR
 * @throws Refusal `csr_missing`, `csr_invalid`
 */
export function decodeCsr(csr: unknown): Uint8Array<ArrayBuffer> {
  if (typeof csr !== 'string' || csr === '') throw new Refusal('csr_missing', 'no csr')
  const base64 = csr.startsWith('-----BEGIN ') ? pemContents(csr, 'CERTIFICATE REQUEST') : csr
  try {
    return Uint8Array.fromBase64(base64 ?? '%', { lastChunkHandling: 'strict' })
  } catch {
    throw new Refusal('csr_invalid', 'neither PEM nor base64')
  }
}

/**
 * @returns the SubjectPublicKeyInfo of its key, DER
 * @throws Refusal `csr_invalid`
 */
export async function readCsrKey(der: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  try {
    return await readCsr(der)
  } catch (error) {
    if (!(error instanceof CsrError)) throw error
    throw new Refusal('csr_invalid', error.message)
  }
}
