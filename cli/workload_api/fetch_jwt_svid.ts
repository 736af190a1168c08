/**
 * FetchJWTSVID as a client, and no more of the Workload API than that: kubectl waits for it on every command, and a whole gRPC
 * library takes longer to load than the call takes (docs/adr/0009).
 *
 * @see [SPIFFE Workload API §6](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md#6-jwt-svid-profile)
 * @see [gRPC over HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */

import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { printable } from '../terminal.ts'
import type { EndpointSocket } from './endpoint_socket.ts'

const METHOD = '/SpiffeWorkloadAPI/FetchJWTSVID'
/** A flag for compression, and the length. */
const PREFIX_BYTES = 5
/** SVIDs for a hundred identities are smaller. */
const MAX_MESSAGE_BYTES = 1024 * 1024
const MAX_ERROR_CHARACTERS = 300

/** Those that we make ourselves, and those that WA-5 has something to say about. */
export const STATUS = {
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  permissionDenied: 7,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
} as const

type Headers = Readonly<Record<string, unknown>>

/** The call did not end well. The message is of one line, and has none of a token. */
export class WorkloadApiError extends Error {
  override readonly name = 'WorkloadApiError'
  /** @see [gRPC status codes](https://grpc.github.io/grpc/core/md_doc_statuscodes.html) */
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export interface FetchedJwtSvid {
  readonly spiffeId: string
  /** JWS Compact Serialization. Nothing of it has been looked at. */
  readonly svid: string
  /** May be empty. */
  readonly hint: string
}

/**
 * @param spiffeId which identity; empty for all of them
 * @param timeoutMs until the answer is whole
 * @returns what the server sent, in its order, the default identity first
 * @throws WorkloadApiError
 */
export async function fetchJwtSvids(
  socket: EndpointSocket,
  audience: readonly string[],
  spiffeId: string,
  timeoutMs: number,
): Promise<FetchedJwtSvid[]> {
  return readResponse(await call(socket, writeRequest(audience, spiffeId), timeoutMs))
}

function writeRequest(audience: readonly string[], spiffeId: string): Uint8Array {
  const message = new BinaryWriter()
  for (const one of audience) message.tag(1, WireType.LengthDelimited).string(one)
  if (spiffeId !== '') message.tag(2, WireType.LengthDelimited).string(spiffeId)
  return message.finish()
}

function call(socket: EndpointSocket, request: Uint8Array, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) })
    const fail = (status: number, message: string) => {
      clearTimeout(timer)
      session.destroy()
      reject(new WorkloadApiError(status, message))
    }
    const disconnected = (error: unknown) => fail(STATUS.unavailable, disconnection(error))
    const timer = setTimeout(() => fail(STATUS.deadlineExceeded, 'does not answer'), timeoutMs)
    session.on('error', disconnected)
    const stream = session.request({
      ':method': 'POST',
      ':path': METHOD,
      'content-type': 'application/grpc',
      te: 'trailers',
      'workload.spiffe.io': 'true',
    })
    const chunks: Buffer[] = []
    let length = 0
    // Of an answer that is an error from the start, these are also its trailers.
    let head: Headers = {}
    let trailers: Headers = {}
    stream.on('response', (headers) => {
      head = headers
    })
    stream.on('trailers', (headers) => {
      trailers = headers
    })
    stream.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length > PREFIX_BYTES + MAX_MESSAGE_BYTES) fail(STATUS.internal, 'answers with more than it has to say')
      else chunks.push(chunk)
    })
    stream.on('error', disconnected)
    stream.on('close', () => fail(STATUS.unavailable, 'breaks off'))
    stream.on('end', () => {
      if (head[':status'] === undefined) return fail(STATUS.unavailable, 'breaks off before it answers')
      const { 'grpc-status': status, 'grpc-message': text } = { ...head, ...trailers }
      if (head[':status'] !== 200 || status === undefined) return fail(STATUS.unavailable, 'does not speak gRPC')
      if (status !== '0') return fail(statusOf(status), messageOf(text))
      const message = unframe(Buffer.concat(chunks))
      if (!message) return fail(STATUS.internal, 'answers with something that is not one message')
      resolve(message)
      clearTimeout(timer)
      session.destroy()
    })
    stream.end(frame(request))
  })
}

function frame(message: Uint8Array): Buffer {
  const framed = Buffer.alloc(PREFIX_BYTES + message.length)
  framed.writeUInt32BE(message.length, 1)
  framed.set(message, PREFIX_BYTES)
  return framed
}

/** @returns the message; null if it is compressed, which nobody has asked for, or not one */
function unframe(body: Buffer): Buffer | null {
  if (body.length < PREFIX_BYTES || body[0] !== 0) return null
  const message = body.subarray(PREFIX_BYTES)
  return message.length === body.readUInt32BE(1) ? message : null
}

function statusOf(status: unknown): number {
  const code = Number(status)
  return Number.isInteger(code) && code >= 0 && code <= 16 ? code : STATUS.unknown
}

/** What the server says is percent-encoded, and for somebody's eyes. */
function messageOf(text: unknown): string {
  let said = String(text ?? '')
  try {
    said = decodeURIComponent(said)
  } catch {
    // As it is, then.
  }
  return printable(said.slice(0, MAX_ERROR_CHARACTERS))
}

/** By its code: the message repeats what we know. */
function disconnection(error: unknown): string {
  // A stream that is cancelled because its session cannot begin says that it is cancelled, and of the session why.
  const { code = '' } = ((error as Error).cause ?? error) as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'is not there'
  if (code === 'ECONNREFUSED') return 'is not listening'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be used by this user'
  return code === '' ? 'breaks off' : `breaks off (${code})`
}

function readResponse(bytes: Buffer): FetchedJwtSvid[] {
  try {
    const svids: FetchedJwtSvid[] = []
    const reader = new BinaryReader(bytes)
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag()
      if (field === 1 && type === WireType.LengthDelimited) svids.push(readSvid(reader.bytes()))
      else reader.skip(type, field)
    }
    return svids
  } catch {
    throw new WorkloadApiError(STATUS.internal, 'answers with something that is not one message')
  }
}

function readSvid(bytes: Uint8Array): FetchedJwtSvid {
  const texts = ['', '', '']
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    if (field >= 1 && field <= 3 && type === WireType.LengthDelimited) texts[field - 1] = reader.string(true)
    else reader.skip(type, field)
  }
  const [spiffeId = '', svid = '', hint = ''] = texts
  return { spiffeId, svid, hint }
}
