import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { SigningError } from '../../../keys/signer.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { Administrator } from '../administrator.ts'
import { TestIssuer } from '../issuer.ts'

let east: FakeCluster
let west: FakeCluster
let alice: Administrator
beforeAll(async () => {
  ;[east, west, alice] = await Promise.all([
    FakeCluster.create('east', { audience: 'edge-east' }),
    FakeCluster.create('west', { audience: 'edge-west' }),
    Administrator.create(),
  ])
})

const WRAPPED = { SIGNING_KEY: 'wrapped', WRAPPING_KEY: `aes:${'A'.repeat(42)}E` }
let issuer: TestIssuer
beforeEach(async () => {
  issuer = new TestIssuer([east.record(), west.record(), alice.object, registration('web')], WRAPPED)
  await issuer.publishedJwks()
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const post = (path: string, body: object) => alice.send(issuer, body, {}, path)
const events = (name: string) => issuer.book.events.filter(({ event }) => event === name)
const sha256 = async (text: string) =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).toHex()

interface Report {
  readonly now: number
  readonly jwks: { readonly sha256: string }
  readonly keys: readonly { kid: string; phase: string; safeAt: number | null }[]
}
const report = async () => (await (await alice.get(issuer, '/admin/v1/keys')).json()) as Report
const keyOf = async (phase: string) => (await report()).keys.find((key) => key.phase === phase)

/** Until the next key has been made, and the isolate knows of it. */
async function withSuccessor(): Promise<void> {
  await issuer.keys.pass(20)
  await report()
}

describe.each([
  ['GET', '/admin/v1/keys'],
  ['POST', '/admin/v1/keys/rotate'],
  ['POST', '/admin/v1/keys/revoke'],
])('T-11: %s %s', (method, path) => {
  const ask = (authorization: string | null) =>
    issuer.fetch(path, {
      method,
      headers: { 'content-type': 'application/json', ...(authorization !== null && { authorization }) },
      ...(method === 'POST' && { body: '{}' }),
    })

  test('is for administrators alone', async () => {
    for (const authorization of [null, 'Bearer x', `Bearer ${await east.token()}`])
      expect((await ask(authorization)).status).toBe(401)
    expect((await ask(`Bearer ${await alice.token(issuer)}`)).status).toBe(method === 'GET' ? 200 : 400)
  })

  test('T-11, T-24: is not for who may only read the revocations of a cluster', async () => {
    const mallory = await Administrator.create('mallory')
    const { spec, ...rest } = mallory.object as { spec: object }
    issuer = new TestIssuer(
      [east.record(), alice.object, { ...rest, spec: { ...spec, revocationsOf: 'east' } }],
      WRAPPED,
    )
    const answer = await ask(`Bearer ${await mallory.token(issuer)}`)
    expect([answer.status, ((await answer.json()) as { reason: string }).reason]).toEqual([403, 'admin_limited'])
  })

  test('knows no other method', async () => {
    const other = await issuer.fetch(path, { method: method === 'GET' ? 'POST' : 'GET' })
    expect([other.status, other.headers.get('allow')]).toEqual([405, method === 'GET' ? 'GET, HEAD' : 'POST'])
  })
})

describe('GET /admin/v1/keys', () => {
  test('D3: says what there is, and by what hash the JWKS goes that is served', async () => {
    await withSuccessor()
    const { now } = issuer.clock
    const answer = await alice.get(issuer, '/admin/v1/keys')
    expect([answer.status, answer.headers.get('cache-control')]).toEqual([200, 'no-store'])
    const key = { alg: 'ES256', keeper: 'wrapped', made: true, entry: 1, failed: null, goneAt: null }
    const said = (await answer.json()) as Report
    expect(said).toEqual({
      now: now(),
      jwks: { sha256: await sha256(await issuer.publishedJwks()) },
      signingLeaseSeconds: 240,
      defaultAlg: 'ES256',
      keys: expect.any(Array),
      authorities: [],
      problems: [],
      orphans: [],
      revoked: [],
      kms: null,
    })
    expect(said.keys.toSorted((one) => (one.phase === 'active' ? -1 : 1))).toMatchObject([
      { ...key, phase: 'active', safeAt: null, dueAt: now() - 20 + 30 * 86_400 },
      { ...key, phase: 'published', safeAt: expect.any(Number), dueAt: null },
    ])
  })

  test('style 4.9: has no private half in it, wrapped or not', async () => {
    const text = await (await alice.get(issuer, '/admin/v1/keys')).text()
    expect(text).not.toMatch(/v1\.secret|"d"|privateJwk|wrapped":|arn:/)
  })

  test('503 where the state belongs to somebody else, or does not answer', async () => {
    const { settings } = issuer.keys
    issuer.keys.settings = null
    expect((await alice.get(issuer, '/admin/v1/keys')).status).toBe(503)
    issuer.keys.settings = settings
    const silent = { keyState: () => ({ report: () => Promise.reject(new TypeError('SQLITE_FULL /secret')) }) }
    const other = new TestIssuer([east.record(), alice.object], WRAPPED, silent as never)
    const answer = await alice.get(other, '/admin/v1/keys')
    expect([answer.status, await answer.json()]).toMatchObject([503, { reason: 'keys_unavailable' }])
    expect(other.book.text).not.toContain('secret')
  })
})

describe('POST /admin/v1/keys/rotate', () => {
  test('409 until it is safe, and says when; then the next key signs', async () => {
    await withSuccessor()
    const next = await keyOf('published')
    const early = await post('/admin/v1/keys/rotate', { alg: null })
    expect([early.status, await early.json()]).toEqual([409, { error: 'not_safe_yet', safeAt: next?.safeAt }])
    expect(events('keys_rotated')).toEqual([])
    await issuer.keys.pass(4300)
    const done = await post('/admin/v1/keys/rotate', { alg: 'ES256' })
    expect([done.status, ((await done.json()) as Report).keys.find(({ phase }) => phase === 'active')?.kid]).toEqual([
      200,
      next?.kid,
    ])
    expect(events('keys_rotated')).toEqual([{ event: 'keys_rotated', admin: 'alice', use: 'jwt-svid', alg: 'ES256' }])
    const token = await east.token({ now: issuer.clock.now() })
    const { access_token } = (await (await issuer.exchange(token)).json()) as { access_token: string }
    expect((await issuer.read(access_token)).header.kid).toBe(next?.kid)
  })

  test('409 where no key is waiting', async () => {
    for (const alg of [null, 'RS256']) {
      const answer = await post('/admin/v1/keys/rotate', { alg })
      expect([answer.status, await answer.json()]).toEqual([409, { error: 'no_successor' }])
    }
  })

  test.each([{}, { alg: 'none' }, { alg: 'HS256' }, { alg: 1 }, { alg: null, force: true }, []])(
    '400 for %j',
    async (body) => {
      expect((await post('/admin/v1/keys/rotate', body)).status).toBe(400)
    },
  )
})

describe('POST /admin/v1/keys/revoke', () => {
  const revoke = async (kid: string) => {
    const answer = await post('/admin/v1/keys/revoke', { kid })
    return [answer.status, (await answer.json()) as Record<string, unknown>] as const
  }

  test('T-21: the key is gone, and for each cluster there is a token of it that should be good for nothing now', async () => {
    await withSuccessor()
    const { kid = '' } = (await keyOf('active')) ?? {}
    const keyBefore = JSON.parse(await issuer.publishedJwks()).keys.find((one: { kid: string }) => one.kid === kid)
    const now = issuer.clock.now()
    const [status, said] = await revoke(kid)
    expect([status, said]).toEqual([
      200,
      {
        kid,
        use: 'jwt-svid',
        revokedAt: now,
        signingStopsAt: now + 240,
        jwks: { sha256: await sha256(await issuer.publishedJwks()) },
        canaries: [
          { cluster: 'east', audience: 'k8s-east', token: expect.any(String) },
          { cluster: 'west', audience: 'k8s-west', token: expect.any(String) },
        ],
        canaryProblem: null,
      },
    ])
    expect(await issuer.publishedJwks()).not.toContain(kid)
    const [{ token } = { token: '' }] = said.canaries as { token: string }[]
    const [header, payload, signature] = token
      .split('.')
      .map((part) => Uint8Array.fromBase64(part, { alphabet: 'base64url' }))
    const json = (part: Uint8Array | undefined) => JSON.parse(new TextDecoder().decode(part))
    expect(json(header)).toEqual({ alg: 'ES256', kid, typ: 'JWT' })
    expect(json(payload)).toEqual({
      iss: issuer.deps.issuer,
      sub: 'spiffe://example.org/spiffe-edge/canary',
      aud: 'k8s-east',
      iat: now,
      exp: now + 3600,
      jti: expect.any(String),
    })
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
    const publicKey = await crypto.subtle.importKey('jwk', keyBefore, algorithm, false, ['verify'])
    const input = new TextEncoder().encode(token.slice(0, token.lastIndexOf('.')))
    expect(
      await crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, publicKey, signature as BufferSource, input),
    ).toBe(true)
    expect(events('key_revoked')).toEqual([{ event: 'key_revoked', admin: 'alice', kid }])
    expect(findPieceOf(token, issuer.book.text)).toBeNull()
    // What it was revoked for goes on: the next key signs.
    expect((await issuer.exchange(await east.token({ now }))).status).toBe(200)
  })

  test('again, it says the same and signs nothing any more', async () => {
    await withSuccessor()
    const { kid = '' } = (await keyOf('active')) ?? {}
    const [, first] = await revoke(kid)
    issuer.clock.advance(100)
    expect(await revoke(kid)).toEqual([200, { ...first, canaries: [] }])
  })

  test('D4: a key whose keeper is silent is revoked all the same, and it is said why there is no canary', async () => {
    await withSuccessor()
    const { kid = '' } = (await keyOf('active')) ?? {}
    vi.spyOn(issuer.deps.keyRing, 'signerOf').mockRejectedValue(new SigningError('denied'))
    const [status, said] = await revoke(kid)
    expect([status, said.canaries, said.canaryProblem]).toEqual([200, [], 'denied'])
    expect(await issuer.publishedJwks()).not.toContain(kid)
  })

  test('where nothing is left to publish, it says that it has happened', async () => {
    const { kid = '' } = (await keyOf('active')) ?? {}
    const [status, said] = await revoke(kid)
    expect([status, said.revokedAt]).toEqual([200, issuer.clock.now()])
    // The maker makes another, which signs without waiting.
    await issuer.keys.pass(20)
    await report()
    expect((await issuer.exchange(await east.token({ now: issuer.clock.now() }))).status).toBe(200)
  })

  test('404 for a key that there is none of', async () => {
    expect(await revoke('x'.repeat(43))).toEqual([404, { error: 'no_such_key' }])
  })

  test.each([
    {},
    { kid: 1 },
    { kid: '' },
    { kid: 'x' },
    { kid: `${'x'.repeat(42)}=` },
    { kid: 'x'.repeat(43), now: true },
  ])('400 for %j', async (body) => {
    expect((await post('/admin/v1/keys/revoke', body)).status).toBe(400)
    expect(events('key_revoked')).toEqual([])
  })
})
