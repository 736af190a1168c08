/** From where the private half of a key is kept to the means to sign with it. */

import { kmsSigner } from '../../keys/kms.ts'
import { localSigner } from '../../keys/local.ts'
import { type KeyUse, type PublicJwk, type Signer, SigningError } from '../../keys/signer.ts'
import { type WrapContext, wrappedSigner } from '../../keys/wrapped.ts'
import { openWrappingKeys } from '../../keys/wrapping_keys.ts'
import type { KeySettings } from '../key_settings.ts'

/** A public key, and where the other half is: exactly one of the three is not null. */
export interface KeptKey {
  readonly use: KeyUse
  readonly publicJwk: PublicJwk
  /** Of a key in KMS. */
  readonly arn: string | null
  /** Of a key that is stored wrapped. */
  readonly wrapped: string | null
  /** The key itself: in development only. */
  readonly privateJwk: JsonWebKey | null
}

/** @throws SigningError */
export async function keptSigner(
  { use, publicJwk, arn, wrapped, privateJwk }: KeptKey,
  { kms, wrapping, stamp }: KeySettings,
): Promise<Signer> {
  if (privateJwk) return await localSigner(publicJwk, privateJwk)
  if (arn !== null && kms) return await kmsSigner(kms, arn, publicJwk)
  if (wrapped === null) throw new SigningError('denied')
  const context = wrapContext(stamp, use, publicJwk.kid)
  return await wrappedSigner(publicJwk, wrapped, context, await openWrappingKeys(wrapping, kms))
}

/** What a key is wrapped for. */
export function wrapContext({ trustDomain }: KeySettings['stamp'], use: KeyUse, kid: string): WrapContext {
  return { trustDomain, kid, use }
}
