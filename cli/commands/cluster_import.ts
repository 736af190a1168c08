/** `spiffe-edge cluster import`: makes the record of a cluster from a kubeconfig, or from the configuration of SPIRE. */

import { access } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { Document } from 'yaml'
import { ClusterName, isBindingName } from '../../worker/policy/cluster.ts'
import { type AdminOptions, adminOptions, type ManifestObject, openAdminClient } from '../admin_client.ts'
import { clusterObject, type Published, problemsOf, readPublished, WITHOUT_BINDING } from '../cluster/cluster_record.ts'
import { openKubeconfig } from '../cluster/kubeconfig.ts'
import { readSpireClusters, type SpireCluster } from '../cluster/spire.ts'
import { Failure, UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { readInput } from '../input_file.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { printable, type Terminal } from '../terminal.ts'
import { apply } from './apply.ts'

const SHARED_ISSUER = 'https://kubernetes.default.svc.cluster.local'

interface Options extends AdminOptions {
  readonly kubeconfig?: string
  readonly spire?: string
  readonly context?: string
  readonly name: readonly string[]
  readonly binding: readonly string[]
  readonly audience: readonly string[]
  readonly serviceAccountAllow: readonly string[]
  readonly apply?: true
  readonly output: Format
}

/** An object, and what a person has to add to it. */
interface Draft {
  readonly object: ManifestObject
  readonly todo: readonly string[]
}

export function addClusterImport(program: Command, terminal: Terminal): void {
  const collect = (value: string, before: readonly string[]) => [...before, value]
  const many = (flags: string, description: string) =>
    new Option(flags, description).argParser(collect).default([], 'none')
  adminOptions(
    group(program, 'cluster', 'the clusters whose pods may ask')
      .command('import')
      .description('make the record of a cluster: its issuer, its keys, and how the worker reaches it')
      .option('--kubeconfig <file>', 'of the cluster')
      .option('--context <name>', 'of the kubeconfig; its current one if there is none')
      .option(
        '--spire <file>',
        'a SPIRE server configuration, HCL or JSON: the clusters of its NodeAttestor "k8s_psat"',
      )
      .addOption(many('--name <name>', "of the record; with --spire <SPIRE's name>=<name>"))
      .addOption(many('--binding <CLUSTER_X>', "how the worker reaches it; with --spire <SPIRE's name>=<CLUSTER_X>"))
      .addOption(many('--audience <audience>', 'what subject tokens must be made out to'))
      .addOption(many('--service-account-allow <namespace:name>', 'a service account whose pods are nodes'))
      .option('--apply', 'apply the objects too')
      .addOption(new Option('-o, --output <format>').choices(FORMATS).default('yaml')),
  ).action(async (options: Options) => {
    if ((options.kubeconfig === undefined) === (options.spire === undefined))
      throw new UsageError('what is to be imported? Either --kubeconfig or --spire')
    const drafts =
      options.spire === undefined ? [await fromKubeconfig(options, terminal)] : await fromSpire(options, terminal)
    for (const { object, todo } of drafts)
      for (const line of todo) terminal.say(`Cluster/${object.metadata.name}: ${printable(line)}`)
    if (!options.apply) return terminal.print(renderDrafts(drafts, options.output))
    const problems = drafts.flatMap(({ object }) => problemsOf(object))
    if (problems.length > 0) throw new Failure(['not applied:', ...problems.map(printable)].join('\n  '))
    const objects = drafts.map(({ object }) => object)
    await apply(await openAdminClient(options, terminal), objects, {}, terminal)
  })
}

async function fromKubeconfig(options: Options, terminal: Terminal): Promise<Draft> {
  const { kubeconfig = '', context, audience, serviceAccountAllow } = options
  if (options.name.length > 1 || options.binding.length > 1) throw new UsageError('--name and --binding: one each')
  const binding = options.binding[0] ?? null
  checkBinding(binding)
  const api = await openKubeconfig(kubeconfig, context, terminal)
  const name = options.name[0] ?? api.context
  if (!ClusterName.safeParse(name).success)
    throw new UsageError(
      options.name[0] === undefined
        ? 'the name of the context is no name for a cluster: give --name'
        : '--name: not a DNS label',
    )
  const published = await readPublished(api)
  return draft(name, published, api.server, binding, {
    ...(audience.length > 0 && { audiences: audience }),
    ...(serviceAccountAllow.length > 0 && { serviceAccountAllowList: serviceAccountAllow }),
  })
}

async function fromSpire(options: Options, terminal: Terminal): Promise<Draft[]> {
  const { spire = '' } = options
  if (options.audience.length + options.serviceAccountAllow.length > 0 || options.context !== undefined)
    throw new UsageError('--context, --audience and --service-account-allow do not go with --spire, which says it all')
  const names = pairs('--name', options.name)
  const bindings = pairs('--binding', options.binding)
  for (const binding of bindings.values()) checkBinding(binding)
  const clusters = readSpireClusters(await readInput(spire, terminal), spire)
  for (const given of [...names.keys(), ...bindings.keys()])
    if (!clusters.some(({ name }) => name === given)) throw new UsageError(`SPIRE has no cluster ${printable(given)}`)
  const taken = new Map<string, string>()
  const drafts: Draft[] = []
  for (const cluster of clusters) {
    const name = names.get(cluster.name) ?? cluster.name.toLowerCase()
    const called = printable(cluster.name)
    if (!ClusterName.safeParse(name).success)
      throw new Failure(`cluster ${called}: is no name for a record: give --name ${called}=<name>`)
    const other = taken.get(name)
    if (other !== undefined)
      throw new Failure(`clusters ${printable(other)} and ${called}: would both be ${name}: give --name`)
    taken.set(name, cluster.name)
    drafts.push(await fromSpireCluster(name, cluster, bindings.get(cluster.name) ?? null, spire, terminal))
  }
  return drafts
}

async function fromSpireCluster(
  name: string,
  cluster: SpireCluster,
  binding: string | null,
  spire: string,
  terminal: Terminal,
): Promise<Draft> {
  const spec = {
    audiences: cluster.audience,
    serviceAccountAllowList: cluster.serviceAccountAllowList,
    ...(cluster.allowedNodeLabelKeys.length > 0 && { allowedNodeLabelKeys: cluster.allowedNodeLabelKeys }),
    ...(cluster.allowedPodLabelKeys.length > 0 && { allowedPodLabelKeys: cluster.allowedPodLabelKeys }),
    ...(cluster.usePodUIDForAgentID && { usePodUIDForAgentID: true }),
  }
  const renamed =
    name === cluster.name
      ? []
      : [`was ${printable(cluster.name)} in SPIRE: agent IDs and selectors have the new name in them`]
  const kubeconfig = cluster.kubeConfigFile === null ? null : resolve(dirname(spire), cluster.kubeConfigFile)
  if (kubeconfig !== null && (await exists(kubeconfig))) {
    const api = await openKubeconfig(kubeconfig, undefined, terminal)
    const made = draft(name, await readPublished(api), api.server, binding, spec)
    return { ...made, todo: [...renamed, ...made.todo] }
  }
  const todo = [
    kubeconfig === null
      ? 'SPIRE reached it from inside, so there is no kubeconfig to read.'
      : `its kubeconfig ${printable(kubeconfig)} is not on this machine.`,
    'add spec.issuer: what `kubectl get --raw /.well-known/openid-configuration` has as issuer',
    'add spec.jwks.inline: what `kubectl get --raw /openid/v1/jwks` prints',
    `add spec.connection: { url: https://<API server>${binding === null ? ', binding: CLUSTER_…' : `, binding: ${binding}`} }`,
  ]
  return { object: clusterObject(name, spec), todo: [...renamed, ...todo] }
}

function draft(
  name: string,
  { issuer, keys }: Published,
  server: string,
  binding: string | null,
  spec: Readonly<Record<string, unknown>>,
): Draft {
  if (binding !== null && !server.startsWith('https:'))
    throw new Failure('through kubectl proxy the address of the API server is not known: add spec.connection yourself')
  const object = clusterObject(name, {
    issuer,
    jwks: { inline: { keys } },
    ...(binding !== null && { connection: { url: server, binding } }),
    ...spec,
  })
  return {
    object,
    todo: [
      ...(issuer === SHARED_ISSUER && spec.audiences === undefined
        ? ['many clusters call themselves by this issuer: with another one of them, give each an --audience of its own']
        : []),
      ...(binding === null ? WITHOUT_BINDING : []),
      ...problemsOf(object).map((problem) => `the worker will refuse this: ${problem}`),
    ],
  }
}

/** What is to be done stands above the object that it is about. JSON has no place for it. */
function renderDrafts(drafts: readonly Draft[], format: Format): string {
  if (format === 'json') {
    const objects = drafts.map(({ object }) => object)
    return render(objects.length === 1 ? objects[0] : objects, 'json')
  }
  return drafts
    .map(({ object, todo }) => {
      const document = new Document(object, { aliasDuplicateObjects: false })
      if (todo.length > 0) document.commentBefore = todo.map((line) => ` ${printable(line)}`).join('\n')
      return document.toString({ lineWidth: 0 })
    })
    .join('---\n')
}

function checkBinding(binding: string | null): void {
  if (binding !== null && !isBindingName(binding)) throw new UsageError('--binding: not CLUSTER_…')
}

/** `<SPIRE's name>=<value>`: the value has no equals sign, the name may. */
function pairs(option: string, texts: readonly string[]): Map<string, string> {
  const map = new Map<string, string>()
  for (const text of texts) {
    const at = text.lastIndexOf('=')
    if (at < 1 || map.has(text.slice(0, at)))
      throw new UsageError(`${option}: write <SPIRE's name>=<value>, once for each`)
    map.set(text.slice(0, at), text.slice(at + 1))
  }
  return map
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
