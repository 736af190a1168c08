/** `spiffe-edge federation refresh`: has the worker fetch a bundle now, after the other side has changed its authorities. */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { describeFederation, federationClient } from '../federation/federation_client.ts'
import { group } from '../group.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

interface Options extends AdminOptions {
  readonly trustDomain: string
  readonly output?: Format
}

export function addFederationRefresh(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, 'federation', 'other trust domains that are believed')
      .command('refresh')
      .description('fetch the bundle of one now')
      .requiredOption('--trust-domain <name>', 'whose')
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: Options) => {
    const federation = await federationClient(await openAdminClient(options, terminal)).refresh(options.trustDomain)
    terminal.print(options.output ? render(federation, options.output) : describeFederation(federation))
  })
}
