/** From how an operator names what wraps keys to the means to do so. */

import type { WrappingReference } from './key_reference.ts'
import type { KmsAccess } from './kms_client.ts'
import { SigningError } from './signer.ts'
import { importWrappingSecret, type WrappingKey } from './wrapped.ts'

/**
 * @param access null where nothing is kept in KMS
 * @throws SigningError `key_mismatch` for a secret that is none, `denied` without access to KMS where that is needed
 */
export async function openWrappingKeys(
  references: readonly WrappingReference[],
  access: KmsAccess | null,
): Promise<readonly WrappingKey[]> {
  return await Promise.all(
    references.map(async (reference): Promise<WrappingKey> => {
      if (reference.keeper === 'secret') return { keeper: 'secret', key: await secretKey(reference.secret) }
      if (!access) throw new SigningError('denied')
      return { keeper: 'awskms', access, key: reference.key }
    }),
  )
}

async function secretKey(secret: string | CryptoKey): Promise<CryptoKey> {
  if (typeof secret !== 'string') return secret
  try {
    return await importWrappingSecret(secret)
  } catch {
    throw new SigningError('key_mismatch')
  }
}
