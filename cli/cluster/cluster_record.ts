/** A `Cluster` object for the manifest, out of what an API server says of itself. */

import { KeySetError, readKeySet } from '../../keys/key_set.ts'
import { CLUSTER_ALGORITHMS } from '../../worker/policy/cluster.ts'
import { compilePolicy, ManifestError, parseObject } from '../../worker/policy/manifest.ts'
import { TrustDomain } from '../../worker/spiffe/id.ts'
import type { ManifestObject } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { API_VERSION } from '../objects/kinds.ts'
import type { KubeApi } from './kubeconfig.ts'

/** Everything that verifying needs; a cluster may publish more, such as a certificate chain. */
const KEY_MEMBERS = ['kty', 'use', 'alg', 'kid', 'n', 'e', 'crv', 'x', 'y']

/** What a cluster publishes of its service account tokens. */
export interface Published {
  readonly issuer: string
  readonly keys: readonly Readonly<Record<string, unknown>>[]
}

/**
 * @returns the cluster's issuer, and its public keys
 * @throws Failure
 */
export async function readPublished(api: KubeApi): Promise<Published> {
  const { issuer } = await api.ask('/.well-known/openid-configuration')
  if (typeof issuer !== 'string' || issuer === '')
    throw new Failure(`${api.server}: its discovery document has no issuer`)
  const { keys } = await api.ask('/openid/v1/jwks')
  if (!Array.isArray(keys)) throw new Failure(`${api.server}: its JWKS has no keys`)
  try {
    await readKeySet(keys, CLUSTER_ALGORITHMS)
  } catch (error) {
    if (!(error instanceof KeySetError)) throw error
    throw new Failure(`${api.server}: ${error.message}`)
  }
  return {
    issuer,
    keys: keys.map((key) => Object.fromEntries(Object.entries(key).filter(([name]) => KEY_MEMBERS.includes(name)))),
  }
}

export function clusterObject(name: string, spec: Readonly<Record<string, unknown>>): ManifestObject {
  return { apiVersion: API_VERSION, kind: 'Cluster', metadata: { name }, spec }
}

/**
 * What the worker's own policy code says of the object alone. Whether it goes with others is for the worker to say.
 *
 * @returns the problems
 */
export function problemsOf(object: ManifestObject): readonly string[] {
  try {
    // Issuer and trust domain stand in for ones that we need not know: they are no cluster's.
    const context = {
      issuer: 'https://spiffe-edge.invalid',
      trustDomain: TrustDomain.parse('spiffe-edge.invalid'),
      allowLoopbackHttp: false,
      bindings: null,
    }
    return compilePolicy([{ object: parseObject(object), source: 'applied' }], context).problems
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error
    return error.problems
  }
}

/** T-10: what a worker cannot do for a cluster that it has no way to. */
export const WITHOUT_BINDING = [
  'the worker itself cannot reach this cluster: the record names no CLUSTER_… binding of it (--binding).',
  'Tokens are checked offline against the keys in the record. What does not work: asking the API server whether a token',
  'is still good (online attestation, liveness), node attestation, registrations read from the cluster, and noticing',
  'that the cluster has changed its keys: import it again when it does.',
] as const
