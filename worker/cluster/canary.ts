/**
 * Tokens that show whether an API server still takes a key (T-21): they name nobody that RBAC knows, and are good for
 * nothing but to be refused.
 */

import { signCompact } from '../../keys/jws.ts'
import type { Signer } from '../../keys/signer.ts'
import { mint } from '../mint.ts'
import type { Cluster } from '../policy/cluster.ts'
import { internalGrant } from '../policy/internal_grant.ts'
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts'

/** Under the rules of an API server that names service accounts as Kubernetes does. */
export const CANARY_USERNAME = 'spiffe:spiffe-edge:canary'

export function canaryId(trustDomain: TrustDomain): SpiffeId {
  return SpiffeId.of(trustDomain, '/spiffe-edge/canary')
}

/**
 * @param signer with the key that is to be dead soon: whether it is its turn to sign does not matter
 * @param expiresAt seconds since the epoch
 * @returns a JWT-SVID for the cluster's API server
 * @throws SigningError
 */
export async function signCanary(
  { apiServerAudiences: [audience = ''] }: Cluster,
  { issuer, trustDomain }: { readonly issuer: string; readonly trustDomain: TrustDomain },
  signer: Signer,
  now: number,
  expiresAt: number,
): Promise<string> {
  const terms = { spiffeId: canaryId(trustDomain), audience, ttlSeconds: expiresAt - now, notAfter: expiresAt }
  const claims = mint(internalGrant(terms), issuer, crypto.randomUUID(), now)
  const { alg, kid } = signer.publicJwk
  return signCompact({ alg, kid, typ: 'JWT' }, claims, signer)
}
