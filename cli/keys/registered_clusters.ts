/** The clusters that a worker has records of, and what their API servers take. */

import { ClusterManifest, compileCluster } from '../../worker/policy/cluster.ts'
import type { Objects } from '../admin_client.ts'

/**
 * @returns for each cluster an audience that its API server takes (T-7), or null if the record does not say. A record
 *   that the worker rejects counts too: the API server may trust the issuer all the same
 */
export function registeredClusters({ objects }: Objects): ReadonlyMap<string, string | null> {
  const records = objects.map(({ object }) => object).filter(({ kind }) => kind === 'Cluster')
  return new Map(
    records.map((object) => {
      const { data } = ClusterManifest.safeParse(object)
      const [audience = null] = data ? compileCluster(data, records.length === 1).apiServerAudiences : []
      return [object.metadata.name, audience]
    }),
  )
}
