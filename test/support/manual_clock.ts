/** A clock for the agent that goes on when it is told to, and then runs what was to be run by then. */

import type { Clock } from '../../cli/workload_api/clock.ts'
import { NOW } from './clock.ts'

export class ManualClock implements Clock {
  #now = NOW * 1000
  #timers: { readonly at: number; run(): void }[] = []

  now(): number {
    return this.#now
  }

  after(milliseconds: number, run: () => void): () => void {
    const timer = { at: this.#now + milliseconds, run }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  /** How many wait. */
  get pending(): number {
    return this.#timers.length
  }

  /** In steps, as timers are set by those that have run. */
  advance(milliseconds: number): void {
    const end = this.#now + milliseconds
    for (;;) {
      const [next] = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (!next) break
      this.#now = Math.max(this.#now, next.at)
      this.#timers = this.#timers.filter((one) => one !== next)
      next.run()
    }
    this.#now = end
  }

  /** Time that no timer notices, as while a machine sleeps. */
  leap(milliseconds: number): void {
    this.#now += milliseconds
    this.#timers = this.#timers.map(({ at, run }) => ({ at: at + milliseconds, run }))
  }
}
