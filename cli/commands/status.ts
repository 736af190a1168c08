/** `spiffe-edge status`: the keys of a worker, what each of them waits for, and how much KMS it asks for. */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { describeAuthorities, describeKeys, describeKms, describeTroubles, readKeyReport } from '../keys/key_report.ts'
import { keysClient } from '../keys/keys_client.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

export function addStatus(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('status')
      .description('the keys that sign SVIDs, and what each of them waits for')
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: AdminOptions & { output?: Format }) => {
    const admin = await openAdminClient(options, terminal)
    const report = await readKeyReport(admin.issuer, keysClient(admin))
    if (options.output) return terminal.print(render(report, options.output))
    const parts = [describeKeys(report), describeAuthorities(report), describeTroubles(report), describeKms(report)]
    terminal.print(parts.filter((part) => part !== '').join('\n'))
  })
}
