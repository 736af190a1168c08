/** The workload's X.509-SVIDs, each with a key pair that is made here, is never on a disk, and is replaced with the certificate. */

import { ALGORITHMS } from '../../keys/algorithms.ts'
import { writeCsr } from '../../keys/csr.ts'
import { isSame } from '../../keys/der.ts'
import { exportPkcs8, generateLocalKey, localSigner } from '../../keys/local.ts'
import { CLOCK_SKEW_SECONDS } from '../../worker/jwt.ts'
import { validateX509Svid, X509SvidError } from '../../worker/spiffe/x509_validation.ts'
import type { X509Svid } from '../exchange.ts'
import { Failure } from '../failure.ts'
import { NotYet } from '../patience.ts'
import { type AgentDeps, type BundleSource, type Bundles, detailOf } from './bundle_source.ts'
import { Holding, isDecided } from './holding.ts'
import { Recurring } from './recurring.ts'
import { Backoff, renewAt } from './renewal.ts'

type Der = Uint8Array<ArrayBuffer>

/** What every TLS library takes, and the fastest to make. */
const KEY_ALGORITHM = 'ES256'

export interface HeldX509Svid {
  readonly spiffeId: string
  /** DER each, leaf first. */
  readonly chain: readonly Der[]
  /** PKCS #8, DER. */
  readonly key: Der
  readonly hint: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
}

export class X509Source {
  readonly #identities: readonly X509Identity[]

  /** @param spiffeIds null for the one that the issuer gives */
  constructor(spiffeIds: readonly (string | null)[], bundles: BundleSource, deps: AgentDeps) {
    this.#identities = spiffeIds.map((spiffeId) => new X509Identity(spiffeId, bundles, deps))
  }

  /** Those that are good now, in the order in which they were asked for. */
  get svids(): readonly HeldX509Svid[] {
    return this.#identities.flatMap(({ current }) => current ?? [])
  }

  /** Whether each has been tried: before that, the first of them need not be the default one. */
  get settled(): boolean {
    return this.#identities.every(({ held }) => held.settled)
  }

  /** Why one of them is not there: what may be over in a moment, rather than that somebody may not have it. */
  get problem(): Error | null {
    const problems = this.#identities.flatMap(({ problem }) => problem ?? [])
    return problems.find((problem) => !isDecided(problem)) ?? problems[0] ?? null
  }

  /** Has all of them made anew. @returns when each has been tried */
  async renew(): Promise<void> {
    await Promise.all(this.#identities.map((identity) => identity.renew()))
  }

  stop(): void {
    for (const identity of this.#identities) identity.stop()
  }

  /** Has those replaced that the bundle vouches for no more: their authority has been taken back. Has made what there is none of. */
  async recheck(): Promise<void> {
    await Promise.all(this.#identities.map((identity) => identity.recheck()))
  }
}

class X509Identity {
  readonly held: Holding<HeldX509Svid>
  readonly #spiffeId: string | null
  readonly #bundles: BundleSource
  readonly #deps: AgentDeps
  readonly #backoff: Backoff
  readonly #recurring: Recurring

  constructor(spiffeId: string | null, bundles: BundleSource, deps: AgentDeps) {
    this.#spiffeId = spiffeId
    this.#bundles = bundles
    this.#deps = deps
    this.held = new Holding(deps.changes)
    this.#backoff = new Backoff(deps.random)
    this.#recurring = new Recurring(() => this.#renew(), deps.clock)
  }

  /** Null where there is none, or it has expired. */
  get current(): HeldX509Svid | null {
    const svid = this.held.value
    return svid && this.#deps.clock.now() < svid.expiresAt * 1000 ? svid : null
  }

  /** Why there is none; null if there is one, or none has been tried yet. */
  get problem(): Error | null {
    if (this.current) return null
    return this.held.value ? new NotYet('the SVID has expired') : this.held.problem
  }

  renew(): Promise<void> {
    return this.#recurring.run()
  }

  stop(): void {
    this.#recurring.stop()
  }

  async recheck(): Promise<void> {
    const [svid, bundles] = [this.current, this.#bundles.held.value]
    if (!bundles) return
    if (!svid) return this.renew()
    try {
      await this.#validate(svid.chain, bundles)
    } catch (error) {
      if (!(error instanceof X509SvidError)) throw error
      this.#deps.log.say({ event: 'x509_svid_outlived_its_authority', spiffe_id: svid.spiffeId, detail: error.message })
      await this.renew()
    }
  }

  async #renew(): Promise<number> {
    const { clock, random, log } = this.#deps
    try {
      const svid = await this.#issue()
      this.#backoff.reset()
      this.held.hold(svid)
      const { spiffeId, expiresAt } = svid
      log.say({ event: 'x509_svid_issued', spiffe_id: spiffeId, expires: new Date(expiresAt * 1000).toISOString() })
      return renewAt(clock.now(), expiresAt * 1000, random)
    } catch (error) {
      if (!(error instanceof Error)) throw error
      const waitMs = this.#backoff.after(error)
      const expired = this.held.value !== null && this.current === null
      if (isDecided(error) || expired) this.held.drop(error)
      else this.held.failed(error)
      log.say({
        event: 'x509_svid_failed',
        ...(this.#spiffeId !== null && { spiffe_id: this.#spiffeId }),
        ...{ detail: detailOf(error), retry_in_ms: waitMs, still_served: this.held.value !== null },
      })
      // Those who watch are told when it is over.
      const end = this.held.value ? this.held.value.expiresAt * 1000 : Number.POSITIVE_INFINITY
      return Math.min(clock.now() + waitMs, end)
    }
  }

  /** @throws Failure */
  async #issue(): Promise<HeldX509Svid> {
    // Without them nothing could be checked, and the issuer would have signed in vain.
    await this.#bundles.known()
    const { publicJwk, privateJwk } = await generateLocalKey(KEY_ALGORITHM)
    const publicKey = await subjectPublicKeyInfo(publicJwk as JsonWebKey)
    const csr = await writeCsr(publicKey, await localSigner(publicJwk, privateJwk))
    const answer = await this.#deps.doors.x509Svid(pem(csr), this.#spiffeId)
    const { spiffeId, notAfter } = await this.#check(answer, publicKey)
    return {
      ...{ spiffeId, chain: answer.chain.map(octets), key: await exportPkcs8(privateJwk) },
      ...{ hint: answer.hint ?? '', expiresAt: notAfter },
    }
  }

  /** Nothing is served that a peer would refuse, or that is another's. */
  async #check(answer: X509Svid, publicKey: Der): Promise<{ spiffeId: string; notAfter: number }> {
    const chain = answer.chain.map(octets)
    let verified: Awaited<ReturnType<typeof validateX509Svid>>
    try {
      verified = await this.#validateNew(chain).catch(async (error) => {
        if (!(error instanceof X509SvidError)) throw error
        // Perhaps of an authority that is newer than what we know.
        await this.#bundles.refresh()
        return this.#validateNew(chain)
      })
    } catch (error) {
      throw error instanceof X509SvidError ? new Failure(`the issuer gives a certificate: ${error.message}`) : error
    }
    const spiffeId = verified.spiffeId.toString()
    if (!isSame(verified.publicKey, publicKey)) throw new Failure('the issuer gives a certificate for another key')
    if (spiffeId !== answer.spiffeId || (this.#spiffeId !== null && spiffeId !== this.#spiffeId))
      throw new Failure('the issuer gives a certificate for another SPIFFE ID')
    return { spiffeId, notAfter: verified.notAfter }
  }

  /** Peers may take at once what begins a little later by this clock, which may be behind theirs. */
  async #validateNew(chain: readonly Der[]) {
    const bundles = await this.#bundles.known()
    return this.#validate(chain, bundles).catch((error) => {
      if (!(error instanceof X509SvidError && /not_yet_valid/.test(error.code))) throw error
      return this.#validate(chain, bundles, CLOCK_SKEW_SECONDS)
    })
  }

  /** @throws X509SvidError also where it is of another trust domain than ours */
  #validate(chain: readonly Der[], { trustDomain: { name }, byName }: Bundles, skewSeconds = 0) {
    const own = byName.get(name)?.x509Authorities.map(({ der }) => der) ?? []
    return validateX509Svid(chain, new Map([[name, own]]), Math.floor(this.#deps.clock.now() / 1000) + skewSeconds)
  }
}

async function subjectPublicKeyInfo(publicJwk: JsonWebKey): Promise<Der> {
  const key = await crypto.subtle.importKey('jwk', publicJwk, ALGORITHMS[KEY_ALGORITHM].key, true, ['verify'])
  return new Uint8Array((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer)
}

function octets(der: Uint8Array): Der {
  return new Uint8Array(der)
}

function pem(csr: Uint8Array): string {
  return `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(csr).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`
}
