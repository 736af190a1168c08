/** What is kept of logins on this machine, for people to see. Nothing of it is secret. */

import { formatTime, table } from '../terminal.ts'
import { type Kept, PLACES } from './session_store.ts'

export interface CredentialReport {
  readonly issuer: string
  readonly clientId: string
  /** `id` or `access`. */
  readonly token: string
  /** Where the secret is. */
  readonly place: string
  readonly expiresAt: string
  readonly expired: boolean
  /** Whether there is a refresh token. */
  readonly refreshable: boolean
}

/** @param now seconds since the epoch */
export function reportCredentials(kept: readonly Kept[], now: number): CredentialReport[] {
  return kept.map(({ account, place, expiresAt, refreshable }) => ({
    issuer: account.issuer,
    clientId: account.clientId,
    token: account.token,
    place: PLACES[place],
    expiresAt: formatTime(expiresAt),
    expired: expiresAt <= now,
    refreshable,
  }))
}

export function describeCredentials(reports: readonly CredentialReport[]): string {
  if (reports.length === 0) return 'No login is kept on this machine.\n'
  const rows = reports.map(({ issuer, clientId, token, place, expiresAt, expired, refreshable }) => [
    issuer,
    clientId,
    token,
    expired ? `over since ${expiresAt}` : expiresAt,
    refreshable ? 'yes' : 'no',
    place,
  ])
  return table([['PROVIDER', 'CLIENT', 'TOKEN', 'GOOD UNTIL', 'RENEWED', 'KEPT IN'], ...rows])
}
