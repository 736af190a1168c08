/**
 * gRPC over HTTP/2 on a unix socket, for callers of whom nothing is known: each has its bounds, and none can take what the others need.
 *
 * @see [SPIFFE Workload Endpoint](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_Endpoint.md)
 */

import {
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
/** How long a connection may be there for nothing. */
const IDLE_MS = 60_000
/** How long a request may take to arrive, and an answer to be taken. */
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
  server.on('request', (request, response) => {
    guard(request.stream, clock)
    handle(request, response)
  })
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session) => {
    sessions.add(session)
    session.on('close', () => sessions.delete(session))
    endWhenIdle(session, clock)
  })
  // What one connection does wrong ends it, and nothing else.
  server.on('sessionError', (_, session) => session.destroy())
  server.maxConnections = MAX_CONNECTIONS
  await listenOnSocket(server, path)
  return {
    async stop() {
      shutdown.abort(new ConnectError('the agent is stopping', Code.Unavailable))
      await ended(server, sessions, clock)
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
      await universalResponseToNodeResponse(
        await method(universalRequestFromNodeRequest(request, response, undefined, undefined)),
        response,
      )
    }
    // A caller that is gone, or one without an :authority. There is nobody to tell.
    answer().catch(() => request.stream.destroy())
  }
}

/** A call holds its place for as long as it moves: a stream may be silent for hours, if what was sent has been taken. */
function guard(stream: ServerHttp2Stream, clock: Clock): void {
  let arriving = true
  let waiting = 0
  let cancel = () => {}
  const look = () => {
    const stuck = stream.writableLength > 0 && stream.writableLength === waiting
    if (arriving || stuck) return stream.destroy()
    waiting = stream.writableLength
    cancel = clock.after(STALLED_MS, look)
  }
  cancel = clock.after(STALLED_MS, look)
  stream.on('error', () => {})
  stream.once('end', () => {
    arriving = false
  })
  stream.once('close', () => cancel())
}

function endWhenIdle(session: ServerHttp2Session, clock: Clock): void {
  let open = 0
  let cancel = () => {}
  const idle = () => {
    cancel = clock.after(IDLE_MS, () => {
      session.close()
      // Who does not answer is not waited for.
      cancel = clock.after(ENDING_MS, () => session.destroy())
    })
  }
  idle()
  session.on('stream', (stream) => {
    open++
    cancel()
    stream.once('close', () => {
      open--
      if (open === 0 && !session.destroyed) idle()
    })
  })
  session.once('close', () => cancel())
}

async function ended(server: Http2Server, sessions: ReadonlySet<ServerHttp2Session>, clock: Clock): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  for (const session of sessions) session.close()
  const cancel = clock.after(ENDING_MS, () => {
    for (const session of sessions) session.destroy()
  })
  await closed
  cancel()
}
