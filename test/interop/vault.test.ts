/**
 * The clients of Vault and OpenBao, as they are, at the built worker; and behind it a real kube-apiserver, which reviews what
 * they log in with.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { cliProcess, Folder } from '../support/cli.ts'
import { makeCsr } from '../support/csr.ts'
import { send } from '../support/exchange.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import type { LineProgram } from '../support/lines.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd, type TlsPair } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { missing } from '../support/tools.ts'
import { startVaultAgent, startVaultClient, startVaultCore, VAULT_CLIENTS } from '../support/vault_peers.ts'

/** Where the record of the cluster has its API server. */
const KUBERNETES_HOST = 'https://10.0.0.1:6443'
const AUDIENCE = 'spiffe-edge'
const ROLE = {
  bound_service_account_names: 'web',
  bound_service_account_namespaces: 'shop',
  token_ttl: '10m',
  spiffe_id: 'spiffe://example.org/ns/{namespace}/sa/{serviceAccountName}',
  svid_audiences: 'db',
  x509_svid: true,
}

/** What the library has returned. */
function dataOf<Data>(answer: Record<string, unknown> | undefined): Data {
  return (answer as { data: Data }).data
}

describe.skipIf(missing('go') || missing('python'))('clients of Vault, and a real kube-apiserver', () => {
  const folder = new Folder()
  const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-state-'))
  const caFile = join(folder.path, 'ca.pem')
  const jwtFile = join(folder.path, 'token')
  let ca: TestCa
  let tls: TlsPair
  let port: number
  let issuer: string
  let admin: string
  let apiserver: KubeApiserver
  let worker: PlainWorkerd | undefined

  const record = () => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name: 'shop' },
    spec: {
      issuer: SERVICE_ACCOUNT_ISSUER,
      jwks: { connection: true },
      connection: { url: KUBERNETES_HOST, binding: 'CLUSTER_SHOP' },
      apiServer: { certificateAuthority: ca.certificate },
    },
  })
  const startWorker = async (address: string, clusterCa: string) => {
    await worker?.stop()
    worker = await startPlainWorkerd({
      entry: 'development',
      env: {
        MODE: 'development',
        ISSUER: issuer,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'local:one',
        CA_KEY: 'local:ca',
        VAULT_TOKEN_KEY: Buffer.alloc(32, 7).toString('base64'),
      },
      manifest: `${admin}\n${manifest(record())}`,
      clusters: { CLUSTER_SHOP: { address, ca: clusterCa } },
      tls,
      port,
      state,
    })
  }
  const administrator = async () => {
    const keyFile = ['--key-file', `${folder.path}/alice.key`]
    const { stdout } = await cliProcess(['admin', 'token', '--issuer', issuer, ...keyFile], ca.certificate)
    return stdout.trim()
  }
  const writeToken = async (audience = AUDIENCE) =>
    writeFileSync(jwtFile, await apiserver.podToken('shop', 'web', 'web-0', audience))
  /** @returns a client that may do everything */
  const configured = async (name: (typeof VAULT_CLIENTS)[number], mount: string, role: object = {}, config = {}) => {
    const client = await startVaultClient(name, issuer, caFile)
    const answers = await client.ask([
      { step: 'set-token', token: await administrator() },
      { step: 'enable', mount },
      { step: 'write', path: `auth/${mount}/config`, data: { kubernetes_host: KUBERNETES_HOST, ...config } },
      { step: 'write', path: `auth/${mount}/role/demo`, data: { ...ROLE, ...role } },
      { step: 'write', path: 'identity/oidc/role/db', data: { key: 'default', client_id: 'db' } },
    ])
    expect(answers.filter(({ ok }) => !ok)).toEqual([])
    return client
  }
  const login = (mount: string) => ({ step: 'login', mount, role: 'demo', jwtFile })

  beforeAll(async () => {
    ca = await createCa()
    tls = await ca.issue('localhost', '127.0.0.1')
    port = await freePort()
    issuer = `https://localhost:${port}`
    writeFileSync(caFile, ca.certificate)
    const create = ['admin', 'create', '--name', 'alice', '--issuer', issuer, '--key-file', `${folder.path}/alice.key`]
    admin = (await cliProcess(create, ca.certificate)).stdout
    // The first worker only writes the file that the apiserver starts with.
    await startWorker('127.0.0.1:1', ca.certificate)
    const file = await send(`${issuer}/structured-auth.yaml?cluster=shop&mapping=sub`, { ca: ca.certificate })
    apiserver = await startKubeApiserver(file.text, createServiceAccountKey('RS256'))
    await startWorker(new URL(apiserver.server).host, apiserver.ca)
    const role = readFileSync('deploy/kubernetes/reviewer.yaml', 'utf8')
    await apiserver.kubectl(
      ['apply', '-f', '-'],
      role.replace(
        'spiffe://TRUST_DOMAIN/spiffe-edge/reviewer/CLUSTER',
        'spiffe://example.org/spiffe-edge/reviewer/shop',
      ),
    )
    await apiserver.createPod('shop', 'web', 'web-0')
    await writeToken()
    const client = await configured('vault', 'first')
    // The issuer has to have been found before a token of it is taken.
    await vi.waitFor(async () => expect((await client.ask([login('first')]))[0]).toMatchObject({ ok: true }), {
      timeout: 60_000,
      interval: 1000,
    })
    await client.stop()
  })
  afterAll(async () => {
    await apiserver?.stop()
    await worker?.stop()
    rmSync(state, { recursive: true })
    rmSync(folder.path, { recursive: true })
  })

  test.each(VAULT_CLIENTS)('%s configures, logs in, looks up, renews, reads SVIDs and revokes', async (name) => {
    const mount = `of-${name}`
    const client = await configured(name, mount)
    const [config, role, listed, mounts] = await client.ask([
      { step: 'read', path: `auth/${mount}/config` },
      { step: 'read', path: `auth/${mount}/role/demo` },
      // By a method of its own, which plain workerd does not know.
      ...(name === 'hvac' || name === 'node-vault'
        ? [{ step: 'read', path: `auth/${mount}/role/demo` }]
        : [{ step: 'list', path: `auth/${mount}/role` }]),
      { step: 'mounts' },
    ])
    expect(config).toMatchObject({
      ok: true,
      data: { data: { kubernetes_host: KUBERNETES_HOST, token_reviewer_jwt_set: false } },
    })
    expect(role).toMatchObject({ ok: true, data: { data: { token_ttl: 600, bound_service_account_names: ['web'] } } })
    expect(listed).toMatchObject({ ok: true })
    expect(JSON.stringify(mounts)).toContain(`${mount}/`)

    const { csr } = await makeCsrPem()
    const [given, looked, renewed, svid, certificate] = await client.ask([
      login(mount),
      { step: 'lookup-self' },
      { step: 'renew-self', increment: 60 },
      { step: 'read', path: 'identity/oidc/token/db' },
      { step: 'write', path: 'pki/sign/demo', data: { csr } },
    ])
    expect(given).toMatchObject({
      ok: true,
      data: { auth: { lease_duration: 600, renewable: true, metadata: { role: 'demo' } } },
    })
    expect(looked).toMatchObject({
      ok: true,
      data: { data: { path: `auth/${mount}/login`, display_name: `of-${name}-shop-web` } },
    })
    expect(renewed).toMatchObject({ ok: true, data: { auth: { lease_duration: 60 } } })
    const { token } = dataOf<{ data: { token: string } }>(svid).data
    expect(JSON.parse(atob(token.split('.')[1] ?? '')).sub).toBe('spiffe://example.org/ns/shop/sa/web')
    expect(dataOf<{ data: { certificate: string } }>(certificate).data.certificate).toMatch(
      /^-----BEGIN CERTIFICATE-----/,
    )

    const { auth } = dataOf<{ auth: { client_token: string; accessor: string } }>(given)
    const [revoked, again] = await client.ask([{ step: 'revoke-self' }, { step: 'lookup-self' }])
    expect(revoked).toMatchObject({ ok: true, status: 204 })
    expect(again).toMatchObject({ ok: false, status: 403, error: expect.stringContaining('permission denied') })

    const [, , found, ended, gone, disabled] = await client.ask([
      login(mount),
      { step: 'set-token', token: await administrator() },
      { step: 'lookup', token: auth.client_token },
      { step: 'revoke-accessor', accessor: auth.accessor },
      { step: 'delete', path: `auth/${mount}/role/demo` },
      { step: 'disable', mount },
    ])
    expect(found).toMatchObject({ ok: false, status: 403 })
    expect(ended?.ok).toBe(true)
    expect([gone, disabled]).toMatchObject([{ ok: true }, { ok: true }])
    await client.stop()
  })

  test.each(['vault', 'openbao'] as const)('%s watches a token until it has been renewed', async (name) => {
    const client = await configured(name, `watched-by-${name}`, { token_ttl: 3 })
    const [given, watched] = await client.ask([login(`watched-by-${name}`), { step: 'watch' }])
    expect(given?.ok).toBe(true)
    expect(watched).toMatchObject({ ok: true, data: { auth: { renewable: true } } })
    await client.stop()
  })

  test('Vault Agent keeps a token in its file, and gets another when that one is revoked', async () => {
    const client = await configured('vault', 'of-agent', { token_ttl: 3 })
    const sinkFile = join(folder.path, 'sink')
    const agent = await startVaultAgent({ address: issuer, caFile, mount: 'of-agent', role: 'demo', jwtFile, sinkFile })
    await expect.poll(() => existsSync(sinkFile)).toBe(true)
    const first = readFileSync(sinkFile, 'utf8')
    const [, revoked] = await client.ask([{ step: 'set-token', token: first }, { step: 'revoke-self' }])
    expect(revoked).toMatchObject({ ok: true, status: 204 })
    await expect.poll(() => readFileSync(sinkFile, 'utf8')).not.toBe(first)
    await agent.stop()
    await client.stop()
  })

  test('T-23: the SVID verifies by the discovery document that Vault’s path serves', async () => {
    const client = await configured('vault', 'verified')
    const [, svid] = await client.ask([login('verified'), { step: 'read', path: 'identity/oidc/token/db' }])
    const { token } = dataOf<{ data: { token: string } }>(svid).data
    const found = await send(`${issuer}/v1/identity/oidc/.well-known/openid-configuration`, { ca: ca.certificate })
    const { issuer: named } = JSON.parse(found.text)
    const keys = await send(`${issuer}/v1/identity/oidc/.well-known/keys`, { ca: ca.certificate })
    const { payload } = await jwtVerify(token, createLocalJWKSet(JSON.parse(keys.text)), {
      issuer: named,
      audience: 'db',
    })
    expect(payload.sub).toBe('spiffe://example.org/ns/shop/sa/web')
    await client.stop()
  })

  describe('VC-4: who asks the API server', () => {
    const REVIEWER = JSON.stringify({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'reviewers' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'spiffe-edge-reviewer' },
      subjects: [{ kind: 'ServiceAccount', name: 'reviewer', namespace: 'shop' }],
    })

    test('a token that is configured at run time', async () => {
      await apiserver.kubectl(['-n', 'shop', 'create', 'serviceaccount', 'reviewer'])
      await apiserver.kubectl(['apply', '-f', '-'], REVIEWER)
      const token = (await apiserver.kubectl(['-n', 'shop', 'create', 'token', 'reviewer'])).trim()
      const client = await configured('vault', 'given', {}, { token_reviewer_jwt: token })
      expect((await client.ask([login('given')]))[0]).toMatchObject({ ok: true })
      const wrong = await configured('vault', 'wrong', {}, { token_reviewer_jwt: `${token}x` })
      expect((await wrong.ask([login('wrong')]))[0]).toMatchObject({ ok: false, status: 403 })
      await Promise.all([client.stop(), wrong.stop()])
    })

    test('the pod itself, with the token that every pod has, if it may; its token then ends with that', async () => {
      const config = { disable_local_ca_jwt: true, allow_api_server_audience: true }
      const client = await configured('vault', 'client', { token_ttl: '20h' }, config)
      await writeToken(SERVICE_ACCOUNT_ISSUER)
      const [refused] = await client.ask([login('client')])
      expect(refused).toMatchObject({ ok: false, status: 403 })
      await apiserver.kubectl([
        'create',
        'clusterrolebinding',
        'clients',
        '--clusterrole=spiffe-edge-reviewer',
        '--serviceaccount=shop:web',
      ])
      await expect
        .poll(async () => (await client.ask([login('client')]))[0], { interval: 1000 })
        .toMatchObject({ ok: true })
      const [given] = await client.ask([login('client')])
      const { lease_duration: lease } = dataOf<{ auth: { lease_duration: number } }>(given).auth
      expect(lease).toBeLessThanOrEqual(3600)
      await writeToken()
      await client.stop()
    })
  })

  test('VR-1: a namespace is bound by its labels, which the worker reads as itself', async () => {
    const selector = {
      bound_service_account_namespaces: '',
      bound_service_account_namespace_selector: 'matchLabels: {team: shop}',
    }
    const client = await configured('vault', 'selected', selector)
    expect((await client.ask([login('selected')]))[0]).toMatchObject({
      ok: false,
      status: 403,
      error: expect.stringContaining('namespace not authorized'),
    })
    await apiserver.kubectl(['label', 'namespace', 'shop', 'team=shop'])
    expect((await client.ask([login('selected')]))[0]).toMatchObject({ ok: true })
    await client.stop()
  })

  test('T-8, §12.10: a deleted pod logs in no more, and its token is not renewed past its own', async () => {
    const client = await configured('vault', 'gone', { token_ttl: '2h' })
    await apiserver.createPod('shop-two', 'web', 'web-1')
    await client.ask([{ step: 'write', path: 'auth/gone/role/demo', data: { bound_service_account_namespaces: '*' } }])
    writeFileSync(jwtFile, await apiserver.podToken('shop-two', 'web', 'web-1', AUDIENCE))
    expect((await client.ask([login('gone')]))[0]).toMatchObject({ ok: true, data: { auth: { lease_duration: 7200 } } })
    await apiserver.kubectl(['-n', 'shop-two', 'delete', 'pod', 'web-1', '--grace-period=0', '--force'])
    const [renewed, svid] = await client.ask([
      { step: 'renew-self', increment: 7200 },
      { step: 'read', path: 'identity/oidc/token/db' },
    ])
    expect([renewed, svid]).toMatchObject([
      { ok: false, status: 403 },
      { ok: false, status: 403 },
    ])
    await expect
      .poll(async () => (await client.ask([login('gone')]))[0], { interval: 1000 })
      .toMatchObject({ ok: false, status: 403 })
    await expect.poll(() => worker?.log.filter(({ reason }) => reason === 'pod_gone').length).toBeGreaterThanOrEqual(2)
    await writeToken()
    await client.stop()
  })

  test('§10.5: what the API server says of real tokens is said alike by a whole Vault and here', async () => {
    const vault = await startVaultCore()
    const at = {
      theirs: await startVaultClient('vault', vault.address),
      ours: await startVaultClient('vault', issuer, caFile),
    }
    await apiserver.createPod('shop', 'other', 'other-0')
    await apiserver.createPod('shop', 'gone', 'gone-0')
    const token = (serviceAccount: string, pod: string, audience = AUDIENCE) =>
      apiserver.podToken('shop', serviceAccount, pod, audience)
    const good = await token('web', 'web-0')
    const tokens: Record<string, string> = {
      good,
      'of another service account': await token('other', 'other-0'),
      'for another audience': await token('web', 'web-0', 'other'),
      'for the API server': await token('web', 'web-0', SERVICE_ACCOUNT_ISSUER),
      'of a pod that is gone': await token('gone', 'gone-0'),
      'with another signature': good.replace(/.{6}$/, (end) => end.split('').reverse().join('')),
      'cut short': good.slice(0, -20),
      nothing: 'x',
    }
    await apiserver.kubectl(['-n', 'shop', 'delete', 'pod', 'gone-0', '--grace-period=0', '--force'])
    const everybody = { bound_service_account_names: '*', bound_service_account_namespaces: '*', audience: AUDIENCE }
    const roles: Record<string, object> = {
      everybody,
      web: { ...everybody, bound_service_account_names: 'web' },
      nobody: { ...everybody, bound_service_account_names: 'nobody' },
      elsewhere: { ...everybody, bound_service_account_namespaces: 'elsewhere' },
      others: { ...everybody, audience: 'other' },
    }
    const reviewer = (await apiserver.kubectl(['-n', 'shop', 'create', 'token', 'reviewer'])).trim()
    for (const [client, admin, config] of [
      [at.theirs, vault.rootToken, { kubernetes_host: apiserver.server, kubernetes_ca_cert: apiserver.ca }],
      [at.ours, await administrator(), { kubernetes_host: KUBERNETES_HOST }],
    ] as const) {
      const answers = await client.ask([
        { step: 'set-token', token: admin },
        { step: 'enable', mount: 'real' },
        { step: 'write', path: 'auth/real/config', data: { ...config, token_reviewer_jwt: reviewer } },
        ...Object.entries(roles).map(([role, data]) => ({ step: 'write', path: `auth/real/role/${role}`, data })),
      ])
      expect(answers.filter(({ ok }) => !ok)).toEqual([])
    }
    const said = async (client: LineProgram, role: string) => {
      const [answer] = await client.ask([{ step: 'login', mount: 'real', role, jwtFile }])
      const [, text = ''] = /Errors:\s+\* (.*)/.exec(String(answer?.error ?? '')) ?? []
      return `${answer?.ok ? 200 : answer?.status} ${text}`
    }
    // An API server forgets what it has accepted after ten seconds.
    await expect
      .poll(
        async () => {
          writeFileSync(jwtFile, tokens['of a pod that is gone'] ?? '')
          return said(at.theirs, 'everybody')
        },
        { interval: 1000 },
      )
      .toBe('403 permission denied')
    const differences: string[] = []
    let logins = 0
    for (const [name, jwt] of Object.entries(tokens)) {
      writeFileSync(jwtFile, jwt)
      for (const role of Object.keys(roles)) {
        const [theirs, ours] = [await said(at.theirs, role), await said(at.ours, role)]
        if (theirs.startsWith('200')) logins++
        if (theirs !== ours) differences.push(`a token ${name} at ${role}: ${theirs} there, ${ours} here`)
      }
    }
    // docs/vault.md: a token's signature is verified before anything that it claims is told.
    expect(differences.filter((text) => !/(?:another signature|cut short) at .* here$/.test(text))).toEqual([])
    for (const text of differences) expect(text).toContain(', 403 permission denied here')
    expect(logins).toBe(4)
    await writeToken()
    await Promise.all([at.theirs.stop(), at.ours.stop(), vault.stop()])
  })

  test('every command of docs/vault.md does what is written there', async () => {
    const blocks = [...readFileSync('docs/vault.md', 'utf8').matchAll(/```sh\n([\s\S]*?)```/g)].map(
      ([, block]) => block ?? '',
    )
    const commands = blocks
      .join('')
      .replaceAll('\\\n', ' ')
      .split('\n')
      .filter((line) => /vault (?:auth|write|read)/.test(line))
    expect(commands).toHaveLength(6)
    const client = await startVaultClient('vault', issuer, caFile)
    await client.ask([{ step: 'set-token', token: await administrator() }])
    for (const command of commands) {
      const [answer] = await client.ask([stepOf(command)])
      expect([command, answer?.error ?? '']).toEqual([command, ''])
    }
    await client.stop()

    /** By the library that Vault's command line is made of. */
    function stepOf(command: string): object {
      const words = command
        .replace(/^.*\$?\(?vault /, '')
        .replace(/\)$/, '')
        .split(/\s+/)
        .filter((word) => !word.startsWith('-field'))
      const [verb, path = '', ...parameters] = words
      if (verb === 'auth') return { step: 'enable', mount: parameters[0] ?? 'kubernetes' }
      if (path.endsWith('/login')) return login('kubernetes')
      const data = Object.fromEntries(parameters.map((parameter) => parameter.replaceAll("'", '').split(/=(.*)/s, 2)))
      return { step: verb, path, ...(verb === 'write' && { data }) }
    }
  })

  async function makeCsrPem(): Promise<{ csr: string }> {
    const { der } = await makeCsr()
    const lines =
      Buffer.from(der)
        .toString('base64')
        .match(/.{1,64}/g) ?? []
    return { csr: `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n` }
  }
})
