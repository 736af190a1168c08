/**
 * The trust domain's own bundle: what others verify our SVIDs with. A document of its own, because its readers want
 * other members than those of the JWKS, and the strictest of them refuse the whole of it for one key that is not as they know it (D2).
 *
 * @see [SPIFFE bundle §4](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#4-spiffe-bundle-format)
 */

import type { KeyUse, PublicJwk } from '../../keys/signer.ts'

/** A published key. */
export interface BundleKey {
  readonly use: KeyUse
  readonly publicJwk: PublicJwk
  /** Of an authority for X.509-SVIDs: DER in base64. */
  readonly certificate: string | null
}

/**
 * @param keys in the order in which they are to stand
 * @param sequence another one for each content, and never a lower one
 * @param refreshHint in seconds
 * @returns JSON text
 * @see [JWT-SVID §6.1](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#61-publishing-spiffe-bundle-elements)
 * @see [X509-SVID §6.1](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#61-publishing-spiffe-bundle-elements)
 */
export function renderBundle(keys: readonly BundleKey[], sequence: number, refreshHint: number): string {
  return JSON.stringify({
    keys: keys.map(({ use, publicJwk, certificate }) => {
      const { kty, kid } = publicJwk
      const key =
        publicJwk.kty === 'EC'
          ? { kty, crv: publicJwk.crv, x: publicJwk.x, y: publicJwk.y }
          : { kty, n: publicJwk.n, e: publicJwk.e }
      // An entry for X.509-SVIDs must not have a `kid`, and exactly one certificate.
      return use === 'jwt-svid' ? { use, kid, ...key } : { use, ...key, x5c: [certificate] }
    }),
    spiffe_sequence: sequence,
    spiffe_refresh_hint: refreshHint,
  })
}
