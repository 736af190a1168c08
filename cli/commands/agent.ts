/** `spiffe-edge agent`: the SPIFFE Workload API for the containers of one pod, as a sidecar (T-25). */

import { once } from 'node:events'
import type { Command } from 'commander'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import { UsageError } from '../failure.ts'
import { readToken } from '../input_file.ts'
import { issuerOf } from '../issuer.ts'
import { writeIfPossible } from '../standard_streams.ts'
import type { Terminal } from '../terminal.ts'
import { startAgent } from '../workload_api/agent.ts'
import { SYSTEM_CLOCK } from '../workload_api/clock.ts'
import { parseEndpointSocket } from '../workload_api/endpoint_socket.ts'
import { issuerDoors } from '../workload_api/issuer_doors.ts'

interface Options {
  readonly issuer?: string
  readonly tokenFile?: string
  readonly socket?: string
  readonly spiffeId?: readonly string[]
}

export function addAgent(program: Command, terminal: Terminal): void {
  program
    .command('agent')
    .description('serve the SPIFFE Workload API on a unix socket, for the containers of one pod')
    .option('--issuer <url>', 'the worker, by its issuer URL (or SPIFFE_EDGE_ISSUER)')
    .option('--token-file <file>', "the pod's projected service account token (or SPIFFE_EDGE_TOKEN_FILE)")
    .option('--socket <path>', 'where to listen, also as unix:///path (or SPIFFE_ENDPOINT_SOCKET)')
    .option('--spiffe-id <id...>', 'which identities, where there are several; the first one is the default')
    .action((options: Options) => run(options, terminal))
}

async function run(options: Options, terminal: Terminal): Promise<void> {
  const { env } = terminal
  const issuer = issuerOf(options, terminal)
  const file = options.tokenFile ?? env.SPIFFE_EDGE_TOKEN_FILE
  if (!file || file === '-') throw new UsageError('which token? Give --token-file, or set SPIFFE_EDGE_TOKEN_FILE')
  const socket = socketOf(options.socket ?? env.SPIFFE_ENDPOINT_SOCKET)
  const spiffeIds = spiffeIdsOf(options.spiffeId ?? [])
  // From the beginning: whoever ends a pod need not wait until it is up.
  const ended = Promise.race(['SIGTERM', 'SIGINT'].map((signal) => once(process, signal)))
  const stopping = new AbortController()
  const agent = await startAgent({
    doors: issuerDoors(issuer, () => readToken(file, terminal), stopping.signal),
    ...{ socket, spiffeIds },
    clock: SYSTEM_CLOCK,
    random: Math.random,
    write: (text) => writeIfPossible(2, text),
  })
  await ended
  const stopped = agent.stop()
  stopping.abort()
  await stopped
}

/** @throws UsageError */
function socketOf(socket: string | undefined): string {
  if (!socket) throw new UsageError('where? Give --socket, or set SPIFFE_ENDPOINT_SOCKET')
  if (!socket.includes(':')) return socket
  const endpoint = parseEndpointSocket('--socket', socket)
  if (!('path' in endpoint)) throw new UsageError('--socket: only a unix socket says whose calls it takes')
  return endpoint.path
}

/** @throws UsageError */
function spiffeIdsOf(texts: readonly string[]): string[] {
  const ids = [...new Set(texts)].map((text) => {
    try {
      return SpiffeId.parse(text)
    } catch (error) {
      if (error instanceof SpiffeIdError) throw new UsageError(`--spiffe-id: ${error.message}`)
      throw error
    }
  })
  if (new Set(ids.map(({ trustDomain }) => trustDomain.name)).size > 1)
    throw new UsageError('--spiffe-id: not all of one trust domain')
  return ids.map(String)
}
