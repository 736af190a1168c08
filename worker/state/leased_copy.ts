/**
 * An isolate's own copy of what a Durable Object holds: renewed in the background, shared by all who ask, and good without
 * the object for no longer than its reader allows (T-17).
 */

import type { Log } from '../audit.ts'
import { Refusal } from '../refusal.ts'
import { SharedCall } from '../shared_call.ts'

/** For a Durable Object to answer. That of the keys may have to ask KMS for one that it does not know yet. */
export const STATE_TIMEOUT_MS = 5500
/** When the caller may come again while one does not answer. */
export const STATE_RETRY_AFTER_SECONDS = 5
/** How long a failure is the answer to everybody while there is no copy: requests must not pile up on a state in trouble. */
const FAILURE_SECONDS = 2

/** Clocks are set right by as much without anybody noticing. */
const CLOCK_STEP_SECONDS = 5

/** A copy of something. */
export interface Leased {
  /** Seconds since the epoch, when the state was asked: what it said was true then, and may have changed before it arrived. */
  readonly askedAt: number
}

export interface LeasedCopyDeps<Copy> {
  /** Asks the state, and gives up by itself. */
  ask(): Promise<Copy>
  /** How old a copy may be before it is renewed in the background, in seconds. */
  renewAfter(copy: Copy): number
  /** When a renewal that has been begun is tried again, in seconds. */
  readonly retrySeconds: number
  /** @param detail what has gone wrong, where that is no {@link Refusal} yet */
  unavailable(detail: string): Refusal
  /** For the log, where a renewal in the background fails. */
  readonly notRenewed: string
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
}

export class LeasedCopy<Copy extends Leased> {
  readonly #deps: LeasedCopyDeps<Copy>
  readonly #loading = new SharedCall<Copy>()
  #latest: Copy | null = null
  /** Seconds since the epoch. */
  #renewAt = 0
  #failure: { readonly refusal: Refusal; readonly until: number } | null = null

  constructor(deps: LeasedCopyDeps<Copy>) {
    this.#deps = deps
  }

  /** However old it is. */
  get latest(): Copy | null {
    return this.#latest
  }

  /** The copy, where it is not to be renewed yet; else null. */
  get fresh(): Copy | null {
    return this.#deps.now() < this.#renewAt ? this.#latest : null
  }

  /**
   * @param leaseSeconds how old the copy may be at all
   * @throws Refusal where it is older and the state can't be asked
   */
  async current(leaseSeconds: number): Promise<Copy> {
    const { now, waitUntil, log, retrySeconds, notRenewed } = this.#deps
    const age = this.#latest ? now() - this.#latest.askedAt : Number.POSITIVE_INFINITY
    // One that is younger than none at all says that the clock has been set back, and nothing of how old it is.
    if (!this.#latest || age > leaseSeconds || age < -CLOCK_STEP_SECONDS) {
      if (this.#failure && now() < this.#failure.until) throw this.#failure.refusal
      return this.#load()
    }
    if (now() >= this.#renewAt) {
      this.#renewAt = now() + retrySeconds
      waitUntil(this.#load().catch((error: Refusal) => log({ event: notRenewed, detail: error.detail })))
    }
    return this.#latest
  }

  /**
   * Asks the state now.
   *
   * @returns what holds at this moment or later
   * @throws Refusal
   */
  async renew(): Promise<Copy> {
    // An answer that is on its way already may be from before a change that the caller has made.
    if (this.#loading.underWay) await this.#load().catch(() => {})
    return this.#load()
  }

  async #load(): Promise<Copy> {
    const { ask, renewAfter, unavailable, now, waitUntil } = this.#deps
    try {
      const copy = await this.#loading.run(ask, waitUntil)
      // A call that was given up may still come in, after a later one.
      if (!this.#latest || copy.askedAt >= this.#latest.askedAt) this.#latest = copy
      this.#renewAt = now() + renewAfter(copy)
      return this.#latest
    } catch (error) {
      const refusal = error instanceof Refusal ? error : unavailable((error as Error).name)
      this.#failure = { refusal, until: now() + FAILURE_SECONDS }
      throw refusal
    }
  }
}
