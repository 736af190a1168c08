import { afterEach, describe, expect, test, vi } from 'vitest'
import { SigningError } from '../../keys/signer.ts'
import { Refusal } from '../../worker/refusal.ts'
import type { KeyRing } from '../../worker/state/key_ring.ts'
import { FakeCluster } from '../support/cluster.ts'
import { Network } from '../support/cluster_network.ts'
import { cluster, ISSUER, registration } from '../support/policy.ts'
import { TestIssuer, textOf } from './issuer.ts'

const DOCUMENTS = ['/.well-known/openid-configuration', '/keys', '/bundle', '/structured-auth.yaml']

afterEach(() => {
  vi.unstubAllGlobals()
})

/** @param variables laid over those of an issuer with one cluster */
const issuer = (variables: object = {}, deps: object = {}) => new TestIssuer([cluster('east')], variables, deps)

/** Keys of which nothing can be had. */
function brokenKeys(error: unknown): { keyRing: KeyRing } {
  const fail = () => Promise.reject(error)
  return { keyRing: { published: fail, signer: fail } as unknown as KeyRing }
}

describe('OD-10: the documents', () => {
  test.each(DOCUMENTS)('%s is for anybody who can GET', async (path) => {
    const answer = await issuer().fetch(path)
    expect(answer.status).toBe(200)
    expect((await textOf(answer)).length).toBeGreaterThan(0)
  })

  test.each(DOCUMENTS)('%s has a HEAD with the headers of GET, and no body', async (path) => {
    const by = issuer()
    const [get, head] = [await by.fetch(path), await by.fetch(path, { method: 'HEAD' })]
    expect([head.status, await textOf(head)]).toEqual([200, ''])
    expect(Object.fromEntries(head.headers)).toMatchObject({ 'content-type': get.headers.get('content-type') })
    expect(head.headers.get('etag')).toBe(get.headers.get('etag'))
  })

  test.each(
    DOCUMENTS.flatMap((path) => ['POST', 'PUT', 'DELETE', 'PATCH', 'PROPFIND'].map((method) => [method, path])),
  )('12.6: %s %s is 405', async (method, path) => {
    const answer = await issuer().fetch(path as string, { method: method as string })
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
  })

  test.each(DOCUMENTS)('%s may be read from other origins', async (path) => {
    const answer = await issuer().fetch(path, {
      method: 'OPTIONS',
      headers: { origin: 'https://a.example', 'access-control-request-method': 'GET' },
    })
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([204, '*'])
  })

  test('D3: are the same to a client that has them already', async () => {
    const by = issuer()
    const etag = (await by.fetch('/keys')).headers.get('etag') ?? ''
    expect((await by.fetch('/keys', { headers: { 'if-none-match': etag } })).status).toBe(304)
  })
})

describe('12.6, D8: the host that was asked', () => {
  test.each([
    ['the URL', 'https://evil.example', {}],
    ['X-Forwarded-Host', ISSUER, { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'http' }],
    ['Forwarded', ISSUER, { forwarded: 'host=evil.example;proto=http' }],
    ['X-Original-URL', ISSUER, { 'x-original-url': '/evil', 'x-rewrite-url': '/evil' }],
  ])('in %s changes nothing', async (_, origin, headers) => {
    const by = issuer()
    for (const path of DOCUMENTS) {
      const [usual, spoofed] = await Promise.all([
        by.fetch(path),
        by.app.fetch(new Request(origin + path, { headers: headers as Record<string, string> })),
      ])
      expect(await textOf(spoofed)).toBe(await textOf(usual))
      expect([...(spoofed?.headers ?? [])].flat().join()).not.toContain('evil')
    }
  })
})

describe('12.7: the token endpoint', () => {
  test.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('%s is 405, and no decision', async (method) => {
    const by = issuer()
    const query = 'grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a&subject_token_type=b'
    for (const path of ['/token', `/token?${query}`]) {
      const answer = await by.fetch(path, { method })
      expect([answer.status, answer.headers.get('allow'), answer.headers.get('cache-control')]).toEqual([
        405,
        'POST',
        'no-store',
      ])
    }
    expect(by.book.events).toEqual([])
  })

  test('is not for pages of other origins', async () => {
    const answer = await issuer().fetch('/token', { method: 'POST', headers: { origin: 'https://a.example' } })
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
  })

  test('issues', async () => {
    const east = await FakeCluster.create('east')
    const by = new TestIssuer([east.record(), registration('web')])
    expect((await by.exchange(await east.token())).status).toBe(200)
  })
})

describe('what there is not', () => {
  test.each([
    '/',
    '/keys/',
    '//keys',
    '/Keys',
    '/token/x',
    '/admin/v1',
    '/bundles/x',
    '/metrics',
    '/v1/svids',
    '/demo/token',
    '/.well-known/openid-configuration/',
    '/..%2fkeys',
  ])('%s is 404', async (path) => {
    const answer = await issuer().app.fetch(new Request(`${ISSUER}${path}`))
    expect([answer.status, await answer.text(), answer.headers.get('cache-control')]).toEqual([
      404,
      'not found\n',
      'no-store',
    ])
  })
})

describe('OD-1: an issuer with a path', () => {
  const by = () => issuer({ ISSUER: 'https://example.org/a/b' })

  test.each([...DOCUMENTS])('has %s below it, and nowhere else', async (path) => {
    expect((await by().fetch(`/a/b${path}`)).status).toBe(200)
    expect((await by().fetch(path)).status).toBe(404)
    expect((await by().fetch(`/a${path}`)).status).toBe(404)
  })

  test('says so', async () => {
    expect(await (await by().fetch('/a/b/.well-known/openid-configuration')).json()).toMatchObject({
      issuer: 'https://example.org/a/b',
      jwks_uri: 'https://example.org/a/b/keys',
    })
  })

  test.each([
    'https://example.org/a%20b',
    'https://example.org/a%2Fb',
    'https://example.org/:tenant',
    'https://example.org/*',
  ])('OD-4: %s is where it says it is, or is refused as configuration', async (ISSUER) => {
    let odd: TestIssuer
    try {
      odd = issuer({ ISSUER })
    } catch {
      return
    }
    const answer = await odd.app.fetch(new Request(`${ISSUER}/.well-known/openid-configuration`))
    expect(answer.status).toBe(200)
    const elsewhere = await odd.app.fetch(new Request('https://example.org/elsewhere/.well-known/openid-configuration'))
    expect(elsewhere.status).toBe(404)
  })
})

describe('health', () => {
  test('is answered as long as there is a process', async () => {
    const answer = await issuer({}, brokenKeys(new TypeError('x'))).fetch('/healthz')
    expect([answer.status, await answer.text()]).toEqual([200, 'ok\n'])
  })

  test('ready is who could sign', async () => {
    expect((await issuer().fetch('/readyz')).status).toBe(200)
  })

  test.each<[string, () => TestIssuer]>([
    ['the state cannot be had', () => issuer({}, brokenKeys(new Refusal('keys_unavailable', 'x', 5)))],
    [
      'no key can be had',
      () =>
        issuer({
          SIGNING_KEY: 'awskms:alias/a',
          AWS_REGION: 'r',
          AWS_ACCESS_KEY_ID: 'a',
          AWS_SECRET_ACCESS_KEY: 's',
        }),
    ],
  ])('not who could not: %s is 503', async (_, make) => {
    vi.stubGlobal('fetch', new Network().fetch)
    expect((await make().fetch('/readyz')).status).toBe(503)
  })
})

describe('what goes wrong outside of the token endpoint', () => {
  test('and is a refusal: has its status, and its detail in the log only', async () => {
    const by = issuer({}, brokenKeys(new Refusal('keys_unavailable', 'the reason', 5)))
    for (const path of ['/keys', '/.well-known/openid-configuration', '/readyz']) {
      const answer = await by.fetch(path)
      expect([answer.status, answer.headers.get('retry-after'), answer.headers.get('cache-control')]).toEqual([
        503,
        '5',
        'no-store',
      ])
      expect(await answer.text()).toBe('there are no keys at the moment\n')
    }
    expect(by.book.events).toEqual(
      Array(3).fill({ event: 'request_failed', reason: 'keys_unavailable', detail: 'the reason' }),
    )
  })

  test.each([new TypeError('secret text'), new SigningError('denied')])(
    'and is %s: 500, with nothing of it but its name in the log',
    async (error) => {
      const by = issuer({}, brokenKeys(error))
      const answer = await by.fetch('/keys')
      expect([answer.status, await answer.text()]).toEqual([500, 'something went wrong here\n'])
      expect(by.book.events).toEqual([{ event: 'request_failed', reason: 'internal', detail: error.name }])
    },
  )
})
