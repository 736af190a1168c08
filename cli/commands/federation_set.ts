/** `spiffe-edge federation set`: brings the worker a bundle, in the place of what it knows, whatever the sequence (FE-11). */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { readBundle } from '../federation/bundle_endpoint.ts'
import { describeFederation, federationClient } from '../federation/federation_client.ts'
import { group } from '../group.ts'
import { readInput } from '../input_file.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

interface Options extends AdminOptions {
  readonly trustDomain: string
  readonly bundle: string
  readonly output?: Format
}

export function addFederationSet(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, 'federation', 'other trust domains that are believed')
      .command('set')
      .description('bring the worker the bundle of one')
      .requiredOption('--trust-domain <name>', 'whose')
      .requiredOption('--bundle <file>', 'JSON, as a bundle endpoint has it; - is standard input')
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: Options) => {
    const text = await readInput(options.bundle, terminal)
    // Said here, where the file is.
    await readBundle(text, options.bundle)
    const client = federationClient(await openAdminClient(options, terminal))
    const federation = await client.set(options.trustDomain, text)
    terminal.print(options.output ? render(federation, options.output) : describeFederation(federation))
  })
}
