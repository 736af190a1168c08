/** Which login is meant: two commands with the same of all this share one, and whatever differs makes another. */

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

/** @returns the same text for the same login */
export function textOf({ issuer, clientId, token, scope, parameters }: Account): string {
  return JSON.stringify([issuer, clientId, token, scope && [...scope].sort(), [...parameters].sort()])
}

/**
 * @param id by `account_id.ts`
 * @returns what people see in their keyring
 */
export function keyringAccount({ clientId, issuer }: Account, id: string): string {
  return `${clientId}@${issuer} ${id}`
}
