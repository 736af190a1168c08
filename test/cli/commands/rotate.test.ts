/** `spiffe-edge rotate`: no step before its evidence. The worker and the API servers are fakes that keep keys and caches for real. */

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type AdminApi, startAdminApi, stored } from '../../support/admin_api.ts'
import { cli, Folder, type Outcome } from '../../support/cli.ts'
import { type KeyCacheApiserver, kubeconfigOf, startKeyCacheApiserver } from '../../support/key_cache_apiserver.ts'
import { findPieceOf } from '../../support/tokens.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const folder = new Folder()
const tokenFile = folder.write(TOKEN)
let api: AdminApi

beforeEach(async () => {
  api = await startAdminApi()
})
afterEach(() => api.stop())
afterAll(() => folder.remove())

async function rotate(...more: string[]): Promise<Outcome> {
  const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
  const wait = (milliseconds: number) => api.keys.clock.advance(milliseconds / 1000)
  const outcome = await cli(['rotate', ...more], { env, wait })
  expect(outcome.stderr).not.toContain('internal error')
  return outcome
}

describe('D4: the step is made when the key is published and every cache has had its time', () => {
  test('the key that waited signs, and the other one retires', async () => {
    const old = await api.keys.add('active')
    const next = await api.keys.add('published')
    const { code, stdout, stderr } = await rotate()
    expect([code, stderr, api.keys.rotated]).toEqual([0, 'rotated\n', [null]])
    const [before = '', after = ''] = stdout.split('\nNow:\n')
    expect(before).toMatch(new RegExp(`^${next.kid} .* published `, 'm'))
    expect(after).toMatch(new RegExp(`^${next.kid} .* active `, 'm'))
    expect(after).toMatch(new RegExp(`^${old.kid} .* retiring `, 'm'))
  })

  test('--dry-run says so and does nothing', async () => {
    await api.keys.add('published')
    expect(await rotate('--dry-run')).toMatchObject({ code: 0, stderr: 'it is safe to rotate\n' })
    expect(api.keys.rotated).toEqual([])
  })

  test('--alg chooses whose turn it is', async () => {
    await api.keys.add('published', { safeAt: api.keys.clock.seconds + 60 })
    const { kid } = await api.keys.add('published', { alg: 'RS256' })
    const { code, stdout } = await rotate('--alg', 'RS256', '--output', 'json')
    expect([code, api.keys.rotated]).toEqual([0, ['RS256']])
    const result = JSON.parse(stdout)
    expect(result).toMatchObject({ rotated: true, refused: [], apiservers: [], published: { current: true } })
    expect(result.keys.find((key: { kid: string }) => key.kid === kid).phase).toBe('active')
  })

  test('--use x509-svid does the same with what signs certificates', async () => {
    await api.keys.addAuthority('active')
    const { kid } = await api.keys.addAuthority('published')
    const { code, stdout, stderr } = await rotate('--use', 'x509-svid')
    expect([code, stderr]).toEqual([0, 'rotated\n'])
    expect(stdout).toMatch(new RegExp(`^${kid} .* active `, 'm'))
    expect(api.keys.authorities.map(({ entry }) => entry.phase)).toEqual(['retiring', 'active'])
  })

  test('FE-10: but not before it is safe, while the bundle lacks it, or where nothing waits', async () => {
    const refused = async (why: RegExp) => {
      const { code, stderr } = await rotate('--use', 'x509-svid')
      expect([code, api.keys.rotated]).toEqual([1, []])
      expect(stderr).toMatch(why)
    }
    await refused(/the order of CA_KEY decides/)
    await api.keys.addAuthority('announced')
    await refused(/is announced and not published yet/)
    const { kid } = await api.keys.addAuthority('published', { safeAt: api.keys.clock.seconds + 60 })
    await refused(new RegExp(`${kid} is safe to sign with from .* in 60 s`))
    Object.assign(api.keys.authorities[1]?.entry ?? {}, { safeAt: api.keys.clock.seconds })
    api.answer('bundle', { status: 200, body: { keys: [], spiffe_sequence: 1 } })
    await refused(new RegExp(`/bundle answers without ${kid}`))
    for (const answer of [{ status: 503 }, { status: 200, body: { keys: 1 } }, { status: 200, body: '[]' }]) {
      api.answer('bundle', answer)
      await refused(/\/bundle: (?:answers 503|the answer is no bundle)/)
    }
    expect((await rotate('--use', 'x509-svid', '--apiserver', 'east=east')).code).toBe(2)
    expect((await rotate('--use', 'sig')).code).toBe(2)
  })

  test('--alg of nothing that signs is wrong usage', async () => {
    expect((await rotate('--alg', 'none')).code).toBe(2)
  })
})

describe('T-17: the unsafe step is refused, and it is said when it becomes safe', () => {
  async function refused(message: RegExp | string, ...more: string[]): Promise<void> {
    for (const dryRun of [['--dry-run'], []]) {
      const { code, stdout, stderr } = await rotate(...dryRun, ...more)
      expect([code, api.keys.rotated]).toEqual([1, []])
      expect(stderr).toMatch(message)
      expect(stdout).toContain('KID')
    }
    const { stdout } = await rotate('--output', 'json', ...more)
    expect(JSON.parse(stdout)).toMatchObject({
      rotated: false,
      refused: [expect.stringMatching(message), ...JSON.parse(stdout).refused.slice(1)],
    })
  }

  test('the caches have not had their time', async () => {
    await api.keys.add('published', { safeAt: api.keys.clock.seconds + 75 })
    await refused(/is safe to sign with from 2026-11-18T11:07:55Z on, in 75 s/)
  })

  test('the worker does not say when', async () => {
    await api.keys.add('published', { safeAt: null })
    await refused(/does not say from when/)
  })

  test('it is not published yet', async () => {
    await api.keys.add('announced')
    await refused(/is announced and not published yet/)
  })

  test('nobody waits, or only keys that SIGNING_KEY lists', async () => {
    await refused(/the order of SIGNING_KEY decides/)
    await api.keys.add('published', { made: false, entry: 1 })
    await refused(/the order of SIGNING_KEY decides/)
  })

  test('the one that waits is of another algorithm', async () => {
    await api.keys.add('published', { alg: 'RS256' })
    await refused(/no key that the worker makes itself is waiting/)
  })

  test('it could not sign', async () => {
    await api.keys.add('published', { failed: 'denied' })
    await refused(/could not sign when it was tried: denied/)
  })

  test('the issuer answers without it', async () => {
    const { kid } = await api.keys.add('published')
    api.keys.stale = () => '{"keys":[]}'
    await refused(new RegExp(`the issuer does not answer with ${kid}`))
  })

  test('the issuer answers with it, but with other octets than the worker says', async () => {
    await api.keys.add('published')
    api.keys.stale = () => `${api.keys.jwks()}\n`
    await refused(/a cache in between/)
  })

  test('the issuer does not answer', async () => {
    await api.keys.add('published')
    api.keys.stale = () => 'no JSON'
    await refused(/no JWK Set/)
  })
})

describe('how the worker may answer', () => {
  beforeEach(() => api.keys.add('published'))

  test.each([
    [409, { error: 'not_safe_yet', safeAt: 1_795_000_123 }, /safe from 2026-11-18T11:08:43Z/],
    [409, { error: 'not_safe_yet', safeAt: 'now' }, /refuses \(409\)/],
    [409, { error: 'no_successor' }, /the order of SIGNING_KEY decides/],
    [409, {}, /refuses \(409\)/],
    [403, {}, /forbidden/],
    [200, {}, /not its list of keys/],
    [200, 'no JSON', /not its list of keys/],
  ])('%i %j', async (status, body, message) => {
    api.answer('keys/rotate', { status, body })
    const { code, stderr } = await rotate()
    expect([code, stderr]).toEqual([1, expect.stringMatching(message)])
  })

  test('that it has rotated, with a list that shows that it has not', async () => {
    api.answer('keys/rotate', { status: 200, body: api.keys.document() })
    const { code, stderr } = await rotate()
    expect([code, stderr]).toEqual([1, expect.stringMatching(/none of the keys that waited is active/)])
  })
})

describe('with API servers: each must hold what the issuer answers with', () => {
  let cluster: KeyCacheApiserver
  let kubeconfig: string
  const given = (count: number | string = 3, ...more: string[]) =>
    rotate('--kubeconfig', kubeconfig, '--apiserver', 'eu=ctx', '--apiservers', `eu=${count}`, ...more)

  /** Each time somebody has looked at the metrics, and not sooner. */
  function takeTurns(): void {
    let looks = 0
    cluster.choose = () => looks % cluster.instances.length
    cluster.metrics = (text) => {
      looks++
      return text
    }
  }

  beforeEach(async () => {
    api.objects = [stored('Cluster', 'eu', { issuer: 'https://eu.example.org', jwks: { discovery: true } })]
    await api.keys.add('active')
    cluster = await startKeyCacheApiserver(api.issuer, api.keys.clock)
    await cluster.warm()
    kubeconfig = folder.write(kubeconfigOf({ ctx: cluster }))
  })
  afterEach(() => cluster.stop())

  test('OK-5: they look only when a token of an unknown kid comes, so one does', async () => {
    await api.keys.add('published')
    expect(new Set(cluster.instances.map(({ keySetHash }) => keySetHash))).not.toContain(`sha256:${api.keys.sha256()}`)
    const { code, stdout, stderr } = await given()
    expect([code, stderr]).toEqual([0, 'rotated\n'])
    expect(stdout).toMatch(/^eu +3 of 3 +hold the same$/m)
    // What it nudged with was good nowhere.
    expect(cluster.instances.flatMap(({ accepted }) => [...accepted])).toEqual([])
  })

  test.each([1, 2, 4, 5])('%i of them that take turns', async (count) => {
    cluster.stop()
    cluster = await startKeyCacheApiserver(api.issuer, api.keys.clock, { count })
    kubeconfig = folder.write(kubeconfigOf({ ctx: cluster }))
    await api.keys.add('published')
    expect((await given(count)).code).toBe(0)
  })

  test.each<[string, () => unknown, number, string]>([
    [
      'one of them holds another set',
      () => Object.assign(cluster.instances[1] ?? {}, { looks: false }),
      3,
      'another key set',
    ],
    ['fewer than stated', () => {}, 4, 'fewer API servers were seen than stated'],
    ['more than stated', () => takeTurns(), 2, 'more API servers were seen than stated'],
    ['no such metric', () => Object.assign(cluster, { metrics: () => 'up 1\n' }), 3, 'since 1.35'],
    [
      'a metric that cannot be read',
      () => Object.assign(cluster, { metrics: (text: string) => text.replaceAll('} 1', '} 2') }),
      3,
      'metrics cannot be read',
    ],
    [
      'whoever asks is somebody',
      () =>
        Object.assign(cluster, {
          answer: () => ({ status: 201, body: '{"status":{"userInfo":{"username":"proxy"}}}' }),
        }),
      3,
      'credential of its own',
    ],
    [
      'no sense in its answers',
      () => Object.assign(cluster, { answer: () => ({ status: 502, body: '' }) }),
      3,
      'cannot be asked',
    ],
    ['nobody there', () => cluster.stop(), 3, 'cannot be asked'],
  ])('%s: refused', async (_, change, count, message) => {
    await api.keys.add('published')
    change()
    const { code, stdout, stderr } = await given(count)
    expect([code, api.keys.rotated]).toEqual([1, []])
    expect(stdout).toContain(message)
    expect(stderr).toContain('eu does not hold the key set')
    expect(findPieceOf(cluster.token, stdout + stderr)).toBeNull()
  })

  test('a cluster that the worker does not know, and a kubeconfig that is not there', async () => {
    await api.keys.add('published')
    api.objects = []
    expect((await given()).stdout).toContain('the worker has no such cluster')
    api.objects = [stored('Cluster', 'eu')]
    kubeconfig = `${folder.path}/none`
    expect((await given()).stdout).toContain('there is no such file')
    expect(api.keys.rotated).toEqual([])
  })

  test('nobody asks them while the issuer itself does not answer with the key', async () => {
    await api.keys.add('published')
    api.keys.stale = () => '{"keys":[]}'
    expect((await given()).code).toBe(1)
    expect(cluster.bearers).toEqual([])
  })

  test.each([
    [['--apiserver', 'eu=ctx']],
    [['--kubeconfig', 'x', '--apiserver', 'eu']],
    [['--kubeconfig', 'x', '--apiserver', '=ctx', '--apiservers', '=3']],
    [['--kubeconfig', 'x', '--apiserver', 'eu=ctx']],
    [['--kubeconfig', 'x', '--apiserver', 'eu=ctx', '--apiservers', 'eu=0']],
    [['--kubeconfig', 'x', '--apiserver', 'eu=ctx', '--apiservers', 'eu=three']],
    [['--kubeconfig', 'x', '--apiserver', 'eu=ctx', '--apiserver', 'eu=b', '--apiservers', 'eu=3']],
    [['--kubeconfig', 'x', '--apiservers', 'eu=3']],
    [['--kubeconfig', '-', '--apiserver', 'eu=ctx', '--apiservers', 'eu=3']],
  ])('%j is wrong usage', async (argv) => {
    expect((await rotate(...argv)).code).toBe(2)
  })
})
