/** START HERE for the agent: what it holds, who asks for it, and what happens when something changes. */

import { SpiffeId } from '../../worker/spiffe/id.ts'
import { AgentLog } from './agent_log.ts'
import { BundleSource } from './bundle_source.ts'
import type { Clock } from './clock.ts'
import { Changes } from './holding.ts'
import type { IssuerDoors } from './issuer_doors.ts'
import { JwtSource } from './jwt_source.ts'
import type { Random } from './renewal.ts'
import { serveWorkloadApi } from './server.ts'
import { WorkloadApiService } from './service.ts'
import { X509Source } from './x509_source.ts'

export interface AgentOptions {
  readonly doors: IssuerDoors
  /** Path of the socket. */
  readonly socket: string
  /** Which identities, the default one first; none leaves it to the issuer. */
  readonly spiffeIds: readonly string[]
  readonly clock: Clock
  readonly random: Random
  /** Takes a line for the log. */
  say(line: string): void
}

export interface Agent {
  stop(): Promise<void>
}

/**
 * @returns when it listens, whether or not the issuer can be reached
 * @throws Failure where it cannot listen
 */
export async function startAgent({ doors, socket, spiffeIds, clock, random, say }: AgentOptions): Promise<Agent> {
  const log = new AgentLog(say, clock)
  const changes = new Changes()
  const deps = { doors, clock, random, log, changes }
  const [first] = spiffeIds
  const identities = first === undefined ? [null] : spiffeIds
  const bundles = new BundleSource(first === undefined ? null : SpiffeId.parse(first).trustDomain, deps)
  const x509 = new X509Source(identities, bundles, deps)
  const jwt = new JwtSource(bundles, deps)
  const service = new WorkloadApiService({ spiffeIds: identities, bundles, x509, jwt }, deps)

  const server = await serveWorkloadApi(socket, service, clock)
  log.say({ event: 'listening', socket, issuer: doors.issuer })
  void bundles.start()
  void x509.start()
  const stopped = new AbortController()
  void recheckOnChange(bundles, x509, jwt, changes, stopped.signal)
  return {
    async stop() {
      log.end({ event: 'stopping' })
      stopped.abort()
      bundles.stop()
      x509.stop()
      await server.stop()
    },
  }
}

/** An authority that is taken back takes along what it has signed. */
async function recheckOnChange(
  { held }: BundleSource,
  x509: X509Source,
  jwt: JwtSource,
  changes: Changes,
  signal: AbortSignal,
): Promise<void> {
  for (let checked = held.value; !signal.aborted; ) {
    await changes.next(signal)
    const before = checked
    checked = held.value
    if (checked?.jwtMark !== before?.jwtMark) await jwt.recheck()
    if (checked?.x509Mark !== before?.x509Mark) await x509.recheck()
  }
}
