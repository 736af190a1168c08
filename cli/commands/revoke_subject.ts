/** `spiffe-edge revoke subject`: nothing is issued under a SPIFFE ID any more, and API servers are told to refuse it. */

import type { Command } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { group } from '../group.ts'
import { ban, banName, parseSubject } from '../objects/banning.ts'
import { REVOKE } from '../objects/revocation.ts'
import type { Terminal } from '../terminal.ts'

export function addRevokeSubject(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, ...REVOKE)
      .command('subject')
      .description('ban a SPIFFE ID, and have API servers refuse the tokens that it has')
      .argument('<id>', 'the SPIFFE ID')
      .option('--reason <text>', 'for those who look at it later'),
  ).action(async (text: string, options: AdminOptions & { readonly reason?: string }) => {
    const target = { spiffeID: parseSubject(text, '<id>') }
    await ban(await openAdminClient(options, terminal), banName(target), target, options.reason, terminal)
    terminal.say(
      'Within a minute nothing is issued to it any more. An API server refuses its tokens once its file is synced.',
    )
  })
}
