/**
 * Signing keys that are stored wrapped: whoever reads the storage, or a copy of it, has no key (T-16).
 *
 * What wraps is a secret of the platform or a symmetric key in KMS, and is stored elsewhere. What a key is for is bound to
 * the ciphertext, so that the wrapped key of another trust domain, of another `kid` or for another use does not open in its
 * place.
 *
 * A key that has been opened is in the isolate's memory until the isolate ends, not extractable, and signs there. Of the
 * octets on the way the copies that are ours are overwritten; those that a runtime or an SDK made are not in our hands.
 */

import { base64url } from 'jose'
import { thumbprint } from './jwks.ts'
import type { KmsAccess } from './kms_client.ts'
import { type EncryptionContext, kmsDecrypt, kmsEncrypt } from './kms_encryption.ts'
import { exportPkcs8, localSigner } from './local.ts'
import { type KeyUse, type PublicJwk, type Signer, SigningError } from './signer.ts'

/** What wraps and unwraps. */
export type WrappingKey =
  /** `key` is for AES-GCM, of 256 bits, and may encrypt and decrypt: {@link importWrappingSecret}. */
  | { readonly keeper: 'secret'; readonly key: CryptoKey }
  /** `key` is the key id, key ARN, alias name or alias ARN of a symmetric key of usage `ENCRYPT_DECRYPT`. */
  | { readonly keeper: 'awskms'; readonly access: KmsAccess; readonly key: string }

/** What a wrapped key is for. It opens for nothing else. */
export interface WrapContext {
  readonly trustDomain: string
  readonly kid: string
  readonly use: KeyUse
}

const SECRET_BYTES = 32
/** NIST SP 800-38D §8.2.2: random, of 96 bits. A secret wraps a few keys a year, far below the 2^32 that it may. */
const IV_BYTES = 12

/** The IV in 16 characters, the ciphertext with its tag. */
const BY_SECRET = /^v1\.secret\.([\w-]{16})\.([\w-]+)$/
/** KMS takes no ciphertext of more than 6144 octets. */
const BY_KMS = /^v1\.awskms\.([\w-]{1,8192})$/

/**
 * @param text exactly 32 octets in base64url or base64, with or without padding and nothing around it:
 *   `openssl rand -base64 32`
 * @throws TypeError that repeats nothing of the text
 */
export async function importWrappingSecret(text: string): Promise<CryptoKey> {
  const unpadded = text.replace(/=$/, '')
  const canonical = /[+/]/.test(unpadded) ? unpadded.replaceAll('+', '-').replaceAll('/', '_') : unpadded
  const octets = /^[A-Za-z0-9+/]{43}=?$|^[\w-]{43}=?$/.test(text) ? decoded(canonical) : null
  if (octets?.length !== SECRET_BYTES) throw new TypeError('not 32 octets in base64url or base64')
  try {
    return await crypto.subtle.importKey('raw', octets, 'AES-GCM', false, ['encrypt', 'decrypt'])
  } finally {
    octets.fill(0)
  }
}

/**
 * @param privateJwk of the key that `context.kid` is the thumbprint of
 * @returns printable text. Open it once with {@link wrappedSigner} before the key is announced: who may encrypt is not yet
 *   who may decrypt.
 * @throws SigningError `key_mismatch` if the key is not the one of the context, or the wrapping key not one of its kind
 */
export async function wrapPrivateKey(
  privateJwk: JsonWebKey,
  context: WrapContext,
  wrapping: WrappingKey,
): Promise<string> {
  const pkcs8 = await exportPkcs8(privateJwk)
  try {
    if ((await thumbprint(privateJwk)) !== context.kid) throw new SigningError('key_mismatch')
    if (wrapping.keeper === 'awskms') {
      const { access, key } = wrapping
      return `v1.awskms.${base64url.encode(await kmsEncrypt(access, key, pkcs8, encryptionContext(context)))}`
    }
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
    return `v1.secret.${base64url.encode(iv)}.${base64url.encode(await encrypt(pkcs8, iv, context, wrapping.key))}`
  } finally {
    pkcs8.fill(0)
  }
}

/**
 * @param publicJwk the published half, whose `kid` is that of the context
 * @param wrapped what {@link wrapPrivateKey} gave
 * @param wrapping whatever may have wrapped it: a key that wraps no more is listed until everything is wrapped anew
 * @returns a signer that has signed and verified once, so its signatures need no check of their own
 * @throws SigningError `key_mismatch` if nothing of `wrapping` opens the text, or it was wrapped for another context. If a
 *   key in KMS could not be asked, its error.
 */
export async function wrappedSigner(
  publicJwk: PublicJwk,
  wrapped: string,
  context: WrapContext,
  wrapping: readonly WrappingKey[],
): Promise<Signer> {
  if (publicJwk.kid !== context.kid) throw new SigningError('key_mismatch')
  const pkcs8 = await unwrap(wrapped, context, wrapping)
  try {
    return await localSigner(publicJwk, pkcs8)
  } finally {
    pkcs8.fill(0)
  }
}

/** Asks one after the other, and KMS only about what KMS has wrapped. */
async function unwrap(
  wrapped: string,
  context: WrapContext,
  wrapping: readonly WrappingKey[],
): Promise<Uint8Array<ArrayBuffer>> {
  const [iv, ciphertext] = (BY_SECRET.exec(wrapped) ?? []).slice(1).map(decoded)
  const [blob] = (BY_KMS.exec(wrapped) ?? []).slice(1).map(decoded)
  let failure = new SigningError('key_mismatch')
  for (const wrappingKey of wrapping) {
    try {
      if (wrappingKey.keeper === 'secret' && iv && ciphertext) {
        return await decrypt(ciphertext, iv, context, wrappingKey.key)
      }
      if (wrappingKey.keeper === 'awskms' && blob) {
        const { access, key } = wrappingKey
        return await kmsDecrypt(access, key, blob, encryptionContext(context))
      }
    } catch (error) {
      // That another key does not open it says nothing while this one could not be asked.
      if (failure.code === 'key_mismatch') failure = error as SigningError
    }
  }
  throw failure
}

async function encrypt(
  plaintext: Uint8Array<ArrayBuffer>,
  iv: Uint8Array<ArrayBuffer>,
  context: WrapContext,
  key: CryptoKey,
): Promise<Uint8Array> {
  const { length } = key.algorithm as { length?: number }
  if (length !== 8 * SECRET_BYTES) throw new SigningError('key_mismatch')
  try {
    return new Uint8Array(await crypto.subtle.encrypt(aesGcm(iv, context), key, plaintext))
  } catch {
    throw new SigningError('key_mismatch')
  }
}

async function decrypt(
  ciphertext: Uint8Array<ArrayBuffer>,
  iv: Uint8Array<ArrayBuffer>,
  context: WrapContext,
  key: CryptoKey,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await crypto.subtle.decrypt(aesGcm(iv, context), key, ciphertext))
  } catch {
    throw new SigningError('key_mismatch')
  }
}

/** JSON delimits the parts, so that no two contexts make the same additional data. */
function aesGcm(iv: Uint8Array<ArrayBuffer>, { trustDomain, kid, use }: WrapContext) {
  const additionalData = new TextEncoder().encode(JSON.stringify(['spiffe-edge key v1', trustDomain, kid, use]))
  return { name: 'AES-GCM', iv, additionalData }
}

/** The same facts in the words of KMS, where a policy may ask for them. */
function encryptionContext({ trustDomain, kid, use }: WrapContext): EncryptionContext {
  return { 'spiffe-edge:trust-domain': trustDomain, 'spiffe-edge:kid': kid, 'spiffe-edge:use': use }
}

/** One value has one encoding: null for a text with stray bits, which would be a second text for the same octets. */
function decoded(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    const octets = base64url.decode(text) as Uint8Array<ArrayBuffer>
    return base64url.encode(octets) === text ? octets : null
  } catch {
    return null
  }
}
