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

/** What a storage belongs to. Keys of one trust domain, issuer or mode must never turn up in another (T-12). */
export interface Stamp {
  readonly mode: string
  readonly issuer: string
  readonly trustDomain: string
}

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
  /** Keys that this object has compared with their keeper since it woke up. */
  readonly #compared = new Set<string>()
  /** Names that turned out to stand for another key. A keeper that falls silent afterwards takes nothing of that back. */
  readonly #mismatched = new Set<string>()

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#sql.exec(`
      create table if not exists stamp (field text primary key, value text not null);
      create table if not exists signing_key (
        kid          text primary key,
        name         text not null unique,  -- as the operator lists it
        public_jwk   text not null,
        arn          text,                  -- where a KMS key is signed with
        private_jwk  text,                  -- a local key itself, in the clear: development only
        withdrawn_at integer                -- seconds since the epoch, when it was first seen to be listed no more
      );`)
  }

  /**
   * Makes sure that every listed key is known: a new one is created or fetched from its keeper and pinned, a known one
   * is compared with its pin. Keys that are listed no more are withdrawn, and forgotten when their last token is over.
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
    const foreign = this.#compareStamp(stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    // The keepers are asked all at once. What they answer is pinned in the operator's order, so that is decided by nobody else.
    const answers = await Promise.all(references.map((reference) => this.#ask(reference, kms)))
    // From here on nothing waits, so no other announcement can come between.
    this.#withdraw(references.map(formatKeyReference), now)
    const listed = references.map((reference, index) => this.#settle(reference, answers[index] ?? null))
    const withdrawn = this.#rows('where withdrawn_at is not null order by withdrawn_at desc, kid').map(storedKey)
    return { stamp: 'ours', listed, withdrawn }
  }

  /** @returns the field in which the storage belongs to something else, or null */
  #compareStamp(stamp: Stamp): keyof Stamp | null {
    for (const [field, value] of Object.entries(stamp) as [keyof Stamp, string][]) {
      this.#sql.exec('insert into stamp values (?, ?) on conflict do nothing', field, value)
      if (this.#sql.exec('select value from stamp where field = ?', field).one().value !== value) return field
    }
    return null
  }

  #withdraw(names: readonly string[], now: number): void {
    for (const { name, withdrawn_at } of this.#rows()) {
      if (names.includes(name)) this.#sql.exec('update signing_key set withdrawn_at = null where name = ?', name)
      else if (withdrawn_at === null)
        this.#sql.exec('update signing_key set withdrawn_at = ? where name = ?', now, name)
    }
    this.#sql.exec('delete from signing_key where withdrawn_at <= ?', now - PUBLISHED_AFTER_WITHDRAWAL_SECONDS)
  }

  /** @returns what the key's keeper says of it, or null if there is nothing to ask */
  async #ask(reference: KeyReference, kms: KmsAccess | null): Promise<Announced | SigningError | null> {
    const name = formatKeyReference(reference)
    try {
      if (reference.keeper === 'local')
        return this.#row(name) ? null : { ...(await generateLocalKey(reference.alg)), arn: null }
      if (this.#compared.has(name) && this.#row(name)) return null
      if (!kms) throw new SigningError('denied')
      return { ...(await announceKmsKey(kms, reference.key, reference.alg)), privateJwk: null }
    } catch (error) {
      if (error instanceof SigningError) return error
      throw error
    }
  }

  #settle(reference: KeyReference, answer: Announced | SigningError | null): ListedKey {
    const name = formatKeyReference(reference)
    if (answer && !(answer instanceof SigningError)) this.#pin(name, answer)
    const row = this.#row(name)
    const key = row ? storedKey(row) : null
    // A key has one algorithm, the one that it was announced with.
    if (key && reference.alg !== null && reference.alg !== key.publicJwk.alg) return { key, failed: 'key_mismatch' }
    // A keeper that does not answer says nothing against a key that is pinned. Whether it can sign, signing will show.
    if (answer instanceof SigningError) {
      if (this.#mismatched.has(name)) return { key, failed: 'key_mismatch' }
      return { key, failed: key && answer.code !== 'key_mismatch' ? null : answer.code }
    }
    // The name stands for another key than it did (an alias was moved), or the key is listed under another name already.
    const { kid, alg } = answer?.arn ? answer.publicJwk : (key?.publicJwk ?? {})
    if (!key || kid !== key.publicJwk.kid || alg !== key.publicJwk.alg) {
      this.#mismatched.add(name)
      return { key, failed: 'key_mismatch' }
    }
    this.#mismatched.delete(name)
    this.#compared.add(name)
    return { key, failed: null }
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
