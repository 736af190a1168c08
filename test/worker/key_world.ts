/** What the state of the keys finds around itself: its environment, its clock, and who wakes it up. */

import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import type { WrappingReference } from '../../keys/key_reference.ts'
import type { KmsAccess } from '../../keys/kms.ts'
import { type KeySettings, type ListedKey, parseKeyList, type Stamp } from '../../worker/key_settings.ts'
import { KEY_TIMES, type KeyTimes } from '../../worker/key_times.ts'
import type { KeyReading, KeyReport, KeyState, OurReading } from '../../worker/state/key_state.ts'
import { Clock } from '../support/clock.ts'
import { ISSUER } from '../support/policy.ts'

export const STAMP: Stamp = { mode: 'development', issuer: ISSUER, trustDomain: 'example.org' }

/** One for all copies of this module: a test may have its modules loaded anew, and the object keeps the ones it has. */
const shared = globalThis as { keyWorlds?: Map<string, KeyWorld> }
shared.keyWorlds ??= new Map()
const worlds = shared.keyWorlds

export function worldOf(id: DurableObjectId): KeyWorld | undefined {
  return worlds.get(id.toString())
}

function listed(keys: readonly string[], authorities: readonly string[]): ListedKey[] {
  const problems: string[] = []
  const list = [
    ...parseKeyList('jwt-svid', keys.join(' '), 'development', problems),
    ...parseKeyList('x509-svid', authorities.join(' '), 'development', problems),
  ]
  if (problems.length > 0) throw new TypeError(problems.join())
  return list
}

/** A state of its own, deployed with one list of keys after another. */
export class KeyWorld {
  /** As it was last deployed; null where that can't be read. */
  settings: KeySettings | null
  /** When the state wants to be woken up; null for never. */
  wakeAt: number | null = null
  readonly clock: Clock
  readonly id: DurableObjectId
  #authorities: readonly string[]

  constructor(
    list: readonly string[],
    given: {
      kms?: KmsAccess | null
      wrapping?: readonly WrappingReference[]
      times?: KeyTimes
      clock?: Clock
      authorities?: readonly string[]
    } = {},
    id = env.KEY_STATE.idFromName(`test-${crypto.randomUUID()}`),
  ) {
    const { kms = null, wrapping = [], times = KEY_TIMES, clock = new Clock(), authorities = [] } = given
    this.#authorities = authorities
    this.settings = { stamp: STAMP, sources: listed(list, authorities), kms, wrapping, times }
    this.clock = clock
    this.id = id
    worlds.set(id.toString(), this)
  }

  get stub(): DurableObjectStub<KeyState> {
    return env.KEY_STATE.get(this.id) as unknown as DurableObjectStub<KeyState>
  }

  /** As a deployment with another list does: the object begins anew. */
  deploy(...list: readonly string[]): this {
    if (this.settings) this.settings = { ...this.settings, sources: listed(list, this.#authorities) }
    return this
  }

  /** The same for what signs certificates. */
  deployAuthorities(...list: readonly string[]): this {
    const keys = this.settings?.sources.filter(({ use }) => use === 'jwt-svid') ?? []
    this.#authorities = list
    if (this.settings) this.settings = { ...this.settings, sources: [...keys, ...listed([], list)] }
    return this
  }

  async read(): Promise<OurReading> {
    const reading = (await this.stub.read(STAMP)) as KeyReading
    if (reading.stamp !== 'ours') throw new TypeError(`not ours: ${reading.stamp}`)
    return reading
  }

  async report(): Promise<KeyReport> {
    return (await this.stub.report(STAMP)) as KeyReport
  }

  /** Lets time pass, and wakes the state up whenever it wants to be. */
  async pass(seconds: number): Promise<void> {
    const end = this.clock.now() + seconds
    for (let turns = 0; this.wakeAt !== null && this.wakeAt <= end; turns++) {
      if (turns > 10_000) throw new RangeError('it never sleeps')
      this.clock.seconds = Math.max(this.clock.seconds, this.wakeAt)
      this.wakeAt = null
      await runInDurableObject(this.stub, (state: KeyState) => state.alarm())
    }
    this.clock.seconds = end
  }

  /** Everything that is stored, as text. */
  async dump(): Promise<string> {
    return await runInDurableObject(this.stub, (_, { storage }) => {
      const tables = storage.sql.exec<{ name: string }>("select name from sqlite_master where type = 'table'").toArray()
      return JSON.stringify(
        tables
          .filter(({ name }) => !name.startsWith('_cf'))
          .map(({ name }) => [name, storage.sql.exec(`select * from ${name}`).toArray()]),
      )
    })
  }
}
