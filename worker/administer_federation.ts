/** What administrators do with the bundles of other trust domains: look at them, bring one, and have one fetched now. */

import type { Stamp } from './key_settings.ts'
import type { FederatedTrustDomain } from './policy/federated_trust_domain.ts'
import { Refusal } from './refusal.ts'
import { settledOrLate } from './shared_call.ts'
import type { FederationRing } from './state/federation_ring.ts'
import type { FederationState, PeerStatus, RefreshOutcome, SetOutcome } from './state/federation_state.ts'
import { STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './state/leased_copy.ts'
import type { PolicyRing, PolicySnapshot } from './state/policy_ring.ts'

/** What administering other trust domains needs. Built once per isolate. */
export interface AdministerFederationDeps {
  readonly config: { readonly keys: { readonly stamp: Stamp } }
  readonly policyRing: PolicyRing
  readonly federationRing: FederationRing
  federationState(): Pick<DurableObjectStub<FederationState>, 'report' | 'set' | 'refresh'>
}

/** A trust domain that the policy names. */
export interface FederationStatus extends PeerStatus {
  /** Of the object. */
  readonly name: string
  readonly bundleEndpointURL: string | null
  readonly bundleEndpointProfile: 'https_web' | null
}

/** A bundle is fetched, and each redirect of it, within the time of one. */
const REFRESH_TIMEOUT_MS = 2 * STATE_TIMEOUT_MS

/** @throws Refusal `policy_unavailable`, `federation_unavailable` */
export async function reportFederation(deps: AdministerFederationDeps): Promise<readonly FederationStatus[]> {
  const { federation } = (await named(deps)).policy
  if (federation.size === 0) return []
  const statuses = await asking<PeerStatus[] | null>(deps.federationState().report(deps.config.keys.stamp))
  if (!statuses) throw unavailable('the storage belongs to another worker')
  const known = new Map(statuses.map((status) => [status.trustDomain, status]))
  return [...federation.values()]
    .map((peer) => ({ ...nameOf(peer), ...(known.get(peer.trustDomain) ?? unheardOf(peer.trustDomain)) }))
    .sort((one, other) => (one.trustDomain < other.trustDomain ? -1 : 1))
}

/** In a rollout the state may go by another policy for a while. */
function unheardOf(trustDomain: string): PeerStatus {
  return {
    ...{ trustDomain, fetchedAt: null, succeededAt: null, failure: null, nextAt: null, keys: null, sequence: null },
    ...{ refreshHintSeconds: null, changedAt: null, change: { added: [], removed: [] }, breaksAt: null },
  }
}

/**
 * @param bundle JSON
 * @throws Refusal `policy_unavailable`, `federation_unavailable`
 */
export async function setBundle(
  trustDomain: string,
  bundle: string,
  deps: AdministerFederationDeps,
): Promise<SetOutcome> {
  const snapshot = await named(deps)
  if (!snapshot.policy.federation.has(trustDomain)) return { outcome: 'unknown' }
  const outcome = await asking<SetOutcome>(deps.federationState().set(deps.config.keys.stamp, trustDomain, bundle))
  await renew(snapshot, deps)
  return outcome
}

/** @throws Refusal `policy_unavailable`, `federation_unavailable` */
export async function refreshBundle(trustDomain: string, deps: AdministerFederationDeps): Promise<RefreshOutcome> {
  const snapshot = await named(deps)
  if (!snapshot.policy.federation.has(trustDomain)) return { outcome: 'unknown' }
  const refreshing = deps.federationState().refresh(deps.config.keys.stamp, trustDomain)
  const outcome = await asking<RefreshOutcome>(refreshing, REFRESH_TIMEOUT_MS)
  await renew(snapshot, deps)
  return outcome
}

/** @returns the policy as it is, of which the state has been told */
async function named({ policyRing, federationRing }: AdministerFederationDeps): Promise<PolicySnapshot> {
  const snapshot = await policyRing.renew()
  if (snapshot.policy.federation.size > 0) await federationRing.renew(snapshot)
  return snapshot
}

/** It has happened. If this isolate can't read it back at once, it will before long. */
async function renew(snapshot: PolicySnapshot, { federationRing }: AdministerFederationDeps): Promise<void> {
  await federationRing.renew(snapshot).catch(() => {})
}

function nameOf({ name, bundleEndpointUrl }: FederatedTrustDomain) {
  const bundleEndpointProfile = bundleEndpointUrl === null ? null : ('https_web' as const)
  return { name, bundleEndpointURL: bundleEndpointUrl, bundleEndpointProfile }
}

async function asking<T>(answer: PromiseLike<unknown>, timeoutMs = STATE_TIMEOUT_MS): Promise<T> {
  const outcome = await settledOrLate(Promise.resolve(answer), timeoutMs).catch((error: Error) => {
    throw unavailable(error.name)
  })
  if (!outcome) throw unavailable('no answer')
  return outcome.value as T
}

function unavailable(detail: string): Refusal {
  return new Refusal('federation_unavailable', `federation state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
