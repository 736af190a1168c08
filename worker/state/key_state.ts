/**
 * The one place that remembers the signing keys: which there are, with what public half, where their private halves are,
 * and which of them signs. Documents are built from this alone, so a key whose keeper is gone stays published until its
 * last token has expired (T-15). When what happens to a key is `keys/rotation.ts`; here it is made to happen.
 *
 * What costs a call to a keeper is done in the background, one round at a time, by an alarm or by whoever asks. Each call
 * that changes something outside is recorded before it is made and again when it is known to have worked, so that the
 * object may end between any two steps.
 */

import { DurableObject } from 'cloudflare:workers'
import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { KeyReference } from '../../keys/key_reference.ts'
import { announceKmsKey, type KmsAccess } from '../../keys/kms.ts'
import { type KmsUsage, takeKmsUsage } from '../../keys/kms_client.ts'
import { createKmsKey, findCreatedKmsKeys, scheduleKmsKeyDeletion } from '../../keys/kms_keys.ts'
import { generateLocalKey } from '../../keys/local.ts'
import {
  type Advanced,
  advance,
  defaultAlgorithm,
  type Phase,
  type RotatingKey,
  replacedAt,
  type Source,
  safeToSignAt,
  waiting,
} from '../../keys/rotation.ts'
import { type KeyUse, SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import { wrapPrivateKey } from '../../keys/wrapped.ts'
import { openWrappingKeys } from '../../keys/wrapping_keys.ts'
import { type KeySettings, type ListedKey, parseKeySettings, type Stamp } from '../key_settings.ts'
import { authorityLifetime, rotationTimes } from '../key_times.ts'
import { TrustDomain } from '../spiffe/id.ts'
import { selfSignAuthority } from '../spiffe/x509_svid.ts'
import { type KeptKey, keptSigner, wrapContext } from './kept_signer.ts'
import { KeyStore, type KmsHour, type KnownKey, type RevokedKey, type Trial } from './key_store.ts'
import { compareStamp } from './stamp.ts'

/** What signing with a published key takes, besides access to its keeper. */
export interface StoredKey extends KeptKey {
  readonly phase: Exclude<Phase, 'announced'>
  /** Why it may not sign. */
  readonly failed: SigningErrorCode | null
  /** Of an authority: DER in base64. */
  readonly certificate: string | null
}

/** An entry of the operator's lists that has no key, or none that may sign. */
export interface KeyProblem {
  readonly use: KeyUse
  /** From 1. */
  readonly entry: number
  readonly reason: SigningErrorCode
}

/** What an isolate signs with and publishes. */
export type KeyReading =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  /** The environment of the state itself can't be read: the log of the isolates says what is wrong. */
  | { readonly stamp: 'unconfigured' }
  | OurReading

export interface OurReading {
  readonly stamp: 'ours'
  /** All that are published, by `kid`. */
  readonly keys: readonly StoredKey[]
  /** For each use what signs where nobody asks for an algorithm; null while nothing does. */
  readonly defaultAlg: Readonly<Record<KeyUse, AlgorithmName | null>>
  readonly problems: readonly KeyProblem[]
  /** Of the bundle that these keys make. */
  readonly sequence: number
}

/** A key as an administrator sees it. */
export interface KeyStatus {
  readonly kid: string
  readonly alg: AlgorithmName
  readonly keeper: KeyReference['keeper']
  /** Whether the worker has made it, and replaces it by itself. */
  readonly made: boolean
  /** In the operator's list, from 1; null where it is listed no more. */
  readonly entry: number | null
  readonly phase: Phase
  /** When the phase began. All times are seconds since the epoch. */
  readonly since: number
  readonly publishedAt: number | null
  /** From when on signing with a published key is safe. */
  readonly safeAt: number | null
  /** When an active key that we have made makes room for its successor. */
  readonly dueAt: number | null
  /** When a retiring key leaves. */
  readonly goneAt: number | null
  readonly failed: SigningErrorCode | null
}

export interface AuthorityStatus extends KeyStatus {
  /** DER in base64; null before the key has signed it. */
  readonly certificate: string | null
}

export interface KeyReport {
  readonly now: number
  readonly signingLeaseSeconds: number
  /** Of JWT-SVIDs. */
  readonly defaultAlg: AlgorithmName | null
  /** What signs JWT-SVIDs. */
  readonly keys: readonly KeyStatus[]
  /** What signs X.509-SVIDs. */
  readonly authorities: readonly AuthorityStatus[]
  readonly problems: readonly KeyProblem[]
  /** Ids of creations in KMS of which nobody knows whether there is a key: look for the tag `spiffe-edge:creation`. */
  readonly orphans: readonly string[]
  readonly revoked: readonly RevokedKey[]
  /** Newest first; null where nothing is kept in KMS. */
  readonly kms: { readonly hours: readonly KmsHour[] } | null
}

export type RotateOutcome =
  | { readonly outcome: 'rotated' }
  | { readonly outcome: 'not_safe_yet'; readonly safeAt: number }
  | { readonly outcome: 'no_successor' }

export interface Revocation extends RevokedKey {
  /** After it no isolate signs with the key any more. */
  readonly signingStopsAt: number
}

/** How often a key is compared with what its name stands for at its keeper: often enough to notice a moved alias the same hour. */
const COMPARE_SECONDS = 600
/** How old a proof that a key signs may be when it is about to take over. */
const PROOF_SECONDS = 60
/** When a keeper is asked again that was silent, refused, or gave something else than what is pinned. */
const RETRY_SECONDS = 10
/** For KMS to tell others of a key that it has created. After it, a key that is not found was not created. */
const CREATION_KNOWN_SECONDS = 900
/** How often a look-up is tried again that has failed for so long. */
const ORPHAN_RETRY_SECONDS = 3600
/** As long as nobody knows whether these are keys, no more are made. */
const MAX_ORPHANS = 3
const CREATION_TAG = 'spiffe-edge:creation'
const TRUST_DOMAIN_TAG = 'spiffe-edge:trust-domain'
const USES: readonly KeyUse[] = ['jwt-svid', 'x509-svid']

/** Writes down what was found out, in the operator's order whoever answered first. */
type Settle = () => void

/** Something to do that takes a call. */
interface Task {
  readonly name: string
  /** Not before. */
  readonly at: number
  run(): Promise<Settle | null>
}

export class KeyState extends DurableObject<Env> {
  readonly #store = new KeyStore(this.ctx.storage)
  /** When each task that went wrong, or that is done from time to time, is to be done again; in seconds since the epoch. */
  readonly #again = new Map<string, number>()
  /** Why each entry of the list has no key. What is in memory only is found out again. */
  readonly #failures = new Map<string, SigningErrorCode>()
  #settings: KeySettings | null = null
  #round: Promise<void> | null = null

  /** What the environment says; null where that can't be read. */
  protected settings(): KeySettings | null {
    this.#settings ??= parseKeySettings(this.env)
    return this.#settings
  }

  /** Seconds since the epoch. */
  protected now(): number {
    return Math.floor(Date.now() / 1000)
  }

  /**
   * @param stamp what the asker is
   * @param usage what the asker has had KMS do since it last asked
   * @returns what to sign with and to publish. A keeper that is slow holds up an issuer that has never signed, and else who
   *   is the first to ask after a key has been listed.
   */
  async read(stamp: Stamp, usage: KmsUsage | null = null): Promise<KeyReading> {
    const { settings, refused } = this.#admit(stamp)
    if (refused) return refused
    if (usage) this.#store.count(usage, this.now())
    return await this.#read(settings)
  }

  async #read(settings: KeySettings): Promise<OurReading> {
    this.#advance(settings)
    const isNew = this.#tasks(settings).some(({ name }) => name.startsWith('announce ') && !this.#again.has(name))
    const round = this.#work(settings)
    const hasSigned = this.#store.keys().some(({ use, life }) => use === 'jwt-svid' && life.activeAt !== null)
    if (isNew || !hasSigned) await round
    await this.#wake(settings)
    return this.#reading(settings)
  }

  override async alarm(): Promise<void> {
    const { settings } = this.#admit(null)
    if (!settings) return
    this.#advance(settings)
    await this.#work(settings)
    await this.#wake(settings)
  }

  /** @returns null where the state belongs to something else */
  async report(stamp: Stamp): Promise<KeyReport | null> {
    const { settings } = this.#admit(stamp)
    if (!settings) return null
    const reading = await this.#read(settings)
    const now = this.now()
    const keys = this.#store.keys()
    return {
      now,
      signingLeaseSeconds: settings.times.signingLease,
      defaultAlg: reading.defaultAlg['jwt-svid'],
      keys: keys.filter(({ use }) => use === 'jwt-svid').map((key) => statusOf(key, settings, now)),
      authorities: keys
        .filter(({ use }) => use === 'x509-svid')
        .map((key) => ({ ...statusOf(key, settings, now), certificate: key.certificate })),
      problems: reading.problems,
      orphans: this.#store
        .creations()
        .filter(({ orphaned }) => orphaned)
        .map(({ id }) => id),
      revoked: this.#store.revoked().map(({ kid, use, revokedAt }) => ({ kid, use, revokedAt })),
      kms: settings.kms && { hours: this.#store.kmsHours(now) },
    }
  }

  /**
   * Lets the successor of a key that we have made sign now, instead of when it is due.
   *
   * @param alg null for the default one
   */
  async rotate(stamp: Stamp, use: KeyUse, alg: AlgorithmName | null): Promise<RotateOutcome> {
    const { settings } = this.#admit(stamp)
    if (!settings) return { outcome: 'no_successor' }
    const { defaultAlg } = await this.#read(settings)
    const keys = this.#lives(use)
    const wanted = alg ?? defaultAlg[use]
    const current = keys.find((key) => key.alg === wanted && key.phase === 'active')
    const next = current && waiting(current.source, keys)
    if (!next || !settings.sources.some(({ reference, source }) => reference.key === null && source === next.source))
      return { outcome: 'no_successor' }
    const now = this.now()
    const safeAt = safeToSignAt(next, rotationTimes(settings.times, use)) ?? now
    if (safeAt > now) return { outcome: 'not_safe_yet', safeAt }
    this.#store.replaceAt(current.kid, now)
    this.#advance(settings)
    // It is tried out before it takes over.
    await this.#work(settings)
    const isActive = this.#store.key(next.kid)?.life.phase === 'active'
    if (!isActive) this.#store.replaceAt(current.kid, null)
    await this.#wake(settings)
    return { outcome: isActive ? 'rotated' : 'no_successor' }
  }

  /**
   * Takes a key out of what is published at once and for ever. Where it signed, its successor does from now on, without waiting.
   *
   * @returns null where there is no such key, and never was
   */
  async revoke(stamp: Stamp, kid: string): Promise<Revocation | null> {
    const { settings } = this.#admit(stamp)
    if (!settings) return null
    const key = this.#store.key(kid)
    if (key) {
      this.#store.revoke(key, this.now())
      this.#advance(settings)
      await this.#work(settings)
      await this.#wake(settings)
    }
    const revoked = this.#store.revoked().find((one) => one.kid === kid)
    if (!revoked) return null
    const { use, revokedAt } = revoked
    return { kid, use, revokedAt, signingStopsAt: revokedAt + settings.times.signingLease }
  }

  /**
   * @param stamp what the asker is; null where nobody has asked
   * @returns what is configured, or why nothing is done: the storage is that of another, by the word of the asker or by ours
   */
  #admit(
    stamp: Stamp | null,
  ):
    | { readonly settings: KeySettings; readonly refused?: never }
    | { readonly settings?: never; readonly refused: Exclude<KeyReading, OurReading> } {
    const settings = this.settings()
    if (!settings) return { refused: { stamp: 'unconfigured' } }
    const { sql } = this.ctx.storage
    const field = (stamp && compareStamp(sql, stamp)) ?? compareStamp(sql, settings.stamp)
    return field ? { refused: { stamp: 'foreign', field } } : { settings }
  }

  /** Does what time has brought. */
  #advance(settings: KeySettings): void {
    const { keys, gone } = this.#plan(settings)
    this.#store.advance(keys, gone)
  }

  /** A key takes over only if it has just been seen to sign: it may have waited for weeks. */
  #plan(settings: KeySettings): Advanced & { readonly unproven: readonly string[] } {
    const now = this.now()
    const keys = this.#store.keys()
    const hopeful = this.#planned(keys, settings)
    const nextUp = new Set(hopeful.keys.filter(({ phase }) => phase === 'active').map(({ kid }) => kid))
    const stale = keys.filter(
      ({ life, arn, wrapped, provenAt }) =>
        nextUp.has(life.kid) &&
        life.phase !== 'active' &&
        (arn !== null || wrapped !== null) &&
        Math.abs(now - (provenAt ?? 0)) > PROOF_SECONDS,
    )
    if (stale.length === 0) return { ...hopeful, unproven: [] }
    const unproven = stale.map(({ life }) => life.kid)
    const doubtful = keys.map((key) =>
      unproven.includes(key.life.kid) ? { ...key, life: { ...key.life, fit: false } } : key,
    )
    // Whether another one has to be made is seen when these have been tried.
    return { ...this.#planned(doubtful, settings), wanted: [], unproven }
  }

  /** What time brings to the keys of each use, which have nothing to do with each other. */
  #planned(keys: readonly KnownKey[], settings: KeySettings): Advanced {
    const now = this.now()
    const revoked = this.#store.revoked()
    const plans = USES.map((use) => {
      const sources = this.#sources(settings, use)
      const lives = keys.filter((key) => key.use === use).map(({ life }) => life)
      const emergencies = new Set(revoked.filter((key) => key.use === use).map(({ alg }) => alg))
      // Tokens are always signed with something. Certificates are not: then what has signed them needs no successor.
      const left = sources.length === 0 && use === 'x509-svid' ? lives.map((life) => ended(life, now)) : lives
      return advance(left, sources, rotationTimes(settings.times, use), now, emergencies)
    })
    const wakeTimes = plans.flatMap(({ wakeAt }) => wakeAt ?? [])
    return {
      keys: plans.flatMap((plan) => plan.keys),
      gone: plans.flatMap(({ gone }) => gone),
      wanted: plans.flatMap(({ wanted }) => wanted),
      wakeAt: wakeTimes.length > 0 ? Math.min(...wakeTimes) : null,
    }
  }

  #lives(use: KeyUse): RotatingKey[] {
    return this.#store
      .keys()
      .filter((key) => key.use === use)
      .map(({ life }) => life)
  }

  /** Calls what is to be called, until there is nothing more. Never rejects. One at a time, shared by all who ask. */
  #work(settings: KeySettings): Promise<void> {
    this.#round ??= this.#workThrough(settings).finally(() => {
      this.#round = null
    })
    this.ctx.waitUntil(this.#round)
    return this.#round
  }

  async #workThrough(settings: KeySettings): Promise<void> {
    for (;;) {
      const due = this.#tasks(settings).filter(({ at }) => at <= this.now())
      if (due.length === 0) return
      const settlements = await Promise.all(
        due.map(async ({ name, run }) => {
          this.#again.set(name, this.now() + RETRY_SECONDS)
          try {
            return await run()
          } catch (error) {
            // A mistake of ours in one task holds up no other.
            console.log(JSON.stringify({ event: 'key_task_failed', detail: (error as Error).name }))
            return null
          }
        }),
      )
      for (const settle of settlements) settle?.()
      if (settings.kms) this.#store.count(takeKmsUsage(settings.kms), this.now())
      this.#advance(settings)
    }
  }

  /** Everything that a call is to be made for, now or later. */
  #tasks(settings: KeySettings, plan = this.#plan(settings)): Task[] {
    const { kms } = settings
    const keys = this.#store.keys()
    const creations = this.#store.creations()
    const wanted = new Set(plan.wanted)
    const tasks = new Map<string, Task['run']>()
    const call = (name: string, run: () => Promise<void>) => tasks.set(name, () => run().then(() => null))
    for (const listed of settings.sources) {
      const { reference, source } = listed
      const key = keys.find(({ life }) => life.source === source)
      if (reference.key !== null && !key) tasks.set(`announce ${source}`, () => this.#announce(listed, settings))
      const unsettled = creations.filter((creation) => creation.source === source)
      const mayMake = unsettled.length < MAX_ORPHANS && unsettled.every(({ orphaned }) => orphaned)
      if (reference.key === null && wanted.has(source) && mayMake)
        call(`make ${source}`, () => this.#make(listed, settings))
      if (key && reference.keeper === 'awskms' && reference.key !== null)
        call(`compare ${source}`, () => this.#compare(key.publicJwk.kid, listed, settings))
    }
    for (const key of keys) {
      const task = `prove ${key.publicJwk.kid}`
      const isWaitedFor = plan.unproven.includes(key.publicJwk.kid)
      if (isWaitedFor && (this.#again.get(task) ?? 0) > this.now() + RETRY_SECONDS) this.#again.delete(task)
      if (key.privateJwk === null && key.life.phase !== 'retiring') call(task, () => this.#prove(key, settings))
    }
    if (kms) {
      for (const { id } of creations) call(`recover ${id}`, () => this.#recover(id, settings, kms))
      for (const arn of this.#store.disposals()) call(`dispose ${arn}`, () => this.#dispose(arn, kms))
    }
    for (const name of this.#again.keys()) if (!tasks.has(name)) this.#again.delete(name)
    // A time that is too far off was set by a clock that has been set back since.
    const latest = this.now() + ORPHAN_RETRY_SECONDS
    return [...tasks].map(([name, run]) => {
      const at = this.#again.get(name) ?? 0
      return { name, run, at: at > latest ? 0 : at }
    })
  }

  async #announce(listed: ListedKey, settings: KeySettings): Promise<Settle> {
    const announced = await this.#ask(listed, settings)
    if (announced instanceof SigningError) return () => void this.#failures.set(listed.source, announced.code)
    const trial = await this.#tryOut(announced, listed.source, settings)
    return () => this.#settle(listed.source, announced, trial, settings)
  }

  #settle(source: string, announced: KeptKey, trial: Trial, settings: KeySettings): void {
    const { kid, alg } = announced.publicJwk
    if (this.#store.revoked().some((one) => one.kid === kid)) return void this.#failures.set(source, 'revoked')
    const known = this.#store.key(kid)
    if (known) {
      const isListed = settings.sources.some((one) => one.source === known.life.source)
      // A key that comes back under another name is still the same key, for the one use and algorithm that it was announced for.
      if (isListed || known.use !== announced.use || known.publicJwk.alg !== alg)
        return void this.#failures.set(source, 'key_mismatch')
      this.#store.rename(kid, source)
    } else this.#store.pin(source, announced, trial, this.now())
    this.#failures.delete(source)
    this.#again.set(`compare ${source}`, this.now() + COMPARE_SECONDS)
    this.#provenFor(kid, trial.failure)
  }

  /** Makes the next key of a source that we make keys for. */
  async #make(listed: ListedKey, settings: KeySettings): Promise<void> {
    const { reference, source } = listed
    if (reference.keeper === 'wrapped') {
      const announced = await this.#ask(listed, settings)
      if (announced instanceof SigningError) return void this.#failures.set(source, announced.code)
      const trial = await this.#tryOut(announced, source, settings)
      this.#store.pin(source, announced, trial, this.now())
      this.#provenFor(announced.publicJwk.kid, trial.failure)
      this.#failures.delete(source)
      return
    }
    const { kms, stamp } = settings
    if (!kms || reference.alg === null) return
    const id = crypto.randomUUID()
    this.#store.beginCreation(id, source, this.now())
    this.#again.set(`recover ${id}`, this.now() + RETRY_SECONDS)
    try {
      const tags = { [TRUST_DOMAIN_TAG]: stamp.trustDomain, [CREATION_TAG]: id }
      this.#store.created(id, await createKmsKey(kms, reference.alg, tags))
    } catch (error) {
      if (!(error instanceof SigningError)) throw error
      this.#failures.set(source, error.code)
      // Then KMS has said that it did not. After anything else nobody knows.
      const creation = this.#store.creation(id)
      if (creation && (error.code === 'throttled' || error.code === 'denied')) this.#store.dropCreation(creation)
      return
    }
    await this.#adopt(id, settings)
  }

  /** Finds out what became of a creation that was begun and not finished (T-15). */
  async #recover(id: string, settings: KeySettings, kms: KmsAccess): Promise<void> {
    const creation = this.#store.creation(id)
    if (!creation) return
    if (creation.arn !== null) return await this.#adopt(id, settings)
    const isOld = this.now() >= creation.askedAt + CREATION_KNOWN_SECONDS
    try {
      const [arn, ...others] = await findCreatedKmsKeys(kms, { key: CREATION_TAG, value: id })
      if (arn === undefined) {
        if (isOld) this.#store.dropCreation(creation)
        return
      }
      this.#store.created(id, arn, others)
      await this.#adopt(id, settings)
    } catch (error) {
      if (!(error instanceof SigningError)) throw error
      this.#failures.set(creation.source, error.code)
      if (!isOld) return
      this.#store.orphanCreation(id)
      this.#again.set(`recover ${id}`, this.now() + ORPHAN_RETRY_SECONDS)
    }
  }

  /** Takes over a key that KMS has created. */
  async #adopt(id: string, settings: KeySettings): Promise<void> {
    const creation = this.#store.creation(id)
    const listed = settings.sources.find((one) => one.source === creation?.source)
    if (creation?.arn == null || !settings.kms) return
    if (!listed) return this.#store.dropCreation(creation)
    const { arn, source } = creation
    try {
      const { publicJwk } = await announceKmsKey(settings.kms, arn, listed.reference.alg)
      const key = { use: listed.use, publicJwk, arn, wrapped: null, privateJwk: null }
      const trial = await this.#tryOut(key, source, settings)
      this.#store.endCreation(creation, key, trial, this.now())
      this.#provenFor(publicJwk.kid, trial.failure)
      this.#failures.delete(source)
    } catch (error) {
      if (!(error instanceof SigningError)) throw error
      this.#failures.set(source, error.code)
      // A new key may be refused for minutes. After that somebody has done something to it.
      const isOld = this.now() >= creation.askedAt + CREATION_KNOWN_SECONDS
      if (!isOld || (error.code !== 'key_unusable' && error.code !== 'key_mismatch')) return
      this.#store.dropCreation(creation)
      this.#failures.delete(source)
    }
  }

  async #prove(key: KnownKey, settings: KeySettings): Promise<void> {
    const { kid } = key.publicJwk
    const trial = await this.#tryOut(key, key.life.source, settings)
    // A keeper that does not answer says nothing against a key that has signed.
    const isSilent = trial.failure === 'unavailable' || trial.failure === 'throttled'
    if (!isSilent || key.provenAt === null) this.#store.setProven(kid, trial, this.now())
    this.#provenFor(kid, trial.failure)
  }

  /** A key that has signed is not asked again at once. */
  #provenFor(kid: string, failure: SigningErrorCode | null): void {
    if (failure === null) this.#again.set(`prove ${kid}`, this.now() + COMPARE_SECONDS)
  }

  /**
   * Asks whether a name still stands for the key that was pinned under it. It does not if an alias was moved: the pinned
   * key could go on signing, but it is not the one that the operator means any more.
   */
  async #compare(kid: string, listed: ListedKey, settings: KeySettings): Promise<void> {
    const answer = await this.#ask(listed, settings)
    const key = this.#store.key(kid)
    if (!key) return
    // A keeper that does not answer says nothing against a key. Whether it can sign, signing will show.
    if (answer instanceof SigningError && answer.code !== 'key_mismatch') return
    const matches =
      !(answer instanceof SigningError) && answer.publicJwk.kid === kid && answer.publicJwk.alg === key.publicJwk.alg
    this.#store.setMismatched(kid, !matches)
    if (matches) this.#again.set(`compare ${key.life.source}`, this.now() + COMPARE_SECONDS)
  }

  async #dispose(arn: string, kms: KmsAccess): Promise<void> {
    try {
      await scheduleKmsKeyDeletion(kms, arn)
      this.#store.disposed(arn)
    } catch (error) {
      if (!(error instanceof SigningError)) throw error
    }
  }

  async #ask({ use, reference }: ListedKey, { kms, wrapping, stamp }: KeySettings): Promise<KeptKey | SigningError> {
    const nowhere = { use, arn: null, wrapped: null, privateJwk: null }
    try {
      if (reference.keeper === 'awskms') {
        if (!kms || reference.key === null) throw new SigningError('denied')
        return { ...nowhere, ...(await announceKmsKey(kms, reference.key, reference.alg)) }
      }
      const { publicJwk, privateJwk } = await generateLocalKey(reference.alg)
      if (reference.keeper === 'local') return { ...nowhere, publicJwk, privateJwk }
      const [wrappingKey] = await openWrappingKeys(wrapping, kms)
      if (!wrappingKey) throw new SigningError('denied')
      const wrapped = await wrapPrivateKey(privateJwk, wrapContext(stamp, use, publicJwk.kid), wrappingKey)
      return { ...nowhere, publicJwk, wrapped }
    } catch (error) {
      if (error instanceof SigningError) return error
      throw error
    }
  }

  /**
   * Sees whether a key makes a signature that is right: what can't sign must never take the place of what can. The first
   * thing that an authority signs is its own certificate.
   */
  async #tryOut(key: KeptKey & { certificate?: string | null }, source: string, settings: KeySettings): Promise<Trial> {
    try {
      // Signers check their own signatures, or have done so when they were made.
      const signer = await keptSigner(key, settings)
      if (key.use === 'x509-svid' && !key.certificate) {
        const made = settings.sources.some((one) => one.source === source && one.reference.key === null)
        const certificate = await selfSignAuthority(signer, {
          trustDomain: TrustDomain.parse(settings.stamp.trustDomain),
          notBefore: this.now() - settings.times.skew,
          notAfter: this.now() + authorityLifetime(settings.times, made),
        })
        return { failure: null, certificate: certificate.toBase64() }
      }
      await signer.sign(crypto.getRandomValues(new Uint8Array(32)))
      return { failure: null, certificate: null }
    } catch (error) {
      if (error instanceof SigningError) return { failure: error.code, certificate: null }
      throw error
    }
  }

  #reading(settings: KeySettings): OurReading {
    const keys = this.#store.keys()
    const problems = settings.sources.flatMap(({ use, entry, source }): KeyProblem[] => {
      const own = keys.filter(({ life }) => life.source === source)
      const failed =
        this.#failures.get(source) ??
        (own.length === 0 ? 'unavailable' : own.map(failureOf).find((code) => code !== null))
      return failed ? [{ use, entry, reason: failed }] : []
    })
    const published = keys.flatMap(
      ({ use, publicJwk, arn, wrapped, privateJwk, life: { phase }, mismatched, certificate }): StoredKey[] =>
        phase === 'announced'
          ? []
          : [
              {
                ...{ use, publicJwk, arn, wrapped, privateJwk, phase, certificate },
                failed: mismatched ? 'key_mismatch' : null,
              },
            ],
    )
    const defaultOf = (use: KeyUse) => defaultAlgorithm(this.#lives(use), this.#sources(settings, use))
    return {
      stamp: 'ours',
      keys: published,
      defaultAlg: { 'jwt-svid': defaultOf('jwt-svid'), 'x509-svid': defaultOf('x509-svid') },
      problems,
      // A key is for one use, and has one certificate at most: its name says all that the bundle says of it.
      sequence: this.#store.bundleSequence(published.map(({ publicJwk }) => publicJwk.kid).join(' '), this.now()),
    }
  }

  #sources({ sources }: KeySettings, use: KeyUse): Source[] {
    const revoked = new Set(this.#store.revoked().map(({ source }) => source))
    return sources.flatMap(({ use: own, reference, source }) =>
      own === use
        ? [{ name: source, made: reference.key === null, alg: reference.alg, revoked: revoked.has(source) }]
        : [],
    )
  }

  /** Comes back by itself when there is something to do, whether or not anybody asks. */
  async #wake(settings: KeySettings): Promise<void> {
    const plan = this.#plan(settings)
    const { wakeAt } = plan
    // Looking after what is well is for those who ask: nobody needs to know while nobody signs.
    const well = new Set(
      this.#store
        .keys()
        .filter(({ life }) => life.fit && !plan.unproven.includes(life.kid))
        .map(({ life }) => `prove ${life.kid}`),
    )
    const tasks = this.#tasks(settings, plan).filter(({ name }) => !name.startsWith('compare ') && !well.has(name))
    const times = [...tasks.map(({ at }) => Math.max(at, this.now() + 1)), ...(wakeAt === null ? [] : [wakeAt])]
    await this.wakeUpAt(times.length > 0 ? Math.min(...times) : null)
  }

  /** @param seconds since the epoch; null for never */
  protected async wakeUpAt(seconds: number | null): Promise<void> {
    const { storage } = this.ctx
    const set = await storage.getAlarm()
    if (seconds === null) {
      if (set !== null) await storage.deleteAlarm()
    } else if (set !== seconds * 1000) await storage.setAlarm(seconds * 1000)
  }
}

function statusOf(known: KnownKey, { sources, times: all }: KeySettings, now: number): KeyStatus {
  const { use, life: key } = known
  const listed = sources.find(({ source }) => source === key.source)
  const made = listed?.reference.key === null
  const times = rotationTimes(all, use)
  return {
    kid: key.kid,
    alg: key.alg,
    keeper: known.arn !== null ? 'awskms' : known.wrapped !== null ? 'wrapped' : 'local',
    made,
    entry: listed?.entry ?? null,
    phase: key.phase,
    since: sinceWhen(key),
    publishedAt: key.publishedAt,
    safeAt: key.phase === 'published' ? safeToSignAt(key, times) : null,
    dueAt: key.phase === 'active' && made ? replacedAt(key, times) : null,
    goneAt: key.phase === 'retiring' ? (key.retiringAt ?? now) + times.publishAfter : null,
    failed: failureOf(known),
  }
}

function ended(life: RotatingKey, now: number): RotatingKey {
  return life.phase === 'active' ? { ...life, phase: 'retiring', retiringAt: now, replaceAt: null } : life
}

function failureOf({ mismatched, failure }: KnownKey): SigningErrorCode | null {
  return mismatched ? 'key_mismatch' : failure
}

function sinceWhen({ phase, announcedAt, publishedAt, activeAt, retiringAt }: RotatingKey): number {
  const began = { announced: announcedAt, published: publishedAt, active: activeAt, retiring: retiringAt }
  return began[phase] ?? announcedAt
}
