/** What is revoked, as the worker tells it to the control plane of a cluster. */

import { revocationsProblem, TokenId } from '../../worker/policy/revocation.ts'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'

/** The name and description of the command that those for tokens, subjects and keys stand under. */
export const REVOKE = ['revoke', 'take back what was issued before it ends'] as const

export interface Revoked {
  /** Counts the changes to the worker's objects. */
  readonly version: number
  /** Ids of tokens. */
  readonly tokens: readonly string[]
  /** SPIFFE IDs. */
  readonly subjects: readonly string[]
}

/**
 * @param body what has come over the wire, which may be a stolen edge account's
 * @returns nothing but ids and SPIFFE IDs by their grammar, or null if it is not all of that form (T-13)
 */
export function parseRevoked(body: Readonly<Record<string, unknown>> | null, cluster: string): Revoked | null {
  if (!body || body.cluster !== cluster) return null
  const { version, tokens, subjects } = body
  if (!Number.isSafeInteger(version) || !isListOf(tokens, isTokenId) || !isListOf(subjects, isSubject)) return null
  const revoked = { version: version as number, tokens: unique(tokens), subjects: unique(subjects) }
  return revocationsProblem(revoked.tokens, revoked.subjects) === null ? revoked : null
}

function isListOf(value: unknown, isOne: (entry: unknown) => boolean): value is string[] {
  return Array.isArray(value) && value.every(isOne)
}

/** The same text for the same set, so that a file is not written for another order. */
function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)].sort()
}

function isTokenId(value: unknown): boolean {
  return TokenId.safeParse(value).success
}

function isSubject(value: unknown): boolean {
  try {
    return typeof value === 'string' && SpiffeId.parse(value).path !== ''
  } catch (error) {
    if (error instanceof SpiffeIdError) return false
    throw error
  }
}
