/** Our HTTP/2 beside Node's as the server, and beside octets that no server should send. */

import { once } from 'node:events'
import { createServer, type ServerHttp2Stream } from 'node:http2'
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net'
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { encodeFields, type Field } from '../../../cli/workload_api/hpack.ts'
import {
  CallError,
  type CallLimits,
  callOnce,
  Http2Exchange,
  MAX_REQUEST_BYTES,
} from '../../../cli/workload_api/http2_call.ts'

const HEADERS: readonly Field[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/x'],
  [':authority', 'localhost'],
  ['te', 'trailers'],
]
const LIMITS: CallLimits = { timeoutMs: 30_000, maxBodyBytes: 1024 * 1024 }
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function portOf(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** Node's server, whose settings are unlike ours. */
async function callNode(
  answer: (stream: ServerHttp2Stream, body: Buffer, headers: object) => void,
  { body = Buffer.alloc(0), settings = {} }: { body?: Uint8Array; settings?: object } = {},
) {
  const server = createServer({ settings })
  server.on('session', (session) => closing.push(() => session.destroy()))
  server.on('stream', async (stream, headers) => {
    stream.on('error', () => {})
    answer(stream, await buffer(stream), headers)
  })
  closing.push(() => server.close())
  const port = await portOf(server as unknown as Server)
  return callOnce({ host: '127.0.0.1', port }, HEADERS, body, LIMITS)
}

describe("Node's server", () => {
  test('the request arrives as it was, and the answer with header fields, trailers and body', async () => {
    let seen: object = {}
    const { status, fields, body } = await callNode(
      (stream, request, headers) => {
        seen = Object.fromEntries(Object.entries(headers))
        stream.respond({ ':status': 203, 'x-one': 'ä~ü', 'x-two': 'plain' }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-three': 'last' }))
        stream.end(Buffer.concat([request, Buffer.from('!')]))
      },
      { body: Buffer.from('request') },
    )
    expect(seen).toEqual(Object.fromEntries(HEADERS))
    expect([status, body.toString()]).toEqual([203, 'request!'])
    expect(Object.fromEntries(fields)).toMatchObject({ 'x-one': 'ä~ü', 'x-two': 'plain', 'x-three': 'last' })
  })

  test('as much as a request may hold, and a megabyte of answer', async () => {
    const request = Buffer.alloc(MAX_REQUEST_BYTES, 7)
    const { body } = await callNode(
      (stream, received) => {
        stream.respond()
        stream.end(received.equals(request) ? Buffer.alloc(1024 * 1024, 8) : 'other')
      },
      { body: request },
    )
    expect(body.equals(Buffer.alloc(1024 * 1024, 8))).toBe(true)
  })

  test('header fields of more than a frame', async () => {
    const long = 'x'.repeat(20_000)
    const { fields } = await callNode((stream) => stream.respond({ 'x-long': long }, { endStream: true }))
    expect(fields.get('x-long')).toBe(long)
  })

  test('what comes before the answer, and a ping, are no answer', async () => {
    const { status, body } = await callNode((stream) => {
      stream.additionalHeaders({ ':status': 103, 'x-early': '1' })
      stream.session?.ping(() => {
        stream.respond()
        stream.end('after the ping')
      })
    })
    expect([status, body.toString()]).toEqual([200, 'after the ping'])
  })

  test('a server that is about to end answers what it has taken', async () => {
    const { body } = await callNode((stream) => {
      stream.session?.goaway(0, 1)
      stream.respond()
      stream.end('still')
    })
    expect(body.toString()).toBe('still')
  })

  test('whatever header fields and body a server has, they are what is read', async () => {
    const name = fc.stringMatching(/^x-[a-z0-9-]{1,20}$/)
    const value = fc.stringMatching(/^[!-~]{1,60}$/)
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(name, value),
        fc.dictionary(name, value),
        fc.uint8Array(),
        async (head, tail, bytes) => {
          const { fields, body } = await callNode((stream) => {
            stream.respond(head, { waitForTrailers: true })
            stream.on('wantTrailers', () => stream.sendTrailers(tail))
            stream.end(bytes)
          })
          expect(Object.fromEntries(fields)).toMatchObject({ ...head, ...tail })
          expect(body.equals(bytes)).toBe(true)
        },
      ),
      { numRuns: 50 },
    )
  })
})

const SETTINGS = '000000 04 00 00000000'
const frame = (type: number, flags: number, payload: Uint8Array | string = '', stream = 1) => {
  const bytes = typeof payload === 'string' ? Buffer.from(payload, 'latin1') : Buffer.from(payload)
  const header = Buffer.alloc(9)
  header.writeUIntBE(bytes.length, 0, 3)
  header[3] = type
  header[4] = flags
  header.writeUInt32BE(stream, 5)
  return Buffer.concat([header, bytes])
}
const settings = Buffer.from(SETTINGS.replaceAll(' ', ''), 'hex')
const ok = encodeFields([[':status', '200']])
const head = frame(1, 0x4, ok)

function receive(...frames: Buffer[]) {
  return new Http2Exchange(100).receive(Buffer.concat(frames))
}

describe('frames', () => {
  test('padding and priority are taken off, unknown frames passed over', () => {
    const padded = Buffer.concat([Buffer.of(2), Buffer.alloc(5), ok, Buffer.alloc(2)])
    const { answer } = receive(
      settings,
      frame(0xbe, 0xff, 'unknown'),
      frame(1, 0x2c, padded),
      frame(8, 0, Buffer.alloc(4)),
      frame(2, 0, Buffer.alloc(5)),
      frame(0, 0x8, '\u0003abc...'),
      frame(0, 0x1, 'def'),
    )
    expect([answer?.status, answer?.body.toString()]).toEqual([200, 'abcdef'])
  })

  test('§6.5, §6.7: settings and pings are answered, what answers ours is not', () => {
    const { reply, answer } = receive(
      settings,
      frame(4, 1, '', 0),
      frame(6, 0, '12345678', 0),
      frame(6, 1, '12345678', 0),
    )
    expect([reply.equals(Buffer.concat([frame(4, 1, '', 0), frame(6, 1, '12345678', 0)])), answer]).toEqual([
      true,
      null,
    ])
  })

  test('octet by octet it is the same', () => {
    const exchange = new Http2Exchange(100)
    const bytes = [
      ...Buffer.concat([settings, frame(1, 0, ok.subarray(0, 3)), frame(9, 0x4, ok.subarray(3)), frame(0, 1, 'abc')]),
    ]
    const answers = bytes.flatMap((octet) => exchange.receive(Buffer.of(octet)).answer ?? [])
    expect(answers.map(({ status, body }) => [status, body.toString()])).toEqual([[200, 'abc']])
  })

  test.each<[string, string, Buffer[]]>([
    ['no settings first', 'protocol', [head]],
    ['an acknowledgement first', 'protocol', [frame(4, 1, '', 0)]],
    ['a frame larger than agreed', 'protocol', [settings, frame(0, 0, 'x'.repeat(16_385))]],
    ['HTTP/1.1', 'protocol', [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')]],
    ['data before header fields', 'protocol', [settings, frame(0, 1, 'x')]],
    ['another stream', 'protocol', [settings, frame(1, 0x4, ok, 3)]],
    ['data of another stream', 'protocol', [settings, head, frame(0, 0, 'x', 3)]],
    ['header fields that are none', 'protocol', [settings, frame(1, 0x4, '\u0080')]],
    ['no status', 'protocol', [settings, frame(1, 0x4, encodeFields([['x', 'y']]))]],
    ['a status that is none', 'protocol', [settings, frame(1, 0x4, encodeFields([[':status', '2000']]))]],
    ['header fields a second time, which are not the end', 'protocol', [settings, head, head]],
    ['a continuation of nothing', 'protocol', [settings, frame(9, 0x4, ok)]],
    ['something between the parts of header fields', 'protocol', [settings, frame(1, 0, ok), frame(0, 0, '')]],
    ['more padding than frame', 'protocol', [settings, head, frame(0, 0x8, '\u0004abc')]],
    ['padding without its length', 'protocol', [settings, head, frame(0, 0x8)]],
    ['a push', 'protocol', [settings, frame(5, 0x4, Buffer.concat([Buffer.alloc(4), ok]))]],
    ['a ping that is none', 'protocol', [settings, frame(6, 0, '1', 0)]],
    [
      'header fields without end',
      'large',
      [settings, frame(1, 0, ok), ...Array(5).fill(frame(9, 0, 'x'.repeat(16_000)))],
    ],
    ['a body without end', 'large', [settings, head, ...Array(11).fill(frame(0, 0, 'x'.repeat(10)))]],
    ['pings without end', 'protocol', [settings, ...Array(10_000).fill(frame(6, 0, '12345678', 0))]],
    ['a stream that is reset', 'ended', [settings, head, frame(3, 0, Buffer.alloc(4))]],
    ['a connection that is given up', 'ended', [settings, frame(7, 0, Buffer.of(0, 0, 0, 1, 0, 0, 0, 2), 0)]],
    ['a connection that ends before our stream', 'ended', [settings, frame(7, 0, Buffer.alloc(8), 0)]],
  ])('%s: %s', (_, failure, frames) => {
    const receiving = () => receive(...frames)
    expect(receiving).toThrow(CallError)
    expect(receiving).toThrow(expect.objectContaining({ failure }))
  })

  test('whatever frames there are, they are an answer, none yet, or an error', () => {
    const any = fc
      .tuple(fc.nat(11), fc.nat(255), fc.uint8Array({ maxLength: 60 }), fc.constantFrom(0, 1, 1, 1, 3))
      .map(([type, flags, payload, stream]) => frame(type, flags, payload, stream))
    fc.assert(
      fc.property(fc.array(fc.oneof(any, fc.constant(head)), { maxLength: 12 }), (frames) => {
        try {
          receive(settings, ...frames)
        } catch (error) {
          expect(error).toBeInstanceOf(CallError)
        }
      }),
    )
  })
})

test.each([
  ['closes at once', ''],
  ['closes in the midst of a frame', '000004 00'],
])('a server that %s', async (_, octets) => {
  const server = createTcpServer((connection) => {
    connection.on('error', () => {})
    connection.once('data', () => connection.end(Buffer.from(octets.replaceAll(' ', ''), 'hex')))
  })
  closing.push(() => server.close())
  const port = await portOf(server)
  await expect(callOnce({ host: '127.0.0.1', port }, HEADERS, Buffer.alloc(0), LIMITS)).rejects.toMatchObject({
    failure: 'ended',
  })
})
