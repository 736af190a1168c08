import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { calculateTtl, goDuration, type TtlTerms } from '../../../worker/vault/ttl.ts'

const TERMS: TtlTerms = {
  ttl: 0,
  maxTtl: 0,
  period: 0,
  explicitMaxTtl: 0,
  defaultTtl: 2_764_800,
  mountMaxTtl: 2_764_800,
  notAfter: null,
}
const NOW = 1_000_000

const seconds = fc.integer({ min: 0, max: 10_000 })
const terms = fc.record({
  ttl: seconds,
  maxTtl: seconds,
  period: seconds,
  explicitMaxTtl: seconds,
  defaultTtl: fc.integer({ min: 1, max: 10_000 }),
  mountMaxTtl: fc.integer({ min: 1, max: 10_000 }),
  notAfter: fc.option(fc.integer({ min: NOW - 10_000, max: NOW + 20_000 })),
})

describe('how long a token lives', () => {
  test.each<[string, Partial<TtlTerms>, number, number, number, readonly string[]]>([
    ['what the mount says', {}, 0, 0, 2_764_800, []],
    ['what the role says', { ttl: 60 }, 0, 0, 60, []],
    ['what is asked for', { ttl: 60 }, 90, 10, 90, []],
    [
      'no more than max_ttl',
      { ttl: 60, maxTtl: 100 },
      0,
      50,
      50,
      ['TTL of "1m" exceeded the effective max_ttl of "50s"; TTL value is capped accordingly'],
    ],
    [
      'max_ttl below the default',
      { maxTtl: 3600 },
      0,
      0,
      3600,
      ['TTL of "768h" exceeded the effective max_ttl of "1h"; TTL value is capped accordingly'],
    ],
    [
      'no more than explicit_max_ttl',
      { ttl: 60, explicitMaxTtl: 30 },
      0,
      0,
      30,
      ['TTL of "1m" exceeded the effective max_ttl of "30s"; TTL value is capped accordingly'],
    ],
    ['its period, however old it is', { period: 60, maxTtl: 70 }, 0, 1_000_000, 60, []],
    ['its period, whatever is asked for', { period: 60 }, 5, 0, 60, []],
    [
      'no period above the mount’s',
      { period: 7200, mountMaxTtl: 3600 },
      0,
      0,
      3600,
      ['period of "2h" exceeded the effective max_ttl of "1h"; period value is capped accordingly'],
    ],
    [
      'no period past explicit_max_ttl',
      { period: 60, explicitMaxTtl: 100 },
      0,
      70,
      30,
      ['TTL of "1m" exceeded the effective max_ttl of "30s"; TTL value is capped accordingly'],
    ],
    ['nothing, past its end', { ttl: 60, maxTtl: 100 }, 0, 100, 0, []],
    [
      'T-8: no longer than the subject token',
      { ttl: 60, notAfter: NOW + 20 },
      0,
      0,
      20,
      ['The token ends with the service account token that it is for'],
    ],
  ])('%s', (_, change, increment, age, ttl, warnings) => {
    const outcome = calculateTtl({ ...TERMS, ...change }, increment, NOW - age, NOW)
    expect(outcome).toEqual({ ttl, warnings })
  })

  test('never past any limit, whatever is said and asked for', () => {
    fc.assert(
      fc.property(terms, seconds, seconds, (random, increment, age) => {
        const { ttl } = calculateTtl(random, increment, NOW - age, NOW)
        const end = NOW + ttl
        if (random.notAfter !== null) expect(end).toBeLessThanOrEqual(random.notAfter)
        expect(ttl).toBeLessThanOrEqual(random.mountMaxTtl)
        if (random.explicitMaxTtl > 0) expect(end).toBeLessThanOrEqual(NOW - age + random.explicitMaxTtl)
        if (random.period === 0) {
          expect(end).toBeLessThanOrEqual(NOW - age + random.mountMaxTtl)
          if (random.maxTtl > 0) expect(end).toBeLessThanOrEqual(NOW - age + random.maxTtl)
        }
      }),
    )
  })
})

test.each([
  [0, '0s'],
  [59, '59s'],
  [60, '1m0s'],
  [3600, '1h0m0s'],
  [2_764_800, '768h0m0s'],
  [3661, '1h1m1s'],
])('%i seconds are %s in Go', (seconds, text) => {
  expect(goDuration(seconds)).toBe(text)
})
