/**
 * A part of the tokens that Vault's clients have. An entry is found by a keyed hash of its token, so nobody who reads the
 * storage has a token; it goes when the token's time is over, and a revoked one goes at once, for everybody.
 */

import { DurableObject } from 'cloudflare:workers'
import type { Stamp } from '../key_settings.ts'
import { compareStamp } from './stamp.ts'

/** What is known of a token. Stored as JSON. All times are seconds since the epoch. */
export interface TokenEntry {
  /** Names the token to operators, and opens nothing. Empty for a batch token, of which there is no entry here. */
  readonly accessor: string
  /** Path and accessor of the mount that it was given at. */
  readonly mount: string
  readonly mountAccessor: string
  /** As the login wrote it. Roles are found whatever the case. */
  readonly role: string
  readonly workload: {
    readonly cluster: string
    readonly namespace: string
    readonly serviceAccount: { readonly name: string; readonly uid: string }
    readonly pod: { readonly name: string; readonly uid: string } | null
    readonly node: { readonly name: string; readonly uid: string | null } | null
  }
  /** The end of the service account token that it was given for. */
  readonly subjectExpiresAt: number
  readonly policies: readonly string[]
  readonly boundCidrs: readonly string[]
  readonly entityId: string
  readonly issuedAt: number
  readonly expiresAt: number
  /** In seconds, as the three below; 0 is none. */
  readonly creationTtl: number
  readonly explicitMaxTtl: number
  readonly period: number
  /** Uses that are left; 0 for as many as there are. */
  readonly numUses: number
  readonly renewedAt: number | null
}

/** An entry, or why there is none. */
export type TokenReading =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  | { readonly stamp: 'ours'; readonly entry: TokenEntry | null }

/** By what an entry is found. */
export type TokenName = { readonly hash: string } | { readonly accessor: string }

/** Entries that one alarm deletes: a few milliseconds of work. */
const SWEPT_AT_ONCE = 1000

type Row = { hash: string; uses_left: number; entry: string }

export class TokenState extends DurableObject {
  readonly #sql = this.ctx.storage.sql

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#sql.exec(`
      create table if not exists tokens (
        hash       text primary key,
        accessor   text not null unique,
        expires_at integer not null,
        uses_left  integer not null,
        entry      text not null
      ) without rowid;
      create index if not exists tokens_by_end on tokens (expires_at);`)
  }

  /** Seconds since the epoch. */
  protected now(): number {
    return Math.floor(Date.now() / 1000)
  }

  /** @returns the field in which the storage belongs to something else, where nothing is stored; or null */
  async create(stamp: Stamp, hash: string, entry: TokenEntry): Promise<keyof Stamp | null> {
    const foreign = compareStamp(this.#sql, stamp)
    if (foreign) return foreign
    const { accessor, expiresAt, numUses } = entry
    this.#sql.exec(
      'insert into tokens values (?, ?, ?, ?, ?)',
      hash,
      accessor,
      expiresAt,
      numUses,
      JSON.stringify(entry),
    )
    await this.#wake(expiresAt)
    return null
  }

  /** @returns what is known of a token that still holds; for an operator, who uses up nothing */
  read(stamp: Stamp, name: TokenName): TokenReading {
    const foreign = compareStamp(this.#sql, stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    const row = this.#row(name)
    return { stamp: 'ours', entry: row ? entryOf(row) : null }
  }

  /** The same for whoever has the token, who uses it up where its uses are counted. The last one ends it. */
  use(stamp: Stamp, hash: string): TokenReading {
    const reading = this.read(stamp, { hash })
    if (reading.stamp === 'foreign' || !reading.entry || reading.entry.numUses === 0) return reading
    const numUses = reading.entry.numUses - 1
    if (numUses === 0) this.revoke({ hash })
    else this.#sql.exec('update tokens set uses_left = ? where hash = ?', numUses, hash)
    return { stamp: 'ours', entry: { ...reading.entry, numUses } }
  }

  /**
   * Gives a token another end, if it still holds.
   *
   * @returns the entry as it is now; null where it was revoked or has ended meanwhile
   */
  async renew(
    name: TokenName,
    change: Pick<TokenEntry, 'expiresAt' | 'period' | 'renewedAt'>,
  ): Promise<TokenEntry | null> {
    const row = this.#row(name)
    if (!row) return null
    const entry = { ...entryOf(row), ...change }
    this.#sql.exec(
      'update tokens set expires_at = ?, entry = ? where hash = ?',
      entry.expiresAt,
      JSON.stringify(entry),
      row.hash,
    )
    await this.#wake(entry.expiresAt)
    return entry
  }

  /** Once this has returned, nobody finds the token any more. */
  revoke(name: TokenName): void {
    if ('hash' in name) this.#sql.exec('delete from tokens where hash = ?', name.hash)
    else this.#sql.exec('delete from tokens where accessor = ?', name.accessor)
  }

  /** @returns the accessors of all tokens that hold, at most `limit` of them */
  accessors(stamp: Stamp, limit: number): readonly string[] {
    if (compareStamp(this.#sql, stamp)) return []
    return this.#sql
      .exec<{ accessor: string }>(
        'select accessor from tokens where expires_at > ? order by expires_at limit ?',
        this.now(),
        limit,
      )
      .toArray()
      .map(({ accessor }) => accessor)
  }

  override async alarm(): Promise<void> {
    this.#sql.exec(
      'delete from tokens where hash in (select hash from tokens where expires_at <= ? order by expires_at limit ?)',
      this.now(),
      SWEPT_AT_ONCE,
    )
    const [next] = this.#sql.exec<{ at: number | null }>('select min(expires_at) as at from tokens').toArray()
    if (next && next.at !== null) await this.wakeUpAt(Math.max(next.at, this.now() + 1))
  }

  /** @param seconds since the epoch */
  protected async wakeUpAt(seconds: number): Promise<void> {
    await this.ctx.storage.setAlarm(seconds * 1000)
  }

  async #wake(expiresAt: number): Promise<void> {
    const set = await this.ctx.storage.getAlarm()
    if (set === null || set > expiresAt * 1000) await this.wakeUpAt(expiresAt)
  }

  #row(name: TokenName): Row | undefined {
    const [column, value] = 'hash' in name ? ['hash', name.hash] : ['accessor', name.accessor]
    return this.#sql
      .exec<Row>(`select hash, uses_left, entry from tokens where ${column} = ? and expires_at > ?`, value, this.now())
      .toArray()[0]
  }
}

function entryOf({ uses_left: numUses, entry }: Row): TokenEntry {
  return { ...(JSON.parse(entry) as TokenEntry), numUses }
}
