/** `auth/<mount>/login` and `auth/token/…`: tokens are given, looked at, renewed and revoked. */

import { Refusal } from '../refusal.ts'
import type { TokenEntry } from '../state/token_state.ts'
import { readFields } from '../vault/fields.ts'
import { findEntry, findHolder, type Holder } from '../vault/holder.ts'
import { login } from '../vault/login.ts'
import { renew } from '../vault/renewal.ts'
import { TokenSecret } from '../vault/token.ts'
import { VaultError, wrapped } from '../vault/vault_error.ts'
import { authenticate } from './vault_admin.ts'
import { NOTHING, noRoute, type VaultAnswer, type VaultCall, type VaultHandler } from './vault_call.ts'

/** @throws Refusal where the token is none that holds */
export async function holderOf({ token, address, decision, deps }: VaultCall): Promise<Holder> {
  if (token === null) throw new Refusal('vault_token', 'no token')
  const holder = await findHolder(token, address, deps)
  decision.attested(holder.attestation)
  decision.held(holder.entry)
  return holder
}

/** `POST auth/<mount>/login` */
export const postLogin: VaultHandler = async (call) => {
  const { names, deps, decision, address } = call
  const { policy } = await deps.policyRing.current()
  const mount = policy.vault.mounts.get(names[0] ?? '')
  if (!mount) throw new VaultError(404, noRoute(call.path))
  const { fields } = readFields(await call.body(), { role: 'text', jwt: 'text' } as const)
  const { role = '', jwt = '' } = fields
  const { token, type, entry, warnings } = await login({ mount, role, jwt, address }, deps, decision)
  return { auth: authOf(token, type, entry), warnings }
}

/** `auth/token/lookup-self` */
export const lookupSelf: VaultHandler = async (call) => {
  // An administrator's own token, which clients look up to see that it is one.
  if (call.token?.startsWith('eyJ')) return lookupAdmin(call)
  const { token, type, entry } = await holderOf(call)
  call.decision.done('looked_up')
  return { data: viewOf(token, type, entry, call.deps.now()) }
}

async function lookupAdmin(call: VaultCall): Promise<VaultAnswer> {
  const name = await authenticate(call)
  call.decision.done('looked_up')
  return {
    data: {
      id: call.token,
      accessor: '',
      policies: [],
      path: '',
      meta: null,
      display_name: name,
      num_uses: 0,
      orphan: true,
      ttl: 0,
      explicit_max_ttl: 0,
      entity_id: '',
      type: 'batch',
      renewable: false,
    },
  }
}

/** `POST auth/token/renew-self` */
export const renewSelf: VaultHandler = async (call) => {
  const holder = await holderOf(call)
  return renewed(call, holder.token, holder.entry, await incrementIn(call))
}

/** `POST auth/token/revoke-self` */
export const revokeSelf: VaultHandler = async (call) => {
  return revoked(call, (await holderOf(call)).entry)
}

/** `POST auth/token/lookup`, for operators */
export const lookupToken: VaultHandler = async (call) => {
  await authenticate(call)
  const token = await tokenIn(call)
  const found = await findEntry({ token }, call.deps)
  if (!found) throw new VaultError(403, 'bad token')
  note(call, found.entry, 'looked_up')
  return { data: viewOf(token, found.type, found.entry, call.deps.now()) }
}

/** `POST auth/token/lookup-accessor` */
export const lookupAccessor: VaultHandler = async (call) => {
  await authenticate(call)
  const found = await findEntry({ accessor: await accessorIn(call) }, call.deps)
  if (!found) throw new VaultError(400, wrapped('invalid accessor'))
  note(call, found.entry, 'looked_up')
  return { data: viewOf('', found.type, found.entry, call.deps.now()) }
}

/** `POST auth/token/renew` */
export const renewToken: VaultHandler = async (call) => {
  await authenticate(call)
  const token = await tokenIn(call)
  const found = await findEntry({ token }, call.deps)
  if (!found) throw new VaultError(400, 'token not found')
  return renewed(call, token, found.entry, await incrementIn(call))
}

/** `POST auth/token/renew-accessor` */
export const renewAccessor: VaultHandler = async (call) => {
  await authenticate(call)
  const found = await findEntry({ accessor: await accessorIn(call) }, call.deps)
  if (!found) throw new VaultError(400, wrapped('invalid accessor'))
  return renewed(call, '', found.entry, await incrementIn(call))
}

/** `POST auth/token/revoke` */
export const revokeToken: VaultHandler = async (call) => {
  await authenticate(call)
  const found = await findEntry({ token: await tokenIn(call) }, call.deps)
  if (!found) return NOTHING
  return revoked(call, found.entry)
}

/** `POST auth/token/revoke-accessor` */
export const revokeAccessor: VaultHandler = async (call) => {
  await authenticate(call)
  const found = await findEntry({ accessor: await accessorIn(call) }, call.deps)
  if (!found) return { warnings: ['No token found with this accessor'] }
  return revoked(call, found.entry)
}

/** `LIST auth/token/accessors` */
export const listAccessors: VaultHandler = async (call) => {
  await authenticate(call)
  const keys = await call.deps.tokens.accessors()
  return keys.length > 0 ? { data: { keys } } : { status: 404 }
}

async function revoked(call: VaultCall, entry: TokenEntry): Promise<VaultAnswer> {
  const place = TokenSecret.placeOf(entry.accessor)
  if (!place) throw new VaultError(400, 'batch tokens cannot be revoked')
  await call.deps.tokens.revoke(place)
  note(call, entry, 'revoked')
  return NOTHING
}

async function renewed(call: VaultCall, token: string, entry: TokenEntry, increment: number): Promise<VaultAnswer> {
  const { entry: after, warnings } = await renew(entry, increment, call.deps)
  note(call, after, 'renewed')
  return { auth: authOf(token, 'service', after), warnings }
}

function note({ decision }: VaultCall, entry: TokenEntry, outcome: 'looked_up' | 'renewed' | 'revoked'): void {
  decision.held(entry)
  decision.done(outcome)
}

async function tokenIn(call: VaultCall): Promise<string> {
  const { token = '' } = readFields(await call.body(), { token: 'text' } as const).fields
  if (token === '') throw new VaultError(400, 'missing token ID')
  return token
}

async function accessorIn(call: VaultCall): Promise<string> {
  const { accessor = '' } = readFields(await call.body(), { accessor: 'text' } as const).fields
  if (accessor === '') throw new VaultError(400, wrapped('missing accessor'))
  return accessor
}

async function incrementIn(call: VaultCall): Promise<number> {
  return readFields(await call.body(), { increment: 'duration' } as const).fields.increment ?? 0
}

/** @see VL-3 */
function authOf(token: string, type: Holder['type'], entry: TokenEntry): object {
  return {
    client_token: token,
    accessor: entry.accessor,
    policies: entry.policies,
    ...(entry.policies.length > 0 && { token_policies: entry.policies }),
    metadata: metadataOf(entry),
    lease_duration: entry.expiresAt - (entry.renewedAt ?? entry.issuedAt),
    renewable: type === 'service',
    entity_id: entry.entityId,
    token_type: type,
    orphan: true,
    mfa_requirement: null,
    num_uses: entry.numUses,
  }
}

function metadataOf({ role, workload: { namespace, serviceAccount } }: TokenEntry): Record<string, string> {
  return {
    role,
    service_account_name: serviceAccount.name,
    service_account_namespace: namespace,
    // Only tokens of old came from a secret.
    service_account_secret_name: '',
    service_account_uid: serviceAccount.uid,
  }
}

/** @see §10.6 of Vault's token API: what `lookup-self` tells */
function viewOf(token: string, type: Holder['type'], entry: TokenEntry, now: number): object {
  const { workload, period, boundCidrs, renewedAt } = entry
  return {
    id: token,
    accessor: entry.accessor,
    policies: entry.policies,
    path: `auth/${entry.mount}/login`,
    meta: metadataOf(entry),
    display_name: [...entry.mount.split('/'), workload.namespace, workload.serviceAccount.name].join('-'),
    num_uses: entry.numUses,
    orphan: true,
    creation_time: entry.issuedAt,
    creation_ttl: entry.creationTtl,
    expire_time: timeOf(entry.expiresAt),
    issue_time: timeOf(entry.issuedAt),
    ttl: entry.expiresAt - now,
    explicit_max_ttl: entry.explicitMaxTtl,
    entity_id: entry.entityId,
    type,
    renewable: type === 'service',
    ...(period > 0 && { period }),
    ...(boundCidrs.length > 0 && { bound_cidrs: boundCidrs }),
    ...(renewedAt !== null && { last_renewal: timeOf(renewedAt), last_renewal_time: renewedAt }),
  }
}

function timeOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}
