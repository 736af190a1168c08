import { decodeJwt } from 'jose'

/**
 * Reads a JWT-SVID as far as its holder needs to: whether it is good is for those it is shown to.
 *
 * @returns null if it is none
 */
export function readJwtSvid(
  svid: string,
): { readonly spiffeId: string; readonly audience: readonly string[]; readonly expiresAt: number } | null {
  try {
    const { sub, aud = [], exp } = decodeJwt(svid)
    if (typeof sub !== 'string' || !sub.startsWith('spiffe://') || !Number.isFinite(exp)) return null
    // A NumericDate need not be whole (RFC 7519 §2).
    return { spiffeId: sub, audience: [aud].flat(), expiresAt: Math.floor(exp as number) }
  } catch {
    return null
  }
}

/** @returns whether all of them may take it */
export function isMadeOutTo(audience: readonly string[], wanted: readonly string[]): boolean {
  return wanted.every((one) => audience.includes(one))
}
