/** Gives a fake service an address of its own over TLS, for programs that reach it as any other host. */

import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { HttpService } from '../../worker/fetch_json.ts'
import { createCa } from './pki.ts'

export interface TlsService {
  readonly url: string
  /** PEM, of the CA that the server's certificate chains to. */
  readonly ca: string
  stop(): void
}

export async function serveOverTls(service: HttpService): Promise<TlsService> {
  const ca = await createCa()
  const tls = await ca.issue('localhost', '127.0.0.1')
  const server = createServer({ key: tls.key, cert: tls.certificate }, async (request, response) => {
    const { method = 'GET', headers } = request
    const body = method === 'GET' ? null : new Uint8Array(await buffer(request))
    const answer = await service.fetch(`${url}${request.url}`, { method, headers: headers as HeadersInit, body })
    response.writeHead(answer.status, Object.fromEntries(answer.headers))
    response.end(new Uint8Array(await answer.arrayBuffer()))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    ca: ca.certificate,
    stop() {
      server.close()
      server.closeAllConnections()
    },
  }
}
