import { createHash } from 'node:crypto'
import { type Account, textOf } from './account.ts'

/** @returns a name that is good for files, and says nothing */
export function idOf(account: Account): string {
  return digest(textOf(account))
}

/** @returns the same for all logins at one provider: to the person they are one */
export function idOfProvider({ issuer }: Account): string {
  return digest(issuer)
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}
