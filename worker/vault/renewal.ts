/** A token's new end, by its role as it stands now (VT-1). */

import type { VaultLoginAttestor } from '../attest/vault_login.ts'
import { Refusal } from '../refusal.ts'
import type { TokenEntry } from '../state/token_state.ts'
import type { HolderDeps } from './holder.ts'
import { ttlTerms } from './login.ts'
import { TokenSecret } from './token.ts'
import { calculateTtl } from './ttl.ts'
import { VaultError, wrapped } from './vault_error.ts'

export interface RenewedToken {
  readonly entry: TokenEntry
  readonly warnings: readonly string[]
}

/**
 * @param increment seconds that are asked for; 0 for what the role says
 * @throws VaultError, or a Refusal where the pod is there no more or nobody can say so
 */
export async function renew(entry: TokenEntry, increment: number, deps: HolderDeps): Promise<RenewedToken> {
  const place = TokenSecret.placeOf(entry.accessor)
  if (!place) throw new VaultError(400, 'batch tokens cannot be renewed')
  const { policy, attestors } = await deps.policyRing.current()
  const mount = policy.vault.mounts.get(entry.mount)
  const role = policy.vault.roles.get(`${entry.mount}/${entry.role.toLowerCase()}`)
  if (!mount || !role)
    throw new VaultError(500, wrapped(`failed to renew entry: role ${entry.role} does not exist during renewal`))
  const now = deps.now()
  const terms = ttlTerms(role, mount, attestors.logins, entry.workload, entry.subjectExpiresAt)
  const { ttl, warnings } = calculateTtl(terms, increment, entry.issuedAt, now)
  if (ttl <= 0) throw new VaultError(500, wrapped('past the max TTL, cannot renew'))
  const expiresAt = now + ttl
  await confirmIfLonger(entry, expiresAt, attestors.logins)
  const renewed = await deps.tokens.renew(place, { expiresAt, period: role.spec.token_period, renewedAt: now })
  if (!renewed) throw new Refusal('vault_token', 'revoked or expired meanwhile')
  return { entry: renewed, warnings }
}

/**
 * Whoever is given more than their service account token had must still be there (T-8).
 *
 * @param until seconds since the epoch
 * @throws Refusal
 */
export async function confirmIfLonger(
  { mount, workload, subjectExpiresAt }: TokenEntry,
  until: number,
  logins: VaultLoginAttestor,
): Promise<void> {
  if (until > subjectExpiresAt) await logins.confirm(mount, workload)
}
