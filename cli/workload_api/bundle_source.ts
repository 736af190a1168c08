/** The bundles that the workload may verify SVIDs with, our own and those of others, as the issuer has them at the moment. */

import { type ForeignBundle, ForeignBundleError, parseForeignBundle } from '../../worker/federation/foreign_bundle.ts'
import { SpiffeIdError, TrustDomain } from '../../worker/spiffe/id.ts'
import type { BundleMap } from '../exchange.ts'
import { Failure } from '../failure.ts'
import { NotYet } from '../patience.ts'
import type { AgentLog } from './agent_log.ts'
import type { Clock } from './clock.ts'
import { type Changes, Holding, isDecided } from './holding.ts'
import type { IssuerDoors } from './issuer_doors.ts'
import { Recurring } from './recurring.ts'
import { Backoff, type Random } from './renewal.ts'

/** SPIRE asks four times within what it is told (FE-9); federation may end at any time, and nobody announces that. */
const LOOKS_FOR_EACH_HINT = 4
const DEFAULT_HINT_SECONDS = 300
const SHORTEST_INTERVAL_SECONDS = 30
const LONGEST_INTERVAL_SECONDS = 300
/** A token of an unknown key is no reason to ask more often than that. */
const SHORTEST_PAUSE_MS = 5000

export interface Bundles {
  readonly trustDomain: TrustDomain
  /** By the name of their trust domain. */
  readonly byName: ReadonlyMap<string, ForeignBundle>
  /** The same texts for the same authorities. */
  readonly x509Mark: string
  readonly jwtMark: string
  /** The same one for the same SVIDs that the workload can have. */
  readonly termsMark: string | null
}

export interface AgentDeps {
  readonly doors: IssuerDoors
  readonly clock: Clock
  readonly random: Random
  readonly log: AgentLog
  readonly changes: Changes
}

export class BundleSource {
  readonly held: Holding<Bundles>
  readonly #deps: AgentDeps
  readonly #backoff: Backoff
  readonly #recurring: Recurring
  #askedAt = Number.NEGATIVE_INFINITY
  #trustDomain: TrustDomain | null

  /** @param trustDomain the only one that is believed to be ours; null for the first one that the issuer says */
  constructor(trustDomain: TrustDomain | null, deps: AgentDeps) {
    this.#deps = deps
    this.#trustDomain = trustDomain
    this.#backoff = new Backoff(deps.random)
    this.held = new Holding(deps.changes)
    this.#recurring = new Recurring(() => this.#fetch(), deps.clock)
  }

  /** Asks now. @returns when the first attempt is over */
  start(): Promise<void> {
    return this.#recurring.run()
  }

  stop(): void {
    this.#recurring.stop()
  }

  /**
   * @returns what is known, if need be when it is
   * @throws whatever keeps it from being known
   */
  async known(): Promise<Bundles> {
    if (!this.held.value) await this.refresh()
    if (this.held.value) return this.held.value
    throw this.held.problem ?? new NotYet('the bundles are not known yet')
  }

  /** Asks ahead of time, where something does not fit to what is known; not again and again. */
  async refresh(): Promise<void> {
    const pause = this.#deps.clock.now() - this.#askedAt
    if (this.#recurring.isRunning || pause >= SHORTEST_PAUSE_MS) await this.#recurring.run()
  }

  async #fetch(): Promise<number> {
    const { doors, clock, random, log } = this.#deps
    this.#askedAt = clock.now()
    try {
      const map = await doors.bundles()
      const { trustDomain } = map
      const next = await this.#read(map)
      this.#backoff.reset()
      const before = this.held.value
      this.held.hold(next)
      if (before?.x509Mark !== next.x509Mark || before.jwtMark !== next.jwtMark)
        log.say({ event: 'bundles_changed', trust_domains: [...next.byName.keys()] })
      if (before && before.termsMark !== next.termsMark) log.say({ event: 'terms_changed' })
      const hint = next.byName.get(trustDomain)?.refreshHintSeconds ?? DEFAULT_HINT_SECONDS
      const interval = Math.min(
        Math.max(hint / LOOKS_FOR_EACH_HINT, SHORTEST_INTERVAL_SECONDS),
        LONGEST_INTERVAL_SECONDS,
      )
      return clock.now() + interval * 1000 * (0.9 + 0.2 * random())
    } catch (error) {
      if (!(error instanceof Error)) throw error
      if (isDecided(error)) this.held.drop(error)
      else this.held.failed(error)
      const waitMs = this.#backoff.after(error)
      log.say({ event: 'bundles_failed', detail: detailOf(error), retry_in_ms: waitMs })
      return clock.now() + waitMs
    }
  }

  /** @throws Failure */
  async #read({ trustDomain: name, bundles: texts, terms: termsMark }: BundleMap): Promise<Bundles> {
    const trustDomain = parseName(name)
    if (this.#trustDomain && this.#trustDomain.name !== name)
      throw new Failure('the issuer says that it is of another trust domain than before')
    const byName = new Map<string, ForeignBundle>()
    for (const [other, text] of texts) {
      try {
        const bundle = await parseForeignBundle(text)
        byName.set(parseName(other).name, other === name ? this.#newer(bundle, name) : bundle)
      } catch (error) {
        if (!(error instanceof ForeignBundleError) || other === name)
          throw error instanceof ForeignBundleError ? new Failure(`our own bundle is ${error.message}`) : error
        // Whom we cannot read we do not believe, and go on.
        this.#deps.log.say({ event: 'bundle_refused', detail: error.message })
      }
    }
    if (!byName.has(name)) throw new Failure('the issuer leaves out our own bundle')
    this.#trustDomain = trustDomain
    return {
      ...{ trustDomain, byName, termsMark },
      x509Mark: markOf(byName, ({ x509Authorities }) => x509Authorities.map(({ sha256 }) => sha256)),
      jwtMark: markOf(byName, ({ jwtAuthorities }) => jwtAuthorities),
    }
  }

  /** FE-11: an isolate of the issuer may be behind with our own, whose sequence never falls. Those of others are its decision. */
  #newer(bundle: ForeignBundle, name: string): ForeignBundle {
    const before = this.held.value?.byName.get(name)
    const [is, was] = [bundle.sequence, before?.sequence ?? null]
    if (!before || is === null || was === null || is >= was) return bundle
    this.#deps.log.say({ event: 'bundle_held_back', spiffe_sequence: is, newest: was })
    return before
  }
}

/** @throws Failure */
function parseName(name: string): TrustDomain {
  try {
    return TrustDomain.parse(name)
  } catch (error) {
    if (error instanceof SpiffeIdError) throw new Failure('the issuer names a trust domain that is none')
    throw error
  }
}

function markOf(bundles: ReadonlyMap<string, ForeignBundle>, of: (bundle: ForeignBundle) => unknown): string {
  return JSON.stringify([...bundles.keys()].sort().map((name) => [name, of(bundles.get(name) as ForeignBundle)]))
}

/** What our own errors say is for people and holds no secret; others say where they are from. */
export function detailOf(error: Error): string {
  return error instanceof Failure ? error.message : error.name
}
