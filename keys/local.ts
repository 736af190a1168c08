/** Signing keys that live in the worker's own memory: fast, and only as safe as the place they were stored in. */

import { ALGORITHMS, type AlgorithmName } from './algorithms.ts'
import { publicJwk } from './jwks.ts'
import { type PublicJwk, type Signer, SigningError } from './signer.ts'

/** A new key pair. `privateJwk` is the secret in the clear. */
export async function generateLocalKey(alg: AlgorithmName): Promise<{ publicJwk: PublicJwk; privateJwk: JsonWebKey }> {
  const pair = (await crypto.subtle.generateKey(ALGORITHMS[alg].key, true, ['sign', 'verify'])) as CryptoKeyPair
  return {
    publicJwk: await publicJwk(pair.publicKey, alg),
    privateJwk: (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey,
  }
}

/**
 * @param publicJwk the published half; its `alg` is the only algorithm the signer will use
 * @param privateHalf the same key with its private members, as a JWK or in PKCS #8
 * @returns a signer that has signed and verified once, so its signatures need no check of their own
 * @throws SigningError `key_mismatch` if the two halves do not belong together
 */
export async function localSigner(
  publicJwk: PublicJwk,
  privateHalf: JsonWebKey | Uint8Array<ArrayBuffer>,
): Promise<Signer> {
  const { key: keyAlgorithm, signature: algorithm } = ALGORITHMS[publicJwk.alg]
  let privateKey: CryptoKey
  try {
    privateKey = await importPrivate(privateHalf, keyAlgorithm, false)
    const publicKey = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, keyAlgorithm, false, ['verify'])
    const probe = crypto.getRandomValues(new Uint8Array(32))
    const signature = await crypto.subtle.sign(algorithm, privateKey, probe)
    if (!(await crypto.subtle.verify(algorithm, publicKey, signature, probe))) throw new SigningError('key_mismatch')
  } catch {
    throw new SigningError('key_mismatch')
  }
  return {
    publicJwk,
    async sign(signingInput) {
      return new Uint8Array(await crypto.subtle.sign(algorithm, privateKey, signingInput as Uint8Array<ArrayBuffer>))
    },
  }
}

/**
 * @returns the key in PKCS #8, DER: half as long as the JWK, and octets that can be overwritten
 * @throws SigningError `key_mismatch` if it is no private key of a kind that signs
 * @see [RFC 5208 §5](https://www.rfc-editor.org/rfc/rfc5208#section-5)
 */
export async function exportPkcs8(privateJwk: JsonWebKey): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const kind = Object.values(ALGORITHMS).find(
      (algorithm) => algorithm.kty === privateJwk.kty && (algorithm.kty === 'RSA' || algorithm.crv === privateJwk.crv),
    )
    if (!kind) throw new SigningError('key_mismatch')
    const key = await importPrivate(privateJwk, kind.key, true)
    return new Uint8Array((await crypto.subtle.exportKey('pkcs8', key)) as ArrayBuffer)
  } catch {
    throw new SigningError('key_mismatch')
  }
}

function importPrivate(
  key: JsonWebKey | Uint8Array<ArrayBuffer>,
  algorithm: (typeof ALGORITHMS)[AlgorithmName]['key'],
  extractable: boolean,
): Promise<CryptoKey> {
  if (key instanceof Uint8Array) return crypto.subtle.importKey('pkcs8', key, algorithm, extractable, ['sign'])
  const { alg: _, key_ops: __, use: ___, ...members } = key as JsonWebKey & { use?: string }
  return crypto.subtle.importKey('jwk', members, algorithm, extractable, ['sign'])
}
