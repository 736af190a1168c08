/** `spiffe-edge login`: a login that somebody asks for, and nobody's program. It is never put off, and prints no token. */

import type { Command } from 'commander'
import { addOptions, namedValues } from '../credential.ts'
import { obtainCredential } from '../login/obtain.ts'
import { SessionStore } from '../login/session_store.ts'
import { LOGIN_OPTIONS, loginSettings } from '../login/settings.ts'
import type { Terminal } from '../terminal.ts'

export function addLogin(program: Command, terminal: Terminal): void {
  const command = program
    .command('login')
    .description('log in at an identity provider now, for spiffe-edge credential oidc with the same options')
  addOptions(command, LOGIN_OPTIONS)
  command.action(async (values: Record<string, unknown>) => {
    const settings = loginSettings(namedValues(command, values), terminal)
    const asked = { settings, svid: null, interactive: terminal.interactive(), anew: true }
    await obtainCredential(asked, new SessionStore(terminal.env), terminal)
  })
}
