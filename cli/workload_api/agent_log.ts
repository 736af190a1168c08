/** The agent's log: one line of JSON for each event, on standard error. Never a token or a key. */

import type { Clock } from './clock.ts'

export type AgentEvent = { readonly event: string } & Readonly<Record<string, unknown>>

/** What callers can bring about as often as they like is written once in so long. */
const THROTTLED_MS = 1000

export class AgentLog {
  readonly #write: (line: string) => void
  readonly #clock: Clock
  #ended = false
  readonly #throttled = new Map<string, { until: number; left: number }>()

  constructor(write: (line: string) => void, clock: Clock) {
    this.#write = write
    this.#clock = clock
  }

  say(event: AgentEvent): void {
    if (this.#ended) return
    this.#write(JSON.stringify({ time: new Date(this.#clock.now()).toISOString(), ...event }))
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
