/**
 * Public keys as relying parties read them.
 *
 * @see [RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)
 * @see [RFC 7638](https://www.rfc-editor.org/rfc/rfc7638) for `kid`
 */

import { calculateJwkThumbprint } from 'jose'
import { ALGORITHMS, type AlgorithmName, MIN_RSA_MODULUS_BITS } from './algorithms.ts'
import { type PublicJwk, SigningError } from './signer.ts'

/**
 * The published form of a public key.
 *
 * @param key an extractable public key, of the type that `alg` needs
 * @returns only the members that Google's workload identity federation allows in an uploaded JWK, which is the
 *   narrowest list of all relying parties we know
 * @throws SigningError `key_mismatch` if the key is not one for `alg`, or an RSA key is too small
 */
export async function publicJwk(key: CryptoKey, alg: AlgorithmName): Promise<PublicJwk> {
  const jwk = (await crypto.subtle.exportKey('jwk', key)) as JsonWebKey
  const wanted = ALGORITHMS[alg]
  if (wanted.kty === 'EC') {
    const { crv, x, y } = jwk
    if (jwk.kty !== 'EC' || crv !== wanted.crv || !x || !y) throw new SigningError('key_mismatch')
    const kid = await calculateJwkThumbprint({ kty: 'EC', crv, x, y })
    return { kty: 'EC', use: 'sig', alg, kid, crv, x, y }
  }
  const { n, e } = jwk
  const { modulusLength = 0 } = key.algorithm as { modulusLength?: number }
  if (jwk.kty !== 'RSA' || !n || !e || modulusLength < MIN_RSA_MODULUS_BITS) throw new SigningError('key_mismatch')
  const kid = await calculateJwkThumbprint({ kty: 'RSA', n, e })
  return { kty: 'RSA', use: 'sig', alg, kid, n, e }
}

/** @see [RFC 7638 §3](https://www.rfc-editor.org/rfc/rfc7638#section-3) */
export function thumbprint(jwk: JsonWebKey): Promise<string> {
  return calculateJwkThumbprint(jwk)
}

/**
 * @param spki DER SubjectPublicKeyInfo
 * @throws SigningError `key_mismatch` if it does not hold a key for `alg`
 */
export async function importSpki(spki: Uint8Array, alg: AlgorithmName): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey('spki', new Uint8Array(spki), ALGORITHMS[alg].key, true, ['verify'])
  } catch {
    throw new SigningError('key_mismatch')
  }
}

/**
 * The JWK Set document.
 *
 * @param keys by `kid`, whatever they do at the moment
 * @returns JSON text that depends on nothing but the keys and their order, so that its hash names the key set
 */
export function renderJwks(keys: readonly PublicJwk[]): string {
  return JSON.stringify({ keys })
}
