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
  // Each for itself: certificates may have to wait for the issuer, and tokens not for them.
  void recheckOnChange(
    () => bundles.held.value?.jwtMark,
    () => jwt.recheck(),
    changes,
    stopped.signal,
  )
  void recheckOnChange(
    () => bundles.held.value?.x509Mark,
    () => x509.recheck(),
    changes,
    stopped.signal,
  )
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
  markOf: () => string | undefined,
  recheck: () => Promise<void>,
  changes: Changes,
  signal: AbortSignal,
): Promise<void> {
  for (let checked = markOf(); !signal.aborted; ) {
    // Before anything is looked at, so that no change is missed meanwhile.
    const change = changes.next(signal)
    const mark = markOf()
    if (mark !== checked) await recheck()
    checked = mark
    await change
  }
}
