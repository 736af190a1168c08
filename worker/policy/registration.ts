/**
 * Which pods get which identity, for whom, for how long. The manifest's form extends kubespiffe's `WorkloadRegistration`.
 */

import * as z from 'zod/mini'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { DEFAULT_JWT_SVID_TTL_SECONDS, MAX_JWT_SVID_TTL_SECONDS } from '../spiffe/jwt_svid.ts'
import { Audiences, ClusterName } from './cluster.ts'
import { CLUSTER_SERVICE_ACCOUNT_ID, SERVICE_ACCOUNT_ID, SpiffeIdTemplate } from './spiffe_id_template.ts'

/** Below this a token is spent before a slow client has used it. */
const MIN_TTL_SECONDS = 30

/** DNS label or subdomain, as Kubernetes names things. */
const KubernetesName = z.string().check(z.regex(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, 'not a Kubernetes name'))

/** The manifest's form of a registration. Every field is described in docs/manifest.md. */
export const RegistrationManifest = z.strictObject({
  apiVersion: z.literal('kubespiffe.io/v1alpha1'),
  kind: z.literal('WorkloadRegistration'),
  metadata: z.strictObject({ name: KubernetesName }),
  spec: z.strictObject({
    clusters: z.array(ClusterName).check(z.minLength(1)),
    selector: z.strictObject({
      namespace: KubernetesName,
      serviceAccountName: KubernetesName,
      podName: z.optional(KubernetesName),
    }),
    spiffeID: z.optional(z.string()),
    svidType: z.optional(z.literal('JWT', 'only JWT-SVIDs are issued')),
    audiences: Audiences,
    audienceCombinations: z._default(z.array(Audiences.check(z.minLength(2))), []),
    ttlSeconds: z._default(
      z.int().check(z.minimum(MIN_TTL_SECONDS), z.maximum(MAX_JWT_SVID_TTL_SECONDS)),
      DEFAULT_JWT_SVID_TTL_SECONDS,
    ),
    alg: z.optional(z.enum(Object.keys(ALGORITHMS) as [AlgorithmName, ...AlgorithmName[]])),
    sharedIdentity: z._default(z.boolean(), false),
  }),
})

export interface Registration {
  readonly name: string
  readonly clusters: readonly string[]
  readonly selector: {
    readonly namespace: string
    readonly serviceAccountName?: string | undefined
    readonly podName?: string | undefined
  }
  readonly template: SpiffeIdTemplate
  readonly audiences: readonly string[]
  /** Sets of audiences that one token may be made out to (T-7). */
  readonly audienceCombinations: readonly ReadonlySet<string>[]
  readonly ttlSeconds: number
  /** null: whatever the first signing key makes. */
  readonly alg: AlgorithmName | null
  /** Whether pods of several clusters may share one SPIFFE ID (T-2). */
  readonly sharedIdentity: boolean
}

/**
 * @param alone whether the manifest has exactly one cluster, which decides the default SPIFFE ID (T-2)
 * @throws SpiffeIdError if the SPIFFE ID is not a template of `trustDomain`
 */
export function compileRegistration(
  { metadata, spec }: z.infer<typeof RegistrationManifest>,
  trustDomain: TrustDomain,
  alone: boolean,
): Registration {
  const spiffeId = spec.spiffeID ?? `${trustDomain}${alone ? SERVICE_ACCOUNT_ID : CLUSTER_SERVICE_ACCOUNT_ID}`
  return {
    name: metadata.name,
    clusters: spec.clusters,
    selector: spec.selector,
    template: SpiffeIdTemplate.parse(spiffeId, trustDomain),
    audiences: spec.audiences,
    audienceCombinations: spec.audienceCombinations.map((combination) => new Set(combination)),
    ttlSeconds: spec.ttlSeconds,
    alg: spec.alg ?? null,
    sharedIdentity: spec.sharedIdentity,
  }
}

/** The characters of the suffixes that Kubernetes generates, which spell no words. */
const GENERATED = '[bcdfghjklmnpqrstvwxz2456789]'
const POD_SUFFIX = new RegExp(`^-(?:(?:${GENERATED}{1,10}-)?${GENERATED}{5}|0|[1-9][0-9]{0,9})$`)

/**
 * Whether `podName` is `workload`, or a name that a Deployment, ReplicaSet, Job, DaemonSet or StatefulSet of that name
 * gives its pods. A convenience: whoever may create pods in the namespace may choose such a name (T-4).
 */
export function isPodOf(podName: string, workload: string): boolean {
  return podName === workload || (podName.startsWith(workload) && POD_SUFFIX.test(podName.slice(workload.length)))
}
