import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { thumbprint } from '../../../keys/jwks.ts'
import type { WrappingReference } from '../../../keys/key_reference.ts'
import type { Stamp } from '../../../worker/key_settings.ts'
import { KEY_TIMES, publishingLease, rotationTimes } from '../../../worker/key_times.ts'
import type { KeyReading, KeyState, OurReading } from '../../../worker/state/key_state.ts'
import { NOW } from '../../support/clock.ts'
import { KmsStub, kmsError, type Trouble, troubles } from '../../support/kms_stub.ts'
import { KeyWorld, STAMP } from '../key_world.ts'

const { replaceAfter, publishBefore, publishAfter } = rotationTimes(KEY_TIMES, 'jwt-svid')
const SECRET: WrappingReference = { keeper: 'secret', secret: `${'A'.repeat(42)}E` }

const published = ({ keys }: OurReading): string[] => keys.map(({ publicJwk }) => publicJwk.kid)
/** The `kid` of what signs with an algorithm, if it may. */
const signing = ({ keys }: OurReading, alg = 'ES256'): string | undefined =>
  keys.find(({ phase, publicJwk, failed }) => phase === 'active' && publicJwk.alg === alg && failed === null)?.publicJwk
    .kid
const reasons = ({ problems }: OurReading) => problems.map(({ entry, reason }) => `${entry} ${reason}`)
/** What is only in memory is gone after this. */
const restart = () => abortAllDurableObjects()

/** The state is woken up, or asked, until what it does in the background has been done. */
async function eventually(world: KeyWorld, check: (reading: OurReading) => void): Promise<OurReading> {
  return await vi.waitFor(async () => {
    const reading = await world.read()
    check(reading)
    return reading
  }, 15_000)
}

const realTimeout = AbortSignal.timeout.bind(AbortSignal)
beforeEach(() => {
  // On a busy machine the stub is slower than KMS, and time here goes by in leaps: what comes in after that is lost.
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((milliseconds) => realTimeout(10 * milliseconds))
})
afterEach(() => {
  vi.restoreAllMocks()
})

test('T-17: the times follow from one another', () => {
  expect(publishingLease(KEY_TIMES)).toBe(3900)
  expect({ publishBefore, publishAfter }).toEqual({ publishBefore: 4260, publishAfter: 3900 })
  // FE-10: three to five times the refresh hint of a bundle, which is 300 s.
  expect(publishBefore).toBeGreaterThan(5 * 300)
})

describe('a listed local key', () => {
  test('is made when it is first listed, signs at once, and stays the same', async () => {
    const world = new KeyWorld(['local:a'])
    const first = await world.read()
    expect(first).toEqual({
      stamp: 'ours',
      keys: [
        {
          use: 'jwt-svid',
          publicJwk: expect.objectContaining({ kty: 'EC', use: 'sig', alg: 'ES256' }),
          arn: null,
          wrapped: null,
          privateJwk: expect.objectContaining({ kty: 'EC' }),
          phase: 'active',
          failed: null,
          certificate: null,
        },
      ],
      defaultAlg: { 'jwt-svid': 'ES256', 'x509-svid': null },
      problems: [],
      sequence: world.clock.now(),
    })
    world.clock.advance(1000)
    expect(await world.read()).toEqual(first)
    await restart()
    expect(await world.read()).toEqual(first)
  })

  test('is made once, however many ask at the same time', async () => {
    const world = new KeyWorld(['local:a', 'local:b'])
    const readings = await Promise.all(Array.from({ length: 10 }, () => world.read()))
    expect(new Set(readings.map((reading) => published(reading).join())).size).toBe(1)
    expect(published(await world.read())).toHaveLength(2)
  })

  test('the first of each algorithm signs, and the first of all is the default', async () => {
    const reading = await new KeyWorld(['local:a?alg=RS256', 'local:b', 'local:c']).read()
    expect(reading.keys.map(({ publicJwk, phase }) => `${publicJwk.alg} ${phase}`).sort()).toEqual([
      'ES256 active',
      'ES256 published',
      'RS256 active',
    ])
    expect(reading.defaultAlg['jwt-svid']).toBe('RS256')
  })

  test('D3: keys come in the order of their kid, whatever they do', async () => {
    const world = new KeyWorld(['local:a', 'local:b', 'local:c'])
    const before = published(await world.read())
    expect(before).toEqual(before.toSorted())
    world.deploy('local:c', 'local:b', 'local:a')
    expect(published(await world.read())).toEqual(before)
  })

  test('the name of a key goes into the database as a value', async () => {
    const world = new KeyWorld([])
    const [key] = world.deploy('local:x').settings?.sources ?? []
    if (key && world.settings) {
      const evil = { ...key, source: "x'; drop table signing_keys; --" }
      world.settings = { ...world.settings, sources: [evil] }
    }
    expect(await world.read()).toEqual(await world.read())
  })
})

describe('FE-10: a key that takes the place of another', () => {
  test('is published at once, signs when nobody can be without it, and the old one leaves when its last token is over', async () => {
    const world = new KeyWorld(['local:a'])
    const a = signing(await world.read())
    world.deploy('local:b')
    const both = await eventually(world, (reading) => expect(published(reading)).toHaveLength(2))
    expect(signing(both)).toBe(a)
    await world.pass(publishBefore - 1)
    expect(signing(await world.read())).toBe(a)
    await world.pass(1)
    const replaced = await world.read()
    expect(signing(replaced)).not.toBe(a)
    expect(published(replaced)).toContain(a)
    await world.pass(publishAfter - 1)
    expect(published(await world.read())).toContain(a)
    await world.pass(1)
    expect(published(await world.read())).toEqual([signing(replaced)])
    expect(await world.dump()).not.toContain(a)
  })

  test('D1: it does so by its alarm alone, which nobody but the platform rings', async () => {
    const world = new KeyWorld(['local:a'])
    const a = signing(await world.read())
    world.deploy('local:b')
    await eventually(world, (reading) => expect(published(reading)).toHaveLength(2))
    expect(world.wakeAt).toBe(NOW + publishBefore)
    world.clock.advance(publishBefore)
    const { stub } = world
    // The platform's own alarm, in place of the one that these tests ring.
    await runInDurableObject(stub, (_, { storage }) => storage.setAlarm(Date.now() + 60_000))
    expect(await runDurableObjectAlarm(stub)).toBe(true)
    const [stored] = await runInDurableObject(stub, (_, { storage }) =>
      storage.sql.exec<{ kid: string }>("select kid from signing_keys where phase = 'active'").toArray(),
    )
    expect(stored?.kid).not.toBe(a)
  })

  test('without a list, everything stays as it is', async () => {
    const world = new KeyWorld(['local:a'])
    const before = await world.read()
    world.deploy()
    await world.pass(1_000_000)
    expect((await world.read()).keys).toEqual(before.keys)
  })
})

describe('T-12: a storage belongs to one mode, issuer and trust domain', () => {
  test.each<[keyof Stamp, string]>([
    ['mode', 'production'],
    ['issuer', 'https://issuer.example.org/other'],
    ['trustDomain', 'other.example'],
  ])('another %s is refused, and changes nothing', async (field, value) => {
    const world = new KeyWorld(['local:a'])
    const before = await world.read()
    const foreign = { ...STAMP, [field]: value }
    expect(await world.stub.read(foreign)).toEqual({ stamp: 'foreign', field })
    expect(await world.stub.report(foreign)).toBeNull()
    expect(await world.stub.revoke(foreign, published(before)[0] ?? '')).toBeNull()
    expect(await world.stub.rotate(foreign, 'jwt-svid', null)).toEqual({ outcome: 'no_successor' })
    // The state itself may be the one that has been deployed with another.
    if (world.settings) world.settings = { ...world.settings, stamp: foreign }
    expect(await world.stub.read(STAMP)).toEqual({ stamp: 'foreign', field })
    expect(await world.stub.report(STAMP)).toBeNull()
    expect(await world.stub.revoke(STAMP, published(before)[0] ?? '')).toBeNull()
    expect(await world.stub.rotate(STAMP, 'jwt-svid', null)).toEqual({ outcome: 'no_successor' })
    await runInDurableObject(world.stub, (state: KeyState) => state.alarm())
    if (world.settings) world.settings = { ...world.settings, stamp: STAMP }
    expect(await world.read()).toEqual(before)
  })

  test('one whose own environment can’t be read does nothing', async () => {
    const world = new KeyWorld(['local:a'])
    world.settings = null
    expect(await world.stub.read(STAMP)).toEqual({ stamp: 'unconfigured' } satisfies KeyReading)
    expect(await world.stub.report(STAMP)).toBeNull()
    await runInDurableObject(world.stub, (state: KeyState) => state.alarm())
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

  const asked = () => kms.requests.map(({ operation }) => operation)
  async function aliased(name: string, spec = 'ECC_NIST_P256'): Promise<string> {
    const arn = await kms.createKey(spec)
    kms.setAlias(name, arn)
    return arn
  }
  const world = (...list: string[]) => new KeyWorld(list, { kms: kms.access })

  test('is pinned with its public half and ARN, has signed once, and is asked for no more', async () => {
    const arn = await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const first = await keys.read()
    expect(first.keys).toMatchObject([{ arn, wrapped: null, privateJwk: null, phase: 'active', failed: null }])
    keys.clock.advance(1)
    expect(await keys.read()).toEqual(first)
    expect(asked()).toEqual(['GetPublicKey', 'Sign'])
  })

  test('that can’t sign is announced and not published, until it can', async () => {
    await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const noSign: Trouble = async ({ operation }, answer) =>
      operation === 'Sign' ? kmsError('AccessDeniedException') : answer()
    kms.trouble = noSign
    const reading = await keys.read()
    expect([published(reading), reasons(reading)]).toEqual([[], ['1 denied']])
    expect((await keys.report()).keys).toMatchObject([{ phase: 'announced', entry: 1, failed: 'denied' }])
    kms.trouble = null
    keys.clock.advance(10)
    expect(signing(await keys.read())).toBeDefined()
  })

  test('is published and signs without waiting for a KMS that hangs', async () => {
    await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const before = await keys.read()
    await restart()
    const released = Promise.withResolvers<void>()
    kms.trouble = async (_, answer) => {
      await released.promise
      return answer()
    }
    expect(await keys.read()).toEqual(before)
    await vi.waitFor(() => expect(asked().slice(2).toSorted()).toEqual(['GetPublicKey', 'Sign']), 15_000)
    expect(await keys.read()).toEqual(before)
    released.resolve()
  })

  test('is compared with its name every ten minutes, and every ten seconds while it does not match', async () => {
    await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const compared = () => asked().filter((operation) => operation === 'GetPublicKey').length - 1
    await keys.read()
    const at = async (now: number, times: number) => {
      keys.clock.seconds = now
      await keys.read()
      await vi.waitFor(() => expect(compared()).toBe(times), 15_000)
      await runInDurableObject(keys.stub, () => {})
    }
    await at(NOW + 599, 0)
    await at(NOW + 600, 1)
    await aliased('alias/a')
    await at(NOW + 1199, 1)
    await at(NOW + 1200, 2)
    await eventually(keys, (reading) => expect(reasons(reading)).toEqual(['1 key_mismatch']))
    await at(NOW + 1209, 2)
    await at(NOW + 1210, 3)
  })

  test('12.11: whose alias was moved stays published and signs no more, now or later, until it is moved back', async () => {
    const arn = await aliased('alias/a')
    const keys = world('awskms:alias/a', 'local:b')
    const before = await keys.read()
    await restart()
    await aliased('alias/a')
    const moved = await eventually(keys, (reading) => expect(reasons(reading)).toEqual(['1 key_mismatch']))
    expect([signing(moved), published(moved)]).toEqual([undefined, published(before)])
    kms.trouble = troubles.failsInside
    await restart()
    keys.clock.advance(20)
    expect(await keys.read()).toEqual(moved)
    kms.trouble = null
    kms.setAlias('alias/a', arn)
    keys.clock.advance(20)
    expect(await eventually(keys, (reading) => expect(reasons(reading)).toEqual([]))).toEqual(before)
  })

  test.each(['throttled', 'failsInside', 'unreachable', 'htmlError'] as const)(
    'stays as it is pinned where KMS does not answer: %s',
    async (trouble) => {
      await aliased('alias/a')
      const keys = world('awskms:alias/a')
      const before = await keys.read()
      await restart()
      kms.trouble = troubles[trouble]
      const times = kms.requests.length
      for (let turn = 0; turn < 3; turn++) {
        expect(await keys.read()).toEqual(before)
        await vi.waitFor(() => expect(kms.requests.length).toBeGreaterThan(times), 15_000)
        keys.clock.advance(10)
      }
    },
  )

  test.each(['Disabled', 'PendingDeletion'] as const)('that is %s stays published', async (state) => {
    const arn = await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const before = await keys.read()
    kms.setState(arn, state)
    await restart()
    expect(published(await keys.read())).toEqual(published(before))
  })

  test('that cannot be had is a failure of its own, and hinders no other', async () => {
    const symmetric = kms.addKey({
      spec: 'SYMMETRIC_DEFAULT',
      usage: 'ENCRYPT_DECRYPT',
      algorithms: [],
      spki: new Uint8Array(),
      privateKey: null,
    })
    await aliased('alias/a')
    const list = ['awskms:alias/a', 'awskms:alias/none', `awskms:${symmetric}`, 'awskms:alias/a?alg=RS256']
    const reading = await world(...list).read()
    expect(reasons(reading)).toEqual(['2 key_unusable', '3 key_mismatch', '4 key_mismatch'])
    expect([published(reading).length, signing(reading)]).toEqual([1, expect.any(String)])
  })

  test('12.11: that cannot be had at the first start and is listed first has no other in its place', async () => {
    await aliased('alias/a')
    const keys = world('awskms:alias/none', 'awskms:alias/a')
    const reading = await keys.read()
    expect([published(reading), reasons(reading)]).toEqual([[], ['1 key_unusable']])
    kms.setAlias('alias/none', await kms.createKey('ECC_NIST_P256'))
    keys.clock.advance(10)
    expect(published(await keys.read())).toHaveLength(2)
  })

  test('without access to KMS is denied', async () => {
    expect(reasons(await new KeyWorld(['awskms:alias/a']).read())).toEqual(['1 denied'])
  })

  test('is listed once, under one name and with one algorithm', async () => {
    const arn = await aliased('alias/rsa', 'RSA_2048')
    const keys = world('awskms:alias/rsa', `awskms:${arn}`, 'awskms:alias/rsa?alg=PS256')
    for (let turn = 0; turn < 3; turn++) {
      const reading = await keys.read()
      expect(reasons(reading)).toEqual(['2 key_mismatch', '3 key_mismatch'])
      expect(published(reading)).toHaveLength(1)
      keys.clock.advance(10)
    }
  })

  test('is that of the entry that is listed first, whichever KMS answers first', async () => {
    const arn = await aliased('alias/rsa', 'RSA_2048')
    const keys = world('awskms:alias/rsa?alg=PS256', `awskms:${arn}`)
    const released = Promise.withResolvers<void>()
    kms.trouble = async ({ operation, input }, answer) => {
      if (operation === 'GetPublicKey' && input.KeyId === 'alias/rsa') await released.promise
      if (operation === 'Sign') released.resolve()
      return answer()
    }
    const reading = await keys.read()
    expect([reasons(reading), reading.defaultAlg['jwt-svid'], signing(reading, 'PS256')]).toEqual([
      ['2 key_mismatch'],
      'PS256',
      published(reading)[0],
    ])
  })

  test('KM-10: that is listed under another name is still the same, and signs on', async () => {
    const arn = await aliased('alias/a')
    const keys = world('awskms:alias/a')
    const before = await keys.read()
    keys.deploy(`awskms:${arn}`)
    expect(await eventually(keys, (reading) => expect(reasons(reading)).toEqual([]))).toEqual(before)
  })

  test('style 4.9: what KMS says stays inside', async () => {
    const keys = world('awskms:alias/a')
    kms.trouble = troubles.failsInside
    expect(await keys.read()).toEqual({
      stamp: 'ours',
      keys: [],
      defaultAlg: { 'jwt-svid': null, 'x509-svid': null },
      problems: [{ use: 'jwt-svid', entry: 1, reason: 'unavailable' }],
      sequence: keys.clock.now(),
    })
  })

  describe('that we make', () => {
    const alive = () => kms.createdKeys().filter(({ state }) => state === 'Enabled')

    test('is tagged, signs, and is followed by one that waits', async () => {
      const keys = world('awskms')
      const a = signing(await keys.read())
      expect(a).toBeDefined()
      await keys.pass(20)
      const reading = await keys.read()
      expect([signing(reading), published(reading).length, reasons(reading)]).toEqual([a, 2, []])
      expect(alive()).toHaveLength(2)
      const [{ tags } = { tags: {} }] = alive()
      expect(tags).toEqual({
        'spiffe-edge:trust-domain': 'example.org',
        'spiffe-edge:creation': expect.stringMatching(/^[0-9a-f-]{36}$/),
      })
      expect((await keys.report()).keys).toMatchObject([
        { made: true, keeper: 'awskms', entry: 1 },
        { made: true, keeper: 'awskms', entry: 1 },
      ])
    })

    test('that has been disabled while it waited does not take over: another is made, and does', async () => {
      const keys = world('awskms')
      const a = signing(await keys.read())
      await keys.pass(20)
      const waiting = (await keys.read()).keys.find(({ phase }) => phase === 'published')
      kms.setState(waiting?.arn ?? '', 'Disabled')
      await keys.pass(replaceAfter + 60)
      expect(signing(await keys.read())).toBe(a)
      expect((await keys.report()).keys).toContainEqual(
        expect.objectContaining({ kid: waiting?.publicJwk.kid, phase: 'published', failed: 'key_unusable' }),
      )
      expect(await keys.stub.rotate(STAMP, 'jwt-svid', null)).not.toEqual({ outcome: 'rotated' })
      await keys.pass(publishBefore + 60)
      const after = signing(await keys.read())
      expect([a, waiting?.publicJwk.kid, undefined]).not.toContain(after)
    })

    test('12.11: does not take over while KMS is silent, and the one before signs on', async () => {
      const keys = world('awskms')
      const a = signing(await keys.read())
      await keys.pass(20)
      kms.trouble = troubles.failsInside
      await keys.pass(replaceAfter + 60)
      expect(signing(await keys.read())).toBe(a)
      kms.trouble = null
      await keys.pass(60)
      expect([a, undefined]).not.toContain(signing(await keys.read()))
    })

    test('and has been given up leaves no problem behind', async () => {
      const keys = world('awskms')
      let creations = 0
      kms.trouble = async ({ operation }, answer) => {
        if (operation === 'GetResources') return kmsError('AccessDeniedException')
        const said = await answer()
        return operation === 'CreateKey' && creations++ === 0 ? kmsError('KMSInternalException', undefined, 500) : said
      }
      await keys.read()
      await keys.pass(1000)
      const { orphans } = await keys.report()
      const orphan = kms.createdKeys().find(({ tags }) => tags['spiffe-edge:creation'] === orphans[0])
      kms.setState(orphan?.arn ?? '', 'PendingDeletion')
      kms.trouble = null
      await keys.pass(10_000)
      expect(reasons(await keys.read())).toEqual([])
    })

    test('is replaced when its time is over, and given back to KMS when its last token is', async () => {
      const keys = world('awskms')
      await keys.read()
      await keys.pass(20)
      const [first] = alive()
      const a = signing(await keys.read())
      await keys.pass(replaceAfter)
      expect(signing(await keys.read())).not.toBe(a)
      expect(alive()).toHaveLength(3)
      await keys.pass(publishAfter + 20)
      expect(alive()).toHaveLength(2)
      expect(kms.createdKeys().find(({ arn }) => arn === first?.arn)?.state).toBe('PendingDeletion')
    })

    test('12.11: an answer of KMS that is lost leaves no key behind: it is found by its tag', async () => {
      const keys = world('awskms')
      let lost = 0
      kms.trouble = async ({ operation }, answer) => {
        const said = await answer()
        return operation === 'CreateKey' && lost++ === 0 ? kmsError('KMSInternalException', undefined, 500) : said
      }
      expect(reasons(await keys.read())).toEqual(['1 unavailable'])
      expect(alive()).toHaveLength(1)
      await restart()
      await keys.pass(20)
      expect(signing(await keys.read())).toBeDefined()
      await keys.pass(20)
      expect(alive()).toHaveLength(published(await keys.read()).length)
      expect((await keys.report()).orphans).toEqual([])
    })

    test('a creation of which nothing is to be known is named, looked for again, and not followed by many', async () => {
      const keys = world('awskms')
      const unheard: Trouble = async ({ operation }, answer) => {
        if (operation === 'GetResources') return kmsError('AccessDeniedException')
        const said = await answer()
        return operation === 'CreateKey' ? kmsError('KMSInternalException', undefined, 500) : said
      }
      kms.trouble = unheard
      await keys.read()
      await keys.pass(10_000)
      const { orphans } = await keys.report()
      expect(orphans).toEqual(alive().map(({ tags }) => tags['spiffe-edge:creation']))
      expect(orphans).toHaveLength(3)
      kms.trouble = null
      await keys.pass(4000)
      expect((await keys.report()).orphans).toEqual([])
      expect(signing(await keys.read())).toBeDefined()
      expect(published(await keys.read())).toHaveLength(alive().length)
    })

    test('a creation that has failed is begun anew when it is sure that there is no key', async () => {
      const keys = world('awskms')
      kms.trouble = async ({ operation }, answer) =>
        operation === 'CreateKey' ? kmsError('KMSInternalException', undefined, 500) : answer()
      await keys.read()
      await keys.pass(899)
      expect(kms.requests.filter(({ operation }) => operation === 'CreateKey')).toHaveLength(1)
      kms.trouble = null
      await keys.pass(20)
      expect((await keys.report()).orphans).toEqual([])
      expect(signing(await keys.read())).toBeDefined()
    })

    test('is not made where that is not allowed, and nothing is left over', async () => {
      const keys = world('awskms')
      kms.trouble = async () => kmsError('AccessDeniedException')
      expect(reasons(await keys.read())).toEqual(['1 denied'])
      await keys.pass(1000)
      expect((await keys.report()).orphans).toEqual([])
      kms.trouble = null
      await keys.pass(10)
      expect(signing(await keys.read())).toBeDefined()
    })

    test('that nobody wants any more is given back', async () => {
      const keys = world('awskms')
      await keys.read()
      await keys.pass(20)
      keys.deploy('local:a')
      await eventually(keys, (reading) => expect(published(reading)).toHaveLength(2))
      await keys.pass(publishBefore + publishAfter + 20)
      expect(alive()).toEqual([])
      expect(published(await keys.read())).toHaveLength(1)
    })
  })
})

describe('T-16: a key that is stored wrapped', () => {
  const world = () => new KeyWorld(['wrapped'], { wrapping: [SECRET] })

  test('signs, is followed by one that waits, and is nowhere in the clear', async () => {
    const keys = world()
    const reading = await keys.read()
    expect(reading.keys).toMatchObject([
      { arn: null, privateJwk: null, wrapped: expect.stringMatching(/^v1\.secret\./) },
    ])
    await keys.pass(replaceAfter + 20)
    expect(published(await keys.read()).length).toBeGreaterThanOrEqual(2)
    const stored = await keys.dump()
    for (const member of ['"d"', '\\"d\\"', 'private_jwk":"', '"p"']) expect(stored).not.toContain(member)
    expect(stored).toContain('"private_jwk":null')
  })

  test('that can no more be opened is a problem, and stays published', async () => {
    const keys = world()
    const before = published(await keys.read())
    await restart()
    const other: WrappingReference = { keeper: 'secret', secret: `${'B'.repeat(42)}E` }
    if (keys.settings) keys.settings = { ...keys.settings, wrapping: [other] }
    const reading = await eventually(keys, ({ problems }) => expect(problems).not.toEqual([]))
    expect([reasons(reading), published(reading)]).toEqual([['1 key_mismatch'], expect.arrayContaining(before)])
    expect((await keys.report()).keys.find(({ phase }) => phase === 'active')?.failed).toBe('key_mismatch')
  })

  test('is not made without what wraps it', async () => {
    expect(reasons(await new KeyWorld(['wrapped']).read())).toEqual(['1 denied'])
    const secret = { keeper: 'secret', secret: 'short' } as const
    expect(reasons(await new KeyWorld(['wrapped'], { wrapping: [secret] }).read())).toEqual(['1 key_mismatch'])
  })
})

describe('rotating by hand', () => {
  const world = async () => {
    const keys = new KeyWorld(['wrapped'], { wrapping: [SECRET] })
    await keys.read()
    await keys.pass(20)
    return keys
  }

  test('is refused until it is safe, and says when that is', async () => {
    const keys = await world()
    const a = signing(await keys.read())
    const [, next] = (await keys.report()).keys.toSorted((one) => (one.kid === a ? -1 : 1))
    expect(await keys.stub.rotate(STAMP, 'jwt-svid', null)).toEqual({ outcome: 'not_safe_yet', safeAt: next?.safeAt })
    await keys.pass((next?.safeAt ?? 0) - keys.clock.now() - 1)
    expect(await keys.stub.rotate(STAMP, 'jwt-svid', null)).toMatchObject({ outcome: 'not_safe_yet' })
    await keys.pass(2)
    expect(signing(await keys.read())).toBe(a)
    expect(await keys.stub.rotate(STAMP, 'jwt-svid', 'ES256')).toEqual({ outcome: 'rotated' })
    expect(signing(await keys.read())).toBe(next?.kid)
    expect(await keys.stub.rotate(STAMP, 'jwt-svid', 'ES256')).not.toEqual({ outcome: 'rotated' })
  })

  test('is not for keys that are listed one by one, nor for an algorithm that there is none of', async () => {
    const listed = new KeyWorld(['local:a', 'local:b'])
    await listed.read()
    await listed.pass(publishBefore)
    for (const alg of [null, 'ES256', 'RS256'] as const)
      expect(await listed.stub.rotate(STAMP, 'jwt-svid', alg)).toEqual({ outcome: 'no_successor' })
  })
})

describe('D4: a key that is revoked', () => {
  test('is out of the JWKS at once and for ever, and its successor signs', async () => {
    const keys = new KeyWorld(['wrapped'], { wrapping: [SECRET] })
    const a = signing(await keys.read()) ?? ''
    await keys.pass(20)
    const revokedAt = keys.clock.now()
    const revocation = { kid: a, use: 'jwt-svid', revokedAt, signingStopsAt: revokedAt + 240 }
    expect(await keys.stub.revoke(STAMP, a)).toEqual(revocation)
    const reading = await keys.read()
    expect([published(reading).includes(a), signing(reading)]).toEqual([false, expect.any(String)])
    await keys.pass(1000)
    expect(await keys.stub.revoke(STAMP, a)).toEqual(revocation)
    expect((await keys.report()).revoked).toEqual([{ kid: a, use: 'jwt-svid', revokedAt }])
    const dump = await keys.dump()
    expect(dump.split(a)).toHaveLength(2)
  })

  test('is not taken in again, though its name is listed still', async () => {
    const kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
    const [a, b] = await Promise.all([kms.createKey('ECC_NIST_P256'), kms.createKey('ECC_NIST_P256')])
    const keys = new KeyWorld([`awskms:${a}`, `awskms:${b}`], { kms: kms.access })
    const before = await keys.read()
    await keys.stub.revoke(STAMP, signing(before) ?? '')
    await keys.pass(20)
    const after = await eventually(keys, (reading) => expect(reasons(reading)).toEqual(['1 revoked']))
    expect(published(after)).toEqual(published(before).filter((kid) => kid !== signing(before)))
    expect(signing(after)).toBe(published(after)[0])
    vi.unstubAllGlobals()
  })

  test('that was never there is none', async () => {
    const keys = new KeyWorld(['local:a'])
    await keys.read()
    expect(await keys.stub.revoke(STAMP, 'x'.repeat(43))).toBeNull()
  })
})

describe('what KMS costs', () => {
  const usage = { calls: 4, throttled: 1, failed: 2, milliseconds: 400, slowestMilliseconds: 250 }

  test('is counted by the hour, of the whole fleet, for a day', async () => {
    const kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
    const keys = new KeyWorld([], { kms: kms.access })
    const start = NOW - (NOW % 3600)
    await keys.stub.read(STAMP, usage)
    await keys.stub.read(STAMP, { ...usage, slowestMilliseconds: 50 })
    keys.clock.advance(3600)
    await keys.stub.read(STAMP, usage)
    const hour = { throttled: 1, failed: 2, calls: 4, meanMilliseconds: 100, slowestMilliseconds: 250 }
    expect((await keys.report()).kms).toEqual({
      hours: [
        { start: start + 3600, ...hour },
        { start, ...hour, calls: 8, throttled: 2, failed: 4 },
      ],
    })
    keys.clock.advance(23 * 3600)
    await keys.stub.read(STAMP, usage)
    expect((await keys.report()).kms?.hours.map((one) => one.start)).toEqual([start + 24 * 3600, start + 3600])
    vi.unstubAllGlobals()
  })

  test('is not asked of who has nothing there', async () => {
    expect((await new KeyWorld(['local:a']).report()).kms).toBeNull()
  })
})

describe('as a whole, with a KMS that fails at any call and an object that ends between any two', () => {
  afterEach(() => {
    vi.unstubAllGlobals()
  })

  const LISTS = [['awskms'], ['wrapped'], ['awskms', 'wrapped?alg=ES384'], ['local:a'], ['wrapped', 'awskms?alg=ES384']]
  const event = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ pass: fc.constantFrom(0, 1, 11, 61, 4000, replaceAfter, replaceAfter + 4000) }),
    },
    { weight: 3, arbitrary: fc.record({ fail: fc.nat(3) }) },
    { weight: 3, arbitrary: fc.record({ crash: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ list: fc.constantFrom(...LISTS) }) },
    { weight: 1, arbitrary: fc.record({ rotate: fc.constant(true) }) },
    { weight: 1, arbitrary: fc.record({ revoke: fc.constant(true) }) },
    { weight: 1, arbitrary: fc.record({ jump: fc.integer({ min: -100_000, max: 100_000 }) }) },
  )

  test('T-15: one active key of each algorithm, none of them unpublished, none in the clear, and no key of KMS is lost', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(event, { minLength: 3, maxLength: 14 }), async (events) => {
        const kms = new KmsStub()
        vi.stubGlobal('fetch', kms.fetch)
        const keys = new KeyWorld(['awskms'], { kms: kms.access, wrapping: [SECRET] })
        /** How many calls from now something happens. */
        let failIn = -1
        let crashIn = -1
        let crashed = false
        kms.trouble = async (_, answer, signal) => {
          const said = await answer()
          // KMS has done it, and nobody is there any more to hear of it.
          if (crashIn-- === 0) {
            crashed = true
            return await troubles.hangs(_, answer, signal)
          }
          return failIn-- === 0 ? kmsError('KMSInternalException', undefined, 500) : said
        }
        // Looks by itself: what goes on after an await in the object's own time would end with the object.
        const survive = async (action: Promise<unknown>) => {
          let done = false
          const finished = action
            .catch(() => {})
            .finally(() => {
              done = true
            })
          while (!done && !crashed) await new Promise((resolve) => setTimeout(resolve, 1))
          if (crashed) await restart()
          await finished
          crashed = false
        }
        const check = async () => {
          await survive(keys.read())
          const readings = await Promise.all([keys.read(), keys.read()])
          for (const reading of readings) await checkOne(reading)
          const made = kms.createdKeys().map(({ arn }) => arn)
          const stored = await keys.dump()
          if (keys.settings?.sources.every(({ reference }) => reference.keeper !== 'local'))
            expect(stored).not.toContain('"d\\\\"')
          // Each key that KMS has made for us is known here by its ARN, or by the tag of a creation that is not over.
          for (const { arn, state, tags } of kms.createdKeys())
            if (state === 'Enabled' && made.includes(arn))
              expect(stored.includes(arn) || stored.includes(tags['spiffe-edge:creation'] ?? '?')).toBe(true)
        }
        const checkOne = async (reading: OurReading) => {
          const active = reading.keys.filter(({ phase }) => phase === 'active')
          expect(new Set(active.map(({ publicJwk }) => publicJwk.alg)).size).toBe(active.length)
          for (const { publicJwk } of reading.keys)
            expect(await thumbprint(publicJwk as JsonWebKey)).toBe(publicJwk.kid)
          const { revoked } = await keys.report()
          for (const { kid } of revoked) expect(published(reading)).not.toContain(kid)
        }
        for (const one of events) {
          if ('fail' in one) failIn = one.fail
          if ('crash' in one) crashIn = one.crash
          if ('list' in one) keys.deploy(...one.list)
          if ('jump' in one) keys.clock.advance(one.jump)
          if ('rotate' in one) await survive(keys.stub.rotate(STAMP, 'jwt-svid', null) as unknown as Promise<unknown>)
          if ('revoke' in one) {
            const kid = (await keys.report()).keys.find(({ phase }) => phase === 'active')?.kid
            if (kid) await survive(keys.stub.revoke(STAMP, kid) as unknown as Promise<unknown>)
          }
          if ('pass' in one) await survive(keys.pass(one.pass))
          await check()
        }
        // In the end, with nothing in the way, everything that is not needed has been given back.
        kms.trouble = null
        keys.deploy('awskms')
        await keys.read()
        await keys.pass(5000)
        await keys.pass(publishBefore + publishAfter + 5000)
        await keys.pass(100)
        const reading = await keys.read()
        const known = reading.keys.flatMap(({ arn }) => arn ?? [])
        const { orphans } = await keys.report()
        const alive = kms.createdKeys().filter(({ state }) => state === 'Enabled')
        expect(alive.filter(({ arn }) => !known.includes(arn)).map(({ tags }) => tags['spiffe-edge:creation'])).toEqual(
          alive
            .filter(({ tags }) => orphans.includes(tags['spiffe-edge:creation'] ?? ''))
            .map(({ tags }) => tags['spiffe-edge:creation']),
        )
        expect(signing(reading)).toBeDefined()
      }),
      { numRuns: 40 },
    )
  }, 120_000)
})
