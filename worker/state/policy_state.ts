/**
 * What administrators have applied at run time, and what clusters say of their own workloads. It is stored as it was sent:
 * whoever reads it judges it, with the manifest that is deployed with the reader.
 */

import { DurableObject } from 'cloudflare:workers'
import type { Stamp } from '../key_settings.ts'
import { compareStamp } from './stamp.ts'

/** An object by the two names that tell it from all others. */
export interface ObjectName {
  readonly kind: string
  readonly name: string
}

/** What is stored, or nothing where the asker has it already. */
export type PolicyReading =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  | {
      readonly stamp: 'ours'
      readonly version: number
      readonly stored: { readonly applied: readonly object[]; readonly live: readonly LiveObjects[] } | null
    }

/** What a cluster's API server has answered. */
export interface LiveObjects {
  readonly cluster: string
  readonly objects: readonly object[]
}

/** A cluster whose objects the asker is to read now. */
export interface DueCluster {
  readonly cluster: string
  /** Seconds since they were read; null if they never were. */
  readonly age: number | null
}

/** How often a cluster is asked for its objects, by the whole fleet together (T-18). */
const LIVE_SECONDS = 15

export class PolicyState extends DurableObject {
  readonly #sql = this.ctx.storage.sql
  /** When somebody was last told to ask a cluster, in seconds since the epoch. */
  readonly #claimedAt = new Map<string, number>()

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#sql.exec(`
      create table if not exists version (value integer not null);
      insert into version select 0 where not exists (select 1 from version);
      create table if not exists applied (
        kind text not null,
        name text not null,
        json text not null,
        primary key (kind, name)
      );
      create table if not exists live (
        cluster text not null,
        name    text not null,
        json    text not null,
        primary key (cluster, name)
      );
      create table if not exists live_read (cluster text primary key, at integer not null);`)
  }

  /**
   * @param known the version that the asker has, null for none
   */
  read(stamp: Stamp, known: number | null): PolicyReading {
    const foreign = compareStamp(this.#sql, stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    const version = this.#version()
    return { stamp: 'ours', version, stored: version === known ? null : this.#stored() }
  }

  /**
   * Changes what is applied, all of it or nothing.
   *
   * @param ifVersion what the change was judged by: where that is not the present version, nothing happens
   * @returns the new version, or null
   */
  apply(
    put: readonly (ObjectName & { object: object })[],
    remove: readonly ObjectName[],
    ifVersion: number,
  ): number | null {
    if (this.#version() !== ifVersion) return null
    return this.ctx.storage.transactionSync(() => {
      for (const { kind, name } of remove) this.#sql.exec('delete from applied where kind = ? and name = ?', kind, name)
      for (const { kind, name, object } of put)
        this.#sql.exec('insert or replace into applied values (?, ?, ?)', kind, name, JSON.stringify(object))
      return this.#next()
    })
  }

  /**
   * @param clusters whose objects are wanted
   * @param now seconds since the epoch
   * @returns those that the asker is to read now: nobody else is told to for a while
   */
  claimLive(clusters: readonly string[], now: number): DueCluster[] {
    const due = clusters.filter((cluster) => now - (this.#claimedAt.get(cluster) ?? 0) >= LIVE_SECONDS)
    for (const cluster of due) this.#claimedAt.set(cluster, now)
    return due.map((cluster) => {
      const [read] = this.#sql.exec<{ at: number }>('select at from live_read where cluster = ?', cluster).toArray()
      return { cluster, age: read ? now - read.at : null }
    })
  }

  /**
   * Keeps what a cluster has answered, in place of what it answered before.
   *
   * @param now seconds since the epoch, when it was asked
   */
  keepLive({ cluster, objects }: LiveObjects, now: number): void {
    this.#sql.exec('insert or replace into live_read values (?, ?)', cluster, now)
    // By name, so that one that comes twice is no change each time.
    const rows = [...new Map(objects.map((object) => [nameOf(object), JSON.stringify(object)]))].map(
      ([name, json]) => ({
        name,
        json,
      }),
    )
    const before = this.#sql.exec('select name, json from live where cluster = ? order by name', cluster).toArray()
    const after = rows.toSorted((one, other) => (one.name < other.name ? -1 : 1))
    if (JSON.stringify(before) === JSON.stringify(after)) return
    this.ctx.storage.transactionSync(() => {
      this.#sql.exec('delete from live where cluster = ?', cluster)
      for (const { name, json } of rows) this.#sql.exec('insert into live values (?, ?, ?)', cluster, name, json)
      this.#next()
    })
  }

  #version(): number {
    return this.#sql.exec<{ value: number }>('select value from version').one().value
  }

  #next(): number {
    this.#sql.exec('update version set value = value + 1')
    return this.#version()
  }

  #stored() {
    const applied = this.#sql
      .exec<{ kind: string; name: string; json: string }>('select kind, name, json from applied order by kind, name')
      .toArray()
      .map(({ kind, name, json }) => parse(json, kind, name))
    const live = new Map<string, object[]>()
    for (const { cluster, name, json } of this.#sql.exec<{ cluster: string; name: string; json: string }>(
      'select cluster, name, json from live order by cluster, name',
    )) {
      const objects = live.get(cluster) ?? []
      objects.push(parse(json, 'WorkloadRegistration', name))
      live.set(cluster, objects)
    }
    return { applied, live: [...live].map(([cluster, objects]) => ({ cluster, objects })) }
  }
}

/** A row that is damaged is still an object of its name, which whoever reads it finds wrong and can have removed. */
function parse(json: string, kind: string, name: string): object {
  try {
    const value: unknown = JSON.parse(json)
    if (typeof value === 'object' && value !== null) return value
  } catch {}
  return { kind, metadata: { name } }
}

function nameOf(object: object): string {
  const name = (object as { metadata?: { name?: unknown } | null } | null)?.metadata?.name
  return typeof name === 'string' ? name : ''
}
