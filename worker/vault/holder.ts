/** Who holds a token of Vault's kind: found, and judged anew at each use by the policy as it stands. */

import type { PodAttestation } from '../attest/attestation.ts'
import type { VaultLoginAttestor } from '../attest/vault_login.ts'
import { checkBans } from '../policy/authorize.ts'
import { isWithin, type VaultRole } from '../policy/vault_role.ts'
import { Refusal } from '../refusal.ts'
import type { PolicyRing, PolicySnapshot } from '../state/policy_ring.ts'
import type { TokenEntry } from '../state/token_state.ts'
import type { TokenStore } from '../state/token_store.ts'
import { type ReadToken, TokenSecret } from './token.ts'

/** What dealing with tokens needs. Built once per isolate. */
export interface HolderDeps {
  readonly policyRing: PolicyRing
  readonly tokens: TokenStore
  /** null where the deployment has no VAULT_TOKEN_KEY: then there is nothing of Vault's here. */
  readonly tokenSecret: Promise<TokenSecret> | null
  /** Seconds since the epoch. */
  now(): number
}

export interface Holder {
  readonly token: string
  readonly type: 'service' | 'batch'
  readonly entry: TokenEntry
  readonly attestation: PodAttestation
  /** null if it is there no more. */
  readonly role: VaultRole | null
  readonly snapshot: PolicySnapshot
}

/**
 * @param token as it came in a header
 * @param address the client's; null where the platform does not say
 * @throws Refusal `vault_token` for what is no token, or one that holds no more; `address_not_bound`, `banned`
 */
export async function findHolder(token: string, address: string | null, deps: HolderDeps): Promise<Holder> {
  const read = (await (await deps.tokenSecret)?.read(token)) ?? null
  if (!read) throw new Refusal('vault_token', 'not made here')
  const entry = read.type === 'service' ? await deps.tokens.use(read.place) : batchEntry(read, deps.now())
  if (!entry) throw new Refusal('vault_token', 'revoked, used up or expired')
  return judge(token, read.type, entry, address, deps)
}

/**
 * The same by a token or accessor that an operator names: nothing is used up, and nothing is asked of the operator's address.
 *
 * @returns null where there is none
 */
export async function findEntry(
  name: { readonly token: string } | { readonly accessor: string },
  { tokens, tokenSecret, now }: HolderDeps,
): Promise<{ readonly type: Holder['type']; readonly entry: TokenEntry } | null> {
  if ('accessor' in name) {
    const place = TokenSecret.placeOf(name.accessor)
    const entry = place && (await tokens.read(place))
    return entry && { type: 'service', entry }
  }
  const read = (await (await tokenSecret)?.read(name.token)) ?? null
  const entry = read && (read.type === 'service' ? await tokens.read(read.place) : batchEntry(read, now()))
  return read && entry && { type: read.type, entry }
}

/** It was sealed here, so it is what {@link TokenEntry} says. */
function batchEntry({ entry }: ReadToken & { type: 'batch' }, now: number): TokenEntry | null {
  const batch = entry as unknown as TokenEntry
  return batch.expiresAt > now ? batch : null
}

async function judge(
  token: string,
  type: Holder['type'],
  entry: TokenEntry,
  address: string | null,
  { policyRing }: HolderDeps,
): Promise<Holder> {
  const snapshot = await policyRing.current()
  const { vault } = snapshot.policy
  const mount = vault.mounts.get(entry.mount)
  if (mount?.accessor !== entry.mountAccessor || mount.config?.cluster !== entry.workload.cluster)
    throw new Refusal('vault_token', `VaultMount ${entry.mount} is another by now`)
  if (entry.boundCidrs.length > 0 && !isWithin(address, entry.boundCidrs))
    throw new Refusal('address_not_bound', 'the token is bound to other addresses')
  const role = vault.roles.get(`${entry.mount}/${entry.role.toLowerCase()}`) ?? null
  const attestation = recall(snapshot.attestors.logins, entry)
  checkBans(attestation, role?.registration ?? null, snapshot.policy)
  return { token, type, entry, attestation, role, snapshot }
}

function recall(logins: VaultLoginAttestor, { workload, expiresAt }: TokenEntry): PodAttestation {
  return logins.recall(workload, expiresAt)
}
