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
