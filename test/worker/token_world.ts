/** What the states of tokens find around themselves: a clock, and who wakes them up. */

import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import type { TokenState } from '../../worker/state/token_state.ts'
import { TokenStore } from '../../worker/state/token_store.ts'
import { SHARDS } from '../../worker/vault/token.ts'
import { Clock } from '../support/clock.ts'
import { STAMP } from './key_world.ts'

/** One for all copies of this module, as in key_world.ts. */
const shared = globalThis as { tokenWorlds?: Map<string, TokenWorld> }
shared.tokenWorlds ??= new Map()
const worlds = shared.tokenWorlds

export function tokenWorldOf(id: DurableObjectId): TokenWorld | undefined {
  return worlds.get(id.toString())
}

/** The states of one issuer's tokens, one for each shard. */
export class TokenWorld {
  /** When each shard wants to be woken up. */
  readonly wakeAt = new Map<number, number>()
  readonly clock: Clock
  readonly #ids = new Map<number, DurableObjectId>()

  constructor(clock = new Clock()) {
    this.clock = clock
  }

  /** Bound, to be handed over as `tokenState`. */
  readonly stub = (shard: number): DurableObjectStub<TokenState> =>
    env.TOKEN_STATE.get(this.#idOf(shard)) as unknown as DurableObjectStub<TokenState>

  get store(): TokenStore {
    return new TokenStore({ stamp: STAMP, shards: SHARDS, tokenState: this.stub })
  }

  /** The first of the times that a state wants to be woken up at, as with the alarm that it does not set here. */
  wakeUpAt(id: DurableObjectId, seconds: number): void {
    const [shard = -1] = [...this.#ids].find(([, one]) => one.equals(id)) ?? []
    this.wakeAt.set(shard, Math.min(seconds, this.wakeAt.get(shard) ?? Number.POSITIVE_INFINITY))
  }

  /** Wakes up every shard whose time has come. */
  async wake(): Promise<void> {
    for (const [shard, at] of this.wakeAt) {
      if (at > this.clock.now()) continue
      this.wakeAt.delete(shard)
      await runInDurableObject(this.stub(shard), (state: TokenState) => state.alarm())
    }
  }

  /** How many entries are stored, whether or not they still count. */
  async stored(): Promise<number> {
    let count = 0
    for (const shard of this.#ids.keys())
      count += await runInDurableObject(this.stub(shard), (_, { storage }) =>
        Number(storage.sql.exec('select count(*) as n from tokens').one().n),
      )
    return count
  }

  #idOf(shard: number): DurableObjectId {
    const known = this.#ids.get(shard)
    if (known) return known
    const id = env.TOKEN_STATE.idFromName(`test-${crypto.randomUUID()}`)
    this.#ids.set(shard, id)
    worlds.set(id.toString(), this)
    return id
  }
}
