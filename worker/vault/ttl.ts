/**
 * How long a token lives, by the rules that Vault has for leases.
 *
 * @see [Token time-to-live](https://developer.hashicorp.com/vault/docs/concepts/tokens#token-time-to-live-periodic-tokens-and-explicit-max-ttls)
 */

/** All in seconds. 0 is what is not set. */
export interface TtlTerms {
  /** What the role says. */
  readonly ttl: number
  readonly maxTtl: number
  readonly period: number
  readonly explicitMaxTtl: number
  /** What the mount says where the role does not. */
  readonly defaultTtl: number
  readonly mountMaxTtl: number
  /** Seconds since the epoch that the token may not outlive, whatever else is said (T-8); null for none. */
  readonly notAfter: number | null
}

export interface Ttl {
  /** In seconds; 0 or less where the token has lived as long as it may. */
  readonly ttl: number
  readonly warnings: readonly string[]
}

/**
 * @param increment what a renewal asks for; 0 at a login
 * @param issuedAt seconds since the epoch
 * @param now seconds since the epoch
 */
export function calculateTtl(terms: TtlTerms, increment: number, issuedAt: number, now: number): Ttl {
  const warnings: string[] = []
  const { period, explicitMaxTtl, mountMaxTtl } = terms
  const maxTtl = Math.min(
    mountMaxTtl,
    terms.maxTtl || Number.POSITIVE_INFINITY,
    explicitMaxTtl || Number.POSITIVE_INFINITY,
  )
  let ttl = increment || terms.ttl || terms.defaultTtl
  let end = issuedAt + maxTtl
  if (period > 0) {
    ttl = Math.min(period, maxTtl)
    end = explicitMaxTtl > 0 ? issuedAt + explicitMaxTtl : Number.POSITIVE_INFINITY
    if (ttl < period) warnings.push(exceeded('period', period, maxTtl))
  }
  if (now + ttl > end) {
    if (end > now) warnings.push(exceeded('TTL', ttl, end - now))
    ttl = end - now
  }
  if (terms.notAfter !== null && now + ttl > terms.notAfter) {
    warnings.push('The token ends with the service account token that it is for')
    ttl = terms.notAfter - now
  }
  return { ttl, warnings }
}

function exceeded(what: string, seconds: number, limit: number): string {
  const [asked, given] = [humanDuration(seconds), humanDuration(limit)]
  return `${what} of "${asked}" exceeded the effective max_ttl of "${given}"; ${what} value is capped accordingly`
}

/** @returns whole seconds as Go writes a duration: `1h0m5s` */
export function goDuration(seconds: number): string {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  return [...(hours > 0 ? [`${hours}h`] : []), ...(hours + minutes > 0 ? [`${minutes}m`] : []), `${rest}s`].join('')
}

/** The same without zeros at its end. */
function humanDuration(seconds: number): string {
  return goDuration(seconds).replace(/m0s$/, 'm').replace(/h0m$/, 'h')
}
