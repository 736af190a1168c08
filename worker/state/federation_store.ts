/** What is remembered of other trust domains, in SQL. Each method is whole or nothing, and waits for nobody. */

import type { ForeignBundle, X509Authority } from '../federation/foreign_bundle.ts'

/** A trust domain as a policy names it. */
export interface NamedPeer {
  readonly trustDomain: string
  /** null where the bundle comes from an administrator alone. */
  readonly url: string | null
  /** The bundle to begin with, as JSON; null for none. */
  readonly bootstrap: string | null
}

/** A policy as isolates tell it. */
export interface Naming {
  /** Of what is applied: a change at run time makes a higher one. */
  readonly version: number
  /** The same text for the same trust domains with the same endpoints and bundles. */
  readonly mark: string
}

/** What was different in the last bundle that differed, by `kid` or the SHA-256 of a certificate. */
export interface KeyChange {
  readonly added: readonly string[]
  readonly removed: readonly string[]
}

/** A trust domain that is known. All times are seconds since the epoch. */
export interface Peer {
  readonly trustDomain: string
  readonly url: string | null
  readonly bundle: ForeignBundle | null
  readonly fetchedAt: number | null
  readonly succeededAt: number | null
  readonly failure: string | null
  /** When its endpoint is asked again. */
  readonly nextAt: number
  readonly changedAt: number | null
  readonly change: KeyChange
  /** Since when no policy names it; null while one does. */
  readonly unnamedAt: number | null
  /** Whether its bundle is older than it should be, and so believed by nobody before its endpoint has been asked. */
  readonly stale: boolean
}

/** What an attempt to learn of a bundle changes. */
export type PeerUpdate = Partial<Omit<Peer, 'trustDomain' | 'bundle' | 'unnamedAt' | 'stale'>>

interface Row extends Record<string, SqlStorageValue> {
  trust_domain: string
  url: string | null
  bundle: string | null
  fetched_at: number | null
  succeeded_at: number | null
  failure: string | null
  next_at: number
  changed_at: number | null
  change: string
  unnamed_at: number | null
  stale: number
}

const IS_FETCHED = 'unnamed_at is null and url is not null'
const PEERS = 'select *, trust_domain in (select trust_domain from stale) as stale from peers'

const COLUMNS: Readonly<Record<keyof PeerUpdate, string>> = {
  url: 'url',
  fetchedAt: 'fetched_at',
  succeededAt: 'succeeded_at',
  failure: 'failure',
  nextAt: 'next_at',
  changedAt: 'changed_at',
  change: 'change',
}

export class FederationStore {
  readonly #storage: DurableObjectStorage
  readonly #sql: SqlStorage

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage
    this.#sql = storage.sql
    // All times are seconds since the epoch.
    this.#sql.exec(`
      create table if not exists version (value integer not null);  -- of the bundles
      insert into version select 0 where not exists (select 1 from version);
      create table if not exists naming (
        version  integer not null,
        mark     text not null,
        named_at integer not null
      );
      create table if not exists peers (
        trust_domain text primary key,
        url          text,
        bundle       text,
        fetched_at   integer,
        succeeded_at integer,
        failure      text,
        next_at      integer not null,
        changed_at   integer,
        change       text not null default '{"added":[],"removed":[]}',
        unnamed_at   integer
      );
      create table if not exists stale (trust_domain text primary key);
      create table if not exists bootstraps (
        trust_domain text not null,
        sha256       text not null,
        primary key (trust_domain, sha256)
      );`)
  }

  /** It changes whenever a bundle does, and with whose there are. */
  get version(): number {
    return this.#sql.exec<{ value: number }>('select value from version').one().value
  }

  /** What was said last and counts; null before anybody has said anything. */
  naming(): (Naming & { readonly namedAt: number }) | null {
    const [row] = this.#sql.exec<{ version: number; mark: string; named_at: number }>('select * from naming').toArray()
    return row ? { version: row.version, mark: row.mark, namedAt: row.named_at } : null
  }

  named({ version, mark }: Naming, now: number): void {
    this.#storage.transactionSync(() => {
      this.#sql.exec('delete from naming')
      this.#sql.exec('insert into naming values (?, ?, ?)', version, mark, now)
    })
  }

  /** Forgets what was said. */
  unname(): void {
    this.#sql.exec('delete from naming')
  }

  peers(): Peer[] {
    return this.#sql.exec<Row>(`${PEERS} order by trust_domain`).toArray().map(readPeer)
  }

  peer(trustDomain: string): Peer | null {
    const [row] = this.#sql.exec<Row>(`${PEERS} where trust_domain = ?`, trustDomain).toArray()
    return row ? readPeer(row) : null
  }

  add(trustDomain: string, now: number): void {
    this.#sql.exec('insert into peers (trust_domain, next_at) values (?, ?)', trustDomain, now)
  }

  setUnnamed(trustDomain: string, at: number | null): void {
    this.#storage.transactionSync(() => {
      this.#sql.exec('update peers set unnamed_at = ? where trust_domain = ?', at, trustDomain)
      this.#next()
    })
  }

  /** Whether a policy's bundle, by its SHA-256 in hexadecimal, has been taken or refused before. */
  hasSeen(trustDomain: string, sha256: string): boolean {
    const seen = this.#sql.exec('select 1 from bootstraps where trust_domain = ? and sha256 = ?', trustDomain, sha256)
    return seen.toArray().length > 0
  }

  see(trustDomain: string, sha256: string): void {
    this.#sql.exec('insert into bootstraps values (?, ?)', trustDomain, sha256)
  }

  /** @returns whose bundles should have been fetched before a time and are believed all the same */
  overdue(before: number): string[] {
    const believed = `${IS_FETCHED} and bundle is not null and trust_domain not in (select trust_domain from stale)`
    return this.#sql
      .exec<{ trust_domain: string }>(`select trust_domain from peers where ${believed} and next_at < ?`, before)
      .toArray()
      .map(({ trust_domain }) => trust_domain)
  }

  setStale(trustDomain: string, stale: boolean): void {
    this.#storage.transactionSync(() => {
      this.#sql.exec(stale ? 'insert into stale values (?)' : 'delete from stale where trust_domain = ?', trustDomain)
      this.#next()
    })
  }

  /** Whether there is one that is named, and of which nobody has heard yet, or not for long. */
  get pending(): boolean {
    const unheard = 'bundle is null and fetched_at is null or trust_domain in (select trust_domain from stale)'
    return this.#sql.exec(`select 1 from peers where ${IS_FETCHED} and (${unheard}) limit 1`).toArray().length > 0
  }

  /**
   * Reads no bundle: it is asked whenever an isolate asks for something.
   *
   * @param keptSeconds how long one is kept that is named no more
   * @param isFetching whether endpoints are asked at all
   * @returns when the next thing is due, in seconds since the epoch; null for never
   */
  nextTime(keptSeconds: number, isFetching: boolean): number | null {
    return this.#sql
      .exec<{ at: number | null }>(
        `select min(case when unnamed_at is null then next_at else unnamed_at + ? end) as at
         from peers where unnamed_at is not null or (url is not null and ?)`,
        keptSeconds,
        isFetching ? 1 : 0,
      )
      .one().at
  }

  /** @param bundle in the place of the one that is kept; undefined leaves that as it is */
  update(trustDomain: string, update: PeerUpdate, bundle?: ForeignBundle): void {
    this.#storage.transactionSync(() => {
      for (const [name, value] of Object.entries(update)) {
        const column = COLUMNS[name as keyof PeerUpdate]
        const stored = typeof value === 'object' && value !== null ? JSON.stringify(value) : value
        this.#sql.exec(`update peers set ${column} = ? where trust_domain = ?`, stored, trustDomain)
      }
      if (!bundle) return
      this.#sql.exec('update peers set bundle = ? where trust_domain = ?', writeBundle(bundle), trustDomain)
      this.#next()
    })
  }

  remove(trustDomains: readonly string[]): void {
    this.#storage.transactionSync(() => {
      for (const trustDomain of trustDomains)
        for (const table of ['peers', 'stale', 'bootstraps'])
          this.#sql.exec(`delete from ${table} where trust_domain = ?`, trustDomain)
      if (trustDomains.length > 0) this.#next()
    })
  }

  #next(): void {
    this.#sql.exec('update version set value = value + 1')
  }
}

function readPeer(row: Row): Peer {
  return {
    trustDomain: row.trust_domain,
    url: row.url,
    bundle: row.bundle === null ? null : readBundle(row.bundle),
    fetchedAt: row.fetched_at,
    succeededAt: row.succeeded_at,
    failure: row.failure,
    nextAt: row.next_at,
    changedAt: row.changed_at,
    change: JSON.parse(row.change),
    unnamedAt: row.unnamed_at,
    stale: row.stale === 1,
  }
}

/** JSON has no octets. */
function writeBundle({ x509Authorities, ...bundle }: ForeignBundle): string {
  const certificates = x509Authorities.map(({ der, ...facts }) => ({ ...facts, der: der.toBase64() }))
  return JSON.stringify({ ...bundle, x509Authorities: certificates })
}

function readBundle(json: string): ForeignBundle {
  const { x509Authorities, ...bundle } = JSON.parse(json) as Omit<ForeignBundle, 'x509Authorities'> & {
    x509Authorities: readonly (Omit<X509Authority, 'der'> & { der: string })[]
  }
  return {
    ...bundle,
    x509Authorities: x509Authorities.map(({ der, ...facts }) => ({ ...facts, der: Uint8Array.fromBase64(der) })),
  }
}
