import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import {
  KubernetesApi,
  KubernetesApiError,
  type KubernetesApiErrorCode,
} from '../../../worker/cluster/kubernetes_api.ts'
import type { Cluster, Connection } from '../../../worker/policy/cluster.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { breakOff, endless, hang, hangInBody, Network, Patience, redirect } from '../../support/cluster_network.ts'
import { FakeApiServer } from '../../support/kube_api.ts'
import { ISSUER, policyOf, TRUST_DOMAIN } from '../../support/policy.ts'
import { Background, LogBook } from '../issuer.ts'

const URL_OF_API = 'https://10.0.0.1:6443'
const BEARER = 'reviewers-own-token'

let east: FakeCluster
beforeAll(async () => {
  east = await FakeCluster.create('east')
})

let server: FakeApiServer
let patience: Patience
beforeEach(() => {
  server = new FakeApiServer(east)
  patience = new Patience()
  vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
})
afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})

function api(spec: object = {}, bindings = new Map<string, FakeApiServer | string>()): KubernetesApi {
  const all = {
    connection: { url: URL_OF_API, binding: 'CLUSTER_EAST' },
    reviewer: { secret: 'CLUSTER_TOKEN' },
    ...spec,
  }
  const cluster = policyOf(east.record(all)).clusters.get('east') as Cluster
  return new KubernetesApi(cluster, cluster.connection as Connection, {
    issuer: ISSUER,
    trustDomain: TRUST_DOMAIN,
    keyRing: { signer: () => Promise.reject(new TypeError('no keys here')) },
    bindings: new Map<string, FakeApiServer | string>([
      ['CLUSTER_EAST', server],
      ['CLUSTER_TOKEN', BEARER],
      ...bindings,
    ]),
    now: () => NOW,
    waitUntil: new Background().waitUntil,
    unseal: async () => null,
    log: new LogBook().log,
  })
}

async function failure(call: Promise<unknown>): Promise<KubernetesApiError> {
  const error = await call.then(
    () => null,
    (thrown) => thrown,
  )
  expect(error).toBeInstanceOf(KubernetesApiError)
  expect(`${error}${JSON.stringify(error)}`).not.toMatch(/SECRET|reviewers-own-token/)
  return error
}

describe('each call', () => {
  test('TR-1: a TokenReview is posted with the token and its audiences', async () => {
    const token = await east.token()
    expect(await api().reviewToken(token, ['spiffe-edge'])).toMatchObject({
      authenticated: true,
      audiences: ['spiffe-edge'],
      user: { username: `system:serviceaccount:${POD.namespace}:${POD.serviceAccount.name}` },
    })
    expect(server.calls).toEqual([
      {
        accept: expect.any(String),
        method: 'POST',
        url: `${URL_OF_API}/apis/authentication.k8s.io/v1/tokenreviews`,
        bearer: BEARER,
        body: {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenReview',
          spec: { token, audiences: ['spiffe-edge'] },
        },
      },
    ])
  })

  test('TR-2: without audiences none are sent, and the API server’s own is meant', async () => {
    await api().reviewToken(await east.token(), [])
    expect(server.calls[0]?.body?.spec).not.toHaveProperty('audiences')
  })

  test('a pod and a node are found by name, or are not there', async () => {
    expect(await api().getPod(POD.namespace, POD.pod.name)).toMatchObject({
      metadata: { uid: POD.pod.uid, labels: { app: 'checkout' } },
      spec: { nodeName: POD.node.name },
      status: { hostIP: '172.16.10.1' },
    })
    expect(await api().getNode(POD.node.name)).toMatchObject({ metadata: { uid: POD.node.uid } })
    expect(await api().getPod(POD.namespace, 'other')).toBeNull()
    expect(await api().getNode('other')).toBeNull()
  })

  test('T-10: the keys are read as the reviewer', async () => {
    expect(await api().getJwks()).toEqual(east.jwks().keys)
    expect(server.calls).toMatchObject([{ method: 'GET', url: `${URL_OF_API}/openid/v1/jwks`, bearer: BEARER }])
  })

  test('registrations are read page by page', async () => {
    server.registrations = Array.from({ length: 601 }, (_, index) => ({ metadata: { name: `r-${index}` } }))
    expect(await api().listWorkloadRegistrations()).toEqual(server.registrations)
    expect(server.calls.map(({ url }) => new URL(url).search)).toEqual([
      '?limit=250',
      '?limit=250&continue=250',
      '?limit=250&continue=500',
    ])
  })

  test('and no further than forty pages', async () => {
    server.interfere = () => Response.json({ metadata: { continue: 'more' }, items: [] })
    expect((await failure(api().listWorkloadRegistrations())).code).toBe('too_large')
    expect(server.calls).toHaveLength(40)
  })

  test('without a binding goes over the public internet', async () => {
    const network = new Network()
    vi.stubGlobal('fetch', network.fetch)
    network.serve('https://east.example.net/openid/v1/jwks', () => Response.json({ keys: [] }))
    expect(await api({ connection: { url: 'https://east.example.net/' } }).getJwks()).toEqual([])
    expect(server.calls).toEqual([])
  })

  test('client: is made with the token that is being reviewed', async () => {
    const token = await east.token()
    const as = api({ reviewer: 'client' })
    await as.reviewToken(token, [])
    await as.getPod(POD.namespace, POD.pod.name, { reviewed: token })
    expect(server.calls.map(({ bearer }) => bearer)).toEqual([token, token])
    expect((await failure(as.getJwks())).code).toBe('reviewer')
  })

  test('T-10: an API server without its binding is a mistake of ours', () => {
    expect(() => api({ connection: { url: URL_OF_API, binding: 'CLUSTER_OTHER' } })).toThrow(TypeError)
    expect(() => api({ connection: { url: URL_OF_API, binding: 'CLUSTER_TOKEN' } })).toThrow('is no service')
  })
})

describe('a name that leaves its place', () => {
  test.each(['', '.', '..', '../nodes', 'a/b', 'a%2Fb', 'a?b', 'a#b', 'a\\b', 'A', 'a b', 'a\n', 'ä', 'a'.repeat(254)])(
    '%j is asked for nowhere',
    async (name) => {
      expect((await failure(api().getPod(POD.namespace, name))).code).toBe('name')
      expect((await failure(api().getPod(name, POD.pod.name))).code).toBe('name')
      expect((await failure(api().getNode(name))).code).toBe('name')
      expect(server.calls).toEqual([])
    },
  )

  test('whatever it is, a call goes to that one place or nowhere', async () => {
    const sly = fc.array(fc.oneof(fc.constantFrom('/', '..', '.', '%2e', '%2F', '?', '#', ';', 'a', '-'), fc.string()))
    await fc.assert(
      fc.asyncProperty(sly, sly, async (namespace, name) => {
        const before = server.calls.length
        await api()
          .getPod(namespace.join(''), name.join(''))
          .catch(() => {})
        for (const { url } of server.calls.slice(before))
          expect(new URL(url).pathname).toMatch(/^\/api\/v1\/namespaces\/[a-z0-9-]+\/pods\/[a-z0-9.-]+$/)
      }),
      { numRuns: 200 },
    )
  })
})

describe('an answer that is none', () => {
  const CURE = 'bind the ClusterRole of deploy/kubernetes to the user of the token'

  test.each<[number, KubernetesApiErrorCode, string]>([
    [401, 'status', 'cluster east: 401 on create tokenreviews: the token is not valid there'],
    [403, 'status', `cluster east: 403 on create tokenreviews: ${CURE}`],
    [404, 'status', 'cluster east: 404 on create tokenreviews'],
    [429, 'status', 'cluster east: 429 on create tokenreviews'],
    [500, 'status', 'cluster east: 500 on create tokenreviews'],
    [503, 'status', 'cluster east: 503 on create tokenreviews'],
    [204, 'status', 'cluster east: 204 on create tokenreviews'],
  ])('%i says so, and what to do', async (status, code, message) => {
    server.interfere = () => new Response(status === 204 ? null : 'SECRET', { status })
    const error = await failure(api().reviewToken('a.b.c', []))
    expect([error.code, error.status, error.message]).toEqual([code, status, message])
  })

  test.each([301, 302, 307, 308])('%i is followed to no place, and takes no token there', async (status) => {
    server.interfere = () => redirect(status, 'https://evil.example')(null as never)
    expect((await failure(api().getJwks())).code).toBe('redirected')
    expect(server.calls).toHaveLength(1)
  })

  test.each<[string, string, KubernetesApiErrorCode]>([
    ['no JSON', 'SECRET', 'not_json'],
    ['a list', '[]', 'not_json'],
    ['a member twice', '{"status":{},"status":{"authenticated":true}}', 'not_json'],
    ['another object', '{"kind":"Pod"}', 'malformed'],
    ['authenticated a text', '{"status":{"authenticated":"true"}}', 'malformed'],
    ['audiences a text', '{"status":{"audiences":"spiffe-edge"}}', 'malformed'],
    ['an extra that is no list', '{"status":{"user":{"extra":{"a":"b"}}}}', 'malformed'],
    ['a username that is no text', '{"status":{"user":{"username":1}}}', 'malformed'],
  ])('%s', async (_, body, code) => {
    server.interfere = () => new Response(body, { status: 201 })
    expect((await failure(api().reviewToken('a.b.c', []))).code).toBe(code)
  })

  test('201 is an answer to a POST only', async () => {
    server.interfere = () => Response.json({ keys: [] }, { status: 201 })
    expect(await failure(api().getJwks())).toMatchObject({ code: 'status', status: 201 })
  })

  test('nobody there, and one that breaks off', async () => {
    server.interfere = () => Promise.reject(new TypeError('SECRET'))
    expect((await failure(api().getJwks())).code).toBe('unreachable')
    server.interfere = () => breakOff(null as never) as Response
    expect((await failure(api().getJwks())).code).toBe('unreachable')
  })

  test('one without end', async () => {
    server.interfere = () => endless().answer(null as never) as Response
    expect((await failure(api().getJwks())).code).toBe('too_large')
  })

  test.each([
    ['before it answers', hang],
    ['in the middle of its answer', hangInBody],
  ])('one that hangs %s is given up after 5 s', async (_, answer) => {
    server.interfere = (_call, signal) => answer({ signal } as Request) as Promise<Response>
    const waiting = failure(api().getJwks())
    await vi.waitFor(() => expect(server.calls).toHaveLength(1), 15_000)
    expect(patience.asked).toEqual([5000])
    patience.end()
    expect((await waiting).code).toBe('timeout')
  })
})

describe('as the worker itself', () => {
  test('T-9: 403 says which user the ClusterRole is to be bound to, 401 that the apiserver does not know us', async () => {
    const cluster = policyOf(east.record({ connection: { url: URL_OF_API, binding: 'CLUSTER_EAST' } })).clusters
    const record = cluster.get('east') as Cluster
    const as = new KubernetesApi(record, record.connection as Connection, {
      issuer: ISSUER,
      trustDomain: TRUST_DOMAIN,
      keyRing: {
        signer: async () => ({ publicJwk: { alg: 'ES256', kid: 'k' } as never, sign: async () => new Uint8Array(64) }),
      },
      bindings: new Map([['CLUSTER_EAST', server]]),
      now: () => NOW,
      waitUntil: new Background().waitUntil,
      unseal: async () => null,
      log: new LogBook().log,
    })
    server.interfere = () => new Response('', { status: 403 })
    expect((await failure(as.getPod('shop', 'web'))).message).toBe(
      'cluster east: 403 on get pods: bind the ClusterRole of deploy/kubernetes to ' +
        'spiffe://example.org/spiffe-edge/reviewer/east (spiffe:spiffe-edge:reviewer:east with the mapping service-account)',
    )
    server.interfere = () => new Response('', { status: 401 })
    expect((await failure(as.getNode('node-1'))).message).toBe(
      'cluster east: 401 on get nodes: its apiserver needs the AuthenticationConfiguration of /structured-auth.yaml?cluster=east',
    )
  })
})
