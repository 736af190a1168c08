/** `spiffe-edge cluster check`: whether a cluster lets the worker's reviewer do what it needs, and nothing of it is missing (T-9). */

import { type Command, Option } from 'commander'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import { type KubeApi, openKubeconfig } from '../cluster/kubeconfig.ts'
import { Failure, UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { printable, type Terminal, table } from '../terminal.ts'

/** What grants all of it. */
const FILE = 'deploy/kubernetes/reviewer.yaml'

interface Permission {
  readonly text: string
  readonly needed: string
  readonly attributes: object
}

const resource = (verb: string, name: string, needed: string): Permission => {
  const [plural, ...group] = name.split('.')
  return {
    text: `${verb} ${name}`,
    needed,
    attributes: { resourceAttributes: { verb, group: group.join('.'), resource: plural } },
  }
}

/** T-9, and no more. */
const PERMISSIONS: readonly Permission[] = [
  resource('create', 'tokenreviews.authentication.k8s.io', 'online attestation, liveness'),
  resource('get', 'pods', 'labels of pods, whether a pod is alive'),
  resource('get', 'nodes', 'node attestation'),
  resource('list', 'workloadregistrations.kubespiffe.io', 'registrations read from the cluster'),
  {
    text: 'get /openid/v1/jwks',
    needed: "the cluster's keys",
    attributes: { nonResourceAttributes: { verb: 'get', path: '/openid/v1/jwks' } },
  },
]

interface Options {
  readonly kubeconfig: string
  readonly context?: string
  readonly user?: string
  readonly output?: Format
}

export function addClusterCheck(program: Command, terminal: Terminal): void {
  group(program, 'cluster', 'the clusters whose pods may ask')
    .command('check')
    .description('whether the reviewer has the permissions that it needs in a cluster')
    .requiredOption('--kubeconfig <file>', 'of somebody who may ask')
    .option('--context <name>', 'of the kubeconfig; its current one if there is none')
    .option(
      '--user <id>',
      'spiffe://<trust domain>/spiffe-edge/reviewer/<cluster>; the user of the kubeconfig if there is none',
    )
    .addOption(new Option('-o, --output <format>').choices(FORMATS))
    .action(async (options: Options) => {
      const user = options.user === undefined ? null : parseUser(options.user)
      const api = await openKubeconfig(options.kubeconfig, options.context, terminal)
      const results: { permission: string; needed: string; allowed: boolean }[] = []
      for (const { text, needed, attributes } of PERMISSIONS)
        results.push({ permission: text, needed, allowed: await isAllowed(api, user, attributes) })
      if (options.output) terminal.print(render(results, options.output))
      else
        terminal.print(
          table([
            ['PERMISSION', 'ALLOWED', 'FOR'],
            ...results.map(({ permission, allowed, needed }) => [permission, allowed ? 'yes' : 'no', needed]),
          ]),
        )
      const missing = results.filter(({ allowed }) => !allowed).map(({ permission }) => permission)
      if (missing.length > 0)
        throw new Failure(
          `missing for ${user ?? "the kubeconfig's user"}: ${missing.join(', ')}\n` +
            `${FILE} grants it: put the user into its binding, and kubectl apply -f ${FILE}`,
        )
    })
}

/** RBAC knows the reviewer by its SPIFFE ID: that is what the AuthenticationConfiguration makes of it. */
function parseUser(text: string): string {
  try {
    return SpiffeId.parse(text).toString()
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    throw new UsageError(`--user: ${error.message}`)
  }
}

async function isAllowed(api: KubeApi, user: string | null, attributes: object): Promise<boolean> {
  const kind = user === null ? 'SelfSubjectAccessReview' : 'SubjectAccessReview'
  // Every user that has been authenticated is in this group.
  const who = user === null ? {} : { user, groups: ['system:authenticated'] }
  const { status } = await api.ask(`/apis/authorization.k8s.io/v1/${kind.toLowerCase()}s`, {
    apiVersion: 'authorization.k8s.io/v1',
    kind,
    spec: { ...who, ...attributes },
  })
  const allowed = (status as { allowed?: unknown } | undefined)?.allowed
  if (typeof allowed !== 'boolean') throw new Failure(`${printable(api.server)} does not say whether it is allowed`)
  return allowed
}
