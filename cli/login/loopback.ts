/**
 * The redirect URI of a program that is no web server: a listener on the loopback interface, for one answer.
 *
 * What goes to it may come from any page in any browser of this machine, and from any other program of it. So nothing but the
 * provider's answer to our own question, by its `state`, has an effect, and everything else learns nothing.
 *
 * @see [RFC 8252 §7.3](https://www.rfc-editor.org/rfc/rfc8252#section-7.3)
 */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Failure } from '../failure.ts'
import { ownPage, PAGE_HEADERS } from './page.ts'

const HOST = '127.0.0.1'
const CALLBACK_PATH = '/callback'
/** A browser sends its request within this, or opens connections only to have them. */
const REQUEST_TIMEOUT_MS = 10_000
/** To send the last page to a browser that is slow, or has gone. */
const LAST_PAGE_TIMEOUT_MS = 2000

export interface Callback {
  /** The redirect URI with what the provider has added. */
  readonly url: URL
  /** Shows a page in the browser, and waits until it is there, or is not going to be. */
  show(html: string, ok: boolean): Promise<void>
}

export class LoopbackListener {
  readonly redirectUri: string
  /**
   * Lead to the provider, each of them once. The first is for the command line of a browser, which everybody on this machine
   * can read; who is second there may not be the person who is to log in. The other is for the person's eyes.
   */
  readonly links: { readonly opened: string; readonly shown: string }
  /** Rejects with Failure. */
  readonly callback: Promise<Callback>

  readonly #server: Server
  readonly #host: string
  readonly #state: string
  readonly #target: URL
  readonly #tokens = { opened: randomBytes(32).toString('base64url'), shown: randomBytes(32).toString('base64url') }
  readonly #used = new Set<string>()
  #answered = false
  readonly #resolve: (callback: Callback) => void
  readonly #reject: (failure: Failure) => void

  private constructor(server: Server, state: string, target: (redirectUri: string) => URL) {
    const { port } = server.address() as AddressInfo
    this.#server = server
    this.#host = `${HOST}:${port}`
    this.redirectUri = `http://${this.#host}${CALLBACK_PATH}`
    this.#state = state
    this.#target = target(this.redirectUri)
    const { opened, shown } = this.#tokens
    this.links = { opened: `http://${this.#host}/login/${opened}`, shown: `http://${this.#host}/login/${shown}` }
    const { promise, resolve, reject } = Promise.withResolvers<Callback>()
    this.callback = promise
    this.#resolve = resolve
    this.#reject = reject
    // Whoever waits for it has a time limit as well, and may have gone.
    promise.catch(() => {})
    server.on('request', (request, response) => this.#answer(request, response))
  }

  /**
   * @param port 0 for any that is free
   * @param target from the redirect URI to where the links lead
   * @throws Failure if the port is taken
   */
  static async listen(port: number, state: string, target: (redirectUri: string) => URL): Promise<LoopbackListener> {
    const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS })
    await new Promise<void>((resolve, reject) => {
      server.once('error', ({ code }: NodeJS.ErrnoException) =>
        reject(
          new Failure(
            code === 'EADDRINUSE'
              ? `port ${port} is taken by another program. Give another --port that the provider knows, or none`
              : `${HOST}:${port}: cannot be listened on (${code})`,
          ),
        ),
      )
      server.listen({ host: HOST, port, exclusive: true }, resolve)
    })
    return new LoopbackListener(server, state, target)
  }

  /** @returns whether this is the provider's answer to our question */
  accepts(url: URL): boolean {
    const states = url.searchParams.getAll('state')
    return states.length === 1 && sameText(states[0] ?? '', this.#state)
  }

  /** No connection is accepted any more, and those that there are end. */
  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    response.on('error', () => {}).setHeader('connection', 'close')
    // A name that leads here is not ours: pages of its site would count us to it.
    if (request.headers.host !== this.#host) plain(response, 421, 'This is not the host that you asked for.')
    else this.#route(request, response)
  }

  #route(request: IncomingMessage, response: ServerResponse): void {
    const url = parse(request.url ?? '', this.redirectUri)
    const link = Object.entries(this.#tokens).find(([, token]) => sameText(url?.pathname ?? '', `/login/${token}`))?.[0]
    if (!url || !(url.pathname === CALLBACK_PATH || link)) plain(response, 404, 'There is nothing here.')
    else if (request.method !== 'GET') plain(response, 405, 'Only GET.')
    else if (link) this.#lead(link, response)
    else if (this.#answered) plain(response, 410, 'This login is over.')
    else if (!this.accepts(url)) plain(response, 400, 'This is not an answer to a login that was begun here.')
    else {
      this.#answered = true
      this.#resolve({ url, show: (html, ok) => show(response, html, ok) })
    }
  }

  #lead(link: string, response: ServerResponse): void {
    if (this.#used.has(link)) {
      plain(response, 410, 'This link was used already.')
      if (link === 'opened' && !this.#answered)
        this.#reject(
          new Failure(
            'the login was opened twice: somebody else on this machine may have done so. Nothing was accepted; try again',
          ),
        )
      return
    }
    this.#used.add(link)
    response.writeHead(303, { ...PAGE_HEADERS, location: this.#target.href }).end()
  }
}

function plain(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, PAGE_HEADERS).end(ownPage(text, ''))
}

async function show(response: ServerResponse, html: string, ok: boolean): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await new Promise<void>((resolve) => {
    timer = setTimeout(resolve, LAST_PAGE_TIMEOUT_MS)
    response.once('close', resolve)
    response.writeHead(ok ? 200 : 400, PAGE_HEADERS).end(html, resolve)
  })
  clearTimeout(timer)
}

/** @returns null for what has a host of its own, as for a proxy */
function parse(path: string, base: string): URL | null {
  if (!URL.canParse(path, base)) return null
  const url = new URL(path, base)
  return url.origin === new URL(base).origin ? url : null
}

/** In a time that does not tell how much of it is the same. */
function sameText(a: string, b: string): boolean {
  const [one, other] = [a, b].map((text) => createHash('sha256').update(text).digest())
  return timingSafeEqual(one as Buffer, other as Buffer)
}
