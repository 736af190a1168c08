/** `spiffe-edge ban`: refuses a SPIFFE ID, a cluster's service account or a node at every door at once (T-26). */

import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Command } from 'commander'
import { NodeUID } from '../../worker/policy/ban.ts'
import { ClusterName, KUBERNETES_NAME, ServiceAccount } from '../../worker/policy/cluster.ts'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import {
  type AdminClient,
  type AdminOptions,
  adminOptions,
  type Changes,
  openAdminClient,
  VersionConflict,
} from '../admin_client.ts'
import { describeChanges } from '../changes.ts'
import { Failure, UsageError } from '../failure.ts'
import { API_VERSION } from '../kinds.ts'
import { printable, type Terminal } from '../terminal.ts'

/** A ban is often made in haste, beside others. */
const ATTEMPTS = 5

interface Options extends AdminOptions {
  readonly spiffeId?: string
  readonly cluster?: string
  readonly serviceAccount?: string
  readonly node?: string
  readonly name?: string
  readonly reason?: string
}

export function addBan(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('ban')
      .description('refuse a SPIFFE ID, a service account or a node at every door')
      .option('--spiffe-id <id>', 'this identity, whoever asks for it')
      .option('--cluster <name>', 'where the service account or node is')
      .option('--service-account <namespace:name>', 'all pods of it')
      .option('--node <uid>', 'all pods on it')
      .option('--name <name>', 'of the ban; made from what is banned if there is none')
      .option('--reason <text>', 'for those who look at it later'),
  ).action(async (options: Options) => {
    const target = targetOf(options)
    const name = options.name ?? `ban-${createHash('sha256').update(JSON.stringify(target)).digest('hex').slice(0, 12)}`
    if (!KUBERNETES_NAME.test(name)) throw new UsageError('--name: not a Kubernetes name')
    const client = await openAdminClient(options, terminal)
    const spec = { ...target, ...(options.reason !== undefined && { reason: options.reason }) }
    const { changes, warnings } = await ban(client, name, target, spec)
    for (const warning of warnings) terminal.say(`warning: ${printable(warning)}`)
    terminal.print(describeChanges(changes, false))
  })
}

type Target = Readonly<Record<string, string>>

async function ban(client: AdminClient, name: string, target: Target, spec: object): Promise<Changes> {
  for (let attempt = 1; ; attempt++) {
    const { version, objects } = await client.objects()
    const present = objects.find(({ object }) => object.kind === 'Ban' && object.metadata.name === name)
    // Writing over another ban would lift it.
    if (present) {
      const { reason: _, ...banned } = present.object.spec
      if (!isDeepStrictEqual(banned, { ...target }))
        throw new Failure(`there is a Ban/${name} already, of something else: give another --name`)
    }
    const object = { apiVersion: API_VERSION, kind: 'Ban', metadata: { name }, spec: { ...spec } }
    try {
      return await client.apply({ objects: [object], remove: [], dryRun: false, ifVersion: version })
    } catch (error) {
      if (!(error instanceof VersionConflict) || attempt === ATTEMPTS) throw error
    }
  }
}

function targetOf({ spiffeId, cluster, serviceAccount, node }: Options): Target {
  if ([spiffeId, serviceAccount, node].filter((option) => option !== undefined).length !== 1)
    throw new UsageError('what is to be banned? One of --spiffe-id, --service-account and --node')
  if (spiffeId !== undefined) {
    if (cluster !== undefined) throw new UsageError('--cluster does not go with --spiffe-id, which is of all clusters')
    return { spiffeID: parseSpiffeId(spiffeId) }
  }
  if (cluster === undefined) throw new UsageError('of which cluster? Give --cluster')
  if (!ClusterName.safeParse(cluster).success) throw new UsageError('--cluster: not the name of a cluster')
  if (serviceAccount !== undefined) {
    if (!ServiceAccount.safeParse(serviceAccount).success)
      throw new UsageError('--service-account: write namespace:name')
    return { cluster, serviceAccount }
  }
  if (!NodeUID.safeParse(node).success) throw new UsageError('--node: not the UID of a node')
  return { cluster, nodeUID: node ?? '' }
}

function parseSpiffeId(text: string): string {
  try {
    const id = SpiffeId.parse(text)
    if (id.path === '') throw new UsageError('--spiffe-id: is the whole trust domain')
    return id.toString()
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    throw new UsageError(`--spiffe-id: ${error.message}`)
  }
}
