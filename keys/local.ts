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
 * @param privateJwk the same key with its private members
 * @returns a signer that has signed and verified once, so its signatures need no check of their own
 * @throws SigningError `key_mismatch` if the two halves do not belong together
 */
export async function localSigner(publicJwk: PublicJwk, privateJwk: JsonWebKey): Promise<Signer> {
  const { key: keyAlgorithm, signature: algorithm } = ALGORITHMS[publicJwk.alg]
  let privateKey: CryptoKey
  try {
    const { alg: _, key_ops: __, use: ___, ...members } = privateJwk as JsonWebKey & { use?: string }
    privateKey = await crypto.subtle.importKey('jwk', members, keyAlgorithm, false, ['sign'])
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
