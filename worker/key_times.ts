/** How long things about signing keys last, and why (T-17). All in seconds. */

import * as z from 'zod/mini'
import type { RotationTimes } from '../keys/rotation.ts'
import type { KeyUse } from '../keys/signer.ts'
import { MAX_JWT_SVID_TTL_SECONDS } from './spiffe/jwt_svid.ts'
import { MAX_X509_SVID_TTL_SECONDS } from './spiffe/x509_svid.ts'

export interface KeyTimes {
  /** How old an isolate's copy of the keys may be before it is renewed, in the background. */
  readonly renew: number
  /** How long an isolate signs with what it knows of the keys when it can't ask any more. */
  readonly signingLease: number
  /** The longest that a JWT-SVID lives. */
  readonly longestTtl: number
  /** The longest that an X.509-SVID lives. */
  readonly longestX509Ttl: number
  /** How long readers of the bundle are told to keep it: `spiffe_refresh_hint`. */
  readonly refreshHint: number
  /** How far clocks are apart. */
  readonly skew: number
  /** How long a key that the worker has made signs. */
  readonly replaceAfter: number
}

export const KEY_TIMES: KeyTimes = {
  renew: 60,
  signingLease: 240,
  longestTtl: MAX_JWT_SVID_TTL_SECONDS,
  longestX509Ttl: MAX_X509_SVID_TTL_SECONDS,
  refreshHint: 300,
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
export function rotationTimes(times: KeyTimes, use: KeyUse): RotationTimes {
  const { replaceAfter, signingLease, longestTtl, longestX509Ttl, refreshHint, skew } = times
  return {
    replaceAfter,
    // The last isolate that has not heard of the key stops publishing without it, and the last reader has fetched again.
    // That is longer than FE-10 asks for, five times the hint.
    publishBefore: publishingLease(times) + Math.max(CLIENT_CACHE_SECONDS, refreshHint) + skew,
    // The last isolate that has not heard that it was replaced stops signing, and its last SVID is over.
    publishAfter: signingLease + (use === 'jwt-svid' ? longestTtl : longestX509Ttl) + skew,
  }
}

/** The certificate of an authority that the operator has named: as long as the key is listed, which is theirs to decide. */
const LISTED_AUTHORITY_SECONDS = 10 * 365 * 86_400

/**
 * How long the certificate of an authority lasts. That of a key that we have made outlives its turn twice over: it waits as
 * long as its predecessor signs, then signs, and may have to go on while its successor can't begin.
 */
export function authorityLifetime(times: KeyTimes, made: boolean): number {
  const { replaceAfter, publishBefore, publishAfter } = rotationTimes(times, 'x509-svid')
  return made ? 3 * replaceAfter + publishBefore + publishAfter : LISTED_AUTHORITY_SECONDS
}

const seconds = z.int().check(z.minimum(1))
const ShortTimes = z.strictObject({
  renew: seconds,
  signingLease: seconds,
  longestTtl: seconds,
  longestX509Ttl: seconds,
  refreshHint: seconds,
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
