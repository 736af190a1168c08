/**
 * One request and its answer over HTTP/2, on a connection of its own and without TLS. `node:http2` does as much, and takes nearly as long to load as Node takes
 * to start, which is what somebody waits for who runs kubectl (docs/adr/0009).
 *
 * @see [RFC 9113](https://www.rfc-editor.org/rfc/rfc9113)
 */

import { connect } from 'node:net'
import type { EndpointSocket } from './endpoint_socket.ts'
import { encodeFields, type Field, HpackDecoder, HpackError } from './hpack.ts'

/** Why there is no answer. */
export type CallFailure =
  | 'late'
  /** More than was to be taken. */
  | 'large'
  /** It does not speak HTTP/2, or not as it should. */
  | 'protocol'
  /** The server has put an end to it. */
  | 'ended'
  /** The operating system has; `code` says why. */
  | 'connection'

export class CallError extends Error {
  override readonly name = 'CallError'
  readonly failure: CallFailure
  /** Of the operating system, else empty. */
  readonly code: string

  constructor(failure: CallFailure, code = '') {
    super(`${failure} ${code}`.trim())
    this.failure = failure
    this.code = code
  }
}

export interface CallAnswer {
  readonly status: number
  /** Header and trailer fields by their names; of several the last. */
  readonly fields: ReadonlyMap<string, string>
  readonly body: Buffer
}

export interface CallLimits {
  readonly timeoutMs: number
  readonly maxBodyBytes: number
}

/** What every peer takes before it has said more (§6.5.2): of a frame, and of all frames. */
const MAX_FRAME_BYTES = 16_384
export const MAX_REQUEST_BYTES = 65_535
/** Compressed; and of as many does a server have nothing to say. */
const MAX_HEADER_BYTES = 64 * 1024
/** Frames beside those of the answer: a server that sends more has something else in mind. */
const MAX_FRAMES = 10_000

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const FRAME_HEADER_BYTES = 9
const STREAM = 1

const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  resetStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const
const FLAG = { ack: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const
const SETTING = { enablePush: 2, initialWindowSize: 4 } as const

/**
 * @param headers with `:method`, `:scheme`, `:path` and `:authority` first
 * @param body MAX_REQUEST_BYTES at most
 * @throws CallError
 */
export function callOnce(
  socket: EndpointSocket,
  headers: readonly Field[],
  body: Uint8Array,
  { timeoutMs, maxBodyBytes }: CallLimits,
): Promise<CallAnswer> {
  return new Promise((resolve, reject) => {
    const connection = connect(socket)
    const exchange = new Http2Exchange(maxBodyBytes)
    const end = () => {
      clearTimeout(timer)
      connection.destroy()
    }
    const fail = (error: unknown) => {
      end()
      reject(error)
    }
    const timer = setTimeout(() => fail(new CallError('late')), timeoutMs)
    connection.on('error', ({ code }: NodeJS.ErrnoException) => fail(new CallError('connection', code)))
    connection.on('close', () => fail(new CallError('ended')))
    connection.on('data', (bytes) => {
      try {
        const { reply, answer } = exchange.receive(bytes)
        if (answer) {
          end()
          resolve(answer)
        } else if (reply.length > 0) connection.write(reply)
      } catch (error) {
        fail(error)
      }
    })
    connection.write(requestOf(headers, body, maxBodyBytes))
  })
}

/** All that the client has to say, which needs nothing of the server's first. */
function requestOf(headers: readonly Field[], body: Uint8Array, maxBodyBytes: number): Buffer {
  // So large that no further word on it is needed: twice what is taken.
  const window = 2 * maxBodyBytes
  const settings = Buffer.alloc(12)
  settings.writeUInt16BE(SETTING.enablePush, 0)
  settings.writeUInt32BE(0, 2)
  settings.writeUInt16BE(SETTING.initialWindowSize, 6)
  settings.writeUInt32BE(window, 8)
  const increment = Buffer.alloc(4)
  increment.writeUInt32BE(window)
  const frames = [
    PREFACE,
    frame(FRAME.settings, 0, 0, settings),
    frame(FRAME.windowUpdate, 0, 0, increment),
    frame(FRAME.headers, FLAG.endHeaders, STREAM, encodeFields(headers)),
  ]
  for (let at = 0; at === 0 || at < body.length; at += MAX_FRAME_BYTES) {
    const last = at + MAX_FRAME_BYTES >= body.length
    frames.push(frame(FRAME.data, last ? FLAG.endStream : 0, STREAM, body.subarray(at, at + MAX_FRAME_BYTES)))
  }
  return Buffer.concat(frames)
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const framed = Buffer.alloc(FRAME_HEADER_BYTES + payload.length)
  framed.writeUIntBE(payload.length, 0, 3)
  framed[3] = type
  framed[4] = flags
  framed.writeUInt32BE(stream, 5)
  framed.set(payload, FRAME_HEADER_BYTES)
  return framed
}

interface HeaderBlock {
  readonly endStream: boolean
  bytes: Buffer
}

/** The client's side of the one stream, without input and output. */
export class Http2Exchange {
  readonly #maxBodyBytes: number
  readonly #decoder = new HpackDecoder()
  readonly #body: Buffer[] = []
  readonly #fields = new Map<string, string>()
  #pending: Buffer = Buffer.alloc(0)
  #frames = 0
  #greeted = false
  #status = 0
  #bodyBytes = 0
  /** Of header fields that are not whole yet. */
  #block: HeaderBlock | null = null
  #ended = false

  constructor(maxBodyBytes: number) {
    this.#maxBodyBytes = maxBodyBytes
  }

  /**
   * @returns what is to be sent, and the answer once it is whole
   * @throws CallError
   */
  receive(bytes: Buffer): { readonly reply: Buffer; readonly answer: CallAnswer | null } {
    const replies: Buffer[] = []
    this.#pending = Buffer.concat([this.#pending, bytes])
    while (!this.#ended && this.#pending.length >= FRAME_HEADER_BYTES) {
      const length = this.#pending.readUIntBE(0, 3)
      if (length > MAX_FRAME_BYTES || ++this.#frames > MAX_FRAMES) throw new CallError('protocol')
      if (this.#pending.length < FRAME_HEADER_BYTES + length) break
      const [, , , type = 0, flags = 0] = this.#pending
      const stream = this.#pending.readUInt32BE(5) & 0x7fff_ffff
      const payload = this.#pending.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length)
      this.#pending = this.#pending.subarray(FRAME_HEADER_BYTES + length)
      const reply = this.#take(type, flags, stream, payload)
      if (reply) replies.push(reply)
    }
    const answer = this.#ended ? { status: this.#status, fields: this.#fields, body: Buffer.concat(this.#body) } : null
    return { reply: Buffer.concat(replies), answer }
  }

  #take(type: number, flags: number, stream: number, payload: Buffer): Buffer | null {
    // §3.4: the server begins with its settings. §6.10: nothing comes between the parts of a header block.
    if (!this.#greeted && (type !== FRAME.settings || (flags & FLAG.ack) !== 0)) throw new CallError('protocol')
    if (this.#block && type !== FRAME.continuation) throw new CallError('protocol')
    this.#greeted = true
    switch (type) {
      case FRAME.settings:
        // What they are does not matter: all that we send has been sent by what goes without saying.
        return (flags & FLAG.ack) === 0 ? frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)) : null
      case FRAME.ping:
        if (payload.length !== 8) throw new CallError('protocol')
        return (flags & FLAG.ack) === 0 ? frame(FRAME.ping, FLAG.ack, 0, payload) : null
      case FRAME.goAway:
        // Without an error it still answers what it has taken (§6.8).
        if (payload.length < 8 || (payload.readUInt32BE(0) & 0x7fff_ffff) < STREAM || payload.readUInt32BE(4) !== 0)
          throw new CallError('ended')
        return null
      case FRAME.resetStream:
        throw new CallError('ended')
      case FRAME.headers:
        this.#takeHeaders(flags, stream, payload)
        return null
      case FRAME.continuation:
        this.#takeContinuation(flags, stream, payload)
        return null
      case FRAME.data:
        this.#takeData(flags, stream, payload)
        return null
      case FRAME.pushPromise:
        throw new CallError('protocol')
      default:
        // §5.5: what is not known is passed over.
        return null
    }
  }

  #takeHeaders(flags: number, stream: number, payload: Buffer): void {
    if (stream !== STREAM) throw new CallError('protocol')
    const content = unpad(flags, payload)
    const bytes = (flags & FLAG.priority) === 0 ? content : content.subarray(5)
    this.#block = { endStream: (flags & FLAG.endStream) !== 0, bytes }
    if ((flags & FLAG.endHeaders) !== 0) this.#endHeaders(this.#block)
  }

  #takeContinuation(flags: number, stream: number, payload: Buffer): void {
    if (!this.#block || stream !== STREAM) throw new CallError('protocol')
    if (this.#block.bytes.length + payload.length > MAX_HEADER_BYTES) throw new CallError('large')
    this.#block.bytes = Buffer.concat([this.#block.bytes, payload])
    if ((flags & FLAG.endHeaders) !== 0) this.#endHeaders(this.#block)
  }

  #endHeaders({ endStream, bytes }: HeaderBlock): void {
    this.#block = null
    const fields = new Map(this.#decode(bytes))
    if (this.#status === 0) {
      const status = fields.get(':status') ?? ''
      if (!/^[1-5]\d\d$/.test(status)) throw new CallError('protocol')
      // What comes before the answer (RFC 9110 §15.2).
      if (status.startsWith('1') && !endStream) return
      this.#status = Number(status)
    } else if (!endStream) throw new CallError('protocol')
    for (const [name, value] of fields) this.#fields.set(name, value)
    this.#ended = endStream
  }

  #decode(bytes: Buffer): Field[] {
    try {
      return this.#decoder.decode(bytes)
    } catch (error) {
      if (error instanceof HpackError) throw new CallError('protocol')
      throw error
    }
  }

  #takeData(flags: number, stream: number, payload: Buffer): void {
    if (stream !== STREAM || this.#status === 0) throw new CallError('protocol')
    const content = unpad(flags, payload)
    this.#bodyBytes += content.length
    if (this.#bodyBytes > this.#maxBodyBytes) throw new CallError('large')
    this.#body.push(content)
    this.#ended = (flags & FLAG.endStream) !== 0
  }
}

/** §6.1 */
function unpad(flags: number, payload: Buffer): Buffer {
  if ((flags & FLAG.padded) === 0) return payload
  const padding = payload[0] ?? 0
  if (padding >= payload.length) throw new CallError('protocol')
  return payload.subarray(1, payload.length - padding)
}
