/** What must hold of mounts and roles of Vault's, beyond the schema of each. */

import type { Cluster } from './cluster.ts'
import { checkRegistration, isInternalAudience, type ManifestContext, type Policy } from './policy.ts'
import { isNested, type VaultMount } from './vault_mount.ts'
import type { VaultRole } from './vault_role.ts'

/**
 * @param mounts all that there are
 * @returns what is wrong with a mount
 */
export function checkVaultMount(
  { path, config, tuned }: VaultMount,
  mounts: Iterable<string>,
  clusters: ReadonlyMap<string, Cluster>,
  { apiServers }: Policy['audiences'],
  context: ManifestContext,
): string[] {
  const problems: string[] = []
  for (const other of mounts)
    if (other !== path && isNested(path, other)) problems.push(`metadata.name: is within ${other}, or around it`)
  if (tuned.maxLeaseTtl > 0 && tuned.defaultLeaseTtl > tuned.maxLeaseTtl)
    problems.push('spec.default_lease_ttl: is above spec.max_lease_ttl')
  if (!config) return problems
  const cluster = clusters.get(config.cluster)
  if (!cluster) return [...problems, `spec.config.cluster: there is no Cluster ${config.cluster}`]
  for (const audience of config.audiences)
    if (isInternalAudience(audience, context)) problems.push(`spec.config.audiences: ${audience} is reserved`)
    else if (apiServers.has(audience)) problems.push(`spec.config.audiences: ${audience} is an API server's`)
  if (!cluster.connection) {
    // That audience opens nothing but by the API server's own word (T-6).
    if (config.allow_api_server_audience)
      problems.push(`spec.config.allow_api_server_audience: Cluster ${cluster.name} has no spec.connection`)
    if (config.token_reviewer_jwt)
      problems.push(`spec.config.token_reviewer_jwt: Cluster ${cluster.name} has no spec.connection`)
  }
  return problems
}

/**
 * @param others what else there is in the policy
 * @returns what is wrong with a role by itself
 */
export function checkVaultRole(
  { mount: path, spec, namespaceLabels, registration }: VaultRole,
  others: Pick<Policy, 'clusters' | 'attestors' | 'federation' | 'audiences'> & Pick<Policy['vault'], 'mounts'>,
  context: ManifestContext,
): string[] {
  const mount = others.mounts.get(path)
  if (!mount) return [`there is no VaultMount ${path}`]
  const problems: string[] = []
  const selector = spec.bound_service_account_namespace_selector
  if (spec.bound_service_account_namespaces.length === 0 && selector === '')
    problems.push('spec.bound_service_account_namespaces: is empty, and there is no selector')
  if (selector !== '' && !namespaceLabels)
    problems.push('spec.bound_service_account_namespace_selector: is not a LabelSelector of matchLabels alone')
  problems.push(...checkTimes(spec, mount), ...checkRoleAudience(spec.audience, mount, others, context))
  if (spec.token_policies.some((policy) => policy.trim().toLowerCase() === 'root'))
    problems.push('spec.token_policies: root is not given')
  if (spec.token_strictly_bind_ip && spec.token_bound_cidrs.length > 0)
    problems.push('spec.token_strictly_bind_ip: not together with spec.token_bound_cidrs')
  if (spec.spiffe_id === '') {
    if (spec.svid_audiences.length > 0 || spec.x509_svid || spec.dns_names.length > 0)
      problems.push('spec.spiffe_id: is empty, so there are no SVIDs')
  } else if (registration)
    problems.push(
      ...checkRegistration(registration, others, context).map((problem) =>
        problem.replace('spec.spiffeID', 'spec.spiffe_id').replace('spec.audiences', 'spec.svid_audiences'),
      ),
    )
  return problems
}

function checkTimes(spec: VaultRole['spec'], { maxLeaseTtl }: VaultMount): string[] {
  const problems: string[] = []
  if (spec.token_max_ttl > 0 && spec.token_ttl > spec.token_max_ttl)
    problems.push('spec.token_ttl: is above spec.token_max_ttl')
  if (spec.token_period > maxLeaseTtl) problems.push("spec.token_period: is above the mount's max_lease_ttl")
  if (spec.token_type === 'batch' && (spec.token_period > 0 || spec.token_num_uses > 0))
    problems.push('spec.token_type: batch tokens have no period and no number of uses')
  return problems
}

/** T-6, T-7: what a token is made out to for a login is nothing that opens another door. */
function checkRoleAudience(
  audience: string,
  { config }: VaultMount,
  { clusters, audiences }: Pick<Policy, 'clusters' | 'audiences'>,
  context: ManifestContext,
): string[] {
  if (audience === '') return []
  if (isInternalAudience(audience, context)) return [`spec.audience: ${audience} is reserved`]
  if (audiences.apiServers.has(audience)) return [`spec.audience: ${audience} is an API server's`]
  // By default an API server takes its own issuer's name for its audience.
  const cluster = config && clusters.get(config.cluster)
  if (cluster && audience === cluster.issuer && !config.allow_api_server_audience)
    return [`spec.audience: ${audience} is the API server's own: needs allow_api_server_audience in the mount's config`]
  return []
}
