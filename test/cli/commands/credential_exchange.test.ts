/** `credential psat` and `credential oidc-file` at an issuer that answers whatever a test wants. A real one is in test/interop. */

import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { cli, Folder, type Outcome } from '../../support/cli.ts'
import { encodePart } from '../../support/tokens.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb2QifQ.c2VjcmV0LW9mLXRoZS1wb2Q'
const ID = 'spiffe://example.org/ns/shop/sa/web'
const now = Math.floor(Date.now() / 1000)

const folder = new Folder()
const tokenFile = folder.write(`${TOKEN}\n`)
let server: Server
let issuer: string
/** What was asked, and what is answered, one after another; the last one for ever. */
const asked: {
  method: string | undefined
  url: string | undefined
  type: string | undefined
  form: URLSearchParams
}[] = []
let answers: ((response: ServerResponse) => void)[] = []

function svid(claims: object = {}): string {
  const all = { sub: ID, aud: ['k8s'], exp: now + 300, iat: now, iss: 'https://issuer.example.org', ...claims }
  return `${encodePart({ alg: 'ES256', kid: 'one', typ: 'JWT' })}.${encodePart(all)}.c2ln`
}

function json(status: number, body: unknown, headers: Record<string, string> = {}) {
  return (response: ServerResponse) => response.writeHead(status, headers).end(JSON.stringify(body))
}

const issued = (claims?: object) => json(200, { access_token: svid(claims), token_type: 'N_A', expires_in: 300 })

beforeEach(async () => {
  server = createServer(async (request: IncomingMessage, response: ServerResponse) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const { method, url, headers } = request
    asked.push({ method, url, type: headers['content-type'], form: new URLSearchParams(body) })
    const answer = answers.length > 1 ? answers.shift() : answers[0]
    answer?.(response)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
  asked.length = 0
})
afterAll(() => folder.remove())

function psat(argv: readonly string[] = [], options: Parameters<typeof cli>[1] = {}): Promise<Outcome> {
  return cli(['credential', 'psat', '--issuer', issuer, '--token-file', tokenFile, ...argv], options)
}

const outcome = ({ code, stdout }: Outcome) => [code, stdout]

test('RFC 8693 §2.1: the token is sent as a form, and the SVID comes out', async () => {
  answers = [issued({ aud: ['k8s', 'vault'] })]
  const { code, stdout, stderr } = await psat(['--audience', 'k8s', '--audience', 'vault', '--spiffe-id', ID])
  expect([code, stderr]).toEqual([0, ''])
  expect(JSON.parse(stdout).status.token).toBe(svid({ aud: ['k8s', 'vault'] }))
  const [request] = asked
  expect(request).toMatchObject({ method: 'POST', url: '/token', type: 'application/x-www-form-urlencoded' })
  expect([...(request?.form ?? [])]).toEqual([
    ['grant_type', 'urn:ietf:params:oauth:grant-type:token-exchange'],
    ['subject_token_type', 'urn:ietf:params:oauth:token-type:jwt'],
    ['subject_token', TOKEN],
    ['audience', 'k8s'],
    ['audience', 'vault'],
    ['spiffe_id', ID],
  ])
})

test('oidc-file asks the same, and variables are as good as options', async () => {
  answers = [issued({ aud: 'cluster-one' })]
  const env = {
    SPIFFE_EDGE_ISSUER: issuer,
    SPIFFE_EDGE_TOKEN_FILE: tokenFile,
    SPIFFE_JWT_AUDIENCE: 'cluster-one',
    KUBERNETES_EXEC_INFO: JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1beta1',
      kind: 'ExecCredential',
    }),
  }
  const { code, stdout } = await cli(['credential', 'oidc-file'], { env })
  expect(code).toBe(0)
  expect(JSON.parse(stdout).apiVersion).toBe('client.authentication.k8s.io/v1beta1')
  expect(asked[0]?.form.getAll('audience')).toEqual(['cluster-one'])
})

describe('who the SVID is made out to', () => {
  const withConfig = (config: unknown, more: object = {}) => ({
    env: {
      SPIFFE_JWT_AUDIENCE: 'variable',
      KUBERNETES_EXEC_INFO: JSON.stringify({
        apiVersion: 'client.authentication.k8s.io/v1',
        kind: 'ExecCredential',
        spec: { cluster: { server: 'https://x', config } },
      }),
      ...more,
    },
  })
  test.each([
    ['the option', ['--audience', 'option'], { audience: 'extension' }, ['option']],
    ['the extension', [], { audience: 'extension' }, ['extension']],
    ['a list in the extension', [], { audience: ['a', 'b', 'a'] }, ['a', 'b']],
    ['the variable', [], { other: 1 }, ['variable']],
    ['the variable, without an extension', [], null, ['variable']],
  ])('%s', async (_, argv, config, audience) => {
    answers = [issued({ aud: audience })]
    expect((await psat(argv, withConfig(config))).code).toBe(0)
    expect(asked[0]?.form.getAll('audience')).toEqual(audience)
  })
  test.each([[{ audience: 7 }], [{ audience: [] }], [{ audience: [''] }], [{ audience: ['a', null] }]])(
    'an extension of %j is refused, and nothing is asked',
    async (config) => {
      expect((await psat([], withConfig(config))).code).toBe(2)
      expect(asked).toEqual([])
    },
  )
  test('an empty one is refused', async () => {
    expect((await psat(['--audience', ''])).code).toBe(2)
    expect(asked).toEqual([])
  })
})

test.each<[string, object]>([
  ['no token', {}],
  ['a token that is none', { access_token: 'x' }],
  ['a number', { access_token: 7 }],
  ['another audience', { access_token: svid({ aud: ['other'] }) }],
  ['no audience', { access_token: svid({ aud: undefined }) }],
  ['no exp', { access_token: svid({ exp: undefined }) }],
  ['exp as a text', { access_token: svid({ exp: '1' }) }],
  ['a subject that is no SPIFFE ID', { access_token: svid({ sub: 'web' }) }],
  ['another identity', { access_token: svid({ sub: `${ID}2` }) }],
])('an answer with %s is not shown', async (_, body) => {
  answers = [json(200, body)]
  const { code, stdout, stderr } = await psat(['--spiffe-id', ID])
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr).toContain('not the JWT-SVID that was asked for')
})

test('§12.8: an SVID that has expired is not shown', async () => {
  answers = [issued({ exp: now - 1 })]
  expect(outcome(await psat())).toEqual([1, ''])
})

test('a refusal is said with the id of its line in the log, at once, and without what moves the cursor', async () => {
  answers = [json(400, { error_description: 'no\u001b[2J', reason: 'unregistered', id: 'abc-1' })]
  const { code, stdout, stderr } = await psat()
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr).toBe(`${issuer} refuses (400): no\\u{1b}[2J (abc-1)\n`)
  expect(asked).toHaveLength(1)
})

test.each([
  ['503', json(503, { error_description: 'the keys of the cluster cannot be had at the moment' })],
  ['429', json(429, null, { 'retry-after': '3' })],
  ['500 with a page', (response: ServerResponse) => response.writeHead(500).end('<html>')],
  ['a connection that breaks', (response: ServerResponse) => response.destroy()],
])('%s is tried again', async (_, trouble) => {
  answers = [trouble, trouble, issued()]
  const { code, stderr } = await psat()
  expect(code).toBe(0)
  expect(stderr).toMatch(/^http:\/\/127\.0\.0\.1:\d+.*; trying for 30 s\n$/)
  expect(asked).toHaveLength(3)
})

test('what does not come within the time limit is an error, which says why', async () => {
  answers = [json(503, { id: 'abc-1' })]
  const { code, stdout, stderr } = await psat(['--timeout', '5'])
  expect([code, stdout]).toEqual([1, ''])
  expect(stderr.trimEnd().split('\n')).toEqual([
    `${issuer} cannot do it at the moment (503) (abc-1); trying for 5 s`,
    `${issuer} cannot do it at the moment (503) (abc-1)`,
  ])
})

test('no redirect is followed', async () => {
  answers = [json(307, {}, { location: `${issuer}/elsewhere` })]
  expect(outcome(await psat())).toEqual([1, ''])
  expect(asked.map(({ url }) => url)).toEqual(['/token'])
})

test('the token is read anew each time: a kubelet replaces it', async () => {
  const file = folder.write(TOKEN)
  const newer = `${TOKEN}2`
  answers = [json(503, {}), issued()]
  await psat(['--token-file', file], { wait: () => writeFileSync(file, newer) })
  expect(asked.map(({ form }) => form.get('subject_token'))).toEqual([TOKEN, newer])
  rmSync(file)
})

test.each([
  ['is not there', () => '/nonexistent/token', 1],
  ['is empty', () => folder.write(''), 1],
  ['is another secret', () => folder.write('-----BEGIN PRIVATE KEY-----'), 1],
  ['is large', () => folder.write('x'.repeat(100_000)), 1],
  ['is a folder', () => folder.path, 1],
  ['is standard input', () => '-', 2],
])('a token file that %s: nothing is sent anywhere', async (_, file, code) => {
  const result = await psat(['--token-file', file()])
  expect(outcome(result)).toEqual([code, ''])
  expect(result.stderr).not.toContain('PRIVATE')
  expect(asked).toEqual([])
})

test.each([
  ['without an issuer', []],
  ['with an issuer that is not https', ['--issuer', 'http://issuer.example.org']],
  ['with an option that there is not', ['--issuer', 'https://x', '--token', TOKEN]],
  ['with an argument', ['--issuer', 'https://x', TOKEN]],
  ['with a time limit of 0', ['--issuer', 'https://x', '--token-file', 'x', '--timeout', '0']],
])('%s it is not understood', async (_, argv) => {
  expect(outcome(await cli(['credential', 'psat', ...argv]))).toEqual([2, ''])
})

test('--help has every option', async () => {
  const { code, stdout } = await cli(['credential', 'psat', '--help'])
  expect(code).toBe(0)
  for (const option of ['issuer', 'token-file', 'audience', 'spiffe-id', 'timeout'])
    expect(stdout).toContain(`--${option} <`)
})
