/**
 * Roles as Vault's API writes and reads them. What is written is merged into what is there, judged in the plugin's order and
 * refused in its words; then the policy judges it as it does every object.
 *
 * @see [Create/update role](https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#create-update-role)
 */

import type { VaultMount } from '../policy/vault_mount.ts'
import {
  FORMER_NAMES,
  parseCidr,
  parseNamespaceSelector,
  VaultRoleManifest,
  type VaultRoleSpec,
} from '../policy/vault_role.ts'
import { type Fields, ignoredWarning, readFields } from './fields.ts'
import { goDuration } from './ttl.ts'
import { VaultError } from './vault_error.ts'

const SCHEMA = {
  bound_service_account_names: 'list',
  bound_service_account_namespaces: 'list',
  bound_service_account_namespace_selector: 'text',
  audience: 'text',
  alias_name_source: 'text',
  token_ttl: 'duration',
  token_max_ttl: 'duration',
  token_explicit_max_ttl: 'duration',
  token_period: 'duration',
  token_policies: 'list',
  token_bound_cidrs: 'list',
  token_strictly_bind_ip: 'bool',
  token_no_default_policy: 'bool',
  token_num_uses: 'int',
  token_type: 'text',
  policies: 'list',
  ttl: 'duration',
  max_ttl: 'duration',
  period: 'duration',
  num_uses: 'int',
  bound_cidrs: 'list',
  // What Vault's role knows nothing of (T-23).
  spiffe_id: 'text',
  svid_audiences: 'list',
  svid_ttl: 'duration',
  x509_svid: 'bool',
  dns_names: 'list',
} as const

/** What a role that says nothing says. */
const UNSET: Omit<VaultRoleSpec, 'bound_service_account_names'> & { bound_service_account_names: string[] } = {
  ...VaultRoleManifest.shape.spec.parse({ bound_service_account_names: ['unset'] }),
  bound_service_account_names: [],
}

export interface WrittenRole {
  readonly spec: VaultRoleSpec
  readonly warnings: readonly string[]
}

/**
 * @param before the role as it is; null for one that is created
 * @throws VaultError 400
 */
export function writeRole(
  name: string,
  body: Readonly<Record<string, unknown>>,
  before: VaultRoleSpec | null,
  { maxLeaseTtl }: VaultMount,
): WrittenRole {
  // The name is that of the path, whatever the body says.
  const { name: _, ...parameters } = body
  const { fields, ignored } = readFields(parameters, SCHEMA, '')
  const spec = { ...(before ?? UNSET) }
  mergeTokenParameters(spec, fields)
  mergeFormerNames(spec, fields)
  checkTokenParameters(spec)
  const warnings: string[] = []
  if (spec.token_period > maxLeaseTtl)
    throw new VaultError(
      400,
      `token period of '"${goDuration(spec.token_period)}"' is greater than the backend's maximum lease TTL of '"${goDuration(maxLeaseTtl)}"'`,
    )
  if (spec.token_max_ttl > 0 && spec.token_ttl > spec.token_max_ttl)
    throw new VaultError(400, 'token ttl should not be greater than token max ttl')
  if (spec.token_max_ttl > maxLeaseTtl)
    warnings.push(
      "max_ttl is greater than the system or backend mount's maximum TTL value; issued tokens' max TTL value will be truncated",
    )
  mergeBindings(spec, fields)
  if (fields.audience !== undefined) spec.audience = fields.audience
  if (spec.audience.trim() === '') {
    spec.audience = ''
    warnings.push(
      `Role ${name} does not have an audience configured. While audiences are not required, consider specifying one if your use case would benefit from additional JWT claim verification.`,
    )
  }
  if (spec.token_ttl === 0 && spec.token_period === 0)
    warnings.push(
      `Tokens of role ${name} end with the service account tokens that they are for: it sets neither token_ttl nor token_period`,
    )
  mergeOthers(spec, fields)
  return { spec, warnings: [...warnings, ...ignoredWarning(ignored)] }
}

type RoleFields = Fields<typeof SCHEMA>

function mergeTokenParameters(spec: VaultRoleSpec, fields: RoleFields): void {
  if (fields.token_bound_cidrs) spec.token_bound_cidrs = checkedCidrs(fields.token_bound_cidrs)
  spec.token_explicit_max_ttl = fields.token_explicit_max_ttl ?? spec.token_explicit_max_ttl
  spec.token_max_ttl = fields.token_max_ttl ?? spec.token_max_ttl
  spec.token_no_default_policy = fields.token_no_default_policy ?? spec.token_no_default_policy
  spec.token_period = fields.token_period ?? spec.token_period
  if (fields.token_policies) spec.token_policies = [...fields.token_policies]
  const { token_type: type } = fields
  if (type === '' || type === 'default') spec.token_type = 'default'
  else if (type === 'service' || type === 'batch') spec.token_type = type
  else if (type !== undefined) throw new VaultError(400, `invalid 'token_type' value ${quoted(type)}`)
  spec.token_num_uses = fields.token_num_uses ?? spec.token_num_uses
  spec.token_ttl = fields.token_ttl ?? spec.token_ttl
  spec.token_strictly_bind_ip = fields.token_strictly_bind_ip ?? spec.token_strictly_bind_ip
  checkTokenParameters(spec)
  if (spec.token_max_ttl > 0 && spec.token_ttl > spec.token_max_ttl)
    throw new VaultError(400, "'token_ttl' cannot be greater than 'token_max_ttl'")
}

function checkTokenParameters(spec: VaultRoleSpec): void {
  if (spec.token_num_uses < 0) throw new VaultError(400, "'token_num_uses' cannot be negative")
  const batch = "'token_type' cannot be 'batch' or 'default_batch' when set to generate"
  if (spec.token_type === 'batch' && spec.token_period > 0) throw new VaultError(400, `${batch} periodic tokens`)
  if (spec.token_type === 'batch' && spec.token_num_uses > 0)
    throw new VaultError(400, `${batch} tokens with limited use count`)
  if (spec.token_strictly_bind_ip && spec.token_bound_cidrs.length > 0)
    throw new VaultError(400, "'token_strictly_bind_ip' cannot be used with 'token_bound_cidrs'")
}

/** A former name counts only where the present one is not given. */
function mergeFormerNames(spec: VaultRoleSpec, fields: RoleFields): void {
  const used = new Set(spec.former_names)
  const take = (former: (typeof spec.former_names)[number], isPresent: boolean, apply: () => void) => {
    const isFormer = fields[former] !== undefined
    if (isPresent && !isFormer) used.delete(former)
    if (isFormer) used.add(former)
    if (isFormer && !isPresent) apply()
  }
  take('policies', fields.token_policies !== undefined, () => {
    // Only by this name the plugin puts them in order at once.
    spec.token_policies = sanitizePolicies(fields.policies ?? [])
  })
  take('bound_cidrs', fields.token_bound_cidrs !== undefined, () => {
    spec.token_bound_cidrs = checkedCidrs(fields.bound_cidrs ?? [])
  })
  take('num_uses', fields.token_num_uses !== undefined, () => {
    spec.token_num_uses = fields.num_uses ?? 0
  })
  take('ttl', fields.token_ttl !== undefined, () => {
    spec.token_ttl = fields.ttl ?? 0
  })
  take('max_ttl', fields.token_max_ttl !== undefined, () => {
    spec.token_max_ttl = fields.max_ttl ?? 0
  })
  take('period', fields.token_period !== undefined, () => {
    spec.token_period = fields.period ?? 0
  })
  spec.former_names = [...used].sort()
}

function mergeBindings(spec: VaultRoleSpec, fields: RoleFields): void {
  const { bound_service_account_names: names, bound_service_account_namespaces: namespaces } = fields
  if (names) spec.bound_service_account_names = [...names]
  if (spec.bound_service_account_names.length === 0)
    throw new VaultError(400, '"bound_service_account_names" can not be empty')
  checkMixture(spec.bound_service_account_names)
  if (namespaces) spec.bound_service_account_namespaces = [...namespaces]
  // Not merged: a write without it takes it away.
  spec.bound_service_account_namespace_selector = fields.bound_service_account_namespace_selector ?? ''
  const selector = spec.bound_service_account_namespace_selector
  if (spec.bound_service_account_namespaces.length === 0 && selector === '')
    throw new VaultError(
      400,
      '"bound_service_account_namespaces" can not be empty if "bound_service_account_namespace_selector" is not set',
    )
  if (selector !== '' && !parseNamespaceSelector(selector))
    throw new VaultError(400, 'invalid "bound_service_account_namespace_selector" configured')
  checkMixture(spec.bound_service_account_namespaces)
}

function checkMixture(values: readonly string[]): void {
  if (values.length > 1 && values.includes('*')) throw new VaultError(400, 'can not mix "*" with values')
}

function mergeOthers(spec: VaultRoleSpec, fields: RoleFields): void {
  const { alias_name_source: source } = fields
  if (source === 'serviceaccount_uid' || source === 'serviceaccount_name') spec.alias_name_source = source
  else if (source !== undefined)
    throw new VaultError(400, 'invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name')
  if (fields.spiffe_id !== undefined) spec.spiffe_id = fields.spiffe_id
  if (fields.svid_audiences) spec.svid_audiences = [...fields.svid_audiences]
  spec.svid_ttl = fields.svid_ttl ?? spec.svid_ttl
  spec.x509_svid = fields.x509_svid ?? spec.x509_svid
  if (fields.dns_names) spec.dns_names = [...fields.dns_names]
}

function checkedCidrs(values: readonly string[]): string[] {
  for (const text of values)
    if (parseCidr(text) === null)
      throw new VaultError(
        400,
        `error parsing address ${quoted(text)}: Unable to convert ${quoted(text)} to an IPv4 or IPv6 address, or a UNIX Socket`,
      )
  return values.map((text) => text.replace(/(?<=^[\d.]+)\/32$/, ''))
}

/** A name for a person to see what they have written, unless it is none. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}…` : text)
}

/** @returns policies as Vault keeps them: each once, lower case, in order */
export function sanitizePolicies(policies: readonly string[]): string[] {
  return [...new Set(policies.map((policy) => policy.trim().toLowerCase()).filter(Boolean))].sort()
}

/** @returns the role's `data`, as Vault's API reads it (VR-6) */
export function readRole(spec: VaultRoleSpec): Record<string, unknown> {
  const { audience, former_names: formerNames, token_strictly_bind_ip: strictly, ...shown } = spec
  const { spiffe_id, svid_audiences, svid_ttl, x509_svid, dns_names, ...data } = shown
  const former = Object.entries(FORMER_NAMES).flatMap(([name, formerName]) => {
    const value = data[name as keyof typeof FORMER_NAMES]
    const isSet = Array.isArray(value) ? value.length > 0 : value !== 0
    return formerNames.includes(formerName) && isSet ? [[formerName, value] as const] : []
  })
  return {
    ...data,
    ...(audience !== '' && { audience }),
    ...Object.fromEntries(former),
    ...(strictly && { token_strictly_bind_ip: true }),
    ...(spiffe_id !== '' && { spiffe_id, svid_audiences, svid_ttl, x509_svid, dns_names }),
  }
}
