/** START HERE for the agent: what it holds, who asks for it, and what happens when something changes. */

import { SpiffeId } from '../../worker/spiffe/id.ts'
import { AgentLog } from './agent_log.ts'
import { BundleSource, type Bundles } from './bundle_source.ts'
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
  /** Takes a line for the log, and says whether all of it was written. */
  write(text: string): boolean
}

export interface Agent {
  stop(): Promise<void>
}

/**
 * @returns when it listens, whether or not the issuer can be reached
 * @throws Failure where it cannot listen
 */
export async function startAgent({ doors, socket, spiffeIds, clock, random, write }: AgentOptions): Promise<Agent> {
  const log = new AgentLog(write, clock)
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
  void x509.renew()
  const stopped = new AbortController()
  const onChange = (markOf: (bundles: Bundles) => string | null, work: () => Promise<void>) =>
    void whenChanged(() => bundles.held.value && markOf(bundles.held.value), work, changes, stopped.signal)
  // An authority that is taken back takes along what it has signed. Certificates may have to wait for the issuer, and tokens not for them.
  onChange(
    ({ jwtMark }) => jwtMark,
    () => jwt.recheck(),
  )
  onChange(
    ({ x509Mark }) => x509Mark,
    () => x509.recheck(),
  )
  let terms: string | null = null
  onChange(
    ({ termsMark }) => termsMark,
    async () => {
      const before = terms
      terms = bundles.held.value?.termsMark ?? before
      // The first are those under which all has been asked for.
      if (before === null || before === terms) return
      jwt.forget()
      await x509.renew()
    },
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

/** Does the work each time that there is another mark, until the end. */
async function whenChanged(
  markOf: () => string | null,
  work: () => Promise<void>,
  changes: Changes,
  signal: AbortSignal,
): Promise<void> {
  for (let seen = markOf(); !signal.aborted; ) {
    // Before anything is looked at, so that no change is missed meanwhile.
    const change = changes.next(signal)
    const mark = markOf()
    if (mark !== seen) await work()
    seen = mark
    await change
  }
}
