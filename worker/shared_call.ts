/** How long a joiner waits for somebody else's call: a little more than the longest outbound call may take. */
const JOIN_TIMEOUT_MS = 6000

/**
 * One call for all who ask while it is under way.
 *
 * In workerd a promise that one request has made never settles for another once the first request has ended. So the
 * owner keeps its request alive until the call is over, and who has joined does not wait for ever: when the time is up,
 * the first joiner to wake makes the call its own and the others join that (T-18).
 */
export class SharedCall<T> {
  #pending: Promise<T> | null = null

  get underWay(): boolean {
    return this.#pending !== null
  }

  /**
   * @param call made only if nobody's is under way; bounded in time by its own means
   * @param waitUntil keeps the current request's context alive until a promise has settled
   * @returns the result of the call that was made, which rejects as that call does
   */
  async run(call: () => Promise<T>, waitUntil: (promise: Promise<unknown>) => void): Promise<T> {
    for (let pending = this.#pending; pending; pending = this.#pending === pending ? null : this.#pending) {
      const outcome = await settledOrLate(pending, JOIN_TIMEOUT_MS)
      if (outcome) return outcome.value
    }
    const own = call().finally(() => {
      if (this.#pending === own) this.#pending = null
    })
    this.#pending = own
    waitUntil(own.catch(() => {}))
    return own
  }
}

/** One call for all who ask for the same thing while it is under way. */
export class SharedCalls<T> {
  readonly #calls = new Map<string, SharedCall<T>>()

  /** How many different ones are under way. */
  get size(): number {
    return this.#calls.size
  }

  isUnderWay(key: string): boolean {
    return this.#calls.get(key)?.underWay ?? false
  }

  /** As {@link SharedCall.run}, for all who ask with the same key. */
  async run(key: string, call: () => Promise<T>, waitUntil: (promise: Promise<unknown>) => void): Promise<T> {
    const shared = this.#calls.get(key) ?? new SharedCall<T>()
    this.#calls.set(key, shared)
    try {
      return await shared.run(call, waitUntil)
    } finally {
      // Who has joined wakes later, when another call may have taken the place.
      if (!shared.underWay && this.#calls.get(key) === shared) this.#calls.delete(key)
    }
  }
}

/** @returns what `promise` settles to, wrapped, or null when the time is up */
export async function settledOrLate<T>(promise: Promise<T>, timeoutMs: number): Promise<{ value: T } | null> {
  const { promise: late, resolve } = Promise.withResolvers<null>()
  const timer = setTimeout(resolve, timeoutMs, null)
  try {
    return await Promise.race([promise.then((value) => ({ value })), late])
  } finally {
    clearTimeout(timer)
  }
}
