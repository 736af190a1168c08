/** Asking a person to log in: by a browser of this machine, by a code on another, or by what the browser's address bar shows. */

import { Failure } from '../failure.ts'
import { printable, type Terminal } from '../terminal.ts'
import { openBrowser } from './browser.ts'
import { type Callback, LoopbackListener } from './loopback.ts'
import { type Page, renderPage } from './page.ts'
import type { LoggedIn, Provider } from './provider.ts'
import type { LoginSettings } from './settings.ts'
import { browserProblem, type Way } from './way.ts'

const MAX_PASTED_CHARACTERS = 16 * 1024

/**
 * @param interactive whether standard input is the person's; otherwise it is not read (EX-5)
 * @returns how, and why not by the browser if that would be usual
 * @throws Failure if there is no way
 */
export function chooseWay(
  { way }: LoginSettings,
  provider: Pick<Provider, 'hasDeviceFlow'>,
  interactive: boolean,
  { env }: Terminal,
): { readonly way: Way; readonly reason: string | null } {
  if (way === 'device' && !provider.hasDeviceFlow) throw new Failure('the identity provider has no device flow')
  if (way === 'paste' && !interactive)
    throw new Failure('--prompt paste needs a terminal: log in with spiffe-edge login, or run kubectl in one')
  if (way) return { way, reason: null }
  const reason = browserProblem(env)
  if (reason === null) return { way: 'browser', reason }
  if (provider.hasDeviceFlow) return { way: 'device', reason }
  if (interactive) return { way: 'paste', reason: `${reason}, and the provider has no device flow` }
  throw new Failure(
    `no way to ask for a login: ${reason}, the provider has no device flow, and there is no terminal.\n` +
      `Log in with spiffe-edge login in a terminal, or give --prompt browser`,
  )
}

/**
 * @param onAsk is called when nothing is in the way any more, and awaited before the person sees anything
 * @throws Failure
 */
export async function logIn(
  provider: Provider,
  settings: LoginSettings,
  { way, reason }: ReturnType<typeof chooseWay>,
  terminal: Terminal,
  onAsk: () => Promise<void>,
): Promise<LoggedIn> {
  const ask = async () => {
    await onAsk()
    if (reason) terminal.say(`No browser is opened: ${reason}.`)
  }
  if (way === 'device') return await byDevice(provider, settings, terminal, ask)
  return await byCode(provider, settings, way, terminal, ask)
}

async function byDevice(
  provider: Provider,
  { timeoutSeconds }: LoginSettings,
  terminal: Terminal,
  ask: () => Promise<void>,
): Promise<LoggedIn> {
  const { say, now, wait } = terminal
  const { userCode, verificationUri, verificationUriComplete, finish } = await provider.authorizeDevice()
  await ask()
  say(`To log in, open ${verificationUri}\nand enter the code ${printable(userCode.slice(0, 64))}`)
  if (verificationUriComplete) say(`or open ${verificationUriComplete}`)
  const end = now() + timeoutSeconds * 1000
  return await finish(async (milliseconds) => {
    if (now() + milliseconds > end) throw unanswered(timeoutSeconds)
    await wait(milliseconds)
  })
}

async function byCode(
  provider: Provider,
  { account, port, timeoutSeconds }: LoginSettings,
  way: 'browser' | 'paste',
  terminal: Terminal,
  ask: () => Promise<void>,
): Promise<LoggedIn> {
  const { say, env } = terminal
  const attempt = provider.newAttempt()
  const challenge = await provider.challenge(attempt)
  let authorizationUrl = ''
  const listener = await LoopbackListener.listen(port, attempt.state, (redirectUri) => {
    const url = provider.authorizationUrl(attempt, challenge, redirectUri)
    authorizationUrl = url.href
    return url
  })
  const ended = new AbortController()
  try {
    await ask()
    const waits = [listener.callback, timeLimit(timeoutSeconds, ended.signal)]
    if (way === 'browser') {
      say(`Log in to ${account.issuer} in the browser. If none opens, open\n${listener.links.shown}`)
      openBrowser(listener.links.opened, env, () => {
        if (!ended.signal.aborted) say('The browser could not be opened: open the link above.')
      })
    } else {
      say(
        `To log in, open\n${authorizationUrl}\n` +
          `in a browser. It ends at a page that cannot be shown, on ${listener.redirectUri.replace('/callback', '')}.\n` +
          'Copy the whole address of that page, paste it here, and press Enter:',
      )
      waits.push(pasted(listener, terminal, ended.signal))
    }
    const { url, show } = await Promise.race(waits)
    try {
      const loggedIn = await provider.redeem(url, attempt)
      await show(page({ kind: 'ok', ...loggedIn.person }, terminal), true)
      return loggedIn
    } catch (error) {
      const message = error instanceof Failure ? error.message : 'There is more in the terminal.'
      await show(page({ kind: 'fail', message }, terminal), false)
      throw error
    }
  } finally {
    ended.abort()
    listener.close()
  }
}

function page(content: Page, terminal: Terminal): string {
  return renderPage(content, terminal)
}

function timeLimit(seconds: number, signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const timer = setTimeout(() => reject(unanswered(seconds)), seconds * 1000)
    signal.addEventListener('abort', () => clearTimeout(timer))
  })
}

/** @returns the first line of standard input that is the provider's answer */
async function pasted(listener: LoopbackListener, { stdin, say }: Terminal, signal: AbortSignal): Promise<Callback> {
  // Otherwise this process would stay until somebody presses a key.
  const stop = () => (stdin as { destroy?(): void }).destroy?.()
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop)
  try {
    let text = ''
    for await (const chunk of stdin) {
      text += Buffer.from(chunk).toString('utf8')
      if (text.length > MAX_PASTED_CHARACTERS) throw new Failure('this is too long for an address')
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end).trim()
        text = text.slice(end + 1)
        if (line === '') continue
        const url = URL.canParse(line) ? new URL(line) : null
        if (url && `${url.origin}${url.pathname}` === listener.redirectUri && listener.accepts(url))
          return { url, show: async () => {} }
        say('This is not the address at which this login ends. Copy all of it, and paste it here:')
      }
    }
  } catch (error) {
    if (error instanceof Failure || !signal.aborted) throw error
  }
  if (signal.aborted) return new Promise<never>(() => {})
  throw new Failure('nothing was pasted')
}

function unanswered(seconds: number): Failure {
  return new Failure(`nobody has logged in within ${seconds} s`)
}
