/** How long things about signing keys last, and why (T-17). All in seconds. */

import * as z from 'zod/mini'
import type { RotationTimes } from '../keys/rotation.ts'
import { MAX_JWT_SVID_TTL_SECONDS } from './spiffe/jwt_svid.ts'

export interface KeyTimes {
  /** How old an isolate's copy of the keys may be before it is renewed, in the background. */
  readonly renew: number
  /** How long an isolate signs with what it knows of the keys when it can't ask any more. */
  readonly signingLease: number
  /** The longest that a token lives. */
  readonly longestTtl: number
  /** How far clocks are apart. */
  readonly skew: number
  /** How long a key that the worker has made signs. */
  readonly replaceAfter: number
}

export const KEY_TIMES: KeyTimes = {
  renew: 60,
  signingLease: 240,
  longestTtl: MAX_JWT_SVID_TTL_SECONDS,
  skew: 60,
  replaceAfter: 30 * 86_400,
}

/** Clients keep the JWKS for no longer (D3). */
const CLIENT_CACHE_SECONDS = 30
/**
 * How long an isolate publishes what it knows of the keys when it can't ask any more. By then all tokens are over: it
 * has stopped signing after its lease, and so has everybody else who could not ask. Nothing would be left to verify.
 */
export function publishingLease({ signingLease, longestTtl, skew }: KeyTimes): number {
  return signingLease + longestTtl + skew
}

/** What follows for the life of a key. */
export function rotationTimes(times: KeyTimes): RotationTimes {
  const lease = publishingLease(times)
  return {
    replaceAfter: times.replaceAfter,
    // The last isolate that has not heard of the key stops publishing without it, and the last client has fetched again.
    // That is longer than the 25 minutes that FE-10 asks for: five times the hint of 300 s that a bundle gives its readers.
    publishBefore: lease + CLIENT_CACHE_SECONDS + times.skew,
    // The last isolate that has not heard that it was replaced stops signing, and its last token is over.
    publishAfter: lease,
  }
}

const seconds = z.int().check(z.minimum(1))
const ShortTimes = z.strictObject({
  renew: seconds,
  signingLease: seconds,
  longestTtl: seconds,
  skew: seconds,
  replaceAfter: seconds,
})

/**
 * @param text JSON with all members of {@link KeyTimes}
 * @returns null if it is anything else
 */
export function parseKeyTimes(text: string): KeyTimes | null {
  try {
    const { data } = ShortTimes.safeParse(JSON.parse(text))
    return data ?? null
  } catch {
    return null
  }
}
