/** `spiffe-edge unban`: takes a ban away. */

import type { Command } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { describeChanges } from '../objects/changes.ts'
import { remove } from '../objects/removal.ts'
import type { Terminal } from '../terminal.ts'

export function addUnban(program: Command, terminal: Terminal): void {
  adminOptions(
    program.command('unban').description('take a ban away').argument('<name>', 'as in `spiffe-edge get bans`'),
  ).action(async (name: string, options: AdminOptions) => {
    const client = await openAdminClient(options, terminal)
    terminal.print(describeChanges(await remove(client, { kind: 'Ban', name }), false))
  })
}
