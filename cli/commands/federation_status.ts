/** `spiffe-edge federation status`: what the worker knows of other trust domains, and from when on that may not be enough. */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { describeFederation, federationClient } from '../federation/federation_client.ts'
import { group } from '../group.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

export function addFederationStatus(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, 'federation', 'other trust domains that are believed')
      .command('status')
      .description('what is known of each, and from when on it may break')
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: AdminOptions & { output?: Format }) => {
    const federation = await federationClient(await openAdminClient(options, terminal)).status()
    terminal.print(options.output ? render(federation, options.output) : describeFederation(federation))
  })
}
