import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type KeyReference, parseKeyReference } from '../../../keys/key_reference.ts'
import { generateLocalKey } from '../../../keys/local.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { KeyRing, type KeyRingDeps } from '../../../worker/state/key_ring.ts'
import type { Announcement } from '../../../worker/state/key_state.ts'
import { Clock } from '../../support/clock.ts'
import { KmsStub, troubles } from '../../support/kms_stub.ts'
import { ISSUER } from '../../support/policy.ts'
import { Background, LogBook, newKeyState } from '../issuer.ts'

const STAMP = { mode: 'development', issuer: ISSUER, trustDomain: 'example.org' }
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

/** A state that counts how often it was asked, and can be made to fail. */
class Asked {
  times = 0
  down = false
  readonly #state: State

  constructor(state: State = newKeyState()) {
    this.#state = state
  }

  readonly announce: State['announce'] = ((...args: Parameters<State['announce']>) => {
    this.times++
    return this.down ? Promise.reject(new TypeError('SQLITE_FULL: /secret/path')) : this.#state.announce(...args)
  }) as State['announce']
}

/** The keys of one isolate. */
function ring(
  names: readonly string[],
  state: Pick<State, 'announce'> = newKeyState(),
  kms: KmsStub | null = null,
): KeyRing {
  return new KeyRing({
    stamp: STAMP,
    references: names.map((name) => parseKeyReference(name) as KeyReference),
    kms: kms?.access ?? null,
    keyState: () => state as State,
    now: clock.now,
    waitUntil: background.waitUntil,
    log: book.log,
  })
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
  test('OD-8: all listed keys in the order of the operator, and nothing private', async () => {
    const keys = ring(['local:a', 'local:b?alg=RS256'])
    const { jwks } = await keys.published()
    expect(decode(jwks)).toEqual({
      keys: [
        {
          kty: 'EC',
          use: 'sig',
          alg: 'ES256',
          kid: expect.any(String),
          crv: 'P-256',
          x: expect.any(String),
          y: expect.any(String),
        },
        { kty: 'RSA', use: 'sig', alg: 'RS256', kid: expect.any(String), n: expect.any(String), e: 'AQAB' },
      ],
    })
    expect(await publishedKids(keys)).toEqual([await kidOf(keys, 'ES256'), await kidOf(keys, 'RS256')])
  })

  test('OD-4, D8: a discovery document of the configured issuer, with the algorithms of the keys there are', async () => {
    const { discovery } = await ring(['local:a', 'local:b', 'local:c?alg=RS256']).published()
    expect(decode(discovery)).toMatchObject({
      issuer: ISSUER,
      jwks_uri: `${ISSUER}/keys`,
      id_token_signing_alg_values_supported: ['ES256', 'RS256'],
    })
  })

  test('D3: the same bytes in every isolate', async () => {
    const state = newKeyState()
    const names = ['local:a', 'local:b']
    const [one, other] = await Promise.all([ring(names, state).published(), ring(names, state).published()])
    expect([one?.jwks.etag, one?.discovery.etag]).toEqual([other?.jwks.etag, other?.discovery.etag])
  })

  test('12.6: a withdrawn key until its last token is over, and after that no more', async () => {
    const state = newKeyState()
    const old = await kidOf(ring(['local:a'], state))
    const keys = ring(['local:b'], state)
    expect(await publishedKids(keys)).toEqual([await kidOf(keys), old])
    clock.advance(3899)
    await keys.published()
    await background.settled()
    expect(await publishedKids(keys)).toContain(old)
    // A copy is renewed once a minute.
    clock.advance(60)
    await keys.published()
    await background.settled()
    expect(await publishedKids(keys)).toEqual([await kidOf(keys)])
  })

  test('nothing, where no key has been announced yet', async () => {
    const keys = ring(['awskms:alias/a'])
    expect(await refusal(keys.published())).toEqual({
      reason: 'keys_unavailable',
      detail: 'no signing key has been announced yet',
      retryAfterSeconds: 5,
    })
  })
})

describe('who signs', () => {
  test('the first key, unless an algorithm is asked for', async () => {
    const keys = ring(['local:a', 'local:b?alg=RS256', 'local:c?alg=RS256', 'local:d'])
    const [a, b] = await publishedKids(keys)
    expect([await kidOf(keys), await kidOf(keys, 'ES256'), await kidOf(keys, 'RS256')]).toEqual([a, a, b])
  })

  test('nobody, for an algorithm that no key makes', async () => {
    const keys = ring(['local:a'])
    expect(await refusal(keys.signer('PS256'))).toMatchObject({ reason: 'signing_unavailable', detail: 'key_mismatch' })
  })

  test('nobody, with two halves that do not belong together', async () => {
    const [one, other] = await Promise.all([generateLocalKey('ES256'), generateLocalKey('ES256')])
    const key = { publicJwk: one.publicJwk, privateJwk: other.privateJwk, arn: null, publishedUntil: null }
    const announcement: Announcement = { stamp: 'ours', listed: [{ key, failed: null }], withdrawn: [] }
    const keys = ring(['local:a'], { announce: async () => announcement } as unknown as State)
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'signing_unavailable', detail: 'key_mismatch' })
    expect(await publishedKids(keys)).toEqual([one.publicJwk.kid])
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
      const keys = ring([name, 'local:b'], newKeyState(), kms)
      for (const alg of [null, 'ES256'] as const)
        expect(await refusal(keys.signer(alg))).toEqual({
          reason: 'signing_unavailable',
          detail: 'key_unusable',
          retryAfterSeconds: expect.any(Number),
        })
      expect(await publishedKids(keys)).toHaveLength(1)
    },
  )

  test('further down: does not stop the first', async () => {
    const keys = ring(['local:b', 'awskms:alias/none?alg=RS256'], newKeyState(), kms)
    expect(await kidOf(keys)).toBe((await publishedKids(keys))[0])
    expect(await refusal(keys.signer('RS256'))).toMatchObject({ detail: 'key_unusable' })
  })

  test('is logged with its place in the list, and with no ARN, alias or account', async () => {
    await ring(['local:a', 'awskms:alias/none'], newKeyState(), kms).published()
    expect(book.events).toEqual([
      { event: 'signing_key_failed', variable: 'SIGNING_KEY', entry: 2, reason: 'key_unusable' },
    ])
  })

  test('is asked for again after 10 s, in the background, and not before', async () => {
    const state = new Asked()
    const keys = ring(['local:a', 'awskms:alias/new'], state, kms)
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
    expect(await publishedKids(keys)).toContain(await kidOf(keys, 'RS256'))
  })

  test('T-15: and that is pinned stays in the JWKS', async () => {
    const state = newKeyState()
    const arn = await kms.createKey('ECC_NIST_P256')
    const before = await publishedKids(ring([`awskms:${arn}`], state, kms))
    kms.setState(arn, 'Disabled')
    expect(await publishedKids(ring([`awskms:${arn}`], state, kms))).toEqual(before)
    expect(await publishedKids(ring([`awskms:${arn}`], state))).toEqual(before)
  })
})

describe('D1: the state is not on the hot path', () => {
  test('it is asked once for all requests', async () => {
    const state = new Asked()
    const keys = ring(['local:a'], state)
    await Promise.all(Array.from({ length: 100 }, (_, index) => (index % 2 ? keys.published() : keys.signer(null))))
    expect(state.times).toBe(1)
  })

  test('keys_unavailable where it does not answer, with nothing in it but the kind of error', async () => {
    const state = new Asked()
    state.down = true
    const keys = ring(['local:a'], state)
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
    const state = new Asked()
    state.down = true
    const keys = ring(['local:a'], state)
    for (let second = 0; second < 6; second++) {
      await Promise.all(Array.from({ length: 50 }, (_, at) => refusal(at % 2 ? keys.published() : keys.signer(null))))
      clock.advance(1)
    }
    expect(state.times).toBe(3)
  })

  test('T-18: keys_unavailable where it never answers, in time for who has asked', async () => {
    vi.useFakeTimers()
    const keys = ring(['local:a'], { announce: (() => new Promise(() => {})) as unknown as State['announce'] })
    const said = refusal(keys.published())
    await vi.advanceTimersByTimeAsync(5500)
    expect(await said).toMatchObject({ reason: 'keys_unavailable', detail: 'key state: no answer' })
    vi.useRealTimers()
  })

  test('an answer that comes in late takes nothing of a newer one back', async () => {
    const state = newKeyState()
    const old = state.announce(STAMP, [parseKeyReference('local:a') as KeyReference], null, clock.now())
    const late = Promise.withResolvers<Announcement>()
    let calls = 0
    const announce = ((...args: Parameters<State['announce']>) =>
      calls++ === 0 ? late.promise : state.announce(...args)) as unknown as State['announce']
    vi.useFakeTimers()
    const keys = ring(['local:a', 'local:b'], { announce })
    const first = keys.published().catch(() => null)
    await vi.advanceTimersByTimeAsync(5500)
    await first
    vi.useRealTimers()
    clock.advance(10)
    expect(await publishedKids(keys)).toHaveLength(2)
    late.resolve((await old) as Announcement)
    await background.settled()
    expect(await publishedKids(keys)).toHaveLength(2)
  })

  test('T-12: keys_unavailable where it belongs to another issuer', async () => {
    const state = newKeyState()
    await state.announce({ ...STAMP, issuer: 'https://other.example' }, [], null, clock.now())
    expect(await refusal(ring(['local:a'], state).published())).toMatchObject({
      reason: 'keys_unavailable',
      detail: 'the storage belongs to another issuer: give this worker a storage of its own',
    })
  })
})

describe('12.6: no key signs that is not published', () => {
  test('in any one isolate, at any time', async () => {
    const state = newKeyState()
    for (const names of [
      ['local:a'],
      ['local:b', 'local:a'],
      ['local:b'],
      ['local:c?alg=RS256', 'local:b'],
      ['local:a'],
    ]) {
      clock.advance(1000)
      const keys = ring(names, state)
      expect(await publishedKids(keys)).toContain(await kidOf(keys))
      clock.advance(1000)
      expect(await publishedKids(keys)).toContain(await kidOf(keys))
    }
  })
})

describe('T-17: what an isolate knows of its keys is a lease', () => {
  test('an isolate that can renew it no more does not sign for ever', async () => {
    const state = new Asked()
    const keys = ring(['local:a'], state)
    await keys.signer(null)
    state.down = true
    clock.advance(24 * HOUR)
    await refusal(keys.signer(null))
    await background.settled()
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'keys_unavailable' })
  })

  test('it signs for four minutes without the state, and its documents are good for a day', async () => {
    const state = new Asked()
    const keys = ring(['local:a'], state)
    const kid = await kidOf(keys)
    state.down = true
    clock.advance(240)
    expect(await kidOf(keys)).toBe(kid)
    clock.advance(1)
    expect(await refusal(keys.signer(null))).toMatchObject({ reason: 'keys_unavailable', retryAfterSeconds: 5 })
    clock.advance(24 * HOUR - 241)
    expect(await publishedKids(keys)).toEqual([kid])
    clock.advance(1)
    expect(await refusal(keys.published())).toMatchObject({ reason: 'keys_unavailable' })
    state.down = false
    clock.advance(2)
    expect([await kidOf(keys), await publishedKids(keys)]).toEqual([kid, [kid]])
  })

  test('it is renewed every minute in the background, and every 10 s while that fails, which is logged', async () => {
    const state = new Asked()
    const keys = ring(['local:a'], state)
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

  test('12.6: a token of an isolate with the old list can be verified to its end with the keys of one with the new list', async () => {
    const state = newKeyState()
    const [old, replaced] = [ring(['local:a'], state), ring(['local:b'], state)]
    await old.published()
    await replaced.published()
    clock.advance(HOUR)
    const kid = await kidOf(old).catch(() => null)
    await background.settled()
    // An isolate that refuses to sign by now, or has learnt of the other key, is as good.
    clock.advance(HOUR - 1)
    await replaced.published()
    await background.settled()
    if (kid !== null) expect(await publishedKids(replaced)).toContain(kid)
  })

  test('12.6: and so can one that it signs as long as it may without the state', async () => {
    const shared = newKeyState()
    const cutOff = new Asked(shared)
    const [old, replaced] = [ring(['local:a'], cutOff), ring(['local:b'], shared)]
    await old.published()
    await replaced.published()
    cutOff.down = true
    let lastSigned: { kid: string; at: number } | null = null
    for (let minute = 0; minute < 60; minute++) {
      const kid = await kidOf(old).catch(() => null)
      if (kid !== null) lastSigned = { kid, at: clock.now() }
      await background.settled()
      clock.advance(60)
    }
    if (!lastSigned) return
    clock.seconds = lastSigned.at + HOUR - 1
    await replaced.published()
    await background.settled()
    expect(await publishedKids(replaced)).toContain(lastSigned.kid)
  })

  test('12.6: a key that another isolate has announced is published by all of them before long', async () => {
    const state = newKeyState()
    const old = ring(['local:a'], state)
    await old.published()
    const kid = await kidOf(ring(['local:b', 'local:a'], state))
    clock.advance(HOUR)
    await old.published()
    await background.settled()
    expect(await publishedKids(old)).toContain(kid)
  })
})
