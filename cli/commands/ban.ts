/** `spiffe-edge ban`: refuses a SPIFFE ID, a cluster's service account or a node at every door at once (T-26). */

import type { Command } from 'commander'
import { NodeUID } from '../../worker/policy/ban.ts'
import { ClusterName, KUBERNETES_NAME, ServiceAccount } from '../../worker/policy/cluster.ts'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { UsageError } from '../failure.ts'
import { ban, banName, parseSubject, type Target } from '../objects/banning.ts'
import type { Terminal } from '../terminal.ts'

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
    const name = options.name ?? banName(target)
    if (!KUBERNETES_NAME.test(name)) throw new UsageError('--name: not a Kubernetes name')
    await ban(await openAdminClient(options, terminal), name, target, options.reason, terminal)
  })
}

function targetOf({ spiffeId, cluster, serviceAccount, node }: Options): Target {
  if ([spiffeId, serviceAccount, node].filter((option) => option !== undefined).length !== 1)
    throw new UsageError('what is to be banned? One of --spiffe-id, --service-account and --node')
  if (spiffeId !== undefined) {
    if (cluster !== undefined) throw new UsageError('--cluster does not go with --spiffe-id, which is of all clusters')
    return { spiffeID: parseSubject(spiffeId, '--spiffe-id') }
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
