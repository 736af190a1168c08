import { abortAllDurableObjects, runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type KeyReference, parseKeyReference } from '../../../keys/key_reference.ts'
import type { Announcement, StoredKey } from '../../../worker/state/key_state.ts'
import type { Stamp } from '../../../worker/state/stamp.ts'
import { NOW } from '../../support/clock.ts'
import { KmsStub, troubles } from '../../support/kms_stub.ts'
import { newKeyState } from '../issuer.ts'

const STAMP: Stamp = { mode: 'development', issuer: 'https://issuer.example.org', trustDomain: 'example.org' }
/** As long as the longest token may live, and five minutes for clocks. */
const PUBLISHED_AFTER_WITHDRAWAL = 3900

type Ours = Extract<Announcement, { stamp: 'ours' }>

function specs(...texts: readonly string[]): KeyReference[] {
  return texts.map((text) => {
    const spec = parseKeyReference(text)
    if (!spec) throw new TypeError(`not a key: ${text}`)
    return spec
  })
}

const kids = (keys: readonly StoredKey[]): string[] => keys.map(({ publicJwk }) => publicJwk.kid)
/** The `kid`s of those listed keys that may sign. */
const signing = ({ listed }: Ours): string[] =>
  kids(listed.flatMap(({ key, failed }) => (key && failed === null ? [key] : [])))
/** All that stands in the JWKS. */
const published = ({ listed, withdrawn }: Ours): string[] =>
  kids([...listed.flatMap(({ key }) => (key ? [key] : [])), ...withdrawn])
const failures = ({ listed }: Ours) => listed.map(({ failed }) => failed)

/** An object of its own, and what an operator does with it. */
function keyState(kms: KmsStub | null = null) {
  const { id } = newKeyState()
  const stub = () => env.KEY_STATE.get(id)
  return {
    stub,
    async announce(texts: readonly string[], now = NOW, stamp = STAMP): Promise<Ours> {
      const announcement = (await stub().announce(stamp, specs(...texts), kms?.access ?? null, now)) as Announcement
      if (announcement.stamp !== 'ours') throw new TypeError(`foreign: ${announcement.field}`)
      return announcement
    },
    /** What is only in memory is gone after this. */
    restart: () => abortAllDurableObjects(),
  }
}

describe('a listed local key', () => {
  test('is made when it is first announced, and then stays the same', async () => {
    const { announce } = keyState()
    const first = await announce(['local:a'])
    const key = {
      publicJwk: expect.objectContaining({ kty: 'EC', use: 'sig', alg: 'ES256' }),
      arn: null,
      privateJwk: expect.objectContaining({ kty: 'EC' }),
      publishedUntil: null,
    }
    expect(first).toEqual({ stamp: 'ours', listed: [{ key, failed: null }], withdrawn: [] })
    expect(await announce(['local:a'], NOW + 1000)).toEqual(first)
  })

  test('has the algorithm it is listed with, and is another key with another one', async () => {
    const { announce } = keyState()
    const said = await announce(['local:a', 'local:a?alg=ES384', 'local:a?alg=RS256'])
    expect(said.listed.map(({ key }) => key?.publicJwk.alg)).toEqual(['ES256', 'ES384', 'RS256'])
    expect(new Set(signing(said)).size).toBe(3)
  })

  test('survives the object', async () => {
    const { announce, restart } = keyState()
    const before = await announce(['local:a', 'local:b'])
    await restart()
    expect(await announce(['local:a', 'local:b'])).toEqual(before)
  })

  test('is made once, however many ask at the same time', async () => {
    const { stub, announce } = keyState()
    const announced = await Promise.all(Array.from({ length: 10 }, () => announce(['local:a', 'local:b'])))
    expect(new Set(announced.map((said) => signing(said).join())).size).toBe(1)
    expect(announced.flatMap(({ withdrawn }) => withdrawn)).toEqual([])
    const rows = await runInDurableObject(stub(), (_, { storage }) =>
      storage.sql.exec('select kid from signing_key').toArray(),
    )
    expect(rows).toHaveLength(2)
  })
})

describe('the order', () => {
  test("is the operator's, not that of the announcing", async () => {
    const { announce } = keyState()
    const [a, b] = signing(await announce(['local:a', 'local:b']))
    expect(signing(await announce(['local:b', 'local:a']))).toEqual([b, a])
    const [first, ...rest] = signing(await announce(['local:c', 'local:b', 'local:a']))
    expect([a, b]).not.toContain(first)
    expect(rest).toEqual([b, a])
  })

  test('of withdrawn keys is newest first', async () => {
    const { announce } = keyState()
    const [a, b, c] = signing(await announce(['local:a', 'local:b', 'local:c']))
    await announce(['local:b', 'local:c'], NOW + 10)
    await announce(['local:c'], NOW + 20)
    expect(published(await announce(['local:c'], NOW + 30))).toEqual([c, b, a])
  })
})

describe('12.6: a key that is listed no more', () => {
  test('stays published for 3900 s after it was first seen to be gone, and no longer', async () => {
    const { announce } = keyState()
    const [a] = signing(await announce(['local:a', 'local:b']))
    const until = NOW + 100 + PUBLISHED_AFTER_WITHDRAWAL
    for (const now of [NOW + 100, NOW + 200, until - 1]) {
      const { withdrawn } = await announce(['local:b'], now)
      expect(withdrawn.map(({ publicJwk, publishedUntil }) => [publicJwk.kid, publishedUntil])).toEqual([[a, until]])
    }
    expect((await announce(['local:b'], until)).withdrawn).toEqual([])
  })

  test('that comes back in time is the same, and begins anew when it is withdrawn again', async () => {
    const { announce } = keyState()
    const [a] = signing(await announce(['local:a']))
    await announce(['local:b'], NOW + 10)
    const back = await announce(['local:a', 'local:b'], NOW + 20)
    expect([signing(back)[0], back.withdrawn]).toEqual([a, []])
    const { withdrawn } = await announce(['local:b'], NOW + 30)
    expect(withdrawn.map(({ publishedUntil }) => publishedUntil)).toEqual([NOW + 30 + PUBLISHED_AFTER_WITHDRAWAL])
  })

  test('that comes back too late is another key, and the old private half is gone', async () => {
    const { stub, announce } = keyState()
    const before = await announce(['local:a'])
    await announce(['local:b'], NOW + 10)
    await announce(['local:b'], NOW + 10 + PUBLISHED_AFTER_WITHDRAWAL)
    const after = await announce(['local:a'], NOW + 20 + PUBLISHED_AFTER_WITHDRAWAL)
    expect(signing(after)).not.toEqual(signing(before))
    const stored = await runInDurableObject(stub(), (_, { storage }) =>
      JSON.stringify(storage.sql.exec('select * from signing_key').toArray()),
    )
    expect(stored).not.toContain(before.listed[0]?.key?.privateJwk?.d)
  })

  test('is withdrawn also when nothing at all is listed', async () => {
    const { announce } = keyState()
    const [key] = (await announce(['local:a'])).listed
    expect(await announce([], NOW + 1)).toEqual({
      stamp: 'ours',
      listed: [],
      withdrawn: [{ ...key?.key, publishedUntil: NOW + 1 + PUBLISHED_AFTER_WITHDRAWAL }],
    })
  })
})

describe('T-12: a storage belongs to one mode, issuer and trust domain', () => {
  test.each<[keyof Stamp, string]>([
    ['mode', 'production'],
    ['issuer', 'https://issuer.example.org/other'],
    ['trustDomain', 'other.example'],
  ])('another %s is refused, and changes nothing', async (field, value) => {
    const { stub, announce, restart } = keyState()
    const before = await announce(['local:a'])
    const foreign = { ...STAMP, [field]: value }
    expect(await stub().announce(foreign, specs('local:b'), null, NOW + 10)).toEqual({ stamp: 'foreign', field })
    await restart()
    expect(await stub().announce(foreign, [], null, NOW + 20)).toEqual({ stamp: 'foreign', field })
    expect(await announce(['local:a'], NOW + 30)).toEqual(before)
  })
})

describe('as a state machine', () => {
  const NAMES = ['local:a', 'local:b', 'local:c', 'local:d']

  /** What there should be. It learns the `kid` of a new key, and holds every other one to what it was. */
  class Model {
    readonly #keys = new Map<string, { kid: string; withdrawnAt: number | null }>()
    readonly #everSeen = new Set<string>()

    check(list: readonly string[], now: number, said: Ours): void {
      for (const [name, key] of this.#keys) {
        if (list.includes(name)) key.withdrawnAt = null
        else key.withdrawnAt ??= now
        if (key.withdrawnAt !== null && key.withdrawnAt <= now - PUBLISHED_AFTER_WITHDRAWAL) this.#keys.delete(name)
      }
      const signers = signing(said)
      expect(signers).toHaveLength(list.length)
      for (const [index, name] of list.entries()) this.#meet(name, signers[index] as string)
      expect(said.withdrawn.map(({ publicJwk, publishedUntil }) => [publicJwk.kid, publishedUntil])).toEqual(
        [...this.#keys.values()]
          .flatMap(({ kid, withdrawnAt }) => (withdrawnAt === null ? [] : [{ kid, withdrawnAt }]))
          .toSorted((one, other) => other.withdrawnAt - one.withdrawnAt || (one.kid < other.kid ? -1 : 1))
          .map(({ kid, withdrawnAt }) => [kid, withdrawnAt + PUBLISHED_AFTER_WITHDRAWAL]),
      )
      const all = published(said)
      expect(new Set(all).size).toBe(all.length)
      expect(all).toEqual(expect.arrayContaining(signers))
    }

    #meet(name: string, kid: string): void {
      const known = this.#keys.get(name)
      if (known) expect(kid).toBe(known.kid)
      else {
        expect(this.#everSeen).not.toContain(kid)
        this.#everSeen.add(kid)
        this.#keys.set(name, { kid, withdrawnAt: null })
      }
    }
  }

  /** Mostly a little, at times past the end of a withdrawn key, and at times back: isolates' clocks differ. */
  const step = fc.oneof(
    fc.integer({ min: 0, max: 2000 }),
    fc.constantFrom(3899, 3900, 3901, 10_000),
    fc.integer({ min: -60, max: -1 }),
  )
  const command = fc.oneof(
    { weight: 9, arbitrary: fc.record({ list: fc.shuffledSubarray(NAMES), after: step }) },
    { weight: 1, arbitrary: fc.constant('restart' as const) },
  )

  test('12.6: whatever is listed when, no signer is unpublished and no key vanishes before its time', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 12 }), async (commands) => {
        const { announce, restart } = keyState()
        const model = new Model()
        let now = NOW
        for (const one of commands) {
          if (one === 'restart') {
            await restart()
            continue
          }
          now += one.after
          model.check(one.list, now, await announce(one.list, now))
        }
      }),
      { numRuns: 25 },
    )
  })

  test('two announcements at once are as good as one after the other', async () => {
    const lists = fc.shuffledSubarray(NAMES, { minLength: 1 })
    await fc.assert(
      fc.asyncProperty(lists, lists, lists, async (before, one, other) => {
        const { announce } = keyState()
        await announce(before)
        const kidOf = new Map<string, string>()
        const both = await Promise.all([announce(one, NOW + 1), announce(other, NOW + 1)])
        for (const [said, list] of [[both[0], one] as const, [both[1], other] as const]) {
          for (const [index, kid] of signing(said).entries()) {
            // One name is one key, in both of them.
            const name = list[index] as string
            expect(kidOf.get(name) ?? kid).toBe(kid)
            kidOf.set(name, kid)
          }
          const all = published(said)
          expect(new Set(all).size).toBe(all.length)
        }
      }),
      { numRuns: 20 },
    )
  })
})

describe('T-15: a key in KMS', () => {
  let kms: KmsStub
  beforeEach(() => {
    kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
  })
  afterEach(() => {
    vi.unstubAllGlobals()
  })

  async function aliased(name: string, spec = 'ECC_NIST_P256'): Promise<string> {
    const arn = await kms.createKey(spec)
    kms.setAlias(name, arn)
    return arn
  }

  test('is pinned with its public half and ARN, and asked for no more', async () => {
    const { announce } = keyState(kms)
    const arn = await aliased('alias/a')
    const first = await announce(['awskms:alias/a'])
    const key = { publicJwk: expect.objectContaining({ alg: 'ES256' }), arn, privateJwk: null, publishedUntil: null }
    expect(first.listed).toEqual([{ key, failed: null }])
    expect(await announce(['awskms:alias/a'], NOW + 1)).toEqual(first)
    expect(kms.requests.map(({ operation }) => operation)).toEqual(['GetPublicKey'])
  })

  /** Announces until what KMS says in the background has arrived. */
  const compared = (announce: () => Promise<Ours>, failed: string | null): Promise<Ours> =>
    vi.waitFor(async () => {
      const said = await announce()
      expect(failures(said)[0]).toBe(failed)
      return said
    }, 15_000)

  test('is published and signs without waiting for a KMS that hangs', async () => {
    const { announce, restart } = keyState(kms)
    await aliased('alias/a')
    const before = await announce(['awskms:alias/a'])
    await restart()
    const released = Promise.withResolvers<void>()
    kms.trouble = async (_, answer) => {
      await released.promise
      return answer()
    }
    expect(await announce(['awskms:alias/a'])).toEqual(before)
    await vi.waitFor(() => expect(kms.requests).toHaveLength(2), 15_000)
    expect(await announce(['awskms:alias/a'])).toEqual(before)
    released.resolve()
  })

  test('is compared every ten minutes, and every ten seconds while it does not match', async () => {
    const { announce } = keyState(kms)
    await aliased('alias/a')
    const announced = (now: number) => announce(['awskms:alias/a'], now)
    const asked = (times: number) => vi.waitFor(() => expect(kms.requests).toHaveLength(times), 15_000)
    await announced(NOW)
    await announced(NOW + 599)
    await asked(1)
    await announced(NOW + 600)
    await asked(2)
    await announced(NOW + 609)
    await aliased('alias/a')
    await compared(() => announced(NOW + 1200), 'key_mismatch')
    await announced(NOW + 1209)
    await asked(3)
    await announced(NOW + 1210)
    await asked(4)
  })

  test('12.11: whose alias was moved stays published and signs no more, now or later', async () => {
    const { announce, restart } = keyState(kms)
    await aliased('alias/a')
    const before = await announce(['awskms:alias/a', 'local:b'])
    await restart()
    await aliased('alias/a')
    const moved = await compared(() => announce(['awskms:alias/a', 'local:b']), 'key_mismatch')
    expect([failures(moved), published(moved)]).toEqual([['key_mismatch', null], published(before)])
    // What was found out is remembered, also by an object that has forgotten everything else.
    kms.trouble = troubles.failsInside
    await restart()
    expect(await announce(['awskms:alias/a', 'local:b'], NOW + 20)).toEqual(moved)
  })

  test('12.11: whose alias was moved back signs again', async () => {
    const { announce, restart } = keyState(kms)
    const arn = await aliased('alias/a')
    const before = await announce(['awskms:alias/a'])
    await restart()
    await aliased('alias/a')
    await compared(() => announce(['awskms:alias/a']), 'key_mismatch')
    kms.setAlias('alias/a', arn)
    expect(await compared(() => announce(['awskms:alias/a'], NOW + 10), null)).toEqual(before)
  })

  test.each(['throttled', 'failsInside', 'unreachable', 'htmlError'] as const)(
    'stays as it is pinned where KMS does not answer: %s',
    async (trouble) => {
      const { announce, restart } = keyState(kms)
      await aliased('alias/a')
      const before = await announce(['awskms:alias/a'])
      await restart()
      kms.trouble = troubles[trouble]
      const asked = kms.requests.length
      for (const later of [0, 10, 20]) {
        expect(await announce(['awskms:alias/a'], NOW + later)).toEqual(before)
        await vi.waitFor(() => expect(kms.requests.length).toBeGreaterThan(asked), 15_000)
      }
    },
  )

  test.each(['Disabled', 'PendingDeletion'] as const)('that is %s stays published', async (state) => {
    const { announce, restart } = keyState(kms)
    const arn = await aliased('alias/a')
    const before = await announce(['awskms:alias/a'])
    kms.setState(arn, state)
    await restart()
    expect(published(await announce(['awskms:alias/a']))).toEqual(published(before))
    expect(published(await announce([], NOW + 1))).toEqual(published(before))
  })

  test('that cannot be had is a failure of its own, and hinders no other', async () => {
    const { announce } = keyState(kms)
    const symmetric = kms.addKey({
      spec: 'SYMMETRIC_DEFAULT',
      usage: 'ENCRYPT_DECRYPT',
      algorithms: [],
      spki: new Uint8Array(),
      privateKey: null,
    })
    await aliased('alias/a')
    const said = await announce([
      'awskms:alias/none',
      'awskms:alias/a',
      `awskms:${symmetric}`,
      'awskms:alias/a?alg=RS256',
    ])
    expect(failures(said)).toEqual(['key_unusable', null, 'key_mismatch', 'key_mismatch'])
    expect(published(said)).toHaveLength(1)
  })

  test('that could not be had is asked for again', async () => {
    const { announce } = keyState(kms)
    await aliased('alias/a')
    kms.trouble = troubles.failsInside
    expect(failures(await announce(['awskms:alias/a']))).toEqual(['unavailable'])
    kms.trouble = null
    expect(failures(await announce(['awskms:alias/a'], NOW + 10))).toEqual([null])
  })

  test('without access to KMS is denied', async () => {
    expect(await keyState().announce(['awskms:alias/a'])).toMatchObject({ listed: [{ key: null, failed: 'denied' }] })
  })

  test('is listed once, under one name and with one algorithm, now and later', async () => {
    const { announce } = keyState(kms)
    const arn = await aliased('alias/rsa', 'RSA_2048')
    const names = ['awskms:alias/rsa', `awskms:${arn}`, 'awskms:alias/rsa?alg=PS256']
    for (const later of [0, 10, 20]) {
      const said = await announce(names, NOW + later)
      expect(failures(said)).toEqual([null, 'key_mismatch', 'key_mismatch'])
      expect(published(said)).toHaveLength(1)
    }
  })

  test('that is listed with another algorithm than it was announced with does not sign with the old one', async () => {
    const { announce } = keyState(kms)
    await aliased('alias/rsa', 'RSA_2048')
    const before = await announce(['awskms:alias/rsa'])
    for (const later of [10, 20, 30]) {
      // What the operator lists needs no answer of KMS to be compared.
      kms.trouble = later === 30 ? troubles.failsInside : null
      const changed = await announce(['awskms:alias/rsa?alg=PS256'], NOW + later)
      expect([failures(changed), published(changed)]).toEqual([['key_mismatch'], published(before)])
    }
    kms.trouble = null
    expect(await announce(['awskms:alias/rsa'], NOW + 40)).toEqual(before)
  })

  test('12.11: whose alias was moved does not sign again because KMS falls silent', async () => {
    const { announce, restart } = keyState(kms)
    await aliased('alias/a')
    await announce(['awskms:alias/a'])
    await restart()
    await aliased('alias/a')
    await compared(() => announce(['awskms:alias/a']), 'key_mismatch')
    kms.trouble = troubles.failsInside
    expect(failures(await announce(['awskms:alias/a'], NOW + 10))).toEqual(['key_mismatch'])
    kms.trouble = null
  })

  test('that comes back under another name is still the same', async () => {
    const { announce } = keyState(kms)
    const arn = await aliased('alias/a')
    const before = await announce(['awskms:alias/a'])
    for (const later of [1, 2]) expect(await announce([`awskms:${arn}`], NOW + later)).toEqual(before)
  })

  test('that was gone for good and is listed again is announced again', async () => {
    const { announce } = keyState(kms)
    await aliased('alias/a')
    const before = await announce(['awskms:alias/a'])
    await announce(['local:b'], NOW + 10)
    expect(published(await announce(['local:b'], NOW + 10 + PUBLISHED_AFTER_WITHDRAWAL))).toHaveLength(1)
    const again = await announce(['awskms:alias/a'], NOW + 20 + PUBLISHED_AFTER_WITHDRAWAL)
    expect([failures(again), signing(again)]).toEqual([[null], signing(before)])
  })

  test('12.6: that another announcement withdraws meanwhile is in the JWKS once, and stays there', async () => {
    const { announce, restart } = keyState(kms)
    await aliased('alias/a')
    await announce(['awskms:alias/a'])
    await restart()
    const asked = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    kms.trouble = async (_, answer) => {
      asked.resolve()
      await released.promise
      return answer()
    }
    // Two versions of the worker, as while one is being rolled out.
    const one = announce(['awskms:alias/a'], NOW + 10)
    await asked.promise
    await announce(['local:b'], NOW + 11)
    released.resolve()
    const said = await one
    const all = published(said)
    expect(new Set(all).size).toBe(all.length)
    expect(said.listed[0]?.key?.publishedUntil).toBeNull()
  })

  test('style 4.9: what KMS says stays inside', async () => {
    const { announce } = keyState(kms)
    kms.trouble = troubles.failsInside
    expect(await announce(['awskms:alias/a'])).toEqual({
      stamp: 'ours',
      listed: [{ key: null, failed: 'unavailable' }],
      withdrawn: [],
    })
  })
})

test('the name of a key goes into the database as a value', async () => {
  const evil: KeyReference = { keeper: 'local', key: "x'; drop table signing_key; --", alg: 'ES256' }
  const stub = newKeyState()
  const first = await stub.announce(STAMP, [evil], null, NOW)
  expect(await stub.announce(STAMP, [evil], null, NOW)).toEqual(first)
})
