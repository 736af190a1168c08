/**
 * The peers of the Vault-compatible API before Vault itself: what each client needs, and that the plugin as a library
 * answers as the plugin inside of Vault. What fails here is a fault of the peers, not of ours.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FakeCluster, POD } from '../support/cluster.ts'
import { FakeApiServer } from '../support/kube_api.ts'
import type { LineProgram } from '../support/lines.ts'
import { serveOverTls, type TlsService } from '../support/tls_service.ts'
import { missing } from '../support/tools.ts'
import {
  startVaultAgent,
  startVaultClient,
  startVaultCore,
  startVaultPlugin,
  VAULT_CLIENTS,
  type VaultCore,
} from '../support/vault_peers.ts'

const ROLE = {
  bound_service_account_names: POD.serviceAccount.name,
  bound_service_account_namespaces: POD.namespace,
  audience: 'spiffe-edge',
  token_ttl: 600,
}
const now = () => Math.floor(Date.now() / 1000)

describe.skipIf(missing('go') || missing('python'))('the peers of Vault, before Vault', () => {
  let cluster: FakeCluster
  let api: TlsService
  let core: VaultCore
  let folder: string
  let jwtFile: string

  beforeAll(async () => {
    cluster = await FakeCluster.create('production')
    api = await serveOverTls(new FakeApiServer(cluster))
    core = await startVaultCore()
    folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-vault-'))
    jwtFile = join(folder, 'token')
    writeFileSync(jwtFile, await cluster.token({ now: now() }))
  })
  afterAll(async () => {
    api.stop()
    await core.stop()
    rmSync(folder, { recursive: true })
  })

  const config = () => ({ kubernetes_host: api.url, kubernetes_ca_cert: api.ca })

  async function administer(client: LineProgram, mount: string) {
    return client.ask([
      { step: 'set-token', token: core.rootToken },
      { step: 'enable', mount },
      { step: 'write', path: `auth/${mount}/config`, data: config() },
      { step: 'read', path: `auth/${mount}/config` },
      { step: 'write', path: `auth/${mount}/role/r`, data: ROLE },
      { step: 'list', path: `auth/${mount}/role` },
    ])
  }

  test.each(VAULT_CLIENTS)('%s configures, logs in, renews and revokes', async (name) => {
    const mount = `of-${name}`
    const client = await startVaultClient(name, core.address)
    const administered = await administer(client, mount)
    expect(administered.map(({ ok, status }) => [ok, status])).toEqual([
      [true, 0],
      [true, 204],
      [true, 204],
      [true, 200],
      [true, 204],
      [true, 200],
    ])
    expect(administered[3]?.data).toMatchObject({ data: { kubernetes_host: api.url, token_reviewer_jwt_set: false } })
    expect(administered[5]?.data).toMatchObject({ data: { keys: ['r'] } })

    const [login, looked, renewed, refused] = await client.ask([
      { step: 'login', mount, role: 'r', jwtFile },
      { step: 'lookup-self' },
      { step: 'renew-self', increment: 60 },
      { step: 'read', path: `auth/${mount}/config` },
    ])
    expect(login).toMatchObject({ ok: true, data: { auth: { lease_duration: 600, renewable: true } } })
    expect(looked).toMatchObject({ ok: true, data: { data: { path: `auth/${mount}/login`, type: 'service' } } })
    expect(renewed).toMatchObject({ ok: true, data: { auth: { lease_duration: 60 } } })
    expect(refused).toMatchObject({ ok: false, status: 403, error: expect.stringContaining('permission denied') })

    const [revoked, lookedAgain] = await client.ask([{ step: 'revoke-self' }, { step: 'lookup-self' }])
    expect(revoked).toMatchObject({ ok: true, status: 204 })
    expect(lookedAgain).toMatchObject({ ok: false, status: 403 })

    const [, disabled] = await client.ask([
      { step: 'set-token', token: core.rootToken },
      { step: 'disable', mount },
    ])
    expect(disabled).toMatchObject({ ok: true, status: 204 })
    await client.stop()
  })

  test.each(['vault', 'openbao'] as const)('%s watches a token until it has been renewed', async (name) => {
    const mount = `watched-by-${name}`
    const client = await startVaultClient(name, core.address)
    await administer(client, mount)
    const [login, watched] = await client.ask([{ step: 'login', mount, role: 'r', jwtFile }, { step: 'watch' }])
    expect(login?.ok).toBe(true)
    expect(watched).toMatchObject({ ok: true, data: { auth: { renewable: true } } })
    await client.stop()
  })

  test('the agent keeps a token in its file, and gets another when that one is revoked', async () => {
    const mount = 'of-agent'
    const client = await startVaultClient('vault', core.address)
    await administer(client, mount)
    await client.ask([{ step: 'write', path: `auth/${mount}/role/r`, data: { ...ROLE, token_ttl: 3 } }])
    const sinkFile = join(folder, 'sink')
    const agent = await startVaultAgent({ address: core.address, mount, role: 'r', jwtFile, sinkFile })
    await expect.poll(() => existsSync(sinkFile)).toBe(true)
    const first = readFileSync(sinkFile, 'utf8')
    const [, revoked] = await client.ask([{ step: 'set-token', token: first }, { step: 'revoke-self' }])
    expect(revoked).toMatchObject({ ok: true, status: 204 })
    await expect.poll(() => readFileSync(sinkFile, 'utf8')).not.toBe(first)
    await agent.stop()
    await client.stop()
  })

  test('the plugin as a library answers as within Vault', async () => {
    const plugin = await startVaultPlugin()
    const mount = 'of-plugin'
    await call('POST', `sys/auth/${mount}`, { type: 'kubernetes' })
    const jwt = await cluster.token({ now: now() })
    const unbound = await cluster.token({ now: now(), claims: { aud: ['other'] } })
    const questions = [
      ['read', 'config'],
      ['update', 'config', {}],
      ['update', 'config', config()],
      ['read', 'config'],
      ['delete', 'config'],
      ['list', 'role'],
      ['update', 'role/R', { ...ROLE, audience: '' }],
      ['update', 'role/R', { ...ROLE, token_ttl: 'abc' }],
      ['read', 'role/r'],
      ['update', 'role/-r', ROLE],
      ['list', 'role'],
      ['update', 'login', { role: 'none', jwt }],
      ['update', 'login', { role: 'r', jwt: 'no token' }],
      ['update', 'role/r', ROLE],
      ['update', 'login', { role: 'r', jwt: unbound }],
      ['read', 'login'],
      ['delete', 'role/r'],
      ['read', 'role/r'],
    ] as const
    const methods = { read: 'GET', update: 'POST', delete: 'DELETE', list: 'LIST' }
    for (const [op, path, data] of questions) {
      const [answer] = await plugin.ask([{ op, path, data, remoteAddr: '127.0.0.1' }])
      expect(answer, `${op} ${path}`).toEqual(await call(methods[op], `auth/${mount}/${path}`, data))
    }
    await plugin.stop()
  })

  /** @returns what the plugin would say: the one thing that differs is the number of the request */
  async function call(method: string, path: string, data?: object): Promise<object> {
    const headers = { 'x-vault-token': core.rootToken }
    const body = data === undefined ? null : JSON.stringify(data)
    const response = await fetch(`${core.address}/v1/${path}`, { method, headers, body })
    const text = await response.text()
    if (text === '') return { status: response.status, body: null }
    const answer = JSON.parse(text)
    if ('request_id' in answer) answer.request_id = '00000000-0000-0000-0000-000000000000'
    return { status: response.status, body: answer }
  }
})
