/** `spiffe-edge delete`: takes away an object that was applied. */

import type { Command } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { UsageError } from '../failure.ts'
import { describeChanges } from '../objects/changes.ts'
import { APPLICABLE_KINDS, kindOf } from '../objects/kinds.ts'
import { remove } from '../objects/removal.ts'
import type { Terminal } from '../terminal.ts'

export function addDelete(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('delete')
      .description('take away an object that was applied')
      .argument('<kind>', 'cluster, registration, attestor or ban')
      .argument('<name>'),
  ).action(async (text: string, name: string, options: AdminOptions) => {
    const kind = kindOf(text)
    if (!APPLICABLE_KINDS.includes(kind)) throw new UsageError(`${kind} objects are in the deployed manifest alone`)
    const client = await openAdminClient(options, terminal)
    terminal.print(describeChanges(await remove(client, { kind, name }), false))
  })
}
