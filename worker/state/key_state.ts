/**
 * The one place that remembers the signing keys: which were announced, with what public half, from where. Documents are
 * built from this alone, so a key whose keeper is gone stays published until its last token has expired (T-15).
 */

import { DurableObject } from 'cloudflare:workers'
import { type KeySpec, keySpecName } from '../../keys/key_spec.ts'
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

/** How the listed keys stand, in the operator's order, and which others are still published. */
export type Announcement =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  | {
      readonly stamp: 'ours'
      readonly listed: readonly (StoredKey | { readonly failed: SigningErrorCode })[]
      readonly withdrawn: readonly StoredKey[]
    }

/** A withdrawn key's last token may be as old as the longest TTL, and verifiers' clocks differ. */
const PUBLISHED_AFTER_WITHDRAWAL_SECONDS = MAX_JWT_SVID_TTL_SECONDS + 300

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
  async announce(stamp: Stamp, specs: readonly KeySpec[], kms: KmsAccess | null, now: number): Promise<Announcement> {
    const foreign = this.#compareStamp(stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    this.#withdraw(specs.map(keySpecName), now)
    const listed: (StoredKey | { failed: SigningErrorCode })[] = []
    for (const spec of specs) {
      try {
        listed.push(await this.#announceKey(spec, kms))
      } catch (error) {
        if (!(error instanceof SigningError)) throw error
        listed.push({ failed: error.code })
      }
    }
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

  async #announceKey(spec: KeySpec, kms: KmsAccess | null): Promise<StoredKey> {
    const name = keySpecName(spec)
    const [pinned] = this.#rows('where name = ?', name)
    if (spec.keeper === 'local') {
      if (pinned) return storedKey(pinned)
      const { publicJwk, privateJwk } = await generateLocalKey(spec.alg)
      return this.#pin({ name, publicJwk, arn: null, privateJwk })
    }
    if (pinned && this.#compared.has(name)) return storedKey(pinned)
    if (!kms) throw new SigningError('denied')
    try {
      const { arn, publicJwk } = await announceKmsKey(kms, spec.key, spec.alg)
      const stored = this.#pin({ name, publicJwk, arn, privateJwk: null })
      this.#compared.add(name)
      return stored
    } catch (error) {
      // A keeper that does not answer says nothing against a key that is pinned. Whether it can sign, signing will show.
      const silent = error instanceof SigningError && error.code !== 'key_mismatch'
      if (pinned && silent) return storedKey(pinned)
      throw error
    }
  }

  /**
   * @throws SigningError `key_mismatch` if `name` stands for another key already (an alias was moved), or the key is
   *   listed under another name or algorithm already
   */
  #pin(key: { name: string; publicJwk: PublicJwk; arn: string | null; privateJwk: JsonWebKey | null }): StoredKey {
    const { kid } = key.publicJwk
    const publicJwk = JSON.stringify(key.publicJwk)
    const privateJwk = key.privateJwk && JSON.stringify(key.privateJwk)
    // A withdrawn key that comes back under another name is still the same key.
    this.#sql.exec(
      'update signing_key set name = ?, withdrawn_at = null where kid = ? and withdrawn_at is not null and not exists (select 1 from signing_key where name = ?)',
      key.name,
      kid,
      key.name,
    )
    this.#sql.exec(
      'insert into signing_key values (?, ?, ?, ?, ?, null) on conflict do nothing',
      kid,
      key.name,
      publicJwk,
      key.arn,
      privateJwk,
    )
    const [row] = this.#rows('where name = ?', key.name)
    // Another request may have made the local key in the meantime: then that one is it.
    if (row && (row.public_jwk === publicJwk || row.private_jwk !== null)) return storedKey(row)
    throw new SigningError('key_mismatch')
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
