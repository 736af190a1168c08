/** What administrators do with signing keys: look at them, put the next one to work, and take one away for good. */

import type { AlgorithmName } from '../keys/algorithms.ts'
import { type KeyUse, type Signer, SigningError } from '../keys/signer.ts'
import { signCanary } from './cluster/canary.ts'
import type { Config } from './config.ts'
import { Refusal } from './refusal.ts'
import type { KeyRing } from './state/key_ring.ts'
import type { KeyReport, KeyState, Revocation, RotateOutcome } from './state/key_state.ts'
import { STATE_RETRY_AFTER_SECONDS } from './state/leased_copy.ts'
import type { PolicyRing } from './state/policy_ring.ts'

/** What administering keys needs. Built once per isolate. */
export interface AdministerKeysDeps {
  readonly config: Config
  readonly keyRing: KeyRing
  readonly policyRing: PolicyRing
  keyState(): Pick<DurableObjectStub<KeyState>, 'report' | 'rotate' | 'revoke'>
  /** Seconds since the epoch. */
  now(): number
}

/** A JWKS by the SHA-256 of its bytes, in hexadecimal: what kube-apiserver calls it too (D3). */
export interface JwksName {
  readonly sha256: string
}

export interface Canary {
  readonly cluster: string
  readonly audience: string
  /** A JWT-SVID of the key that has been revoked. */
  readonly token: string
}

export interface RevokedKey {
  readonly kid: string
  readonly use: KeyUse
  /** Seconds since the epoch. */
  readonly revokedAt: number
  readonly signingStopsAt: number
  readonly jwks: JwksName
  /** One for each cluster; none where the key signs certificates, or has been revoked before. */
  readonly canaries: readonly Canary[]
  /** Why there are none. */
  readonly canaryProblem: string | null
}

/** @throws Refusal `keys_unavailable` */
export async function reportKeys(deps: AdministerKeysDeps): Promise<KeyReport & { readonly jwks: JwksName }> {
  const report = await asking<KeyReport | null>(deps.keyState().report(deps.config.keys.stamp))
  if (!report) throw unavailable('the storage belongs to another worker')
  return { ...report, jwks: await jwksName(deps.keyRing) }
}

/**
 * @param alg null for the default one
 * @throws Refusal `keys_unavailable`
 */
export async function rotateKeys(
  use: KeyUse,
  alg: AlgorithmName | null,
  deps: AdministerKeysDeps,
): Promise<RotateOutcome> {
  return await asking<RotateOutcome>(deps.keyState().rotate(deps.config.keys.stamp, use, alg))
}

/**
 * @returns null where there is no such key, and never was
 * @throws Refusal `keys_unavailable`, `policy_unavailable`
 */
export async function revokeKey(kid: string, deps: AdministerKeysDeps): Promise<RevokedKey | null> {
  // What is to show that the key is dead has to be signed while it lives. If that can't be, it is revoked all the same.
  const { canaries, problem } = await signCanaries(kid, deps)
  const revocation = await asking<Revocation | null>(deps.keyState().revoke(deps.config.keys.stamp, kid))
  if (!revocation) return null
  return { ...revocation, jwks: await jwksName(deps.keyRing), canaries, canaryProblem: problem }
}

async function signCanaries(
  kid: string,
  { config, keyRing, policyRing, now }: AdministerKeysDeps,
): Promise<{ canaries: Canary[]; problem: string | null }> {
  try {
    const signer: Signer | null = await keyRing.signerOf(kid)
    if (!signer) return { canaries: [], problem: null }
    const { policy } = await policyRing.current()
    const expiresAt = now() + config.keys.times.longestTtl
    const canaries = await Promise.all(
      [...policy.clusters.values()].map(async (cluster) => ({
        cluster: cluster.name,
        audience: cluster.apiServerAudiences[0] ?? '',
        token: await signCanary(cluster, config, signer, now(), expiresAt),
      })),
    )
    return { canaries, problem: null }
  } catch (error) {
    if (error instanceof SigningError) return { canaries: [], problem: error.code }
    if (error instanceof Refusal) return { canaries: [], problem: error.reason }
    throw error
  }
}

async function jwksName(keyRing: KeyRing): Promise<JwksName> {
  const published = await renewed(keyRing)
  return { sha256: published?.jwks.sha256 ?? '' }
}

/** A state that has just answered and has nothing to publish any more is no reason not to say what has happened. */
async function renewed(keyRing: KeyRing) {
  try {
    return await keyRing.renew()
  } catch (error) {
    if (error instanceof Refusal) return null
    throw error
  }
}

async function asking<T>(answer: PromiseLike<unknown>): Promise<T> {
  try {
    return (await answer) as T
  } catch (error) {
    throw unavailable((error as Error).name)
  }
}

function unavailable(detail: string): Refusal {
  return new Refusal('keys_unavailable', `key state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
