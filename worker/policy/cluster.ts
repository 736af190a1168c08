/**
 * A cluster whose pods may ask: the record of who signs its service account tokens, and of what its API server takes
 * from us in turn. Trust belongs to the record, never to the issuer string, which kubeadm, kind and k3s all share (T-3).
 */

import * as z from 'zod/mini'
import type { AlgorithmName } from '../../keys/algorithms.ts'
import { MAX_KEYS } from '../../keys/key_set.ts'

/** `exp - iat` that a subject token may have unless its cluster says otherwise: twice what a kubelet asks for by default. */
const DEFAULT_MAX_TOKEN_LIFETIME_SECONDS = 7200
/** A kubelet never keeps a token longer than a day, so nobody needs to hand us one that lives longer. */
const MAX_MAX_TOKEN_LIFETIME_SECONDS = 86_400
/** The audience that SPIRE's agents and kubespiffe's pods also ask the kubelet for, under our own name. */
const DEFAULT_ATTESTATION_AUDIENCE = 'spiffe-edge'

/** What kubespiffe's pods ask the kubelet for, good at `/v1/svid` and nowhere else (T-6). */
export const KUBESPIFFE_AUDIENCE = 'kubespiffed'

/** A DNS label: short enough for a SPIFFE ID, and one path segment by construction. */
export const ClusterName = z.string().check(z.regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'not a DNS label'))

/** Printable ASCII without blanks. 512 holds the longest audience a cloud asks for with room to spare. */
export const Audience = z.string().check(z.regex(/^[\x21-\x7e]{1,512}$/, 'not 1 to 512 printable characters'))

/** Each once: kube-apiserver refuses a configuration that names one twice. */
export const DistinctAudiences = z
  .array(Audience)
  .check(z.refine((list) => new Set(list).size === list.length, 'names an audience twice'))
export const Audiences = DistinctAudiences.check(z.minLength(1))

const CertificateAuthority = z
  .string()
  .check(
    z.regex(
      /^[ \r\n]*(?:-----BEGIN CERTIFICATE-----[\r\n]+MI[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----[ \r\n]*)+$/,
      'not one or more PEM certificates',
    ),
  )

/** DNS label or subdomain, as Kubernetes names things. */
export const KUBERNETES_NAME = /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/

/** A service account as SPIRE writes it: `namespace:name`. */
export const ServiceAccount = z.string().check(z.regex(/^[a-z0-9.-]{1,253}:[a-z0-9.-]{1,253}$/, 'not namespace:name'))

/** What kube-apiserver signs service account tokens with. */
export const CLUSTER_ALGORITHMS: readonly AlgorithmName[] = ['RS256', 'ES256', 'ES384', 'ES512']

/** A label's key, as Kubernetes has it: a name, perhaps after a DNS subdomain. */
const LabelKey = z
  .string()
  .check(
    z.regex(
      /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/,
      'not the key of a label',
    ),
  )

const BINDING_NAME = /^CLUSTER_[A-Z0-9_]{1,56}$/

/** Whether records may use a binding of that name. No other binding of the worker can be reached by one (T-10). */
export function isBindingName(name: string): boolean {
  return BINDING_NAME.test(name)
}

const BindingName = z.string().check(z.regex(BINDING_NAME, 'not CLUSTER_…'))

/** How the worker shows the API server who it is (D5). */
const ReviewerManifest = z.union([
  z.literal('self'),
  z.literal('client'),
  z.strictObject({
    file: z.strictObject({ binding: BindingName, path: z.string().check(z.regex(/^[A-Za-z0-9._/-]{1,256}$/)) }),
  }),
  z.strictObject({ secret: BindingName }),
])

/** What objects that are read from a cluster may grant at most. Set by an administrator, never by the cluster (T-1). */
const Ceiling = z.strictObject({
  spiffeIDPrefixes: z
    .array(z.string().check(z.regex(/^(?:\/[A-Za-z0-9._-]+)+$/, 'not the beginning of a path, /like/this')))
    .check(z.minLength(1)),
  audiences: z._default(DistinctAudiences, []),
  dnsSuffixes: z._default(z.array(z.string().check(z.regex(/^\.[a-z0-9-]+(?:\.[a-z0-9-]+)*$/, 'not .like.this'))), []),
  maxTtlSeconds: z._default(z.int().check(z.minimum(30), z.maximum(3600)), 3600),
  claims: z._default(z.array(z.string()), []),
  federatesWith: z._default(z.array(z.string()), []),
})

/** The manifest's form of a cluster. Every field is described in docs/manifest.md. */
export const ClusterManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('Cluster'),
  metadata: z.strictObject({ name: ClusterName }),
  spec: z.strictObject({
    issuer: z.string().check(z.minLength(1), z.maxLength(2048)),
    jwks: z.union([
      z.strictObject({ discovery: z.literal(true) }),
      z.strictObject({ url: z.string() }),
      z.strictObject({ connection: z.literal(true) }),
      z.strictObject({
        inline: z.strictObject({
          keys: z.array(z.looseObject({ kty: z.string() })).check(z.maxLength(MAX_KEYS)),
        }),
      }),
    ]),
    // An empty list is the API server's own audience, which is good at one door only (T-6).
    audiences: z._default(DistinctAudiences, [DEFAULT_ATTESTATION_AUDIENCE]),
    maxTokenLifetimeSeconds: z._default(
      z.int().check(z.minimum(600), z.maximum(MAX_MAX_TOKEN_LIFETIME_SECONDS)),
      DEFAULT_MAX_TOKEN_LIFETIME_SECONDS,
    ),
    requireBoundPod: z._default(z.boolean(), true),
    connection: z.optional(z.strictObject({ url: z.string(), binding: z.optional(BindingName) })),
    reviewer: z._default(ReviewerManifest, 'self'),
    liveness: z._default(z.enum(['none', 'tokenReview']), 'none'),
    ceiling: z.optional(Ceiling),
    serviceAccountAllowList: z._default(z.array(ServiceAccount), []),
    allowedNodeLabelKeys: z._default(z.array(LabelKey), []),
    allowedPodLabelKeys: z._default(z.array(LabelKey), []),
    usePodUIDForAgentID: z._default(z.boolean(), false),
    kubespiffe: z._default(z.boolean(), false),
    apiServer: z._default(
      z.strictObject({
        audiences: z.optional(Audiences),
        certificateAuthority: z.optional(CertificateAuthority),
      }),
      {},
    ),
  }),
})

/** Where a cluster's public keys come from. */
export type KeySource =
  | { readonly from: 'discovery' }
  | { readonly from: 'url'; readonly url: string }
  | { readonly from: 'inline'; readonly keys: readonly JsonWebKey[] }
  /** The API server itself, at `/openid/v1/jwks`. */
  | { readonly from: 'connection' }

/** Where a cluster's API server is. */
export interface Connection {
  /** An https URL without path. */
  readonly url: string
  /** The fetcher that reaches it, and knows its CA; null for the public internet and its roots. */
  readonly binding: string | null
}

/** What the worker shows a cluster's API server as bearer token. */
export type Reviewer =
  /** A JWT-SVID that it signs for itself. Nothing is stored (T-9). */
  | { readonly by: 'self' }
  /** The token that is being reviewed. */
  | { readonly by: 'client' }
  /** A file, read anew each time: a kubelet projects a token there and renews it. */
  | { readonly by: 'file'; readonly binding: string; readonly path: string }
  /** A long-lived token, in a secret of the platform. */
  | { readonly by: 'secret'; readonly binding: string }
  /** A token that was configured at run time for a mount of Vault's, and is stored sealed. */
  | { readonly by: 'sealed'; readonly sealed: string; readonly purpose: string }

export interface Cluster {
  readonly name: string
  /** `iss` of its service account tokens. */
  readonly issuer: string
  readonly keySource: KeySource
  /** What a subject token must be made out to (T-6). */
  readonly audiences: readonly string[]
  readonly maxTokenLifetimeSeconds: number
  readonly requireBoundPod: boolean
  /** null where the worker never talks to the API server. */
  readonly connection: Connection | null
  readonly reviewer: Reviewer
  /** Whether every token of the cluster is shown to its API server before it is believed. */
  readonly liveness: 'none' | 'tokenReview'
  /** null where WorkloadRegistration objects of the cluster are not read at all. */
  readonly ceiling: z.infer<typeof Ceiling> | null
  /** Service accounts whose pods are nodes, as `namespace:name`. Empty means that nobody is (T-14). */
  readonly serviceAccountAllowList: readonly string[]
  readonly allowedNodeLabelKeys: readonly string[]
  readonly allowedPodLabelKeys: readonly string[]
  readonly usePodUIDForAgentID: boolean
  /** Whether its pods may ask in kubespiffe's way, at `/v1/svid`. */
  readonly kubespiffe: boolean
  /** Audiences of SVIDs that this cluster's API server takes as bearer tokens (T-7). */
  readonly apiServerAudiences: readonly string[]
  /** PEM, for an issuer whose certificate does not chain to a root that the API server's host knows. */
  readonly certificateAuthority: string | null
}

/**
 * @param alone whether the manifest has no other cluster, which decides the default API server audience (T-7)
 */
export function compileCluster({ metadata, spec }: z.infer<typeof ClusterManifest>, alone: boolean): Cluster {
  const { jwks, apiServer } = spec
  return {
    name: metadata.name,
    issuer: spec.issuer,
    keySource:
      'inline' in jwks
        ? { from: 'inline', keys: jwks.inline.keys as JsonWebKey[] }
        : 'url' in jwks
          ? { from: 'url', url: jwks.url }
          : { from: 'connection' in jwks ? 'connection' : 'discovery' },
    audiences: spec.audiences,
    maxTokenLifetimeSeconds: spec.maxTokenLifetimeSeconds,
    requireBoundPod: spec.requireBoundPod,
    connection: spec.connection ? { url: spec.connection.url, binding: spec.connection.binding ?? null } : null,
    reviewer: compileReviewer(spec.reviewer),
    liveness: spec.liveness,
    ceiling: spec.ceiling ?? null,
    serviceAccountAllowList: spec.serviceAccountAllowList,
    allowedNodeLabelKeys: spec.allowedNodeLabelKeys,
    allowedPodLabelKeys: spec.allowedPodLabelKeys,
    usePodUIDForAgentID: spec.usePodUIDForAgentID,
    kubespiffe: spec.kubespiffe,
    apiServerAudiences: apiServer.audiences ?? [alone ? 'k8s' : `k8s-${metadata.name}`],
    certificateAuthority: apiServer.certificateAuthority ?? null,
  }
}

/** @returns what subject tokens of the cluster are made out to, at whichever door (T-6) */
export function attestationAudiences({ audiences, kubespiffe }: Cluster): readonly string[] {
  return kubespiffe ? [...audiences, KUBESPIFFE_AUDIENCE] : audiences
}

function compileReviewer(reviewer: z.infer<typeof ReviewerManifest>): Reviewer {
  if (typeof reviewer === 'string') return { by: reviewer }
  return 'file' in reviewer ? { by: 'file', ...reviewer.file } : { by: 'secret', binding: reviewer.secret }
}
