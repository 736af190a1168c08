/** `spiffe-edge status`, against a fake of the admin API that goes by its contract. */

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { generateLocalKey, localSigner } from '../../../keys/local.ts'
import { TrustDomain } from '../../../worker/spiffe/id.ts'
import { selfSignAuthority } from '../../../worker/spiffe/x509_svid.ts'
import { type AdminApi, startAdminApi } from '../../support/admin_api.ts'
import { cli, Folder, type Outcome } from '../../support/cli.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const folder = new Folder()
const tokenFile = folder.write(TOKEN)
let api: AdminApi

beforeEach(async () => {
  api = await startAdminApi()
})
afterEach(() => api.stop())
afterAll(() => folder.remove())

async function status(...more: string[]): Promise<Outcome> {
  const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
  const outcome = await cli(['status', ...more], { env })
  expect(outcome.stderr).not.toContain('internal error')
  return outcome
}

describe('D4: where each key stands', () => {
  test('every phase with its next step', async () => {
    const { keys } = api
    const at = (seconds: number) => new Date((keys.clock.seconds + seconds) * 1000).toISOString().replace('.000', '')
    const active = await keys.add('active', { keeper: 'wrapped' })
    const next = await keys.add('published', { safeAt: keys.clock.seconds + 90 })
    const safe = await keys.add('published', { alg: 'RS256' })
    const listed = await keys.add('active', { keeper: 'awskms', made: false, entry: 2, dueAt: null, failed: 'denied' })
    const old = await keys.add('retiring', { made: false })
    const coming = await keys.add('announced')
    const { code, stdout } = await status()
    expect(code).toBe(0)
    const row = (kid: string) =>
      stdout
        .split('\n')
        .find((line) => line.startsWith(kid))
        ?.replace(/ {3,}/g, ' | ')
    const since = at(-600)
    expect(row(active.kid)).toBe(
      `${active.kid} | ES256 | worker, wrapped | the worker | active | ${since} | yes | its successor signs from ${at(86_400)}`,
    )
    expect(row(next.kid)).toBe(
      `${next.kid} | ES256 | worker | the worker | published | ${since} | yes | may sign from ${at(90)}`,
    )
    expect(row(safe.kid)).toMatch(new RegExp(`RS256 .* may sign since ${at(-60)}$`))
    expect(row(listed.kid)).toBe(
      `${listed.kid} | ES256 | AWS KMS | entry 2 | active | ${since} | yes | the order of SIGNING_KEY decides; it could not sign: denied`,
    )
    expect(row(old.kid)).toMatch(new RegExp(`listed no more .* leaves the JWKS at ${at(3900)}$`))
    expect(row(coming.kid)).toMatch(/announced .* no \| is published$/)
    expect(stdout).toContain(`${api.issuer}/keys answers with what the worker says: sha256 ${keys.sha256()}\n`)
  })

  test('the evidence is what the issuer answers with, not what the worker says', async () => {
    const { kid } = await api.keys.add('active')
    api.keys.stale = () => '{"keys":[]}'
    const { code, stdout } = await status()
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`^${kid}.* no +its successor`, 'm'))
    expect(stdout).toContain(`but the worker says ${api.keys.sha256()}`)
  })

  test('a worker that has nothing to answer with', async () => {
    api.answer('keys', { status: 200, body: { ...api.keys.document(), jwks: { sha256: '' } } })
    expect((await status()).stdout).toContain('but the worker says that it has nothing to answer with')
  })

  test.each([
    ['discovery', 404, {}, 'answers 404'],
    ['discovery', 200, 'no JSON', 'not JSON'],
    ['discovery', 200, { issuer: 'https://other.example.org' }, 'is of another issuer'],
    ['discovery', 200, { issuer: 'OURS' }, 'no jwks_uri'],
    ['discovery', 200, { issuer: 'OURS', jwks_uri: 'https://other.example.org/keys' }, 'no jwks_uri'],
    ['discovery', 200, { issuer: 'OURS', jwks_uri: 'http://192.0.2.1/keys' }, 'no jwks_uri'],
    ['jwks', 500, {}, 'answers 500'],
    ['jwks', 302, {}, 'answers 302'],
    ['jwks', 200, {}, 'no JWK Set'],
    ['jwks', 200, { keys: [{ kty: 'EC' }] }, 'no JWK Set'],
    ['jwks', 200, '{"keys":[],"keys":[]}', 'no JWK Set'],
  ] as const)(
    '%s %i %j: what the issuer answers with is not known, and that is said',
    async (path, answer, body, message) => {
      await api.keys.add('active')
      const text = JSON.stringify(body).replace('OURS', api.issuer)
      api.answer(path, { status: answer, body: typeof body === 'string' ? body : text })
      const { code, stdout } = await status()
      expect(code).toBe(0)
      expect(stdout).toContain('is not known')
      expect(stdout).toContain(message)
      expect(stdout).toMatch(/ unknown +its successor/)
    },
  )

  test('--output json and yaml: the answer of the worker, with the evidence', async () => {
    const { kid } = await api.keys.add('active')
    const next = await api.keys.add('published', { safeAt: api.keys.clock.seconds })
    const json = JSON.parse((await status('--output', 'json')).stdout)
    expect(json).toMatchObject(api.keys.document())
    expect(json).toMatchObject({
      published: { url: `${api.issuer}/keys`, sha256: api.keys.sha256(), current: true },
      publishedProblem: null,
      evidence: [
        { kid, published: true, safe: true },
        { kid: next.kid, published: true, safe: true },
      ],
    })
    expect(parse((await status('-o', 'yaml')).stdout)).toEqual(json)
  })
})

test('XS-7: what signs certificates, and until when its own is good', async () => {
  const { publicJwk, privateJwk } = await generateLocalKey('ES256')
  const certificate = await selfSignAuthority(await localSigner(publicJwk, privateJwk), {
    trustDomain: TrustDomain.parse('example.org'),
    notBefore: Date.parse('2026-01-02T03:04:05Z') / 1000,
    notAfter: Date.parse('2027-01-02T03:04:05Z') / 1000,
  })
  const active = await api.keys.addAuthority('active', {}, Buffer.from(certificate).toString('base64'))
  const next = await api.keys.addAuthority('retiring', { keeper: 'wrapped' })
  const { stdout } = await status()
  expect(stdout).toMatch(/^CA KEY .* CERTIFICATE ENDS/m)
  expect(stdout).toMatch(new RegExp(`^${active.kid} .* 2027-01-02T03:04:05Z +its successor signs from`, 'm'))
  expect(stdout).toMatch(new RegExp(`^${next.kid} .* not a certificate +leaves the bundle at`, 'm'))
  expect(JSON.parse((await status('-o', 'json')).stdout).authorities).toHaveLength(2)
})

test('KM-9: problems, keys that may be left over, what was revoked, and what KMS was asked for', async () => {
  const { keys } = api
  keys.problems = [
    { use: 'jwt-svid', entry: 2, reason: 'denied' },
    { use: 'x509-svid', entry: 1, reason: 'key_mismatch' },
  ]
  keys.orphans = ['0c9b\u001b[2J']
  keys.revoked.push({ kid: 'dead', revokedAt: keys.clock.seconds })
  const figures = { throttled: 2, failed: 3, meanMilliseconds: 11.6, slowestMilliseconds: 250 }
  keys.kms = { hours: [{ start: keys.clock.seconds, calls: 12_345, ...figures }] }
  const { stdout } = await status()
  expect(stdout).toContain('SIGNING_KEY entry 2: denied\nCA_KEY entry 1: key_mismatch\n')
  expect(stdout).toContain('spiffe-edge:creation=0c9b\\u{1b}[2J\n')
  expect(stdout).toContain('dead was revoked at ')
  expect(stdout).toMatch(/Z +12345 +2 +3 +12 +250\n/)
  expect(stdout).toMatch(/in an account and region, for ECC and RSA keys apart/)
  expect(stdout).toMatch(/shared with everything else/)
  keys.kms = null
  expect((await status()).stdout).not.toContain('AWS')
})

describe('an answer of another form is refused', () => {
  const key = {
    ...{ kid: 'a', alg: 'ES256', keeper: 'local', made: true, entry: null, phase: 'active', since: 1 },
    ...{ publishedAt: 1, safeAt: null, dueAt: null, goneAt: null, failed: null },
  }
  const hour = { start: 1, calls: 1, throttled: 0, failed: 0, meanMilliseconds: 1, slowestMilliseconds: 1 }
  const good = {
    ...{ now: 1, jwks: { sha256: 'a'.repeat(64) }, signingLeaseSeconds: 240, defaultAlg: 'ES256', keys: [key] },
    authorities: [{ ...key, certificate: 'AAAA' }],
    ...{
      problems: [{ use: 'jwt-svid', entry: 1, reason: 'denied' }],
      orphans: ['x'],
      revoked: [{ kid: 'b', revokedAt: 1 }],
    },
    kms: { hours: [hour] },
  }

  test('this one is good', async () => {
    api.answer('keys', { status: 200, body: good })
    expect((await status()).code).toBe(0)
  })

  const keyed = (change: object) => ({ ...good, keys: [{ ...key, ...change }] })
  test.each<[string, unknown]>([
    ['no object', []],
    ['no JSON', 'x'],
    ['now as text', { ...good, now: '1' }],
    ['a time that no calendar holds', { ...good, now: 8_640_000_000_001 }],
    ['a time before time', { ...good, now: -1 }],
    ['no jwks', { ...good, jwks: null }],
    ['a hash that is none', { ...good, jwks: { sha256: `sha256:${'a'.repeat(64)}` } }],
    ['a lease that is none', { ...good, signingLeaseSeconds: null }],
    ['an algorithm that is none', { ...good, defaultAlg: 'none' }],
    ['keys that are no list', { ...good, keys: {} }],
    ['a key that is none', { ...good, keys: [null] }],
    ['a key without kid', keyed({ kid: '' })],
    ['a kid that is a number', keyed({ kid: 1 })],
    ["a key's algorithm that is none", keyed({ alg: 'HS256' })],
    ['a keeper that is not known', keyed({ keeper: 'vault' })],
    ['made as text', keyed({ made: 'true' })],
    ['entry 0', keyed({ entry: 0 })],
    ['half an entry', keyed({ entry: 1.5 })],
    ['a phase that is not known', keyed({ phase: 'gone' })],
    ['no time of the phase', keyed({ since: null })],
    ...['publishedAt', 'safeAt', 'dueAt', 'goneAt'].map((name): [string, unknown] => [
      `${name} as text`,
      keyed({ [name]: '1' }),
    ]),
    ['no dueAt', keyed({ dueAt: undefined })],
    ['a failure that is not known', keyed({ failed: 'arn:aws:kms:eu-central-1:111122223333:key/1' })],
    ['no authorities', { ...good, authorities: undefined }],
    ['an authority that is none', { ...good, authorities: [{ ...key, certificate: null, kid: 1 }] }],
    ['an authority without certificate', { ...good, authorities: [key] }],
    ['a problem without entry', { ...good, problems: [{ use: 'jwt-svid', reason: 'denied' }] }],
    ['a problem without reason', { ...good, problems: [{ use: 'jwt-svid', entry: 1, reason: '' }] }],
    ['a problem of a use that is none', { ...good, problems: [{ use: 'sig', entry: 1, reason: 'denied' }] }],
    ['orphans that are no texts', { ...good, orphans: [1] }],
    ['no orphans', { ...good, orphans: null }],
    ['a revocation without time', { ...good, revoked: [{ kid: 'a' }] }],
    ['no kms', { ...good, kms: undefined }],
    ['hours that are no list', { ...good, kms: { hours: null } }],
    ['negative calls', { ...good, kms: { hours: [{ ...hour, calls: -1 }] } }],
    ['a mean as text', { ...good, kms: { hours: [{ ...hour, meanMilliseconds: '1' }] } }],
  ])('%s', async (_, body) => {
    api.answer('keys', { status: 200, body })
    const { code, stdout, stderr } = await status()
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toContain('not its list of keys')
    expect(stderr).not.toContain('arn:')
  })

  test.each([401, 403, 404, 500, 503])('%i', async (answer) => {
    api.answer('keys', { status: answer, body: {} })
    expect(await status()).toMatchObject({ code: 1, stdout: '' })
  })
})
