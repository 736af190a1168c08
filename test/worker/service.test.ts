import { createExecutionContext, reset, waitOnExecutionContext } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ConfigError, parseConfig } from '../../worker/config.ts'
import deployed from '../../worker/index.ts'
import { parseKeySettings } from '../../worker/key_settings.ts'
import { createService } from '../../worker/service.ts'
import { FakeCluster } from '../support/cluster.ts'
import { ISSUER, manifest, registration } from '../support/policy.ts'
import { exchangeRequest } from './issuer.ts'
import { KeyWorld } from './key_world.ts'

const VARIABLES = { MODE: 'development', ISSUER, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:first' }

let lines: string[]
beforeEach(() => {
  const keys = new KeyWorld([], {}, env.KEY_STATE.idFromName('keys'))
  keys.settings = parseKeySettings(VARIABLES)
  lines = []
  vi.spyOn(console, 'log').mockImplementation((line: string) => {
    lines.push(line)
  })
})
afterEach(async () => {
  vi.restoreAllMocks()
  await reset()
})

type Service = ReturnType<typeof createService>

async function send(service: Service, request: Request, environment: object = env): Promise<Response> {
  const context = createExecutionContext()
  const answer = await service.fetch(request as never, environment as Env, context)
  await waitOnExecutionContext(context)
  return answer
}

const get = (service: Service, path: string) => send(service, new Request(ISSUER + path))
const configured = (text = '') =>
  createService((bindings) => parseConfig({ ...bindings, ...VARIABLES }, text, 'development'))
const events = () => lines.map((line) => JSON.parse(line))

describe('T-12: a worker that is not configured', () => {
  test('is the one that is deployed as it comes: 503 on every path, and the log says what is missing', async () => {
    for (const path of [
      '/',
      '/keys',
      '/.well-known/openid-configuration',
      '/token',
      '/healthz',
      '/readyz',
      '/demo/token',
    ]) {
      const answer = await get(deployed, path)
      expect([answer.status, await answer.text(), answer.headers.get('cache-control')]).toEqual([
        503,
        'this issuer is not configured\n',
        'no-store',
      ])
    }
    expect(events()).toEqual([
      {
        event: 'configuration_refused',
        problems: ['ISSUER: is not set', 'TRUST_DOMAIN: is not set', 'SIGNING_KEY: is not set'],
      },
    ])
  })

  test('is judged once, and does not change its mind', async () => {
    const configure = vi.fn(() => {
      throw new ConfigError(['ISSUER: is not set'])
    })
    const service = createService(configure)
    for (let times = 0; times < 3; times++) expect((await get(service, '/keys')).status).toBe(503)
    expect(configure).toHaveBeenCalledTimes(1)
    expect(events()).toHaveLength(1)
  })

  test('has no value of a variable in its log', async () => {
    const secret = 'wJalrXUtnFEMI/K7MDENG'
    const service = createService((bindings) =>
      parseConfig(
        { ...bindings, ...VARIABLES, MODE: 'production', AWS_SECRET_ACCESS_KEY: secret, SIGNING_KEY: secret },
        '',
        'production',
      ),
    )
    expect((await get(service, '/keys')).status).toBe(503)
    expect(lines.join()).not.toContain(secret)
  })

  test('a mistake of ours is no verdict: it is thrown, and the next request tries again', async () => {
    let broken = true
    const service = createService((bindings) => {
      if (broken) throw new TypeError('oops')
      return parseConfig({ ...bindings, ...VARIABLES }, '', 'development')
    })
    await expect(get(service, '/keys')).rejects.toThrow('oops')
    broken = false
    expect((await get(service, '/keys')).status).toBe(200)
  })
})

describe('a worker that is configured', () => {
  test('serves, and reads its configuration once', async () => {
    const configure = vi.fn((bindings: object) => parseConfig({ ...bindings, ...VARIABLES }, '', 'development'))
    const service = createService(configure)
    for (const path of ['/keys', '/.well-known/openid-configuration', '/healthz', '/readyz'])
      expect((await get(service, path)).status).toBe(200)
    expect(configure).toHaveBeenCalledTimes(1)
    expect(lines).toEqual([])
  })

  test('has one set of keys, whichever isolate is asked', async () => {
    const [one, other] = await Promise.all([get(configured(), '/keys'), get(configured(), '/keys')])
    expect(await one?.text()).toBe(await other?.text())
  })

  test('issues by the real clock, and writes its line to the console', async () => {
    const east = await FakeCluster.create('east')
    const service = configured(manifest(east.record(), registration('web')))
    const now = Math.floor(Date.now() / 1000)
    const token = await east.token({ now })
    const answer = await send(service, exchangeRequest(`${ISSUER}/token`, token))
    expect(await answer.json()).toMatchObject({ token_type: 'Bearer', expires_in: 300 })
    expect(events()).toMatchObject([{ event: 'decision', decision: 'issued' }])
    const expired = await east.token({ now: now - 3608 })
    expect(await (await send(service, exchangeRequest(`${ISSUER}/token`, expired))).json()).toMatchObject({
      reason: 'token_expired',
    })
  })

  test('T-12: does not serve the keys of another trust domain, and says why', async () => {
    await get(configured(), '/keys')
    const other = createService((bindings) =>
      parseConfig({ ...bindings, ...VARIABLES, TRUST_DOMAIN: 'other.example' }, '', 'development'),
    )
    expect((await get(other, '/keys')).status).toBe(503)
    // What the test before has told the federation state in the background may have lost its storage since, and says so.
    expect(events().filter(({ event }) => event === 'request_failed')).toMatchObject([
      { event: 'request_failed', reason: 'keys_unavailable', detail: expect.stringContaining('another trustDomain') },
    ])
  })
})
