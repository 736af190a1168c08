import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Refusal } from '../../../worker/refusal.ts'
import type { PolicyRing } from '../../../worker/state/policy_ring.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { Administrator } from '../administrator.ts'
import { TestIssuer } from '../issuer.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'
const object = (kind: string, name: string, spec: object) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind,
  metadata: { name },
  spec,
})
const ban = (name: string, spec: object) => object('Ban', name, spec)
const revocation = (jti: string, expiresAt = NOW + 600) => object('Revocation', jti, { jti, expiresAt })

let east: FakeCluster
let west: FakeCluster
let alice: Administrator
let node: Administrator
let mallory: Administrator
let limited: object
beforeAll(async () => {
  ;[east, west, alice, node, mallory] = await Promise.all([
    FakeCluster.create('east'),
    FakeCluster.create('west'),
    Administrator.create(),
    Administrator.create('node-east'),
    // Another key under the same name.
    Administrator.create('node-east'),
  ])
  const { spec, ...rest } = node.object as { spec: object }
  limited = { ...rest, spec: { ...spec, revocationsOf: 'east' } }
})

let issuer: TestIssuer
beforeEach(() => {
  issuer = new TestIssuer([east.record(), west.record(), alice.object, limited])
})

const PATH = '/admin/v1/clusters/east/revocations'
const read = async (who: Administrator | null, path = PATH, by = issuer, method = 'GET') =>
  by.fetch(path, { method, headers: who ? { authorization: `Bearer ${await who.token(by)}` } : {} })
async function outcome(answer: Response): Promise<readonly unknown[]> {
  expect(answer.headers.get('cache-control')).toBe('no-store')
  return [answer.status, ((await answer.json()) as { reason?: string }).reason]
}

describe('T-13: GET /admin/v1/clusters/<cluster>/revocations', () => {
  test('has nothing where nothing is revoked', async () => {
    const answer = await read(node)
    expect([answer.status, answer.headers.get('content-type'), answer.headers.get('cache-control')]).toEqual([
      200,
      'application/json',
      'no-store',
    ])
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
    expect(await answer.json()).toEqual({ cluster: 'east', version: 0, tokens: [], subjects: [] })
  })

  test('has ids of tokens and SPIFFE IDs and nothing else, in their order, at once', async () => {
    const objects = [
      revocation('b'),
      revocation('a'),
      revocation('over', NOW),
      ban('two', { spiffeID: `${ID}-2` }),
      ban('one', { spiffeID: ID, reason: 'secret reason' }),
      ban('account', { cluster: 'east', serviceAccount: 'shop:web' }),
      ban('node', { cluster: 'east', nodeUID: 'x' }),
    ]
    expect((await alice.apply(issuer, { objects }))[0]).toBe(200)
    const expected = { cluster: 'east', version: 1, tokens: ['a', 'b'], subjects: [ID, `${ID}-2`] }
    for (const who of [alice, node]) expect(await (await read(who)).json()).toEqual(expected)
    const unban = objects.map(({ kind, metadata: { name } }) => ({ kind, name }))
    expect((await alice.apply(issuer, { remove: unban }))[0]).toBe(200)
    expect(await (await read(node)).json()).toEqual({ cluster: 'east', version: 2, tokens: [], subjects: [] })
  })

  test('forgets a token at the second when its revocation expires', async () => {
    await alice.apply(issuer, { objects: [revocation('a', NOW + 10)] })
    issuer.clock.advance(9)
    expect(await (await read(node)).json()).toMatchObject({ tokens: ['a'] })
    issuer.clock.advance(1)
    expect(await (await read(node)).json()).toMatchObject({ tokens: [] })
  })

  test('has what the deployed manifest says, too', async () => {
    const deployed = new TestIssuer([
      east.record(),
      limited,
      ban('one', { spiffeID: ID }),
      revocation('a'),
      registration('web'),
    ])
    expect(await (await read(node, PATH, deployed)).json()).toMatchObject({ tokens: ['a'], subjects: [ID] })
  })

  test('T-24: of a cluster that there is not, is 404 for a full administrator alone', async () => {
    const answer = await read(alice, '/admin/v1/clusters/north/revocations')
    expect([answer.status, answer.headers.get('cache-control'), await answer.json()]).toEqual([
      404,
      'no-store',
      { error: 'cluster_unknown' },
    ])
    for (const cluster of ['west', 'north', 'EAST', '%65ast%2f', 'a'.repeat(3000)])
      expect(await outcome(await read(node, `/admin/v1/clusters/${cluster}/revocations`))).toEqual([
        403,
        'admin_limited',
      ])
  })

  test('T-11: an administrator for it may do nothing else', async () => {
    const authorization = `Bearer ${await node.token(issuer)}`
    expect(await outcome(await issuer.fetch('/admin/v1/objects', { headers: { authorization } }))).toEqual([
      403,
      'admin_limited',
    ])
    for (const request of [{}, { dryRun: true }, { objects: [revocation('a')] }])
      expect(await outcome(await node.send(issuer, request))).toEqual([403, 'admin_limited'])
    expect((await alice.list(issuer)).version).toBe(0)
    expect(new Set(issuer.book.events.map(({ event }) => event))).toEqual(new Set(['admin_refused']))
  })

  test('T-11: is for nobody else', async () => {
    for (const who of [null, mallory]) expect(await outcome(await read(who))).toEqual([401, 'admin_token'])
    const nobody = new TestIssuer([east.record()])
    expect(await outcome(await read(node, PATH, nobody))).toEqual([403, 'admin_none'])
    const token = await east.token()
    const answer = await issuer.fetch(PATH, { headers: { authorization: `Bearer ${token}` } })
    expect(findPieceOf(token, `${await answer.text()}${issuer.book.text}`)).toBeNull()
    expect(answer.status).toBe(401)
  })

  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])('has no %s', async (method) => {
    const answer = await read(alice, PATH, issuer, method)
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
  })

  test('is under the path of the issuer, and nowhere else', async () => {
    const below = new TestIssuer([east.record(), limited], { ISSUER: 'https://example.org/a' })
    expect((await read(node, `/a${PATH}`, below)).status).toBe(200)
    expect((await read(node, PATH, below)).status).toBe(404)
    expect((await read(node, `/a${PATH}/`, below)).status).toBe(404)
  })

  test('says 503 and when to come again where nobody can know what holds', async () => {
    const renew = () => Promise.reject(new Refusal('policy_unavailable', '/secret/path', 5))
    const broken = new TestIssuer([east.record(), limited], {}, { policyRing: { renew } as unknown as PolicyRing })
    const answer = await read(node, PATH, broken)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(await answer.text()).not.toContain('secret')
  })
})
