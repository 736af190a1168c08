/**
 * T-2: pods of two clusters have one SPIFFE ID only where the operator has written that this is meant. Every SPIFFE ID
 * that a registration can give is a path in a tree, in which a variable that is not known beforehand may be anything.
 */

import { demanded, type Registration } from './registration.ts'

/** One segment; null is one that may be anything. */
type Segment = string | null

interface Node {
  readonly next: Map<Segment, Node>
  /** Who can give the ID that ends here, by cluster; and whether each of them says that it is shared. */
  readonly owners: Map<string, boolean>
}

export class SharedIdentities {
  readonly #root: Node = { next: new Map(), owners: new Map() }

  /**
   * @returns two clusters whose pods could share an ID if the registration was added, or null. Only then it is added.
   */
  add(registration: Registration): readonly [string, string] | null {
    // To whom an ID belongs, a provider of workloads that are no pods counts as a cluster.
    const homes = registration.oidc ? [`OIDCAttestor ${registration.oidc.attestor}`] : registration.clusters
    const paths = homes.map((cluster) => ({ cluster, segments: idPattern(registration, cluster) }))
    for (const [index, { cluster, segments }] of paths.entries()) {
      const earlier = paths.slice(0, index).find((other) => overlap(other.segments, segments))
      if (earlier && !registration.sharedIdentity) return [earlier.cluster, cluster]
      const other = conflict(this.#root, segments, 0, cluster, registration.sharedIdentity)
      if (other !== null) return [other, cluster]
    }
    for (const { cluster, segments } of paths) {
      let node = this.#root
      for (const segment of segments) {
        const next = node.next.get(segment) ?? { next: new Map(), owners: new Map() }
        node.next.set(segment, next)
        node = next
      }
      node.owners.set(cluster, registration.sharedIdentity && (node.owners.get(cluster) ?? true))
    }
    return null
  }
}

/** @returns a cluster of another owner of an ID that `segments` can give, unless both say that it is shared */
function conflict(
  node: Node,
  segments: readonly Segment[],
  at: number,
  cluster: string,
  shared: boolean,
): string | null {
  if (at === segments.length) {
    for (const [owner, sharedToo] of node.owners) if (owner !== cluster && !(shared && sharedToo)) return owner
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

function overlap(one: readonly Segment[], other: readonly Segment[]): boolean {
  return (
    one.length === other.length &&
    one.every((segment, index) => segment === null || other[index] === null || segment === other[index])
  )
}
