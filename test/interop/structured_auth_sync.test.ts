/** What `structured-auth sync` writes, before the real kube-apiserver: its validation and authenticator, and the whole program. */

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import type { Revoked } from '../../cli/objects/revocation.ts'
import { renderWithRevocations } from '../../cli/objects/revocation_rule.ts'
import {
  API_VERSIONS,
  MAPPINGS,
  renderAuthenticationConfiguration,
} from '../../worker/cluster/authentication_configuration.ts'
import type { Cluster } from '../../worker/policy/cluster.ts'
import { MAX_REVOKED_TOKENS, revocationsProblem } from '../../worker/policy/revocation.ts'
import { TrustDomain } from '../../worker/spiffe/id.ts'
import { cli } from '../support/cli.ts'
import { exchange, send } from '../support/exchange.ts'
import { KUBERNETES_MINORS, startKubeJudge, validateAuthenticationConfigurations } from '../support/judge.ts'
import { forge } from '../support/jwt_forge.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { createCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest, cluster as policyCluster, policyOf } from '../support/policy.ts'
import { startTestIssuer, type TestIssuer } from '../support/test_issuer.ts'
import { missing } from '../support/tools.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'
const numbered = (count: number, text: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => text(index))
const uuid = (index: number) => `8a6f7a0c-0c5e-4d6b-9d3c-${String(index).padStart(12, '0')}`

/** As many subjects as go with these tokens, each of this length. */
function fill(tokens: readonly string[], length: number): Revoked {
  const subject = (index: number) => `spiffe://example.org/${String(index).padStart(length - 21, 'x')}`
  let count = 0
  while (revocationsProblem(tokens, numbered(count + 1, subject)) === null) count++
  return { version: 1, tokens, subjects: numbered(count, subject) }
}

const SETS: readonly Revoked[] = [
  { version: 1, tokens: [], subjects: [] },
  { version: 1, tokens: ['a', '-', '_', 'true', '0', uuid(1)], subjects: [] },
  { version: 1, tokens: [], subjects: [ID, 'spiffe://a.b-c_d/-/_/...', 'spiffe://1/true'] },
  { version: 1, tokens: ['x'.repeat(128)], subjects: [`spiffe://example.org/${'x'.repeat(2027)}`] },
  fill(numbered(MAX_REVOKED_TOKENS, uuid), 64),
  fill([], 22),
  fill([], 2048),
]

function templateFor(
  issuer: string,
  ca: string | null,
  version: (typeof API_VERSIONS)[number],
  mapping: (typeof MAPPINGS)[number],
) {
  const record = policyOf(policyCluster('real')).clusters.get('real') as Cluster
  const real = { ...record, apiServerAudiences: ['k8s'], certificateAuthority: ca }
  return renderAuthenticationConfiguration(issuer, TrustDomain.parse('example.org'), real, version, mapping)
}

describe.skipIf(missing('go'))('T-13: a file with a revocation rule', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-revocations-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  test('AC-2: the validation of kube-apiserver accepts every rendering, up to the largest', () => {
    const issuer = 'https://issuer.example.org'
    const files = API_VERSIONS.flatMap((version) =>
      MAPPINGS.flatMap((mapping) =>
        SETS.map((revoked, index) => {
          const file = join(folder, `${version}-${mapping}-${index}.yaml`)
          writeFileSync(file, renderWithRevocations(templateFor(issuer, null, version, mapping), issuer, revoked))
          return file
        }),
      ),
    )
    for (const minor of KUBERNETES_MINORS)
      for (const { file, ok, error } of validateAuthenticationConfigurations(minor, files))
        expect([minor, file, ok, error?.slice(-200)]).toEqual([minor, file, true, undefined])
  })

  test('the same validation refuses one character more than 100,000, which is why there is a limit', () => {
    const files = [100_000, 100_001].map((characters) => {
      const file = join(folder, `${characters}.json`)
      const expression = `claims.sub in [${numbered(900, (index) => `'${ID}-${index}'`).join(',')}]`.padEnd(characters)
      const template = parse(templateFor('https://issuer.example.org', null, 'v1', 'sub'))
      template.jwt[0].claimValidationRules = [{ expression, message: 'x' }]
      writeFileSync(file, JSON.stringify(template))
      return file
    })
    for (const minor of KUBERNETES_MINORS)
      expect(validateAuthenticationConfigurations(minor, files).map(({ ok }) => ok)).toEqual([true, false])
  })

  describe('what the rule does with a token', () => {
    let issuer: TestIssuer
    beforeAll(async () => {
      issuer = await startTestIssuer(['ES256'])
    })
    afterAll(() => issuer.stop())

    test.each(MAPPINGS)(
      'D4: mapping %s: a revoked token and a revoked subject are refused, and nobody else',
      async (mapping) => {
        const now = Math.floor(Date.now() / 1000)
        const token = (claims: object) =>
          forge(
            issuer.keys.es256 as never,
            { alg: 'ES256', kid: 'es256' },
            { iss: issuer.url, aud: 'k8s', exp: now + 300, iat: now, sub: ID, jti: uuid(5000), ...claims },
          )
        const tokens = [
          token({}),
          token({ jti: uuid(7) }),
          token({ jti: uuid(7).slice(0, -1) }),
          token({ jti: uuid(7).toUpperCase() }),
          token({ jti: undefined }),
          token({ sub: `${ID}-bad` }),
          token({ sub: `${ID}-bad`, jti: undefined }),
          token({ sub: `${ID}-bad2` }),
        ]
        const large = fill([...numbered(900, uuid)], 64)
        const revoked = { ...large, subjects: [...large.subjects.slice(2), `${ID}-bad`] }
        const yaml = renderWithRevocations(templateFor(issuer.url, issuer.ca, 'v1', mapping), issuer.url, revoked)
        for (const minor of KUBERNETES_MINORS) {
          const judge = await startKubeJudge(minor, yaml, issuer.folder)
          const verdicts = await judge.ask(tokens)
          await judge.stop()
          expect([minor, ...verdicts.map(({ ok }) => ok)]).toEqual([
            minor,
            true,
            false,
            true,
            true,
            true,
            false,
            false,
            true,
          ])
          for (const { ok, error } of verdicts)
            if (!ok) expect(error).toMatch(/failed: the token or its subject is revoked$/)
        }
      },
    )
  })
})

describe.skipIf(missing('go'))('D4: a token that is revoked, from the command line to the API server', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-sync-'))
  const path = (name: string) => join(folder, name)
  const [alice, node, template, caFile] = ['alice.key', 'node.key', 'template.yaml', 'ca.crt'].map(path) as [
    string,
    string,
    string,
    string,
  ]
  let issuer: string
  let ca: string
  let worker: PlainWorkerd
  let apiserver: KubeApiserver
  let syncing: ChildProcess | undefined
  let said = ''

  beforeAll(async () => {
    const authority = await createCa()
    ca = authority.certificate
    writeFileSync(caFile, ca)
    const tls = await authority.issue('localhost', '127.0.0.1')
    const key = createServiceAccountKey('ES256')
    const port = await freePort()
    issuer = `https://localhost:${port}`
    const create = async (...argv: readonly string[]) =>
      parse((await cli(['admin', 'create', '--issuer', issuer, ...argv])).stdout) as object
    const workload = (name: string) => ({
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name },
      spec: { clusters: ['real'], selector: { namespace: 'shop', serviceAccountName: name }, audiences: ['k8s'] },
    })
    const record = policyCluster('real', {
      issuer: SERVICE_ACCOUNT_ISSUER,
      jwks: { inline: { keys: [key.jwk] } },
      apiServer: { certificateAuthority: ca },
    })
    worker = await startPlainWorkerd({
      entry: 'development',
      env: { MODE: 'development', ISSUER: issuer, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
      manifest: manifest(
        record,
        workload('web'),
        workload('api'),
        await create('--name', 'alice', '--key-file', alice),
        await create('--name', 'node-real', '--revocations-of', 'real', '--key-file', node),
      ),
      tls,
      port,
    })
    const rendered = await send(`${issuer}/structured-auth.yaml?cluster=real`, { ca })
    expect(rendered.status).toBe(200)
    writeFileSync(template, rendered.text)
    apiserver = await startKubeApiserver(rendered.text, key)
    for (const name of ['web', 'api']) await apiserver.createPod('shop', name, `${name}-0`)
  })
  afterAll(async () => {
    if (syncing) {
      const ended = new Promise((done) => syncing?.once('exit', done))
      syncing.kill()
      await ended
    }
    await apiserver?.stop()
    await worker?.stop()
    rmSync(folder, { recursive: true })
  })

  /** The program as it is run on a control-plane node, with the worker's CA. */
  const program = (...argv: readonly string[]) => {
    const env = { PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: caFile }
    const child = spawn('node', ['cli/main.ts', ...argv, '--issuer', issuer], { env })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
        said += text
      })
    const done = new Promise<[number | null, string]>((ended) => child.once('close', (code) => ended([code, output])))
    return { child, done }
  }
  const run = async (...argv: readonly string[]) => program(...argv).done
  async function svidOf(name: string): Promise<{ svid: string; jti: string }> {
    const { status, body } = await exchange(
      issuer,
      await apiserver.podToken('shop', name, `${name}-0`, 'spiffe-edge'),
      {
        ca,
        audience: 'k8s',
      },
    )
    expect([status, body.reason]).toEqual([200, undefined])
    const svid = body.access_token as string
    return { svid, jti: JSON.parse(Buffer.from(svid.split('.')[1] ?? '', 'base64url').toString()).jti }
  }
  const whoami = async (token: string) => {
    try {
      const review = JSON.parse(await apiserver.kubectlAs(token, ['auth', 'whoami', '-o', 'json']))
      return review.status.userInfo.username
    } catch (error) {
      return /must be logged in|Unauthorized/.test(String(error)) ? 'refused' : String(error)
    }
  }
  const RELOAD = { timeout: 90_000, interval: 500 }

  test('is refused after the API server has read its file again by itself, and others are not; then a subject', async () => {
    const web = 'spiffe://example.org/ns/shop/sa/web'
    const api = 'spiffe://example.org/ns/shop/sa/api'
    const [stolen, good, other] = [await svidOf('web'), await svidOf('web'), await svidOf('api')]
    for (const [{ svid }, name] of [
      [stolen, web],
      [good, web],
      [other, api],
    ] as const)
      expect(await whoami(svid)).toBe(name)

    const sync = [
      'structured-auth',
      'sync',
      '--cluster',
      'real',
      '--template',
      template,
      '--file',
      apiserver.configFile,
    ]
    syncing = program(...sync, '--key-file', node, '--interval', '1').child
    await expect.poll(() => said).toContain('written; revoked: 0 tokens')

    expect(await run('revoke', 'token', stolen.jti, '--key-file', alice)).toMatchObject([0, expect.anything()])
    await expect.poll(() => whoami(stolen.svid), RELOAD).toBe('refused')
    expect(await whoami(good.svid)).toBe(web)
    expect(await whoami(other.svid)).toBe(api)
    expect(apiserver.log()).toContain('the token or its subject is revoked')

    expect(await run('revoke', 'subject', web, '--key-file', alice)).toMatchObject([0, expect.anything()])
    await expect.poll(() => whoami(good.svid), RELOAD).toBe('refused')
    expect(await whoami(other.svid)).toBe(api)
    const { status, body } = await exchange(issuer, await apiserver.podToken('shop', 'web', 'web-0', 'spiffe-edge'), {
      ca,
      audience: 'k8s',
    })
    expect([status, body.reason]).toEqual([400, 'banned'])

    const [name = ''] = /ban-[0-9a-f]{12}/.exec(said) ?? []
    expect(await run('unban', name, '--key-file', alice)).toMatchObject([0, expect.anything()])
    await expect.poll(() => whoami(good.svid), RELOAD).toBe(web)
    expect(await whoami(stolen.svid)).toBe('refused')
  })

  test('T-11: what the node has for that is good for nothing else', async () => {
    mkdirSync(path('elsewhere'))
    const file = path('elsewhere/x.yaml')
    for (const argv of [
      ['get'],
      ['revoke', 'token', 'a'],
      ['unban', 'x'],
      ['structured-auth', 'sync', '--cluster', 'demo', '--template', template, '--file', file],
    ])
      expect(await run(...argv, '--key-file', node)).toEqual([1, expect.stringContaining('forbidden')])
    expect(() => readFileSync(file)).toThrow('ENOENT')
  })
})
