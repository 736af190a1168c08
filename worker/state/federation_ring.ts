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

  /** @returns whether something else is named than before */
  async #tell(named: NamingPolicy): Promise<boolean> {
    const before = this.#told
    if (before && (before.from.policy === named.policy || before.from.askedAt > named.askedAt)) return false
    const peers = [...named.policy.federation.values()].map(
      ({ trustDomain, bundleEndpointUrl, bootstrapBundle }): NamedPeer => ({
        trustDomain,
        url: bundleEndpointUrl,
        bootstrap: bootstrapBundle,
      }),
    )
    const octets = new TextEncoder().encode(JSON.stringify(peers))
    const mark = new Uint8Array(await crypto.subtle.digest('SHA-256', octets)).toHex()
    this.#told = { from: named, version: named.version, mark, peers }
    return before !== null && before.mark !== mark
  }

  async #ask(): Promise<Snapshot> {
    const told = this.#told
    if (!told) throw unavailable('nothing is named')
    const { stamp, federationState, now } = this.#deps
    const askedAt = now()
    const naming: Naming = { version: told.version, mark: told.mark }
    const known = this.#copy.latest
    const read = () => answered<FederationReading>(federationState().read(stamp, naming, known?.version ?? null))
    let reading = await read()
    if (reading.stamp === 'ours' && reading.unnamed) {
      await answered(federationState().tell(stamp, naming, told.peers))
      reading = await read()
    }
    if (reading.stamp === 'foreign') throw unavailable(`the storage belongs to another ${reading.field}`)
    const { version, pending } = reading
    return {
      version,
      pending,
      bundles: reading.bundles ? new Map(reading.bundles) : (known?.bundles ?? new Map()),
      askedAt,
    }
  }
}

async function answered<T>(asking: PromiseLike<unknown>): Promise<T> {
  const outcome = await settledOrLate(Promise.resolve(asking), STATE_TIMEOUT_MS)
  if (!outcome) throw unavailable('no answer')
  return outcome.value as T
}

function unavailable(detail: string): Refusal {
  return new Refusal('federation_unavailable', `federation state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
