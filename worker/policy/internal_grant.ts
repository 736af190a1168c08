/**
 * Grants of the identities that are the issuer's own, under `/spire` and `/spiffe-edge` (T-5). No request comes here:
 * who may import this is listed in test/layout.test.ts.
 */

import type { SpiffeId } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Grant } from './authorize.ts'

/** By identity, so that a copy of a grant is none. */
const made = new WeakSet<Grant>()

/** Terms for the issuer itself. */
export interface InternalTerms {
  /** A reserved one: the identities of the issuer and those of workloads have nothing in common. */
  readonly spiffeId: SpiffeId
  readonly audience: string
  readonly ttlSeconds: number
  /** Seconds since the epoch. */
  readonly notAfter: number
}

/** @throws TypeError if the SPIFFE ID is not reserved */
export function internalGrant({ spiffeId, audience, ttlSeconds, notAfter }: InternalTerms): Grant {
  if (!isReserved(spiffeId)) throw new TypeError('a workload has its identity by a registration')
  const terms = { registration: 'internal', spiffeId, audience: [audience], bearer: true, ttlSeconds, notAfter }
  const grant = Object.freeze({ ...terms, alg: null, claims: {}, hint: null, live: false }) as unknown as Grant
  made.add(grant)
  return grant
}

/** Whether {@link internalGrant} made this very grant. */
export function isInternalGrant(grant: Grant): boolean {
  return made.has(grant)
}
