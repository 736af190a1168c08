/**
 * A person's login, with nothing that is made up: kubectl runs the plugin, Chromium shows the pages, npm's oidc-provider logs the person in, a Secret
 * Service keeps what comes of it, and a kube-apiserver that trusts the provider says who it is.
 */

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { logInAs, startBrowser, type TestBrowser } from '../support/browser.ts'
import { Folder, type Outcome } from '../support/cli.ts'
import { installCommands, KUBECTL, V1, writeKubeconfig } from '../support/exec_plugin.ts'
import { CLIENT_ID, type IdentityProvider, startIdentityProvider } from '../support/identity_provider.ts'
import { type KeyringSession, openSession } from '../support/keyring.ts'
import { createServiceAccountKey, type KubeApiserver, startKubeApiserver } from '../support/kube_apiserver.ts'
import { cliOf, credentialArgv, credentialIn, LoginHome } from '../support/login.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { findPieceOf } from '../support/tokens.ts'
import { missing } from '../support/tools.ts'

const CLIENT_SECRET = 'c2VjcmV0LW9mLXRoZS1jbGllbnQtMDEyMzQ1Njc4OQ'

const PERSON_ID = 'spiffe://example.org/person/alice'
const WHOAMI = ['auth', 'whoami', '-o', 'json']

const folder = new Folder()
const PATH = installCommands(folder)
let ca: TestCa
let caFile: string
let tls: { cert: string; key: string }
let browser: TestBrowser
let home: LoginHome
let session: KeyringSession
let idp: IdentityProvider

const skipped = missing('browser') || missing('keyring')

beforeAll(async () => {
  if (skipped) return
  ca = await createCa()
  const { certificate, key } = await ca.issue('localhost')
  tls = { cert: certificate, key }
  caFile = folder.write(ca.certificate)
  browser = await startBrowser()
})
afterAll(async () => {
  await browser?.stop()
  folder.remove()
})

function env(more: Record<string, string> = {}): Record<string, string> {
  const chosen = { BROWSER: browser.command, NODE_EXTRA_CA_CERTS: caFile, ...more }
  return { ...session.env, PATH, NODE_COMPILE_CACHE: join(folder.path, 'compiled'), ...chosen }
}

const spiffeEdge = (argv: readonly string[], more?: Record<string, string>) => cliOf(argv, env(more))
const credential = (more: readonly string[] = []) => spiffeEdge(credentialArgv(idp, more))

async function status(): Promise<{ place: string }[]> {
  return JSON.parse((await spiffeEdge(['status', '-o', 'json']).outcome).stdout).credentials
}

/** The person logs in at the next page that is opened. */
async function person(name = 'alice'): Promise<string> {
  return logInAs(name, await browser.next())
}

beforeEach(() => {
  if (!skipped) home = new LoginHome()
})
afterEach(async () => {
  await idp?.stop()
  await session?.stop()
  home?.remove()
})

describe.skipIf(skipped)('a login in Chromium', () => {
  async function start(keyring: Parameters<typeof openSession>[0], options: object = {}) {
    session = await openSession(keyring, home.path)
    idp = await startIdentityProvider({ tls, ...options })
  }

  test('is kept in the keyring, and the next commands have it from there; logout takes it away and revokes it', async () => {
    await start('unlocked')
    const first = credential()
    expect(await person()).toMatch(/You are logged in\s+as alice/)
    const one = await first.outcome
    expect(one).toMatchObject({ code: 0, stderr: expect.stringContaining('Kept in the keyring') })
    expect(credentialIn(one).claims).toMatchObject({ sub: 'alice', aud: CLIENT_ID })
    const two = await credential().outcome
    expect([two.stdout, two.stderr]).toEqual([one.stdout, ''])
    expect(await status()).toMatchObject([{ place: 'the keyring', refreshable: true }])
    for (const { mode, text, path } of home.files().filter(({ path }) => path.includes('spiffe-edge'))) {
      expect(mode, path).toBe(0o600)
      expect(findPieceOf(credentialIn(one).token, text)).toBeNull()
    }
    const out = await spiffeEdge(['logout']).outcome
    expect([out.code, out.stdout]).toEqual([0, expect.stringMatching(/removed[\s\S]*revoked/)])
    expect(idp.count('POST /token/revocation')).toBe(1)
    const opened = browser.opened()
    const again = credential()
    await person('bob')
    expect(credentialIn(await again.outcome).claims.sub).toBe('bob')
    expect(browser.opened()).toBe(opened + 1)
  })

  test('nothing secret is on a command line or in the environment of a child, and nothing is on stderr', async () => {
    await start('unlocked', { clientSecret: CLIENT_SECRET })
    const before = browser.processes().length
    const process = spiffeEdge(credentialArgv(idp), { CLIENT_SECRET })
    const page = await browser.next()
    const read = (file: string) => readFileSync(`/proc/${process.child.pid}/${file}`, 'utf8')
    const [own, environment] = [read('cmdline'), read('environ')]
    await logInAs('alice', page)
    const outcome = await process.outcome
    expect(outcome.code).toBe(0)
    const [noted] = browser.processes().slice(before)
    const grant = idp.grants[0] as URLSearchParams
    const asked = idp.authorizations[0]?.searchParams as URLSearchParams
    const secrets = [
      credentialIn(outcome).token,
      grant.get('code'),
      grant.get('code_verifier'),
      asked.get('state'),
      asked.get('nonce'),
    ]
    for (const secret of [...secrets, CLIENT_SECRET]) {
      const text = [own, noted?.argv.join('\0'), Object.values(noted?.env ?? {}).join('\0'), outcome.stderr].join('\0')
      expect(findPieceOf(secret ?? '', text)).toBeNull()
    }
    // What was given to us is with us, and nowhere else.
    expect(environment).toContain(CLIENT_SECRET)
    expect(noted?.argv.at(-1)).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/login\/[\w-]{43}$/)
  })

  test('pain 56: a tab that is closed is asked about again only when it is time, or when somebody says so', async () => {
    await start('unlocked')
    const first = credential(['--timeout', '8'])
    await (await browser.next()).close()
    expect(await first.outcome).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('nobody has logged in'),
    })
    const opened = browser.opened()
    const second = await credential().outcome
    expect([second.code, second.stderr]).toEqual([
      1,
      expect.stringMatching(/no new one before .*\nLog in now with: spiffe-edge login/),
    ])
    expect(browser.opened()).toBe(opened)
    const login = spiffeEdge(['login', ...credentialArgv(idp).slice(2)])
    await person()
    expect(await login.outcome).toMatchObject({ code: 0, stdout: '' })
    expect((await credential().outcome).code).toBe(0)
  })

  test('one whose process is killed leaves nothing in the way', async () => {
    await start('unlocked')
    const first = credential()
    await browser.next()
    const waiting = credential()
    await expect.poll(waiting.said).toContain('Another process')
    first.child.kill('SIGKILL')
    // It has the turn now, but not a prompt: the one that was killed may come again and again.
    expect(await waiting.outcome).toMatchObject({ code: 1, stderr: expect.stringContaining('not answered') })
  })

  test('pain 60: eight processes with a token that is nearly over: each refresh token is used once, and all are served', async () => {
    await start('unlocked', { idTokenSeconds: 29 })
    const first = credential()
    await person()
    await first.outcome
    const opened = browser.opened()
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => credential().outcome))
    expect(outcomes.filter(({ code }) => code !== 0)).toEqual([])
    const used = idp.grants.map((grant) => grant.get('refresh_token')).filter((token) => token !== null)
    expect(used.length).toBeGreaterThan(0)
    expect(new Set(used).size).toBe(used.length)
    expect(browser.opened()).toBe(opened)
  })

  test('§12.7: a callback of another site’s making has no effect on a login that is under way', async () => {
    await start('unlocked')
    const first = credential()
    const page = await browser.next()
    const callback = new URL(
      new URL(page.url()).searchParams.get('redirect_uri') ??
        idp.authorizations[0]?.searchParams.get('redirect_uri') ??
        '',
    )
    const evil = await page.context().newPage()
    for (const query of ['', '?code=x', '?code=x&state=x', '?error=access_denied'])
      expect((await evil.goto(`${callback.href}${query}`))?.status()).toBe(400)
    await evil.close()
    await logInAs('alice', page)
    // Reloaded, as browsers do when they are started again.
    const replayed = await page.reload().catch(() => null)
    expect(replayed === null || replayed.status() === 410).toBe(true)
    expect((await first.outcome).code).toBe(0)
    expect(idp.count('POST /token')).toBe(1)
  })

  test('kubekey’s templates: an operator’s page, in which no script is run', async () => {
    await start('unlocked')
    const own = new Folder()
    own.write(
      '<title>{{.Name}}</title><p id="a">{{if .Picture}}<img src="{{.Picture}}">{{end}}</p><script>document.title = "run"</script>',
      'html_ok.tmpl',
    )
    const first = spiffeEdge(credentialArgv(idp), { KUBEKEY_TEMPLATEDIR: own.path })
    const page = await browser.next()
    await logInAs('<b>alice', page)
    expect(await page.title()).toBe('<b>alice')
    expect(await page.getAttribute('#a img', 'src')).toBe('https://pictures.example.org/1.png')
    expect((await first.outcome).code).toBe(0)
    own.remove()
  })

  test('DG: the device flow, on a machine that has no browser', async () => {
    await start('unlocked')
    const first = spiffeEdge(credentialArgv(idp), { BROWSER: '', SSH_CONNECTION: '192.0.2.1 1 192.0.2.2 22' })
    await expect.poll(first.said).toMatch(/or open (\S+)/)
    expect(first.said()).toContain('No browser is opened: this is an SSH session.')
    const [, url = ''] = /or open (\S+)/.exec(first.said()) ?? []
    const opened = browser.opened()
    await fetch(`http://127.0.0.1:${browser.command.split(' ').at(-2)}/?url=${encodeURIComponent(url)}`)
    const page = await browser.next()
    const [, code = ''] = /enter the code (\S+)/.exec(first.said()) ?? []
    // What the person compares with what the terminal shows.
    expect(await page.textContent('body')).toContain(code)
    await page.click('button[type=submit]')
    await page.fill('input[name=login]', 'alice')
    await page.click('button[type=submit]')
    expect(credentialIn(await first.outcome).claims.sub).toBe('alice')
    expect(browser.opened()).toBe(opened + 1)
  })

  test('pain 58: a token that is too large for the keyring is kept in a file, its key in the keyring', async () => {
    await start('unlocked', {
      claims: { groups: Array.from({ length: 800 }, (_, i) => `a-group-with-a-long-name-${i}`) },
    })
    const first = credential()
    await person()
    const one = await first.outcome
    expect(one).toMatchObject({ code: 0, stderr: expect.stringContaining('an encrypted file, its key in the keyring') })
    expect(one.stdout.length).toBeGreaterThan(20_000)
    expect((await credential().outcome).stdout).toBe(one.stdout)
    expect(
      findPieceOf(
        credentialIn(one).token,
        home
          .files()
          .map(({ text }) => text)
          .join('\n'),
      ),
    ).toBeNull()
  })

  test.each(['locked', 'none'] as const)(
    'pain 59: a keyring that is %s: an encrypted file, and --keyring-only refuses before anybody is asked',
    async (keyring) => {
      await start(keyring)
      const opened = browser.opened()
      expect(await credential(['--keyring-only']).outcome).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringMatching(/keyring.*--keyring-only/),
      })
      expect(browser.opened()).toBe(opened)
      const first = credential()
      await person()
      expect(await first.outcome).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/encrypted file, its key in memory.*keyring cannot be used/),
      })
      expect((await credential().outcome).code).toBe(0)
      expect(await status()).toMatchObject([{ place: expect.stringContaining('in memory until you log out') }])
    },
  )

  test('a keyring that hangs: the person is asked again, and the next commands do not wait for it', async () => {
    await start('unlocked')
    const first = credential()
    await person()
    expect((await first.outcome).stderr).toContain('Kept in the keyring')
    session.freeze()
    const second = credential()
    await person()
    expect(await second.outcome).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/keyring does not answer[\s\S]*encrypted file[\s\S]*keyring does not answer/),
    })
    const opened = browser.opened()
    const third = await credential().outcome
    expect([third.code, third.stderr, browser.opened()]).toEqual([0, '', opened])
    session.thaw()
  })

  test('a login that is in a keyring which has gone: the person is asked again, and told why', async () => {
    await start('unlocked')
    const first = credential()
    await person()
    await first.outcome
    await session.stop()
    session = await openSession('none', home.path)
    const second = credential()
    await person()
    expect(await second.outcome).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/cannot be used: the keyring[\s\S]*encrypted file/),
    })
    // Something is left in a keyring that cannot be opened here: that is said, and kept in mind.
    expect(await spiffeEdge(['logout']).outcome).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('may be left in the keyring'),
    })
  })
})

describe.skipIf(skipped || missing('go'))('kubectl, with a kube-apiserver that trusts the provider', () => {
  let apiserver: KubeApiserver
  /** One provider for all of it: the API server reads its keys once. */
  let trusted: IdentityProvider
  let worker: PlainWorkerd
  let workerUrl: string

  beforeAll(async () => {
    trusted = await startIdentityProvider({ tls, claims: { groups: ['developers'] } })
    const port = await freePort()
    workerUrl = `https://localhost:${port}`
    worker = await startPlainWorkerd({
      entry: 'development',
      env: { MODE: 'development', ISSUER: workerUrl, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
      manifest: manifest(
        {
          apiVersion: 'spiffe-edge.io/v1alpha1',
          kind: 'OIDCAttestor',
          metadata: { name: 'people' },
          spec: { issuer: trusted.issuer, audience: CLIENT_ID },
        },
        {
          apiVersion: 'kubespiffe.io/v1alpha1',
          kind: 'WorkloadRegistration',
          metadata: { name: 'alice' },
          spec: { oidc: { attestor: 'people', subject: 'alice' }, spiffeID: PERSON_ID, audiences: ['k8s'] },
        },
      ),
      tls: await ca.issue('localhost', '127.0.0.1'),
      trusted: ca.certificate,
      port,
    })
    const configuration = {
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthenticationConfiguration',
      jwt: [
        {
          issuer: { url: trusted.issuer, audiences: [CLIENT_ID], certificateAuthority: ca.certificate },
          claimMappings: {
            username: { claim: 'sub', prefix: 'person:' },
            groups: { claim: 'groups', prefix: 'team:' },
          },
        },
        {
          issuer: { url: workerUrl, audiences: ['k8s'], certificateAuthority: ca.certificate },
          claimMappings: { username: { claim: 'sub', prefix: '' } },
        },
      ],
    }
    apiserver = await startKubeApiserver(JSON.stringify(configuration), createServiceAccountKey('ES256'))
  })
  afterAll(async () => {
    await apiserver?.stop()
    await worker?.stop()
    await trusted?.stop()
  })
  beforeEach(async () => {
    session = await openSession('unlocked', home.path)
    idp = { ...trusted, stop: async () => {} }
  })

  function kubectl(more: readonly string[] = []): Promise<Outcome> {
    const exec = {
      apiVersion: V1,
      command: 'spiffe-edge',
      args: ['credential', 'oidc', '--issuer-url', trusted.issuer, ...more],
      env: [{ name: 'CLIENT_ID', value: CLIENT_ID }],
      interactiveMode: 'IfAvailable',
    }
    const child = spawn(KUBECTL, ['--kubeconfig', writeKubeconfig(folder, apiserver, exec), ...WHOAMI], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...env(), KUBECACHEDIR: join(home.path, 'kube') },
    })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    return new Promise((done) => child.once('close', (code) => done({ code: code ?? -1, stdout, stderr })))
  }
  const who = ({ stdout }: Outcome) => JSON.parse(stdout).status.userInfo

  test('kubectl auth whoami is the person, with their groups; the second time nobody is asked', async () => {
    const first = kubectl()
    expect(await person()).toContain('as alice')
    const one = await first
    expect([one.code, one.stderr]).toEqual([0, expect.stringContaining('Logged in as alice')])
    expect(who(one)).toMatchObject({ username: 'person:alice', groups: ['team:developers', 'system:authenticated'] })
    const opened = browser.opened()
    expect(who(await kubectl())).toMatchObject({ username: 'person:alice' })
    expect(browser.opened()).toBe(opened)
  })

  test('pain 56: twenty kubectl at once: one tab, and all are served', async () => {
    const opened = browser.opened()
    const grants = trusted.grants.length
    const all = Promise.all(Array.from({ length: 20 }, () => kubectl()))
    await person()
    const outcomes = await all
    expect(outcomes.filter(({ code }) => code !== 0)).toEqual([])
    expect(new Set(outcomes.map((outcome) => who(outcome).username))).toEqual(new Set(['person:alice']))
    expect([browser.opened() - opened, trusted.grants.length - grants]).toEqual([1, 1])
  })

  test("--exchange: the person's token is exchanged at the worker, and kubectl is the SVID; another person has none", async () => {
    const exchange = ['--exchange', '--issuer', workerUrl, '--audience', 'k8s']
    const first = kubectl(exchange)
    await person()
    expect(who(await first)).toMatchObject({ username: PERSON_ID })
    const opened = browser.opened()
    expect(who(await kubectl(exchange))).toMatchObject({ username: PERSON_ID })
    // The login is the same as without.
    expect(who(await kubectl())).toMatchObject({ username: 'person:alice' })
    expect(browser.opened()).toBe(opened)
    await spiffeEdge(['logout']).outcome
    const second = kubectl(exchange)
    await person('bob')
    expect(await second).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('refuses (') })
  })

  test('EX-1: a login that fails is an error of kubectl, with our message, and no credential', async () => {
    const first = kubectl()
    const page = await browser.next()
    await page.fill('input[name=login]', 'refuse')
    await page.click('button[type=submit]')
    await page.waitForURL(/\/callback\?/)
    expect(await page.textContent('body')).toMatch(/login has failed[\s\S]*access_denied/)
    const { code, stdout, stderr } = await first
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/refuses: access_denied \(not today\)[\s\S]*executable spiffe-edge failed with exit code 1/)
  })
})
