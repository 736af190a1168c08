/** Whether the next key may sign: each condition with its evidence, and no step before all of them hold (D4, T-17). */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { AdminClient } from '../admin_client.ts'
import { openKubeconfig } from '../cluster/kubeconfig.ts'
import { Failure } from '../failure.ts'
import { formatTime, type Terminal } from '../terminal.ts'
import type { GivenApiserver } from './given_apiservers.ts'
import { spreadKeySet } from './key_cache.ts'
import type { KeyReport } from './key_report.ts'
import { type Keys, noSuccessor, type SigningKey } from './keys_client.ts'
import type { PublishedBundle } from './published_bundle.ts'
import { registeredClusters } from './registered_clusters.ts'
import type { Unproven } from './unproven.ts'

export interface ApiserverGate {
  readonly cluster: string
  /** How many API servers there are, as the operator states it. */
  readonly stated: number
  readonly seen: number
  /** null: each of them holds the key set that the issuer answers with. */
  readonly problem: Unproven | null
}

/** @returns the keys that would sign next: the worker makes them itself, and they are published */
export function successors({ keys, defaultAlg }: Keys, alg: AlgorithmName | null): readonly SigningKey[] {
  const wanted = alg ?? defaultAlg
  return keys.filter((key) => key.made && key.phase === 'published' && (wanted === null || key.alg === wanted))
}

/** @returns why the worker and the issuer do not allow it yet; empty if they do */
export function rotationProblems(report: KeyReport, alg: AlgorithmName | null): string[] {
  const waiting = successors(report, alg)
  if (waiting.length === 0) {
    const wanted = alg ?? report.defaultAlg
    const announced = report.keys.find(
      (key) => key.made && key.phase === 'announced' && (wanted === null || key.alg === wanted),
    )
    return [announced ? `${announced.kid} is announced and not published yet` : noSuccessor('jwt-svid')]
  }
  return [
    ...waiting.flatMap((key) => keyProblems(key, report)),
    ...(report.publishedProblem === null ? [] : [report.publishedProblem]),
    ...(report.published?.current === false
      ? ['the issuer does not answer with what the worker says: a cache in between may hold it for a while']
      : []),
  ]
}

/** @returns why the next authority for X.509-SVIDs may not sign yet; empty if it may */
export function authorityRotationProblems(
  { authorities, now }: Keys,
  bundle: PublishedBundle,
  alg: AlgorithmName | null,
): string[] {
  const own = authorities.filter((key) => key.made && (alg === null || key.alg === alg))
  const waiting = own.filter(({ phase }) => phase === 'published')
  if (waiting.length === 0) {
    const announced = own.find(({ phase }) => phase === 'announced')
    return [announced ? `${announced.kid} is announced and not published yet` : noSuccessor('x509-svid')]
  }
  return waiting.flatMap((key) => [
    ...signingProblems(key, now),
    ...(bundle.authorities.has(key.kid) ? [] : [`${bundle.url} answers without ${key.kid}`]),
  ])
}

function keyProblems(key: SigningKey, { now, evidence }: KeyReport): string[] {
  const { kid } = key
  return [
    ...signingProblems(key, now),
    ...(evidence.find((entry) => entry.kid === kid)?.published === false
      ? [`the issuer does not answer with ${kid}`]
      : []),
  ]
}

function signingProblems({ kid, safeAt, failed }: SigningKey, now: number): string[] {
  return [
    ...(safeAt === null ? [`${kid} is not safe to sign with, and the worker does not say from when on it is`] : []),
    ...(safeAt !== null && safeAt > now
      ? [`${kid} is safe to sign with from ${formatTime(safeAt)} on, in ${safeAt - now} s`]
      : []),
    ...(failed === null ? [] : [`${kid} could not sign when it was tried: ${failed}`]),
  ]
}

/**
 * Has the API servers of each cluster look at the JWKS, and asks them which one they hold.
 *
 * @param key the one that would sign next
 * @param given with a count each
 * @throws Failure if the worker does not say which clusters there are
 */
export async function apiserverGates(
  admin: AdminClient,
  sha256: string,
  key: SigningKey,
  given: Iterable<GivenApiserver>,
  terminal: Terminal,
): Promise<readonly ApiserverGate[]> {
  const clusters = registeredClusters(await admin.objects())
  const gate = async ({ cluster, kubeconfig, context, count }: GivenApiserver): Promise<ApiserverGate> => {
    const stated = count ?? 1
    if (!clusters.has(cluster)) return { cluster, stated, seen: 0, problem: { reason: 'not_registered', detail: null } }
    try {
      const api = await openKubeconfig(kubeconfig, context, terminal)
      const nudge = { issuer: admin.issuer, audience: clusters.get(cluster) ?? null, alg: key.alg }
      const isRight = async (held: string) => held === sha256
      return { cluster, stated, ...(await spreadKeySet(api, nudge, stated, isRight, terminal)) }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      return { cluster, stated, seen: 0, problem: { reason: 'kubeconfig', detail: error.message } }
    }
  }
  return Promise.all([...given].map(gate))
}
