/** The main job from outside: plain workerd, the development build, a demo pod's token in, a JWT-SVID out. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const JWT = 'urn:ietf:params:oauth:token-type:jwt'

const DEVELOPMENT = {
  MODE: 'development',
  ISSUER: 'http://127.0.0.1:{port}',
  TRUST_DOMAIN: 'example.org',
  SIGNING_KEY: 'local:one',
}

async function exchange(origin: string, fields: Record<string, string> = {}): Promise<Response> {
  const subject_token = await (await fetch(`${origin}/demo/token`)).text()
  return fetch(`${origin}/token`, {
    method: 'POST',
    body: new URLSearchParams({ grant_type: EXCHANGE, subject_token_type: JWT, subject_token, ...fields }),
  })
}

function verify(issuer: string, svid: string): unknown {
  const args = ['cli/main.ts', 'verify', '--issuer', issuer, '--trust-domain', 'example.org', '--audience', 'k8s']
  return JSON.parse(execFileSync('node', args, { input: svid, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] }))
}

describe('the issuer in plain workerd', () => {
  let worker: PlainWorkerd
  beforeAll(async () => {
    worker = await startPlainWorkerd({ entry: 'development', env: DEVELOPMENT })
  })
  afterAll(() => worker.stop())

  test('a demo pod token is given to nobody who calls us by another name (DNS rebinding)', async () => {
    const { port } = new URL(worker.origin)
    const answer = await new Promise<number>((done, failed) => {
      request({ port, path: '/demo/token', headers: { host: `evil.example:${port}` } }, (response) => {
        response.resume()
        done(response.statusCode ?? 0)
      })
        .on('error', failed)
        .end()
    })
    expect(answer).toBe(404)
  })

  test('a demo pod token is exchanged for a JWT-SVID that verifies through discovery', async () => {
    const response = await exchange(worker.origin, { audience: 'k8s' })
    expect(response.status).toBe(200)
    const { access_token, ...rest } = (await response.json()) as Record<string, string>
    expect(rest).toEqual({ issued_token_type: JWT, token_type: 'Bearer', expires_in: 300 })
    expect(verify(worker.origin, access_token ?? '')).toMatchObject({
      spiffe_id: 'spiffe://example.org/ns/default/sa/web',
      audience: ['k8s'],
    })
  })

  test('TX-4: the answer is not to be stored', async () => {
    const response = await exchange(worker.origin)
    expect(response.headers.get('cache-control')).toBe('no-store')
    expect(response.headers.get('pragma')).toBe('no-cache')
  })

  test('every decision leaves exactly one line, found by the id that a refusal carries', async () => {
    const before = worker.log.length
    const response = await exchange(worker.origin, { audience: 'nobody' })
    expect(response.status).toBe(400)
    const body = (await response.json()) as Record<string, string>
    expect(body).toMatchObject({ error: 'invalid_target', reason: 'target_not_allowed' })
    await expect.poll(() => worker.log.slice(before)).toHaveLength(1)
    await expect
      .poll(() => worker.log.at(-1))
      .toMatchObject({
        event: 'decision',
        decision: 'refused',
        id: body.id,
        reason: 'target_not_allowed',
      })
  })

  test('D3: clients may keep discovery and JWKS for 30 seconds, and s-maxage is never sent', async () => {
    for (const path of ['/.well-known/openid-configuration', '/keys']) {
      const { headers } = await fetch(worker.origin + path)
      expect(headers.get('cache-control')).toBe('public, max-age=30')
      expect(headers.get('access-control-allow-origin')).toBe('*')
    }
  })

  test('an unchanged document is a 304, to GET and HEAD', async () => {
    const url = `${worker.origin}/keys`
    const etag = (await fetch(url)).headers.get('etag') ?? ''
    for (const method of ['GET', 'HEAD']) {
      expect((await fetch(url, { method, headers: { 'if-none-match': etag } })).status).toBe(304)
      expect((await fetch(url, { method, headers: { 'if-none-match': '"another"' } })).status).toBe(200)
    }
    expect(await (await fetch(url, { method: 'HEAD' })).text()).toBe('')
  })

  test('OD-10, 12.6: the documents can be read and nothing else', async () => {
    for (const path of ['/.well-known/openid-configuration', '/keys', '/structured-auth.yaml']) {
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
        const response = await fetch(worker.origin + path, { method })
        expect([method, response.status, response.headers.get('allow')]).toEqual([method, 405, 'GET, HEAD, OPTIONS'])
      }
      expect((await fetch(worker.origin + path, { method: 'OPTIONS' })).status).toBe(204)
    }
  })

  test('12.7: token exchange by GET is refused', async () => {
    const response = await fetch(`${worker.origin}/token?grant_type=${encodeURIComponent(EXCHANGE)}`)
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'POST'])
  })

  test('D8, 12.6: neither Host nor X-Forwarded-Host changes a byte of discovery', async () => {
    const { request } = await import('node:http')
    const get = (headers: Record<string, string>) =>
      new Promise<string>((done, failed) =>
        request(`${worker.origin}/.well-known/openid-configuration`, { headers }, (response) => {
          let text = ''
          response.setEncoding('utf8').on('data', (chunk) => {
            text += chunk
          })
          response.on('end', () => done(text))
        })
          .on('error', failed)
          .end(),
      )
    const usual = await get({})
    expect(JSON.parse(usual)).toMatchObject({ issuer: worker.origin, jwks_uri: `${worker.origin}/keys` })
    expect(await get({ host: 'evil.example' })).toBe(usual)
    expect(await get({ 'x-forwarded-host': 'evil.example', forwarded: 'host=evil.example' })).toBe(usual)
  })

  test('what is not there is a 404, and readiness needs a signing key', async () => {
    expect((await fetch(`${worker.origin}/nothing`)).status).toBe(404)
    expect((await fetch(`${worker.origin}/healthz`)).status).toBe(200)
    expect((await fetch(`${worker.origin}/readyz`)).status).toBe(200)
  })
})

describe('state', () => {
  const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-state-'))
  afterAll(() => rmSync(state, { recursive: true }))

  async function during<T>(
    env: Record<string, string>,
    run: (worker: PlainWorkerd) => Promise<T>,
    port?: number,
  ): Promise<T> {
    const worker = await startPlainWorkerd({
      entry: 'development',
      env: { ...DEVELOPMENT, ISSUER: 'http://127.0.0.1:9', ...env },
      state,
      ...(port && { port }),
    })
    try {
      return await run(worker)
    } finally {
      await worker.stop('SIGKILL')
    }
  }
  const kids = async ({ origin }: PlainWorkerd) => {
    const { keys } = (await (await fetch(`${origin}/keys`)).json()) as { keys: { kid: string }[] }
    return keys.map(({ kid }) => kid)
  }
  const signingKid = async ({ origin }: PlainWorkerd) => {
    const { access_token } = (await (await exchange(origin)).json()) as { access_token: string }
    return JSON.parse(Buffer.from(access_token.split('.')[0] ?? '', 'base64url').toString()).kid
  }

  test('keys outlive a restart and a kill, byte for byte', async () => {
    const read = async ({ origin }: PlainWorkerd) => (await fetch(`${origin}/keys`)).text()
    expect(await during({}, read)).toBe(await during({}, read))
  })

  test('FE-10: a key that is added is published at once, and signs in the place of another only when that is safe', async () => {
    const [one] = await during({}, kids)
    const added = await during({ SIGNING_KEY: 'local:one local:two' }, kids)
    expect(added).toHaveLength(2)
    for (const SIGNING_KEY of ['local:one local:two', 'local:two local:one', 'local:two'])
      await during({ SIGNING_KEY }, async (worker) => {
        expect([await kids(worker), await signingKid(worker)]).toEqual([added, one])
      })
  })

  test('T-12: a storage of another issuer or trust domain is not used', async () => {
    for (const env of [{ ISSUER: 'http://127.0.0.1:10' }, { TRUST_DOMAIN: 'example.com' }])
      await during(env, async (worker) => {
        expect((await fetch(`${worker.origin}/keys`)).status).toBe(503)
        expect((await exchange(worker.origin)).status).toBe(503)
        await expect.poll(() => JSON.stringify(worker.log)).toContain('the storage belongs to another')
      })
  })
})

describe('configuration', () => {
  test('T-12: the deployed build is 503 until it is configured, and says why in the log alone', async () => {
    const worker = await startPlainWorkerd({ entry: 'production', env: {} })
    try {
      for (const path of ['/.well-known/openid-configuration', '/keys', '/token', '/structured-auth.yaml', '/readyz']) {
        const response = await fetch(worker.origin + path)
        expect([path, response.status]).toEqual([path, 503])
        expect(await response.text()).toBe('this issuer is not configured\n')
      }
      await expect
        .poll(() => worker.log)
        .toContainEqual({
          event: 'configuration_refused',
          problems: ['ISSUER: is not set', 'TRUST_DOMAIN: is not set', 'SIGNING_KEY: is not set'],
        })
    } finally {
      await worker.stop()
    }
  })

  test('T-12: the deployed build refuses MODE=development and local keys', async () => {
    const worker = await startPlainWorkerd({
      entry: 'production',
      env: { ...DEVELOPMENT, ISSUER: 'https://issuer.example.org' },
    })
    try {
      expect((await fetch(`${worker.origin}/keys`)).status).toBe(503)
      await expect
        .poll(() => worker.log)
        .toContainEqual({
          event: 'configuration_refused',
          problems: ['MODE: must be production here', 'SIGNING_KEY: entry 1: local keys are for development'],
        })
    } finally {
      await worker.stop()
    }
  })

  test('OD-1, OD-4: an issuer with a path has everything below it', async () => {
    const worker = await startPlainWorkerd({
      entry: 'development',
      env: { ...DEVELOPMENT, ISSUER: 'http://127.0.0.1:{port}/a/b' },
    })
    try {
      const issuer = `${worker.origin}/a/b`
      const discovery = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json()
      expect(discovery).toMatchObject({ issuer, jwks_uri: `${issuer}/keys`, token_endpoint: `${issuer}/token` })
      expect((await fetch(`${issuer}/keys`)).status).toBe(200)
      expect((await fetch(`${worker.origin}/keys`)).status).toBe(404)
    } finally {
      await worker.stop()
    }
  })
})
