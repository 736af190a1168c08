/** Requirements 10.2 to 10.4: mounts, their config and roles, by the API that Vault has for them. */

import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { FakeCluster } from '../../support/cluster.ts'
import { KUBERNETES_HOST, VAULT_TOKEN_KEY, type VaultResponse, VaultWorld } from '../vault_client.ts'

let east: FakeCluster
beforeAll(async () => {
  east = await FakeCluster.create('east')
})

let world: VaultWorld
beforeEach(async () => {
  world = await VaultWorld.create(east)
})

const outcome = ({ status, body }: VaultResponse) => [status, body]
const refused = ({ status, body }: VaultResponse) => [status, ...(body.errors ?? ['not refused'])]
const NAMES = { bound_service_account_names: 'a', bound_service_account_namespaces: 'b' }
const role = (body: object, name = 'demo') =>
  world.manage('POST', `auth/kubernetes/role/${name}`, { ...NAMES, ...body })
const readRole = async (name = 'demo') => (await world.manage('GET', `auth/kubernetes/role/${name}`)).body.data
const NO_AUDIENCE = (name: string) =>
  `Role ${name} does not have an audience configured. While audiences are not required, consider specifying one if your use case would benefit from additional JWT claim verification.`

describe('T-11: who configures', () => {
  test.each([
    ['POST', 'sys/auth/kubernetes'],
    ['GET', 'sys/auth'],
    ['DELETE', 'sys/auth/kubernetes'],
    ['GET', 'sys/auth/kubernetes/tune'],
    ['PUT', 'auth/kubernetes/config'],
    ['GET', 'auth/kubernetes/config'],
    ['POST', 'auth/kubernetes/role/demo'],
    ['GET', 'auth/kubernetes/role/demo'],
    ['DELETE', 'auth/kubernetes/role/demo'],
    ['GET', 'auth/kubernetes/role?list=true'],
    ['POST', 'identity/oidc/role/web'],
    ['GET', 'auth/token/accessors?list=true'],
  ])('%s %s is for administrators alone', async (method, path) => {
    await world.setUp()
    const before = await world.admin.list(world.issuer)
    const held = await world.logIn(await east.token())
    for (const token of [null, 'root', held, await east.token()]) {
      const answer = await world.ask(method, path, method === 'GET' ? undefined : {}, { token })
      expect(outcome(answer)).toEqual([403, { errors: ['permission denied'] }])
    }
    expect(await world.admin.list(world.issuer)).toEqual(before)
  })
})

describe('sys/auth', () => {
  test('enables, lists, tells, tunes and disables', async () => {
    const enabled = await world.manage('POST', 'sys/auth/kubernetes', {
      type: 'kubernetes',
      description: 'pods',
      config: { default_lease_ttl: '1h', max_lease_ttl: 7200, options: null },
      local: false,
      seal_wrap: false,
      options: {},
    })
    expect(outcome(enabled)).toEqual([204, ''])
    const { body } = await world.manage('GET', 'sys/auth')
    expect(Object.keys(body.data)).toEqual(['kubernetes/', 'token/'])
    const mount = body.data['kubernetes/']
    expect(mount).toMatchObject({
      type: 'kubernetes',
      description: 'pods',
      accessor: expect.stringMatching(/^auth_kubernetes_[0-9a-f]{8}$/),
    })
    expect(mount.config).toMatchObject({ default_lease_ttl: 3600, max_lease_ttl: 7200 })
    expect(body['kubernetes/']).toEqual(mount)
    expect(outcome(await world.manage('POST', 'sys/auth/kubernetes/tune', { max_lease_ttl: '3h' }))).toEqual([204, ''])
    const tuned = await world.manage('GET', 'sys/auth/kubernetes/tune')
    expect(tuned.body.data).toMatchObject({ default_lease_ttl: 3600, max_lease_ttl: 10_800, description: 'pods' })
    expect(outcome(await world.manage('DELETE', 'sys/auth/kubernetes'))).toEqual([204, ''])
    expect(Object.keys((await world.manage('GET', 'sys/auth')).body.data)).toEqual(['token/'])
    expect(outcome(await world.manage('DELETE', 'sys/auth/kubernetes'))).toEqual([204, ''])
  })

  test('is what spiffe-edge lists and removes too', async () => {
    await world.setUp()
    const { objects } = await world.admin.list(world.issuer)
    const kinds = objects
      .filter(({ source }) => source === 'applied')
      .map(({ object: { kind, metadata } }) => [kind, metadata.name])
    expect(kinds).toEqual([
      ['VaultMount', 'kubernetes'],
      ['VaultRole', 'kubernetes/demo'],
    ])
    const remove = kinds.map(([kind = '', name = '']) => ({ kind, name }))
    expect((await world.admin.apply(world.issuer, { remove }))[0]).toBe(200)
    expect((await world.login(await east.token())).status).toBe(404)
  })

  test.each<[string, string, object, number, string]>([
    ['without a type', 'x', {}, 400, 'backend type must be specified as a string'],
    ['of another type', 'x', { type: 'userpass' }, 400, 'plugin not found in the catalog: only kubernetes is there'],
    ['that is there', 'kubernetes', { type: 'kubernetes' }, 400, 'path is already in use at kubernetes/'],
    ['below another', 'kubernetes/x', { type: 'kubernetes' }, 400, 'path is already in use at kubernetes/'],
    ['where tokens are', 'token', { type: 'kubernetes' }, 400, 'not a path that a mount can have here'],
    ['below it', 'token/x', { type: 'kubernetes' }, 400, 'not a path that a mount can have here'],
  ])('no mount %s', async (_, path, body, status, text) => {
    await world.setUp()
    expect(refused(await world.manage('POST', `sys/auth/${path}`, body))).toEqual([status, text])
  })

  test('a mount of the deployed manifest is nobody’s to change', async () => {
    const mount = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'VaultMount',
      metadata: { name: 'fixed' },
      spec: { config: { kubernetes_host: KUBERNETES_HOST, cluster: 'east' } },
    }
    world = await VaultWorld.create(east, {}, [mount])
    expect((await world.manage('POST', 'auth/fixed/config', { kubernetes_host: KUBERNETES_HOST })).status).toBe(400)
    expect((await world.manage('DELETE', 'sys/auth/fixed')).status).toBe(400)
    // Its roles may be written all the same.
    expect((await world.manage('POST', 'auth/fixed/role/demo', { ...NAMES, audience: 'x' })).status).toBe(200)
  })

  test('a manifest with a mount needs VAULT_TOKEN_KEY', async () => {
    const mount = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'VaultMount',
      metadata: { name: 'fixed' },
      spec: {},
    }
    await expect(VaultWorld.create(east, {}, [mount], { VAULT_TOKEN_KEY: '' })).rejects.toThrow(
      /VAULT_TOKEN_KEY: is not set/,
    )
    await expect(VaultWorld.create(east, {}, [], { VAULT_TOKEN_KEY: `${VAULT_TOKEN_KEY} short` })).rejects.toThrow(
      'VAULT_TOKEN_KEY: entry 2 is not 32 octets in base64',
    )
  })
})

describe('§10.3: config', () => {
  const config = (body: object) => world.manage('PUT', 'auth/kubernetes/config', body)
  const read = async () => (await world.manage('GET', 'auth/kubernetes/config')).body.data
  beforeEach(async () => {
    await world.manage('POST', 'sys/auth/kubernetes', { type: 'kubernetes' })
  })

  test('is a 404 until it is written', async () => {
    expect(outcome(await world.manage('GET', 'auth/kubernetes/config'))).toEqual([404, { errors: [] }])
  })

  test('VC-1: a write replaces the whole', async () => {
    await config({ kubernetes_host: KUBERNETES_HOST, issuer: 'x', disable_iss_validation: false, audiences: 'v' })
    expect(await read()).toMatchObject({ issuer: 'x', disable_iss_validation: false, audiences: ['v'] })
    await config({ kubernetes_host: KUBERNETES_HOST })
    expect(await read()).toEqual({
      kubernetes_host: KUBERNETES_HOST,
      kubernetes_ca_cert: '',
      pem_keys: [],
      disable_local_ca_jwt: false,
      issuer: '',
      disable_iss_validation: true,
      token_reviewer_jwt_set: false,
      use_annotations_as_alias_metadata: false,
      cluster: 'east',
      audiences: [],
      allow_api_server_audience: false,
    })
  })

  test.each<[string, object, string]>([
    ['no host', {}, 'no host provided'],
    ['an empty host', { kubernetes_host: '' }, 'no host provided'],
    [
      'VC-2: a CA that is none',
      { kubernetes_host: KUBERNETES_HOST, kubernetes_ca_cert: 'x' },
      'The provided CA PEM data contains no valid certificates',
    ],
    [
      'VC-3: a key that is none',
      { kubernetes_host: KUBERNETES_HOST, pem_keys: ['x'] },
      'data does not contain any valid RSA or ECDSA public keys',
    ],
    [
      'T-10: a host that nobody has deployed',
      { kubernetes_host: 'https://attacker.example' },
      'kubernetes_host is not where a Cluster that is known here has its API server: name the Cluster with cluster=…',
    ],
    [
      'T-10: another port of a known one',
      { kubernetes_host: 'https://10.0.0.1:6444' },
      'kubernetes_host is not where a Cluster that is known here has its API server: name the Cluster with cluster=…',
    ],
    [
      'a cluster that there is not',
      { kubernetes_host: KUBERNETES_HOST, cluster: 'west' },
      'there is no Cluster of the name that cluster gives',
    ],
    [
      'T-7: the audience of an API server',
      { kubernetes_host: KUBERNETES_HOST, audiences: 'k8s' },
      "VaultMount kubernetes: spec.config.audiences: k8s is an API server's",
    ],
    [
      'T-7: an audience of our own',
      { kubernetes_host: KUBERNETES_HOST, audiences: 'https://issuer.example.org/admin' },
      'VaultMount kubernetes: spec.config.audiences: https://issuer.example.org/admin is reserved',
    ],
    [
      'what is not there',
      { kubernetes_host: KUBERNETES_HOST, use_annotations_as_alias_metadata: true },
      'use_annotations_as_alias_metadata is not supported: there are no aliases with metadata',
    ],
    [
      'a wrong type',
      { kubernetes_host: KUBERNETES_HOST, disable_local_ca_jwt: 'perhaps' },
      `Field validation failed: error converting input for field "disable_local_ca_jwt": cannot parse '' as bool: strconv.ParseBool: parsing "perhaps": invalid syntax`,
    ],
  ])('refuses %s, and nothing has changed', async (_, body, text) => {
    await config({ kubernetes_host: KUBERNETES_HOST, issuer: 'before' })
    expect(refused(await config(body))).toEqual([400, text])
    expect((await read()).issuer).toBe('before')
  })

  test('a reviewer’s token is sent nowhere but to the cluster that the deployment knows', async () => {
    const answer = await config({
      kubernetes_host: 'https://attacker.example',
      cluster: 'east',
      token_reviewer_jwt: 'secret',
    })
    expect(answer.status).toBe(200)
    await role({ bound_service_account_names: '*', bound_service_account_namespaces: '*' })
    await world.logIn(await east.token())
    expect(new Set(world.api.calls.map(({ url }) => new URL(url).origin))).toEqual(new Set([KUBERNETES_HOST]))
  })

  test('VC-3: pem_keys: a token must be signed with one of them', async () => {
    const spki = async (cluster: FakeCluster) => {
      const key = await crypto.subtle.importKey(
        'jwk',
        cluster.key.publicJwk as JsonWebKey,
        { name: 'ECDSA', namedCurve: 'P-256' },
        true,
        ['verify'],
      )
      const der = new Uint8Array((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer)
      return `-----BEGIN PUBLIC KEY-----\n${der.toBase64()}\n-----END PUBLIC KEY-----`
    }
    const [own, other] = [await spki(east), await spki(await FakeCluster.create('west'))]
    const everybody = { bound_service_account_names: '*', bound_service_account_namespaces: '*' }
    for (const [keys, status] of [
      [[own], 200],
      [[other, own], 200],
      [[other], 403],
    ] as const) {
      await config({ kubernetes_host: KUBERNETES_HOST, pem_keys: keys })
      await role(everybody)
      expect((await world.login(await east.token())).status).toBe(status)
      expect((await read()).pem_keys).toEqual(keys)
    }
  })

  test('warns of what is otherwise than in Vault', async () => {
    const ca = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'
    const { status, body } = await config({
      kubernetes_host: KUBERNETES_HOST,
      kubernetes_ca_cert: ca,
      disable_iss_validation: false,
      unknown: 1,
    })
    expect(status).toBe(200)
    expect(body.warnings).toEqual([
      expect.stringMatching(/^kubernetes_ca_cert is kept and not used/),
      expect.stringMatching(/^issuer is not set/),
      expect.stringMatching(/allow_api_server_audience=true$/),
      'Endpoint ignored these unrecognized parameters: [unknown]',
    ])
  })
})

describe('§10.4: roles', () => {
  beforeEach(async () => {
    await world.setUp()
  })

  test('VR-6: what a new one reads', async () => {
    await role({}, 'New.One')
    expect(await readRole('new.one')).toEqual({
      bound_service_account_names: ['a'],
      bound_service_account_namespaces: ['b'],
      bound_service_account_namespace_selector: '',
      alias_name_source: 'serviceaccount_uid',
      token_ttl: 0,
      token_max_ttl: 0,
      token_explicit_max_ttl: 0,
      token_period: 0,
      token_policies: [],
      token_bound_cidrs: [],
      token_no_default_policy: false,
      token_num_uses: 0,
      token_type: 'default',
    })
  })

  test('VR-5: without an audience there is a warning; with one and a TTL nothing', async () => {
    expect((await role({ token_ttl: 60 })).body.warnings).toEqual([NO_AUDIENCE('demo')])
    expect(outcome(await role({ audience: 'vault', token_ttl: 60 }))).toEqual([204, ''])
    expect((await readRole()).audience).toBe('vault')
    expect((await role({ audience: '', token_ttl: 60 })).status).toBe(200)
    expect(await readRole()).not.toHaveProperty('audience')
  })

  test('a write merges, but for the selector', async () => {
    await role({ token_ttl: 60, bound_service_account_namespace_selector: '{"matchLabels":{"a":"b"}}' })
    await world.manage('PUT', 'auth/kubernetes/role/demo', { token_policies: 'x' })
    expect(await readRole()).toMatchObject({
      token_ttl: 60,
      token_policies: ['x'],
      bound_service_account_names: ['a'],
      bound_service_account_namespace_selector: '',
    })
  })

  test('VR-7: lists and durations in all their forms', async () => {
    await role({
      bound_service_account_names: ['a ', 'b*'],
      bound_service_account_namespaces: ' c, d ',
      token_ttl: '1h30m',
      token_max_ttl: '7200',
      token_period: '1d',
      token_explicit_max_ttl: '1.5s',
      token_bound_cidrs: '10.0.0.0/8,192.0.2.1/32,2001:db8::1',
      token_policies: 'A, b,,a',
      token_num_uses: '3',
      token_no_default_policy: 'true',
    })
    expect(await readRole()).toMatchObject({
      bound_service_account_names: ['a', 'b*'],
      bound_service_account_namespaces: ['c', 'd'],
      token_ttl: 5400,
      token_max_ttl: 7200,
      token_period: 86_400,
      token_explicit_max_ttl: 1,
      token_bound_cidrs: ['10.0.0.0/8', '192.0.2.1', '2001:db8::1'],
      token_policies: ['A', 'b', '', 'a'],
      token_num_uses: 3,
      token_no_default_policy: true,
    })
  })

  test('former names set the present ones, and are read until those are written', async () => {
    await role({ policies: 'B,a,A', ttl: 60, max_ttl: '2m', num_uses: 2, bound_cidrs: '10.0.0.0/8', period: 0 })
    const former = { policies: ['a', 'b'], ttl: 60, max_ttl: 120, num_uses: 2, bound_cidrs: ['10.0.0.0/8'] }
    const read = await readRole()
    expect(read).toMatchObject({
      ...former,
      token_policies: ['a', 'b'],
      token_ttl: 60,
      token_max_ttl: 120,
      token_num_uses: 2,
    })
    expect(read).not.toHaveProperty('period')
    await world.manage('PUT', 'auth/kubernetes/role/demo', { token_ttl: 30, ttl: 99, token_policies: 'c' })
    const after = await readRole()
    expect(after).toMatchObject({ ttl: 30, token_ttl: 30, token_policies: ['c'], max_ttl: 120 })
    expect(after).not.toHaveProperty('policies')
  })

  const BATCH = "'token_type' cannot be 'batch' or 'default_batch' when set to generate"
  test.each<[string, object, string]>([
    ['no names', { bound_service_account_names: '' }, '"bound_service_account_names" can not be empty'],
    ['* among names', { bound_service_account_names: '*,a' }, 'can not mix "*" with values'],
    ['* among namespaces', { bound_service_account_namespaces: ['a', '*'] }, 'can not mix "*" with values'],
    [
      'neither namespaces nor selector',
      { bound_service_account_namespaces: '' },
      '"bound_service_account_namespaces" can not be empty if "bound_service_account_namespace_selector" is not set',
    ],
    [
      'matchExpressions',
      { bound_service_account_namespace_selector: '{"matchExpressions":[]}' },
      'invalid "bound_service_account_namespace_selector" configured',
    ],
    [
      'a selector that is none',
      { bound_service_account_namespace_selector: 'nonsense' },
      'invalid "bound_service_account_namespace_selector" configured',
    ],
    [
      'a selector that uses an alias',
      { bound_service_account_namespace_selector: 'matchLabels: &a {x: y}\nz: *a' },
      'invalid "bound_service_account_namespace_selector" configured',
    ],
    ['ttl above max_ttl', { token_ttl: 2, token_max_ttl: 1 }, "'token_ttl' cannot be greater than 'token_max_ttl'"],
    ['the same by former names', { ttl: 2, max_ttl: 1 }, 'token ttl should not be greater than token max ttl'],
    [
      'negative times',
      { token_ttl: -1 },
      'error converting input for field "token_ttl": cannot provide negative value \'-1\'',
    ],
    ['negative uses', { token_num_uses: -1 }, "'token_num_uses' cannot be negative"],
    [
      'a period above the mount’s',
      { token_period: '769h' },
      `token period of '"769h0m0s"' is greater than the backend's maximum lease TTL of '"768h0m0s"'`,
    ],
    ['batch with a period', { token_type: 'batch', token_period: 1 }, `${BATCH} periodic tokens`],
    ['batch with uses', { token_type: 'batch', token_num_uses: 1 }, `${BATCH} tokens with limited use count`],
    [
      'batch with uses by a former name',
      { token_type: 'batch', num_uses: 1 },
      `${BATCH} tokens with limited use count`,
    ],
    ['a type that there is not', { token_type: 'default-service' }, `invalid 'token_type' value "default-service"`],
    [
      'an alias that there is not',
      { alias_name_source: 'x' },
      'invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name',
    ],
    [
      'an address that is none',
      { token_bound_cidrs: 'x' },
      'error parsing address "x": Unable to convert "x" to an IPv4 or IPv6 address, or a UNIX Socket',
    ],
    [
      'both ways to bind',
      { token_bound_cidrs: '10.0.0.1', token_strictly_bind_ip: true },
      "'token_strictly_bind_ip' cannot be used with 'token_bound_cidrs'",
    ],
    [
      'a duration that is none',
      { token_ttl: 'abc' },
      'error converting input for field "token_ttl": time: invalid duration "abc"',
    ],
    ['T-11: root', { token_policies: 'root' }, 'VaultRole kubernetes/demo: spec.token_policies: root is not given'],
    [
      'T-7: our own audience',
      { audience: 'https://issuer.example.org' },
      'VaultRole kubernetes/demo: spec.audience: https://issuer.example.org is reserved',
    ],
    [
      'T-7: that of SVIDs for an API server',
      { audience: 'k8s' },
      "VaultRole kubernetes/demo: spec.audience: k8s is an API server's",
    ],
    [
      'T-6: the API server’s own',
      { audience: 'https://east.example.org' },
      "VaultRole kubernetes/demo: spec.audience: https://east.example.org is the API server's own: needs allow_api_server_audience in the mount's config",
    ],
    [
      'T-5: a reserved SPIFFE ID',
      { spiffe_id: 'spiffe://example.org/spire/server', svid_audiences: 'web' },
      'VaultRole kubernetes/demo: spec.spiffe_id: is reserved',
    ],
    [
      'an ID of another trust domain',
      { spiffe_id: 'spiffe://other.example/x', svid_audiences: 'web' },
      'VaultRole kubernetes/demo: spec.spiffe_id: not a SPIFFE ID: missing trust domain of spiffe://example.org',
    ],
    [
      'T-2: the ID of another service account',
      { spiffe_id: 'spiffe://example.org/ns/b/sa/other', svid_audiences: 'web' },
      'VaultRole kubernetes/demo: spec.spiffe_id: names a namespace, service account or cluster that the selectors and spec.clusters do not',
    ],
    [
      'audiences without an ID',
      { svid_audiences: 'web' },
      'VaultRole kubernetes/demo: spec.spiffe_id: is empty, so there are no SVIDs',
    ],
    [
      'T-7: an attestation audience for SVIDs',
      { spiffe_id: 'spiffe://example.org/x', svid_audiences: 'spiffe-edge' },
      'VaultRole kubernetes/demo: spec.svid_audiences: spiffe-edge is an attestation audience',
    ],
  ])('§12.10: %s is refused, and the role is as it was', async (_, body, text) => {
    await role({ token_ttl: 7, audience: 'vault' })
    const before = await readRole()
    expect(refused(await role(body))).toEqual([400, text])
    expect(await readRole()).toEqual(before)
  })

  test.each(['-a', 'a-', '.a', 'a:b', 'a%20b', 'é', 'a/b'])('VH-4: %s is no name', async (name) => {
    expect((await role({}, name)).status).toBe(404)
  })

  test.each(['..%2Fx', 'a..b', '../x/role/y'])('VH-4: nor is %s, from which a path could go up', async (name) => {
    const { status, body } = await role({}, name)
    expect([status, body.errors]).toEqual(
      name.startsWith('../') ? [404, body.errors] : [400, ['relative paths not supported']],
    )
  })

  test('LIST, by both ways, in order, a part at a time; and nothing is a 404', async () => {
    for (const name of ['c', 'A', 'b']) await role({}, name)
    const list = async (query = '') =>
      (await world.manage('GET', `auth/kubernetes/role?list=true${query}`)).body.data.keys
    expect(await list()).toEqual(['a', 'b', 'c', 'demo'])
    expect(await list('&after=a&limit=2')).toEqual(['b', 'c'])
    const slash = await world.manage('GET', 'auth/kubernetes/role/?list=true')
    expect(slash.body.data.keys).toHaveLength(4)
    for (const name of await list()) await world.manage('DELETE', `auth/kubernetes/role/${name}`)
    expect(outcome(await world.manage('GET', 'auth/kubernetes/role?list=true'))).toEqual([404, { errors: [] }])
  })

  test('DELETE is a 204 also where there is none, and reading that is a 404', async () => {
    expect(outcome(await world.manage('DELETE', 'auth/kubernetes/role/other'))).toEqual([204, ''])
    expect(outcome(await world.manage('DELETE', 'auth/kubernetes/role/DEMO'))).toEqual([204, ''])
    expect(outcome(await world.manage('GET', 'auth/kubernetes/role/demo'))).toEqual([404, { errors: [] }])
  })

  test('many at once all happen', async () => {
    const answers = await Promise.all(Array.from({ length: 4 }, (_, index) => role({}, `r${index}`)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  })

  test('VR-4: of a max TTL above the mount’s there is a warning', async () => {
    const { body } = await role({ token_max_ttl: '800h', audience: 'v', token_ttl: 1 })
    expect(body.warnings[0]).toMatch(/^max_ttl is greater than the system or backend mount's maximum TTL value/)
  })
})

describe('identity/oidc/role', () => {
  const put = (body: object) => world.manage('POST', 'identity/oidc/role/web', body)

  test('is a name for an audience', async () => {
    expect(outcome(await put({ key: 'default', client_id: 'web' }))).toEqual([204, ''])
    const { body } = await world.manage('GET', 'identity/oidc/role/web')
    expect(body.data).toEqual({ client_id: 'web', key: 'default', template: '', ttl: 0 })
    expect((await world.manage('GET', 'identity/oidc/role?list=true')).body.data.keys).toEqual(['web'])
    expect(outcome(await world.manage('DELETE', 'identity/oidc/role/web'))).toEqual([204, ''])
    expect((await world.manage('GET', 'identity/oidc/role/web')).status).toBe(404)
  })

  test.each([
    [{ client_id: 'web' }, 'the key parameter is required'],
    [{ key: 'other', client_id: 'web' }, 'cannot find key: there is one, which is called default'],
    [
      { key: 'default', client_id: 'web', template: '{"a":1}' },
      'template is not supported: claims are those of a JWT-SVID',
    ],
    [{ key: 'default' }, 'client_id is required: it is the audience of the JWT-SVID'],
  ])('refuses %j', async (body, text) => {
    expect(refused(await put(body))).toEqual([400, text])
  })

  test('warns of a TTL, which is another’s to say', async () => {
    expect((await put({ key: 'default', client_id: 'web', ttl: '24h' })).body.warnings).toHaveLength(1)
  })
})

describe('what clients probe', () => {
  test.each(['sys/health', 'sys/seal-status', 'sys/init', 'sys/leader'])(
    '%s needs no token, and is in no log',
    async (path) => {
      const { status, body } = await world.ask('GET', path)
      expect(status).toBe(200)
      if (path !== 'sys/leader') expect(body.initialized).toBe(true)
      expect(world.issuer.book.events).toEqual([])
    },
  )

  test('sys/health?standbyok=true, and HEAD', async () => {
    expect((await world.ask('GET', 'sys/health?standbyok=true&perfstandbyok=true')).body.sealed).toBe(false)
    expect((await world.ask('HEAD', 'sys/health')).status).toBe(200)
    expect((await world.ask('POST', 'sys/health', {})).status).toBe(405)
  })

  test('sys/internal/ui/mounts tells nobody without a token of any mount', async () => {
    await world.setUp()
    expect((await world.ask('GET', 'sys/internal/ui/mounts')).body.data).toEqual({ auth: {}, secret: {} })
    expect((await world.ask('GET', 'sys/internal/ui/mounts/auth/kubernetes')).status).toBe(403)
    const token = await world.logIn(await east.token())
    const found = await world.ask('GET', 'sys/internal/ui/mounts/auth/kubernetes/role/demo', undefined, { token })
    expect([found.status, found.body.data.path, found.body.data.type]).toEqual([200, 'kubernetes/', 'kubernetes'])
    expect((await world.ask('GET', 'sys/internal/ui/mounts/secret/x', undefined, { token })).status).toBe(403)
    expect((await world.manage('GET', 'sys/internal/ui/mounts/auth/kubernetes')).status).toBe(200)
  })
})
