/** How an operator names a signing key. */

import { type AlgorithmName, isAlgorithmName } from './algorithms.ts'

export type KeyReference =
  /** A key made by the worker and stored in the clear with its state: for development. */
  | { readonly keeper: 'local'; readonly key: string; readonly alg: AlgorithmName }
  /** `key` is a key id, key ARN, alias name or alias ARN. A null `alg` is the usual one for the key's KeySpec. */
  | { readonly keeper: 'awskms'; readonly key: string; readonly alg: AlgorithmName | null }

const REFERENCE = /^(local|awskms):([A-Za-z0-9:/_-]{1,2048})(?:\?alg=([A-Z0-9]+))?$/

/**
 * @param text `awskms:<key>[?alg=<JOSE algorithm>]` or `local:<name>[?alg=<JOSE algorithm>]`
 * @returns null if it is neither
 */
export function parseKeyReference(text: string): KeyReference | null {
  const [, keeper, key = '', alg] = REFERENCE.exec(text) ?? []
  if (alg !== undefined && !isAlgorithmName(alg)) return null
  if (keeper === 'local') return { keeper, key, alg: alg ?? 'ES256' }
  if (keeper === 'awskms') return { keeper, key, alg: alg ?? null }
  return null
}

/** One text for one key, as {@link parseKeyReference} reads it: what state files the key under. */
export function formatKeyReference({ keeper, key, alg }: KeyReference): string {
  return alg === null ? `${keeper}:${key}` : `${keeper}:${key}?alg=${alg}`
}
