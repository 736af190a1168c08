/** Which login is meant: two commands with the same of all this share one, and whatever differs makes another. */

import { createHash } from 'node:crypto'

/** The member of a token answer that is shown to the API server. */
export type TokenKind = 'id' | 'access'

export interface Account {
  /** Of the provider, as its discovery document has it. */
  readonly issuer: string
  readonly clientId: string
  readonly token: TokenKind
  /** null: those that go without saying. */
  readonly scope: readonly string[] | null
  /** What else the authorization request says. */
  readonly parameters: readonly (readonly [string, string])[]
}

/** @returns a name that is good for files, and says nothing */
export function idOf({ issuer, clientId, token, scope, parameters }: Account): string {
  const text = JSON.stringify([issuer, clientId, token, scope && [...scope].sort(), [...parameters].sort()])
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

/** @returns what people see in their keyring */
export function keyringAccount(account: Account): string {
  return `${account.clientId}@${account.issuer} ${idOf(account)}`
}
