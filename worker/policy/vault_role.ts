/**
 * A role of Vault's Kubernetes auth method, which is a registration (D7): it selects pods, and says what they get. Other than
 * those of a manifest it is chosen by name, so it selects by patterns, and several may select one pod. Members have the names
 * that Vault's API has for them.
 *
 * @see [Kubernetes auth method API](https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#create-update-role)
 */

import ipaddr from 'ipaddr.js'
import { parseDocument } from 'yaml'
import * as z from 'zod/mini'
import type { PodAttestation } from '../attest/attestation.ts'
import { DNS_NAME, MAX_DNS_NAME_LENGTH } from '../spiffe/dns_name.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { DEFAULT_JWT_SVID_TTL_SECONDS, MAX_JWT_SVID_TTL_SECONDS } from '../spiffe/jwt_svid.ts'
import { DEFAULT_X509_SVID_TTL_SECONDS } from '../spiffe/x509_svid.ts'
import { Audience, DistinctAudiences } from './cluster.ts'
import type { Registration, Source } from './registration.ts'
import { SpiffeIdTemplate } from './spiffe_id_template.ts'
import { MountPath, Seconds } from './vault_mount.ts'

/** What Vault's path of a role takes. It keeps them in lower case (VH-4). */
export const ROLE_NAME = /^\w(?:[\w.-]*\w)?$/

/** What a name is compared with. `*` stands for any characters, also none. */
const Pattern = z.string().check(z.regex(/^[\x21-\x7e]{1,253}$/, 'not 1 to 253 printable characters'))
const Patterns = z.array(Pattern).check(
  z.maxLength(256),
  z.refine((list) => list.length < 2 || !list.includes('*'), 'can not mix "*" with values'),
)

const Cidr = z.string().check(z.refine((text) => parseCidr(text) !== null, 'not an address or a range of them'))

const RoleName = z.string().check(
  z.refine((name) => {
    const at = name.lastIndexOf('/')
    const role = name.slice(at + 1)
    return MountPath.safeParse(name.slice(0, at)).success && ROLE_NAME.test(role) && role === role.toLowerCase()
  }, 'not <mount>/<role>, the role in lower case'),
)

/** Members that had other names once, and are told under those too where they were set so (VR-6). */
export const FORMER_NAMES = {
  token_policies: 'policies',
  token_ttl: 'ttl',
  token_max_ttl: 'max_ttl',
  token_period: 'period',
  token_num_uses: 'num_uses',
  token_bound_cidrs: 'bound_cidrs',
} as const

/** The manifest's form of a role. Every field is described in docs/vault.md. */
export const VaultRoleManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('VaultRole'),
  metadata: z.strictObject({ name: RoleName }),
  spec: z.strictObject({
    bound_service_account_names: Patterns.check(z.minLength(1)),
    bound_service_account_namespaces: z._default(Patterns, []),
    bound_service_account_namespace_selector: z._default(z.string().check(z.maxLength(8192)), ''),
    audience: z._default(z.union([Audience, z.literal('')]), ''),
    alias_name_source: z._default(z.enum(['serviceaccount_uid', 'serviceaccount_name']), 'serviceaccount_uid'),
    token_ttl: z._default(Seconds, 0),
    token_max_ttl: z._default(Seconds, 0),
    token_explicit_max_ttl: z._default(Seconds, 0),
    token_period: z._default(Seconds, 0),
    token_policies: z._default(z.array(z.string().check(z.maxLength(256))).check(z.maxLength(256)), []),
    token_bound_cidrs: z._default(z.array(Cidr).check(z.maxLength(256)), []),
    token_strictly_bind_ip: z._default(z.boolean(), false),
    token_no_default_policy: z._default(z.boolean(), false),
    token_num_uses: z._default(z.int().check(z.minimum(0), z.maximum(1_000_000)), 0),
    token_type: z._default(z.enum(['default', 'service', 'batch']), 'default'),
    former_names: z._default(z.array(z.enum(Object.values(FORMER_NAMES))), []),
    spiffe_id: z._default(z.string().check(z.maxLength(2048)), ''),
    svid_audiences: z._default(DistinctAudiences, []),
    svid_ttl: z._default(
      z.int().check(z.minimum(30), z.maximum(MAX_JWT_SVID_TTL_SECONDS)),
      DEFAULT_JWT_SVID_TTL_SECONDS,
    ),
    x509_svid: z._default(z.boolean(), false),
    dns_names: z._default(
      z.array(z.string().check(z.maxLength(MAX_DNS_NAME_LENGTH), z.regex(DNS_NAME))).check(z.maxLength(32)),
      [],
    ),
  }),
})

export type VaultRoleSpec = z.infer<typeof VaultRoleManifest>['spec']

export interface VaultRole {
  readonly mount: string
  readonly name: string
  readonly spec: VaultRoleSpec
  /** Labels that a namespace may have in the place of a name; null where none are asked for. */
  readonly namespaceLabels: ReadonlyMap<string, string> | null
  /** What its pods get SVIDs by; null where they get none, or nobody knows yet of which cluster they are. */
  readonly registration: Registration | null
}

/** @throws SpiffeIdError if `spiffe_id` is not a template of `trustDomain` */
export function compileVaultRole(
  { metadata, spec }: z.infer<typeof VaultRoleManifest>,
  source: Source,
  trustDomain: TrustDomain,
  cluster: string | null,
): VaultRole {
  const at = metadata.name.lastIndexOf('/')
  return {
    mount: metadata.name.slice(0, at),
    name: metadata.name.slice(at + 1),
    spec,
    namespaceLabels:
      spec.bound_service_account_namespace_selector === ''
        ? null
        : parseNamespaceSelector(spec.bound_service_account_namespace_selector),
    registration:
      spec.spiffe_id === '' || cluster === null
        ? null
        : registrationOf(metadata.name, spec, source, trustDomain, cluster),
  }
}

function registrationOf(
  name: string,
  spec: VaultRoleSpec,
  source: Source,
  trustDomain: TrustDomain,
  cluster: string,
): Registration {
  const only = (patterns: readonly string[], type: string) => {
    const [first, ...more] = patterns
    return first === undefined || more.length > 0 || first.includes('*') ? [] : [`k8s:${type}:${first}`]
  }
  return {
    name: `VaultRole ${name}`,
    source,
    clusters: [cluster],
    selectors: [
      ...(spec.bound_service_account_namespace_selector === ''
        ? only(spec.bound_service_account_namespaces, 'ns')
        : []),
      ...only(spec.bound_service_account_names, 'sa'),
    ],
    oidc: null,
    federated: null,
    podsOf: null,
    template: SpiffeIdTemplate.parse(spec.spiffe_id, trustDomain),
    svidTypes: [
      ...(spec.svid_audiences.length > 0 || !spec.x509_svid ? ['JWT' as const] : []),
      ...(spec.x509_svid ? ['X509' as const] : []),
    ],
    audiences: spec.svid_audiences,
    audienceCombinations: [],
    ttlSeconds: spec.svid_ttl,
    x509TtlSeconds: DEFAULT_X509_SVID_TTL_SECONDS,
    alg: null,
    claims: {},
    dnsNames: spec.dns_names,
    federatesWith: [],
    hint: null,
    liveness: 'none',
    sharedIdentity: false,
  }
}

/** @returns whether a service account of that name is bound */
export function bindsServiceAccount({ spec }: VaultRole, { serviceAccount }: PodAttestation): boolean {
  return spec.bound_service_account_names.some((pattern) => matches(pattern, serviceAccount.name))
}

/** @returns whether the namespace is bound by its name; its labels may bind it too */
export function bindsNamespace({ spec }: VaultRole, { namespace }: PodAttestation): boolean {
  return spec.bound_service_account_namespaces.some((pattern) => matches(pattern, namespace))
}

/** @returns whether labels of a namespace are all that are asked for */
export function bindsLabels({ namespaceLabels }: VaultRole, labels: Readonly<Record<string, string>>): boolean {
  const wanted = namespaceLabels?.entries()
  return wanted?.every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value) ?? false
}

/** Takes time that grows with both lengths and no faster: each part is looked for once, behind the one before. */
export function matches(pattern: string, text: string): boolean {
  const [first = '', ...parts] = pattern.split('*')
  const last = parts.pop()
  if (last === undefined) return text === pattern
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length) return false
  let at = first.length
  for (const part of parts) {
    const found = text.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at <= text.length - last.length
}

/**
 * @param text a LabelSelector, JSON or YAML
 * @returns its `matchLabels`, at least one; null for anything else
 */
export function parseNamespaceSelector(text: string): ReadonlyMap<string, string> | null {
  const document = parseDocument(text, { version: '1.2', schema: 'core', strict: true, uniqueKeys: true })
  if (document.errors.length + document.warnings.length > 0) return null
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 0 })
  } catch {
    return null
  }
  const { data } = LabelSelector.safeParse(value)
  return data ? new Map(Object.entries(data.matchLabels)) : null
}

const LabelSelector = z.strictObject({
  matchLabels: z
    .record(z.string().check(z.minLength(1), z.maxLength(317)), z.string().check(z.maxLength(63)))
    .check(z.refine((labels) => Object.keys(labels).length > 0)),
})

/** @returns null for what is neither an address nor a range of them */
export function parseCidr(text: string): readonly [ipaddr.IPv4 | ipaddr.IPv6, number] | null {
  const [network = '', bits, ...more] = text.split('/')
  if (!isAddress(network) || more.length > 0) return null
  if (bits !== undefined) return ipaddr.isValidCIDR(text) ? ipaddr.parseCIDR(text) : null
  const address = ipaddr.parse(network)
  return [address, address.kind() === 'ipv4' ? 32 : 128]
}

/** Whether an address is within one of the ranges; one that is not known is in none. */
export function isWithin(address: string | null, ranges: readonly string[]): boolean {
  if (address === null || !isAddress(address)) return false
  // One that is written as IPv6 and is none is that of an IPv4 client at a socket for both.
  const parsed = ipaddr.process(address)
  return ranges.some((range) => {
    const [network, bits] = parseCidr(range) ?? []
    return network?.kind() === parsed.kind() && parsed.match(network, bits ?? 0)
  })
}

/** What the library also takes, such as octal and a single number, nobody writes who means an address. */
function isAddress(text: string): boolean {
  return ipaddr.IPv4.isValidFourPartDecimal(text) || ipaddr.IPv6.isValid(text)
}
