/**
 * Tokens that are not to be good any more, by the id that each has as `jti`. Nothing here refuses one: a JWT-SVID is
 * checked by whoever it is made out to. API servers are told, by `spiffe-edge structured-auth sync` (T-13).
 */

import * as z from 'zod/mini'
import { KUBERNETES_NAME } from './cluster.ts'

/** The id of a decision, which today is a UUID. No character of it means anything in CEL, YAML or JSON. */
export const TokenId = z.string().check(z.regex(/^[A-Za-z0-9_-]{1,128}$/, 'not the id of a token'))

/** The manifest's form of a revoked token. */
export const RevocationManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('Revocation'),
  metadata: z.strictObject({
    name: z.string().check(z.regex(KUBERNETES_NAME, 'not a name')),
  }),
  spec: z.strictObject({
    jti: TokenId,
    /** Seconds since the epoch. The token's own `exp` or later: from then on it is refused for that. */
    expiresAt: z.int().check(z.minimum(0)),
    /** For people. */
    reason: z.optional(z.string().check(z.maxLength(1024))),
  }),
})

/** More at a time are not single tokens any more: ban their subjects, or retire the key. */
export const MAX_REVOKED_TOKENS = 1000
/**
 * kube-apiserver compiles no CEL expression of more than 100,000 characters (measured at 1.35, 1.36 and 1.37, and shown by
 * test/interop/structured_auth_sync.test.ts). It counts no cost for evaluating one: with 1,000 tokens and 500 subjects
 * a request takes as long as with none. What is left is for the words around the lists.
 */
const MAX_LISTED_CHARACTERS = 99_000
/** Two quotes and a comma. */
const CHARACTERS_AROUND = 3

/** @returns why an API server's one rule could not hold these, or null */
export function revocationsProblem(tokens: readonly string[], subjects: readonly string[]): string | null {
  if (tokens.length > MAX_REVOKED_TOKENS) return `more than ${MAX_REVOKED_TOKENS} tokens are revoked`
  const characters = [...tokens, ...subjects].reduce((sum, text) => sum + text.length + CHARACTERS_AROUND, 0)
  return characters > MAX_LISTED_CHARACTERS
    ? 'more tokens and SPIFFE IDs than the rule of an API server can hold'
    : null
}

export class Revocations {
  readonly #revocations: readonly z.infer<typeof RevocationManifest>[]

  constructor(revocations: readonly z.infer<typeof RevocationManifest>[]) {
    this.#revocations = revocations
  }

  /**
   * @param now seconds since the epoch
   * @returns the ids of the tokens whose revocation has not expired, each once, in the order of their characters
   */
  tokens(now: number): readonly string[] {
    const tokens = this.#revocations.filter(({ spec }) => spec.expiresAt > now).map(({ spec }) => spec.jti)
    return [...new Set(tokens)].sort()
  }
}
