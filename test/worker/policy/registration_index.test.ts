import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PodAttestation } from '../../../worker/attest/attestation.ts'
import { isPodOf, type Registration } from '../../../worker/policy/registration.ts'
import { RegistrationIndex } from '../../../worker/policy/registration_index.ts'
import { attestation, raw } from '../../support/policy.ts'

const word = fc.constantFrom('a', 'b')
/** Selectors of a pod in few enough values that registrations meet. */
const selector = fc.oneof(
  { weight: 3, arbitrary: word.map((name) => `k8s:ns:${name}`) },
  { weight: 3, arbitrary: word.map((name) => `k8s:sa:${name}`) },
  word.map((name) => `k8s:pod-name:${name}-0`),
  word.map((name) => `k8s:node-name:${name}`),
  word.map((name) => `k8s:pod-label:app:${name}`),
  word.map((name) => `k8s:pod-label:tier:${name}`),
)
const registration = fc
  .record({
    clusters: fc.array(fc.constantFrom('east', 'west'), { minLength: 1, maxLength: 3 }),
    selectors: fc.array(selector, { minLength: 1, maxLength: 4 }),
    podsOf: fc.option(word),
    path: fc.constantFrom('/x', '/y', '/{podName}'),
    svidTypes: fc.constantFrom<Registration['svidTypes'][]>(['JWT'], ['X509'], ['JWT', 'X509']),
  })
  .map(({ path, ...change }) => raw('r', path, change))
const registrations = fc
  .array(registration, { maxLength: 12 })
  .map((all) => all.map((one, index) => ({ ...one, name: `r${index}` })))

const pods = fc
  .record({ cluster: fc.constantFrom('east', 'west', 'north'), namespace: word, name: word, pod: fc.option(word) })
  .chain(({ cluster, namespace, name, pod }) => {
    const who = attestation({
      cluster,
      namespace,
      serviceAccount: { name, uid: 'u' },
      pod: pod === null ? null : { name: `${pod}-0`, uid: 'v' },
      node: { name: 'a', uid: null },
    })
    const labels = fc.subarray(['k8s:pod-label:app:a', 'k8s:pod-label:tier:b'])
    return labels.map((more): PodAttestation => ({ ...who, selectors: new Set([...who.selectors, ...more]) }))
  })

/** Matching, said as plainly as can be. */
const matches = (one: Registration, { cluster, selectors, pod }: PodAttestation) =>
  one.clusters.includes(cluster) &&
  one.selectors.every((selector) => selectors.has(selector)) &&
  (one.podsOf === null || isPodOf(pod?.name ?? '', one.podsOf))

const names = (all: readonly Registration[]) => all.map(({ name }) => name).toSorted()

describe('T-4: the registrations that match a pod', () => {
  test('are those that a look at every one finds, each once', () => {
    fc.assert(
      fc.property(registrations, pods, (all, pod) => {
        const found = new RegistrationIndex(all).matching(pod)
        expect(names(found)).toEqual(names(all.filter((one) => matches(one, pod))))
      }),
      { numRuns: 1000 },
    )
  })

  test('are the same in whatever order they were written', () => {
    fc.assert(
      fc.property(registrations, pods, fc.nat(), (all, pod, seed) => {
        const turn = all.length === 0 ? 0 : seed % all.length
        const other = [...all.slice(turn), ...all.slice(0, turn)].toReversed()
        expect(names(new RegistrationIndex(other).matching(pod))).toEqual(
          names(new RegistrationIndex(all).matching(pod)),
        )
      }),
      { numRuns: 300 },
    )
  })

  test('are never more where one of them demands more', () => {
    fc.assert(
      fc.property(registration, selector, pods, (one, more, pod) => {
        const narrower = { ...one, selectors: [...one.selectors, more] }
        const [wide, narrow] = [one, narrower].map((it) => new RegistrationIndex([it]).matching(pod).length)
        expect(narrow).toBeLessThanOrEqual(wide as number)
      }),
      { numRuns: 1000 },
    )
  })

  test('also where a token has a blank in a name, which no selector can demand', () => {
    const index = new RegistrationIndex([raw('r', '/x', { selectors: ['k8s:ns:a', 'k8s:sa:b'] })])
    for (const [namespace, name] of [
      ['a b', ''],
      ['', 'a b'],
      ['a', 'b '],
    ] as const)
      expect(index.matching(attestation({ namespace, serviceAccount: { name, uid: 'u' } }))).toEqual([])
  })
})

/** What of a pod a selector is about. Nothing of a pod has two values. */
const about = (selector: string) =>
  selector
    .split(':')
    .slice(0, selector.startsWith('k8s:pod-label:') ? 3 : 2)
    .join()
const agree = (one: Registration, other: Registration) =>
  one.selectors.every((mine) => other.selectors.every((theirs) => about(mine) !== about(theirs) || mine === theirs))
const canBeOneOf = (one: Registration, other: Registration) =>
  one.podsOf === null || other.podsOf === null || one.podsOf === other.podsOf

describe('T-4: registrations that could name one pod differently', () => {
  test('are found, all that there are, each pair once', () => {
    fc.assert(
      fc.property(registrations, (generated) => {
        // One that contradicts itself matches nothing, and nobody is told what it could name.
        const all = generated.filter((one) => agree(one, one))
        const found = new RegistrationIndex(all).overlaps().map(names)
        const wanted = all.flatMap((one, index) =>
          all
            .slice(index + 1)
            .filter(
              (other) =>
                one.clusters.some((cluster) => other.clusters.includes(cluster)) &&
                one.svidTypes.some((type) => other.svidTypes.includes(type)) &&
                agree(one, other) &&
                canBeOneOf(one, other) &&
                JSON.stringify(one.template) !== JSON.stringify(other.template),
            )
            .map((other) => names([one, other])),
        )
        if (wanted.length <= 20) expect(found.toSorted()).toEqual(wanted.toSorted())
        else expect(found).toHaveLength(20)
        for (const pair of found) expect(wanted).toContainEqual(pair)
      }),
      { numRuns: 1000 },
    )
  })

  test('one of a whole namespace and one of a service account in any namespace are such a pair', () => {
    const one = raw('one', '/x', { selectors: ['k8s:ns:a'] })
    const other = raw('other', '/y', { selectors: ['k8s:sa:b'] })
    for (const all of [
      [one, other],
      [other, one],
    ])
      expect(new RegistrationIndex(all).overlaps().map(names)).toEqual([['one', 'other']])
  })

  test('are 20 at most, and not looked for without end', () => {
    const alike = (count: number, path: (index: number) => string) =>
      new RegistrationIndex(Array.from({ length: count }, (_, index) => raw(`r${index}`, path(index))))
    expect(alike(1000, (index) => `/x/${index}`).overlaps()).toHaveLength(20)
    // None of the 200 million pairs is one: without an end to the looking this test would not end in its time.
    expect(alike(20_000, () => '/x').overlaps()).toEqual([])
  })
})
