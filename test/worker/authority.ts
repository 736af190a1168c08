/** Certificate authorities for issuers of these tests: with real keys, in the place of those that the key state would hold. */

import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { openAuthority, selfSignAuthority, type X509Authority } from '../../worker/spiffe/x509_svid.ts'
import { NOW } from '../support/clock.ts'
import { TRUST_DOMAIN } from '../support/policy.ts'
import type { TestIssuer } from './issuer.ts'

const DAY = 86_400

/** @param notAfter seconds since the epoch */
export async function makeAuthority(notAfter = NOW + 30 * DAY): Promise<X509Authority> {
  const { publicJwk, privateJwk } = await generateLocalKey('ES256')
  const signer = await localSigner(publicJwk, privateJwk)
  const terms = { trustDomain: TRUST_DOMAIN, notBefore: NOW - DAY, notAfter }
  return openAuthority(await selfSignAuthority(signer, terms), signer)
}

/** @param authorities all are published, and the first one signs */
export function giveAuthorities(
  issuer: TestIssuer,
  ...authorities: readonly [X509Authority, ...X509Authority[]]
): void {
  Object.assign(issuer.deps.keyRing, {
    x509Authority: async () => authorities[0],
    x509Authorities: async () => authorities.map(({ certificate }) => certificate),
  })
}
