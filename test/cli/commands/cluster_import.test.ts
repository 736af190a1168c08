/**
 * `cluster import` and `cluster check`. The API server here is a fake, over real TLS: it publishes a real key and answers
 * access reviews from a list. test/interop/cli_cluster.test.ts has the real one.
 */

import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { startAdminApi } from '../../support/admin_api.ts'
import { cli, Folder } from '../../support/cli.ts'
import { createCa, type TestCa } from '../../support/pki.ts'
import type { TlsPair } from '../../support/plain_workerd.ts'
import { findPieceOf, makeTokenKey, type TokenKey } from '../../support/tokens.ts'

const TOKEN = 'bearer-token-of-the-administrator-0123456789'
const SHARED = 'https://kubernetes.default.svc.cluster.local'
const folder = new Folder()
let ca: TestCa
let client: TlsPair
let key: TokenKey
let server: string
let proxy: string
let stop: () => void

/** What the fake says, and what it saw. */
const state = {
  discovery: {} as unknown,
  jwks: {} as unknown,
  status: 200,
  allowed: () => true as unknown,
  requests: [] as { url: string; bearer: string | undefined; subject: string | undefined; body: unknown }[],
}

beforeAll(async () => {
  ca = await createCa()
  client = await ca.issue('administrator')
  key = await makeTokenKey('RS256')
  const tls = await ca.issue('localhost', '127.0.0.1')
  const handle: RequestListener = async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = chunks.length > 0 ? JSON.parse(Buffer.concat(chunks).toString()) : null
    const { authorization } = request.headers
    state.requests.push({ url: request.url ?? '', bearer: authorization, subject: subjectOf(request), body })
    const answers: Record<string, () => unknown> = {
      '/.well-known/openid-configuration': () => state.discovery,
      '/openid/v1/jwks': () => state.jwks,
      '/apis/authorization.k8s.io/v1/subjectaccessreviews': () => ({ status: { allowed: state.allowed() } }),
      '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews': () => ({ status: { allowed: state.allowed() } }),
    }
    const answer = answers[(request.url ?? '').replace(/^\/k8s\/clusters\/c-1/, '')]
    const type = request.url?.endsWith('/jwks') ? 'application/jwk-set+json' : 'application/json'
    const status = !answer ? 404 : request.headers.accept?.includes(type) ? state.status : 406
    response.writeHead(status, { 'content-type': type })
    response.end(JSON.stringify(answer?.() ?? {}))
  }
  const secure = createServer(
    { key: tls.key, cert: tls.certificate, ca: ca.certificate, requestCert: true, rejectUnauthorized: false },
    handle,
  )
  const plain = createHttpServer(handle)
  await new Promise<void>((listening) => secure.listen(0, '127.0.0.1', listening))
  await new Promise<void>((listening) => plain.listen(0, '127.0.0.1', listening))
  server = `https://127.0.0.1:${(secure.address() as AddressInfo).port}`
  proxy = `http://127.0.0.1:${(plain.address() as AddressInfo).port}`
  stop = () => {
    secure.close()
    plain.close()
  }
})
afterAll(() => {
  stop()
  folder.remove()
})
beforeEach(() => {
  state.discovery = { issuer: SHARED, jwks_uri: 'https://10.0.0.1/openid/v1/jwks' }
  state.jwks = { keys: [{ ...key.publicJwk, x5c: ['MII'] }] }
  state.status = 200
  state.allowed = () => true
  state.requests = []
})

function subjectOf(request: IncomingMessage): string | undefined {
  const certificate = (request.socket as TLSSocket).getPeerCertificate?.()
  return certificate?.subject?.CN as string | undefined
}

const base64 = (text: string) => Buffer.from(text).toString('base64')

/** A kubeconfig whose context `eu` is the fake. */
function kubeconfig({
  cluster = {},
  user = { token: TOKEN },
  more = {},
}: {
  cluster?: object
  user?: object | null
  more?: object
} = {}) {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'eu',
    preferences: {},
    contexts: [{ name: 'eu', context: { cluster: 'fake', ...(user && { user: 'admin' }), namespace: 'default' } }],
    clusters: [{ name: 'fake', cluster: { server, 'certificate-authority-data': base64(ca.certificate), ...cluster } }],
    users: user ? [{ name: 'admin', user }] : [],
    ...more,
  }
}
const imported = (file: string, ...more: string[]) => cli(['cluster', 'import', '--kubeconfig', file, ...more])

describe('cluster import --kubeconfig', () => {
  test('prints a Cluster with the issuer and the public keys, and nothing else that the cluster published', async () => {
    const { code, stdout } = await imported(folder.write(kubeconfig()))
    expect(code).toBe(0)
    expect(parse(stdout)).toEqual({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'eu' },
      spec: { issuer: SHARED, jwks: { inline: { keys: [key.publicJwk] } } },
    })
    expect(state.requests.map(({ url }) => url)).toEqual(['/.well-known/openid-configuration', '/openid/v1/jwks'])
  })

  test('T-10: without a binding it says that the worker cannot reach the cluster, and what does not work', async () => {
    const { stderr } = await imported(folder.write(kubeconfig()))
    for (const text of [
      'cannot reach this cluster',
      'online attestation',
      'liveness',
      'node attestation',
      'registrations',
    ])
      expect(stderr).toContain(text)
  })

  test('with a binding the record has the connection, and there is nothing to say', async () => {
    const { stdout, stderr } = await imported(
      folder.write(kubeconfig()),
      ...['--binding', 'CLUSTER_EU', '--name', 'europe', '--audience', 'spiffe-edge-eu', '--audience', 'spire-server'],
      ...['--service-account-allow', 'spire:agent'],
    )
    expect(parse(stdout)).toMatchObject({
      metadata: { name: 'europe' },
      spec: {
        connection: { url: server, binding: 'CLUSTER_EU' },
        audiences: ['spiffe-edge-eu', 'spire-server'],
        serviceAccountAllowList: ['spire:agent'],
      },
    })
    expect(stderr).toBe('')
  })

  test('T-3: an issuer that many clusters share wants an audience of its own', async () => {
    expect((await imported(folder.write(kubeconfig()), '--binding', 'CLUSTER_EU')).stderr).toContain('--audience')
    state.discovery = { issuer: 'https://eu.example.org' }
    expect((await imported(folder.write(kubeconfig()), '--binding', 'CLUSTER_EU')).stderr).toBe('')
  })

  test('node attestation without a connection is said to be refused', async () => {
    const { code, stderr } = await imported(folder.write(kubeconfig()), '--service-account-allow', 'spire:agent')
    expect(code).toBe(0)
    expect(stderr).toContain(
      'the worker will refuse this: Cluster eu: spec.serviceAccountAllowList: needs spec.connection',
    )
  })

  test('--output json', async () => {
    expect(JSON.parse((await imported(folder.write(kubeconfig()), '-o', 'json')).stdout)).toMatchObject({
      kind: 'Cluster',
    })
  })

  test('--apply applies it, unless the worker would refuse it', async () => {
    const api = await startAdminApi()
    const more = ['--apply', '--issuer', api.issuer, '--token-file', folder.write('a.b.c')]
    expect(await imported(folder.write(kubeconfig()), ...more)).toMatchObject({
      code: 0,
      stdout: 'Cluster/eu created\n',
    })
    expect(api.applied[0]?.objects[0]?.spec.issuer).toBe(SHARED)
    const refused = await imported(folder.write(kubeconfig()), '--service-account-allow', 'spire:agent', ...more)
    expect([refused.code, refused.stdout, api.applied.length]).toEqual([1, '', 1])
    await api.stop()
  })
})

describe('who is asking', () => {
  test.each<[string, () => object]>([
    ['a token', () => ({ token: TOKEN })],
    [
      'a token file, beside the kubeconfig',
      () => ({ tokenFile: folder.write(`${TOKEN}\n`).slice(folder.path.length + 1) }),
    ],
    ['a token file before a token', () => ({ token: 'old', tokenFile: folder.write(TOKEN) })],
  ])('%s', async (_, user) => {
    expect((await imported(folder.write(kubeconfig({ user: user() })))).code).toBe(0)
    expect(state.requests[0]?.bearer).toBe(`Bearer ${TOKEN}`)
  })

  test.each<[string, () => object]>([
    [
      'in the kubeconfig',
      () => ({ 'client-certificate-data': base64(client.certificate), 'client-key-data': base64(client.key) }),
    ],
    [
      'in files',
      () => ({ 'client-certificate': folder.write(client.certificate), 'client-key': folder.write(client.key) }),
    ],
  ])('a client certificate %s', async (_, user) => {
    expect((await imported(folder.write(kubeconfig({ user: user() })))).code).toBe(0)
    expect(state.requests[0]).toMatchObject({ subject: 'administrator', bearer: undefined })
  })

  test('the CA in a file, YAML, another context, and a path in the URL', async () => {
    const config = `
apiVersion: v1
kind: Config
contexts:
  - name: other
    context: {cluster: none, user: none}
  - name: prod
    context: {cluster: c, user: u}
clusters:
  - name: c
    cluster: {server: "${server}/k8s/clusters/c-1/", certificate-authority: ${folder.write(ca.certificate)}}
users:
  - name: u
    user: {token: ${TOKEN}}
`
    const { code, stdout } = await imported(folder.write(config), '--context', 'prod')
    expect([code, parse(stdout).metadata.name]).toEqual([0, 'prod'])
  })

  test('a certificate for another name, with tls-server-name and without', async () => {
    const wrong = await imported(folder.write(kubeconfig({ cluster: { 'tls-server-name': 'kubernetes.example.org' } })))
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining('another name') })
    const right = await imported(folder.write(kubeconfig({ cluster: { 'tls-server-name': 'localhost' } })))
    expect(right.code).toBe(0)
  })

  test('kubectl proxy: http on this machine, without a credential', async () => {
    const cluster = { server: proxy, 'certificate-authority-data': '' }
    expect((await imported(folder.write(kubeconfig({ cluster, user: null })))).code).toBe(0)
    const withUser = await imported(folder.write(kubeconfig({ cluster })))
    expect(withUser).toMatchObject({ code: 1, stderr: expect.stringContaining('not sent over http') })
    expect((await imported(folder.write(kubeconfig({ cluster, user: null })), '--binding', 'CLUSTER_EU')).code).toBe(1)
  })

  test('a CA that is not that of the server, whatever the environment says', async () => {
    // Node would take any certificate then, and whoever is in between could hand out keys.
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
    onTestFinished(() => void vi.unstubAllEnvs())
    const other = await createCa('another')
    for (const cluster of [
      { 'certificate-authority-data': base64(other.certificate) },
      { 'certificate-authority-data': '' },
    ]) {
      const { code, stdout, stderr } = await imported(folder.write(kubeconfig({ cluster })))
      expect([code, stdout]).toEqual([1, ''])
      expect(stderr).toContain('not trusted')
    }
    expect(state.requests).toEqual([])
  })
})

describe('a kubeconfig that is refused, before anybody is asked', () => {
  const change = (more: object) => () => kubeconfig({ more })
  test.each<[string, () => object | string, RegExp]>([
    ['insecure-skip-tls-verify', () => kubeconfig({ cluster: { 'insecure-skip-tls-verify': true } }), /in between/],
    ['a proxy', () => kubeconfig({ cluster: { 'proxy-url': 'http://proxy' } }), /proxy/],
    [
      'an exec plugin',
      () => kubeconfig({ user: { exec: { command: 'touch', args: ['/tmp/x'] } } }),
      /no program is run/,
    ],
    ['an auth-provider', () => kubeconfig({ user: { 'auth-provider': { name: 'gcp' } } }), /auth-provider/],
    ['a password', () => kubeconfig({ user: { username: 'a', password: 'hunter2-hunter2-hunter2' } }), /username/],
    ['impersonation', () => kubeconfig({ user: { token: TOKEN, as: 'root' } }), /impersonated/],
    ['an unknown field', () => kubeconfig({ user: { token: TOKEN, mystery: 1 } }), /mystery/],
    [
      'a certificate without its key',
      () => kubeconfig({ user: { 'client-certificate-data': base64('x') } }),
      /needs its key/,
    ],
    ['a token over two lines', () => kubeconfig({ user: { token: `${TOKEN}\r\nx-evil: 1` } }), /characters/],
    ['no current context', change({ 'current-context': '' }), /current-context/],
    ['a context that is not there', change({ 'current-context': 'us' }), /no context us/],
    ['a cluster that is not there', change({ clusters: [] }), /no cluster fake/],
    ['a user that is not there', change({ users: [] }), /no user admin/],
    [
      'a cluster twice',
      () => ({ ...kubeconfig(), clusters: [...kubeconfig().clusters, ...kubeconfig().clusters] }),
      /twice/,
    ],
    ['http to somewhere', () => kubeconfig({ cluster: { server: 'http://10.0.0.1' } }), /not https/],
    ['no server', () => kubeconfig({ cluster: { server: '' } }), /no server/],
    ['a password in the URL', () => kubeconfig({ cluster: { server: 'https://a:b@127.0.0.1' } }), /user information/],
    ['a list', () => '[]', /no kubeconfig/],
    ['two documents', () => `${JSON.stringify(kubeconfig())}\n---\na: 1\n`, /no kubeconfig/],
    ['nothing', () => '', /no kubeconfig/],
    ['a key twice', () => `users: []\nusers: []\n`, /DUPLICATE_KEY/],
    ['aliases', () => `a: &a [x]\nb: *a\n`, /alias/],
    ['deep nesting', () => `a: ${'['.repeat(50_000)}`, /nested too deeply|not YAML/],
    ['too much', () => `# ${'x'.repeat(1024 * 1024)}`, /too large/],
  ])('%s', async (_, config, message) => {
    const { code, stdout, stderr } = await imported(folder.write(config()))
    expect([code, stdout, state.requests]).toEqual([1, '', []])
    expect(stderr).toMatch(message)
    for (const secret of [TOKEN, 'hunter2-hunter2-hunter2']) expect(findPieceOf(secret, stderr)).toBeNull()
  })

  test('a key that OpenSSL cannot read is not repeated', async () => {
    const secret = '-----BEGIN PRIVATE KEY-----\nsecret-secret-secret-secret\n-----END PRIVATE KEY-----'
    const user = { 'client-certificate-data': base64(client.certificate), 'client-key-data': base64(secret) }
    const { code, stderr } = await imported(folder.write(kubeconfig({ user })))
    expect(code).toBe(1)
    expect(findPieceOf(secret, stderr)).toBeNull()
  })

  test('a name of a context that no record can have', async () => {
    const more = { 'current-context': 'a:b', contexts: [{ name: 'a:b', context: { cluster: 'fake', user: 'admin' } }] }
    expect(await imported(folder.write(kubeconfig({ more })))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--name'),
    })
  })
})

describe('an API server whose answers cannot be used', () => {
  test.each<[string, () => object, RegExp]>([
    ['401', () => Object.assign(state, { status: 401 }), /does not know who/],
    ['403', () => Object.assign(state, { status: 403 }), /may not \(403\)/],
    ['500', () => Object.assign(state, { status: 500 }), /answers 500/],
    ['no issuer', () => Object.assign(state, { discovery: {} }), /no issuer/],
    ['no keys', () => Object.assign(state, { jwks: {} }), /no keys/],
    ['an empty set', () => Object.assign(state, { jwks: { keys: [] } }), /no key that can be used/],
    ['a private key', () => Object.assign(state, { jwks: { keys: [{ ...key.publicJwk, d: 'AQ' }] } }), /private key/],
    ['a kid twice', () => Object.assign(state, { jwks: { keys: [key.publicJwk, key.publicJwk] } }), /twice/],
  ])('%s', async (_, change, message) => {
    change()
    const { code, stdout, stderr } = await imported(folder.write(kubeconfig()))
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(message)
    expect(findPieceOf(TOKEN, stderr)).toBeNull()
  })
})

describe('cluster import --spire', () => {
  const hcl = (clusters: string) => `
server {
  bind_address = "0.0.0.0"
  trust_domain = "example.org"
  federation { bundle_endpoint { port = 8443 } }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  NodeAttestor "k8s_psat" {
    plugin_data {
      clusters = {
${clusters}
      }
    }
  }
}
`
  const spire = (text: string | object, ...more: string[]) =>
    cli(['cluster', 'import', '--spire', folder.write(text), ...more])

  test("SPIRE's own example: the allow list, its default audience, and what is left to do", async () => {
    const { code, stdout, stderr } = await spire(
      hcl('"MyCluster" = { service_account_allow_list = ["production:spire-agent"] }'),
    )
    expect(code).toBe(0)
    expect(parse(stdout)).toEqual({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'mycluster' },
      spec: { audiences: ['spire-server'], serviceAccountAllowList: ['production:spire-agent'] },
    })
    for (const text of [
      'was MyCluster in SPIRE',
      'spec.issuer',
      'kubectl get --raw /openid/v1/jwks',
      'spec.connection',
    ]) {
      expect(stderr).toContain(text)
      expect(stdout).toContain(text)
    }
  })

  test('every setting, and a kubeconfig that is there', async () => {
    folder.write(kubeconfig(), 'kube/config')
    const { code, stdout, stderr } = await spire(
      hcl(`"eu" = {
        service_account_allow_list = ["spire:agent", "spire:other"]
        audience = []
        kube_config_file = "kube/config"
        allowed_node_label_keys = ["topology.kubernetes.io/zone"]
        allowed_pod_label_keys = ["app"]
        use_pod_uid_for_agent_id = true
      }`),
      ...['--binding', 'eu=CLUSTER_EU'],
    )
    expect([code, stderr]).toEqual([0, ''])
    expect(parse(stdout).spec).toEqual({
      issuer: SHARED,
      jwks: { inline: { keys: [key.publicJwk] } },
      connection: { url: server, binding: 'CLUSTER_EU' },
      audiences: [],
      serviceAccountAllowList: ['spire:agent', 'spire:other'],
      allowedNodeLabelKeys: ['topology.kubernetes.io/zone'],
      allowedPodLabelKeys: ['app'],
      usePodUIDForAgentID: true,
    })
  })

  test('T-10: a kubeconfig but no binding', async () => {
    folder.write(kubeconfig(), 'kube/config')
    const { stderr } = await spire(
      hcl('eu = { service_account_allow_list = ["a:b"] kube_config_file = "kube/config" }'),
    )
    expect(stderr).toContain('cannot reach this cluster')
    expect(stderr).toContain('the worker will refuse this')
  })

  const settings = { service_account_allow_list: ['spire:agent'] }
  const attestor = (clusters: unknown) => ({ k8s_psat: { plugin_data: { clusters } } })
  test.each<[string, object | string]>([
    [
      'a block alone',
      'NodeAttestor "k8s_psat" { plugin_data { clusters { eu { service_account_allow_list = ["spire:agent"] } } } }',
    ],
    ['JSON', { plugins: { NodeAttestor: attestor({ eu: settings }) } }],
    [
      'JSON with lists, as the Helm chart writes it',
      { plugins: { NodeAttestor: [{ join_token: {} }, attestor([{ eu: settings }])] } },
    ],
    ['JSON of the block alone', { NodeAttestor: attestor({ eu: [settings] }) }],
  ])('%s', async (_, text) => {
    const { code, stdout } = await spire(text)
    expect([code, parse(stdout).metadata.name]).toEqual([0, 'eu'])
    expect(parse(stdout).spec.serviceAccountAllowList).toEqual(['spire:agent'])
  })

  test('several clusters, with names and bindings of their own', async () => {
    const text = hcl('"A" = { service_account_allow_list = ["a:a"] }\n"b c" = { service_account_allow_list = ["b:b"] }')
    expect(await spire(text)).toMatchObject({ code: 1, stderr: expect.stringContaining('--name b c=<name>') })
    const { stdout } = await spire(text, '--name', 'b c=bc', '--binding', 'A=CLUSTER_A')
    const objects = parseAllDocuments(stdout).map((document) => document.toJS())
    expect(objects.map(({ metadata }) => metadata.name)).toEqual(['a', 'bc'])
    expect(stdout).toContain('binding: CLUSTER_A')
    expect(JSON.parse((await spire(text, '--name', 'b c=bc', '-o', 'json')).stdout)).toHaveLength(2)
  })

  test('what is not complete is not applied', async () => {
    const text = hcl('eu = { service_account_allow_list = ["a:b"] }')
    const { code, stdout, stderr } = await spire(text, '--apply', '--issuer', 'http://127.0.0.1:1')
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toContain('not applied')
  })

  const one = 'service_account_allow_list = ["a:b"]'
  test.each([
    ['no k8s_psat', 'plugins { NodeAttestor "join_token" { plugin_data {} } }', /no NodeAttestor "k8s_psat"/],
    ['nothing', '', /no NodeAttestor/],
    ['no plugin_data', 'NodeAttestor "k8s_psat" {}', /one plugin_data/],
    [
      'two of them',
      'NodeAttestor "k8s_psat" { plugin_data {} }\nNodeAttestor "k8s_psat" { plugin_data {} }',
      /needs one/,
    ],
    ['no clusters', 'NodeAttestor "k8s_psat" { plugin_data {} }', /no clusters/],
    ['a cluster twice', hcl(`"A" = { ${one} }\n"A" = { ${one} }`), /twice/],
    [
      'a cluster twice in lists',
      { NodeAttestor: { k8s_psat: { plugin_data: { clusters: [{ A: settings }, { A: settings }] } } } },
      /twice/,
    ],
    ['two clusters that become one', hcl(`"A" = { ${one} }\n"a" = { ${one} }`), /both be a/],
    ['a setting twice', hcl(`A = { ${one}\n ${one} }`), /twice/],
    ['an unknown setting', hcl(`A = { ${one}\n service_account_whitelist = [] }`), /no setting/],
    ['an unknown setting of the plugin', 'NodeAttestor "k8s_psat" { plugin_data { x = 1 } }', /no setting/],
    ['T-14: an empty allow list', hcl('A = { service_account_allow_list = [] }'), /nobody could attest/],
    ['no allow list', hcl('A = {}'), /nobody could attest/],
    ['a list that is none', hcl('A = { service_account_allow_list = "a:b" }'), /is no list/],
    ['numbers', hcl('A = { service_account_allow_list = [1] }'), /not made of strings/],
    ['a variable', hcl(`A = { ${one}\n audience = ["$AUDIENCE"] }`), /\$ in it/],
    ['no boolean', hcl(`A = { ${one}\n use_pod_uid_for_agent_id = "yes" }`), /neither true nor false/],
    ['a cluster that is none', hcl('A = 1'), /no settings/],
    ['no HCL', 'plugins {', /at line 1/],
    ['hostile names', hcl(`"A\\u001b[2J" = { ${one} }`), /\\u\{1b\}/],
  ])('%s is refused', async (_, text, message) => {
    const { code, stdout, stderr } = await spire(text)
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(message)
  })

  test.each([
    [[]],
    [['--kubeconfig', 'x', '--spire', 'y']],
    [['--spire', 'x', '--audience', 'a']],
    [['--spire', 'x', '--binding', 'CLUSTER_X']],
    [['--spire', 'x', '--binding', 'A=KEY_STATE']],
    [['--spire', 'x', '--name', 'A=a', '--name', 'A=b']],
    [['--kubeconfig', 'x', '--binding', 'KEY_STATE']],
    [['--kubeconfig', 'x', '--name', 'a', '--name', 'b']],
  ])('%j is wrong usage', async (argv) => {
    expect((await cli(['cluster', 'import', ...argv])).code).toBe(2)
  })

  test('a name that SPIRE does not have', async () => {
    expect((await spire(hcl(`A = { ${one} }`), '--name', 'B=b')).code).toBe(2)
  })
})

describe('cluster check', () => {
  const check = (...more: string[]) => cli(['cluster', 'check', '--kubeconfig', folder.write(kubeconfig()), ...more])
  const REVIEWER = 'spiffe://example.org/spiffe-edge/reviewer/eu'

  test('T-9: asks for the reviewer, by the name that RBAC knows it by, and for just these permissions', async () => {
    const { code, stdout, stderr } = await check('--user', REVIEWER)
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toContain('create tokenreviews.authentication.k8s.io   yes')
    const reviews = state.requests.map(({ body }) => (body as { spec: Record<string, unknown> }).spec)
    expect(reviews).toEqual(
      [
        { resourceAttributes: { verb: 'create', group: 'authentication.k8s.io', resource: 'tokenreviews' } },
        { resourceAttributes: { verb: 'get', group: '', resource: 'pods' } },
        { resourceAttributes: { verb: 'get', group: '', resource: 'nodes' } },
        { resourceAttributes: { verb: 'list', group: 'kubespiffe.io', resource: 'workloadregistrations' } },
        { nonResourceAttributes: { verb: 'get', path: '/openid/v1/jwks' } },
      ].map((attributes) => ({ user: REVIEWER, groups: ['system:authenticated'], ...attributes })),
    )
  })

  test('what is missing, and the file that grants it', async () => {
    let asked = 0
    state.allowed = () => asked++ !== 2
    const { code, stdout, stderr } = await check('--user', REVIEWER)
    expect(code).toBe(1)
    expect(stdout).toMatch(/get nodes +no/)
    expect(stderr).toMatch(new RegExp(`missing for ${REVIEWER}: get nodes\n.*deploy/kubernetes/reviewer.yaml`))
  })

  test("without --user it is the kubeconfig's own", async () => {
    const { code, stdout } = await check('--output', 'json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toHaveLength(5)
    expect(state.requests.every(({ url }) => url.endsWith('/selfsubjectaccessreviews'))).toBe(true)
  })

  test('an answer that says nothing is no yes', async () => {
    state.allowed = () => 'true'
    expect((await check()).code).toBe(1)
  })

  test('a user who may not ask', async () => {
    state.status = 403
    expect((await check()).code).toBe(1)
  })

  test('a user that is no SPIFFE ID is wrong usage, and so is no kubeconfig', async () => {
    expect((await check('--user', 'system:admin')).code).toBe(2)
    expect((await cli(['cluster', 'check'])).code).toBe(2)
  })
})
