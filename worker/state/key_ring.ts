/** An isolate's own copy of the signing keys: what it publishes and what it signs with come out of the same load. */

import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { renderJwks } from '../../keys/jwks.ts'
import { takeKmsUsage } from '../../keys/kms_client.ts'
import { type KeyUse, type Signer, SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import type { Log } from '../audit.ts'
import { KEY_VARIABLES, type KeySettings } from '../key_settings.ts'
import { publishingLease } from '../key_times.ts'
import { renderDiscovery } from '../oidc/discovery.ts'
import { type PublicDocument, publicDocument } from '../oidc/public_document.ts'
import { Refusal } from '../refusal.ts'
import { settledOrLate } from '../shared_call.ts'
import { renderBundle } from '../spiffe/bundle.ts'
import { openAuthority, type X509Authority } from '../spiffe/x509_svid.ts'
import { keptSigner } from './kept_signer.ts'
import type { KeyProblem, KeyReading, KeyState, OurReading, StoredKey } from './key_state.ts'
import { type Leased, LeasedCopy, STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './leased_copy.ts'

/** When a copy is renewed while a listed key is missing, or after a renewal that failed. */
const RETRY_SECONDS = 10

/** What the outside world is to this module. */
export interface KeyRingDeps {
  readonly settings: KeySettings
  keyState(): Pick<DurableObjectStub<KeyState>, 'read'>
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
}

/** The documents that relying parties read. */
export interface PublishedDocuments {
  readonly discovery: PublicDocument
  readonly jwks: PublicDocument
  readonly bundle: PublicDocument
}

interface Snapshot extends Leased {
  readonly keys: readonly StoredKey[]
  /** What signs, for each algorithm: the means to do so, or why there are none. */
  readonly signers: ReadonlyMap<AlgorithmName, Signer | SigningErrorCode>
  /** What signs certificates, or why nothing does; null where nothing is to. */
  readonly authority: X509Authority | SigningErrorCode | null
  /** Certificates, DER. */
  readonly authorities: readonly Uint8Array<ArrayBuffer>[]
  readonly defaultAlg: AlgorithmName | null
  readonly problems: readonly KeyProblem[]
  /** null while there is no key at all. */
  readonly published: PublishedDocuments | null
}

export class KeyRing {
  readonly #deps: KeyRingDeps
  readonly #copy: LeasedCopy<Snapshot>
  readonly #publishingLease: number

  constructor(deps: KeyRingDeps) {
    const { times } = deps.settings
    this.#deps = deps
    this.#publishingLease = publishingLease(times)
    this.#copy = new LeasedCopy({
      ...deps,
      ask: () => this.#ask(),
      renewAfter: ({ problems, signers, authority }) =>
        problems.length === 0 && [...signers.values(), authority].every((signer) => typeof signer !== 'string')
          ? times.renew
          : Math.min(times.renew, RETRY_SECONDS),
      retrySeconds: Math.min(times.renew, RETRY_SECONDS),
      unavailable: (detail) => unavailable(`key state: ${detail}`),
      notRenewed: 'keys_not_renewed',
    })
  }

  /**
   * @returns what is to be published, whether or not it can be signed with
   * @throws Refusal `keys_unavailable` if there is nothing
   */
  async published(): Promise<PublishedDocuments> {
    return documents(await this.#copy.current(this.#publishingLease))
  }

  /** What {@link published} would give, where there is nothing to wait for; else null. */
  get fresh(): PublishedDocuments | null {
    return this.#copy.fresh?.published ?? null
  }

  /**
   * Asks the state now.
   *
   * @returns what is to be published from this moment on
   * @throws Refusal `keys_unavailable`
   */
  async renew(): Promise<PublishedDocuments> {
    return documents(await this.#copy.renew())
  }

  /**
   * @param alg null for the default
   * @returns what signs with that algorithm. If that key cannot sign, no other takes its place.
   * @throws Refusal `keys_unavailable` or `signing_unavailable`
   */
  async signer(alg: AlgorithmName | null): Promise<Signer> {
    const { signers, defaultAlg, keys, problems } = await this.#copy.current(this.#deps.settings.times.signingLease)
    const wanted = alg ?? defaultAlg
    const signer =
      (wanted && signers.get(wanted)) ??
      (keys.some(({ publicJwk }) => publicJwk.alg === wanted)
        ? 'not_safe_yet'
        : (problems.find(({ use, entry }) => use === 'jwt-svid' && this.#mayMake(entry, wanted))?.reason ??
          'key_mismatch'))
    if (typeof signer === 'string') throw cannotSign(signer)
    return signer
  }

  /**
   * @returns what signs X.509-SVIDs. If it cannot, nothing takes its place.
   * @throws Refusal `x509_not_configured`, `keys_unavailable` or `signing_unavailable`
   */
  async x509Authority(): Promise<X509Authority> {
    const { settings, now } = this.#deps
    if (!settings.sources.some(({ use }) => use === 'x509-svid')) throw new Refusal('x509_not_configured', 'no CA_KEY')
    const { authority, problems } = await this.#copy.current(settings.times.signingLease)
    if (authority === null) throw cannotSign(problems.find(({ use }) => use === 'x509-svid')?.reason ?? 'not_safe_yet')
    if (typeof authority === 'string') throw cannotSign(authority)
    if (authority.notAfter <= now()) throw cannotSign('key_unusable')
    return authority
  }

  /**
   * @returns the certificates of all authorities that are published, DER
   * @throws Refusal `keys_unavailable`
   */
  async x509Authorities(): Promise<readonly Uint8Array<ArrayBuffer>[]> {
    return (await this.#copy.current(this.#publishingLease)).authorities
  }

  /**
   * @returns a signer with a published key of tokens, whether or not it is its turn: for what is to show that a key is dead
   * @throws Refusal `keys_unavailable` or `signing_unavailable`
   */
  async signerOf(kid: string): Promise<Signer | null> {
    const { keys } = await this.#copy.renew()
    const key = keys.find(({ use, publicJwk }) => use === 'jwt-svid' && publicJwk.kid === kid)
    if (!key) return null
    const signer = await this.#signer(key)
    if (typeof signer === 'string') throw cannotSign(signer)
    return signer
  }

  #mayMake(entry: number, alg: AlgorithmName | null): boolean {
    const listed = this.#deps.settings.sources.find((one) => one.use === 'jwt-svid' && one.entry === entry)
    const own = listed?.reference.alg ?? null
    return alg === null || own === null || own === alg
  }

  async #ask(): Promise<Snapshot> {
    const { settings, keyState, now } = this.#deps
    const askedAt = now()
    const usage = settings.kms && takeKmsUsage(settings.kms)
    const asking = keyState().read(settings.stamp, usage) as unknown as Promise<KeyReading>
    const outcome = await settledOrLate(asking, STATE_TIMEOUT_MS)
    if (!outcome) throw unavailable('key state: no answer')
    const reading = outcome.value
    if (reading.stamp === 'unconfigured') throw unavailable('the key state has another configuration')
    if (reading.stamp === 'foreign')
      throw unavailable(`the storage belongs to another ${reading.field}: give this worker a storage of its own`)
    return this.#open(reading, askedAt)
  }

  async #open({ keys, defaultAlg, problems, sequence }: OurReading, askedAt: number): Promise<Snapshot> {
    for (const { use, entry, reason } of problems)
      this.#deps.log({ event: 'signing_key_failed', variable: KEY_VARIABLES[use], entry, reason })
    const active = (use: KeyUse) => keys.filter((key) => key.use === use && key.phase === 'active')
    const signers = await Promise.all(
      active('jwt-svid').map(
        async (key) => [key.publicJwk.alg, this.#known(key) ?? (await this.#signer(key))] as const,
      ),
    )
    const issuing = active('x509-svid').find(({ publicJwk }) => publicJwk.alg === defaultAlg['x509-svid'])
    return {
      keys,
      signers: new Map(signers),
      authority: issuing ? (this.#knownAuthority(issuing) ?? (await this.#authority(issuing))) : null,
      authorities: keys.flatMap(({ certificate }) => (certificate === null ? [] : Uint8Array.fromBase64(certificate))),
      defaultAlg: defaultAlg['jwt-svid'],
      problems,
      published: keys.some(({ use }) => use === 'jwt-svid') ? await this.#publish(keys, sequence) : null,
      askedAt,
    }
  }

  /** A wrapped key is unwrapped once: each time is a call to what it is wrapped with. */
  #known({ publicJwk: { kid, alg }, failed }: StoredKey): Signer | null {
    const signer = this.#copy.latest?.signers.get(alg)
    return failed === null && typeof signer === 'object' && signer.publicJwk.kid === kid ? signer : null
  }

  #knownAuthority({ publicJwk: { kid }, failed }: StoredKey): X509Authority | null {
    const authority = this.#copy.latest?.authority
    const isSame = typeof authority === 'object' && authority?.signer.publicJwk.kid === kid
    return failed === null && isSame ? authority : null
  }

  async #authority(key: StoredKey): Promise<X509Authority | SigningErrorCode> {
    const signer = await this.#signer(key)
    if (typeof signer === 'string') return signer
    try {
      return await openAuthority(Uint8Array.fromBase64(key.certificate ?? ''), signer)
    } catch {
      // What is wrong with a certificate is no reason to sign no tokens.
      return 'key_mismatch'
    }
  }

  async #publish(keys: readonly StoredKey[], sequence: number): Promise<PublishedDocuments> {
    const { stamp, times } = this.#deps.settings
    const jwtKeys = keys.filter(({ use }) => use === 'jwt-svid').map(({ publicJwk }) => publicJwk)
    const present = new Set(jwtKeys.map(({ alg }) => alg))
    const algorithms = (Object.keys(ALGORITHMS) as AlgorithmName[]).filter((alg) => present.has(alg))
    return {
      discovery: await publicDocument(renderDiscovery(stamp.issuer, algorithms)),
      jwks: await publicDocument(renderJwks(jwtKeys)),
      bundle: await publicDocument(renderBundle(keys, sequence, times.refreshHint)),
    }
  }

  async #signer(key: StoredKey): Promise<Signer | SigningErrorCode> {
    if (key.failed !== null) return key.failed
    try {
      return await keptSigner(key, this.#deps.settings)
    } catch (error) {
      if (error instanceof SigningError) return error.code
      throw error
    }
  }
}

function documents({ published }: Snapshot): PublishedDocuments {
  if (!published) throw unavailable('no signing key has been announced yet')
  return published
}

function cannotSign(code: SigningErrorCode): Refusal {
  return new Refusal('signing_unavailable', code, STATE_RETRY_AFTER_SECONDS)
}

function unavailable(detail: string): Refusal {
  return new Refusal('keys_unavailable', detail, STATE_RETRY_AFTER_SECONDS)
}
