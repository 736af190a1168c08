import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { ClusterKeys, KeyClaims } from '../../../worker/attest/cluster_keys.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { Clock } from '../../support/clock.ts'
import { FakeCluster } from '../../support/cluster.ts'
import {
  type Answer,
  breakOff,
  endless,
  hang,
  hangInBody,
  held,
  json,
  Network,
  Patience,
  redirect,
  text,
} from '../../support/cluster_network.ts'
import { policyOf } from '../../support/policy.ts'
import { makeTokenKey, respelledKeys, type TokenKey } from '../../support/tokens.ts'
import { Background, LogBook } from '../issuer.ts'

const FRESH = 300
const HOUR = 3600
const DAY = 86_400
const COOLDOWN = 30
const FIRST_COOLDOWN = 5

/** Keys take long to make, and no test changes one. */
let pool: readonly TokenKey[]
beforeAll(async () => {
  pool = await Promise.all(Array.from({ length: 4 }, () => makeTokenKey('ES256')))
})

let network: Network
let clock: Clock
let book: LogBook
let background: Background
let claims: KeyClaims
beforeEach(() => {
  network = new Network()
  clock = new Clock()
  book = new LogBook()
  background = new Background()
  claims = new KeyClaims()
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
  vi.useRealTimers()
})

/** A cluster whose key is the `index`th of the pool. */
async function fakeCluster(name: string, index = 0): Promise<FakeCluster> {
  return FakeCluster.create(name, { key: pool[index] as TokenKey, audience: `edge-${name}` })
}

/** The keys of a cluster as its record in a manifest has them. */
function keysOf(cluster: FakeCluster, jwks: object): ClusterKeys {
  const record = policyOf(cluster.record({ jwks })).clusters.get(cluster.name)
  if (!record) throw new TypeError('no such cluster')
  const { now } = clock
  return new ClusterKeys(record, {
    now,
    waitUntil: background.waitUntil,
    log: book.log,
    allowLoopbackHttp: false,
    claims,
  })
}

const jwksUrl = ({ issuer }: FakeCluster) => `${issuer}/openid/v1/jwks`

/** A cluster that serves its keys, and we that fetch them from there. */
async function serving(name = 'east', index = 0) {
  const cluster = await fakeCluster(name, index)
  network.serve(jwksUrl(cluster), () => Response.json(cluster.jwks()))
  return { cluster, keys: keysOf(cluster, { url: jwksUrl(cluster) }) }
}

/** @returns whether a key was found, or the reason why nobody can say */
async function find(keys: ClusterKeys, kid: string): Promise<boolean | string> {
  try {
    return (await keys.find(kid)) !== null
  } catch (error) {
    if (error instanceof Refusal) return error.reason
    throw error
  }
}

const reasons = () => book.events.map(({ reason }) => reason)

describe('T-10: keys in the record', () => {
  test('are found, and nothing is fetched', async () => {
    const cluster = await fakeCluster('east')
    const keys = keysOf(cluster, { inline: cluster.jwks() })
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect(await find(keys, 'unknown')).toBe(false)
    expect((await keys.find(cluster.key.kid))?.alg).toBe('ES256')
    clock.advance(10 * DAY)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect([network.requests, book.events]).toEqual([[], []])
  })

  test('that nobody can use are no keys', async () => {
    const cluster = await fakeCluster('east')
    const keys = keysOf(cluster, { inline: { keys: [{ kty: 'OKP', crv: 'Ed25519', kid: 'a', x: 'AAAA' }] } })
    expect(await find(keys, 'a')).toBe('cluster_keys_unavailable')
    expect(reasons()).toEqual(['the JWKS has no key that can be used'])
  })
})

describe('keys that are fetched', () => {
  test('are fetched when first needed, and kept', async () => {
    const { cluster, keys } = await serving()
    expect(network.requests).toEqual([])
    for (let times = 0; times < 3; times++) expect(await find(keys, cluster.key.kid)).toBe(true)
    clock.advance(FRESH)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect(network.requests).toEqual([jwksUrl(cluster)])
  })

  test('are found by discovery where the record says so', async () => {
    const cluster = await fakeCluster('east')
    const document = `${cluster.issuer}/.well-known/openid-configuration`
    network.serve(document, json(cluster.discovery()))
    network.serve(jwksUrl(cluster), json(cluster.jwks()))
    expect(await find(keysOf(cluster, { discovery: true }), cluster.key.kid)).toBe(true)
    expect(network.requests).toEqual([document, jwksUrl(cluster)])
  })

  test('are fetched once for all who need them at the same time', async () => {
    const { cluster, keys } = await serving()
    const { answer, release } = held(json(cluster.jwks()))
    network.serve(jwksUrl(cluster), answer)
    const asked = Array.from({ length: 100 }, () => find(keys, cluster.key.kid))
    release()
    expect(await Promise.all(asked)).toEqual(Array(100).fill(true))
    expect(network.requests).toHaveLength(1)
  })

  test('D6: are used as they are while newer ones are on the way', async () => {
    const { cluster, keys } = await serving()
    const { kid: old } = cluster.key
    await find(keys, old)
    clock.advance(FRESH + 1)
    cluster.keys.splice(0, 1, pool[1] as TokenKey)
    const { answer, release } = held(json(cluster.jwks()))
    network.serve(jwksUrl(cluster), answer)
    expect(await find(keys, old)).toBe(true)
    expect(network.requests).toHaveLength(2)
    release()
    await background.settled()
    expect([await find(keys, old), await find(keys, cluster.key.kid)]).toEqual([false, true])
  })

  test('of other kinds are passed over (RFC 7517 §5)', async () => {
    const { cluster, keys } = await serving()
    const jwks = {
      keys: [
        { kty: 'OKP', crv: 'Ed25519', kid: 'a', x: 'AAAA' },
        { ...pool[1]?.publicJwk, kid: 'b', use: 'enc' },
        { ...pool[1]?.publicJwk, kid: 'c', alg: 'ES384' },
        { ...pool[1]?.publicJwk, kid: undefined },
        { kty: 'EC', crv: 'P-256', kid: 'd', x: 'AAAA', y: 'AAAA' },
        {},
        cluster.key.publicJwk,
      ],
    }
    network.serve(jwksUrl(cluster), json(jwks))
    expect(await find(keys, cluster.key.kid)).toBe(true)
    for (const kid of ['a', 'b', 'c', 'd']) expect(await find(keys, kid)).toBe(false)
  })

  test.each(['PS256', 'RS512'] as const)(
    'SA-3: for %s, with which no API server signs, are passed over',
    async (alg) => {
      const { cluster, keys } = await serving()
      const other = await makeTokenKey(alg)
      cluster.keys.push(other)
      expect([await find(keys, other.kid), await find(keys, cluster.key.kid)]).toEqual([false, true])
    },
  )
})

describe('keys that are an hour old', () => {
  test('are renewed before they are used: one that its cluster has dropped is not taken', async () => {
    const { cluster, keys } = await serving()
    const { kid: old } = cluster.key
    await find(keys, old)
    cluster.keys.splice(0, 1, pool[1] as TokenKey)
    clock.advance(HOUR)
    expect(await find(keys, old)).toBe(true)
    await background.settled()
    await find(keys, cluster.key.kid)
    cluster.keys.splice(0, 1, pool[2] as TokenKey)
    clock.advance(HOUR + 1)
    expect([await find(keys, pool[1]?.kid ?? ''), await find(keys, cluster.key.kid)]).toEqual([false, true])
    expect(network.requests).toHaveLength(3)
  })

  test('D6: are used all the same while their source is down, and it is asked no more than usual', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    network.serve(jwksUrl(cluster), text('', '', 500))
    clock.advance(HOUR + 1)
    for (let second = 0; second < 60; second++) {
      expect(await find(keys, cluster.key.kid)).toBe(true)
      clock.advance(1)
    }
    expect(network.requests).toHaveLength(3)
  })

  test('are renewed once for all who need them, and a failure is logged once', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    const { answer, release } = held(text('', '', 500))
    network.serve(jwksUrl(cluster), answer)
    clock.advance(HOUR + 1)
    const asked = Array.from({ length: 100 }, () => find(keys, cluster.key.kid))
    release()
    expect(new Set(await Promise.all(asked))).toEqual(new Set([true]))
    expect([network.requests.length, reasons()]).toEqual([2, ['fetch failed: status 500']])
  })
})

describe('a kid that is not known', () => {
  test('brings the next fetch forward, and so finds a key that is new', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    clock.advance(COOLDOWN)
    cluster.keys.unshift(pool[1] as TokenKey)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect(network.requests).toHaveLength(2)
  })

  test('does not within 30 s of the last one', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    clock.advance(COOLDOWN - 1)
    expect(await find(keys, 'unknown')).toBe(false)
    expect(network.requests).toHaveLength(1)
    clock.advance(1)
    expect(await find(keys, 'unknown')).toBe(false)
    expect(network.requests).toHaveLength(2)
  })

  test('1,000 forged ones at once are one fetch at most', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    clock.advance(COOLDOWN)
    const { answer, release } = held(json(cluster.jwks()))
    network.serve(jwksUrl(cluster), answer)
    const forged = Array.from({ length: 1000 }, (_, index) => find(keys, `forged-${index}`))
    release()
    expect(new Set(await Promise.all(forged))).toEqual(new Set([false]))
    expect(network.requests).toHaveLength(2)
  })

  test.each<[string, boolean]>([
    ['that answers', true],
    ['that is down', false],
  ])('1,000 forged ones in 1,000 s are no more than a fetch in 30 s to a source %s', async (_, up) => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    if (!up) network.serve(jwksUrl(cluster), text('', '', 500))
    for (let second = 0; second < 1000; second++) {
      clock.advance(1)
      expect(await find(keys, `forged-${second}`)).toBe(false)
      await background.settled()
    }
    expect(network.requests.length).toBeLessThanOrEqual(1 + Math.ceil(1000 / COOLDOWN))
    expect(await find(keys, cluster.key.kid)).toBe(true)
  })

  test('is no address and no command', async () => {
    const { cluster, keys } = await serving()
    for (const kid of ['https://evil.example/keys', '../../x', '__proto__', 'constructor', "' or 1=1"])
      expect(await find(keys, kid)).toBe(false)
    expect(new Set(network.requests)).toEqual(new Set([jwksUrl(cluster)]))
  })
})

describe('D6: a source that is down', () => {
  test('is asked again after 5 s while nothing is known of the cluster', async () => {
    const { cluster, keys } = await serving()
    network.serve(jwksUrl(cluster), text('', '', 503))
    expect(await find(keys, cluster.key.kid)).toBe('cluster_keys_unavailable')
    clock.advance(FIRST_COOLDOWN - 1)
    expect(await find(keys, cluster.key.kid)).toBe('cluster_keys_unavailable')
    expect(network.requests).toHaveLength(1)
    network.serve(jwksUrl(cluster), json(cluster.jwks()))
    clock.advance(1)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect(network.requests).toHaveLength(2)
  })

  test('does not stop the issuing for a day', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    network.serve(jwksUrl(cluster), text('', '', 503))
    clock.advance(DAY)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    await background.settled()
    expect(reasons()).toEqual(['fetch failed: status 503'])
  })

  test('does after a day, until it is back', async () => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    network.serve(jwksUrl(cluster), text('', '', 503))
    clock.advance(DAY + 1)
    expect(await find(keys, cluster.key.kid)).toBe('cluster_keys_unavailable')
    // A forged kid does not get an answer either, or somebody could tell what we knew.
    expect(await find(keys, 'unknown')).toBe('cluster_keys_unavailable')
    expect(network.requests).toHaveLength(2)
    network.serve(jwksUrl(cluster), json(cluster.jwks()))
    clock.advance(COOLDOWN)
    expect(await find(keys, cluster.key.kid)).toBe(true)
  })

  test('says to the caller when to come again, and to the operator what was wrong', async () => {
    const { cluster, keys } = await serving()
    network.serve(jwksUrl(cluster), text('<title>SECRET</title>', 'text/html', 403))
    const refusal = await keys.find('a').catch((error: Refusal) => error)
    expect(refusal).toMatchObject({ detail: 'no keys of cluster east', retryAfterSeconds: FIRST_COOLDOWN })
    expect(book.events).toEqual([
      { event: 'cluster_keys_refused', cluster: 'east', reason: 'fetch failed: status 403' },
    ])
  })

  test.each<[string, Answer]>([
    ['before it answers', hang],
    ['in the middle of its answer', hangInBody],
  ])('that hangs %s is given up, and its keys go on being used', async (_, answer) => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    const patience = new Patience()
    vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
    network.serve(jwksUrl(cluster), answer)
    clock.advance(FRESH + 1)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    const forged = find(keys, 'unknown')
    await vi.waitFor(() => expect(network.requests).toHaveLength(2), 15_000)
    patience.end()
    expect(await forged).toBe(false)
    await background.settled()
    expect(new Set(reasons())).toEqual(new Set(['fetch failed: timeout']))
    expect(await find(keys, cluster.key.kid)).toBe(true)
    expect(network.requests).toHaveLength(2)
  })

  test('T-18: both steps of discovery have one deadline, so nobody who has joined gives up first and asks too', async () => {
    vi.useFakeTimers()
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
      const controller = new AbortController()
      setTimeout(() => controller.abort(), ms)
      return controller.signal
    })
    const cluster = await fakeCluster('east')
    // Each step alone would be within its 5 s.
    const slowly =
      (value: object): Answer =>
      ({ signal }) =>
        new Promise((resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason))
          setTimeout(() => resolve(Response.json(value)), 4500)
        })
    network.serve(`${cluster.issuer}/.well-known/openid-configuration`, slowly(cluster.discovery()))
    network.serve(jwksUrl(cluster), slowly(cluster.jwks()))
    const keys = keysOf(cluster, { discovery: true })
    const asked = [find(keys, cluster.key.kid), find(keys, cluster.key.kid), find(keys, 'unknown')]
    await vi.advanceTimersByTimeAsync(30_000)
    expect(await Promise.all(asked)).toEqual(Array(3).fill('cluster_keys_unavailable'))
    expect(network.requests).toHaveLength(2)
    expect(reasons()).toEqual(['fetch failed: timeout'])
  })
})

describe('12.6: an answer that may not be used', () => {
  const key = () => pool[0]?.publicJwk as JsonWebKey
  const many = (count: number) => Array.from({ length: count }, (_, index) => ({ ...key(), kid: `kid-${index}` }))

  test.each<[string, () => Answer, string]>([
    ['301', () => redirect(301, 'https://west.example.org/keys'), 'fetch failed: redirected 301'],
    ['302', () => redirect(302, '/other'), 'fetch failed: redirected 302'],
    ['401', () => text('{}', '', 401), 'fetch failed: status 401'],
    ['403', () => text('{}', '', 403), 'fetch failed: status 403'],
    ['404', () => text('{}', '', 404), 'fetch failed: status 404'],
    ['500', () => text('{}', '', 500), 'fetch failed: status 500'],
    ['HTML', () => text('<!doctype html>', 'text/html'), 'fetch failed: not_json 200'],
    ['more than 1 MiB', () => endless().answer, 'fetch failed: too_large 200'],
    ['invalid UTF-8', () => text(Uint8Array.of(0x7b, 0xff, 0x7d)), 'fetch failed: not_json 200'],
    ['half an answer', () => breakOff, 'fetch failed: unreachable'],
    ['no keys member', () => json({}), 'the JWKS has no keys member'],
    ['a list', () => json([]), 'fetch failed: not_json 200'],
    ['no keys', () => json({ keys: [] }), 'the JWKS has no key that can be used'],
    [
      'no key of a kind we read',
      () => json({ keys: [{ kty: 'oct', kid: 'a' }] }),
      'the JWKS has no key that can be used',
    ],
    ['something that is no key', () => json({ keys: [key(), 'a'] }), 'the JWKS holds something that is no key'],
    ['null among the keys', () => json({ keys: [null, key()] }), 'the JWKS holds something that is no key'],
    [
      'BU-8: a private key',
      () => json({ keys: [key(), { ...key(), kid: 'b', d: 'AAAA' }] }),
      'the JWKS holds a private key',
    ],
    ['BU-8: a shared key', () => json({ keys: [{ kty: 'oct', k: 'AAAA' }, key()] }), 'the JWKS holds a private key'],
    [
      'one kid twice',
      () => json({ keys: [key(), { ...pool[1]?.publicJwk, kid: pool[0]?.kid }] }),
      'the JWKS has one kid twice',
    ],
    ['101 keys', () => json({ keys: many(101) }), 'the JWKS has too many keys'],
  ])('%s leaves the keys that are known in use, and says why', async (_, answer, reason) => {
    const { cluster, keys } = await serving()
    await find(keys, cluster.key.kid)
    network.serve(jwksUrl(cluster), answer())
    clock.advance(FRESH + 1)
    expect(await find(keys, 'unknown')).toBe(false)
    expect(await find(keys, cluster.key.kid)).toBe(true)
    await background.settled()
    expect(new Set(reasons())).toEqual(new Set([reason]))
    // And where nothing is known, nothing can be used.
    claims = new KeyClaims()
    expect(await find(keysOf(cluster, { url: jwksUrl(cluster) }), cluster.key.kid)).toBe('cluster_keys_unavailable')
  })

  test('100 keys are taken', async () => {
    const { cluster, keys } = await serving()
    network.serve(jwksUrl(cluster), json({ keys: many(100) }))
    expect(await find(keys, 'kid-99')).toBe(true)
  })

  test.each(['https://EAST.example.org', 'https://east.example.org/', 'https://east.example.org:443'])(
    'a discovery document of %s',
    async (issuer) => {
      const cluster = await fakeCluster('east')
      network.serve(`${cluster.issuer}/.well-known/openid-configuration`, json({ ...cluster.discovery(), issuer }))
      expect(await find(keysOf(cluster, { discovery: true }), 'a')).toBe('cluster_keys_unavailable')
      expect(reasons()).toEqual(['the discovery document is of another issuer'])
    },
  )

  test.each([
    ['http://east.example.org/keys', 'the discovery document has no acceptable jwks_uri'],
    ['https://evil.example/keys', 'jwks_uri is on another host than the issuer'],
  ])('a discovery document with the jwks_uri %s', async (jwks_uri, reason) => {
    const cluster = await fakeCluster('east')
    network.serve(`${cluster.issuer}/.well-known/openid-configuration`, json({ ...cluster.discovery(), jwks_uri }))
    network.serve(jwks_uri, json(cluster.jwks()))
    expect(await find(keysOf(cluster, { discovery: true }), cluster.key.kid)).toBe('cluster_keys_unavailable')
    expect(book.text).toContain(reason)
    expect(network.requests).toHaveLength(1)
  })
})

describe('T-3: a key that stands in the sets of two clusters', () => {
  const conflict = 'a key is another cluster’s'

  /** What a token does that was signed with the key. */
  async function prove(keys: ClusterKeys, kid: string): Promise<string> {
    const key = await keys.find(kid)
    if (!key) return 'unknown'
    try {
      keys.prove(key)
      return 'proven'
    } catch (error) {
      if (error instanceof Refusal) return error.reason
      throw error
    }
  }

  const copies: [string, (east: FakeCluster) => readonly object[]][] = [
    ['as it is', (east) => [east.key.publicJwk]],
    ['beside one of its own', (east) => [pool[1]?.publicJwk as object, east.key.publicJwk]],
    ['under another kid', (east) => [{ ...east.key.publicJwk, kid: 'mine' }]],
    ...Object.entries(respelledKeys).map(([what, respell]): [string, (east: FakeCluster) => readonly object[]] => [
      `under another kid, ${what}`,
      (east) => [{ ...respell(east.key.publicJwk), kid: 'mine' }],
    ]),
  ]

  test.each(copies)('%s: who brings what another has proven is refused the whole set', async (_, set) => {
    const east = await serving('east')
    const west = await serving('west', 1)
    network.serve(jwksUrl(west.cluster), json({ keys: set(east.cluster) }))
    expect(await prove(east.keys, east.cluster.key.kid)).toBe('proven')
    for (const kid of [east.cluster.key.kid, pool[1]?.kid ?? '', 'mine'])
      expect(await find(west.keys, kid)).toBe('cluster_keys_unavailable')
    // A key that is not written in its one form is none that could be used.
    const reason = expect.stringMatching(`${conflict}|the JWKS has no key that can be used`)
    expect(book.events).toEqual([{ event: 'cluster_keys_refused', cluster: 'west', reason }])
    expect(await prove(east.keys, east.cluster.key.kid)).toBe('proven')
  })

  test.each(copies)('%s: who only publishes it first does not keep its owner from using it', async (_, set) => {
    const east = await serving('east')
    const west = await serving('west', 1)
    network.serve(jwksUrl(west.cluster), json({ keys: set(east.cluster) }))
    await find(west.keys, 'unknown')
    expect(await prove(east.keys, east.cluster.key.kid)).toBe('proven')
    for (const kid of [east.cluster.key.kid, 'mine'])
      expect(await prove(west.keys, kid).catch((error) => error.reason)).not.toBe('proven')
  })

  test('by its kid alone: each has its own, and a kid proves nothing', async () => {
    const east = await serving('east')
    const west = await serving('west', 1)
    const { kid } = east.cluster.key
    network.serve(jwksUrl(west.cluster), json({ keys: [{ ...pool[1]?.publicJwk, kid }] }))
    expect(await prove(west.keys, kid)).toBe('proven')
    expect(await prove(east.keys, kid)).toBe('proven')
    expect((await east.keys.find(kid))?.mark).not.toBe((await west.keys.find(kid))?.mark)
  })

  test('at a refresh: the keys from before go on being used', async () => {
    const east = await serving('east')
    const west = await serving('west', 1)
    await prove(east.keys, east.cluster.key.kid)
    await prove(west.keys, west.cluster.key.kid)
    west.cluster.keys.push(east.cluster.key)
    clock.advance(FRESH + 1)
    expect(await find(west.keys, 'unknown')).toBe(false)
    expect(await prove(west.keys, west.cluster.key.kid)).toBe('proven')
    expect(await find(west.keys, east.cluster.key.kid)).toBe(false)
    expect(new Set(reasons())).toEqual(new Set([conflict]))
  })

  test('is free again when the first cluster has dropped it', async () => {
    const east = await serving('east')
    const west = await serving('west', 1)
    const { key } = east.cluster
    await prove(east.keys, key.kid)
    east.cluster.keys.splice(0, 1, pool[2] as TokenKey)
    clock.advance(FRESH + 1)
    await find(east.keys, pool[2]?.kid ?? '')
    west.cluster.keys.unshift(key)
    expect(await prove(west.keys, key.kid)).toBe('proven')
  })

  test('and in the record of one of them: who wrote it there is right, whoever comes first', async () => {
    const east = await fakeCluster('east')
    const eastKeys = keysOf(east, { inline: east.jwks() })
    const west = await serving('west', 1)
    west.cluster.keys.push(east.key)
    expect(await find(west.keys, west.cluster.key.kid)).toBe('cluster_keys_unavailable')
    expect(await prove(eastKeys, east.key.kid)).toBe('proven')
  })

  test('never speaks for both, whatever is published, proven and dropped in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(2), fc.constantFrom('publish', 'drop', 'prove'), fc.nat(2))),
        async (steps) => {
          claims = new KeyClaims()
          const clusters = await Promise.all(['east', 'west', 'north'].map((name) => serving(name, 3)))
          const owners = new Map<number, number>()
          for (const [who, what, which] of steps) {
            const one = clusters[who] as (typeof clusters)[number]
            const key = pool[which] as TokenKey
            if (what === 'publish' && !one.cluster.keys.includes(key)) one.cluster.keys.push(key)
            if (what === 'drop') one.cluster.keys.splice(one.cluster.keys.indexOf(key) >>> 0, 1)
            clock.advance(HOUR + 1)
            if (what !== 'prove') {
              await one.keys.find(key.kid).catch(() => null)
              if (what === 'drop' && owners.get(which) === who && (await one.keys.find(key.kid)) === null)
                owners.delete(which)
            } else if ((await prove(one.keys, key.kid).catch(() => 'none')) === 'proven') {
              expect(owners.get(which) ?? who).toBe(who)
              owners.set(which, who)
            }
          }
        },
      ),
      { numRuns: 100 },
    )
  })
})
