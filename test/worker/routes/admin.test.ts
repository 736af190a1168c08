import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Refusal } from '../../../worker/refusal.ts'
import type { PolicyRing } from '../../../worker/state/policy_ring.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { Administrator } from '../administrator.ts'
import { TestIssuer } from '../issuer.ts'

let east: FakeCluster
let alice: Administrator
let mallory: Administrator
beforeAll(async () => {
  ;[east, alice, mallory] = await Promise.all([
    FakeCluster.create('east'),
    Administrator.create(),
    // Another key under the same name.
    Administrator.create(),
  ])
})

let issuer: TestIssuer
beforeEach(() => {
  issuer = new TestIssuer([east.record(), alice.object, registration('deployed')])
})

const web = registration('web', { audiences: ['a'], claims: { tier: 'content-of-an-object' } })
const ROUTES = [
  ['GET', '/admin/v1/objects'],
  ['POST', '/admin/v1/apply'],
] as const
const MIB = 1024 * 1024
const events = (name: string) => issuer.book.events.filter(({ event }) => event === name)

/** Sends nothing but what is given. */
const ask = (method: string, path: string, authorization: string | null, by = issuer) =>
  by.fetch(path, {
    method,
    headers: { 'content-type': 'application/json', ...(authorization !== null && { authorization }) },
    ...(method === 'POST' && { body: JSON.stringify({ objects: [web] }) }),
  })

/** @returns the status and the reason */
async function outcome(answer: Response): Promise<readonly unknown[]> {
  expect([answer.headers.get('cache-control'), answer.headers.get('pragma')]).toEqual(['no-store', 'no-cache'])
  return [answer.status, ((await answer.json()) as { reason?: string }).reason]
}

describe.each(ROUTES)('T-11: %s %s', (method, path) => {
  test('is for administrators', async () => {
    const answer = await ask(method, path, `Bearer ${await alice.token(issuer)}`)
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([200, 'no-store'])
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
  })

  test('is for nobody where the manifest names none, with whatever token and without', async () => {
    const nobody = new TestIssuer([east.record(), registration('deployed')])
    for (const authorization of [null, 'Basic YTpi', 'Bearer x', `Bearer ${await alice.token(nobody)}`]) {
      const answer = await ask(method, path, authorization, nobody)
      expect(answer.headers.has('www-authenticate')).toBe(false)
      expect(await outcome(answer)).toEqual([403, 'admin_none'])
    }
  })

  test.each<[string, () => Promise<string | null> | string | null]>([
    ['nothing', () => null],
    ['an empty header', () => ''],
    ['no token', () => 'Bearer '],
    ['a token without a scheme', async () => alice.token(issuer)],
    ['another scheme', async () => `Basic ${await alice.token(issuer)}`],
    ['a scheme that goes on', async () => `BearerX ${await alice.token(issuer)}`],
    ['two tokens', async () => `Bearer ${await alice.token(issuer)} ${await alice.token(issuer)}`],
    ['two headers in one', async () => `Bearer x, Bearer ${await alice.token(issuer)}`],
    ['the token of somebody else of that name', async () => `Bearer ${await mallory.token(issuer)}`],
    ['the token of a pod', async () => `Bearer ${await east.token()}`],
  ])('is not for who comes with %s', async (_, authorization) => {
    const answer = await ask(method, path, await authorization())
    expect(answer.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"')
    expect(await outcome(answer)).toEqual([401, 'admin_token'])
    expect(events('admin_refused')).toEqual([
      { event: 'admin_refused', reason: 'admin_token', detail: expect.any(String) },
    ])
    expect(events('policy_changed')).toEqual([])
    expect((await alice.list(issuer)).version).toBe(0)
  })

  test('takes no token from elsewhere', async () => {
    const token = await alice.token(issuer)
    for (const headers of [{ cookie: `token=${token}` }, { 'x-vault-token': token }, { 'x-authorization': token }])
      expect((await issuer.fetch(path, { method, headers: headers as Record<string, string> })).status).toBe(401)
    expect((await issuer.fetch(`${path}?access_token=${token}`, { method })).status).toBe(401)
  })

  test('knows a token no longer than it lives', async () => {
    const authorization = `Bearer ${await alice.token(issuer)}`
    issuer.clock.advance(299)
    expect((await ask(method, path, authorization)).status).toBe(200)
    issuer.clock.advance(1)
    expect((await ask(method, path, authorization)).status).toBe(401)
  })

  test.each(['PUT', 'DELETE', 'PATCH', 'OPTIONS', method === 'GET' ? 'POST' : 'GET'])('has no %s', async (other) => {
    const answer = await issuer.fetch(path, { method: other })
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, method === 'GET' ? 'GET, HEAD' : 'POST'])
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
  })

  test('is under the path of the issuer, and nowhere else', async () => {
    const below = new TestIssuer([east.record(), alice.object], { ISSUER: 'https://example.org/a' })
    const authorization = `Bearer ${await alice.token(below)}`
    expect((await ask(method, `/a${path}`, authorization, below)).status).toBe(200)
    expect((await ask(method, path, authorization, below)).status).toBe(404)
  })

  test('says 503 and when to come again where the policy can’t be had, and nothing of why', async () => {
    const renew = () => Promise.reject(new Refusal('policy_unavailable', '/secret/path', 5))
    const broken = new TestIssuer([alice.object], {}, { policyRing: { renew } as unknown as PolicyRing })
    const answer = await ask(method, path, `Bearer ${await alice.token(broken)}`, broken)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(await answer.text()).not.toContain('secret')
  })
})

describe('12.7: what is sent', () => {
  test.each(['application/json', 'application/json; charset=utf-8', 'APPLICATION/JSON;charset="UTF-8"'])(
    'may be %s',
    async (type) => {
      expect((await alice.send(issuer, { objects: [web] }, { 'content-type': type })).status).toBe(200)
    },
  )

  test.each([
    '',
    'text/plain',
    'text/json',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx',
    'application/json+x',
    'application/json; charset=iso-8859-1',
    'text/plain, application/json',
  ])('may not be %j, as a page of another origin could send', async (type) => {
    const answer = await alice.send(issuer, { objects: [web] }, { 'content-type': type })
    expect(await outcome(answer)).toEqual([400, 'json_malformed'])
  })

  test.each<[string, BodyInit]>([
    ['nothing', ''],
    ['no JSON', 'objects: []'],
    ['a list', '[]'],
    ['a text', '"x"'],
    ['null', 'null'],
    ['two objects', '{}{}'],
    ['a member twice', '{"dryRun":true,"dryRun":false}'],
    ['a member twice, further down', '{"objects":[{"kind":"Ban","spec":{"a":1,"a":2}}]}'],
    ['a member twice, in two spellings', '{"dryRun":true,"dry\\u0052un":false}'],
    ['no UTF-8', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d)],
    ['a byte order mark', '\ufeff{}'],
    ['an unknown field', '{"force":true}'],
    ['__proto__', '{"__proto__":{"dryRun":true}}'],
    ['objects that are no list', '{"objects":{}}'],
    ['dryRun as a text', '{"dryRun":"true"}'],
    ['ifVersion as a text', '{"ifVersion":"0"}'],
    ['a version with a fraction', '{"ifVersion":0.5}'],
    ['a removal without a name', '{"remove":[{"kind":"Ban"}]}'],
    ['a removal of more than is known', '{"remove":[{"kind":"Ban","name":"x","force":true}]}'],
    ['a removal that is a text', '{"remove":["x"]}'],
    ['more removals than there can be', JSON.stringify({ remove: Array(20_001).fill({ kind: 'Ban', name: 'x' }) })],
    ['more objects than there can be', JSON.stringify({ objects: Array(20_001).fill(0) })],
  ])('may not be %s', async (_, body) => {
    const answer = await alice.send(issuer, body)
    const { status } = answer
    const said = (await answer.json()) as { reason: string; error_description: string }
    expect([status, said.reason]).toEqual([400, 'json_malformed'])
    expect(said.error_description).not.toContain('form')
    expect((await alice.list(issuer)).version).toBe(0)
  })

  test('is 16 MiB at most, by its length or by its body, and is not read before it is known who sends it', async () => {
    const tooLarge = 16 * MIB + 1
    expect(await outcome(await alice.send(issuer, '{}', { 'content-length': String(tooLarge) }))).toEqual([
      413,
      'request_too_large',
    ])
    const endless = (count: { sent: number }) =>
      new ReadableStream<Uint8Array>({
        pull(controller) {
          count.sent += MIB
          controller.enqueue(new Uint8Array(MIB).fill(0x20))
        },
      })
    const count = { sent: 0 }
    expect(await outcome(await alice.send(issuer, endless(count)))).toEqual([413, 'request_too_large'])
    expect(count.sent).toBeLessThanOrEqual(20 * MIB)
    const unread = { sent: 0 }
    expect((await mallory.send(issuer, endless(unread))).status).toBe(401)
    expect(unread.sent).toBeLessThanOrEqual(MIB)
  })

  test('is judged only when it is known who sends it', async () => {
    expect(await outcome(await mallory.send(issuer, 'x'))).toEqual([401, 'admin_token'])
  })
})

describe('style 4.9: the log', () => {
  test('names who changed what, and holds neither tokens nor what objects say', async () => {
    const token = await alice.token(issuer)
    await alice.send(issuer, { objects: [web] })
    await alice.send(issuer, { remove: [{ kind: 'WorkloadRegistration', name: 'web' }] })
    expect(issuer.book.events).toEqual([
      { event: 'policy_changed', admin: 'alice', version: 1, changes: ['create WorkloadRegistration web'] },
      { event: 'policy_changed', admin: 'alice', version: 2, changes: ['delete WorkloadRegistration web'] },
    ])
    expect(issuer.book.text).not.toContain('content-of-an-object')
    expect(findPieceOf(token, issuer.book.text)).toBeNull()
  })

  test('says that somebody was refused, and holds nothing of the token', async () => {
    for (const token of [await mallory.token(issuer), await east.token()]) {
      const answer = await ask('POST', '/admin/v1/apply', `Bearer ${token}`)
      expect(findPieceOf(token, `${await answer.text()}${issuer.book.text}`)).toBeNull()
    }
    expect(events('admin_refused')).toHaveLength(2)
  })

  test('has no line for what was refused for its content, only tried, or changed nothing', async () => {
    await alice.send(issuer, { objects: [{ ...web, spec: { secret: 'content-of-an-object' } }] })
    await alice.send(issuer, { objects: [web], dryRun: true })
    await alice.send(issuer, { objects: [web], ifVersion: 7 })
    await alice.send(issuer, {})
    expect(issuer.book.events).toEqual([])
  })
})
