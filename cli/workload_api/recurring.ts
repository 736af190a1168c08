/** Work that is done again and again, never twice at a time. */

import type { Clock } from './clock.ts'

/** A machine that sleeps stops timers, and not the clock. So one looks at the clock that often. */
const LONGEST_TIMER_MS = 15_000

export class Recurring {
  readonly #work: () => Promise<number>
  readonly #clock: Clock
  #running: Promise<void> | null = null
  #cancel = (): void => {}
  #stopped = false

  /** @param work tells when it is to be done again, in milliseconds since the epoch, and does not throw */
  constructor(work: () => Promise<number>, clock: Clock) {
    this.#work = work
    this.#clock = clock
  }

  get isRunning(): boolean {
    return this.#running !== null
  }

  /** Does it now, unless it is being done. @returns when it is done */
  run(): Promise<void> {
    if (this.#stopped) return Promise.resolve()
    this.#running ??= this.#once().finally(() => {
      this.#running = null
    })
    return this.#running
  }

  /** What is being done is not broken off, and comes to nothing. */
  stop(): void {
    this.#stopped = true
    this.#cancel()
  }

  async #once(): Promise<void> {
    this.#cancel()
    this.#arm(await this.#work())
  }

  #arm(at: number): void {
    if (this.#stopped) return
    const left = at - this.#clock.now()
    this.#cancel = this.#clock.after(Math.max(0, Math.min(left, LONGEST_TIMER_MS)), () => {
      if (this.#clock.now() >= at) void this.run()
      else this.#arm(at)
    })
  }
}
