/** `GET /structured-auth.yaml`: the file for a kube-apiserver's `--authentication-config`. */

import { API_VERSIONS, MAPPINGS, renderAuthenticationConfiguration } from '../cluster/authentication_configuration.ts'
import type { Policy } from '../policy/policy.ts'

/**
 * Takes `version`, `mapping` and `cluster`, which may be left out where there is only one.
 *
 * @returns the YAML, or 400 or 404 with the choices that there are. Clusters are not listed to strangers (T-24).
 */
export function structuredAuth(request: Request, issuer: string, { trustDomain, clusters }: Policy): Response {
  // Not by a URL parser: what stands before the query is made of the Host header, which anybody may fill with anything.
  const query = new URLSearchParams(request.url.split('?').slice(1).join('?'))
  for (const name of query.keys())
    if (!['version', 'mapping', 'cluster'].includes(name) || query.getAll(name).length > 1)
      return refuse(400, 'only version, mapping and cluster can be chosen, each once')
  const apiVersion = API_VERSIONS.find((version) => version === (query.get('version') ?? 'v1'))
  if (!apiVersion) return refuse(400, `version is one of ${API_VERSIONS.join(', ')}`)
  const mapping = MAPPINGS.find((choice) => choice === (query.get('mapping') ?? 'sub'))
  if (!mapping) return refuse(400, `mapping is one of ${MAPPINGS.join(', ')}`)
  const name = query.get('cluster')
  if (name === null && clusters.size > 1) return refuse(400, 'name the cluster')
  const cluster = name === null ? [...clusters.values()][0] : clusters.get(name)
  if (!cluster) return refuse(404, 'there is no such cluster')
  return new Response(renderAuthenticationConfiguration(issuer, trustDomain, cluster, apiVersion, mapping), {
    headers: { 'content-type': 'application/yaml', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' },
  })
}

function refuse(status: 400 | 404, reason: string): Response {
  return new Response(`${reason}\n`, { status, headers: { 'cache-control': 'no-store' } })
}
