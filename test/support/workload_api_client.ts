/** A client of the Workload API, made of the same library as the agent: for tests of what the agent says, and when. */

import { connect as connectSocket } from 'node:net'
import { type CallOptions, type Client, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { SpiffeWorkloadAPI } from '../../cli/workload_api/workloadapi_pb.ts'

/** What goes with every call. */
export const HEADERS = { 'workload.spiffe.io': 'true' }

export function workloadApiClient(socket: string): Client<typeof SpiffeWorkloadAPI> {
  return createClient(
    SpiffeWorkloadAPI,
    createGrpcTransport({
      baseUrl: 'http://localhost',
      nodeOptions: { createConnection: () => connectSocket(socket) },
    }),
  )
}

/** What a stream has brought, for as long as it is held open. */
export class Held<Message> {
  readonly messages: Message[] = []
  /** By which code it has ended; null while it has not. */
  code: number | null = null
  readonly #over = new AbortController()

  constructor(open: (options: CallOptions) => AsyncIterable<Message>) {
    void this.#read(open({ headers: HEADERS, signal: this.#over.signal }))
  }

  get latest(): Message | undefined {
    return this.messages.at(-1)
  }

  close(): void {
    this.#over.abort()
  }

  async #read(stream: AsyncIterable<Message>): Promise<void> {
    try {
      for await (const message of stream) this.messages.push(message)
      this.code = 0
    } catch (error) {
      this.code = ConnectError.from(error).code
    }
  }
}
