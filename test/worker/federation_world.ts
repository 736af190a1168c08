/** What the state of other trust domains finds around itself: its clock, its log, and who wakes it up. */

import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import type { Stamp } from '../../worker/key_settings.ts'
import type { FederationReading, FederationState, PeerStatus } from '../../worker/state/federation_state.ts'
import type { NamedPeer, Naming } from '../../worker/state/federation_store.ts'
import { Clock } from '../support/clock.ts'
import { STAMP } from './key_world.ts'

/** One for all copies of this module, as in key_world.ts. */
const shared = globalThis as { federationWorlds?: Map<string, FederationWorld> }
shared.federationWorlds ??= new Map()
const worlds = shared.federationWorlds

export function federationWorldOf(id: DurableObjectId): FederationWorld | undefined {
  return worlds.get(id.toString())
}

/** A state of its own. */
export class FederationWorld {
  /** When the state wants to be woken up; null for never. */
  wakeAt: number | null = null
  readonly events: Record<string, unknown>[] = []
  readonly id = env.FEDERATION_STATE.idFromName(`test-${crypto.randomUUID()}`)
  readonly clock: Clock

  constructor(clock = new Clock()) {
    this.clock = clock
    worlds.set(this.id.toString(), this)
  }

  get stub(): DurableObjectStub<FederationState> {
    return env.FEDERATION_STATE.get(this.id) as unknown as DurableObjectStub<FederationState>
  }

  async read(naming: Naming, known: number | null = null, stamp: Stamp = STAMP) {
    const reading = (await this.stub.read(stamp, naming, known)) as unknown as FederationReading
    if (reading.stamp !== 'ours') throw new TypeError(`foreign: ${reading.field}`)
    return reading
  }

  async name(naming: Naming, ...peers: readonly NamedPeer[]): Promise<void> {
    await this.stub.tell(STAMP, naming, peers)
  }

  async report(): Promise<PeerStatus[]> {
    return (await this.stub.report(STAMP)) as unknown as PeerStatus[]
  }

  async status(trustDomain: string): Promise<PeerStatus> {
    const status = (await this.report()).find((one) => one.trustDomain === trustDomain)
    if (!status) throw new TypeError(`no ${trustDomain}`)
    return status
  }

  /** Wakes the state up, if its time has come. */
  async wake(): Promise<void> {
    if (this.wakeAt === null || this.wakeAt > this.clock.now()) return
    this.wakeAt = null
    await runInDurableObject(this.stub, (state: FederationState) => state.alarm())
  }

  /** Lets time pass, and wakes the state up whenever it wants to be. */
  async pass(seconds: number): Promise<void> {
    const end = this.clock.now() + seconds
    for (let turns = 0; this.wakeAt !== null && this.wakeAt <= end; turns++) {
      if (turns > 10_000) throw new RangeError('it never sleeps')
      this.clock.seconds = Math.max(this.clock.seconds, this.wakeAt)
      await this.wake()
    }
    this.clock.seconds = end
  }
}
