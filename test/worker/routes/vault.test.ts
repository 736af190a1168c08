/** Requirements 10.5 and 12.10: what Vault's clients are answered when they log in, with a whole issuer around it. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, type TokenChange } from '../../support/cluster.ts'
import { findPieceOf, makeTokenKey } from '../../support/tokens.ts'
import { KUBERNETES_HOST, type VaultResponse, VaultWorld, vaultObject } from '../vault_client.ts'

const AUDIENCE = 'invalid audience (aud) claim: audience claim does not match any expected audience'
const DENIED = 'permission denied'

let east: FakeCluster
let west: FakeCluster
beforeAll(async () => {
  ;[east, west] = await Promise.all([FakeCluster.create('east'), FakeCluster.create('west')])
})

let world: VaultWorld
beforeEach(async () => {
  world = await VaultWorld.create(east)
})

/** @returns the status and the one text, having looked whether the answer or the log repeats the token */
function said({ status, body }: VaultResponse, jwt: string): readonly unknown[] {
  expect(Object.keys(body)).toEqual(['errors'])
  expect(findPieceOf(jwt, JSON.stringify(body) + world.issuer.book.text)).toBeNull()
  return [status, ...body.errors]
}

/** The reason that the operator finds under the answer's request id (pain 30). */
function reasonOf({ headers }: VaultResponse): unknown {
  const id = headers.get('x-request-id')
  return world.issuer.book.decisions.find((decision) => decision.id === id)?.reason
}

/** What each TokenReview was about. */
function audiencesAsked(): unknown[] {
  return world.api.reviews.map(({ body }) => (body as { spec: { audiences?: unknown } }).spec.audiences)
}

describe('VL-3: a login', () => {
  test.each(['POST', 'PUT'])('by %s is answered with everything that Vault answers', async (method) => {
    await world.setUp({ token_policies: 'Web, app', token_ttl: '20m', token_num_uses: 5 })
    const { status, body } = await world.ask(method, 'auth/kubernetes/login', { role: 'demo', jwt: await east.token() })
    expect(status).toBe(200)
    const { auth, request_id, ...envelope } = body
    expect(envelope).toEqual({
      lease_id: '',
      renewable: false,
      lease_duration: 0,
      data: null,
      wrap_info: null,
      warnings: null,
      mount_type: '',
    })
    expect(request_id).toMatch(/^[0-9a-f-]{36}$/)
    expect(auth).toEqual({
      client_token: expect.stringMatching(/^hvs\.[\w-]{92}$/),
      accessor: expect.stringMatching(/^[\w-]{24}$/),
      policies: ['app', 'default', 'web'],
      token_policies: ['app', 'default', 'web'],
      metadata: {
        role: 'demo',
        service_account_name: POD.serviceAccount.name,
        service_account_namespace: POD.namespace,
        service_account_secret_name: '',
        service_account_uid: POD.serviceAccount.uid,
      },
      lease_duration: 1200,
      renewable: true,
      entity_id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      token_type: 'service',
      orphan: true,
      mfa_requirement: null,
      num_uses: 5,
    })
  })

  test('is in the log without the token that is given', async () => {
    await world.setUp()
    const token = await world.logIn(await east.token())
    const [decision] = world.issuer.book.decisions.slice(-1)
    expect(decision).toMatchObject({
      door: 'vault',
      decision: 'logged_in',
      path: 'auth/kubernetes/login',
      role: 'kubernetes/demo',
      service_account: POD.serviceAccount.name,
      live: true,
    })
    expect(findPieceOf(token, world.issuer.book.text)).toBeNull()
  })

  test('VH-1: takes a form, and JSON of whatever type it is said to be', async () => {
    await world.setUp()
    const jwt = await east.token()
    const form = { headers: { 'content-type': 'application/x-www-form-urlencoded' } }
    const body = new URLSearchParams({ role: 'demo', jwt }).toString()
    expect((await world.ask('POST', 'auth/kubernetes/login', body, form)).status).toBe(200)
    // What curl does with --data, in the documentation of Vault and its kin.
    expect((await world.ask('POST', 'auth/kubernetes/login', { role: 'demo', jwt }, form)).status).toBe(200)
    const text = { headers: { 'content-type': 'text/plain' } }
    expect((await world.ask('POST', 'auth/kubernetes/login', { role: 'demo', jwt }, text)).status).toBe(200)
  })

  test('VH-4: finds roles whatever the case, and says what it was asked', async () => {
    await world.setUp()
    const { status, body } = await world.login(await east.token(), 'DeMo')
    expect([status, body.auth.metadata.role]).toEqual([200, 'DeMo'])
  })

  test('VL-4: the entity is that of the alias: the UID, or the name of the service account', async () => {
    await world.setUp()
    const entity = async (change: TokenChange) => (await world.login(await east.token(change))).body.auth.entity_id
    const other = { kubernetes: { serviceaccount: { ...POD.serviceAccount, uid: 'another' } } }
    expect(await entity({})).toBe(await entity({}))
    expect(await entity(other)).not.toBe(await entity({}))
    await world.setUp({ alias_name_source: 'serviceaccount_name' })
    expect(await entity(other)).toBe(await entity({}))
  })

  test('the policy default is left out where the role says so', async () => {
    await world.setUp({ token_no_default_policy: true })
    expect((await world.login(await east.token())).body.auth.policies).toEqual([])
  })

  test('a token in the header is not looked at', async () => {
    await world.setUp()
    expect((await world.login(await east.token(), 'demo', { token: 'whatever' })).status).toBe(200)
  })

  test('at any mount', async () => {
    await world.setUp()
    await world.manage('POST', 'sys/auth/team-a/k8s', { type: 'kubernetes' })
    await world.manage('POST', 'auth/team-a/k8s/config', { kubernetes_host: KUBERNETES_HOST })
    const role = { bound_service_account_names: '*', bound_service_account_namespaces: '*' }
    expect((await world.manage('POST', 'auth/team-a/k8s/role/r', role)).status).toBe(200)
    const { status, body } = await world.ask('POST', 'auth/team-a/k8s/login', { role: 'r', jwt: await east.token() })
    expect(status).toBe(200)
    const { body: found } = await world.ask('GET', 'auth/token/lookup-self', undefined, {
      token: body.auth.client_token,
    })
    expect(found.data).toMatchObject({ path: 'auth/team-a/k8s/login' })
    expect(found.data.display_name).toBe(`team-a-k8s-${POD.namespace}-${POD.serviceAccount.name}`)
  })
})

describe('§10.5: who does not log in', () => {
  test.each<[string, object, number, string]>([
    ['no role', { jwt: 'x' }, 400, 'missing role'],
    ['an empty role, and no jwt', { role: '' }, 400, 'missing role'],
    ['no jwt', { role: 'demo' }, 400, 'missing jwt'],
    ['an empty jwt', { role: 'demo', jwt: '' }, 400, 'missing jwt'],
    ['an unknown role', { role: 'other', jwt: 'x' }, 400, 'invalid role name "other"'],
    ['a role that is no name', { role: '../"demo', jwt: 'x' }, 400, 'invalid role name "../\\"demo"'],
    [
      'a jwt that is no text',
      { role: 'demo', jwt: ['x'] },
      400,
      `Field validation failed: error converting input for field "jwt": expected type 'string'`,
    ],
  ])('%s', async (_, body, status, text) => {
    await world.setUp()
    const answer = await world.ask('POST', 'auth/kubernetes/login', body)
    expect([answer.status, answer.body]).toEqual([status, { errors: [text] }])
  })

  test('who writes the token into the place of the role is told so, and the log does not repeat it', async () => {
    await world.setUp()
    const jwt = await east.token()
    const answer = await world.login('x', jwt)
    expect([answer.status, reasonOf(answer)]).toEqual([400, 'vault_request'])
    expect(findPieceOf(jwt, world.issuer.book.text)).toBeNull()
  })

  test.each<[string, TokenChange, number, string, string]>([
    [
      'a token that has expired',
      { claims: { exp: NOW - 1 } },
      403,
      'invalid expiration time (exp) claim: token is expired',
      'token_expired',
    ],
    [
      'a token that is not valid yet',
      { claims: { nbf: NOW + 61 } },
      403,
      'invalid not before (nbf) claim: token not yet valid',
      'token_not_yet_valid',
    ],
    [
      'a token of the future',
      { claims: { iat: NOW + 61 } },
      403,
      'invalid issued at (iat) claim: token issued in the future',
      'token_issued_in_future',
    ],
    ['a token for another audience', { claims: { aud: ['other'] } }, 403, AUDIENCE, 'token_audience'],
    [
      'T-6: a token that is good elsewhere too',
      { claims: { aud: ['spiffe-edge', 'other'] } },
      403,
      AUDIENCE,
      'token_audience',
    ],
    [
      'T-6: a token for the API server',
      { claims: { aud: ['https://kubernetes.default.svc'] } },
      403,
      AUDIENCE,
      'token_audience',
    ],
    ['no service account in it', { kubernetes: { serviceaccount: undefined } }, 403, DENIED, 'token_claims'],
    [
      'no UID in it',
      { kubernetes: { serviceaccount: { name: 'checkout-account' } } },
      500,
      'could not parse UID from claims',
      'token_uid_missing',
    ],
    [
      'an empty UID',
      { kubernetes: { serviceaccount: { name: 'checkout-account', uid: '' } } },
      500,
      'could not parse UID from claims',
      'token_uid_missing',
    ],
    ['T-3: another issuer', { claims: { iss: 'https://other.example' } }, 403, DENIED, 'token_issuer'],
    ['alg none', { header: { alg: 'none' } }, 403, DENIED, 'token_algorithm'],
    ['alg HS256', { header: { alg: 'HS256' } }, 403, DENIED, 'token_algorithm'],
    ['an unknown kid', { header: { kid: 'x' } }, 403, DENIED, 'token_key'],
    [
      'VL-1: a legacy token, which never ends',
      { claims: { exp: undefined, nbf: undefined, iat: undefined } },
      403,
      DENIED,
      'token_claims',
    ],
    ['T-4: a token that is bound to no pod', { kubernetes: { pod: undefined } }, 403, DENIED, 'token_unbound'],
    ['a token that was made to live for a year', { claims: { exp: NOW + 31_536_000 } }, 403, DENIED, 'token_lifetime'],
  ])('%s', async (_, change, status, text, reason) => {
    await world.setUp()
    const jwt = await east.token(change)
    const answer = await world.login(jwt)
    expect([...said(answer, jwt), reasonOf(answer)]).toEqual([status, text, reason])
  })

  test('a forged token, which is refused before anything that it claims is judged', async () => {
    await world.setUp({ bound_service_account_names: 'other' })
    const jwt = await east.token({ key: await makeTokenKey('ES256'), claims: { exp: NOW - 5 } })
    const answer = await world.login(jwt)
    expect([...said(answer, jwt), reasonOf(answer)]).toEqual([403, DENIED, 'token_signature'])
    expect(world.api.calls).toEqual([])
  })

  test.each(['a.b.c', 'x', `${'a'.repeat(20_000)}.b.c`, '{"payload":"","signatures":[{},{}]}'])(
    '%.40s',
    async (jwt) => {
      await world.setUp()
      expect((await world.login(jwt)).body).toEqual({ errors: [DENIED] })
    },
  )

  test('T-3: a token of another cluster', async () => {
    world = await VaultWorld.create(east, {}, [west.record()])
    await world.setUp()
    const jwt = await west.token()
    expect(said(await world.login(jwt), jwt)).toEqual([403, DENIED])
  })

  test('T-6: our own SVIDs, and tokens of this kind', async () => {
    await world.setUp()
    const token = await world.logIn(await east.token())
    expect((await world.login(token)).body).toEqual({ errors: [DENIED] })
  })

  test('at a mount that is not configured', async () => {
    await world.manage('POST', 'sys/auth/kubernetes', { type: 'kubernetes' })
    const role = { bound_service_account_names: '*', bound_service_account_namespaces: '*' }
    await world.manage('POST', 'auth/kubernetes/role/demo', role)
    const jwt = await east.token()
    expect(said(await world.login(jwt), jwt)).toEqual([500, 'could not load backend configuration'])
  })

  test('at a mount that there is not', async () => {
    const { status, body } = await world.ask('POST', 'auth/other/login', { role: 'demo', jwt: 'x' })
    expect([status, body.errors]).toEqual([404, ['no handler for route "auth/other/login". route entry not found.']])
  })

  test.each<[string, object, readonly unknown[]]>([
    ['service account name', { bound_service_account_names: 'other' }, [403, 'service account name not authorized']],
    [
      'service account name, if only its beginning fits',
      { bound_service_account_names: 'checkout' },
      [403, 'service account name not authorized'],
    ],
    [
      'service account name, which has a case',
      { bound_service_account_names: 'Checkout-*' },
      [403, 'service account name not authorized'],
    ],
    ['namespace', { bound_service_account_namespaces: 'other' }, [403, 'namespace not authorized']],
    ['namespace, by a list', { bound_service_account_namespaces: 'a,b*' }, [403, 'namespace not authorized']],
  ])('VR-1: whose %s is not bound', async (_, role, expected) => {
    await world.setUp(role)
    const jwt = await east.token()
    expect(said(await world.login(jwt), jwt)).toEqual(expected)
    expect(world.api.calls).toEqual([])
  })

  test.each(['*', 'checkout-account', 'check*', '*-account', 'ch*ck*t-acc*', 'checkout-account*'])(
    'VR-1: %s binds',
    async (pattern) => {
      await world.setUp({ bound_service_account_names: pattern })
      expect((await world.login(await east.token())).status).toBe(200)
    },
  )

  test('T-26: who is banned, by service account or by SPIFFE ID', async () => {
    const svid = { spiffe_id: 'spiffe://example.org/ns/{namespace}/sa/{serviceAccountName}', svid_audiences: 'web' }
    await world.setUp(svid)
    const token = await world.logIn(await east.token())
    const path = `/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`
    for (const spec of [
      { cluster: 'east', serviceAccount: `${POD.namespace}:${POD.serviceAccount.name}` },
      { spiffeID: `spiffe://example.org${path}` },
    ]) {
      const ban = { apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'Ban', metadata: { name: 'thief' }, spec }
      await world.admin.apply(world.issuer, { objects: [ban] })
      const answer = await world.login(await east.token())
      expect([answer.status, reasonOf(answer)]).toEqual([403, 'banned'])
      // A token from before is of no use either.
      const held = await world.ask('GET', 'auth/token/lookup-self', undefined, { token })
      expect([held.status, reasonOf(held)]).toEqual([403, 'banned'])
    }
  })
})

describe('token_bound_cidrs', () => {
  const ranges = { token_bound_cidrs: ['192.0.2.0/24', '2001:db8::/32'] }

  test.each([
    ['192.0.2.7', 200],
    ['192.0.3.7', 403],
    ['[2001:db8::1]', 200],
    ['[2001:db9::1]', 403],
    ['[::ffff:192.0.2.9]', 200],
    ['[::ffff:192.0.3.9]', 403],
    ['0xC0.0.2.7', 403],
    ['', 403],
  ])('a client at %s: %i', async (address, status) => {
    await world.setUp(ranges)
    expect((await world.login(await east.token(), 'demo', { address })).status).toBe(status)
  })

  test('T-23: the address is what the platform says, not a header', async () => {
    await world.setUp(ranges)
    const headers = { 'x-forwarded-for': '192.0.2.7', 'cf-connecting-ip': '192.0.2.7', 'x-real-ip': '192.0.2.7' }
    expect((await world.login(await east.token(), 'demo', { address: '203.0.113.1', headers })).status).toBe(403)
  })

  test('come before everything else that could be told of the token', async () => {
    await world.setUp(ranges)
    expect((await world.login('x', 'demo', { address: '203.0.113.1' })).body).toEqual({ errors: [DENIED] })
  })

  test('bind the token too, at every use', async () => {
    await world.setUp(ranges)
    const token = await world.logIn(await east.token())
    const from = (address: string) => world.ask('GET', 'auth/token/lookup-self', undefined, { token, address })
    const near = await from('192.0.2.99')
    expect([near.status, near.body.data.bound_cidrs]).toEqual([200, ranges.token_bound_cidrs])
    expect((await from('203.0.113.1')).status).toBe(403)
  })

  test('token_strictly_bind_ip binds it to the one address', async () => {
    await world.setUp({ token_strictly_bind_ip: true })
    const token = await world.logIn(await east.token())
    const from = (address: string) => world.ask('GET', 'auth/token/lookup-self', undefined, { token, address })
    expect([(await from('192.0.2.7')).status, (await from('192.0.2.8')).status]).toEqual([200, 403])
  })
})

describe('the API server’s word', () => {
  test('VL-2: is asked about the role’s audience, or the mount’s', async () => {
    await world.setUp()
    await world.logIn(await east.token())
    await world.setUp({ audience: 'vault' })
    await world.logIn(await east.token({ claims: { aud: ['vault'] } }))
    const asked = audiencesAsked()
    expect(asked).toEqual([['spiffe-edge'], ['vault']])
  })

  test('audiences of the mount’s config stand in the place of the cluster’s', async () => {
    await world.setUp({}, { audiences: 'vault,bao' })
    expect((await world.login(await east.token())).status).toBe(403)
    expect((await world.login(await east.token({ claims: { aud: ['bao'] } }))).status).toBe(200)
  })

  test.each<[string, (status: Record<string, unknown>) => Record<string, unknown>]>([
    ['not authenticated', () => ({ authenticated: false })],
    ['an error', () => ({ authenticated: true, error: 'x' })],
    ['another user', (status) => ({ ...status, user: { username: 'system:serviceaccount:a:b', uid: 'c' } })],
    ['a node', (status) => ({ ...status, user: { username: 'system:node:a', uid: POD.serviceAccount.uid } })],
    ['another UID', (status) => ({ ...status, user: { ...(status.user as object), uid: 'other' } })],
    ['no audience', (status) => ({ ...status, audiences: [] })],
    ['another audience', (status) => ({ ...status, audiences: ['other'] })],
  ])('%s is a no', async (_, lie) => {
    await world.setUp()
    world.api.lie = lie
    const jwt = await east.token()
    expect(said(await world.login(jwt), jwt)).toEqual([403, DENIED])
  })

  test.each<[string, () => Response]>([
    ['500', () => new Response('', { status: 500 })],
    ['a page', () => new Response('<html>')],
    ['403', () => new Response('', { status: 403 })],
  ])('so is an answer that is none: %s. The operator sees which', async (_, answer) => {
    await world.setUp()
    world.api.interfere = answer
    const jwt = await east.token()
    const refused = await world.login(jwt)
    expect([...said(refused, jwt), reasonOf(refused)]).toEqual([403, DENIED, 'cluster_api_unavailable'])
  })

  test('§12.10: the token of a deleted pod', async () => {
    await world.setUp()
    world.api.pods.clear()
    const answer = await world.login(await east.token())
    expect([answer.status, reasonOf(answer)]).toEqual([403, 'token_not_live'])
  })

  test('is not asked where the cluster has no connection: then its keys decide', async () => {
    world = await VaultWorld.create(east, { connection: undefined })
    await world.manage('POST', 'sys/auth/kubernetes', { type: 'kubernetes' })
    const config = { kubernetes_host: 'https://elsewhere', cluster: 'east' }
    const { body } = await world.manage('POST', 'auth/kubernetes/config', config)
    expect(body.warnings[0]).toMatch(/no connection/)
    const role = { bound_service_account_names: '*', bound_service_account_namespaces: '*', token_ttl: '20h' }
    await world.manage('POST', 'auth/kubernetes/role/demo', role)
    const { auth, warnings } = (await world.login(await east.token())).body
    // T-8: nobody can be asked later whether the pod is still there.
    expect(auth.lease_duration).toBe(3607)
    expect(warnings).toEqual(['The token ends with the service account token that it is for'])
  })
})

describe('T-6: the API server’s own audience', () => {
  const extended = (change: object = {}): TokenChange => ({
    claims: { aud: ['https://kubernetes.default.svc'], exp: NOW + 31_536_000 },
    kubernetes: { warnafter: NOW + 3607, ...change },
  })

  test('is good where the mount says so, by the API server’s word, until the kubelet would have renewed it', async () => {
    await world.setUp({ token_ttl: 0 }, { allow_api_server_audience: true })
    const { status, body } = await world.login(await east.token(extended()))
    expect([status, body.auth.lease_duration]).toEqual([200, 3607])
    expect(audiencesAsked()).toEqual([undefined])
  })

  test('is refused past that, and where it is said to last longer', async () => {
    await world.setUp({}, { allow_api_server_audience: true })
    for (const warnafter of [NOW, NOW + 86_400, undefined])
      expect((await world.login(await east.token(extended({ warnafter })))).status).toBe(403)
  })

  test('is refused for a role that names another', async () => {
    await world.setUp({ audience: 'vault' }, { allow_api_server_audience: true })
    expect((await world.login(await east.token(extended()))).body.errors).toEqual([AUDIENCE])
  })

  test('does not make a long life of a token for another audience', async () => {
    await world.setUp({}, { allow_api_server_audience: true })
    const { claims, ...rest } = extended()
    const jwt = await east.token({ ...rest, claims: { ...(claims as object), aud: ['spiffe-edge'] } })
    const answer = await world.login(jwt)
    expect([answer.status, reasonOf(answer)]).toEqual([403, 'token_lifetime'])
  })
})

describe('namespace selectors (pain 43)', () => {
  const role = {
    bound_service_account_namespaces: 'other',
    bound_service_account_namespace_selector: '{"matchLabels":{"team":"payments"}}',
  }
  const labels = (labels: object) =>
    world.api.objects.set(`/api/v1/namespaces/${POD.namespace}`, { metadata: { labels } })

  test('bind by label, with the worker’s own credential', async () => {
    await world.setUp(role)
    labels({ team: 'payments', more: 'x' })
    expect((await world.login(await east.token())).status).toBe(200)
  })

  test.each<[string, object]>([
    ['another value', { team: 'other' }],
    ['no label', {}],
    ['a label of another case', { Team: 'payments' }],
  ])('%s does not bind', async (_, present) => {
    await world.setUp(role)
    labels(present)
    const jwt = await east.token()
    expect(said(await world.login(jwt), jwt)).toEqual([403, 'namespace not authorized'])
  })

  test('a namespace that cannot be read is not bound, and the operator sees why', async () => {
    await world.setUp(role)
    world.api.interfere = ({ url }) => (url.includes('/namespaces/') ? new Response('', { status: 403 }) : undefined)
    const answer = await world.login(await east.token())
    expect(answer.body.errors[0]).toMatch(/^namespace not authorized err=/)
    const decision = world.issuer.book.decisions.at(-1)
    expect([decision?.reason, decision?.detail]).toEqual([
      'namespace_unknown',
      expect.stringMatching(/get namespaces.*ClusterRole/),
    ])
  })
})

describe('issuer validation', () => {
  test.each<[string, object, number]>([
    ['is off unless it is asked for', { issuer: 'https://other.example' }, 200],
    ['compares', { disable_iss_validation: false, issuer: 'https://east.example.org' }, 200],
    ['and refuses', { disable_iss_validation: false, issuer: 'https://other.example' }, 403],
    ['VL-5: knows the documented default', { disable_iss_validation: false }, 403],
  ])('%s', async (_, config, status) => {
    await world.setUp({}, config)
    const jwt = await east.token()
    const answer = await world.login(jwt)
    expect(answer.status).toBe(status)
    if (status === 403) expect(said(answer, jwt)).toEqual([403, 'invalid issuer (iss) claim'])
  })
})

describe('VC-4: who asks the API server', () => {
  const bearers = () => [...new Set(world.api.reviews.map(({ bearer }) => bearer))]

  test('the worker itself, with a token that it signs', async () => {
    await world.setUp()
    await world.logIn(await east.token())
    expect(JSON.parse(atob(bearers()[0]?.split('.')[1] ?? '')).sub).toBe(
      'spiffe://example.org/spiffe-edge/reviewer/east',
    )
  })

  test('token_reviewer_jwt, which nobody reads back and nothing stores in the clear', async () => {
    const secret = 'reviewer-secret-0123456789'
    await world.setUp({}, { token_reviewer_jwt: secret })
    await world.logIn(await east.token())
    expect(bearers()).toEqual([secret])
    const read = await world.manage('GET', 'auth/kubernetes/config')
    expect(read.body.data.token_reviewer_jwt_set).toBe(true)
    expect(Object.hasOwn(read.body.data, 'token_reviewer_jwt')).toBe(false)
    const objects = JSON.stringify(await world.admin.list(world.issuer))
    expect(objects).toContain('token_reviewer_jwt')
    for (const text of [JSON.stringify(read.body), objects, world.issuer.book.text])
      expect(findPieceOf(secret, text)).toBeNull()
  })

  test('a sealed token that is moved to another mount opens nothing', async () => {
    await world.setUp({}, { token_reviewer_jwt: 'reviewer-secret' })
    const { objects } = await world.admin.list(world.issuer)
    const spec = objects
      .map(({ object }) => object as unknown as { kind: string; spec: object })
      .find(({ kind }) => kind === 'VaultMount')?.spec
    const role = { bound_service_account_names: ['*'], bound_service_account_namespaces: ['*'] }
    await world.admin.apply(world.issuer, {
      objects: [
        vaultObject('VaultMount', 'stolen', { ...spec, accessor: undefined }),
        vaultObject('VaultRole', 'stolen/demo', role),
      ],
    })
    const answer = await world.ask('POST', 'auth/stolen/login', { role: 'demo', jwt: await east.token() })
    expect([answer.status, reasonOf(answer)]).toEqual([403, 'cluster_api_unavailable'])
    expect(world.api.calls).toEqual([])
  })

  test('the client’s own token, where disable_local_ca_jwt says so; then tokens end with it (T-8)', async () => {
    await world.setUp({ token_ttl: '20h' }, { disable_local_ca_jwt: true })
    const jwt = await east.token()
    expect((await world.login(jwt)).body.auth.lease_duration).toBe(3607)
    expect(bearers()).toEqual([jwt])
  })

  test('what the cluster’s record says: a file, which is read anew', async () => {
    const disk = { fetch: async () => new Response('token-from-disk') }
    const reviewer = { file: { binding: 'CLUSTER_DISK', path: 'token' } }
    world = await VaultWorld.create(east, { reviewer }, [], { CLUSTER_DISK: disk })
    await world.setUp()
    await world.logIn(await east.token())
    expect(bearers()).toEqual(['token-from-disk'])
  })
})

describe('T-23: headers that ask for what is not there', () => {
  test.each([
    ['x-vault-wrap-ttl', '60'],
    ['x-vault-namespace', 'team'],
  ])('%s', async (name, value) => {
    await world.setUp()
    const jwt = await east.token()
    expect((await world.login(jwt, 'demo', { headers: { [name]: value } })).status).toBe(400)
    expect((await world.login(jwt, 'demo', { headers: { [name]: '', 'x-vault-request': 'true' } })).status).toBe(200)
  })
})

describe('what else may be asked at these paths', () => {
  test.each(['GET', 'DELETE', 'HEAD'])('§12.10: %s on login', async (method) => {
    await world.setUp()
    expect((await world.ask(method, 'auth/kubernetes/login')).status).toBe(405)
  })

  test('§12.10: LIST on login', async () => {
    await world.setUp()
    expect((await world.ask('GET', 'auth/kubernetes/login?list=true')).status).toBe(405)
  })

  test.each([
    ['{', 400],
    ['[]', 400],
    ['{"role":"demo","role":"other"}', 400],
    ['"x"', 400],
    ['x'.repeat(70_000), 413],
  ])('a body of %.20s: %i', async (body, status) => {
    await world.setUp()
    expect((await world.ask('POST', 'auth/kubernetes/login', body)).status).toBe(status)
  })

  test('nothing at all without VAULT_TOKEN_KEY', async () => {
    world = await VaultWorld.create(east, {}, [], { VAULT_TOKEN_KEY: '' })
    for (const path of ['sys/health', 'auth/kubernetes/login', 'auth/token/lookup-self'])
      expect((await world.ask('GET', path)).status).toBe(404)
  })

  test('no secrets engine: 404 with a token, and nothing told without one', async () => {
    await world.setUp()
    const token = await world.logIn(await east.token())
    const { status, body } = await world.ask('GET', 'secret/data/x', undefined, { token })
    expect([status, body.errors]).toEqual([404, ['no handler for route "secret/data/x". route entry not found.']])
    expect((await world.ask('GET', 'secret/data/x')).status).toBe(403)
  })
})
