/** Clients of Vault and the built worker in plain workerd, which is killed while it gives and takes back tokens. */

import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cli, Folder } from '../support/cli.ts'
import { FakeCluster } from '../support/cluster.ts'
import { type Answer, send } from '../support/exchange.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { findPieceOf } from '../support/tokens.ts'

const VAULT_TOKEN_KEY = Buffer.alloc(32, 7).toString('base64')
/** How often the worker is killed. Each time something else is under way. */
const KILLS = 8
/** Clients at a time. */
const CLIENTS = 12

const now = () => Math.floor(Date.now() / 1000)

describe('T-23: tokens of Vault’s kind', () => {
  const folder = new Folder()
  const keyFile = `${folder.path}/alice.key`
  const state = `${folder.path}/state`
  let east: FakeCluster
  let port: number
  let issuer: string
  let deployed: string
  let worker: PlainWorkerd

  const start = async () => {
    worker = await startPlainWorkerd({
      entry: 'development',
      env: {
        MODE: 'development',
        ISSUER: issuer,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'local:one',
        VAULT_TOKEN_KEY,
      },
      manifest: deployed,
      state,
      port,
    })
  }
  const ask = (method: string, path: string, token?: string, body?: object): Promise<Answer> =>
    send(`${issuer}/v1/${path}`, {
      method,
      headers: { ...(token !== undefined && { 'x-vault-token': token }) },
      ...(body && { body: JSON.stringify(body) }),
    })
  const manage = async (method: string, path: string, body?: object) => {
    const { stdout } = await cli(['admin', 'token', '--issuer', issuer, '--key-file', keyFile])
    return ask(method, path, stdout.trim(), body)
  }
  const login = async () => ask('POST', 'auth/kubernetes/login', undefined, { role: 'demo', jwt: await jwt() })
  const jwt = () => east.token({ now: now() })
  const lookup = async (token: string) => (await ask('GET', 'auth/token/lookup-self', token)).status

  beforeAll(async () => {
    east = await FakeCluster.create('east')
    port = await freePort()
    issuer = `http://127.0.0.1:${port}`
    const { stdout } = await cli(['admin', 'create', '--name', 'alice', '--issuer', issuer, '--key-file', keyFile])
    deployed = `${stdout}\n${manifest(east.record())}`
    await start()
    const spiffe = { spiffe_id: 'spiffe://example.org/ns/{namespace}/sa/{serviceAccountName}', svid_audiences: 'db' }
    const role = { bound_service_account_names: '*', bound_service_account_namespaces: '*', token_ttl: '1h' }
    for (const [path, body] of [
      ['sys/auth/kubernetes', { type: 'kubernetes' }],
      ['auth/kubernetes/config', { kubernetes_host: 'https://elsewhere', cluster: 'east' }],
      ['auth/kubernetes/role/demo', { ...role, ...spiffe }],
      ['identity/oidc/role/db', { key: 'default', client_id: 'db' }],
    ] as const)
      expect((await manage('POST', path, body)).status).toBeLessThan(300)
  })
  afterAll(async () => {
    await worker.stop()
    rmSync(folder.path, { recursive: true })
  })

  test('a token is given, and an SVID for it; neither is in the log', async () => {
    const { status, text } = await login()
    expect(status).toBe(200)
    const { client_token: token } = JSON.parse(text).auth
    const svid = await ask('GET', 'identity/oidc/token/db', token)
    expect(svid.status).toBe(200)
    const { token: jwtSvid } = JSON.parse(svid.text).data
    expect(JSON.parse(atob(jwtSvid.split('.')[1])).aud).toBe('db')
    await expect.poll(() => worker.log.filter(({ decision }) => decision === 'issued')).toHaveLength(1)
    const log = JSON.stringify(worker.log)
    for (const secret of [token, jwtSvid.split('.')[2]]) expect(findPieceOf(secret, log)).toBeNull()
  })

  test('plain workerd says where a client is, whatever its headers say', async () => {
    const bound = { bound_service_account_names: '*', bound_service_account_namespaces: '*' }
    const from = async (cidrs: string) => {
      await manage('POST', 'auth/kubernetes/role/bound', { ...bound, token_bound_cidrs: cidrs })
      const headers = { 'cf-connecting-ip': '203.0.113.1', 'x-forwarded-for': '203.0.113.1' }
      const body = JSON.stringify({ role: 'bound', jwt: await jwt() })
      return (await send(`${issuer}/v1/auth/kubernetes/login`, { method: 'POST', headers, body })).status
    }
    expect([await from('127.0.0.0/8'), await from('203.0.113.0/24')]).toEqual([200, 403])
  })

  test('killed at whatever step: what was revoked stays so, and nothing that was given is lost', async () => {
    const given = new Set<string>()
    /** Answered. Of what was asked for and not answered, nobody knows. */
    const revoked = new Set<string>()
    const unknown = new Set<string>()
    let stopping = false

    async function client(): Promise<void> {
      while (!stopping) {
        try {
          const { status, text } = await login()
          if (status !== 200) continue
          const { client_token: token } = JSON.parse(text).auth
          given.add(token)
          if (Math.random() < 0.5) continue
          unknown.add(token)
          if ((await ask('POST', 'auth/token/revoke-self', token)).status !== 204) continue
          revoked.add(token)
          unknown.delete(token)
        } catch {
          // The worker is gone: so is this client, until it is there again.
          return
        }
      }
    }

    for (let kill = 0; kill < KILLS; kill++) {
      stopping = false
      const clients = Array.from({ length: CLIENTS }, client)
      const before = given.size
      await expect.poll(() => given.size - before, { interval: 5 }).toBeGreaterThan(5 + kill * 7)
      await worker.stop('SIGKILL')
      stopping = true
      await Promise.all(clients)
      await start()
      for (const token of given)
        if (!unknown.has(token)) expect([kill, await lookup(token)]).toEqual([kill, revoked.has(token) ? 403 : 200])
    }
    expect(revoked.size).toBeGreaterThan(10)
    expect(given.size - revoked.size).toBeGreaterThan(10)
  })
})
