/**
 * A cluster whose pods may ask: the record of who signs its service account tokens, and of what its API server takes
 * from us in turn. Trust belongs to the record, never to the issuer string, which kubeadm, kind and k3s all share (T-3).
 */

import * as z from 'zod/mini'
import { MAX_KEYS } from '../../keys/key_set.ts'

/** `exp - iat` that a subject token may have unless its cluster says otherwise: twice what a kubelet asks for by default. */
const DEFAULT_MAX_TOKEN_LIFETIME_SECONDS = 7200
/** A kubelet never keeps a token longer than a day, so nobody needs to hand us one that lives longer. */
const MAX_MAX_TOKEN_LIFETIME_SECONDS = 86_400
/** The audience that SPIRE's agents and kubespiffe's pods also ask the kubelet for, under our own name. */
const DEFAULT_ATTESTATION_AUDIENCE = 'spiffe-edge'

/** A DNS label: short enough for a SPIFFE ID, and one path segment by construction. */
export const ClusterName = z.string().check(z.regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'not a DNS label'))

/** Printable ASCII without blanks. 512 holds the longest audience a cloud asks for with room to spare. */
export const Audience = z.string().check(z.regex(/^[\x21-\x7e]{1,512}$/, 'not 1 to 512 printable characters'))

/** At least one, each once: kube-apiserver refuses a configuration that names one twice. */
export const Audiences = z.array(Audience).check(
  z.minLength(1),
  z.refine((list) => new Set(list).size === list.length, 'names an audience twice'),
)

const CertificateAuthority = z
  .string()
  .check(
    z.regex(
      /^[ \r\n]*(?:-----BEGIN CERTIFICATE-----[\r\n]+MI[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----[ \r\n]*)+$/,
      'not one or more PEM certificates',
    ),
  )

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
      z.strictObject({
        inline: z.strictObject({
          keys: z.array(z.looseObject({ kty: z.string() })).check(z.maxLength(MAX_KEYS)),
        }),
      }),
    ]),
    audiences: z._default(Audiences, [DEFAULT_ATTESTATION_AUDIENCE]),
    maxTokenLifetimeSeconds: z._default(
      z.int().check(z.minimum(600), z.maximum(MAX_MAX_TOKEN_LIFETIME_SECONDS)),
      DEFAULT_MAX_TOKEN_LIFETIME_SECONDS,
    ),
    requireBoundPod: z._default(z.boolean(), true),
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

export interface Cluster {
  readonly name: string
  /** `iss` of its service account tokens. */
  readonly issuer: string
  readonly keySource: KeySource
  /** What a subject token must be made out to (T-6). */
  readonly audiences: readonly string[]
  readonly maxTokenLifetimeSeconds: number
  readonly requireBoundPod: boolean
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
          : { from: 'discovery' },
    audiences: spec.audiences,
    maxTokenLifetimeSeconds: spec.maxTokenLifetimeSeconds,
    requireBoundPod: spec.requireBoundPod,
    apiServerAudiences: apiServer.audiences ?? [alone ? 'k8s' : `k8s-${metadata.name}`],
    certificateAuthority: apiServer.certificateAuthority ?? null,
  }
}
