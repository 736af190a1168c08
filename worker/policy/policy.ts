/** What the worker decides by, and what must hold between its parts, beyond the schema of each. */

import { isCanonical, isPrivate, keyMark } from '../../keys/key_set.ts'
import { endpointUrlProblem } from '../endpoint_url.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Cluster } from './cluster.ts'
import type { Registration } from './registration.ts'
import { agreesWithFacts } from './spiffe_id_template.ts'

/** What the worker decides by. */
export interface Policy {
  readonly trustDomain: TrustDomain
  readonly clusters: ReadonlyMap<string, Cluster>
  readonly registrations: readonly Registration[]
}

/** What of the configuration the manifest is judged by. */
export interface ManifestContext {
  readonly trustDomain: TrustDomain
  /** Our own issuer URL. */
  readonly issuer: string
  /** Whether a cluster's keys may be fetched over http from this machine: in development only. */
  readonly allowLoopbackHttp: boolean
}

/**
 * @returns the problems found, none if the policy may be used
 */
export function checkPolicy(policy: Policy, context: ManifestContext): string[] {
  const clusters = [...policy.clusters.values()]
  return [
    ...clusters.flatMap((cluster) =>
      checkCluster(cluster, context).map((problem) => `Cluster ${cluster.name}: ${problem}`),
    ),
    ...checkClusterAudiences(clusters, context),
    ...checkKeySources(clusters),
    ...checkInlineKeys(clusters),
    ...policy.registrations.flatMap((registration) =>
      checkRegistration(registration, policy, context).map(
        (problem) => `WorkloadRegistration ${registration.name}: ${problem}`,
      ),
    ),
    ...checkSharedIdentities(policy.registrations),
  ]
}

/** T-3: two clusters that publish at one place have one set of keys, and each could speak for the other. */
function checkKeySources(clusters: readonly Cluster[]): string[] {
  const owners = new Map<string, string>()
  return clusters.flatMap(({ name, issuer, keySource, connection }) => {
    if (keySource.from === 'inline') return []
    const [field, place] =
      keySource.from === 'url'
        ? ['spec.jwks.url', keySource.url]
        : keySource.from === 'connection'
          ? ['spec.connection', `${connection?.binding} ${connection?.url}`]
          : ['spec.jwks.discovery', `discovery of ${issuer}`]
    const owner = owners.get(place)
    owners.set(place, name)
    return owner === undefined ? [] : [`Cluster ${name}: ${field}: the keys would be those of Cluster ${owner}`]
  })
}

function checkCluster(cluster: Cluster, context: ManifestContext): string[] {
  const { issuer, keySource, connection } = cluster
  if (issuer === context.issuer) return ['spec.issuer: is this issuer itself']
  const urls: [string, string][] = []
  if (keySource.from === 'discovery') urls.push(['spec.issuer', issuer])
  if (keySource.from === 'url') urls.push(['spec.jwks.url', keySource.url])
  if (connection) urls.push(['spec.connection.url', connection.url])
  const problems = urls.flatMap(([field, url]) => {
    const problem = endpointUrlProblem(url, context.allowLoopbackHttp)
    return problem === null ? [] : [`${field}: ${problem}`]
  })
  if (connection && problems.length === 0 && new URL(connection.url).pathname !== '/')
    problems.push('spec.connection.url: has a path')
  if (!connection) problems.push(...whatNeedsConnection(cluster).map((field) => `${field}: needs spec.connection`))
  if (keySource.from === 'connection' && cluster.reviewer.by === 'client')
    problems.push('spec.jwks.connection: needs a reviewer other than client, who has no token to be verified with yet')
  if (cluster.audiences.length === 0 && cluster.serviceAccountAllowList.length === 0)
    problems.push('spec.audiences: is empty, which is for node attestation: needs spec.serviceAccountAllowList')
  return problems
}

function whatNeedsConnection({ keySource, liveness, serviceAccountAllowList }: Cluster): string[] {
  return [
    ...(keySource.from === 'connection' ? ['spec.jwks.connection'] : []),
    ...(liveness === 'tokenReview' ? ['spec.liveness'] : []),
    ...(serviceAccountAllowList.length > 0 ? ['spec.serviceAccountAllowList'] : []),
  ]
}

/** T-3: issuer and audience select one record. T-7: an audience has one kind, and names one API server. */
function checkClusterAudiences(clusters: readonly Cluster[], context: ManifestContext): string[] {
  const problems: string[] = []
  for (const cluster of clusters) {
    const others = clusters.filter((other) => other !== cluster)
    const sharesIssuer = others.some((other) => other.issuer === cluster.issuer)
    for (const audience of cluster.audiences) {
      if (isInternalAudience(audience, context))
        problems.push(`Cluster ${cluster.name}: spec.audiences: ${audience} is reserved`)
      if (sharesIssuer && others.some((other) => other.audiences.includes(audience)))
        problems.push(
          `Cluster ${cluster.name}: spec.audiences: ${audience} is another cluster's too, and the issuer is shared`,
        )
    }
    for (const audience of cluster.apiServerAudiences) {
      const where = `Cluster ${cluster.name}: spec.apiServer.audiences: ${audience}`
      if (isInternalAudience(audience, context)) problems.push(`${where} is reserved`)
      if (others.some((other) => other.apiServerAudiences.includes(audience)))
        problems.push(`${where} is another cluster's too`)
      if (clusters.some((other) => other.audiences.includes(audience)))
        problems.push(`${where} is an attestation audience`)
    }
  }
  return problems
}

/** T-3: one key in two records would let each cluster speak for the other. */
function checkInlineKeys(clusters: readonly Cluster[]): string[] {
  const problems: string[] = []
  const owners = new Map<string, string>()
  for (const { name, keySource } of clusters) {
    if (keySource.from !== 'inline') continue
    if (keySource.keys.length === 0) problems.push(`Cluster ${name}: spec.jwks.inline: has no keys`)
    for (const jwk of keySource.keys) {
      if (!isCanonical(jwk)) problems.push(`Cluster ${name}: spec.jwks.inline: a key is not in its canonical form`)
      if (isPrivate(jwk)) problems.push(`Cluster ${name}: spec.jwks.inline: holds a private key`)
      const { kid } = jwk as { kid?: unknown }
      if (typeof kid !== 'string' || kid === '') problems.push(`Cluster ${name}: spec.jwks.inline: a key has no kid`)
      for (const mark of [`kid ${kid}`, keyMark(jwk)]) {
        const owner = owners.get(mark)
        if (owner !== undefined)
          problems.push(`Cluster ${name}: spec.jwks.inline: a key or kid stands in Cluster ${owner} too`)
        owners.set(mark, name)
      }
    }
  }
  return problems
}

function checkRegistration(registration: Registration, policy: Policy, context: ManifestContext): string[] {
  const problems: string[] = []
  const clusters = [...policy.clusters.values()]
  for (const name of registration.clusters)
    if (!policy.clusters.has(name)) problems.push(`spec.clusters: there is no Cluster ${name}`)
  for (const audience of registration.audiences) {
    if (isInternalAudience(audience, context)) problems.push(`spec.audiences: ${audience} is reserved`)
    if (clusters.some((cluster) => cluster.audiences.includes(audience)))
      problems.push(`spec.audiences: ${audience} is an attestation audience`)
  }
  for (const combination of registration.audienceCombinations)
    for (const audience of combination) {
      if (!registration.audiences.includes(audience))
        problems.push(`spec.audienceCombinations: ${audience} is not in spec.audiences`)
      if (clusters.some((cluster) => cluster.apiServerAudiences.includes(audience)))
        problems.push(`spec.audienceCombinations: ${audience} is an API server's and goes with nothing else`)
    }
  const standIns = {
    cluster: registration.clusters.length === 1 ? (registration.clusters[0] ?? null) : 'any-cluster',
    namespace: registration.selector.namespace,
    serviceAccountName: registration.selector.serviceAccountName ?? 'any-service-account',
    podName: 'any-pod',
    podUID: 'any-uid',
  }
  const id = registration.template.expand(policy.trustDomain, standIns)
  if (clusters.length > 1 && isServiceAccountId(registration.template) && !registration.sharedIdentity)
    problems.push(
      'spec.spiffeID: with several clusters, /ns/…/sa/… does not say whose: begin with /cluster/{cluster}, or set sharedIdentity',
    )
  if (id === null) problems.push('spec.spiffeID: is too long')
  else if (isReserved(id)) problems.push('spec.spiffeID: is reserved')
  else if (!agreesWithFacts(id, standIns))
    problems.push(
      'spec.spiffeID: names a namespace, service account or cluster that spec.selector and spec.clusters do not',
    )
  return problems
}

/** T-2: pods of two clusters have one SPIFFE ID only where the operator has written that this is meant. */
function checkSharedIdentities(registrations: readonly Registration[]): string[] {
  const patterns = registrations.flatMap((registration) =>
    registration.clusters.map((cluster) => ({ registration, cluster, segments: pattern(registration, cluster) })),
  )
  const problems = new Set<string>()
  for (const [index, one] of patterns.entries())
    for (const other of patterns.slice(index + 1)) {
      if (one.cluster === other.cluster || (one.registration.sharedIdentity && other.registration.sharedIdentity))
        continue
      if (overlap(one.segments, other.segments))
        problems.add(
          `WorkloadRegistration ${other.registration.name}: spec.spiffeID: pods of ${one.cluster} and ${other.cluster} could share it:` +
            ` put {cluster} into it, or set sharedIdentity`,
        )
    }
  return [...problems]
}

/** Whether the AuthenticationConfiguration would map the IDs to names that do not say which cluster they are of (T-2). */
function isServiceAccountId({ segments }: Registration['template']): boolean {
  const literal = (index: number) => {
    const segment = segments[index]
    return segment && 'literal' in segment ? segment.literal : null
  }
  return segments.length === 4 && literal(0) === 'ns' && literal(2) === 'sa'
}

/** The path's segments as far as the registration fixes them; null is anything. */
function pattern({ template, selector }: Registration, cluster: string): (string | null)[] {
  const fixed = {
    cluster,
    namespace: selector.namespace,
    serviceAccountName: selector.serviceAccountName,
    podName: null,
    podUID: null,
  }
  return template.segments.map((segment) =>
    'literal' in segment ? segment.literal : (fixed[segment.variable] ?? null),
  )
}

function overlap(one: readonly (string | null)[], other: readonly (string | null)[]): boolean {
  return (
    one.length === other.length &&
    one.every((segment, index) => segment === null || other[index] === null || segment === other[index])
  )
}

/** The issuer's own audiences: its name, and everything below it, such as `<issuer>/admin` (T-7, T-11). */
function isInternalAudience(audience: string, { issuer }: ManifestContext): boolean {
  return audience === issuer || audience.startsWith(`${issuer}/`)
}
