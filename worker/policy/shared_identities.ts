/**
 * T-2: pods of two clusters have one SPIFFE ID only where the operator has written that this is meant. Every SPIFFE ID
 * that a registration can give is a path in a tree, in which a variable that is not known beforehand may be anything.
 */

import { demanded, type Registration } from './registration.ts'

/** One segment; null is one that may be anything. */
type Segment = string | null

interface Node {
  readonly next: Map<Segment, Node>
  /** The clusters whose pods can have the ID that ends here. */
  readonly owners: Set<string>
  /** Those of them that do not say that it is shared. */
  readonly unshared: Set<string>
  /** The one cluster that anything from here on belongs to; null if there are several. */
  only: string | null
}

export class SharedIdentities {
  #root: Node | null = null

  /**
   * @returns two clusters whose pods could share an ID if the registration was added, or null. Only then it is added.
   */
  add(registration: Registration): readonly [string, string] | null {
    const clusters = new Set(ownersOf(registration))
    const shared = registration.sharedIdentity
    const [one, other] = clusters
    // With the cluster in them, the IDs of two clusters differ; without it, they are the same.
    if (one !== undefined && other !== undefined && !shared && !registration.template.uses('cluster'))
      return [one, other]
    const patterns = [...clusters].map((cluster) => ({ cluster, segments: idPattern(registration, cluster) }))
    for (const { cluster, segments } of patterns) {
      const owner = this.#root && conflict(this.#root, segments, 0, cluster, shared)
      if (owner !== null) return [owner, cluster]
    }
    for (const { cluster, segments } of patterns) {
      let node = visit(this.#root, cluster)
      this.#root = node
      for (const segment of segments) {
        const next = visit(node.next.get(segment) ?? null, cluster)
        node.next.set(segment, next)
        node = next
      }
      node.owners.add(cluster)
      if (!shared) node.unshared.add(cluster)
    }
    return null
  }
}

/** To whom an ID belongs, a provider of workloads that are no pods counts as a cluster, and so does another trust domain. */
function ownersOf({ oidc, federated, clusters }: Registration): readonly string[] {
  if (oidc) return [`OIDCAttestor ${oidc.attestor}`]
  return federated ? [`trust domain ${federated.trustDomain}`] : clusters
}

function visit(node: Node | null, cluster: string): Node {
  if (!node) return { next: new Map(), owners: new Set(), unshared: new Set(), only: cluster }
  if (node.only !== cluster) node.only = null
  return node
}

/** @returns a cluster of another owner of an ID that `segments` can give, unless both say that it is shared */
function conflict(
  node: Node,
  segments: readonly Segment[],
  at: number,
  cluster: string,
  shared: boolean,
): string | null {
  if (node.only === cluster) return null
  if (at === segments.length) {
    for (const owner of shared ? node.unshared : node.owners) if (owner !== cluster) return owner
    return null
  }
  const segment = segments[at] ?? null
  const meeting = segment === null ? node.next.values() : [node.next.get(segment), node.next.get(null)]
  for (const next of meeting) {
    const found = next ? conflict(next, segments, at + 1, cluster, shared) : null
    if (found !== null) return found
  }
  return null
}

/** @returns the path's segments, as far as the registration fixes them for pods of `cluster` */
export function idPattern(registration: Registration, cluster: string): Segment[] {
  const fixed = {
    cluster,
    namespace: demanded(registration, 'k8s:ns'),
    serviceAccountName: demanded(registration, 'k8s:sa'),
    podName: null,
    podUID: null,
  }
  return registration.template.segments.map((segment) =>
    'literal' in segment ? segment.literal : fixed[segment.variable],
  )
}
