import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { announceKmsKey, kmsSigner } from '../../keys/kms.ts'
import { type KmsAccess, takeKmsUsage } from '../../keys/kms_client.ts'
import { findCreatedKmsKeys } from '../../keys/kms_keys.ts'
import type { Signer } from '../../keys/signer.ts'
import { KmsStub, only, type Trouble, troubles } from '../support/kms_stub.ts'

const INPUT = new TextEncoder().encode('header.payload')
const NOTHING = { calls: 0, throttled: 0, failed: 0, milliseconds: 0, slowestMilliseconds: 0 }

const kms = new KmsStub()
vi.stubGlobal('fetch', kms.fetch)

/** One of its own for each test, because it counts. */
let access: KmsAccess
let signer: Signer
let arn: string

// The first import of the SDK, module by module as Vite serves it, takes its time.
beforeAll(async () => {
  arn = await kms.createKey('ECC_NIST_P256')
  await announceKmsKey(kms.access, arn, null)
}, 60_000)

beforeEach(async () => {
  kms.trouble = null
  access = { ...kms.access }
  const { publicJwk } = await announceKmsKey(access, arn, null)
  signer = await kmsSigner(access, arn, publicJwk)
  takeKmsUsage(access)
  kms.requests.length = 0
})

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  vi.unstubAllGlobals()
})

/** Has every pause end at once, and says how long each was to be. */
function hurried(): number[] {
  const pauses: number[] = []
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((callback: () => void, milliseconds = 0) => {
    pauses.push(milliseconds)
    queueMicrotask(callback)
    return 0
  }) as unknown as typeof setTimeout)
  return pauses
}

describe('KM-9: the pause before the second attempt', () => {
  test.each<[keyof typeof troubles, number]>([
    ['throttled', 1000],
    ['failsInside', 50],
    ['unreachable', 50],
  ])('when KMS %s is drawn at random, below %i ms', async (name, bound) => {
    const pauses = hurried()
    kms.trouble = troubles[name]
    for (let i = 0; i < 16; i++) await signer.sign(INPUT).catch(() => null)
    // Two attempts each, so one pause.
    expect(kms.requests).toHaveLength(32)
    expect(pauses).toHaveLength(16)
    expect(new Set(pauses).size).toBeGreaterThan(1)
    expect(Math.max(...pauses)).toBeLessThan(bound)
  })

  test('is as long as chance has it', async () => {
    const pauses = hurried()
    kms.trouble = troubles.throttled
    for (const chance of [0, 0.25, 0.999]) {
      vi.spyOn(Math, 'random').mockReturnValue(chance)
      await signer.sign(INPUT).catch(() => null)
    }
    expect(pauses).toEqual([0, 250, 999])
  })
})

describe('the usage of an access', () => {
  test('counts operations, and starts anew when it has been taken', async () => {
    await signer.sign(INPUT)
    await announceKmsKey(access, arn, null)
    await findCreatedKmsKeys(access, { key: 'creation', value: 'none' })
    expect(takeKmsUsage(access)).toMatchObject({ calls: 3, throttled: 0, failed: 0 })
    expect(takeKmsUsage(access)).toEqual(NOTHING)
  })

  test('is nothing for one that has never been used, and none of another', async () => {
    await signer.sign(INPUT)
    expect(takeKmsUsage({ ...access })).toEqual(NOTHING)
    expect(takeKmsUsage(access).calls).toBe(1)
  })

  test.each<[string, Trouble, object]>([
    ['throttled once', only(1, troubles.throttled), { calls: 1, throttled: 1, failed: 0 }],
    ['throttled twice', troubles.throttled, { calls: 1, throttled: 2, failed: 1 }],
    ['out of order once', only(1, troubles.failsInside), { calls: 1, throttled: 0, failed: 0 }],
    ['out of order', troubles.failsInside, { calls: 1, throttled: 0, failed: 1 }],
    ['unreachable', troubles.unreachable, { calls: 1, throttled: 0, failed: 1 }],
  ])('KM-9: says what a KMS costs that is %s', async (_what, trouble, usage) => {
    hurried()
    kms.trouble = trouble
    await signer.sign(INPUT).catch(() => null)
    expect(takeKmsUsage(access)).toMatchObject(usage)
  })

  test('KM-9: counts a throttled question for tags, which is asked once', async () => {
    kms.trouble = troubles.throttled
    await findCreatedKmsKeys(access, { key: 'creation', value: 'none' }).catch(() => null)
    expect(takeKmsUsage(access)).toMatchObject({ calls: 1, throttled: 1, failed: 1 })
  })

  test('says how long all took, and the slowest', async () => {
    let now = Date.now()
    vi.spyOn(Date, 'now').mockImplementation(() => now)
    for (const milliseconds of [30, 70, 20]) {
      kms.trouble = async (_request, answer) => {
        now += milliseconds
        return await answer()
      }
      await signer.sign(INPUT)
    }
    expect(takeKmsUsage(access)).toMatchObject({ calls: 3, milliseconds: 120, slowestMilliseconds: 70 })
  })

  test('is not led astray by a clock that is set back', async () => {
    let now = Date.now()
    vi.spyOn(Date, 'now').mockImplementation(() => now)
    kms.trouble = async (_request, answer) => {
      now -= 5000
      return await answer()
    }
    await signer.sign(INPUT)
    expect(takeKmsUsage(access)).toMatchObject({ calls: 1, milliseconds: 0, slowestMilliseconds: 0 })
  })
})
