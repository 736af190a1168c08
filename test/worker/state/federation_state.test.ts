import { evictDurableObject, runInDurableObject } from 'cloudflare:test'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { FederationState } from '../../../worker/state/federation_state.ts'
import type { NamedPeer } from '../../../worker/state/federation_store.ts'
import { NOW } from '../../support/clock.ts'
import {
  type Answer,
  breakOff,
  endless,
  hang,
  hangInBody,
  held,
  Network,
  Patience,
  redirect,
  text,
} from '../../support/cluster_network.ts'
import {
  jwtEntry,
  makeAuthority,
  makeCertificate,
  spireBundle,
  type TestAuthority,
  x509Entry,
} from '../../support/foreign_bundle.ts'
import { FederationWorld } from '../federation_world.ts'
import { STAMP } from '../key_world.ts'

const URL = 'https://peer.example/bundle'
const PEER: NamedPeer = { trustDomain: 'peer.example', url: URL, bootstrap: null }
const FIRST = { version: 1, mark: 'a' }

let one: TestAuthority
let two: TestAuthority
let certificate: Uint8Array<ArrayBuffer>
beforeAll(async () => {
  ;[one, two] = await Promise.all([makeAuthority('one'), makeAuthority('two')])
  certificate = await makeCertificate(one)
})

let network: Network
let patience: Patience
let world: FederationWorld
beforeEach(() => {
  network = new Network()
  patience = new Patience()
  world = new FederationWorld()
  vi.stubGlobal('fetch', network.fetch)
  vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

const bundle = (sequence?: number, ...keys: TestAuthority[]) => spireBundle(keys.map(jwtEntry), sequence)
/** One that is fetched seldom, for tests of days. */
const hourly = (sequence: number, ...keys: TestAuthority[]) => spireBundle(keys.map(jwtEntry), sequence, 3600)

/** For whatever is under way. A signal is its object's own, and ends there. */
async function timeIsUp(): Promise<void> {
  await runInDurableObject(world.stub, () => patience.end())
}

async function kids(trustDomain = 'peer.example'): Promise<readonly string[] | null> {
  const { bundles } = await world.read(FIRST)
  const [, found] = bundles?.find(([name]) => name === trustDomain) ?? []
  return found?.jwtAuthorities.map(({ kid }) => kid) ?? null
}

/** The peer is named, and has been fetched with this. */
async function fetched(content: string): Promise<void> {
  network.serve(URL, text(content))
  await world.name(FIRST, PEER)
  await world.wake()
}

describe('a trust domain that is named', () => {
  test('is asked for at first, fetched at once, and known from then on', async () => {
    network.serve(URL, text(bundle(1, one)))
    expect(await world.read(FIRST)).toMatchObject({ unnamed: true, bundles: [] })
    await world.name(FIRST, PEER)
    expect(await world.read(FIRST)).toMatchObject({ unnamed: false, pending: true, bundles: [] })
    await world.wake()
    expect(await world.read(FIRST)).toMatchObject({ pending: false, bundles: [['peer.example', { sequence: 1 }]] })
    expect(await kids()).toEqual(['one'])
  })

  test('is sent only to who does not have it', async () => {
    await fetched(bundle(1, one))
    const { version } = await world.read(FIRST)
    expect((await world.read(FIRST, version)).bundles).toBeNull()
    network.serve(URL, text(bundle(2, two)))
    await world.pass(300)
    expect((await world.read(FIRST, version)).bundles).toHaveLength(1)
  })

  test('is known after the object has begun anew, octets and all', async () => {
    await fetched(spireBundle([x509Entry(one, certificate)]))
    await evictDurableObject(world.stub)
    const { bundles } = await world.read(FIRST)
    expect(bundles?.[0]?.[1].x509Authorities).toMatchObject([{ der: certificate, notAfter: NOW + 86_400 }])
  })

  test('with a bundle to begin with is known before anything is fetched', async () => {
    await world.name(FIRST, { ...PEER, bootstrap: bundle(5, one) })
    expect(await kids()).toEqual(['one'])
    expect(await world.status('peer.example')).toMatchObject({ succeededAt: null, sequence: 5, failure: null })
  })

  test('with a bad bundle to begin with is fetched all the same, and the status says why', async () => {
    await world.name(FIRST, { ...PEER, bootstrap: '{"keys":[{"kty":"EC","d":"x"}]}' })
    expect(await world.status('peer.example')).toMatchObject({ failure: 'private_key', keys: null })
    expect(world.events).toEqual([
      { event: 'federation_bundle_refused', trust_domain: 'peer.example', reason: 'private_key' },
    ])
  })

  test('without an endpoint is never fetched', async () => {
    await world.name(FIRST, { ...PEER, url: null, bootstrap: bundle(1, one) })
    expect(world.wakeAt).toBeNull()
    await world.pass(100_000)
    expect(network.requests).toEqual([])
    expect(await kids()).toEqual(['one'])
  })

  test('T-12: is nobody’s in the storage of another worker', async () => {
    await fetched(bundle(1, one))
    const other = { ...STAMP, issuer: 'https://other.example' }
    await expect(world.read(FIRST, null, other)).rejects.toThrow('foreign: issuer')
    await world.stub.tell(other, { version: 9, mark: 'z' }, [])
    await world.stub.forget(other, 9, ['peer.example'])
    expect(await world.stub.set(other, 'peer.example', bundle(9))).toEqual({ outcome: 'unknown' })
    expect(await world.stub.refresh(other, 'peer.example')).toEqual({ outcome: 'unknown' })
    expect(await world.stub.report(other)).toBeNull()
    expect(await kids()).toEqual(['one'])
  })
})

describe('FE-9: it is fetched again', () => {
  test.each([
    [undefined, 300],
    [1, 60],
    [60, 60],
    [600, 600],
    [3601, 3600],
    [10 ** 9, 3600],
  ])('with a hint of %s after %i s', async (hint, seconds) => {
    network.serve(URL, text(JSON.stringify({ keys: [], spiffe_refresh_hint: hint })))
    await world.name(FIRST, PEER)
    await world.wake()
    expect(world.wakeAt).toBe(NOW + seconds)
  })

  test('not sooner after a failure, and once a time', async () => {
    await fetched(bundle(1, one))
    network.serve(URL, text('', 'text/html', 500))
    await world.pass(299)
    expect(network.requests).toHaveLength(1)
    await world.pass(1)
    expect(network.requests).toHaveLength(2)
    await world.pass(299)
    expect(network.requests).toHaveLength(2)
    await world.pass(1)
    expect(network.requests).toHaveLength(3)
  })
})

describe('an object that ends before its time', () => {
  test('over a bundle does not try that one first again', async () => {
    const slow = held(text(bundle(1, one)))
    network.serve(URL, slow.answer)
    await world.name(FIRST, PEER)
    const waking = world.wake()
    await vi.waitFor(() => expect(network.requests).toHaveLength(1))
    expect(await world.status('peer.example')).toMatchObject({ fetchedAt: null, nextAt: NOW + 300 })
    slow.release()
    await waking
  })

  test('and is woken up no more is so again after the next question', async () => {
    await fetched(bundle(1, one))
    world.wakeAt = null
    await world.read(FIRST, (await world.read(FIRST)).version)
    expect(world.wakeAt).toBe(NOW + 300)
  })
})

describe('12.4: what was known stays, and the status and the log say why', () => {
  const cases: [string, Answer | (() => void), string][] = [
    ['401', text('{}', 'application/json', 401), 'status'],
    ['403', text('{}', 'application/json', 403), 'status'],
    ['404', text('{}', 'application/json', 404), 'status'],
    ['500', text('{}', 'application/json', 500), 'status'],
    ['204', () => new Response(null, { status: 204 }), 'status'],
    ['HTML', text('<!doctype html>', 'text/html'), 'not_json'],
    ['no UTF-8', text(Uint8Array.of(0x22, 0xff, 0x22)), 'not_json'],
    ['more than 1 MiB', endless().answer, 'too_large'],
    ['half an answer', breakOff, 'unreachable'],
    ['a redirect to http', redirect(302, 'http://peer.example/x'), 'redirected'],
    ['a redirect to http on this machine', redirect(302, 'http://peer.example:80/x'), 'redirected'],
    ['a redirect with userinfo', redirect(302, 'https://user:secret@peer.example/x'), 'redirected'],
    ['a redirect to itself', redirect(302, URL), 'redirected'],
    ['a redirect to nowhere', redirect(302, 'https://['), 'redirected'],
    ['a redirect without a place', () => new Response(null, { status: 302 }), 'redirected'],
    ['a list', text('[]'), 'not_an_object'],
    ['a list without keys', text('{}'), 'keys_missing'],
    ['a lower sequence', text('{"keys":[],"spiffe_sequence":6}'), 'sequence_fell'],
    ['a private key', text('{"keys":[{"k":"x"}]}'), 'private_key'],
  ]
  test.each(cases)('after %s', async (_, answer, code) => {
    await fetched(bundle(7, one))
    world.events.length = 0
    network.serve(URL, answer as Answer)
    await world.pass(300)
    expect(await kids()).toEqual(['one'])
    expect(await world.status('peer.example')).toMatchObject({
      ...{ failure: code, sequence: 7, fetchedAt: NOW + 300, succeededAt: NOW, nextAt: NOW + 600 },
      breaksAt: NOW + 900,
    })
    expect(world.events).toMatchObject([
      { event: 'federation_bundle_fetched', trust_domain: 'peer.example', failure: code },
    ])
  })

  test('after silence, for no longer than the limit', async () => {
    await fetched(bundle(7, one))
    for (const answer of [hang, hangInBody]) {
      network.serve(URL, answer)
      const before = network.requests.length
      const passing = world.pass(300)
      await vi.waitFor(() => expect(network.requests).toHaveLength(before + 1))
      await new Promise((later) => setTimeout(later))
      await timeIsUp()
      await passing
      expect(await world.status('peer.example')).toMatchObject({ failure: 'timeout', sequence: 7 })
    }
    expect(new Set(patience.asked)).toEqual(new Set([5000]))
  })

  test('until the next good one', async () => {
    await fetched(bundle(7, one))
    network.serve(URL, hang)
    network.serve(URL, text('', 'text/plain', 500))
    await world.pass(300)
    network.serve(URL, text(bundle(8, two)))
    await world.pass(300)
    expect(await kids()).toEqual(['two'])
    expect(await world.status('peer.example')).toMatchObject({ failure: null, succeededAt: NOW + 600 })
  })
})

describe('FE-11: what is the latest', () => {
  test.each<[string, number | undefined, number | undefined]>([
    ['a higher sequence', 7, 8],
    ['the same sequence', 7, 7],
    ['none after one', 7, undefined],
    ['one after none', undefined, 1],
  ])('%s', async (_, before, after) => {
    const content = (sequence: number | undefined, ...keys: TestAuthority[]) =>
      JSON.stringify({ keys: keys.map(jwtEntry), spiffe_sequence: sequence })
    await fetched(content(before, one))
    network.serve(URL, text(content(after, two)))
    await world.pass(300)
    expect(await kids()).toEqual(['two'])
  })

  test('BU-4: no keys at all are a bundle too', async () => {
    await fetched(bundle(7, one))
    network.serve(URL, text(bundle(8)))
    await world.pass(300)
    expect(await kids()).toEqual([])
  })

  test('what the administrator brings, whatever its sequence, until the next fetch', async () => {
    await fetched(bundle(7, one))
    expect(await world.stub.set(STAMP, 'peer.example', bundle(3, two))).toEqual({ outcome: 'set' })
    expect(await kids()).toEqual(['two'])
    network.serve(URL, text(bundle(4, one)))
    await world.pass(300)
    expect(await kids()).toEqual(['one'])
  })

  test('not what was asked for before the administrator brought one', async () => {
    const slow = held(text(bundle(7, one)))
    network.serve(URL, slow.answer)
    await world.name(FIRST, PEER)
    const waking = world.wake()
    await vi.waitFor(() => expect(network.requests).toHaveLength(1))
    await world.stub.set(STAMP, 'peer.example', bundle(3, two))
    slow.release()
    await waking
    expect(await kids()).toEqual(['two'])
    expect(world.wakeAt).toBe(NOW + 300)
  })

  test('a bundle that is refused leaves what is known', async () => {
    await fetched(bundle(7, one))
    expect(await world.stub.set(STAMP, 'peer.example', '{"keys":1}')).toEqual({
      ...{ outcome: 'refused', code: 'keys_not_a_list' },
    })
    expect(await world.stub.set(STAMP, 'other.example', bundle(1))).toEqual({ outcome: 'unknown' })
    expect(await kids()).toEqual(['one'])
  })

  test('a changed bundle in the policy, which is the administrator’s too', async () => {
    await fetched(bundle(7, one))
    await world.name({ version: 2, mark: 'b' }, { ...PEER, bootstrap: bundle(1, two) })
    expect(await kids()).toEqual(['two'])
  })
})

describe('a bundle in the policy', () => {
  const version = (number: number) => ({ version: number, mark: String(number) })
  const with1 = () => ({ ...PEER, bootstrap: bundle(1, one) })
  const with2 = () => ({ ...PEER, bootstrap: bundle(2, two) })

  test('is taken once, so that in a rollout no isolate with an older manifest brings back a withdrawn key', async () => {
    await world.name(version(1), with1())
    await world.name(version(2), with2())
    await world.name(version(3), with1())
    expect(await kids()).toEqual(['two'])
    await world.name(version(4), with2())
    expect(await kids()).toEqual(['two'])
  })

  test('is also not taken again where it was refused, or named without one in between', async () => {
    await world.name(version(1), { ...PEER, bootstrap: '[]' })
    await world.name(version(2), with1())
    await world.name(version(3), { ...PEER, bootstrap: '[]' })
    await world.name(version(4), with2())
    await world.name(version(5), PEER)
    await world.name(version(6), with1())
    expect(await kids()).toEqual(['two'])
    expect(world.events).toHaveLength(1)
  })

  test('may be brought again by an administrator, any number of times', async () => {
    await world.name(version(1), with1())
    await world.name(version(2), with2())
    for (const [key, known] of [
      [one, 'one'],
      [two, 'two'],
      [one, 'one'],
    ] as const) {
      expect(await world.stub.set(STAMP, 'peer.example', bundle(1, key))).toEqual({ outcome: 'set' })
      expect(await kids()).toEqual([known])
    }
  })

  test('begins anew with a relationship that was ended', async () => {
    await world.name(version(1), with1())
    await world.name(version(2), with2())
    await world.stub.forget(STAMP, 3, ['peer.example'])
    await world.name(version(4), with1())
    expect(await kids()).toEqual(['one'])
  })

  test('begins anew also where the end is heard of in the middle of it', async () => {
    await world.name(version(1), with1())
    await runInDurableObject(world.stub, async (state: FederationState) => {
      const other = { trustDomain: 'z.example', url: null, bootstrap: bundle(1, two) }
      const digest = crypto.subtle.digest.bind(crypto.subtle)
      vi.spyOn(crypto.subtle, 'digest')
        .mockImplementationOnce(digest)
        .mockImplementationOnce(async (...given) => {
          await state.forget(STAMP, 2, ['peer.example'])
          return digest(...given)
        })
      await state.tell(STAMP, version(3), [with1(), other])
    })
    expect(await kids()).toEqual(['one'])
  })
})

describe('FE-8: a redirect', () => {
  test('is followed three times, and never remembered', async () => {
    network.serve(URL, redirect(307, '/2'))
    network.serve('https://peer.example/2', redirect(302, 'https://cdn.example/3?x=1#part'))
    network.serve('https://cdn.example/3?x=1', redirect(301, '4'))
    network.serve('https://cdn.example/4', text(bundle(1, one)))
    await world.name(FIRST, PEER)
    await world.wake()
    expect(await world.status('peer.example')).toMatchObject({ failure: 'redirected' })
    network.serve('https://peer.example/2', redirect(302, 'https://cdn.example/3?x=1'))
    await world.pass(300)
    expect(await kids()).toEqual(['one'])
    const before = network.requests.length
    await world.pass(300)
    expect(network.requests[before]).toBe(URL)
  })

  test('is followed no fourth time', async () => {
    network.serve(URL, redirect(307, '/1'))
    for (const at of [1, 2, 3]) network.serve(`https://peer.example/${at}`, redirect(307, `/${at + 1}`))
    network.serve('https://peer.example/4', text(bundle(1, one)))
    await world.name(FIRST, PEER)
    await world.wake()
    expect(network.requests).not.toContain('https://peer.example/4')
    expect(await world.status('peer.example')).toMatchObject({ failure: 'redirected' })
  })
})

describe('each by itself', () => {
  const peer = (at: number): NamedPeer => ({
    ...{ trustDomain: `peer-${at}`, url: `https://peer-${at}.example/`, bootstrap: null },
  })

  test('who hangs keeps nobody else waiting', async () => {
    network.serve('https://peer-1.example/', hang)
    network.serve('https://peer-2.example/', endless().answer)
    for (const at of [4, 5, 6, 7, 8]) network.serve(`https://peer-${at}.example/`, text(bundle(1, one)))
    await world.name(FIRST, ...[1, 2, 3, 4, 5, 6, 7, 8].map(peer))
    const waking = world.wake()
    await vi.waitFor(async () => {
      for (const at of [4, 5, 6, 7, 8]) expect(await kids(`peer-${at}`)).toEqual(['one'])
    })
    await timeIsUp()
    await waking
    const failures = (await world.report()).map(({ failure }) => failure)
    expect(failures).toEqual(['timeout', 'too_large', 'unreachable', null, null, null, null, null])
  })

  test('where as many hang as there are connections, the others come next', async () => {
    for (const at of [1, 2, 3, 4, 5]) network.serve(`https://peer-${at}.example/`, hang)
    network.serve('https://peer-6.example/', text(bundle(1, one)))
    await world.name(FIRST, ...[1, 2, 3, 4, 5, 6].map(peer))
    const waking = world.wake()
    await vi.waitFor(() => expect(network.requests).toHaveLength(5))
    await new Promise((later) => setTimeout(later))
    await timeIsUp()
    await waking
    expect(await kids('peer-6')).toEqual(['one'])
  })
})

describe('who is named no more', () => {
  const SECOND = { version: 2, mark: 'b' }

  test('is in no answer and not fetched, and is deleted after ten minutes', async () => {
    await fetched(bundle(7, one))
    await world.name(SECOND)
    expect((await world.read(SECOND)).bundles).toEqual([])
    await world.pass(599)
    expect(network.requests).toHaveLength(1)
    await world.name({ version: 3, mark: 'a' }, PEER)
    expect(await kids()).toEqual(['one'])
    await world.name({ version: 4, mark: 'b' })
    await world.pass(600)
    await world.name({ version: 5, mark: 'a' }, PEER)
    expect(await kids()).toBeNull()
  })

  test('is in the next answer when it is named again, also to who has asked in between', async () => {
    await fetched(bundle(7, one))
    await world.name(SECOND)
    const { version } = await world.read(SECOND)
    await world.name({ version: 3, mark: 'a' }, PEER)
    expect((await world.read({ version: 3, mark: 'a' }, version)).bundles).toHaveLength(1)
  })

  test('FE-13: is deleted at once where an administrator has ended it, and begins anew', async () => {
    await fetched(bundle(7, one))
    await world.stub.forget(STAMP, 2, ['peer.example'])
    expect(await world.report()).toEqual([])
    // An isolate that does not know yet.
    expect(await world.read(FIRST)).toMatchObject({ unnamed: false, bundles: [] })
    await world.name(FIRST, PEER)
    expect(await world.report()).toEqual([])
    await world.name({ version: 3, mark: 'a' }, { ...PEER, bootstrap: bundle(2, two) })
    expect(await kids()).toEqual(['two'])
  })

  test('stays deleted where the one who ended it was overtaken by a policy without it', async () => {
    await fetched(bundle(7, one))
    await world.name({ version: 3, mark: 'b' })
    await world.stub.forget(STAMP, 2, ['peer.example', 'other.example'])
    await world.name({ version: 4, mark: 'a' }, PEER)
    expect(await kids()).toBeNull()
  })

  test.each([2, 3])('is left alone where policy %i, told before, names it again', async (version) => {
    await fetched(bundle(7, one))
    await world.name({ version, mark: 'c' }, PEER)
    await world.stub.forget(STAMP, 2, ['peer.example'])
    expect(await kids()).toEqual(['one'])
  })

  test('does not come back with an answer that was on its way', async () => {
    const slow = held(text(bundle(7, one)))
    network.serve(URL, slow.answer)
    await world.name(FIRST, PEER)
    const waking = world.wake()
    await vi.waitFor(() => expect(network.requests).toHaveLength(1))
    await world.stub.forget(STAMP, 2, ['peer.example'])
    slow.release()
    await waking
    expect(await world.report()).toEqual([])
  })

  test('an older policy does not count, before who has the newer one is silent', async () => {
    await fetched(bundle(7, one))
    await world.name(SECOND)
    expect((await world.read(FIRST)).unnamed).toBe(false)
    await world.name(FIRST, PEER)
    expect(await world.report()).toEqual([])
    world.clock.advance(75)
    expect((await world.read(FIRST)).unnamed).toBe(true)
    await world.name(FIRST, PEER)
    expect(await world.report()).toHaveLength(1)
  })

  test('in a rollout the old isolates count until they are silent', async () => {
    await world.name(FIRST, PEER)
    const other = { version: 1, mark: 'z' }
    for (let minute = 0; minute < 5; minute++) {
      world.clock.advance(60)
      expect((await world.read(FIRST)).unnamed).toBe(false)
      expect((await world.read(other)).unnamed).toBe(false)
    }
    world.clock.advance(75)
    expect((await world.read(other)).unnamed).toBe(true)
  })

  test('whoever moves is fetched at once, and an answer from where it was does not count', async () => {
    const slow = held(text(bundle(7, one)))
    network.serve(URL, slow.answer)
    await world.name(FIRST, PEER)
    const waking = world.wake()
    await vi.waitFor(() => expect(network.requests).toHaveLength(1))
    network.serve('https://new.example/', text(bundle(1, two)))
    await world.name(SECOND, { ...PEER, url: 'https://new.example/' })
    slow.release()
    await waking
    await world.wake()
    expect(await kids()).toEqual(['two'])
  })

  test('whoever moves keeps its keys, and its sequence begins anew', async () => {
    await fetched(bundle(7, one))
    network.serve('https://new.example/', text(bundle(2, two)))
    await world.name(SECOND, { ...PEER, url: 'https://new.example/' })
    expect(await kids()).toEqual(['one'])
    await world.wake()
    expect(await world.status('peer.example')).toMatchObject({ failure: null, sequence: 2 })
    network.serve('https://new.example/', text(bundle(1, one)))
    await world.pass(300)
    expect(await world.status('peer.example')).toMatchObject({ failure: 'sequence_fell', sequence: 2 })
  })

  test('after a day of silence nothing is fetched, and what is known stays', async () => {
    const given = { trustDomain: 'given.example', url: null, bootstrap: bundle(1, two) }
    const withdrawn = { ...PEER, bootstrap: bundle(1, two) }
    network.serve(URL, text(bundle(7, one)))
    await world.name(FIRST, withdrawn, given)
    await world.pass(86_700)
    const before = network.requests.length
    await world.pass(86_400)
    expect(network.requests).toHaveLength(before)
    expect(world.wakeAt).toBeNull()
    expect((await world.read(FIRST)).unnamed).toBe(true)
    await world.name(FIRST, withdrawn, given)
    expect(await kids('given.example')).toEqual(['two'])
    network.serve(URL, text('', 'text/plain', 500))
    await world.wake()
    expect(network.requests).toHaveLength(before + 1)
    expect(await kids()).toEqual(['one'])
  })

  test('after a day of silence nobody is believed by what may have been taken back since', async () => {
    await fetched(hourly(7, one))
    const { version } = await world.read(FIRST)
    await world.pass(2 * 86_400)
    network.serve(URL, text(hourly(8, two)))
    await world.name(FIRST, PEER)
    expect(await world.read(FIRST, version)).toMatchObject({ pending: true, bundles: [] })
    await world.wake()
    expect(await world.read(FIRST)).toMatchObject({ pending: false })
    expect(await kids()).toEqual(['two'])
  })

  test('but is again when its endpoint was asked, whatever that said', async () => {
    await fetched(hourly(7, one))
    await world.pass(2 * 86_400)
    await world.name(FIRST, PEER)
    const { version } = await world.read(FIRST)
    network.serve(URL, text('', 'text/plain', 500))
    await world.wake()
    expect((await world.read(FIRST, version)).bundles).toHaveLength(1)
  })

  test('and by what an administrator brings at once', async () => {
    await fetched(hourly(7, one))
    await world.pass(2 * 86_400)
    await world.name(FIRST, PEER)
    expect(await kids()).toBeNull()
    await world.stub.set(STAMP, 'peer.example', bundle(1, two))
    expect(await kids()).toEqual(['two'])
  })
})

describe('the status', () => {
  test('FE-10: says which keys came and went, and when', async () => {
    const both = (...keys: object[]) => JSON.stringify({ keys, spiffe_refresh_hint: 100 })
    await fetched(both(jwtEntry(one), x509Entry(one, certificate)))
    const sha256 = new Uint8Array(await crypto.subtle.digest('SHA-256', certificate)).toHex()
    expect(await world.status('peer.example')).toMatchObject({
      ...{ keys: { jwt: 1, x509: 1 }, sequence: null, refreshHintSeconds: 100, nextAt: NOW + 100 },
      ...{ change: { added: ['one', sha256], removed: [] }, changedAt: NOW, breaksAt: NOW + 300 },
    })
    network.serve(URL, text(both(jwtEntry(one), jwtEntry(two))))
    await world.pass(100)
    expect(await world.status('peer.example')).toMatchObject({
      ...{ keys: { jwt: 2, x509: 0 }, changedAt: NOW + 100, change: { added: ['two'], removed: [sha256] } },
    })
    await world.pass(100)
    expect(await world.status('peer.example')).toMatchObject({ changedAt: NOW + 100, succeededAt: NOW + 200 })
  })

  test('a key that is another under the same kid has come and gone', async () => {
    await fetched(bundle(1, one))
    network.serve(URL, text(spireBundle([{ ...jwtEntry(two), kid: 'one' }], 2)))
    await world.pass(300)
    expect(await world.status('peer.example')).toMatchObject({ change: { added: ['one'], removed: ['one'] } })
  })

  test('FE-10: breaks with the last X.509 authority, if that ends first', async () => {
    const soon = await makeCertificate(two, { notAfter: NOW + 10 })
    await fetched(spireBundle([x509Entry(two, soon)]))
    expect(await world.status('peer.example')).toMatchObject({ breaksAt: NOW + 10 })
    network.serve(URL, text(spireBundle([x509Entry(two, soon), x509Entry(one, certificate)], 2)))
    await world.pass(300)
    expect(await world.status('peer.example')).toMatchObject({ breaksAt: NOW + 300 + 900 })
  })

  test('an administrator fetches now', async () => {
    await fetched(bundle(1, one))
    network.serve(URL, text(bundle(2, two)))
    expect(await world.stub.refresh(STAMP, 'peer.example')).toEqual({ outcome: 'refreshed' })
    expect(await kids()).toEqual(['two'])
    network.serve(URL, text('', 'text/plain', 404))
    expect(await world.stub.refresh(STAMP, 'peer.example')).toEqual({ outcome: 'failed', code: 'status' })
    expect(await world.stub.refresh(STAMP, 'other.example')).toEqual({ outcome: 'unknown' })
    await world.name({ version: 2, mark: 'b' }, { ...PEER, url: null })
    expect(await world.stub.refresh(STAMP, 'peer.example')).toEqual({ outcome: 'no_endpoint' })
  })
})

test('FE-14: the log has a line for each fetch, and nothing of the URL', async () => {
  const secret = 'https://peer.example/bundle?key=SECRET'
  network.serve(secret, text(bundle(1, one)))
  await world.name(FIRST, { ...PEER, url: secret })
  await world.wake()
  expect(world.events).toEqual([
    { event: 'federation_bundle_fetched', trust_domain: 'peer.example', failure: null, sequence: 1 },
  ])
})
