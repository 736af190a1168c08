import type { SpiffeId } from './id.ts'

/**
 * Whether an ID belongs to the authorities and agents of the trust domain, and so to no workload (T-5): what lies under
 * `/spire` is SPIRE's by convention, and what lies under `/spiffe-edge` is ours.
 */
export function isReserved({ path }: SpiffeId): boolean {
  return /^\/(?:spire|spiffe-edge)(?:\/|$)/.test(path) || path === ''
}
