/** The tokens of Vault's clients as an isolate asks for them: each is in the one object that its place says. */

import type { Stamp } from '../key_settings.ts'
import { Refusal } from '../refusal.ts'
import { settledOrLate } from '../shared_call.ts'
import { STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './leased_copy.ts'
import type { TokenEntry, TokenName, TokenReading, TokenState } from './token_state.ts'

/** Accessors that one answer lists. */
const MAX_ACCESSORS = 100_000

/** Where an entry is, and by what it is found there. */
export type TokenPlace = { readonly shard: number } & TokenName

/** What the outside world is to this module. */
export interface TokenStoreDeps {
  readonly stamp: Stamp
  /** How many objects the entries are spread over. */
  readonly shards: number
  /** @param shard from 0 to `shards` - 1 */
  tokenState(
    shard: number,
  ): Pick<DurableObjectStub<TokenState>, 'create' | 'read' | 'use' | 'renew' | 'revoke' | 'accessors'>
}

/** All methods throw the Refusal `tokens_unavailable` where there is no answer. Then nobody knows whether it has happened. */
export class TokenStore {
  readonly #deps: TokenStoreDeps

  constructor(deps: TokenStoreDeps) {
    this.#deps = deps
  }

  async create({ shard, hash }: TokenPlace & { hash: string }, entry: TokenEntry): Promise<void> {
    const { stamp, tokenState } = this.#deps
    const foreign = await answered<keyof Stamp | null>(tokenState(shard).create(stamp, hash, entry))
    if (foreign) throw unavailable(`the storage belongs to another ${foreign}`)
  }

  /** @returns the entry of a token that still holds, one use less; or null */
  async use({ shard, hash }: TokenPlace & { hash: string }): Promise<TokenEntry | null> {
    const { stamp, tokenState } = this.#deps
    return entryOf(await answered(tokenState(shard).use(stamp, hash)))
  }

  /** @returns the same, for an operator: nothing is used up */
  async read({ shard, ...name }: TokenPlace): Promise<TokenEntry | null> {
    const { stamp, tokenState } = this.#deps
    return entryOf(await answered(tokenState(shard).read(stamp, name)))
  }

  /** @returns the entry as it is now, or null where it holds no more */
  async renew(
    { shard, ...name }: TokenPlace,
    change: Pick<TokenEntry, 'expiresAt' | 'period' | 'renewedAt'>,
  ): Promise<TokenEntry | null> {
    return answered(this.#deps.tokenState(shard).renew(name, change))
  }

  /** When this has returned, the token opens nothing any more. */
  async revoke({ shard, ...name }: TokenPlace): Promise<void> {
    await answered(this.#deps.tokenState(shard).revoke(name))
  }

  async accessors(): Promise<readonly string[]> {
    const { stamp, shards, tokenState } = this.#deps
    const limit = Math.ceil(MAX_ACCESSORS / shards)
    const asked = Array.from({ length: shards }, (_, shard) =>
      answered<readonly string[]>(tokenState(shard).accessors(stamp, limit)),
    )
    return (await Promise.all(asked)).flat()
  }
}

function entryOf(reading: TokenReading): TokenEntry | null {
  if (reading.stamp === 'foreign') throw unavailable(`the storage belongs to another ${reading.field}`)
  return reading.entry
}

async function answered<T>(asking: PromiseLike<unknown>): Promise<T> {
  let outcome: { readonly value: unknown } | null
  try {
    outcome = await settledOrLate(Promise.resolve(asking), STATE_TIMEOUT_MS)
  } catch (error) {
    throw unavailable(error instanceof Error ? error.name : typeof error)
  }
  if (!outcome) throw unavailable('no answer')
  return outcome.value as T
}

function unavailable(detail: string): Refusal {
  return new Refusal('tokens_unavailable', `token state: ${detail}`, STATE_RETRY_AFTER_SECONDS)
}
