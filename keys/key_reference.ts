/** How an operator names signing keys, and what their private halves are wrapped with. */

import { type AlgorithmName, isAlgorithmName } from './algorithms.ts'

export type KeyReference =
  /** A key made by the worker and stored in the clear with its state: for development. */
  | { readonly keeper: 'local'; readonly key: string; readonly alg: AlgorithmName }
  /** `key` is a key id, key ARN, alias name or alias ARN. A null `alg` is the usual one for the key's KeySpec. */
  | { readonly keeper: 'awskms'; readonly key: string; readonly alg: AlgorithmName | null }
  /** Keys that the worker makes in KMS, and replaces by itself. */
  | { readonly keeper: 'awskms'; readonly key: null; readonly alg: AlgorithmName }
  /** Keys that the worker makes, stores wrapped only, and replaces by itself. */
  | { readonly keeper: 'wrapped'; readonly key: null; readonly alg: AlgorithmName }

const REFERENCE = /^(?:(local|awskms):([A-Za-z0-9:/_-]{1,2048})|(awskms|wrapped))(?:\?alg=([A-Z0-9]+))?$/

/**
 * @param text one key: `awskms:<key>[?alg=<JOSE algorithm>]` or `local:<name>[?alg=…]`; or keys that the worker makes:
 *   `awskms[?alg=…]` or `wrapped[?alg=…]`. Without `alg` a key is for ES256, or for whatever the KMS key can do
 * @returns null if it is none of these
 */
export function parseKeyReference(text: string): KeyReference | null {
  const [, named, key = '', maker, alg] = REFERENCE.exec(text) ?? []
  if (alg !== undefined && !isAlgorithmName(alg)) return null
  if (named === 'local') return { keeper: named, key, alg: alg ?? 'ES256' }
  if (named === 'awskms') return { keeper: named, key, alg: alg ?? null }
  if (maker === 'awskms' || maker === 'wrapped') return { keeper: maker, key: null, alg: alg ?? 'ES256' }
  return null
}

/** One text for one key or maker of keys, as {@link parseKeyReference} reads it: what state files keys under. */
export function formatKeyReference({ keeper, key, alg }: KeyReference): string {
  const name = key === null ? keeper : `${keeper}:${key}`
  return alg === null ? name : `${name}?alg=${alg}`
}

/** What private keys are wrapped with. */
export type WrappingReference =
  | { readonly keeper: 'awskms'; readonly key: string }
  /** 32 octets in base64 or base64url, or the platform's own object for such a key. */
  | { readonly keeper: 'secret'; readonly secret: string | CryptoKey }

const WRAPPING_REFERENCE = /^(?:awskms:([A-Za-z0-9:/_-]{1,2048})|aes:([A-Za-z0-9+/_-]{43}=?))$/

/**
 * @param text `awskms:<key>` or `aes:<base64 of 32 octets>`
 * @returns null if it is neither
 */
export function parseWrappingReference(text: string): WrappingReference | null {
  const [, key, secret] = WRAPPING_REFERENCE.exec(text) ?? []
  if (key !== undefined) return { keeper: 'awskms', key }
  if (secret !== undefined) return { keeper: 'secret', secret }
  return null
}
