/**
 * `spiffe-edge revoke key`: the end of a key is proven, or said to be unproven (T-21). The worker and the API servers are
 * fakes with real keys, real tokens and real key caches behind real TLS; time passes only while the command waits.
 */

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type AdminApi, startAdminApi, stored } from '../../support/admin_api.ts'
import { cli, Folder, type Outcome } from '../../support/cli.ts'
import { NOW } from '../../support/clock.ts'
import {
  type ApiserverInstance,
  type KeyCacheApiserver,
  kubeconfigOf,
  startKeyCacheApiserver,
} from '../../support/key_cache_apiserver.ts'
import { findPieceOf, signToken, type TokenKey } from '../../support/tokens.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const ISSUER_SPEC = { issuer: 'https://eu.example.org', jwks: { discovery: true } }
const folder = new Folder()
const tokenFile = folder.write(TOKEN)
let api: AdminApi
let cluster: KeyCacheApiserver
let kubeconfig: string
let key: TokenKey
let waited: number

beforeEach(async () => {
  api = await startAdminApi()
  api.objects = [stored('Cluster', 'eu', ISSUER_SPEC)]
  key = await api.keys.add('active')
  await api.keys.add('published')
  cluster = await startCluster(3)
  kubeconfig = folder.write(kubeconfigOf({ ctx: cluster }))
  waited = 0
})
afterEach(async () => {
  cluster.stop()
  await api.stop()
})
afterAll(() => folder.remove())

async function startCluster(count: number, name = 'eu'): Promise<KeyCacheApiserver> {
  const started = await startKeyCacheApiserver(api.issuer, api.keys.clock, { count })
  started.audience = `k8s-${name}`
  await started.warm()
  return started
}

async function revoke(...more: string[]): Promise<Outcome> {
  const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
  const wait = (milliseconds: number) => {
    waited += milliseconds / 1000
    api.keys.clock.advance(milliseconds / 1000)
  }
  const outcome = await cli(['revoke', 'key', key.kid, ...more], { env, wait })
  expect(outcome.stderr).not.toContain('internal error')
  // Neither the canaries nor anybody's credential is ever shown.
  for (const secret of [...api.keys.canaries, cluster.token, TOKEN])
    expect(findPieceOf(secret, outcome.stdout + outcome.stderr)).toBeNull()
  return outcome
}
const EU = ['--apiserver', 'eu=ctx', '--apiservers', 'eu=3']
const revokeAtEu = (...more: string[]) => revoke('--kubeconfig', kubeconfig, ...EU, ...more)

/** @returns why it is unproven */
function reasonsIn({ stdout }: Outcome, name = 'eu'): string[] {
  const found = JSON.parse(stdout).clusters.find((entry: { cluster: string }) => entry.cluster === name)
  expect(found.result).toBe(found.reasons.length === 0 ? 'proven' : 'unproven')
  return found.reasons.map(({ reason }: { reason: string }) => reason)
}
async function reasons(...argv: string[]): Promise<string[]> {
  const outcome = await revoke('--output', 'json', ...argv)
  expect([outcome.code, api.keys.revoked.map(({ kid }) => kid)]).toEqual([1, [key.kid]])
  return reasonsIn(outcome)
}
const reasonsAtEu = (...more: string[]) => reasons('--kubeconfig', kubeconfig, ...EU, ...more)
const first = () => cluster.instances[0] as ApiserverInstance

/** As any workload that got one in time would show it. */
async function svid(more: object = {}): Promise<string> {
  const claims = {
    iss: api.issuer,
    aud: ['k8s-eu'],
    sub: 'spiffe://example.org/ns/shop/sa/web',
    exp: NOW + 86_400,
    ...more,
  }
  return signToken({ alg: 'ES256', kid: key.kid, typ: 'JWT' }, claims, key)
}
async function isAccepted(token: string): Promise<boolean> {
  // A kubectl would do it like this; the certificate is the fake's own.
  const { requestJson } = await import('../../../cli/request.ts')
  const options = { method: 'POST', bearer: token, body: {}, tls: { ca: cluster.ca } }
  const { status } = await requestJson(
    `${cluster.server}/apis/authentication.k8s.io/v1/selfsubjectreviews`,
    'test',
    options,
  )
  return status === 201
}

describe('T-21: proven', () => {
  test('D4: without a nudge the dead key lives on in every cache; with it all of them refuse its tokens', async () => {
    const token = await svid()
    const { code } = await revoke()
    expect(code).toBe(1)
    api.keys.clock.advance(3600)
    for (let connection = 0; connection < 3; connection++) expect(await isAccepted(token)).toBe(true)
    expect(cluster.instances.map(({ fetches }) => fetches)).toEqual([1, 1, 1])

    const another = await api.keys.add('active')
    await cluster.warm()
    key = another
    const { code: proven, stdout } = await revokeAtEu()
    expect(proven).toBe(0)
    expect(stdout).toMatch(/^eu +proven +3 of 3 +its tokens are refused$/m)
    for (let connection = 0; connection < 3; connection++) expect(await isAccepted(await svid())).toBe(false)
  })

  test('what it says, and in which order it went', async () => {
    const { stdout, stderr } = await revokeAtEu()
    expect(stdout).toContain(
      `${key.kid} was revoked at 2026-11-18T11:06:40Z. No isolate signs with it after 2026-11-18T11:10:40Z.\nThe issuer no longer answers with it.\n`,
    )
    const steps = [
      'revoked at',
      'still accepted, as it must be',
      'until 2026-11-18T11:10:40Z: 241 s left',
      '1 s left',
      'look at the keys',
    ]
    expect(
      [...stderr.split('\n')].filter((line) => steps.some((step) => line.includes(step))).length,
    ).toBeGreaterThanOrEqual(5)
    const positions = steps.map((step) => stderr.indexOf(step))
    expect(positions).toEqual([...positions].sort((a, b) => a - b))
    expect(waited).toBeGreaterThan(240)
  })

  test('the leases are waited out by the clock of the worker, whatever the one here says', async () => {
    api.keys.signingLeaseSeconds = 1000
    await revokeAtEu()
    expect(waited).toBeGreaterThan(1000)
    expect(api.paths.indexOf('POST /admin/v1/keys/revoke')).toBeLessThan(api.paths.indexOf('GET /keys', 3))
  })

  test('--output json and yaml', async () => {
    const json = JSON.parse((await revokeAtEu('--output', 'json')).stdout)
    expect(json).toEqual({
      ...{ kid: key.kid, use: 'jwt-svid', revokedAt: NOW, signingStopsAt: NOW + 240, withdrawn: true },
      ...{ refreshHint: null, problems: [] },
      clusters: [{ cluster: 'eu', result: 'proven', reasons: [], apiservers: { stated: 3, seen: 3 } }],
    })
    expect(parse((await revokeAtEu('--output', 'yaml')).stdout)).toMatchObject({ kid: key.kid })
  })

  test('several clusters at once', async () => {
    const other = await startCluster(2, 'us')
    api.objects.push(stored('Cluster', 'us', ISSUER_SPEC))
    const both = folder.write(kubeconfigOf({ ctx: cluster, 'a=b': other }))
    const more = ['--apiserver', 'us=a=b', '--apiservers', 'us=2']
    const { code, stdout } = await revoke('--kubeconfig', both, ...EU, ...more)
    expect([code, stdout.match(/ proven /g)?.length]).toEqual([0, 2])
    // The token for one cluster is shown to no other.
    const canaries = api.keys.canaries.map(
      (canary) => [cluster, other].filter(({ bearers }) => bearers.includes(canary)).length,
    )
    expect(canaries).toEqual([1, 1])
    other.stop()
  })

  test("the canary goes without the kubeconfig's own certificate, which would go before it", async () => {
    const base64 = (text: string) => Buffer.from(text).toString('base64')
    const user = ({ clientCertificate: { certificate, key: pem } }: KeyCacheApiserver) => ({
      'client-certificate-data': base64(certificate),
      'client-key-data': base64(pem),
    })
    kubeconfig = folder.write(kubeconfigOf({ ctx: cluster }, user))
    expect((await revokeAtEu()).code).toBe(0)
  })

  test('an API server accepts what it has just accepted for 10 s more, and that is waited for', async () => {
    api.keys.signingLeaseSeconds = 0
    expect((await revokeAtEu()).code).toBe(0)
    expect(waited).toBeGreaterThan(10)
  })

  test('a successor that is published meanwhile makes another key set, as good as the first', async () => {
    let looks = 0
    cluster.metrics = (text) => {
      // Behind the back of the command, which has seen the key set before it.
      if (looks++ === 0) void api.keys.add('published')
      return text
    }
    expect((await revokeAtEu()).code).toBe(0)
  })

  test('the issuer needs a while', async () => {
    const before = api.keys.jwks()
    api.keys.stale = () => (api.keys.clock.seconds < NOW + 270 ? before : null)
    const { code, stderr } = await revokeAtEu()
    expect(code).toBe(0)
    expect(stderr).toContain('the issuer still answers with the key: waiting')
  })

  test('no clusters: nothing is left to prove', async () => {
    api.objects = []
    expect(await revoke()).toMatchObject({ code: 0, stdout: expect.stringContaining('There are no clusters.') })
  })
})

describe('T-21: unproven, with the reason', () => {
  test('no API server was given, and what is to be done', async () => {
    expect(await reasons()).toEqual(['no_apiserver'])
    const { code, stdout, stderr } = await revoke()
    expect([code, cluster.bearers]).toEqual([1, []])
    expect(stdout).toMatch(/^eu +unproven +0 of unknown +no API server was given/m)
    expect(stderr).toContain('its end is unproven for: eu')
    expect(stderr).toContain('Restart their API servers')
  })

  test('one of two clusters is enough', async () => {
    api.objects.push(stored('Cluster', 'us', ISSUER_SPEC))
    const outcome = await revokeAtEu('--output', 'json')
    expect([outcome.code, reasonsIn(outcome), reasonsIn(outcome, 'us')]).toEqual([1, [], ['no_apiserver']])
  })

  test('a record that the worker rejects counts too', async () => {
    api.objects.push({ ...stored('Cluster', 'us', ISSUER_SPEC), status: 'rejected', reason: 'x' })
    expect((await revokeAtEu()).code).toBe(1)
  })

  test('it was not said how many there are; they are nudged all the same', async () => {
    expect(await reasons('--kubeconfig', kubeconfig, '--apiserver', 'eu=ctx')).toContain('count_not_stated')
    expect(await isAccepted(await svid())).toBe(false)
  })

  test('a cluster that is none', async () => {
    api.objects = []
    expect(await reasonsAtEu()).toEqual(['not_registered', 'no_canary'])
  })

  test.each<[string, () => unknown, string]>([
    [
      'not all of them show themselves',
      () => Object.assign(cluster, { choose: (connection: number) => connection % 2 }),
      'fewer_apiservers',
    ],
    [
      'the metrics may not be read',
      () =>
        Object.assign(cluster, {
          answer: ({ url }: { url?: string }) => (url === '/metrics' ? { status: 403, body: '' } : null),
        }),
      'metrics_unreadable',
    ],
    ['the metrics do not have it', () => Object.assign(cluster, { metrics: () => 'up 1\n' }), 'metric_missing'],
    [
      'the metrics make no sense',
      () => Object.assign(cluster, { metrics: (text: string) => text.replaceAll('hash="sha256:', 'hash="') }),
      'metric_missing',
    ],
  ])('%s: the rest is done all the same', async (_, change, reason) => {
    change()
    expect(await reasonsAtEu()).toEqual([reason])
  })

  test('OK-5: one that does not look again keeps both the key set and the key', async () => {
    first().looks = false
    expect(await reasonsAtEu()).toEqual(['other_key_set', 'canary_still_accepted'])
  })

  test('the metrics lie, and the canary does not', async () => {
    first().looks = false
    const right = () => `sha256:${api.keys.sha256()}`
    cluster.metrics = (text) =>
      text.replace(/(hash=")sha256:[0-9a-f]{64}(",jwt_issuer_hash="(?!.*login))/g, (line, before, after) =>
        text.includes(first().idHash) && line ? `${before}${right()}${after}` : line,
      )
    expect(await reasonsAtEu()).toEqual(['canary_still_accepted'])
  })

  test('the canary was never accepted: its refusal proves nothing', async () => {
    cluster.audience = 'another'
    expect(await reasonsAtEu()).toEqual(['canary_never_accepted'])
  })

  test('the canary expires before it can be tried: neither does that', async () => {
    api.keys.canaryLifetime = 200
    expect(await reasonsAtEu()).toEqual(['canary_expired'])
  })

  test('something in between vouches for everybody', async () => {
    cluster.answer = ({ url }) =>
      url === '/metrics' ? null : { status: 201, body: '{"status":{"userInfo":{"username":"proxy"}}}' }
    expect(await reasonsAtEu()).toEqual(['vouched_for', 'canary_still_accepted'])
  })

  test.each([
    [201, '{"status":{"userInfo":{"username":"system:anonymous"}}}'],
    [201, '{"status":{}}'],
    [201, 'no JSON'],
    [403, '{}'],
    [502, ''],
  ])('%i %s is neither acceptance nor refusal', async (status, body) => {
    cluster.answer = ({ url }) => (url === '/metrics' ? null : { status, body })
    expect(new Set(await reasonsAtEu())).toEqual(new Set(['unreachable']))
  })

  test('the issuer goes on answering with the key: no API server is made to fetch it again', async () => {
    const before = api.keys.jwks()
    api.keys.stale = () => before
    const { code, stdout, stderr } = await revokeAtEu()
    expect([code, cluster.instances.map(({ fetches }) => fetches)]).toEqual([1, [1, 1, 1]])
    expect(stdout).toContain('The issuer still answers with it')
    expect(stderr).toContain('the issuer still answers with the key')
  })

  test('it was revoked before: there is nothing left to sign a canary with', async () => {
    await revoke()
    expect(await reasonsAtEu()).toEqual(['no_canary'])
    const { stdout } = await revokeAtEu()
    expect(stdout).toMatch(/^eu +unproven +3 of 3 +there is no token/m)
  })

  test('the worker could not sign canaries', async () => {
    api.keys.canaryProblem = 'signing_unavailable'
    const { stderr } = await revokeAtEu()
    expect(stderr).toContain('could not make canaries: signing_unavailable')
    expect(await reasonsAtEu()).toEqual(['no_canary'])
  })
})

describe('revoking comes first, whatever else fails', () => {
  test.each<[string, () => string, string]>([
    ['no such kubeconfig', () => `${folder.path}/none`, 'there is no such file'],
    ['a kubeconfig that is refused', () => folder.write({ 'current-context': 'ctx' }), 'has no context ctx'],
  ])('%s', async (_, file, message) => {
    kubeconfig = file()
    const { code, stdout } = await revokeAtEu()
    expect([code, api.keys.revoked.length]).toEqual([1, 1])
    expect(stdout).toContain(message)
  })

  test('the API server is gone', async () => {
    cluster.stop()
    expect(new Set(await reasonsAtEu())).toEqual(new Set(['unreachable']))
  })

  test('the list of clusters cannot be had: those with a canary are still tried, and it is a failure', async () => {
    api.answer('objects', { status: 500 })
    const outcome = await revokeAtEu('--output', 'json')
    expect([outcome.code, reasonsIn(outcome)]).toEqual([1, []])
    expect(outcome.stderr).toContain('answers 500')
  })

  test('the list of keys cannot be had: the whole lease is waited out', async () => {
    api.answer('keys', { status: 500 })
    expect((await revokeAtEu()).code).toBe(0)
    expect(waited).toBeGreaterThan(240)
  })

  test('it is the first thing that is asked for', async () => {
    await revokeAtEu()
    expect(api.paths.filter((path) => path.includes('/admin/'))[0]).toBe('POST /admin/v1/keys/revoke')
  })
})

describe('how the worker may answer', () => {
  test('a key that there is not', async () => {
    key = { ...key, kid: 'none\u001b[2J' }
    expect(await revoke()).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('no key none\\u{1b}[2J'),
    })
  })

  test.each(['-o', '-h', '--', '-x'])('a kid may begin with %s', async (beginning) => {
    const kid = beginning.padEnd(43, 'o')
    for (const argv of [
      [kid, '-o', 'json'],
      ['-o', 'json', kid],
      ['-o', 'json', '--', kid],
    ]) {
      const body = {
        kid,
        use: 'jwt-svid',
        revokedAt: NOW,
        signingStopsAt: NOW,
        jwks: { sha256: api.keys.sha256() },
        canaryProblem: null,
      }
      api.answer('keys/revoke', { status: 200, body: { ...body, canaries: [] } })
      const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
      expect(JSON.parse((await cli(['revoke', 'key', ...argv], { env })).stdout).kid).toBe(kid)
    }
  })

  test.each([[['revoke', 'key']], [['revoke', 'key', '']], [['revoke', 'key', 'x', '--apiserver', 'eu=ctx']]])(
    '%j is wrong usage, and nothing is revoked',
    async (argv) => {
      const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
      expect((await cli(argv, { env })).code).toBe(2)
      expect(api.paths.filter((path) => path.includes('/admin/'))).toEqual([])
    },
  )

  const good = async () => ({
    ...{ kid: key.kid, use: 'jwt-svid', revokedAt: NOW, signingStopsAt: NOW, canaryProblem: null },
    jwks: { sha256: api.keys.sha256() },
    canaries: [{ cluster: 'eu', audience: 'k8s-eu', token: await svid() }],
  })
  type Answer = Awaited<ReturnType<typeof good>>

  test('this one is good', async () => {
    api.answer('keys/revoke', { status: 200, body: await good() })
    expect(await revoke()).toMatchObject({ stdout: expect.stringContaining('was revoked at') })
  })

  const canary = (change: object) => (answer: Answer) => ({
    ...answer,
    canaries: [{ ...answer.canaries[0], ...change }],
  })
  test.each<[string, (answer: Answer) => unknown]>([
    ['no object', () => []],
    ['another key', (answer) => ({ ...answer, kid: 'other' })],
    ['no use', (answer) => ({ ...answer, use: 'sig' })],
    ['no time', (answer) => ({ ...answer, revokedAt: null })],
    ['a time as text', (answer) => ({ ...answer, signingStopsAt: '1' })],
    ['a time that no calendar holds', (answer) => ({ ...answer, signingStopsAt: 1e15 })],
    ['a problem that is no code', (answer) => ({ ...answer, canaryProblem: 'arn:aws:kms:eu' })],
    ['a problem that is a number', (answer) => ({ ...answer, canaryProblem: 1 })],
    ['no canaries', (answer) => ({ ...answer, canaries: null })],
    ['canaries that are none', (answer) => ({ ...answer, canaries: [null] })],
    ['two for one cluster', (answer) => ({ ...answer, canaries: [...answer.canaries, ...answer.canaries] })],
    ['a cluster without name', canary({ cluster: '' })],
    ['a cluster whose name is none', canary({ cluster: 'eu/../us' })],
    ['no audience', canary({ audience: null })],
    ['no token', canary({ token: undefined })],
    ['a token that is none', canary({ token: 'a.b.c' })],
  ])('%s is refused', async (_, change) => {
    api.answer('keys/revoke', { status: 200, body: change(await good()) })
    const { code, stdout, stderr } = await revoke()
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toContain('not a revocation of this key')
  })

  test('a canary of another key, or one that never expires, is refused', async () => {
    const other = await api.keys.add('active')
    const claims = { iss: api.issuer, aud: ['k8s-eu'], sub: 'spiffe://example.org/spiffe-edge/canary' }
    for (const token of [
      await signToken({ alg: 'ES256', kid: other.kid, typ: 'JWT' }, { ...claims, exp: NOW + 60 }, other),
      await signToken({ alg: 'ES256', kid: key.kid, typ: 'JWT' }, claims, key),
    ]) {
      api.answer('keys/revoke', { status: 200, body: canary({ token })(await good()) })
      const { code, stderr } = await revoke()
      expect(code).toBe(1)
      expect(stderr).toContain('not a revocation of this key')
      expect(findPieceOf(token, stderr)).toBeNull()
    }
  })
})

describe('a key that signs certificates', () => {
  test('T-22: is out of the bundle after the lease, and nothing is said of API servers', async () => {
    key = await api.keys.addAuthority('active')
    const lease = api.keys.signingLeaseSeconds
    const { code, stdout } = await revoke()
    expect(code).toBe(0)
    expect(waited).toBeGreaterThan(lease)
    expect(stdout).toMatch(/The issuer no longer answers with it\./)
    expect(stdout).toMatch(
      /refuses its own within 300 s, if they keep to the hint\. Whether they have is not known here\./,
    )
    expect(stdout).not.toMatch(/CLUSTER/)
  })

  test('and is said to be published as long as it is', async () => {
    key = await api.keys.addAuthority('active')
    const stale = { status: 200, body: api.keys.bundle() }
    api.answer('bundle', ...Array.from({ length: 30 }, () => stale))
    const { code, stdout, stderr } = await revoke('--output', 'json')
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      kid: key.kid,
      use: 'x509-svid',
      withdrawn: false,
      refreshHint: null,
      clusters: [],
    })
    expect(stderr).toContain('the issuer still answers with the key')
  })
})
