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
import { formatKeyReference, type KeyReference } from '../../keys/key_reference.ts'
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
import { SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import { wrapPrivateKey } from '../../keys/wrapped.ts'
import { openWrappingKeys } from '../../keys/wrapping_keys.ts'
import { type KeySettings, parseKeySettings, type Stamp } from '../key_settings.ts'
import { rotationTimes } from '../key_times.ts'
import { type KeptKey, keptSigner, wrapContext } from './kept_signer.ts'
import { KeyStore, type KmsHour, type KnownKey, type RevokedKey } from './key_store.ts'
import { compareStamp } from './stamp.ts'

/** What signing with a published key takes, besides access to its keeper. */
export interface StoredKey extends KeptKey {
  readonly phase: Exclude<Phase, 'announced'>
  /** Why it may not sign. */
  readonly failed: SigningErrorCode | null
}

/** An entry of the operator's list that has no key, or none that may sign. */
export interface KeyProblem {
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
  /** null while nothing signs. */
  readonly defaultAlg: AlgorithmName | null
  readonly problems: readonly KeyProblem[]
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

export interface KeyReport {
  readonly now: number
  readonly signingLeaseSeconds: number
  readonly defaultAlg: AlgorithmName | null
  readonly keys: readonly KeyStatus[]
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
    if (isNew || this.#store.keys().every(({ life }) => life.activeAt === null)) await round
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
    const times = rotationTimes(settings.times)
    return {
      now,
      signingLeaseSeconds: settings.times.signingLease,
      defaultAlg: reading.defaultAlg,
      keys: this.#store.keys().map((known): KeyStatus => {
        const key = known.life
        const index = settings.sources.findIndex((source) => formatKeyReference(source) === key.source)
        const made = settings.sources[index]?.key === null
        return {
          kid: key.kid,
          alg: key.alg,
          keeper: known.arn !== null ? 'awskms' : known.wrapped !== null ? 'wrapped' : 'local',
          made,
          entry: index < 0 ? null : index + 1,
          phase: key.phase,
          since: sinceWhen(key),
          publishedAt: key.publishedAt,
          safeAt: key.phase === 'published' ? safeToSignAt(key, times) : null,
          dueAt: key.phase === 'active' && made ? replacedAt(key, times) : null,
          goneAt: key.phase === 'retiring' ? (key.retiringAt ?? now) + times.publishAfter : null,
          failed: failureOf(known),
        }
      }),
      problems: reading.problems,
      orphans: this.#store
        .creations()
        .filter(({ orphaned }) => orphaned)
        .map(({ id }) => id),
      revoked: this.#store.revoked().map(({ kid, revokedAt }) => ({ kid, revokedAt })),
      kms: settings.kms && { hours: this.#store.kmsHours(now) },
    }
  }

  /**
   * Lets the successor of a key that we have made sign now, instead of when it is due.
   *
   * @param alg null for the default one
   */
  async rotate(stamp: Stamp, alg: AlgorithmName | null): Promise<RotateOutcome> {
    const { settings } = this.#admit(stamp)
    if (!settings) return { outcome: 'no_successor' }
    await this.#read(settings)
    const keys = this.#lives()
    const wanted = alg ?? defaultAlgorithm(keys, this.#sources(settings))
    const current = keys.find((key) => key.alg === wanted && key.phase === 'active')
    const next = current && waiting(current.source, keys)
    if (!next || !settings.sources.some((source) => source.key === null && formatKeyReference(source) === next.source))
      return { outcome: 'no_successor' }
    const now = this.now()
    const safeAt = safeToSignAt(next, rotationTimes(settings.times)) ?? now
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
   * Takes a key out of the JWKS at once and for ever. Where it signed, its successor does from now on, without waiting.
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
    const { revokedAt } = revoked
    return { kid, revokedAt, signingStopsAt: revokedAt + settings.times.signingLease }
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
    const emergencies = new Set(this.#store.revoked().map(({ alg }) => alg))
    const [times, now] = [rotationTimes(settings.times), this.now()]
    const planned = (lives: readonly RotatingKey[]) => advance(lives, this.#sources(settings), times, now, emergencies)
    const keys = this.#store.keys()
    const hopeful = planned(keys.map(({ life }) => life))
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
    const lives = keys.map(({ life }) => (unproven.includes(life.kid) ? { ...life, fit: false } : life))
    // Whether another one has to be made is seen when these have been tried.
    return { ...planned(lives), wanted: [], unproven }
  }

  #lives(): RotatingKey[] {
    return this.#store.keys().map(({ life }) => life)
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
    for (const reference of settings.sources) {
      const source = formatKeyReference(reference)
      const key = keys.find(({ life }) => life.source === source)
      if (reference.key !== null && !key) tasks.set(`announce ${source}`, () => this.#announce(reference, settings))
      const unsettled = creations.filter((creation) => creation.source === source)
      const mayMake = unsettled.length < MAX_ORPHANS && unsettled.every(({ orphaned }) => orphaned)
      if (reference.key === null && wanted.has(source) && mayMake)
        call(`make ${source}`, () => this.#make(reference, settings))
      if (key && reference.keeper === 'awskms' && reference.key !== null)
        call(`compare ${source}`, () => this.#compare(key.publicJwk.kid, reference, settings))
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

  async #announce(reference: KeyReference, settings: KeySettings): Promise<Settle> {
    const announced = await this.#ask(reference, settings)
    const failure = announced instanceof SigningError ? announced.code : await this.#tryOut(announced, settings)
    return () => this.#settle(formatKeyReference(reference), announced, failure, settings)
  }

  #settle(
    source: string,
    announced: KeptKey | SigningError,
    failure: SigningErrorCode | null,
    settings: KeySettings,
  ): void {
    if (announced instanceof SigningError) return void this.#failures.set(source, announced.code)
    const { kid, alg } = announced.publicJwk
    if (this.#store.revoked().some((one) => one.kid === kid)) return void this.#failures.set(source, 'revoked')
    const known = this.#store.key(kid)
    if (known) {
      const isListed = settings.sources.some((one) => formatKeyReference(one) === known.life.source)
      // A key that comes back under another name is still the same key, with the one algorithm that it was announced with.
      if (isListed || known.publicJwk.alg !== alg) return void this.#failures.set(source, 'key_mismatch')
      this.#store.rename(kid, source)
    } else this.#store.pin(source, announced, failure, this.now())
    this.#failures.delete(source)
    this.#again.set(`compare ${source}`, this.now() + COMPARE_SECONDS)
    this.#provenFor(kid, failure)
  }

  /** Makes the next key of a source that we make keys for. */
  async #make(reference: KeyReference, settings: KeySettings): Promise<void> {
    const source = formatKeyReference(reference)
    if (reference.keeper === 'wrapped') {
      const announced = await this.#ask(reference, settings)
      if (announced instanceof SigningError) return void this.#failures.set(source, announced.code)
      const failure = await this.#tryOut(announced, settings)
      this.#store.pin(source, announced, failure, this.now())
      this.#provenFor(announced.publicJwk.kid, failure)
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
    const reference = settings.sources.find((source) => formatKeyReference(source) === creation?.source)
    if (creation?.arn == null || !settings.kms) return
    if (!reference) return this.#store.dropCreation(creation)
    const { arn, source } = creation
    try {
      const { publicJwk } = await announceKmsKey(settings.kms, arn, reference.alg)
      const key = { publicJwk, arn, wrapped: null, privateJwk: null }
      const failure = await this.#tryOut(key, settings)
      this.#store.endCreation(creation, key, failure, this.now())
      this.#provenFor(publicJwk.kid, failure)
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
    const failure = await this.#tryOut(key, settings)
    // A keeper that does not answer says nothing against a key that has signed.
    const isSilent = failure === 'unavailable' || failure === 'throttled'
    if (!isSilent || key.provenAt === null) this.#store.setProven(kid, failure, this.now())
    this.#provenFor(kid, failure)
  }

  /** A key that has signed is not asked again at once. */
  #provenFor(kid: string, failure: SigningErrorCode | null): void {
    if (failure === null) this.#again.set(`prove ${kid}`, this.now() + COMPARE_SECONDS)
  }

  /**
   * Asks whether a name still stands for the key that was pinned under it. It does not if an alias was moved: the pinned
   * key could go on signing, but it is not the one that the operator means any more.
   */
  async #compare(kid: string, reference: KeyReference, settings: KeySettings): Promise<void> {
    const answer = await this.#ask(reference, settings)
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

  async #ask(reference: KeyReference, { kms, wrapping, stamp }: KeySettings): Promise<KeptKey | SigningError> {
    const nowhere = { arn: null, wrapped: null, privateJwk: null }
    try {
      if (reference.keeper === 'awskms') {
        if (!kms || reference.key === null) throw new SigningError('denied')
        return { ...nowhere, ...(await announceKmsKey(kms, reference.key, reference.alg)) }
      }
      const { publicJwk, privateJwk } = await generateLocalKey(reference.alg)
      if (reference.keeper === 'local') return { ...nowhere, publicJwk, privateJwk }
      const [wrappingKey] = await openWrappingKeys(wrapping, kms)
      if (!wrappingKey) throw new SigningError('denied')
      const wrapped = await wrapPrivateKey(privateJwk, wrapContext(stamp, publicJwk.kid), wrappingKey)
      return { ...nowhere, publicJwk, wrapped }
    } catch (error) {
      if (error instanceof SigningError) return error
      throw error
    }
  }

  /** @returns null if a key makes a signature that is right. What can't sign must never take the place of what can. */
  async #tryOut(key: KeptKey, settings: KeySettings): Promise<SigningErrorCode | null> {
    try {
      // Signers check their own signatures, or have done so when they were made.
      await (await keptSigner(key, settings)).sign(crypto.getRandomValues(new Uint8Array(32)))
      return null
    } catch (error) {
      if (error instanceof SigningError) return error.code
      throw error
    }
  }

  #reading(settings: KeySettings): OurReading {
    const keys = this.#store.keys()
    const sources = this.#sources(settings)
    const problems = sources.flatMap(({ name }, index): KeyProblem[] => {
      const own = keys.filter(({ life }) => life.source === name)
      const failed =
        this.#failures.get(name) ??
        (own.length === 0 ? 'unavailable' : own.map(failureOf).find((code) => code !== null))
      return failed ? [{ entry: index + 1, reason: failed }] : []
    })
    return {
      stamp: 'ours',
      keys: keys.flatMap(({ publicJwk, arn, wrapped, privateJwk, life: { phase }, mismatched }): StoredKey[] =>
        phase === 'announced'
          ? []
          : [{ publicJwk, arn, wrapped, privateJwk, phase, failed: mismatched ? 'key_mismatch' : null }],
      ),
      defaultAlg: defaultAlgorithm(
        keys.map(({ life }) => life),
        sources,
      ),
      problems,
    }
  }

  #sources({ sources }: KeySettings): Source[] {
    const revoked = new Set(this.#store.revoked().map(({ source }) => source))
    return sources.map((reference) => {
      const name = formatKeyReference(reference)
      return { name, made: reference.key === null, alg: reference.alg, revoked: revoked.has(name) }
    })
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

function failureOf({ mismatched, failure }: KnownKey): SigningErrorCode | null {
  return mismatched ? 'key_mismatch' : failure
}

function sinceWhen({ phase, announcedAt, publishedAt, activeAt, retiringAt }: RotatingKey): number {
  const began = { announced: announcedAt, published: publishedAt, active: activeAt, retiring: retiringAt }
  return began[phase] ?? announcedAt
}
