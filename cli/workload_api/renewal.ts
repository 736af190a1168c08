/** When something that ends is to be had anew, and when what did not work is to be tried again. Pure, but for chance. */

import { NotYet } from '../patience.ts'

/** From 0 up to 1. */
export type Random = () => number

const FIRST_RETRY_MS = 1000
/** Where little is left, halves of it would be a storm. */
const SHORTEST_RENEWAL_MS = 5000
const LONGEST_RETRY_MS = 30_000
/** What an issuer may ask for; it is not to switch us off. */
const LONGEST_ASKED_RETRY_MS = 300_000

/**
 * About half of the way, and not for all at the same time who have started together.
 *
 * @param from milliseconds, as `until` and what is returned
 */
export function renewAt(from: number, until: number, random: Random): number {
  return Math.min(from + Math.max((until - from) * (0.4 + 0.2 * random()), SHORTEST_RENEWAL_MS), until)
}

/** Longer from time to time, until something works. */
export class Backoff {
  readonly #random: Random
  #nextMs = FIRST_RETRY_MS

  constructor(random: Random) {
    this.#random = random
  }

  /** @returns how long to wait after `error`, in milliseconds: not less than the issuer asks for */
  after(error: unknown): number {
    const pauseMs = Math.ceil(this.#nextMs * (0.5 + this.#random() / 2))
    this.#nextMs = Math.min(this.#nextMs * 2, LONGEST_RETRY_MS)
    return error instanceof NotYet ? Math.max(pauseMs, Math.min(error.waitMs, LONGEST_ASKED_RETRY_MS)) : pauseMs
  }

  reset(): void {
    this.#nextMs = FIRST_RETRY_MS
  }
}
