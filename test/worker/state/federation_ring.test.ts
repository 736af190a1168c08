import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { FederatedTrustDomain } from '../../../worker/policy/federated_trust_domain.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { FederationRing, type FederationRingDeps, type NamingPolicy } from '../../../worker/state/federation_ring.ts'
import { Network, text } from '../../support/cluster_network.ts'
import { jwtEntry, makeAuthority, spireBundle, type TestAuthority } from '../../support/foreign_bundle.ts'
import { FederationWorld } from '../federation_world.ts'
import { Background, LogBook } from '../issuer.ts'
import { STAMP } from '../key_world.ts'

type State = ReturnType<FederationRingDeps['federationState']>

const PEER = 'https://peer.example/'

let authority: TestAuthority
beforeAll(async () => {
  authority = await makeAuthority('one')
})

let world: FederationWorld
let network: Network
let background: Background
let book: LogBook
/** What the state was asked for. */
let asked: string[]
let broken: boolean
beforeEach(() => {
  world = new FederationWorld()
  network = new Network()
  background = new Background()
  book = new LogBook()
  asked = []
  broken = false
  network.serve(PEER, text(spireBundle([jwtEntry(authority)])))
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

function ring(): FederationRing {
  const state = new Proxy(world.stub, {
    get(stub, name: keyof State) {
      return (...given: never[]) => {
        asked.push(name)
        if (broken) throw new Error('broken')
        return (stub[name] as (...all: never[]) => unknown)(...given)
      }
    },
  })
  return new FederationRing({
    ...{ stamp: STAMP, now: world.clock.now, waitUntil: background.waitUntil, log: book.log },
    federationState: () => state as State,
  })
}

function policy(version: number, ...peers: readonly Partial<FederatedTrustDomain>[]): NamingPolicy {
  const named = peers.map((peer): [string, FederatedTrustDomain] => {
    const record = {
      name: 'peer',
      trustDomain: 'peer.example',
      bundleEndpointUrl: PEER,
      bootstrapBundle: null,
      maxTokenLifetimeSeconds: 3600,
      ...peer,
    }
    return [record.trustDomain, record]
  })
  return { version, policy: { federation: new Map(named) }, askedAt: world.clock.now() }
}

/** @returns a ring that has the bundle of the one that the policy names */
async function knowing(named: NamingPolicy): Promise<FederationRing> {
  const knows = ring()
  await knows.renew(named)
  await world.wake()
  await knows.renew(named)
  asked.length = 0
  return knows
}

async function refusal(promise: Promise<unknown>): Promise<string | null> {
  try {
    await promise
    return null
  } catch (error) {
    if (error instanceof Refusal) return `${error.reason} ${error.retryAfterSeconds}`
    throw error
  }
}

describe('an isolate', () => {
  test('whose policy names nobody asks nobody', async () => {
    broken = true
    expect(await ring().bundles(policy(1))).toEqual(new Map())
    expect(asked).toEqual([])
  })

  test('says what its policy names, once, and gets what is known', async () => {
    const named = policy(1, {})
    const isolate = ring()
    expect(await isolate.bundles(named)).toEqual(new Map())
    expect(asked).toEqual(['read', 'tell', 'read'])
    await world.wake()
    // Somebody has just been named: the copy is renewed soon.
    world.clock.advance(2)
    await isolate.bundles(named)
    await background.settled()
    expect([...(await isolate.bundles(named)).keys()]).toEqual(['peer.example'])
    expect(asked).toEqual(['read', 'tell', 'read', 'read'])
  })

  test('asks again in the background, and not for each request', async () => {
    const named = policy(1, {})
    const isolate = await knowing(named)
    for (const seconds of [0, 14]) {
      world.clock.advance(seconds)
      await isolate.bundles(named)
    }
    expect(asked).toEqual([])
    world.clock.advance(1)
    await isolate.bundles(named)
    await isolate.bundles(named)
    await background.settled()
    expect(asked).toEqual(['read'])
  })

  test('that has been idle for a minute asks before it believes what it knew', async () => {
    const named = policy(1, {})
    const isolate = await knowing(named)
    network.serve(PEER, text(spireBundle([], 2)))
    await world.stub.refresh(STAMP, 'peer.example')
    world.clock.advance(61)
    expect((await isolate.bundles(named)).get('peer.example')?.jwtAuthorities).toEqual([])
  })

  test('uses only what its own policy names', async () => {
    const isolate = await knowing(policy(1, {}))
    expect(await isolate.bundles(policy(2))).toEqual(new Map())
    expect(await isolate.bundles(policy(2, { trustDomain: 'b.example', bundleEndpointUrl: null }))).toEqual(new Map())
  })

  test('has a changed policy known at once', async () => {
    const isolate = await knowing(policy(1, {}))
    const bootstrapBundle = spireBundle([])
    const named = policy(2, {}, { trustDomain: 'b.example', bundleEndpointUrl: null, bootstrapBundle })
    expect([...(await isolate.bundles(named)).keys()]).toEqual(['b.example', 'peer.example'])
  })

  test('does not go back to an older policy, of a request that began before', async () => {
    const before = policy(1, {})
    world.clock.advance(1)
    const isolate = await knowing(policy(2, {}, { trustDomain: 'b.example' }))
    await isolate.bundles(before)
    expect(asked).toEqual([])
  })
})

describe('FE-13: an isolate whose policy names nobody', () => {
  test('has the state hear of it once, in the background', async () => {
    await knowing(policy(1, {}))
    const isolate = ring()
    isolate.heed(policy(2))
    isolate.heed(policy(2))
    await background.settled()
    expect(asked).toEqual(['read', 'tell', 'read'])
    expect(await world.report()).toEqual([])
    world.clock.advance(1000)
    isolate.heed(policy(3))
    await background.settled()
    expect(asked).toHaveLength(3)
  })

  test('says so again where a manifest that is being replaced still counts', async () => {
    await knowing(policy(1, {}))
    const isolate = ring()
    isolate.heed(policy(1))
    await background.settled()
    expect([asked, await world.report()]).toMatchObject([['read'], [{ trustDomain: 'peer.example' }]])
    world.clock.advance(74)
    isolate.heed(policy(1))
    await background.settled()
    expect(asked).toEqual(['read'])
    world.clock.advance(1)
    isolate.heed(policy(1))
    await background.settled()
    expect(await world.report()).toEqual([])
  })

  test('says so again after somebody was named in between', async () => {
    const isolate = ring()
    isolate.heed(policy(1))
    await background.settled()
    isolate.heed(policy(2, {}))
    await isolate.renew(policy(2, {}))
    expect(await world.report()).toHaveLength(1)
    isolate.heed(policy(3))
    await background.settled()
    expect(await world.report()).toEqual([])
  })

  test('says so later where the state can’t be asked, and the log says why', async () => {
    await knowing(policy(1, {}))
    const isolate = ring()
    broken = true
    isolate.heed(policy(2))
    await background.settled()
    expect(book.events).toEqual([{ event: 'federation_not_renewed', detail: 'Error' }])
    broken = false
    world.clock.advance(75)
    isolate.heed(policy(2))
    await background.settled()
    expect(await world.report()).toEqual([])
  })
})

describe('T-17: without the state', () => {
  test('what is known is good for 300 s, and then nobody is believed', async () => {
    const named = policy(1, {})
    const isolate = await knowing(named)
    broken = true
    world.clock.advance(300)
    expect((await isolate.bundles(named)).size).toBe(1)
    await background.settled()
    expect(book.events).toContainEqual(expect.objectContaining({ event: 'federation_not_renewed' }))
    world.clock.advance(3)
    expect(await refusal(isolate.bundles(named))).toBe('federation_unavailable 5')
    broken = false
    world.clock.advance(3)
    expect((await isolate.bundles(named)).size).toBe(1)
  })

  test('a changed policy does not take away what is known', async () => {
    const isolate = await knowing(policy(1, {}))
    broken = true
    expect((await isolate.bundles(policy(2, {}, { trustDomain: 'b.example' }))).size).toBe(1)
  })

  test('an isolate that knows nothing refuses', async () => {
    broken = true
    expect(await refusal(ring().bundles(policy(1, {})))).toBe('federation_unavailable 5')
  })

  test('or with that of another', async () => {
    await world.stub.report({ ...STAMP, issuer: 'https://other.example' })
    expect(await refusal(ring().bundles(policy(1, {})))).toBe('federation_unavailable 5')
  })
})
