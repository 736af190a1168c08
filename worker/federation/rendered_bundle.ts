/**
 * The bundle of another trust domain as we pass it on to a workload: what we have judged, and nothing else that it came with.
 *
 * @see [SPIFFE Trust Domain and Bundle §4](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#4-spiffe-bundle-format)
 */

import { ALGORITHMS } from '../../keys/algorithms.ts'
import { certificateKey } from '../../keys/certificate.ts'
import { keyMembers } from '../../keys/key_set.ts'
import type { ForeignBundle, X509Authority } from './foreign_bundle.ts'

/**
 * @returns JSON text, with the sequence and the refresh hint that it came with
 * @see BU-2 to BU-7, XS-11
 */
export async function renderForeignBundle(bundle: ForeignBundle): Promise<string> {
  const { sequence, refreshHintSeconds, jwtAuthorities, x509Authorities } = bundle
  return JSON.stringify({
    keys: [
      ...(await Promise.all(x509Authorities.map(x509Entry))),
      ...jwtAuthorities.map(({ kid, publicKey }) => ({ use: 'jwt-svid', kid, ...publicKey })),
    ],
    ...(sequence !== null && { spiffe_sequence: sequence }),
    ...(refreshHintSeconds !== null && { spiffe_refresh_hint: refreshHintSeconds }),
  })
}

/** One of each kind of key that an authority may have. */
const KINDS = [ALGORITHMS.ES256, ALGORITHMS.ES384, ALGORITHMS.ES512, ALGORITHMS.RS256].map(({ key }) => key)

async function x509Entry({ der }: X509Authority): Promise<object> {
  const spki = certificateKey(der)
  const key = await Promise.any(KINDS.map((kind) => crypto.subtle.importKey('spki', spki, kind, true, ['verify'])))
  const jwk = (await crypto.subtle.exportKey('jwk', key)) as JsonWebKey
  return { use: 'x509-svid', ...keyMembers(jwk), x5c: [base64(der)] }
}

function base64(octets: Uint8Array): string {
  return btoa(octets.reduce((text, octet) => text + String.fromCharCode(octet), ''))
}
