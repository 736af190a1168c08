/** An isolate's own copy of the bundles of other trust domains: of those, and no others, that its policy names. */

import type { Log } from '../audit.ts'
import type { ForeignBundle } from '../federation/foreign_bundle.ts'
import type { Stamp } from '../key_settings.ts'
import type { Policy } from '../policy/policy.ts'
import { Refusal } from '../refusal.ts'
import { settledOrLate } from '../shared_call.ts'
import type { FederationReading, FederationState } from './federation_state.ts'
import type { NamedPeer, Naming } from './federation_store.ts'
import { type Leased, LeasedCopy, STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './leased_copy.ts'

/** How old a copy may be before it is renewed in the background. It is also how often the state hears what the policy names. */
const RENEW_SECONDS = 15
/** The same while a trust domain has just been named. */
const PENDING_SECONDS = 2
/** How old a copy may be before the state is asked first: a key that is taken back is believed for no longer. */
const STALE_SECONDS = 60
/** How old a copy may be at all, while the state can't be asked. */
const LEASE_SECONDS = 300

/** When an empty policy is told again that did not count: after a rollout the isolates that had another one are silent for as long. */
const EMPTY_RETRY_SECONDS = 75

/** What the outside world is to this module. */
export interface FederationRingDeps {
  readonly stamp: Stamp
  federationState(): Pick<DurableObjectStub<FederationState>, 'read' | 'tell' | 'forget'>
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
}

/** A policy, and when it was asked for. */
export interface NamingPolicy extends Leased {
  readonly version: number
  readonly policy: Pick<Policy, 'federation'>
}

interface Told extends Naming {
  readonly from: NamingPolicy
  readonly peers: readonly NamedPeer[]
}

interface Snapshot extends Leased {
  readonly version: number
  readonly bundles: ReadonlyMap<string, ForeignBundle>
  readonly pending: boolean
}

export class FederationRing {
  readonly #deps: FederationRingDeps
  readonly #copy: LeasedCopy<Snapshot>
  #told: Told | null = null
  /** When the state is to hear that nobody is named, in seconds since the epoch; never once it has. */
  #tellEmptyAt = 0

  constructor(deps: FederationRingDeps) {
    this.#deps = deps
    this.#copy = new LeasedCopy({
      ...deps,
      ask: () => this.#ask(),
      renewAfter: ({ pending }) => (pending ? PENDING_SECONDS : RENEW_SECONDS),
      retrySeconds: RENEW_SECONDS,
      unavailable,
      notRenewed: 'federation_not_renewed',
    })
  }

  /**
   * @param named the policy that the request is judged by
   * @returns the bundles that are known of the trust domains which it names, by their names. Where it names none, nobody is asked.
   * @throws Refusal `federation_unavailable` where the state can't be asked and the copy is too old
   */
  async bundles(named: NamingPolicy): Promise<ReadonlyMap<string, ForeignBundle>> {
    const { federation } = named.policy
    if (federation.size === 0) return new Map()
    // What has changed in the policy is not to wait for the copy's time. If it has to, what is known is still good.
    if (await this.#tell(named)) await this.#copy.renew().catch(() => {})
    const { bundles } = await this.#copy.current(STALE_SECONDS).catch(() => this.#copy.current(LEASE_SECONDS))
    return new Map([...bundles].filter(([trustDomain]) => federation.has(trustDomain)))
  }

  /**
   * Asks the state now.
   *
   * @throws Refusal `federation_unavailable`
   */
  async renew(named: NamingPolicy): Promise<void> {
    await this.#tell(named)
    await this.#copy.renew()
  }

  /**
   * Has everything forgotten that is known of trust domains.
   *
   * @param version of the policy that names them no more
   * @throws Refusal `federation_unavailable`
   */
  async forget(version: number, trustDomains: readonly string[]): Promise<void> {
    const { stamp, federationState } = this.#deps
    await answered(federationState().forget(stamp, version, trustDomains))
  }

  /**
   * Has the state hear, in the background and once, of a policy that names nobody, for which it would never be asked: what
   * was named before is fetched no more, and deleted (FE-13).
   */
  heed(named: NamingPolicy): void {
    const { now, waitUntil, log } = this.#deps
    if (named.policy.federation.size > 0) {
      this.#tellEmptyAt = 0
      return
    }
    if (now() < this.#tellEmptyAt) return
    const again = now() + EMPTY_RETRY_SECONDS
    this.#tellEmptyAt = again
    const tell = async () => {
      const { heard } = await this.#read(await namingOf(named), null)
      if (heard && this.#tellEmptyAt === again) this.#tellEmptyAt = Number.POSITIVE_INFINITY
    }
    const failed = (error: Error) =>
      log({ event: 'federation_not_renewed', detail: error instanceof Refusal ? error.detail : error.name })
    waitUntil(tell().catch(failed))
  }

  /** @returns whether something else is named than before */
  async #tell(named: NamingPolicy): Promise<boolean> {
    const before = this.#told
    if (before && (before.from.policy === named.policy || before.from.askedAt > named.askedAt)) return false
    const told = await namingOf(named)
    this.#told = told
    return before !== null && before.mark !== told.mark
  }

  async #ask(): Promise<Snapshot> {
    const told = this.#told
    if (!told) throw unavailable('nothing is named')
    const askedAt = this.#deps.now()
    const known = this.#copy.latest
    const { version, pending, bundles } = await this.#read(told, known?.version ?? null)
    return { version, pending, bundles: bundles ? new Map(bundles) : (known?.bundles ?? new Map()), askedAt }
  }

  /** @param known the version of the bundles that are known, null for none */
  async #read(told: Told, known: number | null): Promise<FederationReading & { stamp: 'ours' }> {
    const { stamp, federationState } = this.#deps
    const naming: Naming = { version: told.version, mark: told.mark }
    const read = () => answered<FederationReading>(federationState().read(stamp, naming, known))
    let reading = await read()
    if (reading.stamp === 'ours' && reading.unnamed) {
      await answered(federationState().tell(stamp, naming, told.peers))
      reading = await read()
    }
    if (reading.stamp === 'foreign') throw unavailable(`the storage belongs to another ${reading.field}`)
    return reading
  }
}

async function namingOf(named: NamingPolicy): Promise<Told> {
  const peers = [...named.policy.federation.values()].map(
    ({ trustDomain, bundleEndpointUrl, bootstrapBundle }): NamedPeer => ({
      trustDomain,
      url: bundleEndpointUrl,
      bootstrap: bootstrapBundle,
    }),
  )
  const octets = new TextEncoder().encode(JSON.stringify(peers))
  const mark = new Uint8Array(await crypto.subtle.digest('SHA-256', octets)).toHex()
  return { from: named, version: named.version, mark, peers }
}

async function answered<T>(asking: PromiseLike<unknown>): Promise<T> {
  const outcome = await settledOrLate(Promise.resolve(asking), STATE_TIMEOUT_MS)
  if (!outcome) throw unavailable('no answer')
  return outcome.value as T
}

function unavailable(detail: string): Refusal {
  return new Refusal('federation_unavailable', `federation state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
