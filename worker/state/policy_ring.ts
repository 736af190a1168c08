/**
 * An isolate's own copy of the policy: the manifest that it was deployed with, and what has been applied since. The copy
 * has a lease, so a change or a ban holds everywhere before long (T-17, T-26).
 */

import { Attestors } from '../attest/attestors.ts'
import type { ServiceAccountAttestorDeps } from '../attest/service_account.ts'
import type { Log } from '../audit.ts'
import { type KubernetesApi, KubernetesApiError } from '../cluster/kubernetes_api.ts'
import type { ForeignBundle } from '../federation/foreign_bundle.ts'
import type { Stamp } from '../key_settings.ts'
import {
  compilePolicy,
  ManifestError,
  type ManifestObject,
  parseObject,
  type SourcedObject,
} from '../policy/manifest.ts'
import type { ManifestContext, Policy } from '../policy/policy.ts'
import { Refusal } from '../refusal.ts'
import { settledOrLate } from '../shared_call.ts'
import type { NamingPolicy } from './federation_ring.ts'
import { type Leased, LeasedCopy, STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './leased_copy.ts'
import type { DueCluster, PolicyReading, PolicyState } from './policy_state.ts'

/** How old a copy may be before it is renewed in the background. */
const RENEW_SECONDS = 15
/** How old a copy may be at all: a change at run time holds for every request that begins later than this (T-26). */
export const POLICY_LEASE_SECONDS = 60
/** Objects that are left out and named in the log; `GET /admin/v1/objects` names them all. */
const MAX_LOGGED = 20
/** What Kubernetes allows at most. */
const MAX_NAME_LENGTH = 253
/** How long ago a cluster may have been asked for its objects before a request waits for it to be asked again. */
const LIVE_LEASE_SECONDS = 60
/** For that. A cluster that takes longer is taken at its former word. */
const LIVE_TIMEOUT_MS = 5000

/** What the outside world is to this module. */
export interface PolicyRingDeps extends ServiceAccountAttestorDeps {
  readonly stamp: Stamp
  readonly manifest: readonly ManifestObject[]
  readonly context: ManifestContext
  /**
   * @returns what is known of the trust domains that a policy names, by their names
   * @throws Refusal `federation_unavailable`
   */
  foreignBundles(named: NamingPolicy): Promise<ReadonlyMap<string, ForeignBundle>>
  /** Hears of the policy whenever it has been asked for, and keeps nobody waiting. */
  heed(named: NamingPolicy): void
  policyState(): Pick<DurableObjectStub<PolicyState>, 'read' | 'claimLive' | 'keepLive'>
  log: Log
}

/** What one request is judged by, from its beginning to its end. */
export interface PolicySnapshot extends Leased {
  readonly version: number
  readonly policy: Policy
  readonly attestors: Attestors
  readonly objects: readonly SourcedObject[]
  /** Objects that are left out, by kind and name, or `<cluster>/<name>` for those of a cluster; each with its problems. */
  readonly rejected: ReadonlyMap<string, readonly string[]>
}

export class PolicyRing {
  readonly #deps: PolicyRingDeps
  readonly #copy: LeasedCopy<PolicySnapshot>

  constructor(deps: PolicyRingDeps) {
    this.#deps = deps
    this.#copy = new LeasedCopy({
      ...deps,
      ask: () => this.#ask(),
      renewAfter: () => RENEW_SECONDS,
      retrySeconds: RENEW_SECONDS,
      unavailable,
      notRenewed: 'policy_not_renewed',
    })
  }

  /** @throws Refusal `policy_unavailable` where the state can't be asked and the copy is too old */
  current(): Promise<PolicySnapshot> {
    return this.#copy.current(POLICY_LEASE_SECONDS)
  }

  /**
   * Asks the state now.
   *
   * @returns what holds at this moment or later
   * @throws Refusal `policy_unavailable`
   */
  renew(): Promise<PolicySnapshot> {
    return this.#copy.renew()
  }

  async #ask(): Promise<PolicySnapshot> {
    const snapshot = await this.#read()
    this.#deps.heed(snapshot)
    const { attestors, policy, askedAt } = snapshot
    const wanted = [...policy.clusters.values()].filter(({ ceiling, connection }) => ceiling && connection)
    if (wanted.length === 0) return snapshot
    const names = wanted.map(({ name }) => name)
    const claiming = this.#deps.policyState().claimLive(names, askedAt) as unknown as Promise<DueCluster[]>
    const due = (await settledOrLate(claiming, STATE_TIMEOUT_MS))?.value ?? []
    const reading = due.map(({ cluster, age }) => ({
      overdue: age === null || age > LIVE_LEASE_SECONDS,
      done: this.#readLive(cluster, attestors.serviceAccounts.source(cluster)?.api ?? null, askedAt),
    }))
    for (const { done } of reading) this.#deps.waitUntil(done)
    const overdue = reading.filter((one) => one.overdue).map(({ done }) => done)
    if (overdue.length === 0) return snapshot
    // Nobody has asked for long: what is known may not hold any more. A cluster that is silent leaves it as it is (D6).
    await settledOrLate(Promise.all(overdue), LIVE_TIMEOUT_MS)
    return this.#read(snapshot)
  }

  /** Keeps what a cluster says of its own workloads. Never rejects: what was known stays, and a line is in the log. */
  async #readLive(cluster: string, api: KubernetesApi | null, askedAt: number): Promise<void> {
    try {
      if (!api) return
      const objects = (await api.listWorkloadRegistrations()).map(plainObject)
      await this.#deps.policyState().keepLive({ cluster, objects }, askedAt)
    } catch (error) {
      const detail = error instanceof KubernetesApiError ? error.message : (error as Error).name
      this.#deps.log({ event: 'live_objects_not_read', cluster, detail })
    }
  }

  async #read(known = this.#copy.latest): Promise<PolicySnapshot> {
    const { stamp, policyState, now } = this.#deps
    const askedAt = now()
    const asking = policyState().read(stamp, known?.version ?? null) as unknown as Promise<PolicyReading>
    const outcome = await settledOrLate(asking, STATE_TIMEOUT_MS)
    if (!outcome) throw unavailable('no answer')
    const reading = outcome.value
    if (reading.stamp === 'foreign') throw unavailable(`the storage belongs to another ${reading.field}`)
    if (!reading.stored) {
      if (!known) throw unavailable('no content')
      return { ...known, askedAt }
    }
    // Who has given up on this answer has had a later one, and the keys that clusters have proven are those of that one.
    const { latest } = this.#copy
    if (latest && latest.askedAt > askedAt) return latest
    return this.#open(reading.version, reading.stored, askedAt)
  }

  #open(
    version: number,
    { applied, live }: NonNullable<(PolicyReading & { stamp: 'ours' })['stored']>,
    askedAt: number,
  ): PolicySnapshot {
    const { manifest, context, log } = this.#deps
    const rejected = new Map<string, readonly string[]>()
    const read = (value: object, source: SourcedObject['source'], title: string): SourcedObject[] => {
      try {
        return [{ object: parseObject(value), source }]
      } catch (error) {
        if (!(error instanceof ManifestError)) throw error
        rejected.set(title, error.problems)
        return []
      }
    }
    const deployed = manifest.map((object): SourcedObject => ({ object, source: 'manifest' }))
    const fromClusters = live.flatMap(({ cluster, objects }) =>
      objects.flatMap((object) => read(object, { cluster }, `${cluster}/${nameOf(object)}`)),
    )
    let kept = applied.flatMap((object) => read(object, 'applied', titleOf(object)))
    let compiled = compilePolicy([...deployed, ...kept, ...fromClusters], context)
    // What was good when it was applied may contradict a manifest that was deployed later. Then the manifest is right.
    while (compiled.problems.length > 0) {
      const blamed = byTitle(compiled.problems)
      const dropped = new Set(suspects(kept, blamed))
      if (dropped.size === 0) break
      for (const { object } of dropped) rejected.set(titleOf(object), blamed.get(titleOf(object)) ?? compiled.problems)
      kept = kept.filter((one) => !dropped.has(one))
      compiled = compilePolicy([...deployed, ...kept, ...fromClusters], context)
    }
    for (const [object, problems] of compiled.rejected) rejected.set(object, problems)
    // A cluster decides how many there are, and does not get to fill the log.
    for (const [object, problems] of [...rejected].slice(0, MAX_LOGGED))
      log({ event: 'object_rejected', object, problems })
    if (rejected.size > MAX_LOGGED) log({ event: 'objects_rejected', more: rejected.size - MAX_LOGGED })
    const { clusters, attestors: providers } = compiled.policy
    this.#deps.claims.keepOnly(new Set([...clusters.keys(), ...providers.keys().map((name) => `OIDCAttestor ${name}`)]))
    const { policy } = compiled
    const foreignBundles = () => this.#deps.foreignBundles({ version, policy, askedAt })
    const deps = { ...this.#deps, issuer: context.issuer, foreignBundles }
    const attestors = new Attestors(policy, deps, this.#copy.latest?.attestors)
    const objects = [...deployed, ...kept, ...fromClusters]
    return { version, policy, attestors, objects, rejected, askedAt }
  }
}

/** An object without what the API server has added to it. */
function plainObject(object: unknown): object {
  const { apiVersion, kind, metadata, spec } = (object ?? {}) as Record<string, unknown>
  const name = String((metadata as { name?: unknown } | null | undefined)?.name).slice(0, MAX_NAME_LENGTH)
  return { apiVersion, kind, metadata: { name }, spec }
}

/** Problems by the kind and name of the object that each begins with. */
function byTitle(problems: readonly string[]): Map<string, string[]> {
  const blamed = new Map<string, string[]>()
  for (const problem of problems) {
    const title = problem.slice(0, problem.indexOf(': '))
    const others = blamed.get(title)
    if (others) others.push(problem)
    else blamed.set(title, [problem])
  }
  return blamed
}

/**
 * Which of what has been applied to leave out. Where only objects of the manifest are blamed, a cluster has come between
 * them. A ban or revocation stays as long as it is not itself at fault: nothing else can make it wrong (T-26).
 */
function suspects(kept: readonly SourcedObject[], blamed: ReadonlyMap<string, unknown>): readonly SourcedObject[] {
  const guilty = kept.filter(({ object }) => blamed.has(titleOf(object)))
  if (guilty.length > 0) return guilty
  const clusters = kept.filter(({ object }) => object.kind === 'Cluster')
  return clusters.length > 0
    ? clusters
    : kept.filter(({ object }) => object.kind !== 'Ban' && object.kind !== 'Revocation')
}

function titleOf(object: unknown): string {
  const { kind } = (object ?? {}) as { kind?: unknown }
  return `${typeof kind === 'string' ? kind : '?'} ${nameOf(object)}`
}

/** Anything may be stored, also what can't be made a text of. */
function nameOf(object: unknown): string {
  const name = (object as { metadata?: { name?: unknown } | null } | null)?.metadata?.name
  return typeof name === 'string' ? name : '?'
}

function unavailable(detail: string): Refusal {
  return new Refusal('policy_unavailable', `policy state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
