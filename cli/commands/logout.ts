/** `spiffe-edge logout`: what is kept of logins is taken away here, and made worthless at the provider as far as that can. */

import type { Command } from 'commander'
import { addOptions, namedValues } from '../credential.ts'
import { Failure } from '../failure.ts'
import { BackOff } from '../login/back_off.ts'
import { type Kept, SessionStore } from '../login/session_store.ts'
import { clientSecretOf, LOGIN_OPTIONS } from '../login/settings.ts'
import { printable, type Terminal } from '../terminal.ts'

const OPTIONS = {
  'issuer-url': { ...LOGIN_OPTIONS['issuer-url'], description: 'only of this identity provider' },
  'client-id': { ...LOGIN_OPTIONS['client-id'], description: 'only of this client' },
  'client-secret-file': LOGIN_OPTIONS['client-secret-file'],
} as const

export function addLogout(program: Command, terminal: Terminal): void {
  const command = program
    .command('logout')
    .description('remove what is kept of logins from this machine, and revoke it at the provider')
  addOptions(command, OPTIONS)
  command.action(async (given: Record<string, unknown>) => {
    const values = namedValues<typeof OPTIONS>(command, given)
    const store = new SessionStore(terminal.env)
    const meant = store
      .list()
      .filter(({ account }) => [undefined, account.issuer].includes(values['issuer-url']))
      .filter(({ account }) => [undefined, account.clientId].includes(values['client-id']))
    if (meant.length === 0) return terminal.say('There is nothing to remove.')
    const secret = await clientSecretOf(values['client-secret-file'], terminal)
    const problems = (await Promise.all(meant.map((kept) => logOut(kept, secret, store, terminal)))).flat()
    if (problems.length > 0) throw new Failure(problems.join('\n'))
  })
}

/** @returns what has not worked */
async function logOut(kept: Kept, secret: string | null, store: SessionStore, terminal: Terminal): Promise<string[]> {
  const { account } = kept
  const name = printable(`${account.clientId} at ${account.issuer}`)
  const { session, problem } = await store.read(account)
  // First what is certain to work; the provider may be away.
  const left = await store.remove(kept)
  new BackOff(account, terminal.env).clear()
  const problems = left ? [`${name}: something may be left in the keyring: ${left}. Unlock it and log out again`] : []
  if (!left) terminal.print(`${name}: removed from this machine\n`)
  if (!session) return problem ? [...problems, `${name}: not revoked: ${problem}`] : problems
  try {
    const { Provider } = await import('../login/provider.ts')
    const provider = await Provider.discover(account, secret, terminal.now)
    // An ID token cannot be revoked.
    const token = session.refreshToken ?? (account.token === 'access' ? session.token : null)
    if (token === null) return problems
    if (await provider.revoke(token)) terminal.print(`${name}: revoked\n`)
    else problems.push(`${name}: not revoked: the provider has no way to`)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    problems.push(`${name}: not revoked: ${error.message}`)
  }
  return problems
}
