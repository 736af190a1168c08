/**
 * FetchJWTSVID as a client, and no more of the Workload API than that: kubectl waits for it on every command, and a whole gRPC
 * library takes longer to load than the call takes (docs/adr/0009).
 *
 * @see [SPIFFE Workload API §6](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md#6-jwt-svid-profile)
 * @see [gRPC over HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */

import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { printable } from '../terminal.ts'
import type { EndpointSocket } from './endpoint_socket.ts'
import { CallError, callOnce, MAX_REQUEST_BYTES } from './http2_call.ts'

/** WA-1, WA-2. */
const HEADERS = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/SpiffeWorkloadAPI/FetchJWTSVID'],
  [':authority', 'localhost'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
  ['workload.spiffe.io', 'true'],
] as const
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

async function call(socket: EndpointSocket, message: Uint8Array, timeoutMs: number): Promise<Buffer> {
  const request = frame(message)
  if (request.length > MAX_REQUEST_BYTES)
    throw new WorkloadApiError(STATUS.invalidArgument, 'is asked with more than a request can hold')
  const limits = { timeoutMs, maxBodyBytes: PREFIX_BYTES + MAX_MESSAGE_BYTES }
  const { status, fields, body } = await callOnce(socket, HEADERS, request, limits).catch((error: unknown) => {
    throw error instanceof CallError ? failureOf(error) : error
  })
  // Where there is no body, these are header fields.
  const grpcStatus = fields.get('grpc-status')
  if (status !== 200 || grpcStatus === undefined) throw new WorkloadApiError(STATUS.unavailable, 'does not speak gRPC')
  if (grpcStatus !== '0') throw new WorkloadApiError(statusOf(grpcStatus), messageOf(fields.get('grpc-message')))
  const answer = unframe(body)
  if (!answer) throw new WorkloadApiError(STATUS.internal, 'answers with something that is not one message')
  return answer
}

function failureOf({ failure, code }: CallError): WorkloadApiError {
  switch (failure) {
    case 'late':
      return new WorkloadApiError(STATUS.deadlineExceeded, 'does not answer')
    case 'large':
      return new WorkloadApiError(STATUS.internal, 'answers with more than it has to say')
    case 'protocol':
      return new WorkloadApiError(STATUS.unavailable, 'does not speak gRPC')
    case 'ended':
      return new WorkloadApiError(STATUS.unavailable, 'breaks off')
    case 'connection':
      return new WorkloadApiError(STATUS.unavailable, disconnection(code))
  }
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

function statusOf(status: string): number {
  return /^(?:\d|1[0-6])$/.test(status) ? Number(status) : STATUS.unknown
}

/** What the server says is percent-encoded, and for somebody's eyes. */
function messageOf(text = ''): string {
  let said = text
  try {
    said = decodeURIComponent(said)
  } catch {
    // As it is, then.
  }
  return printable(said.slice(0, MAX_ERROR_CHARACTERS))
}

function disconnection(code: string): string {
  if (code === 'ENOENT') return 'is not there'
  if (code === 'ECONNREFUSED') return 'is not listening'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be used by this user'
  return `breaks off (${code})`
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
