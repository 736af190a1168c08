/**
 * A mount of Vault's Kubernetes auth method: which cluster's pods may log in at it, and how their tokens are judged. Members
 * have the names that Vault's API has for them.
 *
 * @see [Kubernetes auth method API](https://developer.hashicorp.com/vault/api-docs/auth/kubernetes)
 */

import * as z from 'zod/mini'
import { ClusterName, DistinctAudiences } from './cluster.ts'

/** What Vault itself gives a token that nobody has said anything about: 32 days. */
export const DEFAULT_LEASE_TTL_SECONDS = 2_764_800
/** Ten years. Beyond it are mistakes. */
export const MAX_DURATION_SECONDS = 315_360_000

/** Segments of a path. `token` is where tokens themselves are dealt with. */
export const MountPath = z.string().check(
  z.maxLength(128),
  z.regex(/^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?(?:\/[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?)*$/),
  z.refine((path) => !/^token(?:\/|$)/.test(path), 'is reserved'),
)

export const Seconds = z.int().check(z.minimum(0), z.maximum(MAX_DURATION_SECONDS))

const Text = z.string().check(z.maxLength(65_536))

/** Vault's `config`, and what it takes here beyond that. */
const MountConfig = z.strictObject({
  kubernetes_host: z.string().check(z.minLength(1), z.maxLength(2048)),
  kubernetes_ca_cert: z._default(Text, ''),
  /** Sealed: whoever reads the storage has no token. */
  token_reviewer_jwt: z.optional(z.string().check(z.regex(/^v1\.[\w-]{1,32768}$/, 'not sealed'))),
  pem_keys: z._default(z.array(Text).check(z.maxLength(100)), []),
  disable_local_ca_jwt: z._default(z.boolean(), false),
  issuer: z._default(Text, ''),
  disable_iss_validation: z._default(z.boolean(), true),
  cluster: ClusterName,
  audiences: z._default(DistinctAudiences, []),
  allow_api_server_audience: z._default(z.boolean(), false),
})

/** The manifest's form of a mount. Every field is described in docs/vault.md. */
export const VaultMountManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('VaultMount'),
  metadata: z.strictObject({ name: MountPath }),
  spec: z.strictObject({
    accessor: z.optional(z.string().check(z.regex(/^auth_kubernetes_[a-z0-9]{8}$/, 'not the accessor of a mount'))),
    description: z._default(z.string().check(z.maxLength(1024)), ''),
    default_lease_ttl: z._default(Seconds, 0),
    max_lease_ttl: z._default(Seconds, 0),
    config: z.optional(MountConfig),
  }),
})

export type VaultMountConfig = z.infer<typeof MountConfig>

export interface VaultMount {
  /** Where it is under `auth/`. */
  readonly path: string
  /** Names this mount, and not one that is made later at the same path: a token is good only as long as its mount is there. */
  readonly accessor: string
  readonly description: string
  /** Seconds that a token lives where its role says nothing. */
  readonly defaultLeaseTtl: number
  /** Seconds that no token is renewed beyond. */
  readonly maxLeaseTtl: number
  /** The two as they are configured; 0 for what everybody has. */
  readonly tuned: { readonly defaultLeaseTtl: number; readonly maxLeaseTtl: number }
  /** null until it is configured. */
  readonly config: VaultMountConfig | null
}

export function compileVaultMount({ metadata, spec }: z.infer<typeof VaultMountManifest>): VaultMount {
  const { name: path } = metadata
  const { default_lease_ttl: defaultLeaseTtl, max_lease_ttl: maxLeaseTtl } = spec
  return {
    path,
    accessor: spec.accessor ?? `auth_kubernetes_${path.replaceAll('/', '_')}`,
    description: spec.description,
    defaultLeaseTtl: defaultLeaseTtl || Math.min(DEFAULT_LEASE_TTL_SECONDS, maxLeaseTtl || DEFAULT_LEASE_TTL_SECONDS),
    maxLeaseTtl: maxLeaseTtl || Math.max(DEFAULT_LEASE_TTL_SECONDS, defaultLeaseTtl),
    tuned: { defaultLeaseTtl, maxLeaseTtl },
    config: spec.config ?? null,
  }
}

/** Whether one path is the other or below it: then nobody could tell which mount a request is for. */
export function isNested(one: string, other: string): boolean {
  return `${one}/`.startsWith(`${other}/`) || `${other}/`.startsWith(`${one}/`)
}
