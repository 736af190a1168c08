/** Time, as the agent sees it. Tests have their own. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /** @returns what keeps `run` from being run, if it has not been yet */
  after(milliseconds: number, run: () => void): () => void
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  after(milliseconds, run) {
    const timer = setTimeout(run, milliseconds)
    return () => clearTimeout(timer)
  },
}
