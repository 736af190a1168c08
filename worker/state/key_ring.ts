/** An isolate's own copy of the signing keys: what it publishes and what it signs with come out of the same load. */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import { renderJwks } from '../../keys/jwks.ts'
import type { KeyReference } from '../../keys/key_reference.ts'
import { type KmsAccess, kmsSigner } from '../../keys/kms.ts'
import { localSigner } from '../../keys/local.ts'
import { type PublicJwk, type Signer, SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import type { Log } from '../audit.ts'
import { renderDiscovery } from '../oidc/discovery.ts'
import { type PublicDocument, publicDocument } from '../oidc/public_document.ts'
import { Refusal } from '../refusal.ts'
import { settledOrLate } from '../shared_call.ts'
import { type Announcement, type KeyState, type ListedKey, SIGNING_LEASE_SECONDS } from './key_state.ts'
import { type Leased, LeasedCopy, STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './leased_copy.ts'
import type { Stamp } from './stamp.ts'

/** How old a copy may be before it is renewed, in the background. Isolates with another list than ours show by then. */
const RENEW_SECONDS = 60
/** The same while a listed key is missing, or after a renewal that failed. */
const RETRY_SECONDS = 10
/** A copy that is older is not published either. Until then verifiers are better off with it than without. */
const PUBLISHING_LEASE_SECONDS = 86_400

/** What the outside world is to this module. */
export interface KeyRingDeps {
  readonly stamp: Stamp
  readonly references: readonly KeyReference[]
  readonly kms: KmsAccess | null
  keyState(): Pick<DurableObjectStub<KeyState>, 'announce'>
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
}

/** The documents that relying parties read. */
export interface PublishedDocuments {
  readonly discovery: PublicDocument
  readonly jwks: PublicDocument
}

/** A listed key: the means to sign with it, or why there are none. */
interface SigningKey {
  /** null where even that is not known yet. */
  readonly alg: AlgorithmName | null
  readonly signer: Signer | SigningErrorCode
}

interface Snapshot extends Leased {
  readonly signingKeys: readonly SigningKey[]
  /** null while there is no key at all. */
  readonly published: PublishedDocuments | null
}

export class KeyRing {
  readonly #deps: KeyRingDeps
  readonly #copy: LeasedCopy<Snapshot>

  constructor(deps: KeyRingDeps) {
    this.#deps = deps
    this.#copy = new LeasedCopy({
      ...deps,
      ask: () => this.#ask(),
      renewAfter: ({ signingKeys }) =>
        signingKeys.every(({ signer }) => typeof signer !== 'string') ? RENEW_SECONDS : RETRY_SECONDS,
      retrySeconds: RETRY_SECONDS,
      unavailable: (detail) => unavailable(`key state: ${detail}`),
      notRenewed: 'keys_not_renewed',
    })
  }

  /**
   * @returns what is to be published, whether or not it can be signed with
   * @throws Refusal `keys_unavailable` if there is nothing
   */
  async published(): Promise<PublishedDocuments> {
    const { published } = await this.#copy.current(PUBLISHING_LEASE_SECONDS)
    if (!published) throw unavailable('no signing key has been announced yet')
    return published
  }

  /** What {@link published} would give, where there is nothing to wait for; else null. */
  get fresh(): PublishedDocuments | null {
    return this.#copy.fresh?.published ?? null
  }

  /**
   * @param alg null for whatever the first key makes
   * @returns the signer of the first listed key that makes `alg`. If that key cannot sign, no other takes its place.
   * @throws Refusal `keys_unavailable` or `signing_unavailable`
   */
  async signer(alg: AlgorithmName | null): Promise<Signer> {
    const { signingKeys } = await this.#copy.current(SIGNING_LEASE_SECONDS)
    const first = signingKeys.find((key) => alg === null || key.alg === null || key.alg === alg)
    const signer = first?.signer ?? 'key_mismatch'
    if (typeof signer === 'string') throw new Refusal('signing_unavailable', signer, STATE_RETRY_AFTER_SECONDS)
    return signer
  }

  async #ask(): Promise<Snapshot> {
    const { stamp, references, kms, keyState, now } = this.#deps
    const askedAt = now()
    const asking: Promise<Announcement> = keyState().announce(stamp, references, kms, askedAt)
    const outcome = await settledOrLate(asking, STATE_TIMEOUT_MS)
    if (!outcome) throw unavailable('key state: no answer')
    const announcement = outcome.value
    if (announcement.stamp === 'foreign')
      throw unavailable(`the storage belongs to another ${announcement.field}: give this worker a storage of its own`)
    return this.#open(announcement, askedAt)
  }

  async #open({ listed, withdrawn }: Extract<Announcement, { stamp: 'ours' }>, askedAt: number): Promise<Snapshot> {
    const { references, log } = this.#deps
    const signingKeys = await Promise.all(
      listed.map(async (entry, index) => ({
        alg: entry.key?.publicJwk.alg ?? references[index]?.alg ?? null,
        signer: await this.#signer(entry),
      })),
    )
    for (const [index, { signer }] of signingKeys.entries())
      if (typeof signer === 'string')
        log({ event: 'signing_key_failed', variable: 'SIGNING_KEY', entry: index + 1, reason: signer })
    const present = [...listed.map(({ key }) => key), ...withdrawn].filter((key) => key !== null)
    return {
      signingKeys,
      published: present.length === 0 ? null : await this.#publish(present.map(({ publicJwk }) => publicJwk)),
      askedAt,
    }
  }

  async #publish(keys: readonly PublicJwk[]): Promise<PublishedDocuments> {
    const algorithms = [...new Set(keys.map(({ alg }) => alg))]
    return {
      discovery: await publicDocument(renderDiscovery(this.#deps.stamp.issuer, algorithms)),
      jwks: await publicDocument(renderJwks(keys)),
    }
  }

  async #signer({ key, failed }: ListedKey): Promise<Signer | SigningErrorCode> {
    if (failed !== null) return failed
    try {
      if (key?.privateJwk) return await localSigner(key.publicJwk, key.privateJwk)
      if (key?.arn && this.#deps.kms) return await kmsSigner(this.#deps.kms, key.arn, key.publicJwk)
      return 'denied'
    } catch (error) {
      if (error instanceof SigningError) return error.code
      throw error
    }
  }
}

function unavailable(detail: string): Refusal {
  return new Refusal('keys_unavailable', detail, STATE_RETRY_AFTER_SECONDS)
}
