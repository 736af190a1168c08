/**
 * Emergency revocation: the key dies at the worker first, and then it is shown, cluster by cluster, that its tokens are
 * refused, or said why that is not certain (T-21, D4).
 */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { KeyUse } from '../../keys/signer.ts'
import type { AdminClient } from '../admin_client.ts'
import { type KubeApi, openKubeconfig } from '../cluster/kubeconfig.ts'
import { Failure } from '../failure.ts'
import { formatTime, printable, type Terminal } from '../terminal.ts'
import type { GivenApiserver } from './given_apiservers.ts'
import { canaryAccepted, canaryRefused, type Nudge, spreadKeySet } from './key_cache.ts'
import { type Canary, type Keys, type KeysClient, keysClient, type Revocation } from './keys_client.ts'
import { fetchPublishedBundle, type PublishedBundle } from './published_bundle.ts'
import { fetchPublishedKeys } from './published_keys.ts'
import { registeredClusters } from './registered_clusters.ts'
import type { Unproven, UnprovenReason } from './unproven.ts'

/** Caches of the platform and of whoever is in between (D3): longer than `max-age` and the clocks' difference. */
const PUBLISHED_TRIES = 24
const PUBLISHED_PAUSE_MS = 5000
const PROGRESS_SECONDS = 30
/** Where nothing says what the API server takes: it takes this one, unless it is set up by flags. */
const DEFAULT_ALG: AlgorithmName = 'ES256'

export interface ClusterProof {
  readonly cluster: string
  readonly result: 'proven' | 'unproven'
  /** Empty if it is proven. */
  readonly reasons: readonly Unproven[]
  readonly apiservers: {
    /** By the operator; null if that was not said. */
    readonly stated: number | null
    readonly seen: number
  }
}

export interface RevocationReport {
  readonly kid: string
  readonly use: KeyUse
  readonly revokedAt: number
  readonly signingStopsAt: number
  /** Whether the issuer answers without the key. */
  readonly withdrawn: boolean
  /** Of a key that signs certificates: how long readers of the bundle may keep it, in seconds; null if that is not known. */
  readonly refreshHint: number | null
  readonly clusters: readonly ClusterProof[]
  /** What went wrong besides. */
  readonly problems: readonly string[]
}

/** One cluster on the way to its proof. */
interface Case {
  readonly cluster: string
  readonly given: GivenApiserver | null
  readonly canary: Canary | null
  readonly audience: string | null
  readonly reasons: Unproven[]
  api: KubeApi | null
  seen: number
}

/**
 * @returns what is proven
 * @throws Failure only if the worker has not revoked the key, or does not say so
 */
export async function revokeAndProve(
  admin: AdminClient,
  kid: string,
  given: ReadonlyMap<string, GivenApiserver>,
  terminal: Terminal,
): Promise<RevocationReport> {
  const client = keysClient(admin)
  const revocation = await client.revoke(kid)
  terminal.say(`revoked at ${formatTime(revocation.revokedAt)}`)
  const problems: string[] = []
  /** From here on nothing may end it early. */
  const attempt = async <T>(step: Promise<T>): Promise<T | null> => {
    try {
      return await step
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      problems.push(error.message)
      return null
    }
  }
  if (revocation.use === 'x509-svid') {
    // No API server takes certificates of ours: who verifies them reads the bundle, and nobody knows who that is.
    const keys = await keysOrNull(client, terminal)
    await waitForLeases(revocation, keys?.now ?? revocation.revokedAt, terminal)
    const bundle = await attempt(awaitWithdrawal(() => bundleWithout(admin.issuer, kid), terminal))
    return reportOf(revocation, bundle !== null, bundle?.refreshHint ?? null, [], problems)
  }
  if (revocation.canaryProblem !== null)
    problems.push(`the worker could not make canaries: ${revocation.canaryProblem}`)
  const objects = await attempt(admin.objects())
  const registered = objects && registeredClusters(objects)
  const cases = casesOf(revocation, registered, given)
  await Promise.all(cases.map((one) => prepare(one, terminal)))

  const keys = await keysOrNull(client, terminal)
  await waitForLeases(revocation, keys?.now ?? revocation.revokedAt, terminal)
  const withdrawn = await attempt(awaitWithdrawal(() => jwksWithout(admin.issuer, kid), terminal))
  const alg = keys?.defaultAlg ?? DEFAULT_ALG
  if (withdrawn) await Promise.all(cases.map((one) => prove(one, admin.issuer, kid, withdrawn, alg, terminal)))
  else for (const { reasons } of cases) reasons.push({ reason: 'still_published', detail: null })
  return reportOf(revocation, withdrawn !== null, null, cases.map(proofOf), problems)
}

function reportOf(
  { kid, use, revokedAt, signingStopsAt }: Revocation,
  withdrawn: boolean,
  refreshHint: number | null,
  clusters: readonly ClusterProof[],
  problems: readonly string[],
): RevocationReport {
  return { kid, use, revokedAt, signingStopsAt, withdrawn, refreshHint, clusters, problems }
}

/** Without them it only takes longer. */
async function keysOrNull(client: KeysClient, terminal: Terminal): Promise<Keys | null> {
  try {
    return await client.keys()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    terminal.say(error.message)
    return null
  }
}

function casesOf(
  { canaries }: Revocation,
  registered: ReadonlyMap<string, string | null> | null,
  given: ReadonlyMap<string, GivenApiserver>,
): Case[] {
  const canaryOf = new Map(canaries.map((canary) => [canary.cluster, canary]))
  const clusters = new Set([...(registered?.keys() ?? []), ...canaryOf.keys(), ...given.keys()])
  return [...clusters].sort().map((cluster) => {
    const canary = canaryOf.get(cluster) ?? null
    const one: Case = {
      cluster,
      given: given.get(cluster) ?? null,
      canary,
      audience: canary?.audience ?? registered?.get(cluster) ?? null,
      reasons: [],
      api: null,
      seen: 0,
    }
    if (registered && !registered.has(cluster) && !canary) add(one, 'not_registered')
    if (!one.given) add(one, 'no_apiserver')
    else if (one.given.count === null) add(one, 'count_not_stated')
    if (!canary) add(one, 'no_canary')
    return one
  })
}

function add({ reasons }: Case, reason: UnprovenReason, detail: string | null = null): void {
  reasons.push({ reason, detail })
}

/** While the API server still knows the key. */
async function prepare(one: Case, terminal: Terminal): Promise<void> {
  const { given, canary, cluster } = one
  if (!given) return
  try {
    one.api = await openKubeconfig(given.kubeconfig, given.context, terminal)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return add(one, 'kubeconfig', error.message)
  }
  if (!canary) return
  const problem = await canaryAccepted(one.api, canary.token)
  if (problem) one.reasons.push(problem)
  else terminal.say(`${printable(cluster)}: a token of the key is still accepted, as it must be before the proof`)
}

/** Whatever this machine's clock says: what counts is how much time must pass by the worker's. */
async function waitForLeases({ signingStopsAt }: Revocation, now: number, terminal: Terminal): Promise<void> {
  // The worker's clock is rounded down to seconds.
  let left = signingStopsAt < now ? 0 : signingStopsAt - now + 1
  while (left > 0) {
    terminal.say(`the last isolate may sign with it until ${formatTime(signingStopsAt)}: ${left} s left`)
    const step = Math.min(left, PROGRESS_SECONDS)
    await terminal.wait(step * 1000)
    left -= step
  }
}

const STILL_PUBLISHED = 'the issuer still answers with the key'

/** @returns the SHA-256 of the JWKS without the key */
async function jwksWithout(issuer: string, kid: string): Promise<string> {
  const { sha256, kids } = await fetchPublishedKeys(issuer)
  if (kids.has(kid)) throw new Failure(STILL_PUBLISHED)
  return sha256
}

async function bundleWithout(issuer: string, kid: string): Promise<PublishedBundle> {
  const bundle = await fetchPublishedBundle(issuer)
  if (bundle.authorities.has(kid)) throw new Failure(STILL_PUBLISHED)
  return bundle
}

/**
 * @param read what is published without the key
 * @throws Failure if it is still there after the last try
 */
async function awaitWithdrawal<T>(read: () => Promise<T>, terminal: Terminal): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await read()
    } catch (error) {
      if (!(error instanceof Failure) || tries === PUBLISHED_TRIES) throw error
      terminal.say(`${error.message}: waiting`)
      await terminal.wait(PUBLISHED_PAUSE_MS)
    }
  }
}

async function prove(
  one: Case,
  issuer: string,
  kid: string,
  withdrawn: string,
  defaultAlg: AlgorithmName,
  terminal: Terminal,
): Promise<void> {
  const { api, canary, cluster, audience } = one
  if (!api) return
  const count = one.given?.count ?? 1
  const nudge: Nudge = { issuer, audience, alg: canary?.alg ?? defaultAlg }
  terminal.say(`${printable(cluster)}: making its API servers look at the keys`)
  const { seen, problem } = await spreadKeySet(api, nudge, count, withoutKey(issuer, kid, withdrawn), terminal)
  one.seen = seen
  if (problem) one.reasons.push(problem)
  if (!canary) return
  const survival = await canaryRefused(api, canary, nudge, count, terminal)
  if (survival) one.reasons.push(survival)
}

/** The next key may be published in the meantime: any JWKS is good that the issuer answers with and that lacks this key. */
function withoutKey(issuer: string, kid: string, withdrawn: string): (sha256: string) => Promise<boolean> {
  const good = new Set([withdrawn])
  return async (sha256) => {
    if (good.has(sha256)) return true
    try {
      const published = await fetchPublishedKeys(issuer)
      if (!published.kids.has(kid)) good.add(published.sha256)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
    }
    return good.has(sha256)
  }
}

function proofOf({ cluster, given, reasons, seen }: Case): ClusterProof {
  const result = reasons.length === 0 ? 'proven' : 'unproven'
  return { cluster, result, reasons, apiservers: { stated: given?.count ?? null, seen } }
}
