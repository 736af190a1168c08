/** NA-2, NA-4: the redirect URI takes one answer, to our own question, and everything else has no effect and learns nothing. */

import { request as httpRequest } from 'node:http'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LoopbackListener } from '../../../cli/login/loopback.ts'

const STATE = 'the-state-that-only-the-provider-was-told'
const TARGET = 'https://idp.example.org/auth?state=…'
let listener: LoopbackListener
let host: string

beforeEach(async () => {
  listener = await LoopbackListener.listen(0, STATE, () => new URL(TARGET))
  host = new URL(listener.redirectUri).host
})
afterEach(() => listener.close())

interface Got {
  readonly status: number
  readonly text: string
  readonly headers: Record<string, unknown>
}

function send(
  path: string,
  { method = 'GET', headers = {} }: { method?: string; headers?: object } = {},
): Promise<Got> {
  const [name, port] = host.split(':')
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: name, port, path, method, headers: { ...headers }, agent: false },
      (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }))
      },
    )
    request.on('error', reject).end()
  })
}

/** Whether the login has been answered, or ended, by now. */
async function settled(): Promise<boolean> {
  return Promise.race([
    listener.callback.then(
      () => true,
      () => true,
    ),
    new Promise<false>((done) => setImmediate(() => done(false))),
  ])
}

test('NA-2: it is on 127.0.0.1, on a port of its own, and the path is /callback', () => {
  expect(listener.redirectUri).toMatch(/^http:\/\/127\.0\.0\.1:[1-9]\d*\/callback$/)
})

test('NA-4: the answer with our state is the one, and the page waits for what becomes of it', async () => {
  const answer = send(`/callback?code=abc&state=${STATE}&iss=x`)
  const { url, show } = await listener.callback
  expect(url.href).toBe(`${listener.redirectUri}?code=abc&state=${STATE}&iss=x`)
  await show('<p>done', true)
  const { status, text, headers } = await answer
  expect([status, text]).toEqual([200, '<p>done'])
  expect(headers['content-security-policy']).toMatch(/^default-src 'none'; /)
  expect(headers).toMatchObject({ 'referrer-policy': 'no-referrer', 'cache-control': 'no-store', connection: 'close' })
})

describe('§12.7: refused, and the login goes on', () => {
  test.each([
    ['no state', '/callback?code=abc', 400],
    ['an empty state', '/callback?code=abc&state=', 400],
    ['another state', '/callback?code=abc&state=other', 400],
    ['the beginning of the state', `/callback?code=abc&state=${STATE.slice(0, -1)}`, 400],
    ['more than the state', `/callback?code=abc&state=${STATE}x`, 400],
    ['two states', `/callback?code=abc&state=${STATE}&state=${STATE}`, 400],
    ['an error without our state', '/callback?error=access_denied', 400],
    ['another path', `/?code=abc&state=${STATE}`, 404],
    ['a path below', `/callback/?code=abc&state=${STATE}`, 404],
    ['another spelling of the path', `/Callback?code=abc&state=${STATE}`, 404],
    ['the URL of another host', `http://evil.example.org/callback?code=abc&state=${STATE}`, 404],
    ['a path that is another host', `//evil.example.org/callback?code=abc&state=${STATE}`, 404],
    ['favicon.ico', '/favicon.ico', 404],
    ['a link that is none of ours', '/login/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 404],
  ])('%s', async (_, path, status) => {
    const got = await send(path)
    expect(got.status).toBe(status)
    expect(got.text).not.toContain(STATE)
    expect(got.headers.location).toBeUndefined()
    expect(await settled()).toBe(false)
  })

  test.each(['POST', 'HEAD', 'PUT', 'OPTIONS'])('%s on the right path', async (method) => {
    expect((await send(`/callback?code=abc&state=${STATE}`, { method })).status).toBe(405)
    expect(await settled()).toBe(false)
  })

  test.each(['localhost', 'evil.example.org', '127.0.0.1', '127.0.0.1:1', '127.0.0.1.nip.example.org'])(
    'a Host header of %s: a page of another site that has its name lead here',
    async (name) => {
      const got = await send(`/callback?code=abc&state=${STATE}`, { headers: { host: name } })
      expect([400, 421]).toContain(got.status)
      expect(await settled()).toBe(false)
    },
  )
})

test('§12.7: a second callback is refused, whether it is the same or another', async () => {
  const first = send(`/callback?code=abc&state=${STATE}`)
  const { url, show } = await listener.callback
  for (const path of [`/callback?code=abc&state=${STATE}`, `/callback?code=other&state=${STATE}`])
    expect((await send(path)).status).toBe(410)
  await show('ok', true)
  expect((await first).status).toBe(200)
  expect(url.searchParams.get('code')).toBe('abc')
})

test('after close there is nobody', async () => {
  listener.close()
  await expect(send(`/callback?code=abc&state=${STATE}`)).rejects.toThrow()
})

describe('what a browser is given on its command line, where everybody can read it', () => {
  test('says nothing of the login, and leads to the provider once', async () => {
    for (const link of [listener.links.opened, listener.links.shown]) {
      expect(link).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/login\/[\w-]{43}$/)
      const { pathname } = new URL(link)
      const got = await send(pathname)
      expect([got.status, got.headers.location]).toEqual([303, new URL(TARGET).href])
    }
    expect(listener.links.opened).not.toBe(listener.links.shown)
  })

  test('a second time ends the login: one of the two was not the person', async () => {
    const { pathname } = new URL(listener.links.opened)
    await send(pathname)
    const got = await send(pathname)
    expect([got.status, got.headers.location]).toEqual([410, undefined])
    await expect(listener.callback).rejects.toThrow(/opened twice/)
  })

  test('the link that is shown in the terminal leads there once, and then no more', async () => {
    const { pathname } = new URL(listener.links.shown)
    await send(pathname)
    expect((await send(pathname)).status).toBe(410)
    expect(await settled()).toBe(false)
  })
})

test('a port that is taken: it says so, and what to do', async () => {
  const { port } = new URL(listener.redirectUri)
  await expect(LoopbackListener.listen(Number(port), STATE, () => new URL(TARGET))).rejects.toThrow(
    new RegExp(`port ${port} is taken.*--port`),
  )
})
