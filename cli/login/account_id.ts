import { createHash } from 'node:crypto'
import { type Account, textOf } from './account.ts'

/** @returns a name that is good for files, and says nothing */
export function idOf(account: Account): string {
  return createHash('sha256').update(textOf(account)).digest('hex').slice(0, 32)
}
