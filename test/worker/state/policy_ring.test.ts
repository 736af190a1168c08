import { runInDurableObject } from 'cloudflare:test'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { keyMark } from '../../../keys/key_set.ts'
import { KeyClaims } from '../../../worker/attest/cluster_keys.ts'
import { parseManifest } from '../../../worker/policy/manifest.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { PolicyRing, type PolicyRingDeps } from '../../../worker/state/policy_ring.ts'
import { Clock, NOW } from '../../support/clock.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { json, Network } from '../../support/cluster_network.ts'
import { CONTEXT, cluster, from, ISSUER, manifest, registration } from '../../support/policy.ts'
import { Background, LogBook, newPolicyState } from '../issuer.ts'

const STAMP = { mode: 'development', issuer: ISSUER, trustDomain: 'example.org' }
const LEASE = 60
const RENEW = 15

type State = ReturnType<PolicyRingDeps['policyState']>

let clock: Clock
let book: LogBook
let background: Background
let network: Network
beforeEach(() => {
  clock = new Clock()
  book = new LogBook()
  background = new Background()
  network = new Network()
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

const ban = (name: string, spec: object = { spiffeID: 'spiffe://example.org/x' }) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Ban',
  metadata: { name },
  spec,
})
const web = (name: string, spec: object = {}) => registration(name, { audiences: ['a'], ...spec })
const peer = (name: string) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'FederatedTrustDomain',
  metadata: { name },
  spec: { trustDomain: `${name}.example` },
})
const DEPLOYED = [cluster('east'), web('deployed')]

/** A state that counts how often it was asked, and can be made to fail or to answer when a test says so. */
class Asked {
  times = 0
  down = false
  /** What the next answers wait for. */
  until: Promise<void> = Promise.resolve()
  readonly stub = newPolicyState()

  readonly read = (async (...args: Parameters<State['read']>) => {
    this.times++
    if (this.down) throw new TypeError('SQLITE_FULL: /secret/path')
    const reading = await this.stub.read(...args)
    await this.until
    return reading
  }) as unknown as State['read']

  /** As an administrator does it, in another isolate. */
  async apply(put: readonly object[], remove: readonly { kind: string; name: string }[] = []): Promise<void> {
    const rows = from('applied', ...put).map(({ object }) => ({
      kind: object.kind,
      name: object.metadata.name,
      object,
    }))
    const reading = await this.stub.read(STAMP, null)
    if (reading.stamp !== 'ours') throw new TypeError('foreign')
    await this.stub.apply(rows, remove, reading.version)
  }

  /** Puts text into the storage as it is. */
  async smuggle(rows: readonly (readonly [table: 'applied' | 'live', where: string, name: string, json: string])[]) {
    await runInDurableObject(this.stub, (_, { storage: { sql } }) => {
      for (const [table, where, name, text] of rows)
        sql.exec(`insert or replace into ${table} values (?, ?, ?)`, where, name, text)
      sql.exec('update version set value = value + 1')
    })
  }
}

/** The policy of one isolate. */
function ring(
  state: Pick<State, 'read'> = new Asked(),
  objects: readonly object[] = DEPLOYED,
  more: Partial<PolicyRingDeps> = {},
): PolicyRing {
  return new PolicyRing({
    stamp: STAMP,
    manifest: parseManifest(manifest(...objects)).objects,
    context: CONTEXT,
    allowLoopbackHttp: false,
    claims: new KeyClaims(),
    api: () => null,
    foreignBundles: async () => new Map(),
    heed: () => {},
    policyState: () => state as State,
    now: clock.now,
    waitUntil: background.waitUntil,
    log: book.log,
    ...more,
  })
}

const names = async (of: PolicyRing) => (await of.current()).policy.registrations.all.map(({ name }) => name)

async function refusal(promise: Promise<unknown>): Promise<object | null> {
  try {
    await promise
    return null
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    const { reason, detail, retryAfterSeconds } = error
    return { reason, detail, retryAfterSeconds }
  }
}

/** A promise that is settled by hand. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { promise, open: () => resolve() }
}

describe('T-17: the lease', () => {
  test('of a copy is renewed in the background after 15 s, once, and nobody waits', async () => {
    const state = new Asked()
    const policies = ring(state)
    await policies.current()
    clock.advance(RENEW - 1)
    await policies.current()
    expect(state.times).toBe(1)
    clock.advance(1)
    const held = gate()
    state.until = held.promise
    await state.apply([web('more')])
    for (let time = 0; time < 5; time++) expect(await names(policies)).toEqual(['deployed'])
    expect(state.times).toBe(2)
    held.open()
    await background.settled()
    expect(await names(policies)).toEqual(['deployed', 'more'])
  })

  test('is good for 60 s, and after that the state is waited for', async () => {
    const state = new Asked()
    const policies = ring(state)
    await policies.current()
    await state.apply([web('more')])
    clock.advance(LEASE)
    expect(await names(policies)).toEqual(['deployed'])
    await background.settled()
    await state.apply([web('most')])
    clock.advance(LEASE + 1)
    expect(await names(policies)).toEqual(['deployed', 'more', 'most'])
  })

  test('T-26: a change in one isolate holds in the other within it', async () => {
    const state = new Asked()
    const [here, there] = [ring(state), ring(state)]
    await Promise.all([here.current(), there.current()])
    await state.apply([ban('incident')])
    clock.advance(LEASE + 1)
    for (const policies of [here, there])
      expect((await policies.current()).objects.map(({ object }) => object.kind)).toContain('Ban')
  })

  test('ends: without the state nothing is decided any more, and nothing of the failure is told but its kind', async () => {
    const state = new Asked()
    const policies = ring(state)
    await policies.current()
    state.down = true
    clock.advance(LEASE)
    expect(await names(policies)).toEqual(['deployed'])
    await background.settled()
    expect(book.events).toEqual([{ event: 'policy_not_renewed', detail: 'policy state: TypeError' }])
    clock.advance(3)
    expect(await refusal(policies.current())).toEqual({
      reason: 'policy_unavailable',
      detail: 'policy state: TypeError',
      retryAfterSeconds: 5,
    })
  })

  test('begins when the state was asked, not when it answered', async () => {
    const state = new Asked()
    const policies = ring(state)
    const held = gate()
    state.until = held.promise
    const first = policies.current()
    await vi.waitFor(() => expect(state.times).toBe(1), 15_000)
    clock.advance(30)
    held.open()
    expect((await first).askedAt).toBe(NOW)
    state.down = true
    clock.advance(31)
    expect(await refusal(policies.current())).toMatchObject({ reason: 'policy_unavailable' })
  })

  test('a state that is in trouble is asked once in 2 s, whatever comes', async () => {
    const state = new Asked()
    state.down = true
    const policies = ring(state)
    for (let time = 0; time < 5; time++)
      expect(await refusal(policies.current())).toMatchObject({ reason: 'policy_unavailable' })
    expect(state.times).toBe(1)
    clock.advance(1)
    await refusal(policies.current())
    expect(state.times).toBe(1)
    clock.advance(1)
    state.down = false
    expect(await names(policies)).toEqual(['deployed'])
    expect(state.times).toBe(2)
  })

  test('many who come at once ask once', async () => {
    const state = new Asked()
    const policies = ring(state)
    await Promise.all(Array.from({ length: 20 }, () => policies.current()))
    expect(state.times).toBe(1)
  })

  test('a state that does not answer is given up', async () => {
    vi.useFakeTimers()
    const policies = ring({ read: (() => new Promise(() => {})) as unknown as State['read'] })
    const refused = refusal(policies.current())
    await vi.advanceTimersByTimeAsync(5500)
    expect(await refused).toMatchObject({ reason: 'policy_unavailable', detail: 'policy state: no answer' })
  })

  test('T-12: a storage that belongs to something else is no policy', async () => {
    const state = new Asked()
    await state.stub.read({ ...STAMP, trustDomain: 'other.example' }, null)
    expect(await refusal(ring(state).current())).toMatchObject({
      reason: 'policy_unavailable',
      detail: 'policy state: the storage belongs to another trustDomain',
    })
  })
})

describe('asking on purpose', () => {
  test('sees what was changed before it, also where an older question is still under way', async () => {
    const state = new Asked()
    const policies = ring(state)
    await policies.current()
    clock.advance(RENEW)
    const held = gate()
    state.until = held.promise
    await policies.current()
    await vi.waitFor(() => expect(state.times).toBe(2), 15_000)
    // The answer to the second question has been given, without the change, and has not arrived.
    await state.stub.read(STAMP, null)
    await state.apply([web('more')])
    const renewed = policies.renew()
    held.open()
    expect((await renewed).policy.registrations.all.map(({ name }) => name)).toEqual(['deployed', 'more'])
  })

  test('fails where the state can’t be asked, and leaves the copy that there is', async () => {
    const state = new Asked()
    const policies = ring(state)
    await policies.current()
    state.down = true
    expect(await refusal(policies.renew())).toMatchObject({ reason: 'policy_unavailable' })
    expect(await names(policies)).toEqual(['deployed'])
  })
})

test('T-18: an answer that comes too late takes nothing back, neither objects nor keys', async () => {
  const [north, south] = [await FakeCluster.create('north'), await FakeCluster.create('south')]
  const state = new Asked()
  const claims = new KeyClaims()
  const policies = ring(state, DEPLOYED, { claims })
  await policies.current()
  // The timer of a request that has ended, which never comes; and who has joined that request loses patience at once.
  const timer = globalThis.setTimeout
  let ended = false
  vi.stubGlobal('setTimeout', (call: (value: unknown) => void, milliseconds: number, value: unknown) => {
    if (milliseconds === 5500 && !ended) {
      ended = true
      return 0
    }
    return timer(call, milliseconds === 6000 ? 0 : milliseconds, value)
  })
  await state.apply([south.record()])
  clock.advance(LEASE + 1)
  const held = gate()
  state.until = held.promise
  const late = policies.current()
  await vi.waitFor(() => expect(state.times).toBe(2), 15_000)
  await new Promise((resolve) => timer(resolve, 50))

  state.until = Promise.resolve()
  await state.apply([north.record()], [{ kind: 'Cluster', name: 'south' }])
  clock.advance(1)
  const clusters = async () => [...(await policies.current()).policy.clusters.keys()]
  expect(await clusters()).toEqual(['east', 'north'])
  held.open()
  expect([...(await late).policy.clusters.keys()]).toEqual(['east', 'north'])
  expect(await clusters()).toEqual(['east', 'north'])
  const owner = ({ key }: FakeCluster) => claims.otherOwner('another', [keyMark(key.publicJwk)])
  expect([owner(north), owner(south)]).toEqual(['north', null])
})

describe('objects that do not go together', () => {
  test('T-26: what contradicts a newer manifest is left out and logged, and the manifest and all else stay', async () => {
    const state = new Asked()
    await state.apply([
      web('deployed', { audiences: ['b'] }),
      web('good', { selector: { namespace: 'n', serviceAccountName: 's' } }),
      cluster('east', { issuer: 'https://other.example' }),
      ban('incident'),
    ])
    const policies = ring(state)
    const { policy, rejected } = await policies.current()
    expect(policy.registrations.all.map(({ name, audiences }) => [name, audiences])).toEqual([
      ['deployed', ['a']],
      ['good', ['a']],
    ])
    expect(policy.clusters.get('east')?.issuer).toBe('https://east.example.net')
    expect([...rejected.keys()].toSorted()).toEqual(['Cluster east', 'WorkloadRegistration deployed'])
    expect(rejected.get('WorkloadRegistration deployed')).toContain('WorkloadRegistration deployed: the name is taken')
    expect(book.events.map(({ event, object }) => [event, object]).toSorted()).toEqual([
      ['object_rejected', 'Cluster east'],
      ['object_rejected', 'WorkloadRegistration deployed'],
    ])
    expect((await policies.current()).objects.map(({ object }) => object.metadata.name)).toContain('incident')
  })

  test('T-26: where only the manifest is blamed, the cluster that came between it goes, and bans and revocations stay', async () => {
    const state = new Asked()
    // What north's pods ask with is what the API server of east takes: the problem is one of east alone.
    await state.apply([
      cluster('north', { audiences: ['k8s-east'] }),
      web('of-north', { clusters: ['north'] }),
      web('good', { selector: { namespace: 'n', serviceAccountName: 's' } }),
      ban('incident', { cluster: 'east', nodeUID: 'u' }),
      { ...ban('stolen', { jti: 'a', expiresAt: NOW + 60 }), kind: 'Revocation' },
    ])
    const { policy, rejected, objects } = await ring(state).current()
    expect([...policy.clusters.keys()]).toEqual(['east'])
    expect(policy.registrations.all.map(({ name }) => name)).toEqual(['deployed', 'good'])
    expect(rejected.get('Cluster north')).toEqual([
      'Cluster east: spec.apiServer.audiences: k8s-east is an attestation audience',
    ])
    expect(rejected.get('WorkloadRegistration of-north')).toEqual([
      'WorkloadRegistration of-north: spec.clusters: there is no Cluster north',
    ])
    expect(objects.map(({ object }) => object.kind)).toEqual(expect.arrayContaining(['Ban', 'Revocation']))
    expect(policy.revocations.tokens(NOW)).toEqual(['a'])
  })

  test('a trust domain more than there may be goes alone', async () => {
    const state = new Asked()
    await state.apply([web('good', { selector: { namespace: 'n', serviceAccountName: 's' } }), peer('applied')])
    const deployed = Array.from({ length: 100 }, (_, at) => peer(`peer-${at}`))
    const { policy, rejected } = await ring(state, [...DEPLOYED, ...deployed]).current()
    expect([...rejected.keys()]).toEqual(['FederatedTrustDomain applied'])
    expect(policy.registrations.all.map(({ name }) => name)).toEqual(['deployed', 'good'])
    expect(policy.federation.size).toBe(100)
  })

  test('thousands of objects of a cluster that is gone take no longer than one', async () => {
    const state = new Asked()
    const stored = Array.from({ length: 5000 }, (_, index) => web(`r${index}`, { clusters: ['gone'] }))
    await state.apply([...stored, ban('incident')])
    const { policy, rejected } = await ring(state).current()
    expect([policy.registrations.all.length, rejected.size]).toEqual([1, 5000])
  })

  test('T-1: what a cluster may not say is left out by its own name', async () => {
    const state = new Asked()
    const ceiling = { spiffeIDPrefixes: ['/team'], audiences: ['a'] }
    const objects = [cluster('east'), cluster('west', { ceiling })]
    const custom = (name: string, path: string) =>
      web(name, { clusters: undefined, spiffeID: `spiffe://example.org${path}` })
    await state.stub.keepLive({ cluster: 'west', objects: [custom('good', '/team/x'), custom('bad', '/other')] }, NOW)
    await state.stub.keepLive({ cluster: 'gone', objects: [custom('old', '/team/y')] }, NOW)
    const { policy, rejected } = await ring(state, objects).current()
    expect(policy.registrations.all.map(({ name }) => name)).toEqual(['west/good'])
    expect([...rejected.keys()].toSorted()).toEqual(['gone/old', 'west/bad'])
  })
})

describe('garbage in the storage', () => {
  test.each([
    '',
    '{',
    'null',
    '7',
    '"text"',
    '[]',
    '{}',
    '{"kind":"Ban"}',
    '{"kind":"Ban","metadata":null}',
    '{"kind":"Secret","metadata":{"name":"x"}}',
    '{"kind":{"toString":1},"metadata":{"name":{"toString":1}}}',
    '{"kind":"Cluster","metadata":{"name":"x"},"spec":{"jwks":{"inline":{"keys":[{"kty":7}]}}}}',
    JSON.stringify({
      ...ban('admin'),
      kind: 'Admin',
      spec: { token: { issuer: 'https://i', audience: 'a', subject: 's' } },
    }),
  ])('changes nothing else: %s', async (text) => {
    const state = new Asked()
    const objects = [cluster('east', { ceiling: { spiffeIDPrefixes: ['/x'], audiences: ['a'] } }), web('deployed')]
    await state.apply([web('good'), ban('incident')])
    await state.stub.keepLive(
      {
        cluster: 'east',
        objects: [web('live', { clusters: undefined, spiffeID: 'spiffe://example.org/x' })],
      },
      NOW,
    )
    await state.smuggle([
      ['applied', 'Ban', 'garbage', text],
      ['live', 'east', 'garbage', text],
    ])
    const { policy, objects: all, rejected } = await ring(state, objects).current()
    expect(policy.registrations.all.map(({ name }) => name)).toEqual(['deployed', 'good', 'east/live'])
    expect(policy.admins).toEqual([])
    expect(all.map(({ object }) => object.metadata.name)).toContain('incident')
    expect(rejected.size).toBe(2)
  })
})

describe('T-3: the keys of clusters', () => {
  const discovered = (name: string, spec: object = {}) => cluster(name, { audiences: [`edge-${name}`], ...spec })

  /** Clusters that publish their keys, as `discovered` finds them. */
  async function published(...all: readonly string[]) {
    return Promise.all(
      all.map(async (name) => {
        const fake = await FakeCluster.create(name, {
          issuer: `https://${name}.example.net`,
          audience: `edge-${name}`,
        })
        network.serve(`${fake.issuer}/.well-known/openid-configuration`, json(fake.discovery()))
        network.serve(`${fake.issuer}/openid/v1/jwks`, json(fake.jwks()))
        return fake
      }),
    )
  }

  test('are kept over a change that is not theirs, and fetched again after one that is', async () => {
    const [east] = await published('east')
    const state = new Asked()
    await state.apply([discovered('east')])
    const policies = ring(state, [])
    const attest = async () => (await policies.renew()).attestors.attest((await east?.token()) ?? '', 'token', NOW)
    await attest()
    expect(network.requests).toHaveLength(2)
    await state.apply([web('more'), discovered('north'), discovered('east', { maxTokenLifetimeSeconds: 7200 })])
    await attest()
    expect(network.requests).toHaveLength(2)
    await state.apply([discovered('east', { jwks: { url: `${east?.issuer}/openid/v1/jwks` } })])
    await attest()
    expect(network.requests).toHaveLength(3)
  })

  test('are claimed no longer than there is the cluster', async () => {
    const key = (await FakeCluster.create('x')).key
    const [north, south] = await Promise.all(
      ['north', 'south'].map((name) => FakeCluster.create(name, { key, audience: `edge-${name}` })),
    )
    const state = new Asked()
    const policies = ring(state, [])
    const attest = async (by: FakeCluster | undefined) =>
      (await policies.renew()).attestors.attest((await by?.token()) ?? '', 'token', NOW)
    await state.apply([north?.record() ?? {}])
    expect(await attest(north)).toMatchObject({ cluster: 'north' })
    await state.apply([south?.record() ?? {}], [{ kind: 'Cluster', name: 'north' }])
    expect(await attest(south)).toMatchObject({ cluster: 'south' })
    expect(await refusal(attest(north))).toMatchObject({ reason: 'token_issuer' })
  })
})

test('no content of objects is logged where nothing is wrong', async () => {
  const state = new Asked()
  await state.apply([web('more')])
  await ring(state).current()
  expect(book.events).toEqual([])
})
