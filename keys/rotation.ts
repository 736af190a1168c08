/**
 * The life of a signing key, as a function of what is known and the time: announced → published → active → retiring →
 * gone. Nothing here waits, asks or stores, so every schedule there can be is a test (D3, D4, FE-10).
 *
 * A key that is to sign has been published for so long that nobody anywhere can be without it, and a key that has signed
 * stays published until its last token is over. So no verifier meets a token whose key it can't find.
 */

import type { AlgorithmName } from './algorithms.ts'

/**
 * `announced`: known, and not yet seen to sign. `published`: in the JWKS. `active`: signs; one for each algorithm.
 * `retiring`: signs no more, and is published for the tokens that it has signed.
 */
export type Phase = 'announced' | 'published' | 'active' | 'retiring'

/** A key that there is. All times are seconds since the epoch. */
export interface RotatingKey {
  readonly kid: string
  readonly alg: AlgorithmName
  /** The {@link Source} that it came from. */
  readonly source: string
  readonly phase: Phase
  /** Whether it has been seen to sign, and its source still means this very key. */
  readonly fit: boolean
  readonly announcedAt: number
  /** When it came into the JWKS; null before. */
  readonly publishedAt: number | null
  /** When it last began to sign; null before. */
  readonly activeAt: number | null
  /** When it stopped signing for good; null before. */
  readonly retiringAt: number | null
  /** Earlier than its schedule says: an administrator wants its successor. Null for the schedule. */
  readonly replaceAt: number | null
}

/** Where keys come from, as the operator lists it. */
export interface Source {
  readonly name: string
  /** Whether we make its keys and replace them by ourselves; else it is one key. */
  readonly made: boolean
  /** null for whatever its key turns out to make. */
  readonly alg: AlgorithmName | null
  /** Whether it can't give a key because that one has been revoked. It is then passed over. */
  readonly revoked: boolean
}

/** In seconds. */
export interface RotationTimes {
  /** How long a key that we have made signs. */
  readonly replaceAfter: number
  /** How long a key is published before it signs. */
  readonly publishBefore: number
  /** How long a key is published after it has signed for the last time that we know of. */
  readonly publishAfter: number
}

/** What holds from now on. */
export interface Advanced {
  /** All that remain, in the order they came in. */
  readonly keys: readonly RotatingKey[]
  /** `kid`s of those that are gone. */
  readonly gone: readonly string[]
  /** Sources that should make a key now. */
  readonly wanted: readonly string[]
  /** When there is something to do by time alone; null if never. */
  readonly wakeAt: number | null
}

/** A source that is replaced faster than its keys can leave makes no more than this. */
const MAX_KEYS_OF_SOURCE = 6

/**
 * Does all that is due. Doing it twice is doing it once.
 *
 * @param before all keys, at most one of each algorithm `active`
 * @param sources in the operator's order: the first that makes an algorithm is the one that signs
 * @param emergencies algorithms of which a key has been revoked: a successor does not wait, because until it signs
 *   nobody gets anything
 */
export function advance(
  before: readonly RotatingKey[],
  sources: readonly Source[],
  times: RotationTimes,
  now: number,
  emergencies: ReadonlySet<AlgorithmName> = new Set(),
): Advanced {
  const keys = new Map(before.map((key) => [key.kid, key]))
  const set = (key: RotatingKey, change: Partial<RotatingKey>) => keys.set(key.kid, { ...key, ...change })
  const listed = new Map(sources.map((source) => [source.name, source]))
  // Nobody holds a token yet, so nobody can miss its key.
  const unstarted = emergencies.size === 0 && before.every(({ activeAt }) => activeAt === null)

  for (const key of before) {
    if (key.phase === 'announced' && key.fit && listed.has(key.source))
      set(key, { phase: 'published', publishedAt: now })
    // It has been published all the time.
    if (key.phase === 'retiring' && listed.get(key.source)?.made === false)
      set(key, { phase: 'published', retiringAt: null })
  }

  const safeAt = (key: RotatingKey, current: RotatingKey | null) =>
    unstarted || (!current && emergencies.has(key.alg)) ? now : (key.publishedAt ?? now) + times.publishBefore
  const wakeTimes: number[] = []
  for (const alg of new Set([...keys.values()].map((key) => key.alg))) {
    const current = [...keys.values()].find((key) => key.alg === alg && key.phase === 'active') ?? null
    const next = successor(alg, current, [...keys.values()], sources, times, now)
    if (!next || next === current) continue
    if (next.phase !== 'published' || !next.fit) continue
    const at = safeAt(next, current)
    if (at > now) {
      wakeTimes.push(at)
      continue
    }
    if (current) set(current, leave(current, listed, now))
    set(next, { phase: 'active', activeAt: now, replaceAt: null })
  }
  // What is published before anything signs would be a key set that the first key to sign is missing from.
  if (unstarted && [...keys.values()].every(({ phase }) => phase !== 'active'))
    for (const key of [...keys.values()]) set(key, { phase: 'announced', publishedAt: null })

  for (const key of [...keys.values()]) {
    if (listed.has(key.source)) continue
    if (key.phase === 'announced' || (key.phase === 'published' && key.activeAt === null)) keys.delete(key.kid)
    else if (key.phase === 'published') set(key, { phase: 'retiring', retiringAt: now })
    else if (key.phase === 'active' && isSuperseded(key, [...keys.values()], sources, listed))
      set(key, { phase: 'retiring', retiringAt: now })
  }
  for (const { kid, phase, retiringAt } of [...keys.values()])
    if (phase === 'retiring' && retiringAt !== null && now >= retiringAt + times.publishAfter) keys.delete(kid)

  const remaining = [...keys.values()]
  for (const key of remaining) {
    if (key.phase === 'retiring' && key.retiringAt !== null) wakeTimes.push(key.retiringAt + times.publishAfter)
    if (key.phase === 'active' && listed.get(key.source)?.made) wakeTimes.push(replacedAt(key, times))
  }
  const future = wakeTimes.filter((at) => at > now)
  return {
    keys: remaining,
    gone: before.map(({ kid }) => kid).filter((kid) => !keys.has(kid)),
    wanted: sources.filter((source) => source.made && wantsKey(source, remaining)).map(({ name }) => name),
    wakeAt: future.length > 0 ? Math.min(...future) : null,
  }
}

/** When a published key may sign: never before, whatever anybody asks for. */
export function safeToSignAt({ publishedAt }: RotatingKey, { publishBefore }: RotationTimes): number | null {
  return publishedAt === null ? null : publishedAt + publishBefore
}

/** When an active key that we have made makes room for its successor. */
export function replacedAt({ activeAt, replaceAt }: RotatingKey, { replaceAfter }: RotationTimes): number {
  return replaceAt ?? (activeAt ?? 0) + replaceAfter
}

/** @returns the key of a source that is waiting for its turn, the oldest first */
export function waiting(source: string, keys: readonly RotatingKey[]): RotatingKey | null {
  const [first = null] = keys
    .filter((key) => key.source === source && key.phase === 'published' && key.fit)
    .sort((a, b) => (a.publishedAt ?? 0) - (b.publishedAt ?? 0))
  return first
}

/**
 * The algorithm where nobody asks for one: that of the first source whose algorithm has a key that signs. One whose key
 * has to wait yet does not stop the others.
 *
 * @returns null while nothing signs
 */
export function defaultAlgorithm(keys: readonly RotatingKey[], sources: readonly Source[]): AlgorithmName | null {
  const active = keys.filter(({ phase }) => phase === 'active')
  for (const { name, alg } of sources) {
    const own = alg ?? keys.find(({ source }) => source === name)?.alg
    if (active.some((key) => key.alg === own)) return own ?? null
  }
  const [latest] = active.toSorted((a, b) => (b.activeAt ?? 0) - (a.activeAt ?? 0))
  return latest?.alg ?? null
}

/** @returns which key should sign with `alg`; `current` where that can't be said yet; null where no source makes it */
function successor(
  alg: AlgorithmName,
  current: RotatingKey | null,
  keys: readonly RotatingKey[],
  sources: readonly Source[],
  times: RotationTimes,
  now: number,
): RotatingKey | null {
  for (const source of sources) {
    const own = keys.filter((key) => key.source === source.name && key.phase !== 'retiring')
    const [first] = own
    if ((source.alg ?? first?.alg ?? alg) !== alg || (source.revoked && !first)) continue
    // Its key is not there yet. It goes before those that are listed after it, so they don't take its place.
    if (!first) return current
    if (!source.made) return first
    const active = own.find(({ phase }) => phase === 'active')
    const next = waiting(source.name, own)
    if (!active) return next ?? current
    return next && now >= replacedAt(active, times) ? next : active
  }
  return null
}

function leave(key: RotatingKey, listed: ReadonlyMap<string, Source>, now: number): Partial<RotatingKey> {
  return listed.get(key.source)?.made === false
    ? { phase: 'published' }
    : { phase: 'retiring', retiringAt: now, replaceAt: null }
}

/** Whether a key that is listed no more, and for whose algorithm nothing is listed, may stop: something else signs. */
function isSuperseded(
  { alg }: RotatingKey,
  keys: readonly RotatingKey[],
  sources: readonly Source[],
  listed: ReadonlyMap<string, Source>,
): boolean {
  const isExpected = sources.some(({ name, ...source }) => {
    const own = source.alg ?? keys.find((key) => key.source === name)?.alg
    return own === undefined ? !source.revoked : own === alg
  })
  return !isExpected && keys.some((key) => key.phase === 'active' && listed.has(key.source))
}

/** One that signs and one that waits. */
function wantsKey({ name }: Source, keys: readonly RotatingKey[]): boolean {
  const own = keys.filter(({ source }) => source === name)
  // One that has just been made may take a while until it can sign. One that could and can't any more is none.
  const ready = own.filter(({ phase, fit }) => phase === 'announced' || (phase === 'published' && fit))
  return ready.length === 0 && own.length < MAX_KEYS_OF_SOURCE
}
