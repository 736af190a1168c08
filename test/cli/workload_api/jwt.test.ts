/** FetchJWTSVID and ValidateJWTSVID: what is kept, who waits for whom, and what is never handed out. */

import { Code, ConnectError } from '@connectrpc/connect'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Refused } from '../../../cli/exchange.ts'
import { NotYet } from '../../../cli/patience.ts'
import { AgentLog } from '../../../cli/workload_api/agent_log.ts'
import { BundleSource } from '../../../cli/workload_api/bundle_source.ts'
import { Changes } from '../../../cli/workload_api/holding.ts'
import { JwtSource } from '../../../cli/workload_api/jwt_source.ts'
import { NOW } from '../../support/clock.ts'
import { FakeIssuer, FakeTrustDomain, WEB } from '../../support/fake_issuer.ts'
import { ManualClock } from '../../support/manual_clock.ts'
import { testAgents } from '../../support/test_agent.ts'
import { HEADERS, workloadApiClient } from '../../support/workload_api_client.ts'

const current = testAgents()
const down = () => new NotYet('cannot be reached')
const OTHER = 'spiffe://example.org/other'

async function fetch(audience: readonly string[] = ['k8s'], spiffeId = '') {
  const { svids } = await current().client.fetchJWTSVID({ audience: [...audience], spiffeId }, { headers: HEADERS })
  return svids
}

const token = async (audience?: readonly string[], spiffeId?: string) => (await fetch(audience, spiffeId))[0]?.svid

/** @returns the code of the refusal, null for none */
async function codeOf(call: Promise<unknown>): Promise<Code | null> {
  try {
    await call
    return null
  } catch (error) {
    return ConnectError.from(error).code
  }
}

describe('FetchJWTSVID', () => {
  test('WA-15: gives the same token until half of its life is over, and lets nobody wait for the next one', async () => {
    const { clock, issuer } = await current().start()
    const first = await token()
    clock.advance(149_000)
    expect(await token()).toBe(first)
    expect(issuer.count('jwt')).toBe(1)
    clock.advance(1000)
    let answer = () => {}
    issuer.interfere = () =>
      new Promise<void>((resolve) => {
        answer = resolve
      })
    expect(await token()).toBe(first)
    await expect.poll(() => issuer.count('jwt')).toBe(2)
    answer()
    await expect.poll(() => token()).not.toBe(first)
    expect(issuer.count('jwt')).toBe(2)
  })

  test('keeps one for each set of audiences and each identity', async () => {
    const { issuer } = await current().start()
    const [one, again, other] = [await token(['a', 'b']), await token(['b', 'a', 'b']), await token(['a'])]
    expect(again).toBe(one)
    expect(other).not.toBe(one)
    expect(await token(['a'], WEB)).not.toBe(other)
    expect(issuer.count('jwt')).toBe(3)
  })

  test('a hundred who ask at the same time cost one exchange', async () => {
    const { issuer } = await current().start()
    const tokens = await Promise.all(Array.from({ length: 100 }, () => token()))
    expect(new Set(tokens).size).toBe(1)
    expect(issuer.count('jwt')).toBe(1)
  })

  test('is served from memory while the issuer cannot be reached, and never when it is about to end', async () => {
    const { clock, issuer } = await current().start()
    const first = await token()
    issuer.interfere = down
    clock.advance(289_000)
    expect(await token()).toBe(first)
    clock.advance(1000)
    expect(await codeOf(token())).toBe(Code.Unavailable)
    issuer.interfere = () => undefined
    expect(await token()).not.toBe(first)
  })

  test('T-26: who is banned gets what is kept no more, from the first refusal on', async () => {
    const { clock, issuer } = await current().start()
    await token()
    issuer.interfere = (call) => (call === 'jwt' ? new Refused('refuses (400)', 'banned') : undefined)
    clock.advance(150_000)
    await token()
    await expect.poll(() => codeOf(token())).toBe(Code.PermissionDenied)
  })

  test('what the workload can have is otherwise: all is asked for anew at the next look', async () => {
    const { issuer, clock } = await current().start()
    issuer.jwtTtl = 3600
    const first = await token()
    clock.advance(75_000)
    await expect.poll(() => issuer.count('bundles')).toBe(2)
    expect(await token()).toBe(first)
    issuer.terms = 'two'
    clock.advance(75_000)
    await expect.poll(() => token()).not.toBe(first)
    expect(current().events.filter(({ event }) => event === 'terms_changed')).toHaveLength(1)
  })

  test('WA-8: one of several that cannot be had now is not left out, and one that is refused is', async () => {
    const [a, b] = ['spiffe://example.org/a', 'spiffe://example.org/b'] as const
    const { issuer } = await current().start(a, b)
    const asked = () =>
      current()
        .client.fetchJWTSVID({ audience: ['k8s'] }, { headers: HEADERS })
        .then(({ svids }) => svids)
    let problem: Error = down()
    issuer.lieAboutJwt = (svid) => {
      if (svid.spiffeId === a) throw problem
      return svid
    }
    expect(await codeOf(asked())).toBe(Code.Unavailable)
    problem = new Refused('refuses (400)', 'spiffe_id_not_allowed')
    expect((await asked()).map(({ spiffeId }) => spiffeId)).toEqual([b])
  })

  test('one that is about to end is not handed out, though it is new', async () => {
    const { issuer } = await current().start()
    issuer.jwtTtl = 10
    expect(await codeOf(token())).toBe(Code.Unavailable)
    issuer.jwtTtl = 11
    expect(await codeOf(token())).toBeNull()
  })

  test('nor later, when it is about to end before it would be renewed', async () => {
    const { issuer, clock } = await current().start()
    issuer.jwtTtl = 14
    const first = await token()
    clock.advance(3900)
    expect(await token()).toBe(first)
    clock.advance(100)
    expect(await token()).not.toBe(first)
  })

  test('a key that is taken back takes its tokens along', async () => {
    const { issuer } = await current().start()
    issuer.jwtTtl = 3600
    const first = await token()
    await issuer.own.replaceAuthorities()
    expect(await token()).toBe(first)
    await current().until(() => current().events.some(({ event }) => event === 'jwt_svid_forgotten'))
    expect(await token()).not.toBe(first)
    expect(issuer.count('jwt')).toBe(2)
  })

  test('also while the issuer does not answer for certificates', async () => {
    const { issuer } = await current().start()
    issuer.jwtTtl = 3600
    issuer.interfere = (call) => (call === 'x509' ? new Promise(() => {}) : undefined)
    const first = await token()
    await issuer.own.replaceAuthorities()
    await current().until(() => current().events.some(({ event }) => event === 'jwt_svid_forgotten'))
    expect(await token()).not.toBe(first)
  })

  test('T-26: and even before, when the bundles are refused', async () => {
    const { clock, issuer } = await current().start()
    issuer.jwtTtl = 3600
    await token()
    issuer.interfere = () => new Refused('refuses (400)', 'banned')
    clock.advance(75_000)
    await expect.poll(() => codeOf(token())).toBe(Code.PermissionDenied)
  })

  test('WA-14: an audience that the issuer refuses is PermissionDenied, and is asked for anew each time', async () => {
    const { issuer } = await current().start()
    issuer.interfere = (call) => (call === 'jwt' ? new Refused('refuses (400)', 'target_not_allowed') : undefined)
    for (const asked of [1, 2]) {
      expect(await codeOf(token())).toBe(Code.PermissionDenied)
      expect(issuer.count('jwt')).toBe(asked)
    }
  })

  test.each<[string, readonly string[], string, Code]>([
    ['no audience', [], '', Code.InvalidArgument],
    ['an empty audience', ['k8s', ''], '', Code.InvalidArgument],
    ['17 audiences', Array.from({ length: 17 }, (_, index) => `a${index}`), '', Code.InvalidArgument],
    ['an audience that is too long', ['a'.repeat(2049)], '', Code.InvalidArgument],
    ['a SPIFFE ID that is none', ['k8s'], 'example.org/web', Code.InvalidArgument],
    ['a SPIFFE ID with a slash at its end', ['k8s'], `${WEB}/`, Code.InvalidArgument],
    ['a SPIFFE ID of another trust domain', ['k8s'], 'spiffe://peer.example/web', Code.PermissionDenied],
  ])('12.5: %s is refused, and the issuer not asked', async (_, audience, spiffeId, code) => {
    const { issuer } = await current().start()
    await token()
    expect(await codeOf(fetch(audience, spiffeId))).toBe(code)
    expect(issuer.count('jwt')).toBe(1)
  })

  test('WA-14: without a SPIFFE ID all identities are given, the default one first, and each can be had alone', async () => {
    const { issuer } = current()
    issuer.lieAboutJwt = (svid) => ({ ...svid, hint: 'same' })
    await current().start(OTHER, WEB)
    expect((await fetch()).map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      [OTHER, 'same'],
      [WEB, ''],
    ])
    expect((await fetch(['k8s'], WEB)).map(({ spiffeId }) => spiffeId)).toEqual([WEB])
    expect(await codeOf(fetch(['k8s'], 'spiffe://example.org/third'))).toBe(Code.PermissionDenied)
  })

  test('one identity that is refused keeps nobody from the others', async () => {
    const { issuer } = current()
    issuer.lieAboutJwt = (svid) => {
      if (svid.spiffeId === OTHER) throw new Refused('refuses (400)', 'target_not_allowed')
      return svid
    }
    await current().start(OTHER, WEB)
    expect((await fetch()).map(({ spiffeId }) => spiffeId)).toEqual([WEB])
  })

  test('keeps 256 of them at most', async () => {
    const { issuer } = await current().start()
    const first = await token(['0'])
    for (let from = 1; from <= 256; from += 32)
      await Promise.all(Array.from({ length: 32 }, (_, index) => token([String(from + index)])))
    const last = await token(['256'])
    expect(issuer.count('jwt')).toBe(257)
    expect(await token(['0'])).not.toBe(first)
    expect(await token(['256'])).toBe(last)
    expect(issuer.count('jwt')).toBe(258)
  })

  test('while 128 wait for an issuer that hangs, others are told so at once, and what is kept is served', async () => {
    const { issuer, socket } = await current().start()
    const kept = await token()
    issuer.interfere = () => new Promise(() => {})
    const over = new AbortController()
    for (const client of [workloadApiClient(socket), workloadApiClient(socket)])
      for (let index = 0; index < 64; index++)
        client
          .fetchJWTSVID({ audience: [crypto.randomUUID()] }, { headers: HEADERS, signal: over.signal })
          .catch(() => {})
    await expect.poll(() => issuer.count('jwt')).toBe(129)
    expect(await codeOf(token(['one more']))).toBe(Code.Unavailable)
    expect(await token()).toBe(kept)
    expect(issuer.count('jwt')).toBe(129)
    over.abort()
  })
})

describe('an issuer that lies gets nothing handed out: a token', () => {
  const lies: readonly [string, (issuer: FakeIssuer) => Promise<string> | string][] = [
    ['of another workload', ({ own }) => own.token(OTHER, 'k8s', NOW + 300)],
    ['of another trust domain', ({ own }) => own.token('spiffe://peer.example/web', 'k8s', NOW + 300)],
    ['for another audience', ({ own }) => own.token(WEB, 'other', NOW + 300)],
    ['of another issuer', ({ own }) => own.token(WEB, 'k8s', NOW + 300, { iss: 'https://evil.example' })],
    ['that has expired', ({ own }) => own.token(WEB, 'k8s', NOW - 1)],
    [
      'of a key that nobody knows',
      async () => (await FakeTrustDomain.create('example.org')).token(WEB, 'k8s', NOW + 300),
    ],
    ['that is none', () => 'x'],
  ]
  test.each(lies)('%s', async (_, make) => {
    const { issuer } = current()
    issuer.lieAboutJwt = async (svid) => ({ ...svid, svid: await make(issuer) })
    await current().start()
    expect(await codeOf(fetch(['k8s'], WEB))).toBe(Code.Unavailable)
  })

  test('of a trust domain that is believed, but is not ours', async () => {
    const { issuer } = current()
    const peer = await FakeTrustDomain.create('peer.example')
    issuer.federated.set('peer.example', peer)
    issuer.lieAboutJwt = async (svid) => {
      const spiffeId = 'spiffe://peer.example/web'
      return { ...svid, spiffeId, svid: await peer.token(spiffeId, 'k8s', NOW + 300) }
    }
    await current().start()
    expect(await codeOf(fetch())).toBe(Code.Unavailable)
  })

  test('but one of an authority that is newer than the bundle brings the bundle forward', async () => {
    const { issuer, clock } = await current().start()
    await token()
    await issuer.own.replaceAuthorities()
    clock.advance(6000)
    expect(await codeOf(token(['other']))).toBeNull()
  })
})

describe('ValidateJWTSVID', () => {
  const validate = (svid: string, audience = 'k8s') =>
    current().client.validateJWTSVID({ audience, svid }, { headers: HEADERS })

  test('takes tokens of ours and of those whom we believe, and gives their claims', async () => {
    const { issuer } = current()
    const peer = await FakeTrustDomain.create('peer.example')
    issuer.federated.set('peer.example', peer)
    await current().start()
    const guest = 'spiffe://peer.example/guest'
    const claims = { iss: undefined, jti: 'x', nested: { list: [1, 'two', null, true] } }
    expect(await validate(await issuer.own.token(WEB, ['k8s', 'b'], NOW + 300))).toMatchObject({ spiffeId: WEB })
    expect(await validate(await peer.token(guest, 'k8s', NOW + 300, claims))).toMatchObject({
      spiffeId: guest,
      claims: { sub: guest, aud: 'k8s', exp: NOW + 300, jti: 'x', nested: { list: [1, 'two', null, true] } },
    })
  })

  test('a key that is not known brings the bundle forward', async () => {
    const { issuer, clock } = current()
    const peer = await FakeTrustDomain.create('peer.example')
    issuer.federated.set('peer.example', peer)
    await current().start()
    await validate(await issuer.own.token(WEB, 'k8s', NOW + 300))
    await peer.replaceAuthorities()
    clock.advance(6000)
    const guest = 'spiffe://peer.example/guest'
    const now = clock.now() / 1000
    expect(await validate(await peer.token(guest, 'k8s', now + 300))).toMatchObject({ spiffeId: guest })
    // Not again and again.
    const asked = issuer.count('bundles')
    const strangers = await FakeTrustDomain.create('peer.example')
    for (let count = 0; count < 3; count++)
      expect(await codeOf(validate(await strangers.token(guest, 'k8s', now + 300)))).toBe(Code.InvalidArgument)
    expect(issuer.count('bundles')).toBe(asked)
  })

  const cases: readonly [string, (own: FakeTrustDomain) => Promise<string> | string, string?][] = [
    ['no audience', (own) => own.token(WEB, '', NOW + 300), ''],
    ['no token', () => ''],
    ['what is no token', () => 'a.b.c'],
    ['one for another audience', (own) => own.token(WEB, 'other', NOW + 300)],
    ['one that differs in case', (own) => own.token(WEB, 'K8S', NOW + 300)],
    ['one that has expired', (own) => own.token(WEB, 'k8s', NOW)],
    ['one that is not valid yet', (own) => own.token(WEB, 'k8s', NOW + 300, { nbf: NOW + 60 })],
    ['one whose trust domain is not believed', (own) => own.token('spiffe://peer.example/x', 'k8s', NOW + 300)],
    ['one of a trust domain itself', (own) => own.token('spiffe://example.org', 'k8s', NOW + 300)],
    ['one whose sub is no SPIFFE ID', (own) => own.token('web', 'k8s', NOW + 300)],
    ['one of an impostor', async () => (await FakeTrustDomain.create('example.org')).token(WEB, 'k8s', NOW + 300)],
    ['one that is too large', (own) => own.token(WEB, 'k8s', NOW + 300, { padding: 'x'.repeat(16_384) })],
  ]
  test.each(cases)('12.5, WA-14: refuses %s as InvalidArgument', async (_, make, audience = 'k8s') => {
    await current().start()
    expect(await codeOf(validate(await make(current().issuer.own), audience))).toBe(Code.InvalidArgument)
  })

  test('JS-11: whose bundle has been taken away is believed no more', async () => {
    const { issuer } = current()
    const peer = await FakeTrustDomain.create('peer.example')
    issuer.federated.set('peer.example', peer)
    await current().start()
    const svid = await peer.token('spiffe://peer.example/x', 'k8s', NOW + 3600, { iat: NOW })
    expect(await codeOf(validate(svid))).toBeNull()
    issuer.federated.clear()
    await current().until(() => issuer.count('bundles') === 2)
    await expect.poll(() => codeOf(validate(svid))).toBe(Code.InvalidArgument)
  })

  test('WA-5: is Unavailable as long as no bundle is known', async () => {
    current().issuer.interfere = down
    await current().start()
    expect(await codeOf(validate(await current().issuer.own.token(WEB, 'k8s', NOW + 300)))).toBe(Code.Unavailable)
  })
})

test('whatever happens, nobody gets a token that is about to end, and the issuer is asked only for a reason', async () => {
  const own = await FakeTrustDomain.create('example.org')
  const step = fc.oneof(
    fc.record({ kind: fc.constant('pass' as const), seconds: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ kind: fc.constant('ask' as const), audience: fc.constantFrom('a', 'b') }),
    fc.record({ kind: fc.constant('issuer' as const), up: fc.boolean() }),
    fc.record({ kind: fc.constant('ttl' as const), seconds: fc.integer({ min: 1, max: 600 }) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const clock = new ManualClock()
      const doors = new FakeIssuer(own, clock)
      const deps = { doors, clock, random: Math.random, log: new AgentLog(() => true, clock), changes: new Changes() }
      const bundles = new BundleSource(null, deps)
      await bundles.start()
      const source = new JwtSource(bundles, deps)
      let up = true
      for (const one of steps) {
        if (one.kind === 'pass') clock.advance(one.seconds * 1000)
        if (one.kind === 'ttl') doors.jwtTtl = one.seconds
        if (one.kind === 'issuer') {
          up = one.up
          doors.interfere = up ? () => undefined : down
        }
        if (one.kind !== 'ask') continue
        const svid = await source.svid([one.audience], null).catch((error) => {
          expect(error).toBeInstanceOf(NotYet)
          return null
        })
        if (svid) expect(svid.expiresAt * 1000 - clock.now()).toBeGreaterThanOrEqual(10_000)
        else expect(up && doors.jwtTtl > 10).toBe(false)
        // What goes on in the background is over before time passes.
        await new Promise((resolve) => setImmediate(resolve))
        await source.svid([one.audience], null).catch(() => {})
      }
      bundles.stop()
      const asks = steps.filter(({ kind }) => kind === 'ask').length
      expect(doors.count('jwt')).toBeLessThanOrEqual(2 * asks)
    }),
    { numRuns: 60 },
  )
})
