/**
 * Grants of the identities that are the issuer's own, under `/spire` and `/spiffe-edge` (T-5). No request comes here:
 * who may import this is listed in test/layout.test.ts.
 */

import type { SpiffeId } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Grant, JwtGrant, X509Grant } from './authorize.ts'

/** By identity, so that a copy of a grant is none. */
const made = new WeakSet<Grant>()

/** Terms for the issuer itself, or for one of its agents. */
export interface InternalTerms {
  /** A reserved one: the identities of the issuer and those of workloads have nothing in common. */
  readonly spiffeId: SpiffeId
  readonly ttlSeconds: number
  /** Seconds since the epoch. */
  readonly notAfter: number
}

/**
 * @returns terms of a JWT-SVID
 * @throws TypeError if the SPIFFE ID is not reserved
 */
export function internalGrant({ audience, ...terms }: InternalTerms & { readonly audience: string }): JwtGrant {
  return make<JwtGrant>(terms, { audience: [audience], bearer: true, alg: null, claims: {} })
}

/**
 * @returns terms of an X.509-SVID
 * @throws TypeError if the SPIFFE ID is not reserved
 */
export function internalX509Grant(terms: InternalTerms): X509Grant {
  return make<X509Grant>(terms, { dnsNames: [], federatesWith: [] })
}

function make<G extends Grant>({ spiffeId, ttlSeconds, notAfter }: InternalTerms, more: Partial<G>): G {
  if (!isReserved(spiffeId)) throw new TypeError('a workload has its identity by a registration')
  const terms = { registration: 'internal', spiffeId, ttlSeconds, notAfter, hint: null, live: false }
  const grant = Object.freeze({ ...terms, ...more }) as unknown as G
  made.add(grant)
  return grant
}

/** Whether {@link internalGrant} made this very grant. */
export function isInternalGrant(grant: Grant): boolean {
  return made.has(grant)
}
