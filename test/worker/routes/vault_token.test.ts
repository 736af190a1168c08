/** Requirements 10.6 and T-8, T-23: what becomes of a token of Vault's kind once it is given. */

import fc from 'fast-check'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { TokenStore, type TokenStoreDeps } from '../../../worker/state/token_store.ts'
import { SHARDS, TokenSecret } from '../../../worker/vault/token.ts'
import { wrapped } from '../../../worker/vault/vault_error.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { TestIssuer } from '../issuer.ts'
import { KUBERNETES_HOST, VAULT_TOKEN_KEY, type VaultResponse, VaultWorld } from '../vault_client.ts'

const GONE = [403, { errors: ['permission denied'] }]

let east: FakeCluster
beforeAll(async () => {
  east = await FakeCluster.create('east')
})

let world: VaultWorld
beforeEach(async () => {
  world = await VaultWorld.create(east)
})

const lookup = (token: string) => world.ask('GET', 'auth/token/lookup-self', undefined, { token })
const renew = (token: string, body?: object) => world.ask('POST', 'auth/token/renew-self', body, { token })
const revoke = (token: string) => world.ask('POST', 'auth/token/revoke-self', undefined, { token })
const outcome = ({ status, body }: VaultResponse) => [status, body]
/** A pod's token at the present time of the test. */
const jwt = () => east.token({ now: world.issuer.clock.now() })

function reasonOf({ headers }: VaultResponse): unknown {
  const id = headers.get('x-request-id')
  return world.issuer.book.decisions.find((decision) => decision.id === id)?.reason
}

describe('lookup-self', () => {
  test('tells everything that Vault tells', async () => {
    await world.setUp({ token_policies: 'app', token_ttl: 600, token_explicit_max_ttl: '2h', token_period: '10m' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(100)
    const { status, body } = await lookup(token)
    expect([status, body.mount_type]).toEqual([200, 'token'])
    expect(body.data).toEqual({
      id: token,
      accessor: expect.stringMatching(/^[\w-]{24}$/),
      policies: ['app', 'default'],
      path: 'auth/kubernetes/login',
      meta: {
        role: 'demo',
        service_account_name: POD.serviceAccount.name,
        service_account_namespace: POD.namespace,
        service_account_secret_name: '',
        service_account_uid: POD.serviceAccount.uid,
      },
      display_name: `kubernetes-${POD.namespace}-${POD.serviceAccount.name}`,
      num_uses: 0,
      orphan: true,
      creation_time: NOW,
      creation_ttl: 600,
      expire_time: new Date((NOW + 600) * 1000).toISOString(),
      issue_time: new Date(NOW * 1000).toISOString(),
      ttl: 500,
      explicit_max_ttl: 7200,
      entity_id: expect.any(String),
      type: 'service',
      renewable: true,
      period: 600,
    })
  })

  test('VH-2: takes the token as bearer too', async () => {
    await world.setUp()
    const headers = { authorization: `Bearer ${await world.logIn(await jwt())}` }
    expect((await world.ask('GET', 'auth/token/lookup-self', undefined, { headers })).status).toBe(200)
  })

  test('of an administrator’s own token says whose it is', async () => {
    const { status, body } = await world.manage('GET', 'auth/token/lookup-self')
    expect([status, body.data.display_name, body.data.policies]).toEqual([200, 'alice', []])
  })

  test.each<[string, (token: string) => string]>([
    ['nothing', () => ''],
    ['a word', () => 'root'],
    ['one that is cut short', (token) => token.slice(0, -1)],
    ['one that is longer', (token) => `${token}A`],
    ['a batch token of the same octets', (token) => token.replace('hvs', 'hvb')],
    ['a JWT of somebody else', () => 'eyJhbGciOiJub25lIn0.e30.'],
    ['an accessor', () => 'AQpHWrWjadb1jg1HV1cI5Fxj'],
  ])('§12.10: %s is no token', async (_, change) => {
    await world.setUp()
    const token = change(await world.logIn(await jwt()))
    const answer = await lookup(token)
    expect(outcome(answer)).toEqual(GONE)
    if (token.length > 10) expect(findPieceOf(token, world.issuer.book.text)).toBeNull()
  })

  test('T-23: a token with any other bit is refused before a state is asked', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    const octets = Uint8Array.fromBase64(token.slice(4), { alphabet: 'base64url' })
    let asked = 0
    const { tokens } = world.issuer.deps
    const use = tokens.use.bind(tokens)
    tokens.use = (place) => {
      asked++
      return use(place)
    }
    await fc.assert(
      fc.asyncProperty(fc.nat(octets.length * 8 - 1), async (bit) => {
        const forged = octets.slice()
        forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        const text = `hvs.${forged.toBase64({ alphabet: 'base64url', omitPadding: true })}`
        expect(outcome(await lookup(text))).toEqual(GONE)
      }),
      { numRuns: 60 },
    )
    expect(asked).toBe(0)
  })
})

describe('renew-self', () => {
  test('gives the role’s TTL from now, and tells when it was', async () => {
    await world.setUp({ token_ttl: 600 })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(500)
    const { status, body } = await renew(token)
    expect([status, body.auth.client_token, body.auth.lease_duration, body.auth.renewable]).toEqual([
      200,
      token,
      600,
      true,
    ])
    expect((await lookup(token)).body.data).toMatchObject({
      ttl: 600,
      creation_ttl: 600,
      creation_time: NOW,
      last_renewal_time: NOW + 500,
      last_renewal: new Date((NOW + 500) * 1000).toISOString(),
    })
    world.issuer.clock.advance(599)
    expect((await lookup(token)).status).toBe(200)
    world.issuer.clock.advance(1)
    expect(outcome(await lookup(token))).toEqual(GONE)
  })

  test.each([
    [{ increment: '1h' }, 3600],
    [{ increment: 60 }, 60],
    [{ increment: '' }, 600],
    [{}, 600],
  ])('%j', async (body, ttl) => {
    await world.setUp({ token_ttl: 600 })
    const token = await world.logIn(await jwt())
    expect((await renew(token, body)).body.auth.lease_duration).toBe(ttl)
  })

  test('§12.10: not beyond max TTL, of which it warns, and not after it', async () => {
    await world.setUp({ token_ttl: '1h', token_max_ttl: '90m' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(3000)
    const { body } = await renew(token, { increment: '10h' })
    expect(body.auth.lease_duration).toBe(2400)
    expect(body.warnings).toEqual([
      'TTL of "10h" exceeded the effective max_ttl of "40m"; TTL value is capped accordingly',
    ])
    world.issuer.clock.advance(2400)
    expect(outcome(await renew(token))).toEqual(GONE)
  })

  test('explicit_max_ttl is the one that it was given with', async () => {
    await world.setUp({ token_ttl: '1h', token_explicit_max_ttl: '2h' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(3500)
    expect((await renew(token)).body.auth.lease_duration).toBe(3600)
    world.issuer.clock.advance(3500)
    expect((await renew(token)).body.auth.lease_duration).toBe(200)
  })

  test('a periodic token lives as long as it is renewed', async () => {
    await world.setUp({ token_period: '1h', token_max_ttl: '90m' })
    const token = await world.logIn(await jwt())
    for (let hour = 0; hour < 5; hour++) {
      world.issuer.clock.advance(3500)
      expect((await renew(token)).body.auth.lease_duration).toBe(3600)
    }
  })

  test('VT-1: by the role as it is now', async () => {
    await world.setUp({ token_ttl: 600 })
    const token = await world.logIn(await jwt())
    await world.manage('PUT', 'auth/kubernetes/role/demo', { token_ttl: 60 })
    expect((await renew(token)).body.auth.lease_duration).toBe(60)
    await world.manage('DELETE', 'auth/kubernetes/role/demo')
    const gone = await renew(token)
    expect(gone.status).toBe(500)
    expect(gone.body.errors[0]).toContain('role demo does not exist during renewal')
    expect((await lookup(token)).status).toBe(200)
  })

  test('T-8: past the end of the pod’s token, only while the pod is there', async () => {
    await world.setUp({ token_ttl: '1h' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(3000)
    world.api.pods.clear()
    const refused = await renew(token)
    expect([...outcome(refused), reasonOf(refused)]).toEqual([...GONE, 'pod_gone'])
    // Nothing of it has changed.
    expect((await lookup(token)).body.data.ttl).toBe(600)
  })

  test('T-8: another pod of the same name is another pod', async () => {
    await world.setUp({ token_ttl: '1h' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(3000)
    world.api.addPod(POD.namespace, { name: POD.pod.name, uid: 'another' })
    const refused = await renew(token)
    expect([...outcome(refused), reasonOf(refused)]).toEqual([...GONE, 'pod_replaced'])
  })

  test('T-8: nor while nobody can say', async () => {
    await world.setUp({ token_ttl: '1h' })
    const token = await world.logIn(await jwt())
    world.issuer.clock.advance(3000)
    world.api.interfere = () => new Response('', { status: 500 })
    expect(reasonOf(await renew(token))).toBe('cluster_api_unavailable')
  })

  test('T-8: a token of a role that sets no TTL ends with the pod’s', async () => {
    await world.setUp({ token_ttl: 0 })
    const { auth, warnings } = (await world.login(await jwt())).body
    expect(auth.lease_duration).toBe(3607)
    expect(warnings).toEqual(['The token ends with the service account token that it is for'])
    world.issuer.clock.advance(3000)
    expect((await renew(auth.client_token, { increment: '1h' })).body.auth.lease_duration).toBe(607)
  })
})

describe('num_uses', () => {
  test('each use is one, also one that is refused; the last one ends it', async () => {
    await world.setUp({ token_num_uses: 3 })
    const token = await world.logIn(await jwt())
    expect((await lookup(token)).body.data.num_uses).toBe(2)
    expect((await world.ask('GET', 'secret/x', undefined, { token })).status).toBe(404)
    expect((await lookup(token)).body.data.num_uses).toBe(1)
    expect((await lookup(token)).body.data.num_uses).toBe(0)
    expect(outcome(await lookup(token))).toEqual(GONE)
    expect(await world.issuer.tokens.stored()).toBe(0)
  })

  test('ten at the same time are ten uses', async () => {
    await world.setUp({ token_num_uses: 4 })
    const token = await world.logIn(await jwt())
    const answers = await Promise.all(Array.from({ length: 10 }, () => lookup(token)))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(4)
  })

  test('a renewal keeps what is left', async () => {
    await world.setUp({ token_num_uses: 3 })
    const token = await world.logIn(await jwt())
    expect((await renew(token)).body.auth.num_uses).toBe(2)
    expect((await lookup(token)).body.data.num_uses).toBe(1)
  })
})

describe('revoke-self', () => {
  test('ends it at once, and the storage has nothing of it', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    const other = await world.logIn(await jwt())
    expect(outcome(await revoke(token))).toEqual([204, ''])
    expect(outcome(await lookup(token))).toEqual(GONE)
    expect(outcome(await renew(token))).toEqual(GONE)
    expect(outcome(await revoke(token))).toEqual(GONE)
    expect((await lookup(other)).status).toBe(200)
    expect(await world.issuer.tokens.stored()).toBe(1)
  })

  test('a renewal that is under way does not bring it back', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    // The renewal has found the entry; the revocation overtakes it.
    const { tokens } = world.issuer.deps
    const real = tokens.renew.bind(tokens)
    tokens.renew = async (place, change) => {
      expect((await revoke(token)).status).toBe(204)
      return real(place, change)
    }
    expect(outcome(await renew(token))).toEqual(GONE)
    expect(outcome(await lookup(token))).toEqual(GONE)
  })
})

describe('batch tokens', () => {
  const role = { token_type: 'batch', token_ttl: 600 }

  test('are not stored, not renewed, not revoked, and end', async () => {
    await world.setUp(role)
    const { auth } = (await world.login(await jwt())).body
    expect(auth).toMatchObject({
      accessor: '',
      renewable: false,
      token_type: 'batch',
      lease_duration: 600,
      num_uses: 0,
    })
    const { client_token: token } = auth
    expect(token).toMatch(/^hvb\.[\w-]{138,}$/)
    expect(await world.issuer.tokens.stored()).toBe(0)
    expect((await lookup(token)).body.data).toMatchObject({ type: 'batch', renewable: false, ttl: 600 })
    expect(outcome(await renew(token))).toEqual([400, { errors: ['batch tokens cannot be renewed'] }])
    expect(outcome(await revoke(token))).toEqual([400, { errors: ['batch tokens cannot be revoked'] }])
    world.issuer.clock.advance(600)
    expect(outcome(await lookup(token))).toEqual(GONE)
  })

  test('tell nobody who is in them, and are refused when a bit is another', async () => {
    await world.setUp(role)
    const token = await world.logIn(await jwt())
    const octets = Uint8Array.fromBase64(token.slice(4), { alphabet: 'base64url' })
    expect(new TextDecoder().decode(octets)).not.toContain(POD.serviceAccount.name)
    for (const at of [0, 12, 40, octets.length - 1]) {
      const forged = octets.slice()
      forged[at] = (forged[at] ?? 0) ^ 1
      const text = `hvb.${forged.toBase64({ alphabet: 'base64url', omitPadding: true })}`
      expect(outcome(await lookup(text))).toEqual(GONE)
    }
  })
})

describe('the end', () => {
  test('comes by itself, and an alarm clears the storage', async () => {
    await world.setUp({ token_ttl: 100 })
    const tokens = await Promise.all([1, 2, 3].map(async () => world.logIn(await jwt())))
    world.issuer.clock.advance(50)
    const late = await world.logIn(await jwt())
    world.issuer.clock.advance(50)
    for (const token of tokens) expect(outcome(await lookup(token))).toEqual(GONE)
    await world.issuer.tokens.wake()
    expect(await world.issuer.tokens.stored()).toBe(1)
    expect((await lookup(late)).status).toBe(200)
  })

  test('of all tokens of a mount is that of the mount, also if one is made in its place', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    expect((await world.manage('DELETE', 'sys/auth/kubernetes')).status).toBe(204)
    expect(outcome(await lookup(token))).toEqual(GONE)
    await world.setUp()
    expect(outcome(await lookup(token))).toEqual(GONE)
    expect((await lookup(await world.logIn(await jwt()))).status).toBe(200)
  })

  test('and of those that were given for another cluster than the mount is for now', async () => {
    const west = await FakeCluster.create('west')
    world = await VaultWorld.create(east, {}, [west.record()])
    await world.setUp()
    const token = await world.logIn(await jwt())
    const config = { kubernetes_host: KUBERNETES_HOST, cluster: 'west' }
    await world.manage('PUT', 'auth/kubernetes/config', config)
    expect(outcome(await lookup(token))).toEqual(GONE)
  })

  test('T-20: of all of them is another VAULT_TOKEN_KEY; one that stands behind it still reads them', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    const batch = await (async () => {
      await world.manage('PUT', 'auth/kubernetes/role/b', {
        bound_service_account_names: '*',
        bound_service_account_namespaces: '*',
        token_type: 'batch',
        token_ttl: 600,
      })
      return world.logIn(await jwt(), 'b')
    })()
    const secret = (byte: number) => new Uint8Array(32).fill(byte)
    const old = Uint8Array.from({ length: 32 }, (_, at) => at)
    const { deps } = world.issuer as unknown as { deps: { tokenSecret: unknown } }
    deps.tokenSecret = TokenSecret.import([secret(7), old])
    expect([(await lookup(token)).status, (await lookup(batch)).status]).toEqual([200, 200])
    deps.tokenSecret = TokenSecret.import([secret(7)])
    expect([(await lookup(token)).status, (await lookup(batch)).status]).toEqual([403, 403])
  })
})

describe('T-11: what operators do', () => {
  let token: string
  let accessor: string
  beforeEach(async () => {
    await world.setUp()
    const { auth } = (await world.login(await jwt())).body
    token = auth.client_token
    accessor = auth.accessor
  })

  test('look up, by token and by accessor, which does not give the token', async () => {
    const byToken = await world.manage('POST', 'auth/token/lookup', { token })
    expect(byToken.body.data).toMatchObject({ id: token, accessor, type: 'service' })
    const byAccessor = await world.manage('POST', 'auth/token/lookup-accessor', { accessor })
    expect(byAccessor.body.data).toEqual({ ...byToken.body.data, id: '' })
    expect(findPieceOf(token, JSON.stringify(byAccessor.body))).toBeNull()
  })

  test('renew and revoke by accessor', async () => {
    const renewed = await world.manage('POST', 'auth/token/renew-accessor', { accessor, increment: 60 })
    expect([renewed.status, renewed.body.auth.client_token, renewed.body.auth.lease_duration]).toEqual([200, '', 60])
    expect((await world.manage('POST', 'auth/token/renew', { token })).body.auth.lease_duration).toBe(3600)
    expect(outcome(await world.manage('POST', 'auth/token/revoke-accessor', { accessor }))).toEqual([204, ''])
    expect(outcome(await lookup(token))).toEqual(GONE)
    const again = await world.manage('POST', 'auth/token/revoke-accessor', { accessor })
    expect([again.status, again.body.warnings]).toEqual([200, ['No token found with this accessor']])
  })

  test('revoke by token, whether or not there is one', async () => {
    expect(outcome(await world.manage('POST', 'auth/token/revoke', { token }))).toEqual([204, ''])
    expect(outcome(await lookup(token))).toEqual(GONE)
    expect(outcome(await world.manage('POST', 'auth/token/revoke', { token }))).toEqual([204, ''])
  })

  test('list accessors', async () => {
    const second = (await world.login(await jwt())).body.auth.accessor
    const { body } = await world.manage('GET', 'auth/token/accessors?list=true')
    expect(body.data.keys.sort()).toEqual([accessor, second].sort())
    expect(JSON.stringify(body)).not.toContain('hvs.')
  })

  test.each<[string, object, readonly unknown[]]>([
    ['lookup', { token: 'hvs.x' }, [403, { errors: ['bad token'] }]],
    ['lookup', {}, [400, { errors: ['missing token ID'] }]],
    ['lookup-accessor', { accessor: 'x' }, [400, { errors: [wrapped('invalid accessor')] }]],
    ['lookup-accessor', {}, [400, { errors: [wrapped('missing accessor')] }]],
    ['renew', { token: 'hvs.x' }, [400, { errors: ['token not found'] }]],
    ['revoke', {}, [400, { errors: ['missing token ID'] }]],
  ])('%s %j', async (path, body, expected) => {
    expect(outcome(await world.manage('POST', `auth/token/${path}`, body))).toEqual(expected)
  })

  test.each(['lookup', 'lookup-accessor', 'renew', 'renew-accessor', 'revoke', 'revoke-accessor'])(
    '%s is not for who has logged in, nor for who has no token',
    async (path) => {
      const body = { token, accessor }
      for (const by of [token, 'x', null])
        expect(outcome(await world.ask('POST', `auth/token/${path}`, body, { token: by }))).toEqual(GONE)
      expect((await lookup(token)).status).toBe(200)
    },
  )

  test('nor for anybody where there are no administrators', async () => {
    const issuer = new TestIssuer([east.record()], { VAULT_TOKEN_KEY })
    const headers = { 'x-vault-token': await world.admin.token(issuer) }
    const answer = await issuer.fetch('/v1/auth/token/accessors?list=true', { headers })
    expect(answer.status).toBe(403)
  })
})

describe('T-12, T-18: a state that is foreign, or gives no answer', () => {
  test('503, and no token is given', async () => {
    await world.setUp()
    const token = await world.logIn(await jwt())
    const { stamp } = world.issuer.deps.config.keys
    const states = (tokenState: TokenStoreDeps['tokenState'], change = {}) =>
      new TokenStore({ stamp: { ...stamp, ...change }, shards: SHARDS, tokenState })
    const real = world.issuer.deps.tokens
    const deps = world.issuer.deps as { tokens: TokenStore }
    deps.tokens = states(world.issuer.tokens.stub, { trustDomain: 'other.example' })
    const answer = await lookup(token)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, expect.any(String)])
    const failing = {
      use: () => Promise.reject(new TypeError('secret')),
      create: () => Promise.reject(new TypeError()),
    }
    deps.tokens = states(() => failing as never)
    const failed = await lookup(token)
    expect([failed.status, (await world.login(await jwt())).status]).toEqual([503, 503])
    expect(JSON.stringify(failed.body) + world.issuer.book.text).not.toContain('secret')
    deps.tokens = real
    expect((await lookup(token)).status).toBe(200)
  })
})
