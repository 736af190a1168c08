/** What an API server's word is worth: `/token` at a cluster with `liveness: tokenReview`, with a whole issuer around it. */

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, type TokenChange } from '../../support/cluster.ts'
import { hang, held, json, Network, Patience } from '../../support/cluster_network.ts'
import { claimsOf, FakeApiServer } from '../../support/kube_api.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { TestIssuer } from '../issuer.ts'

let east: FakeCluster
let stranger: FakeCluster
beforeAll(async () => {
  ;[east, stranger] = await Promise.all([FakeCluster.create('east'), FakeCluster.create('east')])
})

let server: FakeApiServer
let issuer: TestIssuer
beforeEach(() => {
  server = new FakeApiServer(east)
  issuer = issuerOf()
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

function issuerOf(spec: object = {}): TestIssuer {
  const live = {
    connection: { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' },
    liveness: 'tokenReview',
    allowedPodLabelKeys: ['app', 'team', 'absent'],
  }
  return new TestIssuer([east.record({ ...live, ...spec }), registration('web')], { CLUSTER_EAST: server })
}

interface Outcome {
  readonly status: number
  readonly reason: string | undefined
  readonly retryAfter: string | null
}

/** @returns the answer, of which nothing repeats the token */
async function outcome(token: string, by = issuer): Promise<Outcome> {
  const response = await by.exchange(token)
  const text = await response.text()
  if (response.status !== 200) expect(findPieceOf(token, text)).toBeNull()
  expect(findPieceOf(token, by.book.text)).toBeNull()
  return { status: response.status, reason: JSON.parse(text).reason, retryAfter: response.headers.get('retry-after') }
}

async function reasonFor(change: TokenChange = {}, by = issuer): Promise<string | undefined> {
  return (await outcome(await east.token(change), by)).reason
}

const detail = () => issuer.book.decisions.at(-1)?.detail

describe('D6: a token that is shown to its API server', () => {
  test('is taken when token and pod are alive, at the price of two calls', async () => {
    expect((await outcome(await east.token())).status).toBe(200)
    expect(server.asked).toEqual(['v1/tokenreviews', `pods/${POD.pod.name}`])
    expect(issuer.book.decisions).toMatchObject([{ decision: 'issued', live: true }])
  })

  test('makes an attestation that is live, with the labels that are allowed', async () => {
    const attestation = await (await issuer.deps.policyRing.current()).attestors.serviceAccounts.attest(
      await east.token(),
      'token',
      NOW,
    )
    expect(attestation.live).toBe(true)
    expect([...attestation.selectors]).toEqual([
      `k8s:ns:${POD.namespace}`,
      `k8s:sa:${POD.serviceAccount.name}`,
      `k8s:pod-name:${POD.pod.name}`,
      `k8s:pod-uid:${POD.pod.uid}`,
      `k8s:node-name:${POD.node.name}`,
      'k8s:pod-label:app:checkout',
      'k8s:pod-label:team:payments',
    ])
  })

  test('T-9: is shown to it by the worker itself, and by one token for all of a request', async () => {
    await outcome(await east.token())
    const [review, pod] = server.calls
    expect(review?.bearer).toBe(pod?.bearer)
    expect(claimsOf(review?.bearer ?? '')).toMatchObject({
      sub: 'spiffe://example.org/spiffe-edge/reviewer/east',
      aud: `${issuer.deps.issuer}/reviewer/east`,
      exp: NOW + 60,
    })
  })

  test('T-6: such a token of the worker’s is a subject token nowhere', async () => {
    await outcome(await east.token())
    expect((await outcome(server.calls[0]?.bearer ?? '')).reason).toBe('token_issuer')
  })

  test('bound to no pod, where the record allows that, takes one call', async () => {
    const by = issuerOf({ requireBoundPod: false })
    const token = await east.token({ kubernetes: { pod: undefined, node: undefined } })
    expect((await outcome(token, by)).status).toBe(200)
    expect(server.asked).toEqual(['v1/tokenreviews'])
  })

  test('is not shown to it where the record does not ask for that', async () => {
    expect((await outcome(await east.token(), issuerOf({ liveness: 'none' }))).status).toBe(200)
    expect(server.calls).toEqual([])
  })
})

describe('what has come to its end', () => {
  test('a pod that is gone: not authenticated', async () => {
    server.pods.clear()
    expect(await outcome(await east.token())).toMatchObject({ status: 400, reason: 'token_not_live' })
  })

  test('12.9: a pod that is gone, while the API server remembers the token', async () => {
    server.interfere = ({ url }) => (url.includes('/pods/') ? new Response('', { status: 404 }) : undefined)
    expect(await outcome(await east.token())).toMatchObject({ status: 400, reason: 'pod_gone' })
  })

  test('12.9: a pod of the same name with another UID', async () => {
    const token = await east.token()
    const uid = '00000000-0000-4000-8000-000000000000'
    server.interfere = ({ url }) =>
      url.includes('/pods/') ? Response.json({ metadata: { uid }, spec: { nodeName: POD.node.name } }) : undefined
    expect(await outcome(token)).toMatchObject({ status: 400, reason: 'pod_replaced' })
  })
})

describe('12.8: an API server that says yes to something else', () => {
  const user = (change: object) => (status: Record<string, unknown>) => ({
    ...status,
    user: { ...(status.user as object), ...change },
  })
  const extra = (name: string, values: unknown) => (status: Record<string, unknown>) => {
    const { extra: all, ...rest } = status.user as { extra: object }
    return { ...status, user: { ...rest, extra: { ...all, [`authentication.kubernetes.io/${name}`]: values } } }
  }

  test.each<[string, (status: Record<string, unknown>) => Record<string, unknown>, string]>([
    ['no audiences', (status) => ({ ...status, audiences: undefined }), 'token_review_audience'],
    ['empty audiences', (status) => ({ ...status, audiences: [] }), 'token_review_audience'],
    ['foreign audiences', (status) => ({ ...status, audiences: ['vault'] }), 'token_review_audience'],
    ['authenticated, and an error', (status) => ({ ...status, error: 'SECRET' }), 'token_review_user'],
    ['not authenticated, with a user', (status) => ({ ...status, authenticated: false }), 'token_not_live'],
    ['authenticated missing', (status) => ({ ...status, authenticated: undefined }), 'token_not_live'],
    ['a node', user({ username: 'system:node:x' }), 'token_review_user'],
    ['PS-11: four parts', user({ username: `a:b:${POD.namespace}:${POD.serviceAccount.name}` }), 'token_review_user'],
    ['five parts', user({ username: `system:serviceaccount:${POD.namespace}:x:y` }), 'token_review_user'],
    ['an empty part', user({ username: `system:serviceaccount::${POD.serviceAccount.name}` }), 'token_review_user'],
    [
      'another namespace',
      user({ username: `system:serviceaccount:x:${POD.serviceAccount.name}` }),
      'token_review_user',
    ],
    ['another account', user({ username: `system:serviceaccount:${POD.namespace}:x` }), 'token_review_user'],
    ['a SPIFFE ID', user({ username: 'spiffe://example.org/x' }), 'token_review_user'],
    ['no username', user({ username: undefined }), 'token_review_user'],
    ['a service account of another UID', user({ uid: 'other' }), 'token_review_user'],
    ['no extra', user({ extra: undefined }), 'token_review_pod'],
    ['pod-name twice', extra('pod-name', [POD.pod.name, POD.pod.name]), 'token_review_pod'],
    ['no pod-name', extra('pod-name', []), 'token_review_pod'],
    ['an empty pod-name', extra('pod-name', ['']), 'token_review_pod'],
    ['another pod-name', extra('pod-name', ['x']), 'token_review_pod'],
    ['pod-uid twice', extra('pod-uid', [POD.pod.uid, 'x']), 'token_review_pod'],
    ['another pod-uid', extra('pod-uid', ['x']), 'token_review_pod'],
  ])('%s: %#', async (_, lie, reason) => {
    server.lie = lie
    const { status, ...rest } = await outcome(await east.token())
    expect([status, rest.reason]).toEqual([reason === 'token_not_live' ? 400 : 503, reason])
    expect(server.asked).toEqual(['v1/tokenreviews'])
    expect(issuer.book.text).not.toContain('SECRET')
  })

  test('a pod for a token that is bound to none', async () => {
    const by = issuerOf({ requireBoundPod: false })
    server.lie = extra('pod-name', ['x'])
    expect(await reasonFor({ kubernetes: { pod: undefined, node: undefined } }, by)).toBe('token_review_pod')
  })

  test('the pod on another node than the token says', async () => {
    server.addPod(POD.namespace, POD.pod, 'other-node')
    expect(await reasonFor()).toBe('token_review_pod')
  })
})

describe('an API server that gives no answer', () => {
  test.each([401, 403, 404, 429, 500, 503])(
    '%i is 503, with the time to come again and the whole story in the log',
    async (status) => {
      server.interfere = () => new Response('SECRET', { status })
      expect(await outcome(await east.token())).toEqual({
        status: 503,
        reason: 'cluster_api_unavailable',
        retryAfter: '2',
      })
      expect(detail()).toContain(`cluster east: ${status} on create tokenreviews`)
      expect(issuer.book.text).not.toContain('SECRET')
    },
  )

  test('403 on pods is told apart', async () => {
    server.interfere = ({ url }) => (url.includes('/pods/') ? new Response('', { status: 403 }) : undefined)
    expect((await outcome(await east.token())).reason).toBe('cluster_api_unavailable')
    expect(detail()).toBe(
      'cluster east: 403 on get pods: bind the ClusterRole of deploy/kubernetes to ' +
        'spiffe://example.org/spiffe-edge/reviewer/east (spiffe:spiffe-edge:reviewer:east with the mapping service-account)',
    )
  })

  test('one that hangs in either step is given up after 5 s in all', async () => {
    const patience = new Patience()
    vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
    server.interfere = ({ url }, signal) =>
      url.includes('/pods/') ? (hang({ signal } as Request) as Promise<Response>) : undefined
    const waiting = outcome(await east.token())
    await vi.waitFor(() => expect(server.calls).toHaveLength(2), 15_000)
    expect(patience.asked).toEqual([5000])
    patience.end()
    expect((await waiting).reason).toBe('cluster_api_unavailable')
    expect(detail()).toBe('cluster east: timeout on get pods')
  })

  test('without a key of ours there is nobody to ask as', async () => {
    const token = await east.token()
    vi.spyOn(issuer.deps.keyRing, 'signer').mockRejectedValue(new TypeError('unexpected'))
    expect((await outcome(token)).status).toBe(500)
  })
})

describe('client: a token that is its own reviewer', () => {
  test('is shown in both calls, and nothing is signed for them', async () => {
    const token = await east.token()
    expect((await outcome(token, issuerOf({ reviewer: 'client' }))).status).toBe(200)
    expect(server.calls.map(({ bearer }) => bearer)).toEqual([token, token])
  })

  test('is dead when its API server does not take it, and its account lacks the role when it does', async () => {
    const by = issuerOf({ reviewer: 'client' })
    server.interfere = () => new Response('', { status: 401 })
    expect(await outcome(await east.token(), by)).toMatchObject({ status: 400, reason: 'token_not_live' })
    server.interfere = () => new Response('', { status: 403 })
    expect(await outcome(await east.token(), by)).toMatchObject({ status: 503, reason: 'cluster_api_unavailable' })
    expect(by.book.decisions.at(-1)?.detail).toContain(
      'bind the ClusterRole of deploy/kubernetes to the user of the token',
    )
  })
})

describe('T-18: who asks the same shares the answer', () => {
  test('while it is under way: fifty requests make one review', async () => {
    const gate = held(json({}))
    server.interfere = ({ url }) =>
      url.endsWith('/tokenreviews')
        ? (gate.answer(null as never) as Promise<Response>).then(() => undefined as never)
        : undefined
    const token = await east.token()
    const waiting = Array.from({ length: 50 }, () => outcome(token))
    await vi.waitFor(() => expect(server.calls).toHaveLength(1), 15_000)
    gate.release()
    for (const { status } of await Promise.all(waiting)) expect(status).toBe(200)
    expect(server.calls).toHaveLength(2)
  })

  test('for ten seconds after, and not one more: so long does a deleted pod live on', async () => {
    const token = await east.token()
    await outcome(token)
    server.pods.clear()
    issuer.clock.advance(9)
    expect((await outcome(token)).status).toBe(200)
    issuer.clock.advance(1)
    expect((await outcome(token)).reason).toBe('token_not_live')
    expect(server.reviews).toHaveLength(2)
  })

  test('not with another token, be it of the same pod', async () => {
    await outcome(await east.token())
    await outcome(await east.token({ claims: { jti: 'other' } }))
    expect(server.reviews).toHaveLength(2)
  })

  test('a no is not kept', async () => {
    const token = await east.token()
    server.lie = () => ({})
    expect((await outcome(token)).reason).toBe('token_not_live')
    server.lie = (status) => status
    expect((await outcome(token)).status).toBe(200)
  })

  test('a yes outlives nothing: the token’s own end counts', async () => {
    const token = await east.token({ claims: { exp: NOW + 5 } })
    expect((await outcome(token)).status).toBe(200)
    issuer.clock.advance(5)
    expect((await outcome(token)).reason).toBe('token_expired')
  })

  test('64 at a time: who comes then is told to come again, and nobody waits for a queue', async () => {
    const patience = new Patience()
    vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
    server.interfere = (_call, signal) => hang({ signal } as Request) as Promise<Response>
    const tokens = await Promise.all(Array.from({ length: 65 }, (_, jti) => east.token({ claims: { jti: `${jti}` } })))
    const waiting = tokens.slice(0, 64).map((token) => outcome(token))
    await vi.waitFor(() => expect(server.calls).toHaveLength(64), 15_000)
    expect(await outcome(tokens[64] as string)).toEqual({
      status: 503,
      reason: 'cluster_api_unavailable',
      retryAfter: '2',
    })
    expect(server.calls).toHaveLength(64)
    patience.end()
    await Promise.all(waiting)
    server.interfere = () => undefined
    vi.restoreAllMocks()
    expect((await outcome(tokens[64] as string)).status).toBe(200)
  })
})

describe('T-6: offline first, always', () => {
  test('a thousand forged tokens make no review, and one fetch of the keys', async () => {
    const network = new Network()
    vi.stubGlobal('fetch', network.fetch)
    const by = issuerOf({ jwks: { connection: true } })
    const forged = await stranger.token()
    const [header, payload] = (await east.token()).split('.')
    const changes: TokenChange[] = [{ header: { kid: 'x' } }, { claims: { exp: NOW } }, { claims: { iss: 'x' } }]
    const more = await Promise.all(changes.map((change) => east.token(change)))
    const tokens = [forged, `${header}.${payload}.${forged.split('.')[2]}`, ...more]
    for (let index = 0; index < 1000; index++)
      expect((await by.exchange(tokens[index % tokens.length] as string)).status).toBe(400)
    expect(server.reviews).toEqual([])
    expect(server.asked).toEqual(['v1/jwks'])
    expect(network.requests).toEqual([])
  })

  test('T-10: keys that are read through the connection take a token of the worker’s own', async () => {
    server.bound = new Set(['spiffe://example.org/spiffe-edge/reviewer/east'])
    const by = issuerOf({ jwks: { connection: true } })
    expect((await outcome(await east.token(), by)).status).toBe(200)
    expect(server.asked).toEqual(['v1/jwks', 'v1/tokenreviews', `pods/${POD.pod.name}`])
  })

  test('T-10: and where they are not to be had, the log says why', async () => {
    server.bound = new Set()
    const by = issuerOf({ jwks: { connection: true } })
    expect(await outcome(await east.token(), by)).toMatchObject({ status: 503, reason: 'cluster_keys_unavailable' })
    expect(by.book.events).toContainEqual({
      event: 'cluster_keys_refused',
      cluster: 'east',
      reason: expect.stringContaining('cluster east: 403 on get /openid/v1/jwks: bind the ClusterRole'),
    })
  })
})
