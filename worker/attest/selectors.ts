/**
 * Facts as selectors, in the forms that SPIRE has given them: `type:name:value`. A registration lists the ones that an
 * attested workload must have.
 *
 * @see [SPIRE's Kubernetes workload attestor](https://github.com/spiffe/spire/blob/main/doc/plugin_agent_workloadattestor_k8s.md)
 */

/** What is known of a pod. Labels only where its cluster's record allows them, and only from the API server. */
export interface SelectorFacts {
  readonly namespace: string
  readonly serviceAccountName: string
  readonly pod: { readonly name: string; readonly uid: string } | null
  readonly nodeName: string | null
  readonly podLabels?: Readonly<Record<string, string>>
}

/** @returns the selectors of a pod, each once */
export function podSelectors({ namespace, serviceAccountName, pod, nodeName, podLabels }: SelectorFacts): Set<string> {
  const selectors = new Set([`k8s:ns:${namespace}`, `k8s:sa:${serviceAccountName}`])
  if (pod) selectors.add(`k8s:pod-name:${pod.name}`).add(`k8s:pod-uid:${pod.uid}`)
  if (nodeName !== null) selectors.add(`k8s:node-name:${nodeName}`)
  for (const [key, value] of Object.entries(podLabels ?? {})) selectors.add(`k8s:pod-label:${key}:${value}`)
  return selectors
}

/** What is known of a node and of the pod that has spoken for it. */
export interface NodeFacts {
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccountName: string
  readonly pod: { readonly name: string; readonly uid: string }
  readonly podLabels: Readonly<Record<string, string>>
  /** null while no kubelet has reported it. */
  readonly hostIP: string | null
  readonly node: {
    readonly name: string
    readonly uid: string
    readonly labels: Readonly<Record<string, string>>
  }
}

/**
 * @returns the selectors of a node, each once
 * @see [SPIRE's k8s_psat](https://github.com/spiffe/spire/blob/main/doc/plugin_server_nodeattestor_k8s_psat.md) and PS-8
 */
export function nodeSelectors(facts: NodeFacts): Set<string> {
  const { pod, podLabels, node, hostIP } = facts
  const values = [
    `cluster:${facts.cluster}`,
    `agent_ns:${facts.namespace}`,
    `agent_sa:${facts.serviceAccountName}`,
    `agent_pod_name:${pod.name}`,
    `agent_pod_uid:${pod.uid}`,
    ...(hostIP === null ? [] : [`agent_node_ip:${hostIP}`]),
    `agent_node_name:${node.name}`,
    `agent_node_uid:${node.uid}`,
    ...Object.entries(node.labels).map(([key, value]) => `agent_node_label:${key}:${value}`),
    ...Object.entries(podLabels).map(([key, value]) => `agent_pod_label:${key}:${value}`),
  ]
  return new Set(values.map((value) => `k8s_psat:${value}`))
}
