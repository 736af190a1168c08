/** `spiffe-edge logout`: what is kept of logins is taken away here, and made worthless at the provider as far as that can. */

import type { Command } from 'commander'
import { addOptions, namedValues, type OptionValues } from '../credential.ts'
import { Failure, UsageError } from '../failure.ts'
import type { Account } from '../login/account.ts'
import { idOf } from '../login/account_id.ts'
import { BackOff } from '../login/back_off.ts'
import type { Session } from '../login/session.ts'
import { type Kept, SessionStore } from '../login/session_store.ts'
import { clientSecretOf, LOGIN_OPTIONS } from '../login/settings.ts'
import { socketFolder } from '../login/socket_folder.ts'
import { NOTHING_TO_TELL, type Turn, waitForTurn } from '../login/turn.ts'
import { printable, type Terminal } from '../terminal.ts'

const OPTIONS = {
  'issuer-url': { ...LOGIN_OPTIONS['issuer-url'], description: 'only of this identity provider' },
  'client-id': { ...LOGIN_OPTIONS['client-id'], description: 'only of this client' },
  'client-secret-file': LOGIN_OPTIONS['client-secret-file'],
} as const

/** A refresh takes no longer. A login may, since it waits for the person, who then has a new one. */
const TURN_PATIENCE_MS = 10_000

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
    const secretOf = await clientSecrets(values, terminal)
    const problems = (await Promise.all(meant.map((kept) => logOut(kept, secretOf, store, terminal)))).flat()
    if (problems.length > 0) throw new Failure(problems.join('\n'))
  })
}

type SecretOf = (account: Account) => string | null

/**
 * @returns the secret of the client that is named, at the provider that is named, and of no other
 * @throws UsageError, Failure
 */
async function clientSecrets(values: OptionValues<typeof OPTIONS>, terminal: Terminal): Promise<SecretOf> {
  const file = values['client-secret-file']
  const issuer = values['issuer-url'] ?? terminal.env.IDP_ISSUER_URL
  const clientId = values['client-id'] ?? terminal.env.CLIENT_ID
  if (!issuer || !clientId) {
    if (file !== undefined) throw new UsageError('--client-secret-file: whose? Give --issuer-url and --client-id too')
    return () => null
  }
  const secret = await clientSecretOf(file, terminal)
  return (account) => (account.issuer === issuer && account.clientId === clientId ? secret : null)
}

/** @returns what has not worked */
async function logOut(kept: Kept, secretOf: SecretOf, store: SessionStore, terminal: Terminal): Promise<string[]> {
  const { account } = kept
  const name = printable(`${account.clientId} at ${account.issuer}`)
  const problems: string[] = []
  let turn: Turn | null = null
  try {
    // Whoever renews the login at the moment would write it again.
    const tell = () => terminal.say('Another process is logging in: waiting for it.')
    turn = await waitForTurn(socketFolder(terminal.env), idOf(account), TURN_PATIENCE_MS, tell)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    problems.push(`${name}: what another process gets meanwhile is kept: ${error.message}`)
  }
  let session: Session | null
  try {
    session = await takeAway(kept, store, terminal, name, problems)
  } finally {
    turn?.end(NOTHING_TO_TELL)
  }
  if (!session) return problems
  try {
    const { Provider } = await import('../login/provider.ts')
    const provider = await Provider.discover(account, secretOf(account), terminal.now)
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

/** @returns what there was, if it can be read: it is to be revoked */
async function takeAway(
  kept: Kept,
  store: SessionStore,
  terminal: Terminal,
  name: string,
  problems: string[],
): Promise<Session | null> {
  const { session, problem } = await store.read(kept.account)
  // First what is certain to work; the provider may be away.
  const left = await store.remove(kept)
  new BackOff(kept.account, terminal.env).clear()
  if (left) problems.push(`${name}: something may be left in the keyring: ${left}. Unlock it and log out again`)
  else terminal.print(`${name}: removed from this machine\n`)
  if (!session && problem) problems.push(`${name}: not revoked: ${problem}`)
  return session
}
