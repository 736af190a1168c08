/** From a service account token to a token of Vault's kind. */

import type { PodAttestation } from '../attest/attestation.ts'
import type { TokenFacts } from '../attest/token_review.ts'
import type { VaultLoginAttestor } from '../attest/vault_login.ts'
import type { Decision } from '../audit.ts'
import { checkBans } from '../policy/authorize.ts'
import type { VaultMount } from '../policy/vault_mount.ts'
import { isWithin, type VaultRole } from '../policy/vault_role.ts'
import { Refusal } from '../refusal.ts'
import type { TokenEntry } from '../state/token_state.ts'
import type { HolderDeps } from './holder.ts'
import { sanitizePolicies } from './role.ts'
import type { TokenSecret } from './token.ts'
import { calculateTtl, type TtlTerms } from './ttl.ts'
import { VaultError } from './vault_error.ts'

/** Characters of what is no name of a role. */
const MAX_ECHOED = 128

export interface LoginRequest {
  readonly mount: VaultMount
  /** As it came; roles are found whatever the case. */
  readonly role: string
  readonly jwt: string
  /** The client's; null where the platform does not say. */
  readonly address: string | null
}

export interface GivenToken {
  readonly token: string
  readonly type: 'service' | 'batch'
  readonly entry: TokenEntry
  readonly warnings: readonly string[]
}

/**
 * @param decision is told of each step as it is done
 * @throws VaultError, Refusal; in the plugin's order
 */
export async function login(request: LoginRequest, deps: HolderDeps, decision: Decision): Promise<GivenToken> {
  const { mount, address, jwt } = request
  if (request.role === '') throw new VaultError(400, 'missing role')
  if (jwt === '') throw new VaultError(400, 'missing jwt')
  decision.presented(jwt)
  const now = deps.now()
  const { policy, attestors } = await deps.policyRing.current()
  const role = policy.vault.roles.get(`${mount.path}/${request.role.toLowerCase()}`)
  if (!role)
    throw new VaultError(400, `invalid role name ${JSON.stringify(request.role.slice(0, MAX_ECHOED))}`, 'no such role')
  const { spec } = role
  const bound = spec.token_strictly_bind_ip ? [address ?? ''] : spec.token_bound_cidrs
  if (bound.length > 0 && !isWithin(address, bound)) throw new Refusal('address_not_bound', 'not in token_bound_cidrs')
  const attestation = await attestors.logins.attest(role, jwt, now)
  decision.attested(attestation)
  checkBans(attestation, role.registration, policy)
  const secret = await deps.tokenSecret
  if (!secret) throw new TypeError('there are no mounts without a secret')
  const terms = ttlTerms(role, mount, attestors.logins, attestation, attestation.expiresAt)
  const { ttl, warnings } = calculateTtl(terms, 0, now, now)
  const entry = await makeEntry(role, request, attestation, bound, now, ttl, secret)
  const given = spec.token_type === 'batch' ? await makeBatch(entry, secret) : await makeService(entry, deps, secret)
  decision.held(given.entry)
  decision.done('logged_in')
  return { ...given, warnings }
}

/**
 * T-8: a token outlives the one that it was given for only where its role says how long it lives, and the API server can be
 * asked then whether the pod is still there.
 *
 * @param subjectExpiresAt seconds since the epoch
 */
export function ttlTerms(
  { spec }: VaultRole,
  mount: VaultMount,
  logins: VaultLoginAttestor,
  workload: TokenFacts,
  subjectExpiresAt: number,
): TtlTerms {
  const outlives = (spec.token_ttl > 0 || spec.token_period > 0) && logins.canOutlive(mount.path, workload)
  return {
    ttl: spec.token_ttl,
    maxTtl: spec.token_max_ttl,
    period: spec.token_period,
    explicitMaxTtl: spec.token_explicit_max_ttl,
    defaultTtl: mount.defaultLeaseTtl,
    mountMaxTtl: mount.maxLeaseTtl,
    notAfter: outlives ? null : subjectExpiresAt,
  }
}

async function makeEntry(
  { spec }: VaultRole,
  { mount, role }: LoginRequest,
  { cluster, namespace, serviceAccount, pod, node, expiresAt }: PodAttestation,
  boundCidrs: readonly string[],
  now: number,
  ttl: number,
  secret: TokenSecret,
): Promise<TokenEntry> {
  const alias =
    spec.alias_name_source === 'serviceaccount_uid' ? serviceAccount.uid : `${namespace}/${serviceAccount.name}`
  return {
    accessor: '',
    mount: mount.path,
    mountAccessor: mount.accessor,
    role,
    workload: { cluster, namespace, serviceAccount, pod, node },
    subjectExpiresAt: expiresAt,
    policies: sanitizePolicies([...spec.token_policies, ...(spec.token_no_default_policy ? [] : ['default'])]),
    boundCidrs,
    entityId: await secret.entityId(mount.accessor, alias),
    issuedAt: now,
    expiresAt: now + ttl,
    creationTtl: ttl,
    explicitMaxTtl: spec.token_explicit_max_ttl,
    period: spec.token_period,
    numUses: spec.token_num_uses,
    renewedAt: null,
  }
}

async function makeBatch(entry: TokenEntry, secret: TokenSecret) {
  return { token: await secret.makeBatch(entry), type: 'batch' as const, entry }
}

async function makeService(entry: TokenEntry, { tokens }: HolderDeps, secret: TokenSecret) {
  const { token, accessor, place } = await secret.make()
  const stored = { ...entry, accessor }
  await tokens.create(place, stored)
  return { token, type: 'service' as const, entry: stored }
}
