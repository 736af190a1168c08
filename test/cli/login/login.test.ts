/** `spiffe-edge credential oidc`, `login`, `logout` and `status`, against npm's oidc-provider, with a person who has no real browser. */

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer, type Server } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { cli, type Outcome } from '../../support/cli.ts'
import {
  CLIENT_ID,
  type IdentityProvider,
  type IdentityProviderOptions,
  startIdentityProvider,
} from '../../support/identity_provider.ts'
import { cliOf, credentialArgv, credentialIn, LoginHome } from '../../support/login.ts'
import { visit } from '../../support/person.ts'
import { findPieceOf, makeTokenKey, signToken } from '../../support/tokens.ts'

let home: LoginHome
let idp: IdentityProvider
const started: IdentityProvider[] = []

async function start(options: IdentityProviderOptions = {}): Promise<IdentityProvider> {
  idp = await startIdentityProvider(options)
  started.push(idp)
  return idp
}

beforeEach(() => {
  home = new LoginHome()
})
afterEach(async () => {
  for (const one of started.splice(0)) await one.stop()
  home.remove()
})

/** Lets the person's browser see its last page: it may be a moment behind. */
async function lastPage(): Promise<string> {
  await expect.poll(() => home.seen().length).toBeGreaterThan(0)
  return home.seen().at(-1) ?? ''
}

describe('NA-1 to NA-4: authorization code with PKCE', () => {
  test('a login, and then none: the credential is kept', async () => {
    await start()
    const first = await home.credential(idp)
    expect(first).toMatchObject({ code: 0, stderr: expect.stringContaining('Logged in as alice') })
    const { apiVersion, kind, claims, until } = credentialIn(first)
    expect([apiVersion, kind]).toEqual(['client.authentication.k8s.io/v1', 'ExecCredential'])
    expect(claims).toMatchObject({ iss: idp.issuer, aud: CLIENT_ID, sub: 'alice', name: 'alice' })
    // EX-9
    expect(until).toBeLessThan(claims.exp)
    const asked = idp.requests.length
    const second = await home.credential(idp)
    expect([second.stdout, second.stderr]).toEqual([first.stdout, ''])
    expect(idp.requests.length).toBe(asked)
    expect(home.opened()).toHaveLength(1)
    expect(await lastPage()).toMatch(/saw 200 .*alice/)
  })

  test('what the provider is asked: S256 of 256 bits, state, nonce, a loopback redirect URI', async () => {
    await start()
    const { claims } = credentialIn(await home.credential(idp))
    const [url] = idp.authorizations
    const asked = Object.fromEntries(url?.searchParams ?? [])
    const verifier = idp.grants[0]?.get('code_verifier') ?? ''
    expect(asked).toMatchObject({
      response_type: 'code',
      client_id: CLIENT_ID,
      code_challenge_method: 'S256',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      redirect_uri: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/callback$/),
      scope: 'openid profile email offline_access',
    })
    expect(verifier).toMatch(/^[\w.~-]{43,128}$/)
    for (const value of [asked.state, asked.nonce, verifier])
      expect(Buffer.from(value ?? '', 'base64url').length).toBeGreaterThanOrEqual(32)
    expect(claims.nonce).toBe(asked.nonce)
    // Nothing of it is where others can read it.
    expect(findPieceOf(asked.state ?? '', home.opened().join())).toBeNull()
  })

  test('kubekey’s variables do instead of options, and v1beta1 is answered with v1beta1', async () => {
    await start({ clientSecret: 'the-secret-of-the-client' })
    const env = {
      IDP_ISSUER_URL: idp.issuer,
      CLIENT_ID,
      CLIENT_SECRET: 'the-secret-of-the-client',
      KUBERNETES_EXEC_INFO: JSON.stringify({
        apiVersion: 'client.authentication.k8s.io/v1beta1',
        kind: 'ExecCredential',
        spec: { interactive: false },
      }),
    }
    const outcome = await home.run(['credential', 'oidc'], env)
    expect(outcome.code).toBe(0)
    expect(credentialIn(outcome).apiVersion).toBe('client.authentication.k8s.io/v1beta1')
    expect(findPieceOf(env.CLIENT_SECRET, outcome.stderr + home.opened())).toBeNull()
  })

  test('the client secret from a file, of which others may not read', async () => {
    await start({ clientSecret: 'the-secret-of-the-client' })
    const { Folder } = await import('../../support/cli.ts')
    const folder = new Folder()
    const open = folder.write('the-secret-of-the-client\n', 'open')
    const own = folder.write('the-secret-of-the-client\n', 'own', 0o600)
    expect(await home.credential(idp, ['--client-secret-file', open])).toMatchObject({ code: 1, stdout: '' })
    expect((await home.credential(idp, ['--client-secret-file', own])).code).toBe(0)
    folder.remove()
  })

  test('--token access: the access token, for as long as the provider says', async () => {
    await start({ accessTokenSeconds: 600 })
    const { stdout, code } = await home.credential(idp, ['--token', 'access'])
    expect(code).toBe(0)
    const { status } = JSON.parse(stdout)
    expect(status.token).not.toContain('.')
    const left = Date.parse(status.expirationTimestamp) - Date.now()
    expect(left).toBeGreaterThan(0)
    expect(left).toBeLessThan(600_000)
  })

  test('--port: the redirect URI has it; a port that is taken is an error before anybody is asked', async () => {
    await start()
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    const argv = ['--port', String(port)]
    expect(await home.credential(idp, argv)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`port ${port} is taken`),
    })
    expect([home.opened(), home.files()]).toEqual([[], []])
    await new Promise((resolve) => server.close(resolve))
    expect((await home.credential(idp, argv)).code).toBe(0)
    expect(idp.authorizations[0]?.searchParams.get('redirect_uri')).toBe(`http://127.0.0.1:${port}/callback`)
  })

  test('--scope and --authorization-parameter', async () => {
    await start()
    const argv = ['--scope', 'openid', '--scope', 'email', '--authorization-parameter', 'prompt=consent']
    expect((await home.credential(idp, argv)).code).toBe(0)
    const { searchParams } = idp.authorizations[0] as URL
    expect([searchParams.get('scope'), searchParams.get('prompt')]).toEqual(['openid email', 'consent'])
  })

  test.each([
    ['no issuer', ['--client-id', 'x']],
    ['no client', ['--issuer-url', 'https://idp.example.org']],
    ['an issuer that is not https', ['--issuer-url', 'http://idp.example.org', '--client-id', 'x']],
    ['scopes without openid', ['--issuer-url', 'https://i', '--client-id', 'x', '--scope', 'email']],
    ['an own state', ['--issuer-url', 'https://i', '--client-id', 'x', '--authorization-parameter', 'state=x']],
    ['a parameter that is none', ['--issuer-url', 'https://i', '--client-id', 'x', '--authorization-parameter', 'x']],
    ['another kind of token', ['--issuer-url', 'https://i', '--client-id', 'x', '--token', 'refresh']],
    ['another way', ['--issuer-url', 'https://i', '--client-id', 'x', '--prompt', 'telepathy']],
    ['no port', ['--issuer-url', 'https://i', '--client-id', 'x', '--port', '70000']],
    ['an audience without --exchange', ['--issuer-url', 'https://i', '--client-id', 'x', '--audience', 'k8s']],
  ])('%s is wrong usage', async (_, argv) => {
    expect(await home.run(['credential', 'oidc', ...argv])).toMatchObject({ code: 2, stdout: '' })
    expect(home.files()).toEqual([])
  })
})

describe('what goes wrong with a login', () => {
  test('nobody answers: it ends when it was said to, and says so', async () => {
    await start()
    const outcome = await home.credential(idp, ['--timeout', '1'], { PERSON: 'nobody' })
    expect(outcome).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('nobody has logged in within 1 s'),
    })
  })

  test('the person refuses: the reason of the provider, in the browser too', async () => {
    await start()
    const outcome = await home.credential(idp, [], { PERSON: 'refuse' })
    expect(outcome).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('access_denied (not today)') })
    expect(await lastPage()).toMatch(/saw 400 .*access_denied/)
  })

  test('a browser that cannot be started: the link in the terminal still does', async () => {
    await start()
    let said = ''
    const { main } = await import('../../../cli/main.ts')
    const code = await main(credentialArgv(idp), {
      env: { ...home.env(), BROWSER: '/nonexistent/browser' },
      stdin: (async function* () {})(),
      print: () => {},
      say(line) {
        said += `${line}\n`
        const [, link] = /(http:\/\/127\.0\.0\.1:\d+\/login\/\S+)/.exec(line) ?? []
        if (link) void visit(link, 'alice')
      },
      interactive: () => false,
      now: () => Date.now(),
      wait: async () => {},
    })
    expect([code, said]).toEqual([0, expect.stringContaining('could not be opened')])
  })

  test('the provider is away, and nothing is counted against the person', async () => {
    await start()
    await idp.stop()
    const outcome = await home.credential(idp)
    expect(outcome).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('cannot be reached (ECONNREFUSED)'),
    })
    expect(home.files()).toEqual([])
  })

  test.each([
    ['is another issuer', { issuer: 'https://other.example.org' }, /another issuer/],
    ['is no discovery document', [], /not OpenID Connect|cannot be accepted/],
    [
      'has endpoints elsewhere over http',
      { token_endpoint: 'http://evil.example.org/token' },
      /cannot be (reached|accepted)/,
    ],
  ])('what the provider says of itself %s', async (_, change, message) => {
    await start()
    idp.intercept = (request, response) => {
      if (!request.url?.includes('openid-configuration')) return false
      const document = {
        issuer: idp.issuer,
        authorization_endpoint: `${idp.issuer}/auth`,
        token_endpoint: `${idp.issuer}/token`,
        jwks_uri: `${idp.issuer}/jwks`,
      }
      const body = Array.isArray(change) ? change : { ...document, ...change }
      response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
      return true
    }
    const outcome = await home.credential(idp, ['--timeout', '5'])
    expect(outcome).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(message) })
    expect(outcome.stderr).not.toContain('internal error')
  })

  test('T: a redirect of the provider is not followed', async () => {
    await start()
    idp.intercept = (request, response) => {
      if (request.url !== '/token') return false
      response.writeHead(307, { location: `${idp.issuer}/elsewhere` }).end()
      return true
    }
    expect(await home.credential(idp)).toMatchObject({ code: 1, stdout: '' })
    expect(idp.count('POST /elsewhere')).toBe(0)
  })

  test('what the provider says is put so that it is safe to look at, and is short', async () => {
    await start()
    idp.intercept = (request, response) => {
      if (request.url !== '/token') return false
      const body = { error: 'invalid_grant', error_description: `\u001b[31m${'x'.repeat(5000)}\n` }
      response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      return true
    }
    const { code, stderr } = await home.credential(idp)
    expect(code).toBe(1)
    expect(stderr).toContain('invalid_grant')
    expect(stderr).not.toContain('\u001b')
    expect(stderr.length).toBeLessThan(1500)
  })
})

describe('NA-4: the ID token', () => {
  /** Has the provider answer with a token of our own making, and publish the key. */
  async function forge(
    change: (claims: Record<string, unknown>, header: Record<string, unknown>) => void,
    sign = true,
  ) {
    const [key, other] = [await makeTokenKey('ES256'), await makeTokenKey('ES256')]
    await start()
    idp.intercept = async (request, response) => {
      const json = (body: object) => {
        response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
        return true
      }
      if (request.url === '/jwks') return json({ keys: [key.publicJwk] })
      if (request.url !== '/token') return false
      const now = Math.floor(Date.now() / 1000)
      const nonce = idp.authorizations.at(-1)?.searchParams.get('nonce')
      const claims = { iss: idp.issuer, aud: CLIENT_ID, sub: 'alice', iat: now, exp: now + 600, nonce }
      const header = { alg: 'ES256', kid: key.kid }
      change(claims, header)
      const token = await signToken(header, claims, sign ? key : { ...other, kid: key.kid })
      return json({ access_token: 'at', token_type: 'Bearer', expires_in: 600, id_token: token })
    }
  }

  test('one that is right is taken, whoever has made it', async () => {
    await forge(() => {})
    expect((await home.credential(idp)).code).toBe(0)
  })

  const now = () => Math.floor(Date.now() / 1000)
  test.each<[string, (claims: Record<string, unknown>, header: Record<string, unknown>) => void, RegExp]>([
    [
      'of another issuer',
      (claims) => Object.assign(claims, { iss: 'https://other.example.org' }),
      /made out to somebody else/,
    ],
    ['for another client', (claims) => Object.assign(claims, { aud: 'other' }), /made out to somebody else/],
    [
      'for several, of which another has asked',
      (claims) => Object.assign(claims, { aud: [CLIENT_ID, 'x'], azp: 'x' }),
      /somebody else|accepted/,
    ],
    ['for another login', (claims) => Object.assign(claims, { nonce: 'x'.repeat(43) }), /another login/],
    ['without a nonce', (claims) => delete claims.nonce, /accepted|another login/],
    ['without a subject', (claims) => delete claims.sub, /accepted/],
    ['without an end', (claims) => delete claims.exp, /accepted/],
    [
      'that is over for an hour',
      (claims) => Object.assign(claims, { iat: now() - 7200, exp: now() - 3600 }),
      /clock right/,
    ],
    ['that is over within the tolerance', (claims) => Object.assign(claims, { exp: now() - 5 }), /clock right/],
    [
      'that begins in an hour',
      (claims) => Object.assign(claims, { nbf: now() + 3600, exp: now() + 7200 }),
      /clock right/,
    ],
    ['without a signature’s algorithm', (_, header) => Object.assign(header, { alg: 'none' }), /accepted/],
    ['by a key that is not published', (_, header) => Object.assign(header, { kid: 'x' }), /accepted/],
    [
      'by the algorithm for which the public key is the secret',
      (_, header) => Object.assign(header, { alg: 'HS256' }),
      /accepted/,
    ],
  ])('%s is refused', async (_, change, message) => {
    await forge(change)
    const { code, stdout, stderr } = await home.credential(idp)
    expect([code, stdout, stderr]).toEqual([1, '', expect.stringMatching(message)])
    expect(stderr).not.toContain('internal error')
    expect(home.files().filter(({ path }) => path.endsWith('.sealed'))).toEqual([])
  })

  test('RFC 7519 §2: one whose end is no whole number is taken, and kept', async () => {
    await forge((claims) => Object.assign(claims, { exp: now() + 600.5 }))
    const first = await home.credential(idp)
    expect(first.code).toBe(0)
    expect(await home.credential(idp)).toMatchObject({ code: 0, stdout: first.stdout, stderr: '' })
  })

  test('that another key has signed is refused', async () => {
    await forge(() => {}, false)
    expect(await home.credential(idp)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('accepted'),
    })
  })

  test('that was made a little later, by the provider’s clock, is taken', async () => {
    await forge((claims) => Object.assign(claims, { iat: now() + 30, nbf: now() + 30, exp: now() + 630 }))
    expect((await home.credential(idp)).code).toBe(0)
  })

  test('RFC 9207: an answer that names another issuer is refused', async () => {
    await start()
    const outcome = home.credential(idp, [], { PERSON: 'nobody' })
    await expect.poll(() => home.opened().length).toBe(1)
    const link = home.opened()[0]?.replace('opened ', '') ?? ''
    const { url } = await visit(link, 'alice', (at) => at.pathname === '/callback')
    const callback = new URL(url)
    expect(callback.searchParams.get('iss')).toBe(idp.issuer)
    callback.searchParams.set('iss', 'https://evil.example.org')
    const page = await visit(callback.href, 'alice')
    expect(page.status).toBe(400)
    expect(await outcome).toMatchObject({ code: 1, stdout: '' })
    expect(idp.count('POST /token')).toBe(0)
  })

  test('§12.7: a wrong state leaves the login as it was; the code is of use once', async () => {
    await start()
    const outcome = home.credential(idp, [], { PERSON: 'nobody' })
    await expect.poll(() => home.opened().length).toBe(1)
    const { url } = await visit(
      home.opened()[0]?.replace('opened ', '') ?? '',
      'alice',
      (at) => at.pathname === '/callback',
    )
    const wrong = new URL(url)
    wrong.searchParams.set('state', 'x'.repeat(43))
    expect((await visit(wrong.href, 'mallory')).status).toBe(400)
    expect(idp.count('POST /token')).toBe(0)
    expect((await visit(url, 'alice')).status).toBe(200)
    expect((await outcome).code).toBe(0)
    // Replayed: nobody listens any more.
    await expect(visit(url, 'mallory')).rejects.toThrow()
    expect(idp.count('POST /token')).toBe(1)
  })
})

describe('pain 60: refresh tokens', () => {
  /** Its tokens are nearly over from the beginning. */
  const BRIEF = { idTokenSeconds: 29 }

  test('a token that is nearly over is refreshed, nobody is asked, and the new refresh token is the one that counts', async () => {
    await start(BRIEF)
    await home.credential(idp)
    for (let i = 0; i < 3; i++) expect((await home.credential(idp)).code).toBe(0)
    expect(home.opened()).toHaveLength(1)
    const used = idp.grants
      .filter((grant) => grant.get('grant_type') === 'refresh_token')
      .map((grant) => grant.get('refresh_token'))
    expect(used).toHaveLength(3)
    expect(new Set(used).size).toBe(3)
  })

  test('many at once: each refresh token is used once, and all are served', async () => {
    await start(BRIEF)
    await home.credential(idp)
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => home.credential(idp)))
    expect(outcomes.filter(({ code }) => code !== 0)).toEqual([])
    const used = idp.grants.map((grant) => grant.get('refresh_token')).filter(Boolean)
    expect(new Set(used).size).toBe(used.length)
    expect(home.opened()).toHaveLength(1)
  })

  test('refused: the person is asked again', async () => {
    await start(BRIEF)
    await home.credential(idp)
    idp.intercept = (request, response) => {
      if (request.url !== '/token' || idp.authorizations.length > 1) return false
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}')
      return true
    }
    const outcome = await home.credential(idp)
    expect(outcome).toMatchObject({ code: 0, stderr: expect.stringMatching(/login is over[\s\S]*Logged in/) })
    expect(home.opened()).toHaveLength(2)
  })

  test.each([
    ['is away', 0],
    ['has an error', 500],
    ['has no time', 503],
  ])('a provider that %s: what is good for some seconds is used, and the refresh token stays', async (_, status) => {
    await start(BRIEF)
    await home.credential(idp)
    idp.intercept = (_, response) => {
      if (status === 0) response.destroy()
      else response.writeHead(status).end()
      return true
    }
    expect((await home.credential(idp)).code).toBe(0)
    idp.intercept = null
    expect((await home.credential(idp)).code).toBe(0)
    expect(idp.grants.at(-1)?.get('grant_type')).toBe('refresh_token')
    expect(home.opened()).toHaveLength(1)
  })

  test('keys that cannot be had: the refresh token is not spent on an answer that could not be checked', async () => {
    await start(BRIEF)
    await home.credential(idp)
    idp.intercept = ({ url }, response) => {
      if (url !== '/jwks') return false
      response.writeHead(503).end()
      return true
    }
    expect((await home.credential(idp)).code).toBe(0)
    expect(idp.grants).toHaveLength(1)
    idp.intercept = null
    expect((await home.credential(idp)).code).toBe(0)
    expect(idp.grants.at(-1)?.get('grant_type')).toBe('refresh_token')
    expect(home.opened()).toHaveLength(1)
  })

  test('what is renewed and cannot be kept is used, and that is said', async () => {
    await start(BRIEF)
    await home.credential(idp)
    const folder = join(home.path, '.local/state/spiffe-edge/credentials')
    const [line = ''] = readdirSync(folder).filter((name) => name.endsWith('.sealed'))
    const sealed = join(folder, line)
    // Nothing can be put in its place, whoever runs this.
    idp.intercept = ({ url }) => {
      if (url === '/token') {
        rmSync(sealed)
        mkdirSync(sealed)
      }
      return false
    }
    const outcome = await home.credential(idp)
    expect(outcome).toMatchObject({ code: 0, stderr: expect.stringContaining('cannot be kept') })
    expect(idp.grants.at(-1)?.get('grant_type')).toBe('refresh_token')
  })

  test.each(['interaction_required', 'login_required', 'consent_required', 'unauthorized_client', 'invalid_scope'])(
    'refused by %s: the person is asked again',
    async (error) => {
      await start(BRIEF)
      await home.credential(idp)
      idp.intercept = (request, response) => {
        if (request.url !== '/token' || idp.authorizations.length > 1) return false
        response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error }))
        return true
      }
      const outcome = await home.credential(idp)
      expect(outcome).toMatchObject({ code: 0, stderr: expect.stringMatching(/login is over[\s\S]*Logged in/) })
    },
  )

  test.each(['invalid_client', 'temporarily_unavailable', 'server_error'])(
    '%s says nothing of the refresh token, which stays',
    async (error) => {
      await start(BRIEF)
      await home.credential(idp)
      idp.intercept = (request, response) => {
        if (request.url !== '/token') return false
        response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error }))
        return true
      }
      expect((await home.credential(idp)).code).toBe(0)
      idp.intercept = null
      expect((await home.credential(idp)).code).toBe(0)
      expect(home.opened()).toHaveLength(1)
    },
  )

  test('a provider that is away, and a token that is over: an error, no prompt, and no expired token', async () => {
    await start({ idTokenSeconds: 11 })
    await home.credential(idp)
    idp.intercept = (_, response) => {
      response.destroy()
      return true
    }
    expect(await home.credential(idp)).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('cannot be reached'),
    })
    expect(home.opened()).toHaveLength(1)
    idp.intercept = null
    expect((await home.credential(idp)).code).toBe(0)
    expect(home.opened()).toHaveLength(1)
  })

  test('an answer for somebody else is not taken', async () => {
    await start(BRIEF)
    await home.credential(idp)
    const key = await makeTokenKey('ES256')
    const published = (await (await fetch(`${idp.issuer}/jwks`)).json()) as { keys: object[] }
    idp.intercept = async (request, response) => {
      if (idp.authorizations.length > 1) return false
      const now = Math.floor(Date.now() / 1000)
      const claims = { iss: idp.issuer, aud: CLIENT_ID, sub: 'mallory', iat: now, exp: now + 600 }
      const body =
        request.url === '/jwks'
          ? { keys: [key.publicJwk, ...published.keys] }
          : request.url === '/token'
            ? {
                access_token: 'x',
                token_type: 'Bearer',
                id_token: await signToken({ alg: 'ES256', kid: key.kid }, claims, key),
              }
            : null
      if (!body) return false
      response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
      return true
    }
    const outcome = await home.credential(idp)
    expect(outcome).toMatchObject({ code: 0, stderr: expect.stringContaining('somebody else') })
    expect(credentialIn(outcome).claims.sub).toBe('alice')
  })
})

describe('pains 56 and 57: no storm', () => {
  test('many at once: one prompt, and all are served', async () => {
    await start()
    const outcomes = await Promise.all(Array.from({ length: 12 }, () => home.credential(idp)))
    expect(outcomes.filter(({ code }) => code !== 0)).toEqual([])
    expect(new Set(outcomes.map(({ stdout }) => stdout)).size).toBe(1)
    expect([home.opened().length, idp.count('POST /token')]).toEqual([1, 1])
    expect(outcomes.filter(({ stderr }) => stderr.includes('Another process')).length).toBeGreaterThan(0)
  })

  test('a prompt that is ignored: those that waited get its error, and the next ones no prompt', async () => {
    await start()
    const argv = ['--timeout', '1']
    const ignored = () => home.credential(idp, argv, { PERSON: 'nobody' })
    const outcomes = await Promise.all([ignored(), ignored(), ignored()])
    for (const { code, stderr } of outcomes)
      expect([code, stderr]).toEqual([1, expect.stringMatching(/nobody has logged in|not answered/)])
    await expect.poll(() => home.opened().length).toBe(1)
    const next = await home.credential(idp, argv)
    expect([next.code, next.stdout]).toEqual([1, ''])
    expect(next.stderr).toMatch(
      /not answered: no new one before \d{4}-\d\d-\d\dT[\d:]+Z\.\nLog in now with: spiffe-edge login --issuer-url \S+ --client-id kubectl/,
    )
    expect(home.opened()).toHaveLength(1)
  })

  test('spiffe-edge login asks at once, prints no token, and all is as before', async () => {
    await start()
    await home.credential(idp, ['--timeout', '1'], { PERSON: 'nobody' })
    const login = await home.run(['login', ...credentialArgv(idp).slice(2)])
    expect(login).toMatchObject({ code: 0, stdout: '', stderr: expect.stringContaining('Logged in as alice') })
    expect((await home.credential(idp)).code).toBe(0)
    await expect.poll(() => home.opened().length).toBe(2)
    // Whoever says it again wants another: perhaps their groups have changed.
    await home.run(['login', ...credentialArgv(idp).slice(2)], { PERSON: 'bob' })
    expect(credentialIn(await home.credential(idp)).claims.sub).toBe('bob')
  })

  test('Ctrl-C is an answer: the next command asks again', async () => {
    await start()
    const first = cliOf(credentialArgv(idp), home.env('nobody'))
    await expect.poll(first.said).toContain('Log in to')
    first.child.kill('SIGINT')
    expect(await first.outcome).toMatchObject({ code: 128, stdout: '' })
    expect((await home.credential(idp)).code).toBe(0)
  })

  test('the command that is named is for just this login, whatever is in its options', async () => {
    await start()
    const odd = ['--token', 'access', '--scope', 'openid', '--authorization-parameter', "prompt=it's \u001b[31m"]
    const argv = ['--timeout', '1', ...odd]
    await home.credential(idp, argv, { PERSON: 'nobody' })
    const { stderr } = await home.credential(idp, argv)
    expect(stderr).toContain(
      "--client-id kubectl --token access --scope openid --authorization-parameter 'prompt=it'\\''s \\u{1b}[31m'",
    )
  })

  test('two logins at one provider: one prompt at a time, and one that is ignored counts for both', async () => {
    await start()
    const argv = ['--timeout', '1']
    const outcomes = await Promise.all([
      home.credential(idp, argv, { PERSON: 'nobody' }),
      home.credential(idp, [...argv, '--token', 'access'], { PERSON: 'nobody' }),
    ])
    expect(outcomes.map(({ code }) => code)).toEqual([1, 1])
    expect(outcomes.map(({ stderr }) => stderr).join()).toMatch(/not answered: no new one before/)
    expect(home.opened()).toHaveLength(1)
  })

  test('who has asked for a login gets one, whatever becomes of a prompt of somebody else', async () => {
    await start()
    const ignored = home.credential(idp, ['--timeout', '2'], { PERSON: 'nobody' })
    await expect.poll(() => home.opened().length).toBe(1)
    const login = await home.run(['login', ...credentialArgv(idp).slice(2)])
    expect(login).toMatchObject({ code: 0, stderr: expect.stringContaining('Logged in as alice') })
    expect((await ignored).code).toBe(1)
  })

  test('what is wrong with one command is not the failure of those that wait for it', async () => {
    await start()
    const reached = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    idp.intercept = async ({ url }) => {
      if (url !== '/.well-known/openid-configuration' || idp.requests.length > 1) return false
      reached.resolve()
      await goOn.promise
      return false
    }
    const port = createServer().listen(0, '127.0.0.1')
    await once(port, 'listening')
    const one = home.credential(idp, ['--port', String((port.address() as AddressInfo).port)])
    await reached.promise
    const other = cliOf(credentialArgv(idp), home.env())
    await expect.poll(other.said).toContain('waiting for it')
    goOn.resolve()
    expect((await one).code).toBe(1)
    port.close()
    expect(await other.outcome).toMatchObject({ code: 0 })
  })

  test('the pauses grow, and end with a login', async () => {
    const { BackOff } = await import('../../../cli/login/back_off.ts')
    const account = { issuer: 'https://i', clientId: 'c', token: 'id', scope: null, parameters: [] } as const
    const backOff = new BackOff(account, home.env())
    let now = 1_800_000_000
    const pauses: number[] = []
    for (let i = 0; i < 8; i++) {
      backOff.check(now)
      await backOff.count(now, true)
      await backOff.count(now, false)
      let pause = 0
      for (const step of [4096, 512, 64, 8, 1]) for (; refused(now + pause + step - 1); pause += step);
      pauses.push(pause)
      now += pause
    }
    function refused(at: number): boolean {
      try {
        backOff.check(at)
        return false
      } catch {
        return true
      }
    }
    expect(pauses).toEqual([15, 60, 300, 1800, 7200, 28800, 28800, 28800])
    await backOff.count(now, true)
    // A clock that was put back by a day.
    expect(() => backOff.check(now - 86_400)).not.toThrow()
    backOff.clear()
    expect(() => backOff.check(now)).not.toThrow()
  })

  test('a folder that cannot be written: nobody is asked, for there would be no end of it', async () => {
    await start()
    const outcome = await home.credential(idp, [], { XDG_STATE_HOME: '/dev/null/nowhere' })
    expect(outcome).toMatchObject({ code: 1, stdout: '' })
    expect(outcome.stderr).not.toContain('internal error')
    expect(home.opened()).toEqual([])
  })
})

describe('DG: the device flow', () => {
  test('a code for another machine, and the login is made there', async () => {
    await start()
    const argv = credentialArgv(idp, ['--prompt', 'device'])
    let said = ''
    let polls = 0
    const { main } = await import('../../../cli/main.ts')
    let printed = ''
    const waits: number[] = []
    const code = await main(argv, {
      env: home.env(),
      stdin: (async function* () {})(),
      print: (text) => {
        printed += text
      },
      say: (line) => {
        said += `${line}\n`
      },
      interactive: () => false,
      now: () => Date.now(),
      async wait(milliseconds) {
        waits.push(milliseconds)
        // After the first answer that nobody has been there yet.
        if (++polls === 2) await visit(/or open (\S+)/.exec(said)?.[1] ?? '', 'alice')
      },
    })
    expect([code, said]).toEqual([
      0,
      expect.stringMatching(/open http\S+\/device\nand enter the code [A-Z]{4}-[A-Z]{4}/),
    ])
    expect(credentialIn({ code: 0, stdout: printed, stderr: '' }).claims.sub).toBe('alice')
    expect(waits[0]).toBe(5000)
    expect(home.opened()).toEqual([])
  })

  /** Answers of the token endpoint, one after the other, and then that nobody has been there. */
  async function polled(answers: readonly (object | null)[], more: readonly string[] = []) {
    await start()
    const left = [...answers]
    idp.intercept = (request, response) => {
      if (request.url !== '/token') return false
      const body = left.length > 0 ? left.shift() : { error: 'authorization_pending' }
      if (body === null) response.destroy()
      else response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      return true
    }
    const waits: number[] = []
    const outcome = await cli(credentialArgv(idp, ['--prompt', 'device', ...more]), {
      env: home.env(),
      wait: (milliseconds) => void waits.push(milliseconds / 1000),
    })
    expect(outcome.stdout).toBe('')
    expect(outcome.code).toBe(1)
    return { ...outcome, waits }
  }

  test('DG-2: slow_down is obeyed from then on, and so is a connection that fails', async () => {
    const pending = { error: 'authorization_pending' }
    const { waits } = await polled([
      pending,
      { error: 'slow_down' },
      pending,
      null,
      pending,
      { error: 'access_denied' },
    ])
    expect(waits).toEqual([5, 5, 10, 10, 15, 15])
  })

  test.each([
    ['access_denied', /access_denied/],
    ['expired_token', /expired_token/],
    ['invalid_client', /invalid_client/],
  ])('DG-2: %s ends it', async (error, message) => {
    const { stderr, waits } = await polled([{ error }])
    expect([stderr, waits.length]).toEqual([expect.stringMatching(message), 1])
  })

  test('an answer that cannot be used is said at once, and not asked for again', async () => {
    await start()
    const waits: number[] = []
    idp.intercept = (request, response) => {
      if (request.url !== '/token') return false
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ access_token: 'opaque', token_type: 'Bearer' }))
      return true
    }
    const outcome = await cli(credentialArgv(idp, ['--prompt', 'device']), {
      env: home.env(),
      wait: (milliseconds) => void waits.push(milliseconds / 1000),
    })
    expect(outcome).toMatchObject({ code: 1, stderr: expect.stringContaining('gives no ID token') })
    expect(waits).toEqual([5])
  })

  test('keys that cannot be had cost no code', async () => {
    await start()
    let refused = 0
    idp.intercept = ({ url }, response) => {
      if (url !== '/jwks' || refused === 2) return false
      refused++
      response.writeHead(503).end()
      return true
    }
    const waits: number[] = []
    await cli(credentialArgv(idp, ['--prompt', 'device', '--timeout', '50']), {
      env: home.env(),
      wait: (milliseconds) => void waits.push(milliseconds / 1000),
    })
    expect(waits).toEqual([5, 10, 15, 15])
    expect(idp.count('POST /token')).toBe(2)
  })

  test('a page that is not of the web is not shown to anybody', async () => {
    await start()
    idp.intercept = (request, response) => {
      if (request.url !== '/device/auth') return false
      const body = { device_code: 'x', user_code: 'y', verification_uri: 'file:///etc/passwd', expires_in: 60 }
      response.setHeader('content-type', 'application/json').end(JSON.stringify(body))
      return true
    }
    const { code, stderr } = await home.credential(idp, ['--prompt', 'device'])
    expect([code, stderr]).toEqual([1, expect.stringContaining('no web page')])
  })

  test('nobody comes: it ends when it was said to', async () => {
    const { stderr, waits } = await polled([], ['--timeout', '30'])
    expect(stderr).toContain('nobody has logged in within 30 s')
    expect(waits).toEqual(Array(waits.length).fill(5))
  })
})

describe('to paste the address', () => {
  async function paste(lines: (authorizationUrl: string) => Promise<string[]>) {
    const { main } = await import('../../../cli/main.ts')
    let [said, printed] = ['', '']
    const asked = Promise.withResolvers<string>()
    const code = await main(credentialArgv(idp, ['--prompt', 'paste', '--timeout', '20']), {
      env: home.env(),
      stdin: (async function* () {
        for (const line of await lines(await asked.promise)) yield Buffer.from(`${line}\n`)
      })(),
      print: (text) => {
        printed += text
      },
      say(line) {
        said += `${line}\n`
        const [, url] = /open\n(\S+)\n/.exec(line) ?? []
        if (url) asked.resolve(url)
      },
      interactive: () => true,
      now: () => Date.now(),
      wait: async () => {},
    })
    return { code, said, printed }
  }
  const address = async (url: string) => (await visit(url, 'alice', (at) => at.pathname === '/callback')).url

  test('the address at which the login ends is taken, others are not', async () => {
    await start()
    const { code, said, printed } = await paste(async (url) => {
      const right = await address(url)
      const wrong = new URL(right)
      wrong.searchParams.set('state', 'other')
      return ['', 'what?', right.replace('/callback', '/other'), wrong.href, `  ${right} `]
    })
    expect(code).toBe(0)
    expect(said.match(/This is not the address/g)).toHaveLength(3)
    expect(credentialIn({ code: 0, stdout: printed, stderr: '' }).claims.sub).toBe('alice')
    expect(home.opened()).toEqual([])
  })

  test.each([
    ['too much', async () => ['x'.repeat(20_000)], /too long/],
    ['nothing', async () => [], /nothing was pasted/],
  ])('%s', async (_, lines, message) => {
    await start()
    expect(await paste(lines)).toMatchObject({ code: 1, said: expect.stringMatching(message), printed: '' })
  })
})

describe('the exchange for an SVID', () => {
  const subjectTokens: (string | null)[] = []
  let worker: Server
  let exchange: (audience: string) => Promise<Outcome>
  beforeEach(async () => {
    subjectTokens.length = 0
    const key = await makeTokenKey('ES256')
    worker = createHttpServer(async (request, response) => {
      let text = ''
      for await (const chunk of request) text += chunk
      const form = new URLSearchParams(text)
      subjectTokens.push(form.get('subject_token'))
      const now = Math.floor(Date.now() / 1000)
      const claims = { sub: 'spiffe://example.org/alice', aud: form.getAll('audience'), iat: now, exp: now + 300 }
      const svid = await signToken({ alg: 'ES256', kid: key.kid, typ: 'JWT' }, claims, key)
      const refused = form.get('audience') === 'nobody'
      const given = { access_token: svid, issued_token_type: 'x', token_type: 'Bearer', expires_in: 300 }
      response.writeHead(refused ? 400 : 200, { 'content-type': 'application/json' })
      response.end(JSON.stringify(refused ? { error: 'invalid_target' } : given))
    })
    await new Promise<void>((resolve) => worker.listen(0, '127.0.0.1', resolve))
    const issuer = `http://127.0.0.1:${(worker.address() as AddressInfo).port}`
    exchange = (audience) => home.credential(idp, ['--exchange', '--issuer', issuer, '--audience', audience])
  })
  afterEach(() => {
    worker.closeAllConnections()
    worker.close()
  })

  test('twelve clusters at once, each with an audience of its own: all are served, and none is refused for another', async () => {
    await start()
    await home.credential(idp)
    const audiences = Array.from({ length: 12 }, (_, at) => (at === 3 ? 'nobody' : `k8s-${at}`))
    const outcomes = await Promise.all(audiences.map(exchange))
    const given = outcomes.map((outcome) => (outcome.code === 0 ? credentialIn(outcome).claims.aud[0] : 'nobody'))
    expect(given).toEqual(audiences)
    expect(home.opened()).toHaveLength(1)
  })

  test('the SVID is the credential; it is kept, made anew without a prompt, and others share the login', async () => {
    await start()
    const first = await exchange('k8s-a')
    expect(credentialIn(first).claims).toMatchObject({ sub: 'spiffe://example.org/alice', aud: ['k8s-a'] })
    expect((await exchange('k8s-a')).stdout).toBe(first.stdout)
    expect(credentialIn(await exchange('k8s-b')).claims.aud).toEqual(['k8s-b'])
    expect((await exchange('k8s-a')).stdout).toBe(first.stdout)
    const own = credentialIn(await home.credential(idp))
    expect(own.claims.iss).toBe(idp.issuer)
    expect(subjectTokens).toEqual([own.token, own.token])
    expect(home.opened()).toHaveLength(1)
    worker.closeAllConnections()
    await new Promise((resolve) => worker.close(resolve))
    // The login is kept, so that a worker that is away costs nobody a prompt.
    expect(await exchange('k8s-c')).toMatchObject({ code: 1, stdout: '' })
    expect(home.opened()).toHaveLength(1)
  })
})

describe('status and logout', () => {
  test('status says where what is, and nothing of it', async () => {
    await start()
    expect(await home.run(['status'])).toMatchObject({ code: 0, stdout: 'No login is kept on this machine.\n' })
    const { token } = credentialIn(await home.credential(idp))
    const { code, stdout } = await home.run(['status'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/PROVIDER +CLIENT +TOKEN +GOOD UNTIL +RENEWED +KEPT IN/)
    expect(stdout).toContain(`${idp.issuer}   kubectl   id`)
    expect(stdout).toContain('an encrypted file, its key in memory until you log out of this machine')
    const { credentials } = JSON.parse((await home.run(['status', '--output', 'json'])).stdout)
    expect(credentials).toEqual([
      {
        issuer: idp.issuer,
        clientId: 'kubectl',
        token: 'id',
        place: 'an encrypted file, its key in memory until you log out of this machine',
        expiresAt: expect.stringMatching(/Z$/),
        expired: false,
        refreshable: true,
      },
    ])
    expect(findPieceOf(token, stdout + JSON.stringify(credentials))).toBeNull()
  })

  test('logout removes and revokes; the refresh token is dead', async () => {
    await start()
    await home.credential(idp)
    const outcome = await home.run(['logout'])
    expect(outcome).toMatchObject({
      code: 0,
      stdout: `kubectl at ${idp.issuer}: removed from this machine\nkubectl at ${idp.issuer}: revoked\n`,
    })
    expect(idp.count('POST /token/revocation')).toBe(1)
    expect(home.files()).toEqual([])
    expect(await home.run(['logout'])).toMatchObject({ code: 0, stderr: 'There is nothing to remove.\n' })
  })

  test('logout waits for whoever renews the login, and takes away what it has got', async () => {
    await start({ idTokenSeconds: 29 })
    await home.credential(idp)
    const atTokenEndpoint = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    idp.intercept = async ({ url }) => {
      if (url === '/token') {
        atTokenEndpoint.resolve()
        await goOn.promise
      }
      return false
    }
    const renewing = home.credential(idp)
    await atTokenEndpoint.promise
    const child = cliOf(['logout'], home.env())
    await expect.poll(child.said, { timeout: 20_000 }).toContain('waiting for it')
    goOn.resolve()
    expect(await renewing).toMatchObject({ code: 0 })
    expect(await child.outcome).toMatchObject({ code: 0, stdout: expect.stringMatching(/removed[\s\S]*revoked/) })
    expect(home.files()).toEqual([])
    const [, refresh] = idp.grants
    expect(refresh?.get('grant_type')).toBe('refresh_token')
  })

  test('logout does not wait for a person: what is kept goes, and that there may be more is said', async () => {
    await start()
    await home.credential(idp)
    const login = cliOf(['login', '--issuer-url', idp.issuer, '--client-id', CLIENT_ID], home.env('nobody'))
    await expect.poll(() => home.opened().length, { timeout: 20_000 }).toBe(2)
    const outcome = await home.run(['logout'])
    expect(outcome).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/removed[\s\S]*revoked/),
      stderr: expect.stringContaining('what another process gets meanwhile is kept'),
    })
    expect(home.files().filter(({ path }) => path.includes('credentials'))).toEqual([])
    login.child.kill('SIGKILL')
    await login.outcome
  })

  test('T: the secret of one client goes to no other provider', async () => {
    const one = await start({ clientSecret: 'SECRET-OF-ONE' })
    expect((await home.credential(one, [], { CLIENT_SECRET: 'SECRET-OF-ONE' })).code).toBe(0)
    const two = await start()
    await home.credential(two)
    const shown: string[] = []
    two.intercept = ({ headers }) => {
      shown.push(headers.authorization ?? '')
      return false
    }
    writeFileSync(join(home.path, 'secret'), 'SECRET-OF-ONE', { mode: 0o600 })
    const file = ['--client-secret-file', join(home.path, 'secret')]
    expect(await home.run(['logout', ...file])).toMatchObject({ code: 2, stderr: expect.stringContaining('whose?') })
    const named = { IDP_ISSUER_URL: one.issuer, CLIENT_ID, CLIENT_SECRET: 'SECRET-OF-ONE' }
    expect(await home.run(['logout'], named)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/revoked[\s\S]*revoked/),
    })
    expect(shown.filter(Boolean)).toEqual([])
    expect(two.count('POST /token/revocation')).toBe(1)
  })

  test('logout of one of two', async () => {
    const one = await start()
    await home.credential(one)
    const two = await start()
    await home.credential(two)
    expect((await home.run(['logout', '--issuer-url', two.issuer])).code).toBe(0)
    const { credentials } = JSON.parse((await home.run(['status', '-o', 'json'])).stdout)
    expect(credentials).toMatchObject([{ issuer: one.issuer }])
    expect((await home.run(['logout', '--client-id', 'other'])).stderr).toContain('nothing to remove')
  })

  test('a provider that is away: it is gone from here all the same, and that it is not revoked is said', async () => {
    await start()
    await home.credential(idp)
    await idp.stop()
    const outcome = await home.run(['logout'])
    expect(outcome).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('removed'),
      stderr: expect.stringContaining('not revoked'),
    })
    expect(home.files()).toEqual([])
  })
})

test('nothing secret is in a file that others may read, in a message, or anywhere as it is', async () => {
  await start({ idTokenSeconds: 29 })
  const before = process.umask(0)
  const first = await home.credential(idp)
  const second = await home.credential(idp)
  process.umask(before)
  const secrets = [credentialIn(first).token, credentialIn(second).token]
  for (const grant of idp.grants)
    secrets.push(...['code', 'code_verifier', 'refresh_token'].map((name) => grant.get(name) ?? '').filter(Boolean))
  expect(secrets.length).toBeGreaterThanOrEqual(5)
  for (const { mode, text } of home.files()) {
    expect(mode).toBe(0o600)
    for (const secret of secrets) expect(findPieceOf(secret, text)).toBeNull()
  }
  for (const secret of secrets) expect(findPieceOf(secret, first.stderr + second.stderr + home.opened())).toBeNull()
})
