/** Stands between an agent and its issuer, and says something else where a test wants it to. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { send } from './exchange.ts'

export interface Asked {
  /** Behind the issuer's URL. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface Said {
  readonly status: number
  readonly text: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface LyingProxy {
  readonly url: string
  /** Where the truth is. */
  origin: string
  /** In the place of the truth; `hang` never ends; null lets the truth through. */
  lie(asked: Asked, truth: () => Promise<Said>): Promise<Said | 'hang' | null>
  stop(): void
}

export async function startLyingProxy(): Promise<LyingProxy> {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const proxy: LyingProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    origin: '',
    lie: async () => null,
    stop() {
      server.close()
      server.closeAllConnections()
    },
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks).toString()
    const { authorization = '', 'content-type': type = '' } = request.headers
    const headers = { ...(authorization && { authorization }), ...(type && { 'content-type': type }) }
    const asked = { path: request.url ?? '', headers, body }
    const truth = async (): Promise<Said> => {
      const { method = 'GET' } = request
      const { status, text } = await send(`${proxy.origin}${asked.path}`, {
        ...{ method, headers },
        ...(method === 'POST' && { body }),
      })
      return { status, text }
    }
    const said = (await proxy.lie(asked, truth)) ?? (await truth())
    if (said === 'hang') return
    response.writeHead(said.status, { 'content-type': 'application/json', ...said.headers }).end(said.text)
  }
  return proxy
}
