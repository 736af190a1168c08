/**
 * Small secrets, encrypted by a symmetric key that stays in AWS KMS.
 *
 * @see [Encrypt](https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html)
 * @see [Decrypt](https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html)
 */

import { ask, KEY_ARN, type KmsAccess } from './kms_client.ts'
import { SigningError } from './signer.ts'

/** Neither secret nor stored with the ciphertext, and written to the log of AWS with every use of the key. */
export type EncryptionContext = Readonly<Record<string, string>>

/**
 * @param key key id, key ARN, alias name or alias ARN
 * @param plaintext 1 to 4096 octets
 * @returns what only this key decrypts, and only with the same context
 * @throws SigningError
 */
export async function kmsEncrypt(
  access: KmsAccess,
  key: string,
  plaintext: Uint8Array,
  context: EncryptionContext,
): Promise<Uint8Array> {
  const { EncryptCommand } = await import('@aws-sdk/client-kms')
  const command = new EncryptCommand({
    KeyId: key,
    Plaintext: plaintext,
    EncryptionContext: context,
    // An asymmetric key has no context to bind to, and is refused for it.
    EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
  })
  const { KeyId, CiphertextBlob } = await ask(access, ({ client, options }) => client.send(command, options))
  if (!isAnswerOf(key, KeyId) || !CiphertextBlob?.length) throw new SigningError('key_mismatch')
  return CiphertextBlob
}

/**
 * @param key the one that may decrypt it; what the ciphertext itself says of its key is not enough
 * @param ciphertext 1 to 6144 octets
 * @throws SigningError `key_mismatch` if it is of another key, has another context, or is none
 */
export async function kmsDecrypt(
  access: KmsAccess,
  key: string,
  ciphertext: Uint8Array,
  context: EncryptionContext,
): Promise<Uint8Array<ArrayBuffer>> {
  const { DecryptCommand } = await import('@aws-sdk/client-kms')
  const command = new DecryptCommand({
    KeyId: key,
    CiphertextBlob: ciphertext,
    EncryptionContext: context,
    EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
  })
  const { KeyId, Plaintext } = await ask(access, ({ client, options }) => client.send(command, options))
  if (!isAnswerOf(key, KeyId) || !Plaintext?.length) throw new SigningError('key_mismatch')
  // The octets themselves and no copy of them, so that the caller can overwrite them.
  return Plaintext as Uint8Array<ArrayBuffer>
}

/** KMS names the key by its ARN, whatever name it was asked under. */
function isAnswerOf(key: string, arn = ''): boolean {
  return KEY_ARN.test(arn) && (!KEY_ARN.test(key) || arn === key)
}
