/**
 * The one place that remembers the signing keys: which were announced, with what public half, from where. Documents are
 * built from this alone, so a key whose keeper is gone stays published until its last token has expired (T-15).
 */

import { DurableObject } from 'cloudflare:workers'
import { formatKeyReference, type KeyReference } from '../../keys/key_reference.ts'
import { announceKmsKey, type KmsAccess } from '../../keys/kms.ts'
import { generateLocalKey } from '../../keys/local.ts'
import { type PublicJwk, SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import { MAX_JWT_SVID_TTL_SECONDS } from '../spiffe/jwt_svid.ts'
import { compareStamp, type Stamp } from './stamp.ts'

export interface StoredKey {
  readonly publicJwk: PublicJwk
  /** Where the private half is: an ARN to sign by, or the key itself. */
  readonly arn: string | null
  readonly privateJwk: JsonWebKey | null
  /** Seconds since the epoch until which a key that is no longer listed stays published; null while it is listed. */
  readonly publishedUntil: number | null
}

/** A key as the operator lists it: what is pinned of it, and why it may not sign. At least one of them is not null. */
export interface ListedKey {
  readonly key: StoredKey | null
  readonly failed: SigningErrorCode | null
}

/** How the listed keys stand, in the operator's order, and which others are still published. */
export type Announcement =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  | {
      readonly stamp: 'ours'
      readonly listed: readonly ListedKey[]
      readonly withdrawn: readonly StoredKey[]
    }

/** How long an isolate signs with what it knows of the keys when it cannot ask any more (T-17). */
export const SIGNING_LEASE_SECONDS = 240
/** Verifiers' clocks differ. */
const CLOCK_SKEW_SECONDS = 60
/** Until then an isolate that has not heard of it may have signed with a withdrawn key, and that token may be alive. */
const PUBLISHED_AFTER_WITHDRAWAL_SECONDS = SIGNING_LEASE_SECONDS + MAX_JWT_SVID_TTL_SECONDS + CLOCK_SKEW_SECONDS

/** How often a key is compared with what its name stands for at its keeper: often enough to notice a moved alias the same hour. */
const COMPARE_SECONDS = 600
/** The same while the keeper is silent, or its answer does not match. */
const COMPARE_AGAIN_SECONDS = 10

/** What a keeper says of a key. */
interface Announced {
  readonly publicJwk: PublicJwk
  readonly arn: string | null
  readonly privateJwk: JsonWebKey | null
}

interface Row extends Record<string, SqlStorageValue> {
  name: string
  public_jwk: string
  arn: string | null
  private_jwk: string | null
  withdrawn_at: number | null
}

export class KeyState extends DurableObject {
  readonly #sql = this.ctx.storage.sql
  /** When each key is next to be compared with its keeper, in seconds since the epoch. */
  readonly #compareAt = new Map<string, number>()

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#sql.exec(`
      create table if not exists signing_key (
        kid          text primary key,
        name         text not null unique,  -- as the operator lists it
        public_jwk   text not null,
        arn          text,                  -- where a KMS key is signed with
        private_jwk  text,                  -- a local key itself, in the clear: development only
        withdrawn_at integer                -- seconds since the epoch, when it was first seen to be listed no more
      );
      -- Names that turned out to stand for another key. A keeper that falls silent afterwards takes nothing of that back.
      create table if not exists mismatch (name text primary key);`)
  }

  /**
   * Makes sure that every listed key is known: a new one is created or fetched from its keeper and pinned. A known one is
   * compared with its pin from time to time, in the background, so that no keeper holds up what is published. Keys that
   * are listed no more are withdrawn, and forgotten when their last token is over.
   *
   * @param now seconds since the epoch
   * @returns how the keys stand. A key that cannot be announced is a failure of its own and hinders no other.
   */
  async announce(
    stamp: Stamp,
    references: readonly KeyReference[],
    kms: KmsAccess | null,
    now: number,
  ): Promise<Announcement> {
    const foreign = compareStamp(this.#sql, stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    // The keepers are asked all at once. What they answer is pinned in the operator's order, so that is decided by nobody else.
    const answers = await Promise.all(
      references.map((reference) => (this.#row(formatKeyReference(reference)) ? null : this.#ask(reference, kms))),
    )
    // From here on nothing waits, so no other announcement can come between.
    this.#withdraw(references.map(formatKeyReference), now)
    const listed = references.map((reference, index) => this.#settle(reference, answers[index] ?? null, now))
    this.ctx.waitUntil(Promise.all(references.map((reference) => this.#compare(reference, kms, now))))
    const withdrawn = this.#rows('where withdrawn_at is not null order by withdrawn_at desc, kid').map(storedKey)
    return { stamp: 'ours', listed, withdrawn }
  }

  #withdraw(names: readonly string[], now: number): void {
    for (const { name, withdrawn_at } of this.#rows()) {
      if (names.includes(name)) this.#sql.exec('update signing_key set withdrawn_at = null where name = ?', name)
      else if (withdrawn_at === null)
        this.#sql.exec('update signing_key set withdrawn_at = ? where name = ?', now, name)
    }
    this.#sql.exec('delete from signing_key where withdrawn_at <= ?', now - PUBLISHED_AFTER_WITHDRAWAL_SECONDS)
    this.#sql.exec('delete from mismatch where name not in (select name from signing_key)')
  }

  async #ask(reference: KeyReference, kms: KmsAccess | null): Promise<Announced | SigningError> {
    try {
      if (reference.keeper === 'local') return { ...(await generateLocalKey(reference.alg)), arn: null }
      if (!kms) throw new SigningError('denied')
      return { ...(await announceKmsKey(kms, reference.key, reference.alg)), privateJwk: null }
    } catch (error) {
      if (error instanceof SigningError) return error
      throw error
    }
  }

  /** @param answer of the key's keeper, where it was not known before */
  #settle(reference: KeyReference, answer: Announced | SigningError | null, now: number): ListedKey {
    const name = formatKeyReference(reference)
    if (answer && !(answer instanceof SigningError)) {
      this.#pin(name, answer)
      this.#compareAt.set(name, now + COMPARE_SECONDS)
    }
    const row = this.#row(name)
    // What could not be pinned although its keeper gave it is listed under another name already.
    if (!row) return { key: null, failed: answer instanceof SigningError ? answer.code : 'key_mismatch' }
    const key = storedKey(row)
    // A key has one algorithm, the one that it was announced with.
    const matches = !this.#isMismatched(name) && (reference.alg ?? key.publicJwk.alg) === key.publicJwk.alg
    return { key, failed: matches ? null : 'key_mismatch' }
  }

  /**
   * Asks whether a name still stands for the key that was pinned under it. It does not if an alias was moved: the pinned
   * key could go on signing, but it is not the one that the operator means any more.
   */
  async #compare(reference: KeyReference, kms: KmsAccess | null, now: number): Promise<void> {
    const name = formatKeyReference(reference)
    if (reference.keeper === 'local' || !this.#row(name) || now < (this.#compareAt.get(name) ?? 0)) return
    this.#compareAt.set(name, now + COMPARE_AGAIN_SECONDS)
    const answer = await this.#ask(reference, kms)
    const row = this.#row(name)
    if (!row) return
    if (answer instanceof SigningError) {
      // A keeper that does not answer says nothing against a key. Whether it can sign, signing will show.
      if (answer.code === 'key_mismatch') this.#sql.exec('insert into mismatch values (?) on conflict do nothing', name)
      return
    }
    const { kid, alg } = storedKey(row).publicJwk
    if (answer.publicJwk.kid !== kid || answer.publicJwk.alg !== alg) {
      this.#sql.exec('insert into mismatch values (?) on conflict do nothing', name)
      return
    }
    this.#sql.exec('delete from mismatch where name = ?', name)
    this.#compareAt.set(name, now + COMPARE_SECONDS)
  }

  #isMismatched(name: string): boolean {
    return this.#sql.exec('select 1 from mismatch where name = ?', name).toArray().length > 0
  }

  /** Remembers a key, unless its name or the key itself is known already. */
  #pin(name: string, { publicJwk, arn, privateJwk }: Announced): void {
    // A withdrawn key that comes back under another name is still the same key.
    this.#sql.exec(
      `update signing_key set name = ?1, withdrawn_at = null where kid = ?2 and withdrawn_at is not null
       and not exists (select 1 from signing_key where name = ?1)`,
      name,
      publicJwk.kid,
    )
    this.#sql.exec(
      'insert into signing_key values (?, ?, ?, ?, ?, null) on conflict do nothing',
      publicJwk.kid,
      name,
      JSON.stringify(publicJwk),
      arn,
      privateJwk && JSON.stringify(privateJwk),
    )
  }

  #row(name: string): Row | undefined {
    return this.#rows('where name = ?', name)[0]
  }

  #rows(where = '', ...values: SqlStorageValue[]): Row[] {
    return this.#sql
      .exec<Row>(`select name, public_jwk, arn, private_jwk, withdrawn_at from signing_key ${where}`, ...values)
      .toArray()
  }
}

function storedKey(row: Row): StoredKey {
  return {
    publicJwk: JSON.parse(row.public_jwk),
    arn: row.arn,
    privateJwk: row.private_jwk === null ? null : JSON.parse(row.private_jwk),
    publishedUntil: row.withdrawn_at === null ? null : row.withdrawn_at + PUBLISHED_AFTER_WITHDRAWAL_SECONDS,
  }
}
