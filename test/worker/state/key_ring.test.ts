import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { generateLocalKey } from '../../../keys/local.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { KeyRing, type KeyRingDeps } from '../../../worker/state/key_ring.ts'
import type { KeyReading } from '../../../worker/state/key_state.ts'
import { Clock } from '../../support/clock.ts'
import { KmsStub, troubles } from '../../support/kms_stub.ts'
import { ISSUER } from '../../support/policy.ts'
import { Background, LogBook } from '../issuer.ts'
import { KeyWorld, STAMP } from '../key_world.ts'

/** JWKS clients cache for half a minute, and a token lives an hour at most. */
const HOUR = 3600

type State = ReturnType<KeyRingDeps['keyState']>

let clock: Clock
let book: LogBook
let background: Background
beforeEach(() => {
  clock = new Clock()
  book = new LogBook()
  background = new Background()
})
afterEach(() => {
  vi.unstubAllGlobals()
})

/** A world of its own for the state of the keys, which goes by the clock of the isolates. */
const world = (names: readonly string[], kms: KmsStub | null = null) =>
  new KeyWorld(names, { clock, kms: kms?.access ?? null })

/** A state that counts how often it was asked, and can be made to fail. */
class Asked {
  times = 0
  down = false
  readonly #keys: KeyWorld

  constructor(keys: KeyWorld) {
    this.#keys = keys
  }

  readonly read: State['read'] = ((...args: Parameters<State['read']>) => {
    this.times++
    return this.down ? Promise.reject(new TypeError('SQLITE_FULL: /secret/path')) : this.#keys.stub.read(...args)
  }) as State['read']
}

/** The keys of one isolate. */
function ring(keys: KeyWorld, state: State = keys.stub): KeyRing {
  return new KeyRing(depsOf(keys, state))
}

function depsOf({ settings, stub }: KeyWorld, state: State = stub): KeyRingDeps {
  if (!settings) throw new TypeError('not configured')
  return { settings, keyState: () => state, now: clock.now, waitUntil: background.waitUntil, log: book.log }
}

const decode = ({ body }: { body: Uint8Array }) => JSON.parse(new TextDecoder().decode(body))

async function publishedKids(of: KeyRing): Promise<string[]> {
  return decode((await of.published()).jwks).keys.map(({ kid }: { kid: string }) => kid)
}

const kidOf = async (of: KeyRing, alg: Parameters<KeyRing['signer']>[0] = null) => (await of.signer(alg)).publicJwk.kid

/** @returns why something could not be had */
async function refusal(
  promise: Promise<unknown>,
): Promise<Pick<Refusal, 'reason' | 'detail' | 'retryAfterSeconds'> | null> {
  try {
    await promise
    return null
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    const { reason, detail, retryAfterSeconds } = error
    return { reason, detail, retryAfterSeconds }
  }
}

describe('what is published', () => {
  test('OD-8: all listed keys by their kid, and nothing private', async () => {
    const keys = ring(world(['local:a', 'local:b?alg=RS256']))
    const { jwks } = await keys.published()
    const members = { use: 'sig', kid: expect.any(String) }
    const published = decode(jwks).keys as Record<string, string>[]
    expect(published.toSorted((a, b) => ((a.alg ?? '') < (b.alg ?? '') ? -1 : 1))).toEqual([
      { ...members, kty: 'EC', alg: 'ES256', crv: 'P-256', x: expect.any(String), y: expect.any(String) },
      { ...members, kty: 'RSA', alg: 'RS256', n: expect.any(String), e: 'AQAB' },
    ])
    expect(await publishedKids(keys)).toEqual([await kidOf(keys, 'ES256'), await kidOf(keys, 'RS256')].toSorted())
  })

  test('OD-4, D8: a discovery document of the configured issuer, with the algorithms of the keys there are', async () => {
    const { discovery } = await ring(world(['local:a', 'local:b', 'local:c?alg=RS256'])).published()
    expect(decode(discovery)).toMatchObject({
      issuer: ISSUER,
      jwks_uri: `${ISSUER}/keys`,
      id_token_signing_alg_values_supported: ['ES256', 'RS256'],
    })
  })

  test('D3: the same bytes in every isolate', async () => {
    const shared = world(['local:a', 'local:b'])
    const [one, other] = await Promise.all([ring(shared).published(), ring(shared).published()])
    expect([one?.jwks.etag, one?.discovery.etag]).toEqual([other?.jwks.etag, other?.discovery.etag])
  })

  test('12.6: a key that is replaced until its last token is over, and after that no more', async () => {
    const shared = world(['local:a'])
    const keys = ring(shared)
    const old = await kidOf(keys)
    shared.deploy('local:b')
    const renewed = async (seconds: number) => {
      await shared.pass(seconds)
      await keys.renew()
      return publishedKids(keys)
    }
    await renewed(0)
    expect(await renewed(4260)).toContain(old)
    expect(await kidOf(keys)).not.toBe(old)
    expect(await renewed(3899)).toContain(old)
    expect(await renewed(1)).toEqual([await kidOf(keys)])
  })

  test('nothing, where no key has been announced yet', async () => {
    const keys = ring(world(['awskms:alias/a']))
    expect(await refusal(keys.published())).toEqual({
      reason: 'keys_unavailable',
      detail: 'no signing key has been announced yet',
      retryAfterSeconds: 5,
    })
  })
})

describe('who signs', () => {
  test('the first key, unless an algorithm is asked for', async () => {
    const keys = ring(world(['local:a', 'local:b?alg=RS256', 'local:c?alg=RS256', 'local:d']))
    expect(await keys.signer(null)).toBe(await keys.signer('ES256'))
    expect((await keys.signer('RS256')).publicJwk.alg).toBe('RS256')
  })

  test('nobody, for an algorithm that no key makes', async () => {
    const keys = ring(world(['local:a']))
    expect(await refusal(keys.signer('PS256'))).toMatchObject({ reason: 'signing_unavailable', detail: 'key_mismatch' })
  })

  test('FE-10: nobody, for an algorithm whose key has not been published for long enough', async () => {
    const shared = world(['local:a'])
    const keys = ring(shared)
    await keys.published()
    shared.deploy('local:a', 'local:b?alg=RS256')
    await vi.waitFor(async () => {
      await keys.renew()
      expect(await refusal(keys.signer('RS256'))).toMatchObject({
        reason: 'signing_unavailable',
        detail: 'not_safe_yet',
      })
    }, 15_000)
    expect(await publishedKids(keys)).toHaveLength(2)
    await shared.pass(4260)
    await keys.renew()
    expect((await keys.signer('RS256')).publicJwk.alg).toBe('RS256')
  })

  test('nobody, with two halves that do not belong together', async () => {
    const [one, other] = await Promise.all([generateLocalKey('ES256'), generateLocalKey('ES256')])
    const key = { publicJwk: one.publicJwk, privateJwk: other.privateJwk, arn: null, wrapped: null } as const
    const reading: KeyReading = {
      stamp: 'ours',
      keys: [{ ...key, use: 'jwt-svid', phase: 'active', failed: null, certificate: null }],
      defaultAlg: { 'jwt-svid': 'ES256', 'x509-svid': null },
      problems: [],
      sequence: 1,
    }
    const keys = ring(world(['local:a']), { read: async () => reading } as unknown as State)
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'signing_unavailable', detail: 'key_mismatch' })
    expect(await publishedKids(keys)).toEqual([one.publicJwk.kid])
  })

  test('T-16: a wrapped key is opened once, however often the copy is renewed', async () => {
    const kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
    const wrapping = await kms.createKey('SYMMETRIC_DEFAULT')
    const shared = new KeyWorld(['wrapped'], {
      clock,
      kms: kms.access,
      wrapping: [{ keeper: 'awskms', key: wrapping }],
    })
    const keys = ring(shared)
    const signer = await keys.signer(null)
    // The next key is made, and shown to sign, by the state itself.
    await shared.pass(20)
    const decrypted = () => kms.requests.filter(({ operation }) => operation === 'Decrypt').length
    const before = decrypted()
    for (let turn = 0; turn < 3; turn++) {
      clock.advance(60)
      await keys.renew()
    }
    expect([await keys.signer(null), decrypted()]).toEqual([signer, before])
  })

  test('D4: a key by its kid, whether or not it is its turn, and none that there is not', async () => {
    const keys = ring(world(['local:a', 'local:b']))
    for (const kid of await publishedKids(keys)) expect((await keys.signerOf(kid))?.publicJwk.kid).toBe(kid)
    expect(await keys.signerOf('none')).toBeNull()
  })
})

describe('12.11: a key in KMS that cannot be had', () => {
  let kms: KmsStub
  beforeEach(() => {
    kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
  })

  test.each(['awskms:alias/none', 'awskms:alias/none?alg=ES256'])(
    'first in the list, as %s: signs nothing, and no other key takes its place',
    async (name) => {
      const keys = ring(world([name, 'local:b'], kms))
      for (const alg of [null, 'ES256'] as const)
        expect(await refusal(keys.signer(alg))).toEqual({
          reason: 'signing_unavailable',
          detail: 'key_unusable',
          retryAfterSeconds: expect.any(Number),
        })
      expect(await refusal(keys.published())).toMatchObject({ reason: 'keys_unavailable' })
    },
  )

  test('further down: does not stop the first', async () => {
    const keys = ring(world(['local:b', 'awskms:alias/none?alg=RS256'], kms))
    expect([await kidOf(keys)]).toEqual(await publishedKids(keys))
    expect(await refusal(keys.signer('RS256'))).toMatchObject({ detail: 'key_unusable' })
  })

  test('is logged with its place in the list, and with no ARN, alias or account', async () => {
    await ring(world(['local:a', 'awskms:alias/none'], kms)).published()
    expect(book.events).toEqual([
      { event: 'signing_key_failed', variable: 'SIGNING_KEY', entry: 2, reason: 'key_unusable' },
    ])
  })

  test('is asked for again after 10 s, in the background, and not before', async () => {
    const shared = world(['local:a', 'awskms:alias/new'], kms)
    const state = new Asked(shared)
    const keys = ring(shared, state)
    kms.trouble = troubles.failsInside
    await keys.published()
    clock.advance(9)
    await keys.published()
    await background.settled()
    expect(state.times).toBe(1)
    kms.trouble = null
    kms.setAlias('alias/new', await kms.createKey('RSA_2048'))
    clock.advance(1)
    expect(await publishedKids(keys)).toHaveLength(1)
    await background.settled()
    expect(state.times).toBe(2)
    await vi.waitFor(async () => {
      await keys.renew()
      expect(await publishedKids(keys)).toHaveLength(2)
    }, 15_000)
  })

  test('T-15: and that is pinned stays in the JWKS', async () => {
    const arn = await kms.createKey('ECC_NIST_P256')
    const shared = world([`awskms:${arn}`], kms)
    const before = await publishedKids(ring(shared))
    kms.setState(arn, 'Disabled')
    expect(await publishedKids(ring(shared))).toEqual(before)
    if (shared.settings) shared.settings = { ...shared.settings, kms: null }
    expect(await publishedKids(ring(shared))).toEqual(before)
  })
})

describe('D1: the state is not on the hot path', () => {
  test('it is asked once for all requests', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    const keys = ring(shared, state)
    await Promise.all(Array.from({ length: 100 }, (_, index) => (index % 2 ? keys.published() : keys.signer(null))))
    expect(state.times).toBe(1)
  })

  test('keys_unavailable where it does not answer, with nothing in it but the kind of error', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    state.down = true
    const keys = ring(shared, state)
    for (const promise of [keys.published(), keys.signer(null)])
      expect(await refusal(promise)).toEqual({
        reason: 'keys_unavailable',
        detail: 'key state: TypeError',
        retryAfterSeconds: 5,
      })
    state.down = false
    clock.advance(2)
    expect(await publishedKids(keys)).toEqual([await kidOf(keys)])
  })

  test('a state in trouble is asked once in two seconds, whoever wants something', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    state.down = true
    const keys = ring(shared, state)
    for (let second = 0; second < 6; second++) {
      await Promise.all(Array.from({ length: 50 }, (_, at) => refusal(at % 2 ? keys.published() : keys.signer(null))))
      clock.advance(1)
    }
    expect(state.times).toBe(3)
  })

  test('T-18: keys_unavailable where it never answers, in time for who has asked', async () => {
    vi.useFakeTimers()
    const keys = ring(world(['local:a']), { read: () => new Promise(() => {}) } as unknown as State)
    const said = refusal(keys.published())
    await vi.advanceTimersByTimeAsync(5500)
    expect(await said).toMatchObject({ reason: 'keys_unavailable', detail: 'key state: no answer' })
    vi.useRealTimers()
  })

  test('an answer that comes in late takes nothing of a newer one back', async () => {
    const shared = world(['local:a'])
    const old = await shared.read()
    const late = Promise.withResolvers<KeyReading>()
    let calls = 0
    const read = ((...args: Parameters<State['read']>) =>
      calls++ === 0 ? late.promise : shared.stub.read(...args)) as unknown as State['read']
    shared.deploy('local:a', 'local:b')
    await vi.waitFor(async () => expect((await shared.read()).keys).toHaveLength(2), 15_000)
    vi.useFakeTimers()
    const keys = ring(shared, { read })
    const first = keys.published().catch(() => null)
    await vi.advanceTimersByTimeAsync(5500)
    await first
    vi.useRealTimers()
    clock.advance(10)
    expect(await publishedKids(keys)).toHaveLength(2)
    late.resolve(old)
    await background.settled()
    expect(await publishedKids(keys)).toHaveLength(2)
  })

  test('T-12: keys_unavailable where it belongs to another issuer, or is deployed with an environment of its own', async () => {
    const shared = world(['local:a'])
    await shared.read()
    const other = { ...shared.settings, stamp: { ...STAMP, issuer: 'https://other.example' } }
    const keys = new KeyRing({ ...depsOf(shared), settings: other as KeyRingDeps['settings'] })
    expect(await refusal(keys.published())).toMatchObject({
      reason: 'keys_unavailable',
      detail: 'the storage belongs to another issuer: give this worker a storage of its own',
    })
    const unread = ring(shared)
    shared.settings = null
    expect(await refusal(unread.published())).toMatchObject({
      reason: 'keys_unavailable',
      detail: 'the key state has another configuration',
    })
  })
})

describe('12.6: no key signs that is not published', () => {
  test('in any one isolate, at any time', async () => {
    const shared = world(['local:a'])
    for (const names of [
      ['local:a'],
      ['local:b', 'local:a'],
      ['local:b'],
      ['local:c?alg=RS256', 'local:b'],
      ['local:a'],
    ]) {
      shared.deploy(...names)
      const keys = ring(shared)
      for (const seconds of [0, 1000, 3000]) {
        await shared.pass(seconds)
        expect(await publishedKids(keys)).toContain(await kidOf(keys))
      }
    }
  })
})

describe('T-17: what an isolate knows of its keys is a lease', () => {
  test('an isolate that can renew it no more does not sign for ever', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    const keys = ring(shared, state)
    await keys.signer(null)
    state.down = true
    clock.advance(24 * HOUR)
    await refusal(keys.signer(null))
    await background.settled()
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'keys_unavailable' })
  })

  test('it signs for four minutes without the state, and publishes until the last token is over', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    const keys = ring(shared, state)
    const kid = await kidOf(keys)
    state.down = true
    clock.advance(240)
    expect(await kidOf(keys)).toBe(kid)
    clock.advance(1)
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'keys_unavailable', retryAfterSeconds: 5 })
    clock.advance(3900 - 241)
    expect(await publishedKids(keys)).toEqual([kid])
    clock.advance(1)
    expect(await refusal(keys.published())).toMatchObject({ reason: 'keys_unavailable' })
    state.down = false
    clock.advance(2)
    expect([await kidOf(keys), await publishedKids(keys)]).toEqual([kid, [kid]])
  })

  test('it is renewed every minute in the background, and every 10 s while that fails, which is logged', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    const keys = ring(shared, state)
    const times: number[] = []
    for (let second = 0; second <= 200; second++) {
      if (second === 100) state.down = true
      const before = state.times
      await keys.signer(null)
      await background.settled()
      if (state.times > before) times.push(second)
      clock.advance(1)
    }
    expect(times).toEqual([0, 60, 120, 130, 140, 150, 160, 170, 180, 190, 200])
    expect(book.events).toEqual(Array(9).fill({ event: 'keys_not_renewed', detail: 'key state: TypeError' }))
  })

  test('a copy from the future is none: the clock has been set back, and nobody knows how old it is', async () => {
    const shared = world(['local:a'])
    const state = new Asked(shared)
    const keys = ring(shared, state)
    await keys.signer(null)
    clock.advance(-HOUR)
    await keys.signer(null)
    expect(state.times).toBe(2)
  })

  test('12.6: a token that an isolate signs as long as it may without the state can be verified to its end', async () => {
    const shared = world(['local:a'])
    const cutOff = new Asked(shared)
    const [old, other] = [ring(shared, cutOff), ring(shared)]
    const kid = await kidOf(old)
    shared.deploy('local:b')
    await vi.waitFor(async () => expect((await shared.read()).keys).toHaveLength(2), 15_000)
    await shared.pass(4259)
    await old.renew()
    cutOff.down = true
    await shared.pass(1)
    await other.renew()
    expect(await kidOf(other)).not.toBe(kid)
    await shared.pass(239)
    expect(await kidOf(old)).toBe(kid)
    // The token that it has just signed.
    await shared.pass(HOUR)
    await other.renew()
    expect(await publishedKids(other)).toContain(kid)
  })

  test('12.6: a key that has been announced is published by all isolates before it signs', async () => {
    const shared = world(['local:a'])
    const old = ring(shared)
    await old.published()
    shared.deploy('local:b', 'local:a')
    const [kid] = await vi.waitFor(async () => {
      const { keys } = await shared.read()
      expect(keys).toHaveLength(2)
      return keys.filter(({ phase }) => phase === 'published').map(({ publicJwk }) => publicJwk.kid)
    }, 15_000)
    clock.advance(60)
    await old.published()
    await background.settled()
    expect(await publishedKids(old)).toContain(kid)
  })
})
