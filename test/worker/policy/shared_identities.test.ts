import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Registration } from '../../../worker/policy/registration.ts'
import { SharedIdentities } from '../../../worker/policy/shared_identities.ts'
import { raw } from '../../support/policy.ts'

/** @returns which of the registrations are taken */
function taken(all: readonly Registration[]): boolean[] {
  const identities = new SharedIdentities()
  return all.map((one) => identities.add(one) === null)
}

/** Every ID that a registration can give in a cluster, where facts that are not known take each of a few values. */
function ids({ template, selectors }: Registration, cluster: string): Set<string> {
  const fixed = (name: string) => selectors.find((selector) => selector.startsWith(`k8s:${name}:`))?.split(':')[2]
  const any = ['a', 'b', 'east', 'west', 'north', 'x']
  const values = {
    cluster: [cluster],
    namespace: [fixed('ns') ?? any].flat(),
    serviceAccountName: [fixed('sa') ?? any].flat(),
    podName: any,
    podUID: any,
  }
  let paths = ['']
  for (const segment of template.segments) {
    const possible = 'literal' in segment ? [segment.literal] : values[segment.variable]
    paths = paths.flatMap((path) => possible.map((value) => `${path}/${value}`))
  }
  return new Set(paths)
}

/** T-2 in its own words: no ID for pods of two clusters, unless both registrations say that this is meant. */
function collide(one: Registration, other: Registration): boolean {
  if (one.sharedIdentity && other.sharedIdentity) return false
  return one.clusters.some((mine) =>
    other.clusters.some((theirs) => mine !== theirs && !ids(one, mine).isDisjointFrom(ids(other, theirs))),
  )
}

const segment = fc.constantFrom('a', 'b', 'east', 'x', '{cluster}', '{namespace}', '{serviceAccountName}', '{podName}')
const registration = fc
  .record({
    clusters: fc.array(fc.constantFrom('east', 'west', 'north'), { minLength: 1, maxLength: 3 }),
    segments: fc.array(segment, { minLength: 1, maxLength: 3 }),
    namespace: fc.option(fc.constantFrom('a', 'x')),
    serviceAccountName: fc.option(fc.constantFrom('b', 'east')),
    sharedIdentity: fc.boolean(),
  })
  .map(({ segments, namespace, serviceAccountName, ...change }) =>
    raw('r', `/${segments.join('/')}`, {
      ...change,
      selectors: [
        ...(namespace ? [`k8s:ns:${namespace}`] : []),
        ...(serviceAccountName ? [`k8s:sa:${serviceAccountName}`] : []),
      ],
    }),
  )

describe('T-2: pods of two clusters have one SPIFFE ID only where that is written', () => {
  test('a registration is taken if it collides neither with itself nor with one that was taken before', () => {
    fc.assert(
      fc.property(fc.array(registration, { maxLength: 6 }), (all) => {
        const kept: Registration[] = []
        const wanted = all.map((one) => {
          const good = [one, ...kept].every((other) => !collide(one, other))
          if (good) kept.push(one)
          return good
        })
        expect(taken(all)).toEqual(wanted)
      }),
      { numRuns: 1000 },
    )
  })

  test('of two, the later one is refused, and the two clusters are named', () => {
    fc.assert(
      fc.property(registration, registration, (one, other) => {
        const identities = new SharedIdentities()
        if (identities.add(one)) return
        const sharing = identities.add(other)
        if (!sharing) return
        const [first, second] = sharing
        expect(first).not.toBe(second)
        expect(other.clusters).toContain(second)
        expect([...one.clusters, ...other.clusters]).toContain(first)
      }),
      { numRuns: 1000 },
    )
  })

  test('what was refused leaves nothing behind', () => {
    const identities = new SharedIdentities()
    expect(identities.add(raw('one', '/a/x'))).toBeNull()
    expect(identities.add(raw('two', '/{podName}/x', { clusters: ['west', 'north'] }))).not.toBeNull()
    expect(identities.add(raw('three', '/{cluster}/{podName}', { clusters: ['west', 'north'] }))).toBeNull()
    expect(identities.add(raw('four', '/b/x', { clusters: ['north'] }))).toBeNull()
  })

  test('sharing must be written by all, also by a third', () => {
    const share = (name: string, sharedIdentity: boolean) => raw(name, '/x', { clusters: [name], sharedIdentity })
    expect(taken([share('east', true), share('west', true), share('north', false)])).toEqual([true, true, false])
    expect(taken([share('east', true), share('east', false), share('west', true)])).toEqual([true, true, false])
    expect(taken([share('east', false), share('east', true), share('west', true)])).toEqual([true, true, false])
  })
})

describe('200 clusters', () => {
  const clusters = Array.from({ length: 200 }, (_, index) => `c${index}`)

  test('may all be named by a registration with {cluster}, and by many of them', () => {
    const identities = new SharedIdentities()
    for (const name of ['a', 'b', 'c']) expect(identities.add(raw(name, `/{cluster}/${name}`, { clusters }))).toBeNull()
    expect(identities.add(raw('late', '/c199/{podName}', { clusters: ['c0'] }))).toEqual(['c199', 'c0'])
    expect(identities.add(raw('own', '/c199/{podName}', { clusters: ['c199'] }))).toBeNull()
  })

  test('may all share what they say they share', () => {
    const identities = new SharedIdentities()
    for (const name of ['a', 'b', 'c'])
      expect(identities.add(raw(name, '/x/{podName}', { clusters, sharedIdentity: true }))).toBeNull()
    expect(identities.add(raw('late', '/x/y', { clusters: ['other'] }))).toEqual(['c0', 'other'])
  })

  test('of one cluster, ten thousand literal and variable IDs that could be each other are no matter', () => {
    const identities = new SharedIdentities()
    for (let index = 0; index < 5000; index++) {
      expect(identities.add(raw('l', `/x/l${index}/y/m${index}`))).toBeNull()
      expect(identities.add(raw('v', '/x/{podName}/y/{podUID}'))).toBeNull()
    }
  })
})
