/**
 * Signing keys that stay in AWS KMS.
 *
 * Nothing of what KMS says gets out of here but signatures, a public key and the ARN to pin.
 *
 * @see [Sign](https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html)
 * @see [GetPublicKey](https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html)
 */

import type { SigningAlgorithmSpec } from '@aws-sdk/client-kms'
import { ALGORITHMS, type AlgorithmName } from './algorithms.ts'
import { joseSignature } from './ecdsa.ts'
import { importSpki, publicJwk as toPublicJwk } from './jwks.ts'
import { ask, KEY_ARN, type KmsAccess } from './kms_client.ts'
import { type PublicJwk, type Signer, SigningError } from './signer.ts'

export type { KmsAccess } from './kms_client.ts'

/**
 * Reads a key's public half, for it to be pinned and published before anything is signed.
 *
 * @param key key id, key ARN, alias name or alias ARN
 * @param alg null for the usual one of the key's KeySpec: the algorithm of its curve, or RS256
 * @returns what to pin: an alias can be moved to another key, the ARN can't
 * @throws SigningError
 */
export async function announceKmsKey(
  access: KmsAccess,
  key: string,
  alg: AlgorithmName | null,
): Promise<{ arn: string; publicJwk: PublicJwk }> {
  const { GetPublicKeyCommand } = await import('@aws-sdk/client-kms')
  const command = new GetPublicKeyCommand({ KeyId: key })
  const answer = await ask(access, ({ client, options }) => client.send(command, options))
  const { KeyId: arn = '', KeyUsage, KeySpec = '', SigningAlgorithms = [], PublicKey } = answer
  const name = alg ?? usualAlgorithm(KeySpec)
  if (KeyUsage !== 'SIGN_VERIFY' || !name || !PublicKey || !KEY_ARN.test(arn)) throw new SigningError('key_mismatch')
  const { kms, kmsKeySpecs } = ALGORITHMS[name]
  if (!kmsKeySpecs.includes(KeySpec) || !(SigningAlgorithms as string[]).includes(kms)) {
    throw new SigningError('key_mismatch')
  }
  return { arn, publicJwk: await toPublicJwk(await importSpki(PublicKey, name), name) }
}

/**
 * @param arn the key that was announced, by its ARN: never an alias
 * @param publicJwk what {@link announceKmsKey} gave for it; its `alg` is the only algorithm the signer will use
 * @returns a signer that hands out no signature before it has verified it with the pinned public key, so that a key
 *   which was swapped, or a KMS that lies, stops the signing instead of breaking every verifier
 * @throws SigningError `key_mismatch` if `publicJwk` is not a key for its `alg`
 */
export async function kmsSigner(access: KmsAccess, arn: string, publicJwk: PublicJwk): Promise<Signer> {
  const algorithm = ALGORITHMS[publicJwk.alg]
  let publicKey: CryptoKey
  try {
    publicKey = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, algorithm.key, false, ['verify'])
  } catch {
    throw new SigningError('key_mismatch')
  }
  const { SignCommand } = await import('@aws-sdk/client-kms')
  return {
    publicJwk,
    async sign(signingInput) {
      const message = signingInput as BufferSource
      // KMS takes messages of up to 4096 bytes only, and needs to see no more than a digest.
      const command = new SignCommand({
        KeyId: arn,
        Message: new Uint8Array(await crypto.subtle.digest(algorithm.hash, message)),
        MessageType: 'DIGEST',
        SigningAlgorithm: algorithm.kms as SigningAlgorithmSpec,
      })
      const { KeyId, Signature } = await ask(access, ({ client, options }) => client.send(command, options))
      if (KeyId !== arn || !Signature) throw new SigningError('wrong_signature')
      const signature = algorithm.kty === 'EC' ? joseSignature(Signature, algorithm.scalarBytes) : Signature
      if (!(await crypto.subtle.verify(algorithm.signature, publicKey, signature as BufferSource, message))) {
        throw new SigningError('wrong_signature')
      }
      return signature
    },
  }
}

/** The first one of the table that the key can make. */
function usualAlgorithm(keySpec: string): AlgorithmName | undefined {
  return (Object.keys(ALGORITHMS) as AlgorithmName[]).find((name) => ALGORITHMS[name].kmsKeySpecs.includes(keySpec))
}
