/** What can come between us and KMS, or be wrong with it: a server in front of the emulator that misbehaves on request. */

import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TlsPair } from './plain_workerd.ts'

export type KmsProxyMode =
  | 'pass'
  /** `ExpiredTokenException` for everything. */
  | 'deny'
  /** `ThrottlingException` for everything. */
  | 'throttle'
  /** `KMSInternalException`, status 500. */
  | 'fail'
  /** Takes the request and never answers. */
  | 'hang'
  /** Sends headers and half an answer, and no more. */
  | 'hang_body'
  /** Ends the connection instead of answering. */
  | 'close'
  /** The answer names another key as the one that signed. */
  | 'lie_about_key'
  /** The signature is made by another key, and said to be of the one that was asked for. */
  | { readonly signWith: string }
  /** `ThrottlingException` for each Sign of which so many have got through within the last second. */
  | { readonly signsPerSecond: number }

export interface KmsProxy {
  readonly endpoint: string
  mode: KmsProxyMode
  /** Operations that have been asked for, oldest first. */
  readonly operations: string[]
  /** Who has asked for each, by access key ID. */
  readonly callers: string[]
  /** The `Message` of each Sign, oldest first: a second attempt has that of the first one. */
  readonly messages: string[]
  /** Connections that the client has given up while we were hanging. */
  readonly abandoned: number
  /** Ends connections too, those that hang among them. */
  stop(): Promise<void>
}

/**
 * @param upstream endpoint of the emulator
 * @param tls certificate for 127.0.0.1 and its key, or null for plain HTTP
 */
export async function startKmsProxy(upstream: string, tls: TlsPair | null): Promise<KmsProxy> {
  let abandoned = 0
  /** When each Sign of the last second got through, in milliseconds. */
  let signed: number[] = []

  function isThrottled(operation: string, mode: KmsProxyMode): boolean {
    if (typeof mode !== 'object' || !('signsPerSecond' in mode) || operation !== 'Sign') return mode === 'throttle'
    const now = Date.now()
    signed = signed.filter((at) => at > now - 1000)
    if (signed.length >= mode.signsPerSecond) return true
    signed.push(now)
    return false
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const input = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>
    const operation = String(request.headers['x-amz-target']).replace('TrentService.', '')
    proxy.operations.push(operation)
    if (operation === 'Sign') proxy.messages.push(String(input.Message))
    proxy.callers.push(/(?<=Credential=)[^/]+/.exec(String(request.headers.authorization))?.[0] ?? '')
    const { mode } = proxy
    if (mode === 'deny') return send(response, 400, { __type: 'ExpiredTokenException', message: 'expired' })
    if (isThrottled(operation, mode))
      return send(response, 400, { __type: 'ThrottlingException', message: 'Rate exceeded' })
    if (mode === 'fail') return send(response, 500, { __type: 'KMSInternalException', message: 'internal' })
    if (mode === 'close') return void request.socket.destroy()
    if (mode === 'hang' || mode === 'hang_body') {
      request.socket.once('close', () => {
        abandoned++
      })
      if (mode === 'hang_body') {
        response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1', 'content-length': 1000 })
        response.write('{"KeyId":')
      }
      return
    }
    const signWith = typeof mode === 'object' && 'signWith' in mode ? mode.signWith : null
    const asked = signWith !== null && 'KeyId' in input ? { ...input, KeyId: signWith } : input
    const answer = await fetch(upstream, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': String(request.headers['x-amz-target']),
        authorization: String(request.headers.authorization),
      },
      body: JSON.stringify(asked),
    })
    const output = (await answer.json()) as Record<string, unknown>
    if (mode === 'lie_about_key')
      output.KeyId = String(output.KeyId).replace(/.$/, (last) => (last === '0' ? '1' : '0'))
    if (signWith !== null) output.KeyId = input.KeyId
    send(response, answer.status, output)
  }

  const listener = (request: IncomingMessage, response: ServerResponse) => {
    serve(request, response).catch(() => request.socket.destroy())
  }
  const server = tls ? createHttpsServer({ cert: tls.certificate, key: tls.key }, listener) : createHttpServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const proxy: KmsProxy = {
    endpoint: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    mode: 'pass',
    operations: [],
    messages: [],
    callers: [],
    get abandoned() {
      return abandoned
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

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
  response.end(JSON.stringify(body))
}
