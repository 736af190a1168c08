/** Callers that do what no client library does. Whatever one of them does, the next one is served. */

import { once } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2'
import { connect, type Socket } from 'node:net'
import { Code, ConnectError } from '@connectrpc/connect'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { testAgents } from '../../support/test_agent.ts'
import { HEADERS, workloadApiClient } from '../../support/workload_api_client.ts'

const current = testAgents()
const sessions: ClientHttp2Session[] = []
const sockets: Socket[] = []

const CALL = {
  ':method': 'POST',
  ':path': '/SpiffeWorkloadAPI/FetchJWTSVID',
  'content-type': 'application/grpc',
  te: 'trailers',
  ...HEADERS,
}

beforeEach(() => current().start())
afterEach(async () => {
  // Whatever the test has done before.
  const { svids } = await current().client.fetchJWTSVID({ audience: ['k8s'] }, { headers: HEADERS, timeoutMs: 10_000 })
  expect(svids).toHaveLength(1)
  for (const session of sessions.splice(0)) session.destroy()
  for (const socket of sockets.splice(0)) socket.destroy()
})

function open(): ClientHttp2Session {
  const session = connectHttp2('http://localhost', { createConnection: () => connect(current().socket) })
  session.on('error', () => {})
  sessions.push(session)
  return session
}

function request(session: ClientHttp2Session, headers: OutgoingHttpHeaders = {}): ClientHttp2Stream {
  const stream = session.request({ ...CALL, ...headers })
  stream.on('error', () => {})
  return stream
}

function framed(message: Uint8Array, length = message.length): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(length, 1)
  return Buffer.concat([prefix, message])
}

/** audience: k8s */
const MESSAGE = framed(Buffer.from([0x0a, 3, 0x6b, 0x38, 0x73]))

/** @returns the gRPC status of the answer, or of its headers alone; null where there is none */
async function statusOf(stream: ClientHttp2Stream): Promise<number | null> {
  let status: unknown
  for (const event of ['response', 'trailers'])
    stream.on(event, (headers) => {
      status = headers['grpc-status'] ?? status
    })
  stream.resume()
  await new Promise((closed) => stream.once('close', closed))
  return status === undefined ? null : Number(status)
}

describe('12.5, WA-2: a call', () => {
  test.each<[string, OutgoingHttpHeaders]>([
    ['without the security header', { 'workload.spiffe.io': undefined }],
    ['with True', { 'workload.spiffe.io': 'True' }],
    ['with 1', { 'workload.spiffe.io': '1' }],
    ['with it twice', { 'workload.spiffe.io': ['true', 'true'] }],
    ['with it right and wrong', { 'workload.spiffe.io': ['true', 'false'] }],
    ['with nothing in it', { 'workload.spiffe.io': '' }],
  ])('%s is InvalidArgument', async (_, headers) => {
    const stream = request(open(), headers)
    stream.end(MESSAGE)
    expect(await statusOf(stream)).toBe(Code.InvalidArgument)
  })

  test.each(['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles', 'FetchJWTSVID', 'ValidateJWTSVID'])(
    'so is one of %s',
    async (method) => {
      const stream = request(open(), { ':path': `/SpiffeWorkloadAPI/${method}`, 'workload.spiffe.io': undefined })
      stream.end(framed(new Uint8Array()))
      expect(await statusOf(stream)).toBe(Code.InvalidArgument)
    },
  )

  test('with it is answered', async () => {
    const stream = request(open())
    stream.end(MESSAGE)
    expect(await statusOf(stream)).toBe(0)
  })
})

test.each([
  '/SpiffeWorkloadAPI/FetchWITSVID',
  '/SpiffeWorkloadAPI/FetchWITBundles',
  '/WorkloadAPI/FetchJWTSVID',
  '/',
  '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
])('WA-9: %s is Unimplemented', async (path) => {
  const stream = request(open(), { ':path': path })
  stream.end(MESSAGE)
  expect(await statusOf(stream)).toBe(Code.Unimplemented)
})

test('a message of more than 64 KiB is ResourceExhausted', async () => {
  const error = await current()
    .client.validateJWTSVID({ audience: 'k8s', svid: 'x'.repeat(70_000) }, { headers: HEADERS })
    .catch((error) => error)
  expect(ConnectError.from(error).code).toBe(Code.ResourceExhausted)
})

test.each<[string, OutgoingHttpHeaders, Buffer]>([
  ['that says it is longer than it is', {}, framed(Buffer.from([0x0a]), 1000)],
  ['that says it is 4 GiB', {}, framed(Buffer.from([0x0a]), 0xffff_ffff)],
  ['that is no message', {}, framed(Buffer.from([0xff, 0xff, 0xff]))],
  ['that is empty', {}, Buffer.alloc(0)],
  ['of two messages', {}, Buffer.concat([MESSAGE, MESSAGE])],
  ['that is compressed', { 'grpc-encoding': 'gzip' }, Buffer.concat([Buffer.from([1]), MESSAGE.subarray(1)])],
  ['as another type', { 'content-type': 'application/json' }, Buffer.from('{"audience":["k8s"]}')],
  ['by GET', { ':method': 'GET' }, Buffer.alloc(0)],
  ['with a path that is none', { ':path': '//[' }, MESSAGE],
])('a call %s harms nobody', async (_, headers, body) => {
  const stream = request(open(), headers)
  if (!stream.destroyed) stream.end(body.length === 0 ? undefined : body)
  expect(await statusOf(stream)).not.toBe(0)
})

test.each(['localhost', '%2Frun%2Fagent.sock', '['])(
  'what stands in :authority means nothing: %s',
  async (authority) => {
    const stream = request(open(), { ':authority': authority })
    stream.end(MESSAGE)
    expect(await statusOf(stream)).toBe(0)
  },
)

test('octets of any kind end a connection at most', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.boolean(), async (octets, preface) => {
      const socket = connect(current().socket)
      socket.on('error', () => {})
      sockets.push(socket)
      if (preface) socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
      socket.end(octets)
      socket.resume()
      await once(socket, 'connect')
    }),
    { numRuns: 50 },
  )
})

test('a request that does not go on is ended after 5 s', async () => {
  const stream = request(open())
  stream.write(MESSAGE.subarray(0, 3))
  await once(stream, 'ready')
  const before = current().clock.now()
  await current().until(() => stream.destroyed)
  expect(stream.rstCode).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM)
  expect(current().clock.now() - before).toBeLessThan(10_000)
})

/** Requests that are begun and not ended, one after the other, over as many connections as they need. */
async function halves(count: number): Promise<ClientHttp2Stream[]> {
  const streams: ClientHttp2Stream[] = []
  for (let session = open(); streams.length < count; ) {
    if (streams.length % 100 === 99) session = open()
    const stream = request(session)
    stream.write(MESSAGE.subarray(0, 3))
    streams.push(stream)
  }
  return streams
}

test('requests that do not go on are 256 at most, of all connections: the first of them go', async () => {
  const streams = await halves(300)
  await expect.poll(() => streams.filter(({ destroyed }) => destroyed).length).toBe(44)
  const gone = streams.filter(({ destroyed }) => destroyed)
  expect(new Set(gone.map(({ rstCode }) => rstCode))).toEqual(new Set([constants.NGHTTP2_ENHANCE_YOUR_CALM]))
})

test('streams are 1000 at most, of all connections: the first of them go, and come again', async () => {
  const watched = current().hold((options) => current().client.fetchJWTBundles({}, options))
  await expect.poll(() => watched.messages.length).toBe(1)
  const streams: ClientHttp2Stream[] = []
  for (let count = 0; count < 1000; count++) {
    const stream = request(count % 100 === 0 ? open() : (sessions.at(-1) as ClientHttp2Session), {
      ':path': '/SpiffeWorkloadAPI/FetchJWTBundles',
    })
    stream.end(framed(new Uint8Array()))
    stream.resume()
    streams.push(stream)
    if (count % 100 === 99) await once(stream, 'response')
  }
  await expect.poll(() => watched.code).not.toBeNull()
  expect(streams.filter(({ destroyed }) => destroyed)).toEqual([])
  const again = current().hold((options) => current().client.fetchJWTBundles({}, options))
  await expect.poll(() => again.messages.length).toBe(1)
})

test('a stream that is silent because nothing has changed is not', async () => {
  const held = current().hold((options) => current().client.fetchJWTBundles({}, options))
  await expect.poll(() => held.messages.length).toBe(1)
  for (let minute = 0; minute < 20; minute++) {
    current().clock.advance(60_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(held.code).toBeNull()
})

test('one connection has 100 calls, and the others theirs', async () => {
  const session = open()
  await once(session, 'remoteSettings')
  expect(session.remoteSettings.maxConcurrentStreams).toBe(100)
})

test('256 connections are there at most, and for one more the one goes that has been idle for the longest time', async () => {
  const held = current().hold((options) => current().client.fetchJWTBundles({}, options))
  await expect.poll(() => held.messages.length).toBe(1)
  const idle: Socket[] = []
  for (let count = 0; count < 300; count++) {
    const socket = connect(current().socket)
    socket.on('error', () => {}).resume()
    sockets.push(socket)
    idle.push(socket)
    await once(socket, 'connect')
  }
  const gone = () => idle.map(({ destroyed }) => destroyed)
  await expect.poll(() => gone().filter(Boolean).length).toBe(45)
  expect(gone().slice(0, 45)).toEqual(Array(45).fill(true))
  expect(held.code).toBeNull()
})

test('where all of them have a call, the one goes of which nothing has been heard for the longest time', async () => {
  const streams: ClientHttp2Stream[] = []
  for (let count = 0; count < 256; count++) {
    const stream = request(open(), { ':path': '/SpiffeWorkloadAPI/FetchJWTBundles' })
    stream.end(framed(new Uint8Array()))
    stream.resume()
    streams.push(stream)
  }
  await Promise.all(streams.map((stream) => once(stream, 'response')))
  const late = request(open())
  late.end(MESSAGE)
  expect(await statusOf(late)).toBe(0)
  await expect.poll(() => streams.filter(({ closed }) => closed).length).toBe(1)
  for (const session of sessions.splice(0)) session.destroy()
  // Until that has been noticed.
  await expect
    .poll(() =>
      workloadApiClient(current().socket)
        .fetchJWTSVID({ audience: ['k8s'] }, { headers: HEADERS })
        .then(
          ({ svids }) => svids.length,
          () => 0,
        ),
    )
    .toBe(1)
})

test('a reader that takes nothing is ended, and nothing piles up for it', async () => {
  const { issuer } = current()
  // More than the 64 KiB that HTTP/2 lets on their way.
  issuer.lieAboutBundles = (map) => {
    const peers = Array.from({ length: 150 }, (_, index) => [`p${index}.example`, issuer.own.bundle] as const)
    return { ...map, bundles: new Map([...map.bundles, ...peers]) }
  }
  await current().until(() => current().events.filter(({ event }) => event === 'bundles_changed').length === 2, 5000)
  const stream = request(open(), { ':path': '/SpiffeWorkloadAPI/FetchX509SVID' })
  stream.end(framed(new Uint8Array()))
  await once(stream, 'response')
  for (let step = 0; step < 20; step++) {
    current().clock.advance(5000)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  let octets = 0
  stream.on('data', (chunk: Buffer) => {
    octets += chunk.length
  })
  await expect.poll(() => stream.destroyed).toBe(true)
  expect(stream.rstCode).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM)
  expect(octets).toBeLessThan(70_000)
})

test('the end of the agent ends streams with Unavailable, and the socket is gone', async () => {
  const { client, socket } = current()
  const held = current().hold((options) => client.fetchX509SVID({}, options))
  await expect.poll(() => held.messages.length).toBe(1)
  let code: number | null = null
  const stopping = current().stopAlone()
  await expect
    .poll(() => {
      code = held.code
      return code
    })
    .toBe(Code.Unavailable)
  await stopping
  expect((await import('node:fs')).existsSync(socket)).toBe(false)
  await current().start()
})
