/** What a server can do wrong in HTTP/2 itself. Real servers, and what they answer, are in test/interop/credential_workload_api.test.ts. */

import { once } from 'node:events'
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import { fetchJwtSvids, STATUS, WorkloadApiError } from '../../../cli/workload_api/fetch_jwt_svid.ts'

type Answer = (stream: ServerHttp2Stream, session: ServerHttp2Session) => void

const GRPC = { ':status': 200, 'content-type': 'application/grpc' }
let server: Http2Server | undefined
const sessions: ServerHttp2Session[] = []

afterEach(() => {
  for (const session of sessions.splice(0)) session.destroy()
  server?.close()
})

async function ask(answer: Answer, timeoutMs = 30_000) {
  server = createServer()
  server.on('session', (session) => sessions.push(session))
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {})
    answer(stream, stream.session as ServerHttp2Session)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return fetchJwtSvids({ host: '127.0.0.1', port }, ['k8s'], '', timeoutMs)
}

function framed(message: Uint8Array, flag = 0, length = message.length): Buffer {
  const prefix = Buffer.alloc(5)
  prefix[0] = flag
  prefix.writeUInt32BE(length, 1)
  return Buffer.concat([prefix, message])
}

/** An answer of these octets, which the server says is all right. */
function answered(body: Buffer): Answer {
  return (stream) => {
    stream.respond(GRPC, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.end(body)
  }
}

function response(...svids: readonly (readonly [string, string, string])[]): Uint8Array {
  const message = new BinaryWriter()
  for (const [spiffeId, svid, hint] of svids) {
    message.tag(1, WireType.LengthDelimited).fork()
    message.tag(3, WireType.LengthDelimited).string(hint)
    message.tag(1, WireType.LengthDelimited).string(spiffeId)
    // WA-12 has no such field: it is a later version's.
    message.tag(9, WireType.Varint).uint32(7)
    message.tag(2, WireType.LengthDelimited).string(svid)
    message.join()
  }
  return message.tag(15, WireType.Varint).uint32(1).finish()
}

test('WA-12: fields by their numbers, whatever their order, and unknown ones passed over', async () => {
  const svids = await ask(answered(framed(response(['spiffe://a/b', 'x.y.z', 'one'], ['spiffe://a/c', 'u.v.w', '']))))
  expect(svids).toEqual([
    { spiffeId: 'spiffe://a/b', svid: 'x.y.z', hint: 'one' },
    { spiffeId: 'spiffe://a/c', svid: 'u.v.w', hint: '' },
  ])
})

test.each<[string, number, Answer]>([
  ['a compressed message', STATUS.internal, answered(framed(response(), 1))],
  ['a message shorter than it says', STATUS.internal, answered(framed(response(), 0, 99))],
  ['two messages', STATUS.internal, answered(Buffer.concat([framed(response()), framed(response())]))],
  ['no message', STATUS.internal, answered(Buffer.alloc(0))],
  ['a length behind the end', STATUS.internal, answered(framed(Uint8Array.of(0x0a, 0x7f, 1)))],
  ['a text that is not UTF-8', STATUS.internal, answered(framed(Uint8Array.of(0x0a, 3, 0x0a, 1, 0xff)))],
  ['more than it has to say', STATUS.internal, answered(Buffer.alloc(1024 * 1024 + 6))],
  ['a stream that is cancelled', STATUS.unavailable, (stream) => stream.close(8)],
  ['a stream that is closed', STATUS.unavailable, (stream) => stream.close(0)],
  ['a session that is destroyed', STATUS.unavailable, (_, session) => session.destroy()],
  ['a session that goes away', STATUS.unavailable, (_, session) => session.goaway(2)],
  ['HTTP 404', STATUS.unavailable, (stream) => stream.respond({ ':status': 404 }, { endStream: true })],
  ['no grpc-status', STATUS.unavailable, (stream) => stream.respond(GRPC, { endStream: true })],
  [
    'a grpc-status that is none',
    STATUS.unknown,
    (stream) => stream.respond({ ...GRPC, 'grpc-status': '99' }, { endStream: true }),
  ],
  [
    'HTTP 500 with a grpc-status of 0',
    STATUS.unavailable,
    (stream) => stream.respond({ ':status': 500, 'grpc-status': '0' }, { endStream: true }),
  ],
])('%s is an error, %d', async (_, status, answer) => {
  const error = await ask(answer).catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(WorkloadApiError)
  expect(error).toMatchObject({ status })
})

test('what the server says is unescaped, cut off, and made safe to look at', async () => {
  const text = encodeURIComponent(`\u001b[31mno\n${'x'.repeat(1000)}`)
  const answer: Answer = (stream) =>
    stream.respond({ ...GRPC, 'grpc-status': '7', 'grpc-message': text }, { endStream: true })
  const error = await ask(answer).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ status: STATUS.permissionDenied })
  expect((error as Error).message).toMatch(/^\\u\{1b\}\[31mno\\u\{a\}x{200,300}$/)
})

test('a server that says nothing is given up', async () => {
  await expect(ask(() => {}, 100)).rejects.toMatchObject({ status: STATUS.deadlineExceeded })
})

test('whatever octets a message has, they are SVIDs or an error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), async (bytes) => {
      try {
        for (const svid of await ask(answered(framed(bytes)))) expect(Object.keys(svid)).toHaveLength(3)
      } catch (error) {
        expect(error).toBeInstanceOf(WorkloadApiError)
      } finally {
        for (const session of sessions.splice(0)) session.destroy()
        server?.close()
      }
    }),
    { numRuns: 200 },
  )
})
