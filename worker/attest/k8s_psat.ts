/**
 * Attests a node by the token of a pod on it, as SPIRE's `k8s_psat` does: the pods of a few service accounts stand for the
 * nodes that they run on.
 *
 * The request names the cluster, so the token has to be just that cluster's: its issuer, its audience, its keys. That the
 * token, pod and node are alive is the API server's word, always.
 *
 * @see [SPIRE's server plugin](https://github.com/spiffe/spire/blob/main/doc/plugin_server_nodeattestor_k8s_psat.md)
 */

import { JwtError, parseAudience, parseJwt } from '../jwt.ts'
import { Refusal } from '../refusal.ts'
import { isPathSegment, SpiffeId, type TrustDomain } from '../spiffe/id.ts'
import { attested, type PodAttestation } from './attestation.ts'
import { nodeSelectors } from './selectors.ts'
import {
  refusing,
  type ServiceAccountAttestor,
  type TokenSource,
  verifyServiceAccountToken,
} from './service_account.ts'

/** The payload of SPIRE's attestation data (PS-3). */
export interface K8sPsat {
  readonly cluster: string
  readonly token: string
}

export interface AttestedNode {
  readonly attestation: PodAttestation
  /** Reserved for agents: no registration can give it (T-5). */
  readonly agentId: SpiffeId
}

/**
 * The steps of SPIRE's plugin, after those that need nobody else: what can be refused offline costs the API server nothing.
 *
 * @param now seconds since the epoch
 * @throws Refusal
 * @see PS-5
 */
export async function attestNode(
  { cluster: name, token }: K8sPsat,
  attestor: ServiceAccountAttestor,
  trustDomain: TrustDomain,
  now: number,
): Promise<AttestedNode> {
  const source = attestor.source(name)
  if (!source) throw new Refusal('attestation_cluster_unknown', 'not configured for that cluster')
  const { cluster, reviews } = source
  const jws = refusing(() => {
    const unverified = parseJwt(token)
    checkOrigin(unverified.payload, source)
    return unverified
  })
  const facts = await verifyServiceAccountToken(jws, source, { requireBoundPod: true }, now)
  const serviceAccount = `${facts.namespace}:${facts.serviceAccount.name}`
  if (!reviews || !cluster.serviceAccountAllowList.includes(serviceAccount))
    throw new Refusal(
      'service_account_not_allowed',
      `"${serviceAccount}" is not an allowed service account for cluster "${name}"`,
    )
  const pod = await reviews.review(token, facts, cluster.audiences)
  // A token that is bound to no pod has not come this far.
  if (!pod || !facts.pod) throw new Refusal('token_unbound', 'bound to no pod')
  const node = await reviews.findNode(facts, pod.nodeName, token)
  const nodeName = pod.nodeName ?? ''
  const path = cluster.usePodUIDForAgentID ? ['pod', facts.pod.uid] : [node.uid]
  if (!path.every(isPathSegment)) throw new Refusal('spiffe_id_illegal', 'a UID that is no segment of a path')
  return {
    agentId: SpiffeId.of(trustDomain, `/spire/agent/k8s_psat/${name}/${path.join('/')}`),
    attestation: attested({
      ...facts,
      kind: 'pod',
      door: 'k8s_psat',
      cluster: name,
      node: { name: nodeName, uid: node.uid },
      selectors: nodeSelectors({
        cluster: name,
        namespace: facts.namespace,
        serviceAccountName: facts.serviceAccount.name,
        pod: facts.pod,
        podLabels: pod.labels,
        hostIP: pod.hostIP,
        node: { name: nodeName, uid: node.uid, labels: node.labels },
      }),
      live: true,
    }),
  }
}

/**
 * Who asks has chosen the cluster, so what the token says of itself must be exactly what that cluster's record says
 * (PS-10). Without audiences in the record, the API server alone judges the token's (T-6).
 */
function checkOrigin({ iss, aud }: Readonly<Record<string, unknown>>, { cluster }: TokenSource): void {
  if (iss !== cluster.issuer) throw new JwtError('issuer')
  const audience = parseAudience(aud)
  if (cluster.audiences.length > 0 && !audience.every((value) => cluster.audiences.includes(value)))
    throw new JwtError('audience')
}
