/**
 * gRPC over HTTP/2 on a unix socket, for callers of whom nothing is known: each has its bounds, and so have all of them together. Where there are
 * too many, those go who have done nothing for the longest time: clients of SPIFFE come again, and nobody keeps the others out.
 *
 * @see [SPIFFE Workload Endpoint](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_Endpoint.md)
 */

import {
  constants,
  createServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { Code, ConnectError, createConnectRouter } from '@connectrpc/connect'
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node'
import { listenOnSocket } from './agent_socket.ts'
import type { Clock } from './clock.ts'
import { securityHeader, type WorkloadApiService } from './service.ts'

/** A token that nobody takes, and audiences, are smaller. */
const MAX_REQUEST_BYTES = 64 * 1024
/** A go-spiffe program has one connection for each of its sources. */
const MAX_CONNECTIONS = 256
const MAX_STREAMS_OF_ONE = 100
const MAX_STREAMS = 1000
/** Requests that have not arrived as a whole. One is there within a moment, unless somebody sends it in pieces. */
const MAX_ARRIVING = 256
const ARRIVAL_MS = 5000
/** How long an answer may take to be taken. */
const STALLED_MS = 30_000
/** How long streams may take to end when we do. */
const ENDING_MS = 1000
const MAX_HEADER_BYTES = 16 * 1024

/** WA-9: also for WIT-SVIDs. An answer of trailers alone. */
const UNIMPLEMENTED = {
  ...{ ':status': 200, 'content-type': 'application/grpc' },
  ...{ 'grpc-status': String(Code.Unimplemented), 'grpc-message': 'there is no such method here' },
}

export interface RunningServer {
  /** Ends the streams, with Unavailable, and then the connections; the socket is gone. */
  stop(): Promise<void>
}

/**
 * @param path of the socket
 * @throws Failure
 */
export async function serveWorkloadApi(
  path: string,
  service: WorkloadApiService,
  clock: Clock,
): Promise<RunningServer> {
  const shutdown = new AbortController()
  const server = createServer({
    settings: { maxConcurrentStreams: MAX_STREAMS_OF_ONE, maxHeaderListSize: MAX_HEADER_BYTES },
  })
  const handle = grpcHandler(service, shutdown.signal)
  const calls = new Calls(clock)
  server.on('request', (request, response) => {
    calls.add(request.stream)
    handle(request, response)
  })
  const connections = new Connections()
  server.on('session', (session) => connections.add(session))
  // What one connection does wrong ends it, and nothing else.
  server.on('sessionError', (_, session) => session.destroy())
  await listenOnSocket(server, path)
  return {
    async stop() {
      shutdown.abort(new ConnectError('the agent is stopping', Code.Unavailable))
      await ended(server, connections, clock)
    },
  }
}

function grpcHandler(service: WorkloadApiService, shutdownSignal: AbortSignal) {
  const router = createConnectRouter({
    ...{ connect: false, grpcWeb: false, acceptCompression: [], shutdownSignal },
    ...{ readMaxBytes: MAX_REQUEST_BYTES, interceptors: [securityHeader] },
  })
  service.routes(router)
  const methods = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))
  return (request: Http2ServerRequest, response: Http2ServerResponse): void => {
    const answer = async () => {
      const method = methods.get(request.url)
      if (!method) return request.resume().stream.respond(UNIMPLEMENTED, { endStream: true })
      // On a unix socket it says nothing, and C-core's clients have the path of the socket there, which is part of no URL.
      request.headers[':authority'] = 'localhost'
      await universalResponseToNodeResponse(
        await method(universalRequestFromNodeRequest(request, response, undefined, undefined)),
        response,
      )
    }
    // A caller that is gone, and whatever the library does not take for a call. There is nobody to tell.
    answer().catch(() => reset(request.stream, constants.NGHTTP2_INTERNAL_ERROR))
  }
}

/** A call holds its place for as long as it moves: a stream may be silent for hours, if what was sent has been taken. */
class Calls {
  readonly #clock: Clock
  /** Both in the order in which they have begun. */
  readonly #arriving = new Set<ServerHttp2Stream>()
  readonly #open = new Set<ServerHttp2Stream>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(stream: ServerHttp2Stream): void {
    this.#arriving.add(stream)
    this.#open.add(stream)
    let cancel = this.#clock.after(ARRIVAL_MS, () => this.#end(stream))
    stream.on('error', () => {})
    stream.once('end', () => {
      this.#arriving.delete(stream)
      cancel()
      let waiting = 0
      const look = () => {
        if (stream.writableLength > 0 && stream.writableLength === waiting) return this.#end(stream)
        waiting = stream.writableLength
        cancel = this.#clock.after(STALLED_MS, look)
      }
      cancel = this.#clock.after(STALLED_MS, look)
    })
    stream.once('close', () => {
      this.#arriving.delete(stream)
      this.#open.delete(stream)
      cancel()
    })
    if (this.#arriving.size > MAX_ARRIVING) this.#endFirst(this.#arriving)
    if (this.#open.size > MAX_STREAMS) this.#endFirst(this.#open)
  }

  #endFirst([first]: Iterable<ServerHttp2Stream>): void {
    if (first) this.#end(first)
  }

  #end(stream: ServerHttp2Stream): void {
    this.#arriving.delete(stream)
    this.#open.delete(stream)
    // ResourceExhausted: after Canceled, go-spiffe would not come again.
    reset(stream, constants.NGHTTP2_ENHANCE_YOUR_CALM)
  }
}

function reset(stream: ServerHttp2Stream, code: number): void {
  stream.close(code)
  // Not only when all has been taken that is on its way.
  stream.destroy()
}

/** All that are there, in the order in which a call of theirs has last begun or ended. */
class Connections {
  readonly #calls = new Map<ServerHttp2Session, number>()

  /** Where there are too many, one goes that nobody would miss, or else the one of which least has been heard. */
  add(session: ServerHttp2Session): void {
    if (this.#calls.size >= MAX_CONNECTIONS) {
      const [longest] = this.#calls
      const [leaving] = [...this.#calls].find(([, calls]) => calls === 0) ?? longest ?? [session]
      leaving.destroy()
      this.#calls.delete(leaving)
    }
    this.#calls.set(session, 0)
    session.on('stream', (stream) => {
      this.#count(session, 1)
      stream.once('close', () => this.#count(session, -1))
    })
    session.once('close', () => this.#calls.delete(session))
  }

  /** Those calls that are under way may end. */
  close(): void {
    for (const session of this.#calls.keys()) session.close()
  }

  destroy(): void {
    for (const session of this.#calls.keys()) session.destroy()
  }

  #count(session: ServerHttp2Session, change: number): void {
    const calls = this.#calls.get(session)
    if (calls === undefined) return
    // To the end: it has been busy until now.
    this.#calls.delete(session)
    this.#calls.set(session, calls + change)
  }
}

async function ended(server: Http2Server, connections: Connections, clock: Clock): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  connections.close()
  const cancel = clock.after(ENDING_MS, () => connections.destroy())
  await closed
  cancel()
}
