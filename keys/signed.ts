/**
 * What X.509 calls SIGNED: the outside of certificates and of requests for them. What is signed, by which algorithm, and the
 * signature.
 *
 * @see [RFC 5280 §4.1.1](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.1)
 * @see [RFC 2986 §4.2](https://www.rfc-editor.org/rfc/rfc2986#section-4.2)
 */

import { ALGORITHMS, type AlgorithmName, isAlgorithmName } from './algorithms.ts'
import { BIT_STRING, bitString, isSame, NULL, objectIdentifier, readElement, SEQUENCE, sequence } from './der.ts'
import { derSignature, joseSignature } from './ecdsa.ts'
import { type Signer, SigningError } from './signer.ts'

export interface Signed {
  /** TBSCertificate or CertificationRequestInfo, DER: the octets that are signed. */
  readonly tbs: Uint8Array<ArrayBuffer>
  readonly alg: AlgorithmName
  readonly signature: Uint8Array<ArrayBuffer>
}

/**
 * AlgorithmIdentifier of a signature, DER: without parameters for ECDSA, with NULL for RSA.
 *
 * @throws SigningError `key_mismatch` for RSA-PSS
 * @see [RFC 5758 §3.2](https://www.rfc-editor.org/rfc/rfc5758#section-3.2)
 * @see [RFC 4055 §5](https://www.rfc-editor.org/rfc/rfc4055#section-5)
 */
export function signatureAlgorithm(alg: AlgorithmName): Uint8Array<ArrayBuffer> {
  const { kty, signatureOid } = ALGORITHMS[alg]
  if (signatureOid === null) throw new SigningError('key_mismatch')
  return kty === 'EC' ? sequence(objectIdentifier(signatureOid)) : sequence(objectIdentifier(signatureOid), NULL)
}

const IDENTIFIERS = Object.keys(ALGORITHMS)
  .filter(isAlgorithmName)
  .filter((alg) => ALGORITHMS[alg].signatureOid !== null)
  .map((alg) => ({ alg, identifier: signatureAlgorithm(alg) }))

/**
 * @param tbs TBSCertificate, DER, that names the signer's algorithm, or CertificationRequestInfo
 * @returns Certificate or CertificationRequest, DER
 * @throws SigningError
 */
export async function writeSigned(tbs: Uint8Array, signer: Signer): Promise<Uint8Array<ArrayBuffer>> {
  const { alg, kty } = signer.publicJwk
  const identifier = signatureAlgorithm(alg)
  const signature = await signer.sign(tbs)
  return sequence(tbs, identifier, bitString(kty === 'EC' ? derSignature(signature) : signature))
}

/** The same, whatever it is signed by. */
export interface SignedParts {
  readonly tbs: Uint8Array<ArrayBuffer>
  /** AlgorithmIdentifier, DER. */
  readonly identifier: Uint8Array<ArrayBuffer>
  readonly signature: Uint8Array<ArrayBuffer>
}

/**
 * @param der the whole of it is one certificate or request
 * @throws TypeError if it is neither
 */
export function readParts(der: Uint8Array<ArrayBuffer>): SignedParts {
  const certificate = readElement(der, SEQUENCE)
  const tbs = readElement(certificate.contents, SEQUENCE)
  const identifier = readElement(tbs.rest, SEQUENCE)
  const signature = readElement(identifier.rest, BIT_STRING)
  if (signature.contents[0] !== 0 || signature.rest.length > 0 || certificate.rest.length > 0)
    throw new TypeError('not signed, or not alone')
  return { tbs: tbs.whole, identifier: identifier.whole, signature: signature.contents.subarray(1) }
}

/**
 * @param der the whole of it is one certificate or request
 * @returns null if its signature is by an algorithm that we do not verify
 * @throws TypeError if it is neither
 */
export function readSigned(der: Uint8Array<ArrayBuffer>): Signed | null {
  const { tbs, identifier, signature } = readParts(der)
  const alg = IDENTIFIERS.find((known) => isSame(known.identifier, identifier))?.alg
  return alg === undefined ? null : { tbs, alg, signature }
}

/**
 * @param key of any curve for an ECDSA signature: the algorithm says the hash, the key the curve. One for RSA is bound to
 *   the hash of the algorithm
 */
export async function isSignedBy({ tbs, alg, signature }: Signed, key: CryptoKey): Promise<boolean> {
  const algorithm = ALGORITHMS[alg]
  if (key.algorithm.name !== algorithm.key.name) return false
  if (algorithm.kty === 'RSA') return crypto.subtle.verify(algorithm.signature, key, signature, tbs)
  const { namedCurve } = key.algorithm as unknown as { namedCurve: string }
  const curve = Object.values(ALGORITHMS).find((other) => other.kty === 'EC' && other.crv === namedCurve)
  if (curve?.kty !== 'EC') return false
  try {
    return await crypto.subtle.verify(algorithm.signature, key, joseSignature(signature, curve.scalarBytes), tbs)
  } catch (error) {
    if (error instanceof SigningError) return false
    throw error
  }
}
