/**
 * Another trust domain, whose SVIDs are believed as far as a registration says. The fields are those of SPIRE's
 * `ClusterFederatedTrustDomain`. Where its bundle comes from is written down in full, and nothing of it is inferred.
 *
 * @see [SPIFFE Federation §5.1](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md)
 */

import * as z from 'zod/mini'
import { endpointUrlProblem } from '../endpoint_url.ts'
import { checkForeignBundle, ForeignBundleError } from '../federation/foreign_bundle.ts'
import { SpiffeIdError, TrustDomain } from '../spiffe/id.ts'
import { KUBERNETES_NAME } from './cluster.ts'

/** How many trust domains there may be: each is fetched, and its bundle is in every isolate. */
export const MAX_FEDERATED_TRUST_DOMAINS = 100

/** Those of all must fit into one call to the state, which holds 32 MiB. */
const MAX_BUNDLE_CHARACTERS = 256 * 1024

/** Of a JWT-SVID unless the record says otherwise: twelve times what SPIRE makes by default, and the longest that ours live. */
const DEFAULT_MAX_TOKEN_LIFETIME_SECONDS = 3600

/** The bare name, without scheme. */
export const TrustDomainName = z.string().check(z.refine(isTrustDomainName, 'not the name of a trust domain'))

/** The manifest's form. Every field is described in docs/manifest.md. */
export const FederatedTrustDomainManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('FederatedTrustDomain'),
  metadata: z.strictObject({ name: z.string().check(z.regex(KUBERNETES_NAME, 'not a name')) }),
  spec: z.strictObject({
    trustDomain: TrustDomainName,
    bundleEndpointURL: z.optional(z.string().check(z.maxLength(2048))),
    bundleEndpointProfile: z.optional(
      z.strictObject({ type: z.enum(['https_web', 'https_spiffe']), endpointSPIFFEID: z.optional(z.string()) }),
    ),
    trustDomainBundle: z.optional(z.string().check(z.maxLength(MAX_BUNDLE_CHARACTERS))),
    maxTokenLifetimeSeconds: z._default(
      z.int().check(z.minimum(60), z.maximum(86_400)),
      DEFAULT_MAX_TOKEN_LIFETIME_SECONDS,
    ),
  }),
})

export interface FederatedTrustDomain {
  /** Of the object. */
  readonly name: string
  readonly trustDomain: string
  /** An https URL; null where the bundle comes from an administrator alone. */
  readonly bundleEndpointUrl: string | null
  /** What to begin with, as JSON; null for nothing. */
  readonly bootstrapBundle: string | null
  /** `exp - iat` that its JWT-SVIDs may have, or what is left of one that does not say when it was made. */
  readonly maxTokenLifetimeSeconds: number
}

export function compileFederatedTrustDomain({
  metadata,
  spec,
}: z.infer<typeof FederatedTrustDomainManifest>): FederatedTrustDomain {
  return {
    name: metadata.name,
    trustDomain: spec.trustDomain,
    bundleEndpointUrl: spec.bundleEndpointURL ?? null,
    bootstrapBundle: spec.trustDomainBundle ?? null,
    maxTokenLifetimeSeconds: spec.maxTokenLifetimeSeconds,
  }
}

/**
 * @param ours our own trust domain
 * @returns what is wrong with an object by itself
 * @see FE-1, FE-3
 */
export function checkFederatedTrustDomain(
  { spec }: z.infer<typeof FederatedTrustDomainManifest>,
  { trustDomain: ours, allowLoopbackHttp }: { readonly trustDomain: TrustDomain; readonly allowLoopbackHttp: boolean },
): string[] {
  const { trustDomain, bundleEndpointURL: url, bundleEndpointProfile: profile, trustDomainBundle: bundle } = spec
  const problems: string[] = []
  if (trustDomain === ours.name) problems.push('spec.trustDomain: is our own')
  if (url !== undefined && profile === undefined) problems.push('spec.bundleEndpointProfile: is missing')
  if (url === undefined && profile !== undefined) problems.push('spec.bundleEndpointURL: is missing')
  const urlProblem = url === undefined ? null : endpointUrlProblem(url, allowLoopbackHttp, true)
  if (urlProblem !== null) problems.push(`spec.bundleEndpointURL: ${urlProblem}`)
  // T-22: neither home can look for a SPIFFE ID in the certificate of a server. There is no falling back (FE-3).
  if (profile?.type === 'https_spiffe')
    problems.push(
      'spec.bundleEndpointProfile: the worker cannot check the SPIFFE ID of a server: leave out URL and profile, and give it the bundle ' +
        'with spiffe-edge federation fetch --set',
    )
  else if (profile?.endpointSPIFFEID !== undefined)
    problems.push('spec.bundleEndpointProfile.endpointSPIFFEID: is for https_spiffe')
  const bundleProblem = bundle === undefined ? null : foreignBundleProblem(bundle)
  if (bundleProblem !== null) problems.push(`spec.trustDomainBundle: ${bundleProblem}`)
  return problems
}

/** @returns what can be seen to be wrong with a bundle at once; its certificates and keys are looked into when it is applied */
function foreignBundleProblem(text: string): string | null {
  try {
    checkForeignBundle(text)
    return null
  } catch (error) {
    if (error instanceof ForeignBundleError) return error.message
    throw error
  }
}

function isTrustDomainName(name: string): boolean {
  try {
    return TrustDomain.parse(name).name === name
  } catch (error) {
    if (error instanceof SpiffeIdError) return false
    throw error
  }
}
