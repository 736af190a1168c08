import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { KeyClaims } from '../../worker/attest/cluster_keys.ts'
import { PolicyRing } from '../../worker/state/policy_ring.ts'
import { NOW } from '../support/clock.ts'
import { FakeCluster, POD } from '../support/cluster.ts'
import { cluster, from, registration } from '../support/policy.ts'
import { Administrator } from './administrator.ts'
import { type newPolicyState, TestIssuer } from './issuer.ts'

let east: FakeCluster
let alice: Administrator
beforeAll(async () => {
  ;[east, alice] = await Promise.all([FakeCluster.create('east'), Administrator.create()])
})

let issuer: TestIssuer
beforeEach(() => {
  issuer = issuerOf()
})

const issuerOf = (...more: readonly object[]) =>
  new TestIssuer([east.record(), alice.object, registration('deployed', { audiences: ['d'] }), ...more])

/** A registration of the pod that tests know, for an audience of its own. */
const web = (name: string, spec: object = {}) => registration(name, { audiences: [name], ...spec })
const ban = (name: string, spec: object = { spiffeID: 'spiffe://example.org/x' }) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Ban',
  metadata: { name },
  spec,
})
const named = (kind: string, name: string) => ({ kind, name })
const actions = (changes: readonly { action: string; kind: string; name: string }[] = []) =>
  changes.map(({ action, kind, name }) => `${action} ${kind} ${name}`)
const stored = async (by = issuer) =>
  (await alice.list(by)).objects.filter(({ source }) => source === 'applied').map(({ object }) => object.metadata.name)
const events = (name: string) => issuer.book.events.filter(({ event }) => event === name)
/** What `/token` says to the pod that tests know. */
const exchanged = async (audience: string) => (await issuer.exchange(await east.token(), { audience })).status

describe('what administrators see', () => {
  test('is every object, where it came from, and whether it counts', async () => {
    const ceiling = { spiffeIDPrefixes: ['/cluster/west'], audiences: ['live'] }
    issuer = issuerOf(cluster('west', { ceiling, audiences: ['edge-west'] }))
    const custom = (name: string, spec: object = {}) => registration(name, { clusters: undefined, ...spec })
    await issuer.deps.policyRing.current()
    const state = issuer.deps.policyState() as ReturnType<typeof newPolicyState>
    await state.keepLive(
      { cluster: 'west', objects: [custom('good', { audiences: ['live'] }), custom('bad'), {}] },
      NOW,
    )
    await alice.apply(issuer, { objects: [ban('incident')] })
    const { objects } = await alice.list(issuer)
    expect(objects.map(({ object, source, status }) => [object.kind, object.metadata.name, source, status])).toEqual([
      ['Cluster', 'east', 'manifest', 'accepted'],
      ['Admin', 'alice', 'manifest', 'accepted'],
      ['WorkloadRegistration', 'deployed', 'manifest', 'accepted'],
      ['Cluster', 'west', 'manifest', 'accepted'],
      ['Ban', 'incident', 'applied', 'accepted'],
      ['WorkloadRegistration', 'bad', 'cluster:west', 'rejected'],
      ['WorkloadRegistration', 'good', 'cluster:west', 'accepted'],
      ['WorkloadRegistration', '?', 'cluster:west', 'rejected'],
    ])
    expect(objects.find(({ object }) => object.metadata.name === 'bad')?.reason).toBe(
      'spec.audiences: outside of what the cluster may give',
    )
  })

  test('is what has been applied and is wrong by now, which can be removed', async () => {
    await alice.apply(issuer, { objects: [web('deployed-later'), ban('incident')] })
    const state = issuer.deps.policyState()
    // The same storage, under a manifest that has the name.
    const later = issuerOf(web('deployed-later', { audiences: ['x'] }))
    const policyRing = new PolicyRing({
      ...later.deps,
      waitUntil: later.background.waitUntil,
      stamp: { mode: 'development', issuer: later.deps.issuer, trustDomain: 'example.org' },
      manifest: later.deps.config.manifest,
      allowLoopbackHttp: false,
      api: () => null,
      claims: new KeyClaims(),
      foreignBundles: async () => new Map(),
      heed: () => {},
      policyState: () => state as never,
    })
    Object.assign(later.deps, { policyRing, policyState: () => state })
    const listed = (await alice.list(later)).objects.filter(({ source }) => source === 'applied')
    expect(listed.map(({ object, status }) => [object.metadata.name, status])).toEqual([
      ['incident', 'accepted'],
      ['deployed-later', 'rejected'],
    ])
    const remove = [named('WorkloadRegistration', 'deployed-later')]
    expect(await alice.apply(later, { remove })).toMatchObject([200, { version: 2 }])
    expect(await stored(later)).toEqual(['incident'])
    expect((await alice.apply(later, { remove }))[1].problems).toEqual([
      'WorkloadRegistration deployed-later: is in the deployed manifest',
    ])
  })
})

describe('a change', () => {
  test('creates, updates, leaves and deletes, says so, and holds at once', async () => {
    expect(await exchanged('one')).toBe(400)
    const [status, first] = await alice.apply(issuer, { objects: [web('one'), web('two')] })
    expect([status, first.version, first.dryRun, actions(first.changes)]).toEqual([
      200,
      1,
      false,
      ['create WorkloadRegistration one', 'create WorkloadRegistration two'],
    ])
    expect(await exchanged('one')).toBe(200)
    const [, second] = await alice.apply(issuer, {
      objects: [web('one'), web('three'), web('two', { ttlSeconds: 60 })],
    })
    expect(actions(second.changes)).toEqual([
      'unchanged WorkloadRegistration one',
      'create WorkloadRegistration three',
      'update WorkloadRegistration two',
    ])
    expect(second.changes?.[2]).toMatchObject({ before: { ttlSeconds: 300 }, after: { ttlSeconds: 60 } })
    const [, third] = await alice.apply(issuer, { remove: [named('WorkloadRegistration', 'one')] })
    expect(third.changes).toMatchObject([
      { action: 'delete', name: 'one', before: { audiences: ['one'] }, after: null },
    ])
    expect(await exchanged('one')).toBe(400)
    expect(await stored()).toEqual(['three', 'two'])
  })

  test('T-26: bans at once, and unbans', async () => {
    const serviceAccount = `${POD.namespace}:${POD.serviceAccount.name}`
    await alice.apply(issuer, { objects: [ban('incident', { cluster: 'east', serviceAccount })] })
    expect(await exchanged('d')).toBe(400)
    expect(issuer.book.decisions.at(-1)).toMatchObject({ reason: 'banned' })
    await alice.apply(issuer, { remove: [named('Ban', 'incident')] })
    expect(await exchanged('d')).toBe(200)
  })

  test('brings a cluster, whose pods may ask then', async () => {
    const north = await FakeCluster.create('north')
    const objects = [north.record(), web('of-north', { clusters: ['north'] })]
    expect((await issuer.exchange(await north.token())).status).toBe(400)
    expect((await alice.apply(issuer, { objects }))[0]).toBe(200)
    expect((await issuer.exchange(await north.token())).status).toBe(200)
  })

  test('that is none is no new version', async () => {
    await alice.apply(issuer, { objects: [web('one')] })
    for (const request of [{ objects: [web('one')] }, {}, { objects: [], remove: [] }])
      expect(await alice.apply(issuer, request)).toMatchObject([200, { version: 1 }])
    expect((await alice.list(issuer)).version).toBe(1)
    expect(events('policy_changed')).toHaveLength(1)
  })

  test('that is only tried changes nothing, and says what it would', async () => {
    await alice.apply(issuer, { objects: [web('one')] })
    const [status, answer] = await alice.apply(issuer, {
      objects: [web('two')],
      remove: [named('WorkloadRegistration', 'one')],
      dryRun: true,
    })
    expect([status, answer.version, answer.dryRun, actions(answer.changes)]).toEqual([
      200,
      1,
      true,
      ['create WorkloadRegistration two', 'delete WorkloadRegistration one'],
    ])
    expect([await stored(), await exchanged('two')]).toEqual([['one'], 400])
    expect(events('policy_changed')).toHaveLength(1)
    expect((await alice.apply(issuer, { objects: [web('two', { clusters: ['x'] })], dryRun: true }))[0]).toBe(422)
  })

  test('takes the place of what contradicts it in one step', async () => {
    const id = 'spiffe://example.org/x'
    const north = cluster('north', { audiences: ['edge-north'] })
    await alice.apply(issuer, { objects: [north, web('one', { spiffeID: id })] })
    const other = web('two', { clusters: ['north'], spiffeID: id })
    expect((await alice.apply(issuer, { objects: [other] }))[0]).toBe(422)
    expect((await alice.apply(issuer, { objects: [other], remove: [named('WorkloadRegistration', 'one')] }))[0]).toBe(
      200,
    )
  })
})

describe('a version that was not the present one', () => {
  test.each([0, 2, -1])('%i is a conflict, and nothing happens', async (ifVersion) => {
    await alice.apply(issuer, { objects: [web('one')] })
    for (const dryRun of [false, true])
      expect(await alice.apply(issuer, { objects: [web('two')], ifVersion, dryRun })).toEqual([
        409,
        { error: 'version_conflict' },
      ])
    expect(await stored()).toEqual(['one'])
  })

  test('of two that apply at once with one version, one wins', async () => {
    const names = ['one', 'two', 'three']
    const outcomes = await Promise.all(names.map((name) => alice.apply(issuer, { objects: [web(name)], ifVersion: 0 })))
    expect(outcomes.map(([status]) => status).toSorted()).toEqual([200, 409, 409])
    expect(await stored()).toEqual([names[outcomes.findIndex(([status]) => status === 200)]])
    expect(events('policy_changed')).toHaveLength(1)
  })

  test('of two that apply at once what would not go together, both are never taken', async () => {
    const objects = ['one', 'two'].map((name) => [
      web(name, { spiffeID: 'spiffe://example.org/x', clusters: [name] }),
      cluster(name, { audiences: [`edge-${name}`] }),
    ])
    const outcomes = await Promise.all(objects.map((some) => alice.apply(issuer, { objects: some })))
    expect(outcomes.filter(([status]) => status === 200)).toHaveLength(1)
  })
})

describe('a change that is refused', () => {
  test('says everything that is wrong with it, and changes nothing', async () => {
    const [status, answer] = await alice.apply(issuer, {
      objects: [
        web('good'),
        web('bad', { ttlSeconds: 1 }),
        web('worse', { clusters: ['north'] }),
        null,
        7,
        'x',
        [],
        {},
      ],
      remove: [named('WorkloadRegistration', 'none'), named('Cluster', 'east')],
    })
    expect(status).toBe(422)
    expect(answer).toEqual({ error: 'policy_refused', problems: expect.any(Array) })
    for (const problem of [
      /^WorkloadRegistration bad: spec\.ttlSeconds: /,
      /^WorkloadRegistration worse: spec\.clusters: there is no Cluster north$/,
      /^document 1: /,
      /^WorkloadRegistration none: there is none$/,
      /^Cluster east: is in the deployed manifest$/,
    ])
      expect(answer.problems).toContainEqual(expect.stringMatching(problem))
    expect(await stored()).toEqual([])
    expect(events('policy_changed')).toEqual([])
  })

  const admin = () => ({
    ...alice.object,
    metadata: { name: 'mallory' },
  })
  test.each<[string, () => { objects?: readonly unknown[]; remove?: { kind: string; name: string }[] }, string]>([
    ['T-11: an administrator', () => ({ objects: [admin()] }), 'Admin mallory: only in the deployed manifest'],
    [
      'T-11: an administrator in the place of another',
      () => ({ objects: [alice.object] }),
      'Admin alice: only in the deployed manifest',
    ],
    ['the administrators', () => ({ remove: [named('Admin', 'alice')] }), 'Admin alice: is in the deployed manifest'],
    [
      'an object of the manifest',
      () => ({ objects: [web('deployed')] }),
      'WorkloadRegistration deployed: the name is taken',
    ],
    ['one object twice', () => ({ objects: [web('a'), web('a')] }), 'WorkloadRegistration a: is named twice'],
    [
      'one object as put and removed',
      () => ({ objects: [web('a')], remove: [named('WorkloadRegistration', 'a')] }),
      'WorkloadRegistration a: is named twice',
    ],
    [
      'one object as removed twice',
      () => ({ remove: [named('Ban', 'a'), named('Ban', 'a')] }),
      'Ban a: is named twice',
    ],
    ['what there is not', () => ({ remove: [named('Ban', 'deployed')] }), 'Ban deployed: there is none'],
    ['a kind that there is not', () => ({ remove: [named('Secret', 'x')] }), 'Secret x: there is none'],
    ['a name with SQL in it', () => ({ remove: [named('Ban', "x' or '1'='1")] }), "Ban x' or '1'='1: there is none"],
    [
      'the only cluster of a registration',
      () => ({ objects: [web('a', { clusters: ['x'] })] }),
      'WorkloadRegistration a: spec.clusters: there is no Cluster x',
    ],
    [
      'an unknown field',
      () => ({ objects: [web('a', { spiffeId: 'x' })] }),
      'WorkloadRegistration a: spec.spiffeId: unknown field',
    ],
  ])('%s', async (_, request, problem) => {
    await alice.apply(issuer, { objects: [ban('kept')] })
    const [status, answer] = await alice.apply(issuer, request())
    expect(status).toBe(422)
    expect(answer.problems).toContain(problem)
    expect(await stored()).toEqual(['kept'])
  })

  test('a cluster that registrations name stays until they are gone', async () => {
    const objects = [cluster('north', { audiences: ['edge-north'] }), web('a', { clusters: ['north'] })]
    await alice.apply(issuer, { objects })
    const remove = [named('Cluster', 'north')]
    expect((await alice.apply(issuer, { remove }))[1].problems).toEqual([
      'WorkloadRegistration a: spec.clusters: there is no Cluster north',
    ])
    expect((await alice.apply(issuer, { remove: [...remove, named('WorkloadRegistration', 'a')] }))[0]).toBe(200)
  })
})

describe('a change that is taken warns', () => {
  test('T-4: of registrations that can name one pod differently', async () => {
    const [, { warnings }] = await alice.apply(issuer, {
      objects: [web('other', { spiffeID: 'spiffe://example.org/other' })],
    })
    expect(warnings).toEqual([
      'other and deployed can select the same pod and name it differently: it has to ask for one',
    ])
  })

  test('T-2, T-7: of what a second cluster changes for what nobody has touched', async () => {
    const request = { objects: [cluster('north', { audiences: ['edge-north'] })] }
    const expected = [
      'the audience of the API server of east becomes k8s-east',
      '1 registrations that leave out spec.spiffeID will give other IDs, such as deployed',
    ]
    expect((await alice.apply(issuer, { ...request, dryRun: true }))[1].warnings).toEqual(expected)
    expect((await alice.apply(issuer, request))[1].warnings).toEqual(expected)
    expect((await alice.apply(issuer, { objects: [web('more')] }))[1].warnings).toEqual([])
  })

  test('T-1: of what clusters say that will be left out', async () => {
    const ceiling = { spiffeIDPrefixes: ['/team'], audiences: ['live'] }
    const west = (spec: object) => cluster('west', { audiences: ['edge-west'], ...spec })
    await alice.apply(issuer, { objects: [west({ ceiling })] })
    const state = issuer.deps.policyState() as ReturnType<typeof newPolicyState>
    await state.keepLive(
      {
        cluster: 'west',
        objects: [
          registration('live', { clusters: undefined, audiences: ['live'], spiffeID: 'spiffe://example.org/team' }),
        ],
      },
      NOW,
    )
    const [status, { warnings }] = await alice.apply(issuer, {
      objects: [west({ ceiling: { ...ceiling, audiences: [] } })],
    })
    expect([status, warnings]).toEqual([200, ['west/live will be rejected']])
  })

  test('T-26: of a ban in a cluster that there is none of', async () => {
    const [status, { warnings }] = await alice.apply(issuer, {
      objects: ['east', 'eats'].map((name) => ban(name, { cluster: name, serviceAccount: 'shop:web' })),
    })
    expect([status, warnings]).toEqual([200, ['Ban eats: there is no cluster eats, so it bans nobody']])
  })
})

describe('D4: what is revoked', () => {
  const revocation = (name: string, spec: object = {}) => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Revocation',
    metadata: { name },
    spec: { jti: name, expiresAt: NOW + 600, ...spec },
  })
  const many = (count: number, expiresAt = NOW + 600) =>
    Array.from({ length: count }, (_, index) => revocation(`jti-${index}`, { expiresAt }))

  test('is 1,000 tokens at most, and of them no more than fit into the rule of an API server', async () => {
    expect((await alice.apply(issuer, { objects: many(1000) }))[0]).toBe(200)
    const [status, { problems }] = await alice.apply(issuer, { objects: [revocation('one-more')] })
    expect([status, problems]).toEqual([422, ['Revocation one-more: more than 1000 tokens are revoked']])
    // Once more is not one more, and nothing else is kept out.
    expect((await alice.apply(issuer, { objects: [revocation('jti-7', { reason: 'again' }), web('web')] }))[0]).toBe(
      200,
    )
    const long = many(1000).map((object, index) => ({
      ...object,
      spec: { ...object.spec, jti: `${'x'.repeat(100)}-${index}` },
    }))
    expect((await alice.apply(issuer, { objects: long }))[1].problems).toEqual([
      'Revocation jti-0: more tokens and SPIFFE IDs than the rule of an API server can hold',
    ])
  })

  test('makes room when it has expired, and then keeps out nothing', async () => {
    expect((await alice.apply(issuer, { objects: many(1000, NOW + 60) }))[0]).toBe(200)
    issuer.clock.advance(60)
    expect((await alice.apply(issuer, { objects: [revocation('one-more'), web('web')] }))[0]).toBe(200)
    const [status, { warnings }] = await alice.apply(issuer, { objects: [revocation('late', { expiresAt: NOW + 60 })] })
    expect([status, warnings]).toEqual([200, ['Revocation late: has expired, so it has no effect']])
    expect(
      (await alice.apply(issuer, { remove: many(1000).map(({ metadata }) => named('Revocation', metadata.name)) }))[0],
    ).toBe(200)
  })

  test('T-26: a ban is never refused because an API server cannot hold it', async () => {
    const bans = Array.from({ length: 1000 }, (_, index) =>
      ban(`b${index}`, { spiffeID: `spiffe://example.org/${'x'.repeat(100)}/${index}` }),
    )
    const [status, { warnings }] = await alice.apply(issuer, { objects: bans })
    expect([status, warnings]).toEqual([
      200,
      [
        'more tokens and SPIFFE IDs than the rule of an API server can hold: what API servers refuse stays as it is until there are fewer',
      ],
    ])
    expect((await alice.apply(issuer, { objects: [revocation('a')] }))[0]).toBe(422)
  })
})

test('an estate of thousands of objects is changed in a moment', async () => {
  const objects = Array.from({ length: 5000 }, (_, index) =>
    web(`r${index}`, { selector: { namespace: `n${index}`, serviceAccountName: 's' } }),
  )
  expect((await alice.apply(issuer, { objects }))[0]).toBe(200)
  const [, again] = await alice.apply(issuer, { objects: objects.toReversed() })
  expect([again.version, new Set(again.changes?.map(({ action }) => action))]).toEqual([1, new Set(['unchanged'])])
  const remove = objects.map((_, index) => named('WorkloadRegistration', `r${index}`))
  expect((await alice.apply(issuer, { remove }))[0]).toBe(200)
  expect(await stored()).toEqual([])
})

test('what was stored reads as what was sent', async () => {
  const sent = web('one', { claims: { b: '1', a: '2' }, hint: 'x' })
  await alice.apply(issuer, { objects: [sent] })
  const listed = (await alice.list(issuer)).objects.find(({ source }) => source === 'applied')
  expect(from('applied', listed?.object ?? {})[0]?.object).toEqual(from('applied', sent)[0]?.object)
})
