import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { AlgorithmName } from '../../keys/algorithms.ts'
import {
  advance,
  defaultAlgorithm,
  type Phase,
  type RotatingKey,
  type RotationTimes,
  type Source,
  safeToSignAt,
  waiting,
} from '../../keys/rotation.ts'

const TIMES: RotationTimes = { replaceAfter: 1000, publishBefore: 100, publishAfter: 90 }
const NOW = 1_795_000_000

const fixed = (name: string, alg: AlgorithmName | null = 'ES256'): Source => ({
  name,
  made: false,
  alg,
  revoked: false,
})
const maker = (name: string, alg: AlgorithmName = 'ES256'): Source => ({ name, made: true, alg, revoked: false })

function announced(kid: string, source: string, change: Partial<RotatingKey> = {}): RotatingKey {
  return {
    kid,
    alg: 'ES256',
    source,
    phase: 'announced',
    fit: true,
    announcedAt: NOW,
    publishedAt: null,
    activeAt: null,
    retiringAt: null,
    replaceAt: null,
    ...change,
  }
}

/** Keys over time, as their only keeper would keep them. */
class Keys {
  all: readonly RotatingKey[] = []
  wanted: readonly string[] = []
  wakeAt: number | null = null
  readonly emergencies = new Set<AlgorithmName>()

  at(now: number, sources: readonly Source[], ...more: RotatingKey[]): this {
    const next = advance([...this.all, ...more], sources, TIMES, now, this.emergencies)
    this.all = next.keys
    this.wanted = next.wanted
    this.wakeAt = next.wakeAt
    return this
  }

  get phases(): Record<string, Phase> {
    return Object.fromEntries(this.all.map(({ kid, phase }) => [kid, phase]))
  }
}

describe('the first keys', () => {
  test('sign at once: nobody holds a token, so nobody can miss them', () => {
    const sources = [fixed('a'), fixed('b'), fixed('c', 'RS256')]
    const keys = new Keys().at(
      NOW,
      sources,
      announced('A', 'a'),
      announced('B', 'b'),
      announced('C', 'c', { alg: 'RS256' }),
    )
    expect(keys.phases).toEqual({ A: 'active', B: 'published', C: 'active' })
  })

  test('wait for the one that is listed first, of whatever algorithm that may be', () => {
    for (const first of [fixed('a'), fixed('a', null)]) {
      const keys = new Keys().at(NOW, [first, fixed('b')], announced('B', 'b'))
      expect(keys.phases).toEqual({ B: 'announced' })
      expect(keys.at(NOW + 1, [first, fixed('b')], announced('A', 'a')).phases).toEqual({ A: 'active', B: 'published' })
    }
  })

  test('are not published before they have been seen to sign', () => {
    const keys = new Keys().at(NOW, [fixed('a')], announced('A', 'a', { fit: false }))
    expect(keys.phases).toEqual({ A: 'announced' })
  })
})

describe('FE-10: a key that is listed in the place of another', () => {
  const started = () => new Keys().at(NOW, [fixed('a')], announced('A', 'a'))

  test('signs when it has been published for long enough, and the other one until then', () => {
    const keys = started().at(NOW + 10, [fixed('b')], announced('B', 'b'))
    expect(keys.phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.wakeAt).toBe(NOW + 110)
    expect(keys.at(NOW + 109, [fixed('b')]).phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.at(NOW + 110, [fixed('b')]).phases).toEqual({ A: 'retiring', B: 'active' })
  })

  test('12.6: the old one stays published until its last token is over', () => {
    const keys = started()
      .at(NOW, [fixed('b')], announced('B', 'b'))
      .at(NOW + 100, [fixed('b')])
    expect(keys.wakeAt).toBe(NOW + 190)
    expect(keys.at(NOW + 189, [fixed('b')]).phases).toEqual({ A: 'retiring', B: 'active' })
    expect(keys.at(NOW + 190, [fixed('b')]).phases).toEqual({ B: 'active' })
  })

  test('the old one stays published as long as it is listed, and can sign again at once', () => {
    const keys = started().at(NOW, [fixed('b'), fixed('a')], announced('B', 'b'))
    expect(keys.at(NOW + 100, [fixed('b'), fixed('a')]).phases).toEqual({ A: 'published', B: 'active' })
    expect(keys.at(NOW + 9000, [fixed('a'), fixed('b')]).phases).toEqual({ A: 'active', B: 'published' })
  })

  test('does not take over while it is unfit, or not there yet', () => {
    const unfit = started().at(NOW, [fixed('b')], announced('B', 'b'))
    unfit.all = unfit.all.map((key) => (key.kid === 'B' ? { ...key, fit: false } : key))
    expect(unfit.at(NOW + 9000, [fixed('b')]).phases).toEqual({ A: 'active', B: 'published' })
    expect(started().at(NOW + 9000, [fixed('b')]).phases).toEqual({ A: 'active' })
  })

  test('12.11: a key that signs and is unfit has no other in its place', () => {
    const keys = started().at(NOW, [fixed('a'), fixed('b')], announced('B', 'b'))
    keys.all = keys.all.map((key) => (key.kid === 'A' ? { ...key, fit: false } : key))
    expect(keys.at(NOW + 9000, [fixed('a'), fixed('b')]).phases).toEqual({ A: 'active', B: 'published' })
  })

  test('of another algorithm: the old one goes when the new one signs', () => {
    const rs = fixed('b', 'RS256')
    const keys = started().at(NOW, [rs], announced('B', 'b', { alg: 'RS256' }))
    expect(keys.phases).toEqual({ A: 'active', B: 'published' })
    expect(defaultAlgorithm(keys.all, [rs])).toBe('ES256')
    expect(keys.at(NOW + 100, [rs]).phases).toEqual({ A: 'retiring', B: 'active' })
    expect(defaultAlgorithm(keys.all, [rs])).toBe('RS256')
  })

  test('that has come back before it was gone is published as it was', () => {
    const keys = started()
      .at(NOW, [fixed('b')], announced('B', 'b'))
      .at(NOW + 100, [fixed('b')])
    expect(keys.at(NOW + 150, [fixed('b'), fixed('a')]).phases).toEqual({ A: 'published', B: 'active' })
    expect(keys.at(NOW + 500, [fixed('b')]).phases).toEqual({ A: 'retiring', B: 'active' })
    expect(keys.at(NOW + 590, [fixed('b')]).phases).toEqual({ B: 'active' })
  })

  test('that never signed is gone as soon as it is listed no more', () => {
    const keys = started().at(NOW, [fixed('a'), fixed('b')], announced('B', 'b'), announced('C', 'c', { fit: false }))
    expect(keys.phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.at(NOW + 1, [fixed('a')]).phases).toEqual({ A: 'active' })
  })
})

describe('a source that makes its keys', () => {
  const source = maker('m')
  const started = () =>
    new Keys().at(NOW, [source]).at(NOW, [source], announced('A', 'm')).at(NOW, [source], announced('B', 'm'))

  test('wants a first one, then one that waits, and then no more', () => {
    const keys = new Keys().at(NOW, [source])
    expect(keys.wanted).toEqual(['m'])
    expect(keys.at(NOW, [source], announced('A', 'm')).wanted).toEqual(['m'])
    expect(keys.at(NOW, [source], announced('B', 'm')).wanted).toEqual([])
    expect(keys.phases).toEqual({ A: 'active', B: 'published' })
  })

  test('replaces the one that signs when its time is over', () => {
    const keys = started()
    expect(keys.wakeAt).toBe(NOW + 1000)
    expect(keys.at(NOW + 999, [source]).phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.at(NOW + 1000, [source]).phases).toEqual({ A: 'retiring', B: 'active' })
    expect(keys.wanted).toEqual(['m'])
    expect(keys.at(NOW + 1090, [source]).phases).toEqual({ B: 'active' })
  })

  test('never before the next one has been published for long enough', () => {
    const keys = new Keys().at(NOW, [source], announced('A', 'm')).at(NOW + 950, [source], announced('B', 'm'))
    expect(keys.at(NOW + 1049, [source]).phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.at(NOW + 1050, [source]).phases).toEqual({ A: 'retiring', B: 'active' })
  })

  test('replaces it earlier where an administrator wants that, and no earlier than is safe', () => {
    const keys = started()
    keys.all = keys.all.map((key) => (key.kid === 'A' ? { ...key, replaceAt: NOW + 50 } : key))
    expect(waiting('m', keys.all)?.kid).toBe('B')
    expect(safeToSignAt(keys.all[1] as RotatingKey, TIMES)).toBe(NOW + 100)
    expect(keys.at(NOW + 99, [source]).phases).toEqual({ A: 'active', B: 'published' })
    expect(keys.at(NOW + 100, [source]).phases).toEqual({ A: 'retiring', B: 'active' })
    expect(keys.all[1]).toMatchObject({ replaceAt: null })
  })

  test('makes no more while many have not left yet', () => {
    const retiring = Array.from({ length: 6 }, (_, index) =>
      announced(`R${index}`, 'm', { phase: 'retiring', activeAt: NOW, publishedAt: NOW, retiringAt: NOW }),
    )
    expect(new Keys().at(NOW, [source], ...retiring).wanted).toEqual([])
  })

  test('that is listed no more: what waits goes, and what signs stays until something else does', () => {
    const keys = started().at(NOW + 1, [fixed('c')])
    expect(keys.phases).toEqual({ A: 'active' })
    expect(keys.at(NOW + 2, [fixed('c')], announced('C', 'c')).phases).toEqual({ A: 'active', C: 'published' })
    expect(keys.at(NOW + 102, [fixed('c')]).phases).toEqual({ A: 'retiring', C: 'active' })
  })
})

describe('D4: after a revocation', () => {
  test('the successor signs at once: until then nobody gets anything', () => {
    const keys = new Keys().at(NOW, [maker('m')], announced('A', 'm')).at(NOW, [maker('m')], announced('B', 'm'))
    keys.all = keys.all.filter(({ kid }) => kid !== 'A')
    keys.emergencies.add('ES256')
    expect(keys.at(NOW + 1, [maker('m')]).phases).toEqual({ B: 'active' })
  })

  test('an entry whose only key has been revoked is passed over', () => {
    const dead = { ...fixed('a'), revoked: true }
    const keys = new Keys().at(NOW, [fixed('a'), fixed('b')], announced('A', 'a'), announced('B', 'b'))
    keys.all = keys.all.filter(({ kid }) => kid !== 'A')
    keys.emergencies.add('ES256')
    expect(keys.at(NOW + 1, [dead, fixed('b')]).phases).toEqual({ B: 'active' })
  })

  test('of another key nothing is hurried', () => {
    const keys = new Keys().at(NOW, [fixed('a')], announced('A', 'a'))
    keys.emergencies.add('ES256')
    expect(keys.at(NOW + 1, [fixed('b')], announced('B', 'b')).phases).toEqual({ A: 'active', B: 'published' })
  })
})

/**
 * A whole fleet over time: isolates that hold copies as long as they may, verifiers that fetched from any of them, and
 * tokens that live as long as they may. Times in seconds.
 */
class Fleet {
  static readonly LEASE = 20
  static readonly TTL = 60
  static readonly SKEW = 5
  static readonly CLIENT_CACHE = 10
  static readonly PUBLISHING_LEASE = Fleet.LEASE + Fleet.TTL + Fleet.SKEW
  static readonly TIMES: RotationTimes = {
    replaceAfter: 300,
    publishBefore: Fleet.PUBLISHING_LEASE + Fleet.CLIENT_CACHE + Fleet.SKEW,
    publishAfter: Fleet.PUBLISHING_LEASE,
  }

  now = NOW
  sources: readonly Source[] = [maker('m')]
  keys: readonly RotatingKey[] = []
  wakeAt: number | null = null
  #made = 0
  /** What each isolate knows, and since when. */
  readonly isolates = Array.from({ length: 3 }, () => ({ at: 0, keys: [] as readonly RotatingKey[] }))
  /** Every key set that somebody may still be told. */
  readonly #told: { readonly until: number; readonly kids: ReadonlySet<string> }[] = []
  readonly #tokens: { readonly kid: string; readonly exp: number }[] = []
  readonly #revoked = new Set<string>()

  step(): void {
    const { keys, wanted, wakeAt } = advance(this.keys, this.sources, Fleet.TIMES, this.now, this.#emergencies())
    const signing = (all: readonly RotatingKey[]) => all.some(({ phase }) => phase === 'active')
    // What follows an emergency is not safe, only better than nothing: nobody is promised that it is known everywhere.
    if (this.#revoked.size > 0 && !signing(this.keys) && signing(keys)) this.#told.length = 0
    this.keys = keys
    this.wakeAt = wakeAt
    expect(keys).toEqual(advance(keys, this.sources, Fleet.TIMES, this.now, this.#emergencies()).keys)
    for (const source of wanted) if (this.#made % 5 !== 4 || this.keys.length === 0) this.#announce(source)
    this.#made++
    for (const source of this.sources)
      if (!source.made && !source.revoked && keys.every((key) => key.source !== source.name))
        this.#announce(source.name)
    const active = this.keys.filter(({ phase }) => phase === 'active').map(({ alg }) => alg)
    expect(new Set(active).size).toBe(active.length)
  }

  renew(index: number): void {
    this.isolates[index] = { at: this.now, keys: this.keys }
    const kids = new Set(this.#published(this.keys))
    if (kids.size === 0) return
    // Somebody may fetch from it at the end of its lease, and keep that.
    this.#told.push({ until: this.now + Fleet.PUBLISHING_LEASE + Fleet.CLIENT_CACHE, kids })
  }

  sign(index: number): void {
    const isolate = this.isolates[index]
    if (!isolate || this.now - isolate.at > Fleet.LEASE) return
    for (const { kid } of isolate.keys.filter(({ phase }) => phase === 'active'))
      this.#tokens.push({ kid, exp: this.now + Fleet.TTL })
  }

  revoke(): void {
    const key = this.keys.find(({ phase }) => phase === 'active')
    if (!key) return
    this.#revoked.add(key.kid)
    this.keys = this.keys.filter((one) => one !== key)
  }

  /** Whoever holds a key set that they may hold can verify every token that may be shown to them. */
  check(): void {
    const live = this.#tokens.filter(({ kid, exp }) => exp >= this.now && !this.#revoked.has(kid))
    for (const { kids } of this.#told.filter(({ until }) => until >= this.now))
      for (const { kid } of live) expect([...kids]).toContain(kid)
  }

  #published(keys: readonly RotatingKey[]): string[] {
    return keys.filter(({ phase }) => phase !== 'announced').map(({ kid }) => kid)
  }

  #announce(source: string): void {
    this.#made++
    this.keys = [
      ...this.keys,
      announced(`${source}${this.#made}`, source, { announcedAt: this.now, fit: this.#made % 7 !== 6 }),
    ]
  }

  #emergencies(): ReadonlySet<AlgorithmName> {
    return new Set(this.#revoked.size > 0 ? ['ES256'] : [])
  }
}

test('FE-10, D3: whatever happens in whatever order, nobody is shown a token whose key they may not know', () => {
  const lists = [
    [maker('m')],
    [fixed('a')],
    [fixed('b'), fixed('a')],
    [fixed('a'), fixed('b')],
    [maker('m'), fixed('a')],
  ]
  // To the very second at which something is due, to shortly before that, a little, or a lot.
  const wait = fc.oneof(
    { weight: 4, arbitrary: fc.record({ before: fc.constant(0) }) },
    { weight: 2, arbitrary: fc.record({ before: fc.integer({ min: 1, max: 15 }) }) },
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 40 }) },
    { weight: 1, arbitrary: fc.constantFrom(100, 300, 1000, 100_000) },
  )
  const isolates = fc.subarray([0, 1, 2])
  const operator = fc.oneof(
    { weight: 8, arbitrary: fc.constant({}) },
    { weight: 2, arbitrary: fc.record({ list: fc.constantFrom(...lists) }) },
    { weight: 1, arbitrary: fc.record({ prove: fc.constant(true) }) },
    { weight: 1, arbitrary: fc.record({ revoke: fc.constant(true) }) },
  )
  const event = fc.record({ wait, operator, renewing: isolates, signing: isolates })
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      const fleet = new Fleet()
      fleet.step()
      for (const { wait: seconds, operator: does, renewing, signing } of events) {
        if (typeof seconds === 'number') fleet.now += seconds
        else fleet.now = Math.max(fleet.now, (fleet.wakeAt ?? fleet.now) - seconds.before)
        if ('list' in does) fleet.sources = does.list
        if ('prove' in does) fleet.keys = fleet.keys.map((key) => ({ ...key, fit: true }))
        if ('revoke' in does) fleet.revoke()
        fleet.step()
        for (const isolate of renewing) fleet.renew(isolate)
        for (const isolate of signing) fleet.sign(isolate)
        fleet.check()
      }
    }),
    { numRuns: 1000 },
  )
})

test('a clock that jumps leaves one active key of each algorithm, and no key that is gone comes back', () => {
  const jump = fc.integer({ min: -1_000_000, max: 1_000_000 })
  fc.assert(
    fc.property(fc.array(jump, { maxLength: 60 }), (jumps) => {
      const keys = new Keys().at(NOW, [maker('m')], announced('k0', 'm'))
      const gone = new Set<string>()
      let now = NOW
      for (const [index, seconds] of jumps.entries()) {
        now = Math.max(1, now + seconds)
        const before = keys.all
        keys.at(
          now,
          [maker('m')],
          ...(keys.wanted.length > 0 ? [announced(`k${index + 1}`, 'm', { announcedAt: now })] : []),
        )
        for (const { kid } of before) if (keys.all.every((key) => key.kid !== kid)) gone.add(kid)
        expect(keys.all.filter(({ phase }) => phase === 'active').length).toBe(1)
        expect(keys.all.filter(({ kid }) => gone.has(kid))).toEqual([])
        expect(keys.all.length).toBeLessThanOrEqual(7)
      }
    }),
  )
})
