/** What the agent has to serve at the moment, or why it has nothing; and who waits for that to change. */

import { Refused } from '../exchange.ts'

/** Tells all who wait that something is otherwise. They look for themselves, so whoever is slow misses what was in between, and nothing piles up. */
export class Changes {
  #waiting: (() => void)[] = []

  announce(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** @returns when there has been one, or `signal` is aborted */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const leave = () => {
        this.#waiting = this.#waiting.filter((one) => one !== done)
        resolve()
      }
      const done = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      this.#waiting.push(done)
      signal.addEventListener('abort', leave, { once: true })
    })
  }
}

/** One of the two, or neither before the first attempt is over. */
export class Holding<T> {
  readonly #changes: Changes
  #value: T | null = null
  #problem: Error | null = null

  constructor(changes: Changes) {
    this.#changes = changes
  }

  get value(): T | null {
    return this.#value
  }

  /** Null while there is a value. */
  get problem(): Error | null {
    return this.#value === null ? this.#problem : null
  }

  /** Whether there has been an attempt. */
  get settled(): boolean {
    return this.#value !== null || this.#problem !== null
  }

  hold(value: T): void {
    this.#value = value
    this.#changes.announce()
  }

  /** Something did not work; what is held stays. */
  failed(problem: Error): void {
    this.#problem = problem
    if (this.#value === null) this.#changes.announce()
  }

  drop(problem: Error): void {
    this.#value = null
    this.failed(problem)
  }
}

/**
 * What the issuer decides about a workload, and not about the token that it was shown: that a kubelet or a cluster is slow to replace keys and
 * tokens is no reason to take back what is still good.
 */
const DECISIONS: ReadonlySet<string> = new Set([
  'banned',
  'registration_none',
  'registration_ambiguous',
  'svid_type_not_allowed',
  'spiffe_id_not_allowed',
  'spiffe_id_illegal',
  'spiffe_id_reserved',
  'spiffe_id_unattested',
  'target_not_allowed',
  'target_missing',
  'token_not_live',
  'pod_gone',
  'pod_replaced',
])

/** Whether what is held is to be served no more. */
export function isDecided(error: unknown): boolean {
  return error instanceof Refused && error.reason !== null && DECISIONS.has(error.reason)
}
