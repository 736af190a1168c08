/**
 * The promise of a rotation, seen from the other end: somebody who reads the bundle as often as it says, from whatever
 * isolate answers, can verify every SVID that is not over, at every moment, whatever becomes of the keys (FE-10).
 */

import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import type { AlgorithmName } from '../../../keys/algorithms.ts'
import { signCompact } from '../../../keys/jws.ts'
import type { KeyTimes } from '../../../worker/key_times.ts'
import { SpiffeId, TrustDomain } from '../../../worker/spiffe/id.ts'
import { verifyJwtSvid } from '../../../worker/spiffe/jwt_svid.ts'
import { signX509Svid } from '../../../worker/spiffe/x509_svid.ts'
import { KeyRing, type KeyRingDeps } from '../../../worker/state/key_ring.ts'
import { ISSUER } from '../../support/policy.ts'
import { Background, LogBook } from '../issuer.ts'
import { KeyWorld, STAMP } from '../key_world.ts'

/** Short, and related as the real ones. A rotation of tokens' keys takes about 170 s, one of certificates' 220 s. */
const TIMES: KeyTimes = {
  ...{ renew: 2, signingLease: 8, longestTtl: 40, longestX509Ttl: 90, refreshHint: 10, skew: 2, replaceAfter: 60 },
}
const SECRET = { keeper: 'secret', secret: `${'A'.repeat(42)}E` } as const
const DOMAIN = TrustDomain.parse('example.org')
const WEB = SpiffeId.parse('spiffe://example.org/web')
const LISTS = [['wrapped'], ['local:b', 'wrapped'], ['local:b'], ['wrapped', 'local:b']] as const

interface Bundle {
  readonly keys: readonly (JsonWebKey & { use: string; kid?: string; x5c?: string[] })[]
  readonly spiffe_sequence: number
}

/** One of the fleet. It may lose the state for a while, and then goes on with what it knows as long as it may. */
class Isolate {
  cutOffUntil = 0
  readonly #background = new Background()
  readonly #world: KeyWorld
  readonly #ring: KeyRing

  constructor(world: KeyWorld) {
    this.#world = world
    const read = ((...args: Parameters<typeof world.stub.read>) =>
      world.clock.now() < this.cutOffUntil
        ? Promise.reject(new TypeError('the state is gone'))
        : world.stub.read(...args)) as unknown as ReturnType<KeyRingDeps['keyState']>['read']
    if (!world.settings) throw new TypeError('not configured')
    this.#ring = new KeyRing({
      settings: world.settings,
      keyState: () => ({ read }),
      now: world.clock.now,
      waitUntil: this.#background.waitUntil,
      log: new LogBook().log,
    })
  }

  async bundle(): Promise<Bundle | null> {
    const published = await this.#ring.published().catch(() => null)
    await this.#background.settled()
    return published && JSON.parse(new TextDecoder().decode(published.bundle.body))
  }

  /** As long as the state is away, and it may not sign any more, it gives nothing. */
  async issue(publicKey: ArrayBuffer): Promise<Svid[]> {
    const now = this.#world.clock.now()
    const times = { notBefore: now - TIMES.skew, notAfter: now + TIMES.longestX509Ttl }
    const exp = now + TIMES.longestTtl
    const svids = await Promise.allSettled([
      this.#ring.signer(null).then(async (signer): Promise<Svid> => {
        const { kid, alg } = signer.publicJwk
        const claims = { iss: ISSUER, sub: WEB.toString(), aud: 'db', exp }
        return { kind: 'token', kid, alg, end: exp, token: await signCompact({ alg, kid, typ: 'JWT' }, claims, signer) }
      }),
      this.#ring.x509Authority().then(async (authority): Promise<Svid> => {
        await signX509Svid({ spiffeId: WEB, dnsNames: [], publicKey, ...times }, authority)
        const { certificate, notBefore, notAfter } = authority
        return {
          kind: 'certificate',
          authority: certificate.toBase64(),
          from: notBefore,
          end: times.notAfter,
          notAfter,
        }
      }),
    ])
    await this.#background.settled()
    return svids.flatMap((svid) => (svid.status === 'fulfilled' ? svid.value : []))
  }
}

type Svid =
  | { readonly kind: 'token'; kid: string; alg: AlgorithmName; end: number; token: string }
  | { readonly kind: 'certificate'; authority: string; from: number; end: number; notAfter: number }

/** Keeps the bundle for as long as it is told to, and the higher sequence of two (FE-9, FE-11). */
class Reader {
  bundle: Bundle | null = null
  #readAt = Number.NEGATIVE_INFINITY

  /** Whoever answers first: where nobody does, nobody signs either. */
  async poll(now: number, fleet: readonly Isolate[]): Promise<void> {
    if (now - this.#readAt < TIMES.refreshHint) return
    let answer: Bundle | null = null
    for (const isolate of fleet) answer ??= await isolate.bundle()
    if (!answer) return
    this.#readAt = now
    if (answer.spiffe_sequence >= (this.bundle?.spiffe_sequence ?? 0)) this.bundle = answer
  }

  accepts(svid: Svid, now: number): boolean {
    const keys = this.bundle?.keys ?? []
    if (svid.kind === 'token') return keys.some(({ use, kid }) => use === 'jwt-svid' && kid === svid.kid)
    const inTime = svid.from <= now && svid.end <= svid.notAfter
    return inTime && keys.some(({ use, x5c }) => use === 'x509-svid' && x5c?.[0] === svid.authority)
  }

  async verify(token: string, alg: AlgorithmName, now: number): Promise<unknown> {
    const keys = new Map()
    for (const { kid, kty, crv, x, y, use } of this.bundle?.keys ?? []) {
      if (use !== 'jwt-svid') continue
      const parameters = { name: 'ECDSA', namedCurve: crv ?? '' }
      const jwk = { kty, crv, x, y } as JsonWebKey
      keys.set(kid, { alg, key: await crypto.subtle.importKey('jwk', jwk, parameters, false, ['verify']) })
    }
    return await verifyJwtSvid(token, { trustDomain: DOMAIN, issuer: null, audience: 'db', keys }, now)
  }
}

const event = fc.oneof(
  { weight: 8, arbitrary: fc.record({ pass: fc.constantFrom(1, 3, 7, 20) }) },
  { weight: 1, arbitrary: fc.record({ rotate: fc.constantFrom('jwt-svid' as const, 'x509-svid' as const) }) },
  { weight: 1, arbitrary: fc.record({ list: fc.constantFrom(...LISTS) }) },
  { weight: 1, arbitrary: fc.record({ authorities: fc.constantFrom(...LISTS) }) },
  { weight: 2, arbitrary: fc.record({ cutOff: fc.nat(1), seconds: fc.constantFrom(5, 30, 200) }) },
)

test('FE-10, BU-2: no SVID is refused and no sequence falls, at any moment of any schedule', {
  timeout: 120_000,
}, async () => {
  const pair = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
  ])) as CryptoKeyPair
  const publicKey = (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer
  let rotations = 0
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 30, maxLength: 60 }), async (events) => {
      const world = new KeyWorld(['wrapped'], { authorities: ['wrapped'], wrapping: [SECRET], times: TIMES })
      const seen = new Set<string>()
      await world.read()
      await world.pass(20)
      let fleet = [new Isolate(world), new Isolate(world)]
      const readers = [new Reader(), new Reader(), new Reader()]
      let svids: Svid[] = []
      let sequence = 0
      for (const [turn, one] of events.entries()) {
        if ('rotate' in one) await world.stub.rotate(STAMP, one.rotate, null)
        if ('list' in one) world.deploy(...one.list)
        if ('authorities' in one) world.deployAuthorities(...one.authorities)
        // A deployment has isolates of its own, and those before it are gone.
        if ('list' in one || 'authorities' in one) fleet = [new Isolate(world), new Isolate(world)]
        if ('cutOff' in one) (fleet[one.cutOff] as Isolate).cutOffUntil = world.clock.now() + one.seconds
        const end = world.clock.now() + ('pass' in one ? one.pass : 1)
        for (; world.clock.now() < end; await world.pass(1)) {
          const now = world.clock.now()
          for (const [index, reader] of readers.entries())
            await reader.poll(now, (turn + index) % 2 === 0 ? fleet : fleet.toReversed())
          if (now % 4 === 0) for (const isolate of fleet) svids.push(...(await isolate.issue(publicKey)))
          svids = svids.filter((svid) => svid.end > now)
          for (const reader of readers)
            for (const svid of svids) expect([svid, reader.accepts(svid, now)]).toEqual([svid, true])
        }
        const reading = await world.read()
        expect(reading.sequence).toBeGreaterThanOrEqual(sequence)
        sequence = reading.sequence
        for (const { publicJwk, phase } of reading.keys) if (phase === 'active') seen.add(publicJwk.kid)
      }
      for (const reader of readers)
        for (const svid of svids)
          if (svid.kind === 'token' && svid.end > world.clock.now())
            await reader.verify(svid.token, svid.alg, world.clock.now())
      rotations += seen.size - 2
    }),
    { numRuns: 8, endOnFailure: true },
  )
  expect(rotations).toBeGreaterThan(0)
})
