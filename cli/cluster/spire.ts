/**
 * SPIRE server's `k8s_psat` node attestor, read out of its configuration.
 *
 * @see [Server plugin: NodeAttestor "k8s_psat"](https://github.com/spiffe/spire/blob/main/doc/plugin_server_nodeattestor_k8s_psat.md)
 */

import { Failure } from '../failure.ts'
import { printable } from '../terminal.ts'
import { type HclBody, HclError, type HclValue, isBody, parseHcl } from './hcl.ts'

/** @see the same page: "If it is set to an empty array, Kubernetes API server audience is used" */
const DEFAULT_AUDIENCE = ['spire-server']

const SETTINGS = [
  'service_account_allow_list',
  'audience',
  'kube_config_file',
  'allowed_node_label_keys',
  'allowed_pod_label_keys',
  'use_pod_uid_for_agent_id',
]

export interface SpireCluster {
  /** Its key in `clusters`, any text. */
  readonly name: string
  readonly serviceAccountAllowList: readonly string[]
  readonly audience: readonly string[]
  /** null where SPIRE runs in the cluster. */
  readonly kubeConfigFile: string | null
  readonly allowedNodeLabelKeys: readonly string[]
  readonly allowedPodLabelKeys: readonly string[]
  readonly usePodUIDForAgentID: boolean
}

/**
 * @param text a server's configuration or the plugin's block, in HCL or JSON
 * @param file for messages
 * @throws Failure
 */
export function readSpireClusters(text: string, file: string): readonly SpireCluster[] {
  const fail = (problem: string) => new Failure(`${printable(file)}: ${problem}`)
  let root: HclBody
  try {
    root = parseHcl(text)
  } catch (error) {
    if (!(error instanceof HclError)) throw error
    throw fail(error.message)
  }
  const attestors = [root, ...bodies(root, 'plugins')].flatMap((body) => bodies(body, 'NodeAttestor'))
  const plugins = attestors.flatMap((body) => bodies(body, 'k8s_psat'))
  if (plugins.length === 0) throw fail('has no NodeAttestor "k8s_psat"')
  const data = plugins.flatMap((plugin) => bodies(plugin, 'plugin_data'))
  const [only] = data
  if (plugins.length > 1 || data.length > 1 || !only)
    throw fail('needs one NodeAttestor "k8s_psat" with one plugin_data')
  const unknown = [...only.keys()].find((key) => key !== 'clusters')
  if (unknown !== undefined) throw fail(`plugin_data: ${printable(unknown)} is no setting that we know`)
  const clusters = new Map<string, SpireCluster>()
  for (const body of bodies(only, 'clusters'))
    for (const [name, values] of body) {
      const [value] = values
      if (clusters.has(name) || values.length > 1) throw fail(`cluster ${printable(name)}: is there twice`)
      const settings = value !== undefined && isBody(value) ? value : soleBody(value)
      if (!settings) throw fail(`cluster ${printable(name)}: has no settings`)
      clusters.set(
        name,
        readCluster(name, settings, (problem) => fail(`cluster ${printable(name)}: ${problem}`)),
      )
    }
  if (clusters.size === 0) throw fail('plugin_data: has no clusters')
  return [...clusters.values()]
}

function readCluster(name: string, settings: HclBody, fail: (problem: string) => Failure): SpireCluster {
  const setting = (key: string): HclValue | undefined => {
    const [value, ...others] = settings.get(key) ?? []
    if (others.length > 0) throw fail(`${key} is there twice`)
    return value
  }
  const text = (key: string, value: HclValue): string => {
    if (typeof value !== 'string') throw fail(`${key} is not made of strings`)
    // With -expandEnv SPIRE reads something else here than we do.
    if (value.includes('$')) throw fail(`${key} has a $ in it: write out what the variable stands for`)
    return value
  }
  const list = (key: string): readonly string[] | null => {
    const value = setting(key)
    if (value === undefined) return null
    if (!Array.isArray(value)) throw fail(`${key} is no list`)
    return value.map((entry) => text(key, entry))
  }
  const unknown = [...settings.keys()].find((key) => !SETTINGS.includes(key))
  if (unknown !== undefined) throw fail(`${printable(unknown)} is no setting that we know`)
  const kubeConfigFile = text('kube_config_file', setting('kube_config_file') ?? '')
  const usePodUID = setting('use_pod_uid_for_agent_id') ?? false
  if (typeof usePodUID !== 'boolean') throw fail('use_pod_uid_for_agent_id is neither true nor false')
  const serviceAccountAllowList = list('service_account_allow_list') ?? []
  if (serviceAccountAllowList.length === 0) throw fail('service_account_allow_list is empty: nobody could attest')
  return {
    name,
    serviceAccountAllowList,
    audience: list('audience') ?? DEFAULT_AUDIENCE,
    kubeConfigFile: kubeConfigFile === '' ? null : kubeConfigFile,
    allowedNodeLabelKeys: list('allowed_node_label_keys') ?? [],
    allowedPodLabelKeys: list('allowed_pod_label_keys') ?? [],
    usePodUIDForAgentID: usePodUID,
  }
}

/** Blocks of a name; in the JSON form each may stand in a list. */
function bodies(body: HclBody, key: string): HclBody[] {
  return (body.get(key) ?? []).flatMap((value) =>
    Array.isArray(value) ? value.filter(isBody) : isBody(value) ? [value] : [],
  )
}

function soleBody(value: HclValue | undefined): HclBody | null {
  if (!Array.isArray(value) || value.length !== 1) return null
  const [only] = value as readonly HclValue[]
  return only !== undefined && isBody(only) ? only : null
}
