/** Trying again, for as long as somebody wants to wait. */

import { Failure, UsageError } from './failure.ts'
import type { Terminal } from './terminal.ts'

const FIRST_WAIT_MS = 100
const LONGEST_WAIT_MS = 2000
/** The last attempt may begin just before the end. Cut off at once it would fail for that reason, and be heard of as that. */
const SHORTEST_ATTEMPT_MS = 1000

/** What did not work, and might a moment later. */
export class NotYet extends Failure {
  /** Not before so long; 0 if nobody has said. */
  readonly waitMs: number

  constructor(message: string, waitMs = 0) {
    super(message)
    this.waitMs = waitMs
  }
}

/**
 * Says once, on standard error, what it waits for.
 *
 * @param attempt throws NotYet if it is to be made again; gets the milliseconds that it may take
 * @throws whatever the last attempt threw
 */
export async function patiently<T>(
  attempt: (timeoutMs: number) => Promise<T>,
  timeoutSeconds: number,
  { now, wait, say }: Pick<Terminal, 'now' | 'wait' | 'say'>,
): Promise<T> {
  const end = now() + timeoutSeconds * 1000
  let said = false
  for (let pauseMs = FIRST_WAIT_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_WAIT_MS)) {
    try {
      return await attempt(Math.max(SHORTEST_ATTEMPT_MS, end - now()))
    } catch (error) {
      if (!(error instanceof NotYet)) throw error
      // Many who wait for the same thing should not all come back at once.
      const waitMs = Math.max(error.waitMs, Math.ceil(pauseMs * (0.5 + Math.random() / 2)))
      if (now() + waitMs >= end) throw error
      if (!said) say(`${error.message}; trying for ${timeoutSeconds} s`)
      said = true
      await wait(waitMs)
    }
  }
}

/**
 * @param seconds a whole number from 1
 * @throws UsageError
 */
export function parseTimeout(seconds: string): number {
  if (!/^[1-9]\d{0,4}$/.test(seconds)) throw new UsageError('--timeout: not a number of seconds')
  return Number(seconds)
}
