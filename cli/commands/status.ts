/**
 * `spiffe-edge status`: what is kept of logins on this machine; and of a worker its keys, what each of them waits for, and how much KMS it
 * asks for.
 */

import { type Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { describeAuthorities, describeKeys, describeKms, describeTroubles, readKeyReport } from '../keys/key_report.ts'
import { keysClient } from '../keys/keys_client.ts'
import { describeCredentials, reportCredentials } from '../login/report.ts'
import { SessionStore } from '../login/session_store.ts'
import { FORMATS, type Format, render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

export function addStatus(program: Command, terminal: Terminal): void {
  adminOptions(
    program
      .command('status')
      .description(
        'where logins are kept on this machine; of a worker, the keys that sign SVIDs and what each waits for',
      )
      .addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (options: AdminOptions & { output?: Format }) => {
    const credentials = reportCredentials(new SessionStore(terminal.env).list(), terminal.now() / 1000)
    if (!(options.issuer ?? terminal.env.SPIFFE_EDGE_ISSUER))
      return terminal.print(options.output ? render({ credentials }, options.output) : describeCredentials(credentials))
    const admin = await openAdminClient(options, terminal)
    const report = await readKeyReport(admin.issuer, keysClient(admin))
    if (options.output) return terminal.print(render({ ...report, credentials }, options.output))
    const parts = [
      credentials.length > 0 ? describeCredentials(credentials) : '',
      describeKeys(report),
      describeAuthorities(report),
      describeTroubles(report),
      describeKms(report),
    ]
    terminal.print(parts.filter((part) => part !== '').join('\n'))
  })
}
