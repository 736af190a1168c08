/** `spiffe-edge admin create`: a key pair for an administrator, whose public half is for the deployed manifest (T-11). */

import { type Command, Option } from 'commander'
import { ClusterName } from '../../worker/policy/cluster.ts'
import { keyFile, keyring, makeAdminKey } from '../admin_key.ts'
import { UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { issuerOf } from '../issuer.ts'
import { API_VERSION } from '../objects/kinds.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

/** Also `iss` and `sub` of the tokens, and the name of the object. */
const NAME = /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/

interface Options {
  readonly issuer?: string
  readonly name: string
  readonly revocationsOf?: string
  readonly keyFile?: string
  readonly replace?: true
  readonly output: Format
}

export function addAdminCreate(program: Command, terminal: Terminal): void {
  group(program, 'admin', 'who may change what the worker decides by')
    .command('create')
    .description('make a key pair; keep the private key in the keyring and print the Admin object for the manifest')
    .option('--issuer <url>', 'the worker, by its issuer URL (or SPIFFE_EDGE_ISSUER)')
    .requiredOption('--name <name>', 'whose key it is')
    .option('--revocations-of <cluster>', 'may read what is revoked for this cluster, and nothing else')
    .option('--key-file <file>', 'keep the private key in this new file instead (or SPIFFE_EDGE_ADMIN_KEY_FILE)')
    .option('--replace', 'overwrite a key that is there already')
    .addOption(new Option('-o, --output <format>').choices(FORMATS).default('yaml'))
    .action(async (options: Options) => {
      const issuer = issuerOf(options, terminal)
      if (!NAME.test(options.name)) throw new UsageError('--name: use a-z 0-9 . - and no more than 63 of them')
      const { name, revocationsOf } = options
      if (revocationsOf !== undefined && !ClusterName.safeParse(revocationsOf).success)
        throw new UsageError('--revocations-of: not the name of a cluster')
      const path = options.keyFile ?? terminal.env.SPIFFE_EDGE_ADMIN_KEY_FILE
      const store = path ? keyFile(path) : keyring(issuer)
      const { stored, publicKey } = await makeAdminKey(issuer, options.name)
      await store.write(JSON.stringify(stored), options.replace === true)
      terminal.say(`The private key is in ${store.place}. Put the object into the worker's manifest and deploy it.`)
      const spec = { publicKey, ...(revocationsOf !== undefined && { revocationsOf }) }
      terminal.print(render({ apiVersion: API_VERSION, kind: 'Admin', metadata: { name }, spec }, options.output))
    })
}
