/** JWT-SVIDs for whoever asks, kept as long as they are good for something. */

import { JwtError } from '../../worker/jwt.ts'
import type { JwtSvid } from '../exchange.ts'
import { Failure } from '../failure.ts'
import { isMadeOutTo } from '../jwt_svid.ts'
import { NotYet } from '../patience.ts'
import { type AgentDeps, type BundleSource, detailOf } from './bundle_source.ts'
import { isDecided } from './holding.ts'
import { renewAt } from './renewal.ts'
import { verifyByBundle } from './validation.ts'

/** A workload talks to a few. What is forgotten can be had again. */
const MAX_KEPT = 256
/** At the issuer at the same time, whoever has asked: of the containers of a pod nobody knows which of them calls. */
const MAX_UNDER_WAY = 128
/** Nobody gets a token that ends before it has been used. */
const MARGIN_MS = 10_000

interface Kept {
  svid: JwtSvid | null
  renewAt: number
  /** By which all ask who ask at the same time. */
  asking: Promise<JwtSvid> | null
}

export class JwtSource {
  readonly #bundles: BundleSource
  readonly #deps: AgentDeps
  /** The one that was asked for longest ago first. */
  readonly #kept = new Map<string, Kept>()
  #underWay = 0

  constructor(bundles: BundleSource, deps: AgentDeps) {
    this.#bundles = bundles
    this.#deps = deps
  }

  /**
   * @param audience in any order
   * @param spiffeId null for the one that the issuer gives
   * @throws NotYet, Refused, Failure
   */
  async svid(audience: readonly string[], spiffeId: string | null): Promise<JwtSvid> {
    const wanted = [...new Set(audience)].sort()
    const key = JSON.stringify([spiffeId, wanted])
    const kept = this.#kept.get(key) ?? { svid: null, renewAt: 0, asking: null }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break
      this.#kept.delete(oldest)
    }

    const now = this.#deps.clock.now()
    const good = kept.svid && now < kept.svid.expiresAt * 1000 - MARGIN_MS ? kept.svid : null
    if (good && now < kept.renewAt) return good
    kept.asking ??= this.#renew(key, kept, wanted, spiffeId).finally(() => {
      kept.asking = null
    })
    if (!good) return kept.asking
    // The issuer may take its time: there is one that is still good.
    kept.asking.catch(() => {})
    return good
  }

  /** Has all of them made anew, when they are asked for. */
  forget(): void {
    this.#kept.clear()
  }

  /** Forgets those that the bundle vouches for no more: their key has been taken back, or the workload has been refused. */
  async recheck(): Promise<void> {
    for (const [key, { svid }] of this.#kept) {
      if (!svid) continue
      const [, audience] = JSON.parse(key) as [unknown, string[]]
      await this.#check(svid, audience).catch((error: Error) => {
        const { spiffeId } = svid
        this.#deps.log.sayAtTimes({
          event: 'jwt_svid_forgotten',
          spiffe_id: spiffeId,
          audience,
          detail: detailOf(error),
        })
        this.#kept.delete(key)
      })
    }
  }

  async #renew(key: string, kept: Kept, audience: readonly string[], spiffeId: string | null): Promise<JwtSvid> {
    const { clock, random, log } = this.#deps
    try {
      if (this.#underWay >= MAX_UNDER_WAY) throw new NotYet('too many tokens are being asked for')
      this.#underWay++
      try {
        const svid = await this.#issue(audience, spiffeId)
        kept.svid = svid
        kept.renewAt = renewAt(clock.now(), svid.expiresAt * 1000, random)
        log.sayAtTimes({ event: 'jwt_svid_issued', spiffe_id: svid.spiffeId, audience })
        return svid
      } finally {
        this.#underWay--
      }
    } catch (error) {
      if (!(error instanceof Error)) throw error
      // Nothing is kept of what nobody can have, and nothing is served of what somebody can have no more.
      if (isDecided(error)) kept.svid = null
      if (!kept.svid && this.#kept.get(key) === kept) this.#kept.delete(key)
      log.sayAtTimes({ event: 'jwt_svid_failed', audience, detail: detailOf(error) })
      throw error
    }
  }

  /** @throws NotYet, Refused, Failure */
  async #issue(audience: readonly string[], spiffeId: string | null): Promise<JwtSvid> {
    const { doors } = this.#deps
    const svid = await doors.jwtSvid(audience, spiffeId)
    if (svid.expiresAt * 1000 - this.#deps.clock.now() <= MARGIN_MS)
      throw new NotYet('the issuer gives a token that is about to end: the subject token may be, too')
    try {
      await this.#check(svid, audience).catch(async (error) => {
        if (!(error instanceof JwtError)) throw error
        await this.#bundles.refresh()
        await this.#check(svid, audience)
      })
    } catch (error) {
      throw error instanceof JwtError ? new Failure(`the issuer gives a token: ${error.message}`) : error
    }
    return svid
  }

  /** @throws JwtError, Failure */
  async #check({ svid, spiffeId }: JwtSvid, [first = '', ...others]: readonly string[]): Promise<void> {
    const { trustDomain, byName } = await this.#bundles.known()
    const bundles = new Map([...byName].filter(([name]) => name === trustDomain.name))
    const { issuer } = this.#deps.doors
    const now = Math.floor(this.#deps.clock.now() / 1000)
    const verified = await verifyByBundle(svid, { issuer, audience: first, bundles }, now)
    if (!isMadeOutTo(verified.audience, others)) throw new JwtError('audience')
    if (verified.spiffeId !== spiffeId) throw new JwtError('subject')
  }
}
