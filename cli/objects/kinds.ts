/** The kinds of objects, and what people call them. */

import { UsageError } from '../failure.ts'
import { printable } from '../terminal.ts'

export const API_VERSION = 'spiffe-edge.io/v1alpha1'

/** The first of the names is the plural. Admins are in the deployed manifest alone, and can be looked at (T-11). */
const KINDS: Readonly<Record<string, readonly string[]>> = {
  Cluster: ['clusters', 'cluster'],
  WorkloadRegistration: ['registrations', 'registration', 'workloadregistrations', 'workloadregistration'],
  OIDCAttestor: ['attestors', 'attestor', 'oidcattestors', 'oidcattestor'],
  FederatedTrustDomain: ['federatedtrustdomains', 'federatedtrustdomain'],
  Ban: ['bans', 'ban'],
  Revocation: ['revocations', 'revocation'],
  VaultMount: ['vaultmounts', 'vaultmount'],
  VaultRole: ['vaultroles', 'vaultrole'],
  VaultOIDCRole: ['vaultoidcroles', 'vaultoidcrole'],
  Admin: ['admins', 'admin'],
}

/** The kinds that can be applied at run time. */
export const APPLICABLE_KINDS: readonly string[] = Object.keys(KINDS).filter((kind) => kind !== 'Admin')

/** @throws UsageError */
export function kindOf(text: string): string {
  const [kind] = Object.entries(KINDS).find(([, names]) => names.includes(text.toLowerCase())) ?? []
  if (!kind) throw new UsageError(`${printable(text)} is no kind of object: ${names().join(', ')}`)
  return kind
}

function names(): string[] {
  return Object.values(KINDS).map(([plural = '']) => plural)
}
