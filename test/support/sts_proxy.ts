/** An STS in front of the emulator, which believes everybody: this one believes one token, and misbehaves on request. */

import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TlsPair } from './plain_workerd.ts'

export type StsProxyMode = 'pass' | 'fail' | 'hang' | 'lie'

export interface StsProxy {
  readonly endpoint: string
  mode: StsProxyMode
  /** What it believes. */
  token: string
  /** Those of the sessions that it has given, oldest first. */
  readonly accessKeyIds: string[]
  /** How often it has been asked. */
  readonly asked: number
  /** Ends connections too, those that hang among them. */
  stop(): Promise<void>
}

/** @param upstream endpoint of the emulator */
export async function startStsProxy(upstream: string, tls: TlsPair): Promise<StsProxy> {
  let asked = 0

  async function serve(body: string, response: ServerResponse): Promise<void> {
    asked++
    const { mode, token } = proxy
    if (mode === 'hang') return
    if (mode === 'fail') return refuse(response, 500, 'InternalFailure')
    if (mode === 'lie') return void response.end('<html><h1>Welcome</h1></html>')
    if (new URLSearchParams(body).get('WebIdentityToken') !== token)
      return refuse(response, 400, 'InvalidIdentityToken')
    const headers = { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' }
    const answer = await fetch(upstream, { method: 'POST', headers, body })
    const text = await answer.text()
    const [id] = /(?<=<AccessKeyId>)[^<]+/.exec(text) ?? []
    if (id !== undefined) proxy.accessKeyIds.push(id)
    response.writeHead(answer.status, { 'content-type': 'text/xml' }).end(text)
  }

  const server = createServer({ cert: tls.certificate, key: tls.key }, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    serve(Buffer.concat(chunks).toString(), response).catch(() => request.socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const proxy: StsProxy = {
    endpoint: `https://127.0.0.1:${port}`,
    mode: 'pass',
    token: '',
    accessKeyIds: [],
    get asked() {
      return asked
    },
    async stop() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
    },
  }
  return proxy
}

function refuse(response: ServerResponse, status: number, code: string): void {
  const text = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>${code}</Code><Message>arn:aws:iam::111122223333:role/issuer</Message></Error></ErrorResponse>`
  response.writeHead(status, { 'content-type': 'text/xml' }).end(text)
}
