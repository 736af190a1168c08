/** WorkloadRegistration objects that stand in a cluster, read from there while the worker runs (D7, T-1). */

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { hang } from '../../support/cluster_network.ts'
import { FakeApiServer } from '../../support/kube_api.ts'
import { registration } from '../../support/policy.ts'
import { newPolicyState, TestIssuer } from '../issuer.ts'

const CEILING = {
  spiffeIDPrefixes: ['/team/shop'],
  audiences: ['https://vault.example.org'],
  dnsSuffixes: ['.shop.example.org'],
  maxTtlSeconds: 600,
  claims: ['team'],
}

let east: FakeCluster
let west: FakeCluster
beforeAll(async () => {
  ;[east, west] = await Promise.all([
    FakeCluster.create('east', { audience: 'edge-east' }),
    FakeCluster.create('west', { audience: 'edge-west' }),
  ])
})

let server: FakeApiServer
let by: TestIssuer
beforeEach(() => {
  server = new FakeApiServer(east)
  by = issuer()
})

afterEach(() => vi.unstubAllGlobals())

const issuer = (spec: object = {}, ...more: object[]) =>
  new TestIssuer(
    [
      east.record({ connection: { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }, ceiling: CEILING, ...spec }),
      west.record(),
      ...more,
    ],
    { CLUSTER_EAST: server },
  )

/** As the API server gives it, with what it adds. */
const live = (name: string, spec: object = {}) => ({
  apiVersion: 'kubespiffe.io/v1alpha1',
  kind: 'WorkloadRegistration',
  metadata: { name, uid: 'some-uid', resourceVersion: '7', generation: 1, managedFields: [{ manager: 'kubectl' }] },
  spec: {
    spiffeID: 'spiffe://example.org/team/shop/web',
    selector: { namespace: POD.namespace, serviceAccountName: POD.serviceAccount.name },
    audiences: ['https://vault.example.org'],
    ...spec,
  },
  status: { matchedPods: [] },
})

/** @returns the SPIFFE ID of what a pod of `cluster` gets, or why it gets nothing */
async function outcome(cluster: FakeCluster = east): Promise<string> {
  const response = await by.exchange(await cluster.token({ now: by.clock.now() }))
  const { access_token, reason } = (await response.json()) as Record<string, string>
  await by.background.settled()
  return access_token ? String((await by.read(access_token)).claims.sub) : String(reason)
}

const rejected = () => by.book.events.filter(({ event }) => event === 'object_rejected')

describe('a registration that is created in a cluster', () => {
  test('is good for pods of that cluster, and for no others', async () => {
    server.registrations = [live('web')]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    expect(await outcome(west)).toBe('registration_none')
  })

  test('is read as it is, whatever the API server has added to it', async () => {
    server.registrations = [live('web')]
    await outcome()
    expect(rejected()).toEqual([])
  })

  test('is good once it is there, gone once it is gone, and both within 75 s', async () => {
    expect(await outcome()).toBe('registration_none')
    server.registrations = [live('web')]
    for (let waited = 0; waited < 75; waited += 15) {
      by.clock.advance(15)
      await outcome()
    }
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    server.registrations = []
    for (let waited = 0; waited < 75; waited += 15) {
      by.clock.advance(15)
      await outcome()
    }
    expect(await outcome()).toBe('registration_none')
  })

  test('and gone while nobody asked for long is not good for the first who asks again', async () => {
    server.registrations = [live('web')]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    server.registrations = []
    by.clock.advance(3600)
    expect(await outcome()).toBe('registration_none')
  })

  test('T-18: is asked for once in 15 s by all isolates together', async () => {
    const policyState = newPolicyState()
    const isolates = [1, 2, 3].map(() => issuer())
    for (const one of isolates) (one.deps as { policyState: unknown }).policyState = () => policyState
    const lists = () => server.asked.filter((asked) => asked.endsWith('workloadregistrations')).length
    await Promise.all(Array.from({ length: 50 }, () => by.deps.policyRing.current()))
    await by.background.settled()
    expect(lists()).toBe(1)
    by.clock.advance(14)
    await by.deps.policyRing.renew()
    await by.background.settled()
    expect(lists()).toBe(1)
    by.clock.advance(1)
    await by.deps.policyRing.renew()
    await by.background.settled()
    expect(lists()).toBe(2)
  })
})

describe('D6: an API server that cannot be asked', () => {
  test.each<[string, () => Response | Promise<Response>]>([
    ['403', () => Response.json({}, { status: 403 })],
    ['500', () => Response.json({}, { status: 500 })],
    ['no JSON', () => new Response('<html>')],
    ['another object', () => Response.json({ kind: 'Status' })],
  ])('%s: what was known goes on being good, and the log says which cluster', async (_, answer) => {
    server.registrations = [live('web')]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    server.interfere = () => answer()
    by.clock.advance(100)
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    expect(by.book.events).toContainEqual(
      expect.objectContaining({
        event: 'live_objects_not_read',
        cluster: 'east',
        detail: expect.stringContaining('east'),
      }),
    )
  })

  test('hanging: the first request waits five seconds and no longer', async () => {
    server.registrations = [live('web')]
    await outcome()
    server.interfere = (_, signal) => hang(new Request('https://10.0.0.1', { signal }))
    by.clock.advance(100)
    const timer = globalThis.setTimeout
    const waits: number[] = []
    vi.stubGlobal('setTimeout', (call: () => void, milliseconds: number) => {
      waits.push(milliseconds)
      return timer(call, milliseconds === 5000 ? 0 : milliseconds)
    })
    expect((await by.exchange(await east.token({ now: by.clock.now() }))).status).toBe(200)
    expect(waits).toContain(5000)
  })

  test('of a cluster without a ceiling, or without a connection, is not asked at all', async () => {
    server.registrations = [live('web')]
    for (const spec of [{ ceiling: undefined }, { connection: undefined }]) {
      by = issuer(spec)
      expect(await outcome()).toBe('registration_none')
    }
    expect(server.calls).toEqual([])
  })
})

describe('T-1: what the author of an object may not say', () => {
  test.each<[string, object, string]>([
    ['an ID beside the prefix', { spiffeID: 'spiffe://example.org/team/other' }, 'spec.spiffeID: outside'],
    ['an ID that only begins alike', { spiffeID: 'spiffe://example.org/team/shopping' }, 'spec.spiffeID: outside'],
    [
      'a variable in the place of the prefix',
      { spiffeID: 'spiffe://example.org/{namespace}/shop/x' },
      'spec.spiffeID: outside',
    ],
    ['the ID of the prefix’s parent', { spiffeID: 'spiffe://example.org/team' }, 'spec.spiffeID: outside'],
    ['the default ID, which is outside', { spiffeID: undefined }, 'spec.spiffeID: outside'],
    ['a reserved ID', { spiffeID: 'spiffe://example.org/spire/server' }, 'spec.spiffeID: is reserved'],
    ['another trust domain', { spiffeID: 'spiffe://other.example/team/shop/x' }, 'spec.spiffeID: '],
    ['the pods of another cluster', { clusters: ['west'] }, 'spec.clusters: another cluster'],
    ['an API server as audience', { audiences: ['k8s-east'] }, 'spec.audiences: outside'],
    ['an internal audience', { audiences: ['https://issuer.example.org/admin'] }, 'spec.audiences: '],
    ['an attestation audience', { audiences: ['edge-west'] }, 'spec.audiences: '],
    ['a longer life', { ttlSeconds: 601 }, 'spec.ttlSeconds: above'],
    ['a claim', { claims: { department: 'x' } }, 'spec.claims: outside'],
    ['a reserved claim', { claims: { sub: 'x' } }, 'spec.claims'],
    ['a DNS name', { dnsNames: ['shop.example.com'] }, 'spec.dnsNames: outside'],
    ['a DNS name that only ends alike', { dnsNames: ['evilshop.example.org'] }, 'spec.dnsNames: outside'],
    ['a shared identity', { sharedIdentity: true }, 'spec.sharedIdentity: is for the deployed manifest'],
    ['a workload that is no pod', { selector: undefined, oidc: { attestor: 'ci', subject: 'x' } }, 'spec.'],
    ['a field that nobody knows', { admin: true }, 'spec.admin: unknown field'],
  ])('%s', async (_, spec, problem) => {
    server.registrations = [live('evil', spec), live('good', { spiffeID: 'spiffe://example.org/team/shop/good' })]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/good')
    expect(rejected()).toEqual([
      {
        event: 'object_rejected',
        object: 'east/evil',
        problems: expect.arrayContaining([expect.stringContaining(problem)]),
      },
    ])
  })

  test.each<[string, object]>([
    ['Ban', { spiffeID: 'spiffe://example.org/team/shop/web' }],
    ['Cluster', { issuer: 'https://evil.example', jwks: { discovery: true } }],
    ['OIDCAttestor', { issuer: 'https://evil.example', audience: 'a' }],
    ['Admin', { token: { issuer: 'https://evil.example', audience: 'a', subject: 'me' } }],
  ])('another kind of object, which only a hostile API server would give: %s', async (kind, spec) => {
    server.registrations = [
      { apiVersion: 'spiffe-edge.io/v1alpha1', kind, metadata: { name: 'evil' }, spec },
      live('web'),
    ]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
    expect(rejected()).toEqual([
      { event: 'object_rejected', object: 'east/evil', problems: [`kind: ${kind} is not for a cluster to say`] },
    ])
    const { policy } = await by.deps.policyRing.current()
    expect([[...policy.clusters.keys()], [...policy.attestors.keys()], policy.admins]).toEqual([
      ['east', 'west'],
      [],
      [],
    ])
  })

  test('and a name that is taken by the manifest changes nothing of the manifest’s', async () => {
    by = issuer({}, registration('web', { spiffeID: 'spiffe://example.org/from-manifest', audiences: ['a'] }))
    server.registrations = [live('web')]
    const answer = await by.exchange(await east.token(), { spiffe_id: 'spiffe://example.org/from-manifest' })
    expect(answer.status).toBe(200)
  })

  test('what is within the ceiling is granted', async () => {
    server.registrations = [
      live('web', { spiffeID: 'spiffe://example.org/team/shop/{podName}', ttlSeconds: 600, claims: { team: 'shop' } }),
    ]
    expect(await outcome()).toBe(`spiffe://example.org/team/shop/${POD.pod.name}`)
  })
})

test.each<unknown>([null, 1, 'x', [], {}, { metadata: null }, { kind: 'WorkloadRegistration', metadata: { name: 7 } }])(
  'garbage in the place of an object, %j, changes nothing else',
  async (garbage) => {
    server.registrations = [garbage, live('web')]
    expect(await outcome()).toBe('spiffe://example.org/team/shop/web')
  },
)
