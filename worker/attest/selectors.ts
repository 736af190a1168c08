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
