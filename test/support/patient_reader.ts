/** A relying party that keeps the JWKS for as long as it is told to, and does not look again for a `kid` that it does not know. */

import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import type { Answer } from './exchange.ts'

/** @returns whether it can verify an SVID now */
export function patientReader(fetchKeys: () => Promise<Answer>): (svid: string) => Promise<boolean> {
  let kept: { keys: ReturnType<typeof createLocalJWKSet>; until: number } | null = null
  let asking: Promise<void> | null = null

  async function ask(): Promise<void> {
    const { headers, text } = await fetchKeys()
    const [, maxAge = '0'] = /max-age=(\d+)/.exec(String(headers['cache-control'])) ?? []
    kept = { keys: createLocalJWKSet(JSON.parse(text) as JSONWebKeySet), until: Date.now() + 1000 * Number(maxAge) }
  }
  return async (svid) => {
    if (!kept || Date.now() >= kept.until) {
      asking ??= ask().finally(() => {
        asking = null
      })
      await asking
    }
    try {
      await jwtVerify(svid, (kept as NonNullable<typeof kept>).keys)
      return true
    } catch {
      return false
    }
  }
}
