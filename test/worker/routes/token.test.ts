/**
 * Requirements 12.7 as far as there is such a thing here: there are no browsers, so redirects, authorization codes and
 * devices are other grant types, and no clients, so any client authentication is refused.
 */

import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { RefusalReason } from '../../../worker/refusal.ts'
import { exchangeToken } from '../../../worker/routes/token.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, type TokenChange } from '../../support/cluster.ts'
import { Network } from '../../support/cluster_network.ts'
import { ISSUER, registration } from '../../support/policy.ts'
import { encodePart, findPieceOf, withSignature } from '../../support/tokens.ts'
import { exchangeRequest, type Form, JWT_TYPE, TestIssuer, TOKEN_EXCHANGE } from '../issuer.ts'

let east: FakeCluster
beforeAll(async () => {
  east = await FakeCluster.create('east', { alg: 'RS256' })
})

let network: Network
let issuer: TestIssuer
/** Of the one registered pod. */
let token: string
beforeEach(async () => {
  network = new Network()
  vi.stubGlobal('fetch', network.fetch)
  issuer = issuerOf({ audiences: ['k8s', 'https://api.example.org', 'c', 'd'], audienceCombinations: [['c', 'd']] })
  token = await east.token()
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const issuerOf = (spec: object = {}, ...more: readonly object[]) =>
  new TestIssuer([east.record(), registration('web', spec), ...more])

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly body: Record<string, unknown>
}

async function answerTo(subjectToken: string, form: Form = {}, init: RequestInit = {}, by = issuer): Promise<Answer> {
  const response = await by.exchange(subjectToken, form, init)
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, body: JSON.parse(text) }
}

/** Status, OAuth error and reason. */
async function outcome(form: Form = {}, init: RequestInit = {}, subjectToken = token): Promise<readonly unknown[]> {
  const { status, body } = await answerTo(subjectToken, form, init)
  return status === 200 ? [200] : [status, body.error, body.reason]
}

describe('TX-4: a token that is exchanged', () => {
  test('gives an SVID, what it is and how long it lives', async () => {
    const { status, headers, body } = await answerTo(token, { audience: 'k8s' })
    expect(status).toBe(200)
    expect(body).toEqual({
      access_token: expect.any(String),
      issued_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_type: 'Bearer',
      expires_in: 300,
    })
    expect(headers.get('content-type')).toMatch(/^application\/json/)
    expect([headers.get('cache-control'), headers.get('pragma')]).toEqual(['no-store', 'no-cache'])
    const { claims } = await issuer.read(body.access_token as string)
    expect(claims).toMatchObject({
      iss: ISSUER,
      sub: `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`,
      aud: 'k8s',
      exp: NOW + 300,
    })
  })

  test('D12, TX-8: gives a bearer for an API server and N_A for the rest', async () => {
    const types: unknown[] = []
    for (const audience of ['k8s', 'https://api.example.org', ['c', 'd']])
      types.push((await answerTo(token, { audience })).body.token_type)
    expect(types).toEqual(['Bearer', 'N_A', 'N_A'])
  })

  test('T-8, 12.7: gives nothing that outlives it', async () => {
    const by = issuerOf({ ttlSeconds: 3600 })
    const short = await east.token({ claims: { exp: NOW + 60 } })
    const { body } = await answerTo(short, {}, {}, by)
    expect(body.expires_in).toBe(60)
    expect((await by.read(body.access_token as string)).claims.exp).toBe(NOW + 60)
  })

  test('may be exchanged again, for another name each time', async () => {
    const jtis: unknown[] = []
    for (let times = 0; times < 3; times++) {
      const { body } = await answerTo(token, { audience: 'c' })
      jtis.push((await issuer.read(body.access_token as string)).claims.jti)
    }
    expect(new Set(jtis).size).toBe(3)
    expect(issuer.book.decisions.map(({ id }) => id).toSorted()).toEqual(jtis.toSorted())
  })
})

describe('TX-2: what may be said', () => {
  test.each<[string, Form]>([
    ['requested_token_type jwt', { requested_token_type: JWT_TYPE }],
    ['an audience', { audience: 'c' }],
    ['a resource', { audience: null, resource: 'https://api.example.org' }],
    [
      'an audience and a resource that are the same',
      { audience: 'https://api.example.org', resource: 'https://api.example.org' },
    ],
    ['two audiences that may be combined', { audience: ['c', 'd'] }],
    ['an audience twice', { audience: ['c', 'c'] }],
    ['TX-7: an unknown parameter', { foo: 'bar' }],
    ['TX-7: a client_id, which authenticates nobody', { client_id: 'x' }],
    [
      'TX-7: parameters without a value',
      { scope: '', actor_token: '', requested_token_type: '', client_secret: '', resource: '' },
    ],
  ])('%s', async (_, form) => {
    expect(await outcome({ audience: 'c', ...form })).toEqual([200])
  })

  test('T-7: no audience, where the registration has only one', async () => {
    const { status, body } = await answerTo(token, { audience: '' }, {}, issuerOf({ audiences: ['only'] }))
    expect(status).toBe(200)
    expect(body.token_type).toBe('N_A')
  })
})

describe('12.7: the request', () => {
  test('with a JSON body is refused', async () => {
    const body = JSON.stringify({ grant_type: TOKEN_EXCHANGE, subject_token: token, subject_token_type: JWT_TYPE })
    const headers = { 'content-type': 'application/json' }
    expect(await outcome({}, { body, headers })).toEqual([400, 'invalid_request', 'request_malformed'])
  })

  test('with parameters in the query is refused, also beside those of the body', async () => {
    const query = new URLSearchParams({
      grant_type: TOKEN_EXCHANGE,
      subject_token: token,
      subject_token_type: JWT_TYPE,
    })
    for (const body of [undefined, 'audience=c']) {
      const headers = { 'content-type': 'application/x-www-form-urlencoded' }
      const response = await issuer.fetch(`/token?${query}`, { method: 'POST', headers, ...(body && { body }) })
      expect(response.status).toBe(400)
      expect(await response.json()).toMatchObject({ error: 'invalid_request', reason: 'request_malformed' })
    }
  })

  test.each<[string, Form, number, string, RefusalReason]>([
    ['no grant_type', { grant_type: null }, 400, 'invalid_request', 'parameter_missing'],
    ['an empty grant_type', { grant_type: '' }, 400, 'invalid_request', 'parameter_missing'],
    ['no subject_token', { subject_token: null }, 400, 'invalid_request', 'parameter_missing'],
    ['an empty subject_token', { subject_token: '' }, 400, 'invalid_request', 'parameter_missing'],
    ['no subject_token_type', { subject_token_type: null }, 400, 'invalid_request', 'parameter_missing'],

    [
      'grant_type client_credentials',
      { grant_type: 'client_credentials' },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],
    [
      'grant_type authorization_code',
      { grant_type: 'authorization_code' },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],
    [
      'grant_type device_code',
      { grant_type: 'urn:ietf:params:oauth:grant-type:device_code' },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],
    [
      'grant_type jwt-bearer',
      { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer' },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],
    [
      'grant_type in another case',
      { grant_type: TOKEN_EXCHANGE.toUpperCase() },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],
    [
      'grant_type with a blank',
      { grant_type: `${TOKEN_EXCHANGE} ` },
      400,
      'unsupported_grant_type',
      'grant_type_unsupported',
    ],

    [
      'an unknown token type',
      { subject_token_type: 'urn:example:psat' },
      400,
      'invalid_request',
      'subject_token_type_unsupported',
    ],
    [
      'TX-3: access_token',
      { subject_token_type: 'urn:ietf:params:oauth:token-type:access_token' },
      400,
      'invalid_request',
      'subject_token_type_unsupported',
    ],
    [
      'TX-3: id_token',
      { subject_token_type: 'urn:ietf:params:oauth:token-type:id_token' },
      400,
      'invalid_request',
      'subject_token_type_unsupported',
    ],
    [
      'a token type in another case',
      { subject_token_type: JWT_TYPE.toUpperCase() },
      400,
      'invalid_request',
      'subject_token_type_unsupported',
    ],
    [
      'another requested type',
      { requested_token_type: 'urn:ietf:params:oauth:token-type:access_token' },
      400,
      'invalid_request',
      'requested_token_type_unsupported',
    ],

    [
      'an actor_token_type without actor_token',
      { actor_token_type: JWT_TYPE },
      400,
      'invalid_request',
      'actor_token_unsupported',
    ],
    [
      'an actor_token without actor_token_type',
      { actor_token: 'x' },
      400,
      'invalid_request',
      'actor_token_unsupported',
    ],
    ['both', { actor_token: 'x', actor_token_type: JWT_TYPE }, 400, 'invalid_request', 'actor_token_unsupported'],

    [
      'a repeated grant_type',
      { grant_type: [TOKEN_EXCHANGE, TOKEN_EXCHANGE] },
      400,
      'invalid_request',
      'parameter_repeated',
    ],
    ['a repeated subject_token', { subject_token: ['a', 'b'] }, 400, 'invalid_request', 'parameter_repeated'],
    [
      'a repeated subject_token_type',
      { subject_token_type: [JWT_TYPE, JWT_TYPE] },
      400,
      'invalid_request',
      'parameter_repeated',
    ],
    ['a repeated client_assertion', { client_assertion: ['a', 'b'] }, 400, 'invalid_request', 'parameter_repeated'],
    [
      'a repeated requested_token_type',
      { requested_token_type: [JWT_TYPE, JWT_TYPE] },
      400,
      'invalid_request',
      'parameter_repeated',
    ],

    [
      'a client_secret',
      { client_id: 'x', client_secret: 'y' },
      401,
      'invalid_client',
      'client_authentication_unsupported',
    ],
    [
      'a client assertion',
      { client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: 'a' },
      401,
      'invalid_client',
      'client_authentication_unsupported',
    ],
    [
      'a client assertion of type jwt-spiffe',
      { client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe', client_assertion: 'a' },
      401,
      'invalid_client',
      'client_authentication_unsupported',
    ],
    [
      'two client authentication methods',
      { client_secret: 'y', client_assertion: 'a' },
      401,
      'invalid_client',
      'client_authentication_unsupported',
    ],
    ['a scope', { scope: 'openid' }, 400, 'invalid_scope', 'scope_unsupported'],

    ['an unknown audience', { audience: 'unknown' }, 400, 'invalid_target', 'target_not_allowed'],
    ['an unknown resource', { resource: 'https://unknown.example' }, 400, 'invalid_target', 'target_not_allowed'],
    [
      'an audience that is known, and one that is not',
      { audience: ['c', 'unknown'] },
      400,
      'invalid_target',
      'target_not_allowed',
    ],
    ['two audiences that may not be combined', { audience: ['c', 'k8s'] }, 400, 'invalid_target', 'target_not_allowed'],
    [
      'an audience and a resource that may not be',
      { audience: 'c', resource: 'https://api.example.org' },
      400,
      'invalid_target',
      'target_not_allowed',
    ],
    ['an audience that differs in case', { audience: 'K8S' }, 400, 'invalid_target', 'target_not_allowed'],
    ['an audience of spiffe-edge itself', { audience: `${ISSUER}/admin` }, 400, 'invalid_target', 'target_not_allowed'],
    [
      '17 audiences',
      { audience: Array.from({ length: 17 }, (_, index) => `a${index}`) },
      400,
      'invalid_target',
      'target_not_allowed',
    ],
    ['no audience where there are several', {}, 400, 'invalid_target', 'target_missing'],
    [
      'a resource with a fragment',
      { resource: 'https://api.example.org#x' },
      400,
      'invalid_target',
      'target_malformed',
    ],
    [
      'a resource with an empty fragment',
      { resource: 'https://api.example.org#' },
      400,
      'invalid_target',
      'target_malformed',
    ],
    ['a relative resource', { resource: '/orders' }, 400, 'invalid_target', 'target_malformed'],
    ['a resource without a scheme', { resource: '//api.example.org' }, 400, 'invalid_target', 'target_malformed'],
    ['a resource that is only a scheme', { resource: 'https:' }, 400, 'invalid_target', 'target_malformed'],
    ['a resource with a blank', { resource: 'https://api.example.org /' }, 400, 'invalid_target', 'target_malformed'],
    [
      'one good resource and one bad',
      { resource: ['https://api.example.org', 'x'] },
      400,
      'invalid_target',
      'target_malformed',
    ],
  ])('%s: %j', async (_, form, status, error, reason) => {
    expect(await outcome(form)).toEqual([status, error, reason])
  })

  test('OE-2: the Authorization header is refused, and the challenge is for the scheme that was tried', async () => {
    for (const scheme of ['Bearer', 'Basic']) {
      const { status, headers, body } = await answerTo(token, {}, { headers: { authorization: `${scheme} eDp5` } })
      expect([status, body.error]).toEqual([401, 'invalid_client'])
      expect(headers.get('www-authenticate')).toMatch(new RegExp(`^${scheme}\\b`))
    }
  })

  test('that is too large is 413', async () => {
    expect(await outcome({ padding: 'x'.repeat(65_536) })).toEqual([413, 'invalid_request', 'request_too_large'])
  })
})

/** A subject token with something wrong, and why it is refused. */
const BAD_TOKENS: readonly (readonly [string, TokenChange, RefusalReason])[] = [
  ['expired', { claims: { exp: NOW - 1, iat: NOW - 3607 } }, 'token_expired'],
  ['of a wrong issuer', { claims: { iss: 'https://north.example.org' } }, 'token_issuer'],
  ['for a wrong audience', { claims: { aud: ['https://kubernetes.default.svc'] } }, 'token_audience'],
  ['not valid yet', { claims: { nbf: NOW + 3600 } }, 'token_not_yet_valid'],
  ['of an unknown key', { header: { kid: 'a-kid-that-nobody-knows' } }, 'token_key'],
  ['with alg none', { header: { alg: 'none' } }, 'token_algorithm'],
  ['with a jku', { header: { jku: 'https://evil.example/keys' } }, 'token_header'],
  ['with two subs', { claims: '{"sub":"system:serviceaccount:a:b","sub":"c"}' }, 'token_malformed'],
  ['that contradicts itself', { kubernetes: { namespace: 'another-namespace' } }, 'token_claims'],
  ['that lives a year', { claims: { exp: NOW + 365 * 86_400 } }, 'token_lifetime'],
  ['bound to no pod', { kubernetes: { pod: undefined } }, 'token_unbound'],
  ['of 17 KiB', { claims: { padding: 'padding-'.repeat(2200) } }, 'token_too_large'],
]

describe('TX-5, 12.7: a subject token that is invalid for whatever reason is an invalid_request', () => {
  test.each(BAD_TOKENS)('%s', async (_, change, reason) => {
    expect(await outcome({ audience: 'c' }, {}, await east.token(change))).toEqual([400, 'invalid_request', reason])
  })

  test('with a bad signature', async () => {
    const bad = withSignature(token, (octets) => octets.toReversed())
    expect(await outcome({ audience: 'c' }, {}, bad)).toEqual([400, 'invalid_request', 'token_signature'])
  })

  test('of a pod that nobody registered', async () => {
    const stranger = await east.tokenOf('other', 'other')
    expect(await outcome({ audience: 'c' }, {}, stranger)).toEqual([400, 'invalid_request', 'registration_none'])
  })

  test('an own SVID, to get a wider audience', async () => {
    const { body } = await answerTo(token, { audience: 'c' })
    for (const audience of ['c', 'd', 'k8s'])
      expect(await outcome({ audience }, {}, body.access_token as string)).toEqual([
        400,
        'invalid_request',
        'token_issuer',
      ])
  })
})

describe('our own trouble is 503, and says when to come again', () => {
  test("a cluster's keys that cannot be had", async () => {
    const by = new TestIssuer([east.record({ jwks: { discovery: true } }), registration('web')])
    const { status, body, headers } = await answerTo(token, {}, {}, by)
    expect([status, body.error, body.reason, headers.get('retry-after')]).toEqual([
      503,
      'temporarily_unavailable',
      'cluster_keys_unavailable',
      '5',
    ])
  })

  test('a signing key that cannot be had', async () => {
    const by = new TestIssuer([east.record(), registration('web', { alg: 'PS512' })])
    const { status, body, headers } = await answerTo(token, {}, {}, by)
    expect([status, body.reason, headers.has('retry-after')]).toEqual([503, 'signing_unavailable', true])
  })

  test('whatever else goes wrong is 500 and a line in the log, with nothing of the error but its name', async () => {
    const attest = async () => {
      throw new RangeError(`no such thing: ${token}`)
    }
    const by = new TestIssuer(
      [east.record(), registration('web')],
      {},
      { policyRing: { current: async () => ({ attestors: { attest } }) } as never },
    )
    const { status, text, body } = await answerTo(token, {}, {}, by)
    expect([status, body.error, body.reason]).toEqual([500, 'server_error', 'internal'])
    expect(by.book.decisions).toMatchObject([{ decision: 'refused', reason: 'internal', detail: 'RangeError' }])
    expect(findPieceOf(token, text + by.book.text)).toBeNull()
  })
})

describe('style 4.10: one line in the log for one decision', () => {
  test('for an SVID, under the name that it has in the token', async () => {
    const { body } = await answerTo(token, { audience: 'c' })
    const { claims } = await issuer.read(body.access_token as string)
    expect(issuer.book.events).toEqual([
      expect.objectContaining({
        event: 'decision',
        decision: 'issued',
        id: claims.jti,
        registration: 'web',
        spiffe_id: claims.sub,
        audience: 'c',
        expires: claims.exp,
      }),
    ])
  })

  test.each<[string, Form, RequestInit]>([
    ['a body that is no form', {}, { headers: { 'content-type': 'text/plain' } }],
    ['a missing parameter', { subject_token: null }, {}],
    ['a repeated parameter', { grant_type: ['a', 'b'] }, {}],
    ['a body that is too large', { padding: 'x'.repeat(65_536) }, {}],
    ['client authentication', {}, { headers: { authorization: 'Bearer x' } }],
    ['an unknown audience', { audience: 'unknown' }, {}],
    ['no audience', {}, {}],
    ['a token that is none', { subject_token: 'x' }, {}],
  ])('for %s, under the name that the caller is told', async (_, form, init) => {
    const { status, body } = await answerTo(token, form, init)
    expect(status).toBeGreaterThanOrEqual(400)
    expect(issuer.book.events).toEqual([
      expect.objectContaining({ event: 'decision', decision: 'refused', id: body.id, reason: body.reason }),
    ])
  })

  test.each(BAD_TOKENS)('for a token %s', async (_, change, reason) => {
    const { body } = await answerTo(await east.token(change), { audience: 'c' })
    expect(issuer.book.events).toEqual([
      expect.objectContaining({ event: 'decision', decision: 'refused', id: body.id, reason }),
    ])
  })

  test('for each of many at once', async () => {
    const form = (index: number) => ({ audience: index % 2 ? 'c' : 'unknown' })
    await Promise.all(Array.from({ length: 20 }, (_, index) => answerTo(token, form(index))))
    expect(issuer.book.decisions).toHaveLength(20)
    expect(issuer.book.decisions.filter(({ decision }) => decision === 'issued')).toHaveLength(10)
  })

  test('no SVID leaves without its line', async () => {
    const log = () => {
      throw new Error('disk full')
    }
    const request = exchangeRequest(`${ISSUER}/token`, token, { audience: 'c' })
    await expect(exchangeToken(request, { ...issuer.deps, log })).rejects.toThrow('disk full')
  })
})

describe('style 4.9: nothing of a token or a claim gets out', () => {
  /** What only the claims of the token say. */
  const secrets = [
    POD.namespace,
    POD.serviceAccount.name,
    POD.pod.name,
    POD.pod.uid,
    POD.node.name,
    '0a1b2c3d-token-id',
    'another-namespace',
    'padding-',
  ]

  test.each(BAD_TOKENS)('of one %s, to the caller or the log', async (_, change) => {
    const bad = await east.token(change)
    const { text } = await answerTo(bad, { audience: 'c' })
    for (const place of [text, issuer.book.text]) {
      expect(findPieceOf(bad, place)).toBeNull()
      for (const secret of secrets) expect(place).not.toContain(secret)
    }
  })

  test.each<[string, Form]>([
    ['as a token of another type', { subject_token_type: 'urn:example' }],
    ['beside a parameter that is wrong', { scope: 'x' }],
    ['beside an audience that is wrong', { audience: 'unknown' }],
    ['in the place of the audience', { audience: '@token' }],
    ['in the place of the resource', { resource: '@token' }],
    ['in the place of the scope', { scope: '@token' }],
    ['in the place of the grant type', { grant_type: '@token' }],
    ['in the place of the token type', { subject_token_type: '@token' }],
    ['as an actor token', { actor_token: '@token' }],
    ['as a client assertion', { client_assertion: '@token' }],
    ['as a client_id twice', { client_id: ['@token', '@token'] }],
    ['with something before it', { subject_token: 'Bearer @token' }],
    ['cut in half', { subject_token: '@half' }],
  ])('of one that is sent %s', async (_, form) => {
    const put = (value: string) => value.replace('@token', token).replace('@half', token.slice(0, 300))
    const filled = Object.fromEntries(
      Object.entries(form).map(([name, value]) => [name, Array.isArray(value) ? value.map(put) : put(value as string)]),
    )
    const { status, text } = await answerTo(token, filled)
    expect(status).toBeGreaterThanOrEqual(400)
    expect(findPieceOf(token, text + issuer.book.text)).toBeNull()
  })

  test('of one that is good: the log has the pod that was attested, and neither token', async () => {
    const { body } = await answerTo(token, { audience: 'c' })
    for (const one of [token, body.access_token as string]) expect(findPieceOf(one, issuer.book.text)).toBeNull()
    expect(issuer.book.text).toContain(POD.pod.name)
    expect(issuer.book.text).not.toContain('0a1b2c3d-token-id')
  })
})

describe('whatever is sent', () => {
  const piece = fc.oneof(
    fc.constantFrom('.', '=', ' ', '\0', '"', '\\', '\n', 'ä', 'eyJ', '{}', 'https://x', '#'),
    fc.string({ maxLength: 6 }),
  )
  const text = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''))

  /** Nothing is 500, nothing is issued, and what is said is fit to be said. */
  async function expectRefusal(subjectToken: string, form: Form = {}): Promise<void> {
    const { status, body } = await answerTo(subjectToken, form)
    expect([400, 401, 413]).toContain(status)
    expect(body.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/)
    expect(Object.keys(body)).toEqual(['error', 'error_description', 'reason', 'id'])
  }

  test('as parameters: is refused as what it is', async () => {
    const value = fc.oneof(fc.constant(null), text, fc.array(text, { maxLength: 3 }))
    const forms = fc.record({
      grant_type: fc.oneof({ weight: 4, arbitrary: fc.constant(TOKEN_EXCHANGE) }, text),
      subject_token: value,
      subject_token_type: fc.oneof({ weight: 4, arbitrary: fc.constant(JWT_TYPE) }, text),
      audience: value,
      resource: value,
    })
    await fc.assert(
      fc.asyncProperty(forms, async (form) => expectRefusal('', form)),
      { numRuns: 150 },
    )
  })

  test('as a token: is refused as what it is', async () => {
    const { alg, kid } = east.key
    const header = fc.oneof(
      { weight: 3, arbitrary: fc.constant(JSON.stringify({ alg, kid })) },
      fc
        .record({ alg: fc.oneof(fc.constant(alg), fc.jsonValue()), kid: fc.oneof(fc.constant(kid), fc.jsonValue()) })
        .map((one) => JSON.stringify(one)),
      text,
    )
    const payload = fc.oneof(
      text,
      fc.jsonValue().map((one) => JSON.stringify(one)),
      fc
        .record({ iss: fc.constant(east.issuer), aud: fc.oneof(fc.constant('spiffe-edge'), fc.jsonValue()) })
        .map((one) => JSON.stringify(one)),
    )
    const tokens = fc.tuple(header, payload, text).map((parts) => parts.map((part) => encodePart(part)).join('.'))
    await fc.assert(
      fc.asyncProperty(tokens, async (one) => expectRefusal(one)),
      { numRuns: 150 },
    )
    expect(network.requests).toEqual([])
  })

  test('as claims, even with a good signature: is refused as what it is', async () => {
    const usual = east.claims() as Record<string, unknown>
    const inner = usual['kubernetes.io'] as Record<string, unknown>
    const wrong = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>('', 0, -1, 1e21, null, [], {}, '../x', '__proto__'))
    const spoilt = fc.oneof(
      fc
        .tuple(fc.constantFrom('iss', 'sub', 'exp', 'iat', 'kubernetes.io'), wrong)
        .map(([name, value]) => ({ ...usual, [name]: value })),
      fc
        .tuple(fc.constantFrom('namespace', 'serviceaccount', 'pod'), wrong)
        .map(([name, value]) => ({ ...usual, 'kubernetes.io': { ...inner, [name]: value } })),
    )
    await fc.assert(
      fc.asyncProperty(spoilt, async (claims) => {
        await expectRefusal(await east.token({ claims: JSON.stringify(claims) }), { audience: 'c' })
      }),
      { numRuns: 100 },
    )
  })
})

describe('T-4, T-14: what a registration adds', () => {
  const both = () =>
    new TestIssuer([
      east.record(),
      registration('one', { spiffeID: 'spiffe://example.org/one', claims: { tier: 'gold', constructor: 'x' } }),
      registration('other', { spiffeID: 'spiffe://example.org/other', hint: 'db client', claims: { tier: 'lead' } }),
    ])

  test('its claims are in the token, and what is the token’s own is not theirs to say', async () => {
    const by = both()
    const { status, body } = await answerTo(token, { spiffe_id: 'spiffe://example.org/one' }, {}, by)
    expect(status).toBe(200)
    expect((await by.read(body.access_token as string)).claims).toEqual({
      tier: 'gold',
      constructor: 'x',
      iss: ISSUER,
      sub: 'spiffe://example.org/one',
      aud: 'k8s',
      iat: NOW,
      exp: NOW + 300,
      jti: by.book.decisions[0]?.id,
    })
  })

  test('its hint is in the answer, where it has one', async () => {
    const by = both()
    const hint = async (path: string) =>
      (await answerTo(token, { spiffe_id: `spiffe://example.org${path}` }, {}, by)).body.hint
    expect([await hint('/one'), await hint('/other')]).toEqual([undefined, 'db client'])
  })

  test.each([
    [null, 'registration_ambiguous'],
    ['', 'registration_ambiguous'],
    ['spiffe://example.org/third', 'spiffe_id_not_allowed'],
    ['spiffe://example.org/one spiffe://example.org/other', 'spiffe_id_not_allowed'],
  ])('T-4: spiffe_id %j is %s', async (spiffeId, reason) => {
    const { status, body } = await answerTo(token, { spiffe_id: spiffeId }, {}, both())
    expect([status, body.error, body.reason]).toEqual([400, 'invalid_request', reason])
  })

  test('TX-7: and is given once', async () => {
    const ids = ['spiffe://example.org/one', 'spiffe://example.org/other']
    expect((await answerTo(token, { spiffe_id: ids }, {}, both())).body.reason).toBe('parameter_repeated')
  })

  test('a registration for certificates gives no token', async () => {
    const by = new TestIssuer([east.record(), registration('web', { svidType: 'X509', audiences: [] })])
    expect((await answerTo(token, {}, {}, by)).body.reason).toBe('svid_type_not_allowed')
  })
})
