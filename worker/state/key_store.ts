/** What is remembered of signing keys, in SQL. Each method is whole or nothing, and waits for nobody. */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { KmsUsage } from '../../keys/kms_client.ts'
import type { Phase, RotatingKey } from '../../keys/rotation.ts'
import type { KeyUse, PublicJwk, SigningErrorCode } from '../../keys/signer.ts'
import type { KeptKey } from './kept_signer.ts'

/** A key that there is. */
export interface KnownKey extends KeptKey {
  /** When it last made a signature that is right, in seconds since the epoch; null if it never has. */
  readonly provenAt: number | null
  /** Why it makes none, as far as that is known. */
  readonly failure: SigningErrorCode | null
  /** Whether its name stands for another key by now. */
  readonly mismatched: boolean
  /** Where it comes from, and where it stands. */
  readonly life: RotatingKey
  /** What verifiers know an authority by: DER in base64. null until its key has signed it, and for ever for other uses. */
  readonly certificate: string | null
}

/** A key that KMS has been asked to create, and whose creation is not over. */
export interface Creation {
  /** It is in the tags of the key. */
  readonly id: string
  readonly source: string
  /** null as long as nobody knows whether there is a key. */
  readonly arn: string | null
  /** Seconds since the epoch. */
  readonly askedAt: number
  /** Whether nobody could find out for long. */
  readonly orphaned: boolean
}

export interface RevokedKey {
  readonly kid: string
  readonly use: KeyUse
  /** Seconds since the epoch. */
  readonly revokedAt: number
}

/** What KMS has done for the whole fleet in an hour. */
export interface KmsHour {
  /** Seconds since the epoch. */
  readonly start: number
  readonly calls: number
  readonly throttled: number
  readonly failed: number
  readonly meanMilliseconds: number
  readonly slowestMilliseconds: number
}

const HOUR_SECONDS = 3600
/** Of the hours of use that are kept. */
const KMS_HOURS = 24

interface Row extends Record<string, SqlStorageValue> {
  kid: string
  use: KeyUse
  source: string
  public_jwk: string
  arn: string | null
  wrapped: string | null
  private_jwk: string | null
  phase: Phase
  announced_at: number
  published_at: number | null
  active_at: number | null
  retiring_at: number | null
  replace_at: number | null
  proven_at: number | null
  failure: SigningErrorCode | null
  mismatched: number
  certificate: string | null
}

/** How a key that was tried has done. */
export interface Trial {
  /** Why it could not sign; null if it has, at this moment. */
  readonly failure: SigningErrorCode | null
  /** DER in base64, where it has signed one for itself. */
  readonly certificate: string | null
}

export class KeyStore {
  readonly #storage: DurableObjectStorage
  readonly #sql: SqlStorage

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage
    this.#sql = storage.sql
    // All times are seconds since the epoch.
    this.#sql.exec(`
      create table if not exists signing_keys (
        kid          text primary key,         -- so no key is for two uses
        use          text not null default 'jwt-svid',
        alg          text not null,
        source       text not null,
        public_jwk   text not null,
        arn          text,                     -- where a KMS key is signed with
        wrapped      text,                     -- a local key, wrapped
        private_jwk  text,                     -- a local key itself, in the clear: development only
        phase        text not null,
        announced_at integer not null,
        published_at integer,
        active_at    integer,
        retiring_at  integer,
        replace_at   integer,
        proven_at    integer,
        failure      text,
        mismatched   integer not null default 0,
        certificate  text
      );
      create table if not exists creations (
        id       text primary key,
        source   text not null,
        arn      text,
        asked_at integer not null,
        orphaned integer not null default 0
      );
      -- Keys of KMS that we have made and need no more, until KMS is known to have them scheduled for deletion.
      create table if not exists disposals (arn text primary key);
      create table if not exists revoked_keys (
        kid        text primary key,
        use        text not null default 'jwt-svid',
        alg        text not null,
        source     text not null,
        revoked_at integer not null
      );
      create table if not exists kms_hours (
        start        integer primary key,
        calls        integer not null,
        throttled    integer not null,
        failed       integer not null,
        milliseconds integer not null,
        slowest      integer not null
      );
      create table if not exists bundle (
        id       integer primary key check (id = 1),
        sequence integer not null,
        content  text not null
      );`)
    this.#migrate()
  }

  /** What was stored before there were authorities has keys for JWT-SVIDs only. */
  #migrate(): void {
    const columns = (table: string) =>
      this.#sql.exec<{ name: string }>(`select name from pragma_table_info('${table}')`).toArray()
    if (!columns('signing_keys').some(({ name }) => name === 'use'))
      this.#sql.exec(`
        alter table signing_keys add column use text not null default 'jwt-svid';
        alter table signing_keys add column certificate text;
        alter table revoked_keys add column use text not null default 'jwt-svid';
        drop index one_active;`)
    this.#sql.exec("create unique index if not exists one_active on signing_keys (use, alg) where phase = 'active'")
  }

  /** By `kid`, so that the same keys always make the same document (D3). */
  keys(): KnownKey[] {
    return this.#sql.exec<Row>('select * from signing_keys order by kid').toArray().map(knownKey)
  }

  key(kid: string): KnownKey | null {
    const [row] = this.#sql.exec<Row>('select * from signing_keys where kid = ?', kid).toArray()
    return row ? knownKey(row) : null
  }

  /** Remembers a key, unless it is known. */
  pin(
    source: string,
    { use, publicJwk, arn, wrapped, privateJwk }: KeptKey,
    { failure, certificate }: Trial,
    now: number,
  ): void {
    this.#sql.exec(
      `insert into signing_keys (kid, use, alg, source, public_jwk, arn, wrapped, private_jwk, phase, announced_at,
                                 proven_at, failure, certificate)
       values (?, ?, ?, ?, ?, ?, ?, ?, 'announced', ?, ?, ?, ?) on conflict do nothing`,
      publicJwk.kid,
      use,
      publicJwk.alg,
      source,
      JSON.stringify(publicJwk),
      arn,
      wrapped,
      privateJwk && JSON.stringify(privateJwk),
      now,
      failure === null ? now : null,
      failure,
      certificate,
    )
  }

  /** A key is listed under another name now, which stands for it. */
  rename(kid: string, source: string): void {
    this.#sql.exec('update signing_keys set source = ?, mismatched = 0 where kid = ?', source, kid)
  }

  setProven(kid: string, { failure, certificate }: Trial, now: number): void {
    if (failure !== null) this.#sql.exec('update signing_keys set failure = ? where kid = ?', failure, kid)
    else
      this.#sql.exec(
        'update signing_keys set proven_at = ?, failure = null, certificate = coalesce(certificate, ?) where kid = ?',
        now,
        certificate,
        kid,
      )
  }

  setMismatched(kid: string, mismatched: boolean): void {
    this.#sql.exec('update signing_keys set mismatched = ? where kid = ?', mismatched ? 1 : 0, kid)
  }

  /** @param at null for the schedule */
  replaceAt(kid: string, at: number | null): void {
    this.#sql.exec('update signing_keys set replace_at = ? where kid = ?', at, kid)
  }

  /**
   * @param lives what holds from now on
   * @param gone `kid`s. Those that we have made in KMS are to be deleted there
   */
  advance(lives: readonly RotatingKey[], gone: readonly string[]): void {
    this.#storage.transactionSync(() => {
      for (const kid of gone) this.#forget(kid)
      // What stops signing goes first: for each use and algorithm one key is active at any moment.
      for (const life of lives.toSorted((a, b) => Number(a.phase === 'active') - Number(b.phase === 'active')))
        this.#sql.exec(
          `update signing_keys set phase = ?, published_at = ?, active_at = ?, retiring_at = ?, replace_at = ?
           where kid = ?`,
          life.phase,
          life.publishedAt,
          life.activeAt,
          life.retiringAt,
          life.replaceAt,
          life.kid,
        )
    })
  }

  /** Takes a key away, and remembers that it must never come back. */
  revoke({ use, life: { kid, alg, source } }: KnownKey, now: number): void {
    this.#storage.transactionSync(() => {
      this.#sql.exec(
        'insert into revoked_keys (kid, use, alg, source, revoked_at) values (?, ?, ?, ?, ?)',
        kid,
        use,
        alg,
        source,
        now,
      )
      this.#forget(kid)
    })
  }

  /** Newest first. */
  revoked(): (RevokedKey & { readonly alg: AlgorithmName; readonly source: string })[] {
    return this.#sql
      .exec<{ kid: string; use: KeyUse; alg: AlgorithmName; source: string; revoked_at: number }>(
        'select * from revoked_keys order by revoked_at desc, kid',
      )
      .toArray()
      .map(({ revoked_at, ...key }) => ({ ...key, revokedAt: revoked_at }))
  }

  /** Oldest first. */
  creations(): Creation[] {
    return this.#sql
      .exec<{ id: string; source: string; arn: string | null; asked_at: number; orphaned: number }>(
        'select * from creations order by asked_at, id',
      )
      .toArray()
      .map(({ asked_at, orphaned, ...creation }) => ({ ...creation, askedAt: asked_at, orphaned: orphaned === 1 }))
  }

  creation(id: string): Creation | null {
    return this.creations().find((creation) => creation.id === id) ?? null
  }

  /** Before KMS is asked, so that a key whose answer is lost is found again by its tag (T-15). */
  beginCreation(id: string, source: string, now: number): void {
    this.#sql.exec('insert into creations values (?, ?, null, ?, 0)', id, source, now)
  }

  /** @param more ARNs that the same creation has left, which nobody needs */
  created(id: string, arn: string, more: readonly string[] = []): void {
    this.#storage.transactionSync(() => {
      this.#sql.exec('update creations set arn = ?, orphaned = 0 where id = ?', arn, id)
      for (const other of more) this.#giveBack(other)
    })
  }

  orphanCreation(id: string): void {
    this.#sql.exec('update creations set orphaned = 1 where id = ?', id)
  }

  /** The creation is over, and what it has made is one of our keys. */
  endCreation({ id, source }: Creation, key: KeptKey, trial: Trial, now: number): void {
    this.#storage.transactionSync(() => {
      this.pin(source, key, trial, now)
      this.#sql.exec('delete from creations where id = ?', id)
    })
  }

  /** The creation is over, and what it has made, if anything, is to be deleted. */
  dropCreation({ id, arn }: Creation): void {
    this.#storage.transactionSync(() => {
      if (arn !== null) this.#giveBack(arn)
      this.#sql.exec('delete from creations where id = ?', id)
    })
  }

  /** ARNs of keys to be deleted in KMS. */
  disposals(): string[] {
    return this.#sql
      .exec<{ arn: string }>('select arn from disposals')
      .toArray()
      .map(({ arn }) => arn)
  }

  disposed(arn: string): void {
    this.#sql.exec('delete from disposals where arn = ?', arn)
  }

  /**
   * The number of what the bundle holds now: another one for each content, and never a lower one. From a storage that is
   * older than what readers have seen the time takes it further (T-20).
   *
   * @param content equal texts are equal content
   * @see [SPIFFE bundle §4.1.1](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#411-sequence-number)
   */
  bundleSequence(content: string, now: number): number {
    return this.#storage.transactionSync(() => {
      const [last] = this.#sql
        .exec<{ sequence: number; content: string }>('select sequence, content from bundle')
        .toArray()
      if (last?.content === content) return last.sequence
      const sequence = Math.max((last?.sequence ?? 0) + 1, now)
      this.#sql.exec('insert or replace into bundle values (1, ?, ?)', sequence, content)
      return sequence
    })
  }

  count({ calls, throttled, failed, milliseconds, slowestMilliseconds }: KmsUsage, now: number): void {
    if (calls === 0) return
    const start = now - (now % HOUR_SECONDS)
    this.#sql.exec(
      `insert into kms_hours values (?, ?, ?, ?, ?, ?) on conflict do update set
       calls = calls + excluded.calls, throttled = throttled + excluded.throttled, failed = failed + excluded.failed,
       milliseconds = milliseconds + excluded.milliseconds, slowest = max(slowest, excluded.slowest)`,
      start,
      calls,
      throttled,
      failed,
      Math.round(milliseconds),
      Math.round(slowestMilliseconds),
    )
    this.#sql.exec('delete from kms_hours where start <= ?', start - KMS_HOURS * HOUR_SECONDS)
  }

  /** Newest first. */
  kmsHours(now: number): KmsHour[] {
    return this.#sql
      .exec<{ start: number; calls: number; throttled: number; failed: number; milliseconds: number; slowest: number }>(
        'select * from kms_hours where start > ? order by start desc',
        now - KMS_HOURS * HOUR_SECONDS,
      )
      .toArray()
      .map(({ milliseconds, slowest, ...hour }) => ({
        ...hour,
        meanMilliseconds: Math.round(milliseconds / hour.calls),
        slowestMilliseconds: slowest,
      }))
  }

  /** Inside a transaction. */
  #forget(kid: string): void {
    const key = this.key(kid)
    if (key && key.arn !== null && isMaker(key.life.source)) this.#giveBack(key.arn)
    this.#sql.exec('delete from signing_keys where kid = ?', kid)
  }

  #giveBack(arn: string): void {
    this.#sql.exec('insert into disposals values (?) on conflict do nothing', arn)
  }
}

/** Whether a source, as it was listed, makes keys: what stands for one key names it after a colon. */
function isMaker(source: string): boolean {
  return !source.includes(':')
}

function knownKey(row: Row): KnownKey {
  const publicJwk = JSON.parse(row.public_jwk) as PublicJwk
  const mismatched = row.mismatched === 1
  return {
    use: row.use,
    publicJwk,
    arn: row.arn,
    wrapped: row.wrapped,
    privateJwk: row.private_jwk === null ? null : JSON.parse(row.private_jwk),
    provenAt: row.proven_at,
    failure: row.failure,
    mismatched,
    certificate: row.certificate,
    life: {
      kid: row.kid,
      alg: publicJwk.alg,
      source: row.source,
      phase: row.phase,
      fit: row.proven_at !== null && row.failure === null && !mismatched,
      announcedAt: row.announced_at,
      publishedAt: row.published_at,
      activeAt: row.active_at,
      retiringAt: row.retiring_at,
      replaceAt: row.replace_at,
    },
  }
}
