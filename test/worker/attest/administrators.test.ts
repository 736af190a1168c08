import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { thumbprint } from '../../../keys/jwks.ts'
import { Administrators } from '../../../worker/attest/administrators.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { Clock, NOW } from '../../support/clock.ts'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { json, Network } from '../../support/cluster_network.ts'
import { ISSUER, policyOf, registration } from '../../support/policy.ts'
import {
  encodePart,
  findPieceOf,
  makeTokenKey,
  signToken,
  signTokenWithPublicKey,
  spoiledEcdsaSignatures,
  type TokenKey,
  withSignature,
} from '../../support/tokens.ts'
import { Background, LogBook, TestIssuer } from '../issuer.ts'

const AUDIENCE = `${ISSUER}/admin`
const IDP = 'https://idp.example.com'
const TUPLE = { issuer: IDP, audience: 'edge-admin', subject: 'carol' }

let alice: TokenKey
let bob: TokenKey
let stranger: TokenKey
let idp: TokenKey
let aliceKid: string
let bobKid: string
beforeAll(async () => {
  ;[alice, bob, stranger, idp] = await Promise.all([
    makeTokenKey('ES256'),
    makeTokenKey('ES256'),
    makeTokenKey('ES256'),
    makeTokenKey('RS256'),
  ])
  ;[aliceKid, bobKid] = await Promise.all([thumbprint(alice.publicJwk), thumbprint(bob.publicJwk)])
})

let network: Network
let clock: Clock
let book: LogBook
let background: Background
beforeEach(() => {
  network = new Network()
  clock = new Clock()
  book = new LogBook()
  background = new Background()
  vi.stubGlobal('fetch', network.fetch)
  network.serve(`${IDP}/.well-known/openid-configuration`, json({ issuer: IDP, jwks_uri: `${IDP}/keys` }))
  network.serve(`${IDP}/keys`, json({ keys: [idp.publicJwk] }))
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const admin = (name: string, spec: object) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Admin',
  metadata: { name },
  spec,
})
const byKey = (name: string, { publicJwk }: TokenKey) => {
  const { kty, crv, x, y } = publicJwk
  return admin(name, { publicKey: { kty, crv, x, y } })
}

function administrators(...objects: readonly object[]): Administrators {
  const all =
    objects.length > 0 ? objects : [byKey('alice', alice), byKey('bob', bob), admin('carol', { token: TUPLE })]
  return new Administrators(policyOf(...all).admins, ISSUER, {
    now: clock.now,
    waitUntil: background.waitUntil,
    log: book.log,
    allowLoopbackHttp: false,
  })
}

/** What the command line signs for alice. */
const claims = () => ({ iss: 'alice', sub: 'alice', aud: AUDIENCE, iat: NOW, exp: NOW + 300 })
const own = (change: object = {}, header: object = {}, key = alice) =>
  signToken({ alg: 'ES256', kid: aliceKid, ...header }, { ...claims(), ...change }, key)

/** What the identity provider signs for carol. */
const theirs = (change: object = {}, header: object = {}, key = idp) =>
  signToken(
    { alg: 'RS256', kid: idp.kid, ...header },
    { iss: IDP, sub: 'carol', aud: 'edge-admin', iat: NOW, exp: NOW + 3600, ...change },
    key,
  )

/** @returns the name, or the reason of the refusal */
async function verdict(token: string, by = administrators(), now = NOW): Promise<string> {
  try {
    return await by.authenticate(token, now)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    expect(findPieceOf(token, `${error.message} ${error.detail}`)).toBeNull()
    return `refused: ${error.reason}`
  }
}
const REFUSED = 'refused: admin_token'

describe('T-11: an administrator with a key of their own', () => {
  test('is known by it', async () => {
    expect(await verdict(await own())).toBe('alice')
    expect(await verdict(await own({ iss: 'bob', sub: 'bob' }, { kid: bobKid }, bob))).toBe('bob')
  })

  test.each<[string, object]>([
    ['the longest life', { exp: NOW + 600 }],
    ['the greatest age', { iat: NOW - 599, exp: NOW + 1 }],
    ['a clock that is a little ahead', { iat: NOW + 30, exp: NOW + 330 }],
    ['an audience in a list', { aud: [AUDIENCE] }],
    ['a typ', {}],
  ])('may have %s', async (_, change) => {
    expect(await verdict(await own(change, { typ: 'JWT' }))).toBe('alice')
  })

  test.each<[string, object, object?]>([
    ['another audience', { aud: 'other' }],
    ['the issuer itself as audience', { aud: ISSUER }],
    ['an audience that goes on', { aud: `${AUDIENCE}/x` }],
    ['a second audience', { aud: [AUDIENCE, 'https://vault.example.org'] }],
    ['the same audience twice', { aud: [AUDIENCE, AUDIENCE] }],
    ['an empty list of audiences', { aud: [] }],
    ['no audience', { aud: undefined }],
    ['an audience that is no text', { aud: [7] }],
    ['the name of another', { iss: 'bob', sub: 'bob' }],
    ['the subject of another', { sub: 'bob' }],
    ['the issuer of another', { iss: 'bob' }],
    ['the name of nobody', { iss: 'mallory', sub: 'mallory' }],
    ['no subject', { sub: undefined }],
    ['no issuer', { iss: undefined }],
    ['a subject that is no text', { sub: ['alice'] }],
    ['a name that an object has by itself', { iss: '__proto__', sub: '__proto__' }],
    ['the kid of another', {}, { kid: 'x' }],
    ['no kid', {}, { kid: undefined }],
    ['an age of 601 s', { iat: NOW - 601, exp: NOW - 1 }],
    ['an age of 601 s that is not over', { iat: NOW - 601, exp: NOW + 600 }],
    ['a life of 601 s', { exp: NOW + 601 }],
    ['a life of 601 s, most of which is over', { iat: NOW - 599, exp: NOW + 2 }],
    ['a beginning in the future', { iat: NOW + 31, exp: NOW + 331 }],
    ['no beginning', { iat: undefined }],
    ['a beginning that is no number', { iat: String(NOW) }],
    ['an end that has come', { iat: NOW - 300, exp: NOW }],
    ['no end', { exp: undefined }],
    ['an end that is no number', { exp: 'never' }],
    ['a later nbf', { nbf: NOW + 31 }],
    ['a crit', {}, { crit: ['exp'] }],
    ['a key of its own in the header', {}, { jwk: {} }],
    ['a place for keys in the header', {}, { jku: 'https://evil.example/keys' }],
    ['the typ of another sort of token', {}, { typ: 'at+jwt' }],
    ['a claim that looks like another', { SUB: 'bob' }],
  ])('may not have %s', async (_, change, header) => {
    expect(await verdict(await own(change, header))).toBe(REFUSED)
  })

  test.each<[string, () => Promise<string> | string]>([
    ['signed by nobody we know', () => own({}, {}, stranger)],
    ['signed by another administrator', () => own({}, {}, bob)],
    ['signed by another administrator, with the kid of that one', () => own({}, { kid: bobKid }, bob)],
    ['of no algorithm', async () => `${encodePart({ alg: 'none', kid: aliceKid })}.${encodePart(claims())}.`],
    ['of an empty signature', async () => `${(await own()).split('.').slice(0, 2).join('.')}.AA`],
    ['with the public key as a secret', () => signTokenWithPublicKey({ alg: 'HS256', kid: aliceKid }, claims(), alice)],
    ['of another algorithm in the header', () => own({}, { alg: 'ES384' })],
    ['of another family in the header', () => own({}, { alg: 'RS256' })],
    [
      'of another payload',
      async () => {
        const [header, , signature] = (await own()).split('.')
        return `${header}.${encodePart({ ...claims(), exp: NOW + 301 })}.${signature}`
      },
    ],
    [
      'with a member twice',
      () => signToken({ alg: 'ES256', kid: aliceKid }, `{"sub":"bob",${JSON.stringify(claims()).slice(1)}`, alice),
    ],
    ['that is none', () => 'x'],
    ['that is empty', () => ''],
    ['that is too large', () => own({ x: 'x'.repeat(20_000) })],
  ])('12.2: a token %s is refused', async (_, make) => {
    expect(await verdict(await make())).toBe(REFUSED)
  })

  test.each(Object.entries(spoiledEcdsaSignatures))('a signature %s is refused', async (_, spoil) => {
    expect(await verdict(withSignature(await own(), spoil))).toBe(REFUSED)
  })

  test('T-11: is nobody where the manifest names none, whatever the token', async () => {
    const nobody = new Administrators([], ISSUER, {
      now: clock.now,
      waitUntil: background.waitUntil,
      log: book.log,
      allowLoopbackHttp: false,
    })
    for (const token of [await own(), await theirs(), 'x', null])
      expect(await nobody.authenticate(token, NOW).catch((error: Refusal) => error.reason)).toBe('admin_none')
  })

  test('no token is no administrator', async () => {
    await expect(administrators().authenticate(null, NOW)).rejects.toMatchObject({ reason: 'admin_token' })
  })

  test('T-11: a key is fetched for nobody of them', async () => {
    for (const token of [await own(), await own({}, { kid: 'x' }), await own({}, {}, stranger)]) await verdict(token)
    expect(network.requests).toEqual([])
  })
})

describe('T-11: an administrator of an identity provider', () => {
  test('is one issuer, audience and subject, whose keys are found by discovery', async () => {
    expect(await verdict(await theirs())).toBe('carol')
    expect(network.requests).toEqual([`${IDP}/.well-known/openid-configuration`, `${IDP}/keys`])
  })

  test.each<[string, object]>([
    ['another subject', { sub: 'dave' }],
    ['a subject in another case', { sub: 'Carol' }],
    ['no subject', { sub: undefined }],
    ['another audience', { aud: 'other' }],
    ['our own audience', { aud: AUDIENCE }],
    ['a second audience', { aud: ['edge-admin', 'other'] }],
    ['another issuer', { iss: 'https://evil.example' }],
    ['the issuer with a slash', { iss: `${IDP}/` }],
    ['the name of the administrator as issuer', { iss: 'carol' }],
    ['an age of 601 s, though the provider takes it for good', { iat: NOW - 601 }],
    ['no beginning', { iat: undefined }],
    ['an end that has come', { iat: NOW - 1, exp: NOW }],
    ['a beginning in the future', { iat: NOW + 31 }],
  ])('has not %s', async (_, change) => {
    expect(await verdict(await theirs(change))).toBe(REFUSED)
    expect(network.requests).toEqual([])
  })

  test('is not who has the key of another administrator, or any other', async () => {
    expect(await verdict(await theirs({}, { alg: 'ES256', kid: aliceKid }, alice))).toBe(REFUSED)
    expect(await verdict(await theirs({}, { alg: 'ES256' }, alice))).toBe(REFUSED)
    expect(await verdict(await signTokenWithPublicKey({ alg: 'HS256', kid: idp.kid }, {}, idp))).toBe(REFUSED)
  })

  test('has nothing of a key that stands for another administrator', async () => {
    expect(await verdict(await theirs({ iss: 'alice', sub: 'alice', aud: AUDIENCE, exp: NOW + 300 }))).toBe(REFUSED)
  })

  test('forged tokens cause one fetch in 30 s at most', async () => {
    const by = administrators()
    expect(await verdict(await theirs(), by)).toBe('carol')
    for (let index = 0; index < 10; index++)
      expect(await verdict(await theirs({}, { kid: `forged-${index}` }, stranger), by)).toBe(REFUSED)
    expect(network.requests).toHaveLength(2)
    clock.advance(30)
    for (let index = 0; index < 10; index++) await verdict(await theirs({}, { kid: `forged-${index}` }), by)
    expect(network.requests).toHaveLength(4)
  })

  test('is told to come again while the provider can’t be reached, and the others are who they are', async () => {
    network.serve(`${IDP}/keys`, () => new Response(null, { status: 500 }))
    const by = administrators()
    expect(await verdict(await theirs(), by)).toBe('refused: cluster_keys_unavailable')
    expect(await verdict(await own(), by)).toBe('alice')
  })

  test('of two of one provider, each is their own', async () => {
    const by = administrators(admin('carol', { token: TUPLE }), admin('dave', { token: { ...TUPLE, subject: 'dave' } }))
    expect([await verdict(await theirs(), by), await verdict(await theirs({ sub: 'dave' }), by)]).toEqual([
      'carol',
      'dave',
    ])
    expect(network.requests).toHaveLength(2)
  })
})

describe('T-13: an administrator for the revocations of one cluster', () => {
  const limited = (object: object) => {
    const { spec } = object as { spec: object }
    return { ...object, spec: { ...spec, revocationsOf: 'east' } }
  }
  const all = () =>
    administrators(limited(byKey('alice', alice)), byKey('bob', bob), limited(admin('carol', { token: TUPLE })))
  const at = (token: string, cluster: string | null) =>
    all()
      .authenticate(token, NOW, cluster)
      .catch((error: Refusal) => error.reason)

  test.each<[string, () => Promise<string>]>([
    ['alice', () => own()],
    ['carol', () => theirs()],
  ])('%s is taken there, and for nothing else', async (name, token) => {
    expect(await at(await token(), 'east')).toBe(name)
    for (const cluster of ['west', 'EAST', '', 'east ']) expect(await at(await token(), cluster)).toBe('admin_limited')
    expect(await at(await token(), null)).toBe('admin_limited')
    expect(await verdict(await token(), all())).toBe('refused: admin_limited')
  })

  test('is told so only when it is known who it is', async () => {
    for (const token of [await own({}, {}, stranger), await own({ exp: NOW }), await theirs({}, {}, stranger)])
      for (const cluster of ['east', 'west', null]) expect(await at(token, cluster)).toBe('admin_token')
  })

  test('leaves the others what they may do', async () => {
    const token = await own({ iss: 'bob', sub: 'bob' }, { kid: bobKid }, bob)
    for (const cluster of ['east', 'west', null]) expect(await at(token, cluster)).toBe('bob')
  })
})

describe('T-6, T-11: a token for one door is good at no other', () => {
  test('our own SVIDs and the tokens of clusters are no administrators', async () => {
    const east = await FakeCluster.create('east')
    const issuer = new TestIssuer([east.record(), registration('web'), byKey('alice', alice)])
    const body = (await (await issuer.exchange(await east.token())).json()) as { access_token: string }
    for (const token of [body.access_token, await east.token()]) {
      const headers = { authorization: `Bearer ${token}` }
      expect((await issuer.fetch('/admin/v1/objects', { headers })).status).toBe(401)
    }
  })

  test('a cluster can make no administrator, even if it signs what one would say', async () => {
    const east = await FakeCluster.create('east', { issuer: 'alice', audience: 'edge' })
    const issuer = new TestIssuer([east.record(), registration('web'), byKey('alice', alice)])
    const token = await east.token({ claims: claims() })
    const headers = { authorization: `Bearer ${token}` }
    expect((await issuer.fetch('/admin/v1/objects', { headers })).status).toBe(401)
  })

  test('an administrator’s token is no subject token, even where a cluster is called as they are', async () => {
    const east = await FakeCluster.create('east', { issuer: 'alice' })
    const issuer = new TestIssuer([east.record(), registration('web'), byKey('alice', alice)])
    const pod = { 'kubernetes.io': east.claims()['kubernetes.io'] }
    const sub = `system:serviceaccount:${POD.namespace}:${POD.serviceAccount.name}`
    for (const [change, reason] of [
      [{}, 'token_audience'],
      [{ ...pod, sub, aud: 'spiffe-edge' }, 'token_key'],
    ] as const) {
      const answer = await issuer.exchange(await own(change))
      expect([answer.status, ((await answer.json()) as { reason: string }).reason]).toEqual([400, reason])
    }
    const elsewhere = new TestIssuer([
      registration('web', { clusters: ['north'] }),
      (await FakeCluster.create('north')).record(),
    ])
    expect(await (await elsewhere.exchange(await own())).json()).toMatchObject({ reason: 'token_issuer' })
  })
})
