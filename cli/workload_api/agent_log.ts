/** The agent's log: one line of JSON for each event, on standard error. Never a token or a key. */

import type { Clock } from './clock.ts'

export type AgentEvent = { readonly event: string } & Readonly<Record<string, unknown>>

/** What callers can bring about as often as they like is written once in so long. */
const THROTTLED_MS = 1000

export class AgentLog {
  readonly #write: (text: string) => boolean
  readonly #clock: Clock
  #ended = false
  #lost = 0
  readonly #throttled = new Map<string, { until: number; left: number }>()

  /** @param write says whether all of it was written */
  constructor(write: (text: string) => boolean, clock: Clock) {
    this.#write = write
    this.#clock = clock
  }

  say(event: AgentEvent): void {
    if (this.#ended) return
    const time = new Date(this.#clock.now()).toISOString()
    const line = JSON.stringify({ time, ...event, ...(this.#lost > 0 && { lost: this.#lost }) })
    // Of the one before half may be there.
    const written = this.#write(this.#lost > 0 ? `\n${line}\n` : `${line}\n`)
    this.#lost = written ? 0 : this.#lost + 1
  }

  /** The last line: what is broken off afterwards is no failure. */
  end(event: AgentEvent): void {
    this.say(event)
    this.#ended = true
  }

  /** The same for what comes in floods. The next line says how many were left out. */
  sayAtTimes(event: AgentEvent): void {
    const now = this.#clock.now()
    const before = this.#throttled.get(event.event)
    if (before && now < before.until) {
      before.left++
      return
    }
    this.#throttled.set(event.event, { until: now + THROTTLED_MS, left: 0 })
    this.say({ ...event, ...(before && before.left > 0 && { left_out: before.left }) })
  }
}
