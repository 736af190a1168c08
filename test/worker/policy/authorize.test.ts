import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Attestation, PodAttestation } from '../../../worker/attest/attestation.ts'
import { authorize, type JwtGrant, type JwtWanted, type X509Grant } from '../../../worker/policy/authorize.ts'
import type { Policy } from '../../../worker/policy/policy.ts'
import type { Registration } from '../../../worker/policy/registration.ts'
import { RegistrationIndex } from '../../../worker/policy/registration_index.ts'
import { Refusal, type RefusalReason } from '../../../worker/refusal.ts'
import { NOW } from '../../support/clock.ts'
import { POD } from '../../support/cluster.ts'
import { attestation, cluster, policyOf, raw, registration } from '../../support/policy.ts'

/** @returns the terms, or why there are none */
function decide(
  policy: Policy,
  audience: readonly string[] = [],
  who: Attestation = attestation(),
  wanted: Partial<JwtWanted> = {},
): JwtGrant | RefusalReason {
  try {
    return authorize(who, { svidType: 'JWT', audience, spiffeId: null, ...wanted }, policy)
  } catch (error) {
    if (error instanceof Refusal) return error.reason
    throw error
  }
}

/** The same for a certificate. */
function decideX509(
  policy: Policy,
  who: Attestation = attestation(),
  spiffeId: string | null = null,
): X509Grant | RefusalReason {
  try {
    return authorize(who, { svidType: 'X509', spiffeId }, policy)
  } catch (error) {
    if (error instanceof Refusal) return error.reason
    throw error
  }
}

/** A policy of the cluster `east` and these registrations. */
const east = (...registrations: readonly object[]) => policyOf(cluster('east'), ...registrations)

const rawPolicy = (...registrations: Registration[]): Policy => ({
  ...east(),
  registrations: new RegistrationIndex(registrations),
})

describe('a pod that is registered', () => {
  test('T-8: gets the terms of its registration, and the end of its own token as the last moment', () => {
    const policy = east(registration('web', { audiences: ['a'], ttlSeconds: 600, alg: 'RS256' }))
    const grant = decide(policy, ['a']) as JwtGrant
    expect({ ...grant, spiffeId: grant.spiffeId.toString() }).toEqual({
      registration: 'web',
      spiffeId: `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`,
      audience: ['a'],
      bearer: false,
      ttlSeconds: 600,
      notAfter: NOW + 3607,
      alg: 'RS256',
      claims: {},
      hint: null,
      live: false,
    })
  })

  test('T-2: has the cluster in its ID where there are several', () => {
    const policy = policyOf(
      cluster('east'),
      cluster('west'),
      registration('web', { clusters: ['east', 'west'], audiences: ['a'] }),
    )
    for (const name of ['east', 'west'])
      expect(decide(policy, [], attestation({ cluster: name }))).toMatchObject({
        spiffeId: { path: `/cluster/${name}/ns/${POD.namespace}/sa/${POD.serviceAccount.name}` },
      })
  })

  test('D12: gets a bearer token for an API server, its own or another, and for nothing else', () => {
    const policy = policyOf(
      cluster('east'),
      cluster('west'),
      registration('web', { audiences: ['k8s-east', 'k8s-west', 'k8s', 'a'] }),
    )
    const bearer = (audience: string) => (decide(policy, [audience]) as JwtGrant).bearer
    expect(['k8s-east', 'k8s-west', 'k8s', 'a'].map(bearer)).toEqual([true, true, false, false])
  })
})

describe('T-4: a registration matches by all of its selectors', () => {
  const pod = { name: 'checkout-67c559dbb7-r5d5s', uid: 'u' }
  test.each<[string, object, Partial<PodAttestation>, boolean]>([
    ['the namespace', { namespace: POD.namespace }, {}, true],
    ['another namespace', { namespace: 'other' }, {}, false],
    ['a namespace that only begins like it', { namespace: 'payments' }, {}, false],
    ['the service account', { serviceAccountName: POD.serviceAccount.name }, {}, true],
    ['another service account', { serviceAccountName: 'other' }, {}, false],
    [
      'the service account of another namespace',
      { namespace: 'other', serviceAccountName: POD.serviceAccount.name },
      {},
      false,
    ],
    ['the workload', { podName: 'checkout' }, { pod }, true],
    ['the pod itself', { podName: pod.name }, { pod }, true],
    ['another workload', { podName: 'check' }, { pod }, false],
    ['the workload in another namespace', { namespace: 'other', podName: 'checkout' }, { pod }, false],
    ['a workload, where the token is bound to no pod', { podName: 'checkout' }, { pod: null }, false],
    ['a namespace, where the token is bound to no pod', { namespace: POD.namespace }, { pod: null }, true],
    ['a pod of another cluster', { namespace: POD.namespace }, { cluster: 'west' }, false],
    ['a cluster whose name begins like it', { namespace: POD.namespace }, { cluster: 'eas' }, false],
  ])('%s', (_, selector, who, matches) => {
    const selectors = { namespace: POD.namespace, serviceAccountName: POD.serviceAccount.name, ...selector }
    const decision = decide(east(registration('web', { selector: selectors })), ['k8s'], attestation(who))
    expect(typeof decision === 'string' ? decision : 'granted').toBe(matches ? 'granted' : 'registration_none')
  })

  test('and default is no', () => {
    expect(decide(east())).toBe('registration_none')
    expect(decide(policyOf())).toBe('registration_none')
  })
})

describe('T-4: several registrations that match', () => {
  const id = 'spiffe://example.org/x'
  const two = (one: object, other: object) =>
    east(registration('one', { spiffeID: id, ...one }), registration('other', { spiffeID: id, ...other }))

  test('with one ID and different audiences are told apart by the audience', () => {
    const policy = two({ audiences: ['a'], ttlSeconds: 60 }, { audiences: ['b'], ttlSeconds: 120 })
    expect(decide(policy, ['a'])).toMatchObject({ registration: 'one', ttlSeconds: 60 })
    expect(decide(policy, ['b'])).toMatchObject({ registration: 'other', ttlSeconds: 120 })
    expect(decide(policy, ['c'])).toBe('target_not_allowed')
  })

  test('with one ID and the same audience are refused, for their terms may differ', () => {
    expect(decide(two({ audiences: ['a', 'b'] }, { audiences: ['b', 'c'] }), ['b'])).toBe('registration_ambiguous')
  })

  test('with different IDs are refused, whichever audience is asked for and however special one of them is', () => {
    const wide = { spiffeID: 'spiffe://example.org/wide', audiences: ['a'] }
    const narrow = {
      selector: { namespace: POD.namespace, serviceAccountName: POD.serviceAccount.name, podName: POD.pod.name },
      spiffeID: 'spiffe://example.org/narrow',
      audiences: ['b'],
    }
    for (const policy of [two(wide, narrow), two(narrow, wide)])
      for (const requested of [[], ['a'], ['b'], ['c']])
        expect(decide(policy, requested)).toBe('registration_ambiguous')
  })

  test('T-7: with one audience each are several to choose from, if none is asked for', () => {
    expect(decide(two({ audiences: ['a'] }, { audiences: ['b'] }))).toBe('target_missing')
  })

  test('T-7: of which one has several audiences are too', () => {
    expect(decide(two({ audiences: ['a', 'b'] }, { audiences: ['c', 'd'] }))).toBe('target_missing')
  })
})

describe('T-7: audiences', () => {
  const policy = east(
    registration('web', {
      audiences: ['a', 'b', 'c', 'd', 'e'],
      audienceCombinations: [
        ['a', 'b'],
        ['c', 'd', 'e'],
      ],
    }),
  )
  const single = east(registration('web', { audiences: ['a'] }))
  const granted = (decision: JwtGrant | RefusalReason) => (typeof decision === 'string' ? decision : decision.audience)

  test.each<[string, Policy, readonly string[], readonly string[] | RefusalReason]>([
    ['none asked for, one to have', single, [], ['a']],
    ['the one there is', single, ['a'], ['a']],
    ['the same twice', single, ['a', 'a'], ['a']],
    ['another', single, ['b'], 'target_not_allowed'],
    ['one that is allowed and one that is not', single, ['a', 'b'], 'target_not_allowed'],
    ['the empty one', single, [''], 'target_not_allowed'],
    ['another case', single, ['A'], 'target_not_allowed'],
    ['a blank behind', single, ['a '], 'target_not_allowed'],
    ['any', single, ['*'], 'target_not_allowed'],
    ['none asked for, several to have', policy, [], 'target_missing'],
    ['one of several', policy, ['c'], ['c']],
    ['a combination that is listed', policy, ['a', 'b'], ['a', 'b']],
    ['the same in another order', policy, ['b', 'a'], ['b', 'a']],
    ['the same with a repetition', policy, ['b', 'a', 'b'], ['b', 'a']],
    ['a combination that is not listed', policy, ['a', 'c'], 'target_not_allowed'],
    ['less than a combination', policy, ['c', 'd'], 'target_not_allowed'],
    ['more than a combination', policy, ['a', 'b', 'c'], 'target_not_allowed'],
    ['a combination and a stranger', policy, ['a', 'b', 'x'], 'target_not_allowed'],
    ['a stranger', policy, ['x'], 'target_not_allowed'],
  ])('%s', (_, under, requested, outcome) => {
    expect(granted(decide(under, requested))).toEqual(outcome)
  })
})

describe('T-4: a pod that could have several SPIFFE IDs', () => {
  const id = (path: string) => `spiffe://example.org${path}`
  const policy = east(
    registration('one', { spiffeID: id('/one'), audiences: ['a', 'b'] }),
    registration('other', { spiffeID: id('/other'), audiences: ['a'], hint: 'the other' }),
    registration('certificate', { spiffeID: id('/certificate'), audiences: [], svidType: 'X509' }),
  )
  const ask = (spiffeId: string | null, audience: readonly string[] = ['a'], more: Partial<JwtWanted> = {}) =>
    decide(policy, audience, attestation(), { spiffeId, ...more })

  test('gets none unless it names one, whichever audience it asks for', () => {
    for (const audience of [[], ['a'], ['b'], ['c']]) expect(ask(null, audience)).toBe('registration_ambiguous')
  })

  test('gets the one that it names, by the terms of that one', () => {
    expect(ask(id('/one'))).toMatchObject({ registration: 'one', spiffeId: { path: '/one' }, hint: null })
    expect(ask(id('/other'))).toMatchObject({ registration: 'other', spiffeId: { path: '/other' }, hint: 'the other' })
    expect(ask(id('/other'), ['b'])).toBe('target_not_allowed')
    expect(ask(id('/one'), [])).toBe('target_missing')
    expect(ask(id('/other'), [])).toMatchObject({ audience: ['a'] })
  })

  test.each([
    id('/third'),
    id('/one/'),
    id('/One'),
    id('/one '),
    id(''),
    '/one',
    '',
    'spiffe://other.example/one',
    'SPIFFE://example.org/one',
    'spiffe://EXAMPLE.ORG/one',
    id('/x/../one'),
    id('/%6fne'),
  ])('gets none by naming %j', (name) => {
    expect(ask(name)).toBe('spiffe_id_not_allowed')
  })

  test('gets none of those that are for SVIDs of another type', () => {
    expect(ask(id('/certificate'))).toBe('spiffe_id_not_allowed')
    const only = east(registration('certificate', { audiences: [], svidType: 'X509' }))
    for (const spiffeId of [null, id('/certificate')])
      expect(decide(only, [], attestation(), { spiffeId })).toBe('svid_type_not_allowed')
  })

  test('of which one is for another type gets the other without naming it', () => {
    const mixed = east(
      registration('token', { spiffeID: id('/token'), audiences: ['a'], svidType: 'JWT' }),
      registration('certificate', { spiffeID: id('/certificate'), audiences: [], svidType: 'X509' }),
    )
    expect(decide(mixed, ['a'])).toMatchObject({ registration: 'token' })
  })

  test('names one that two registrations give, and gets by the audience what it would get without', () => {
    const same = east(
      registration('one', { spiffeID: id('/x'), audiences: ['a', 'both'] }),
      registration('other', { spiffeID: id('/x'), audiences: ['b', 'both'] }),
    )
    for (const spiffeId of [null, id('/x')]) {
      const asked = (audience: string) => decide(same, [audience], attestation(), { spiffeId })
      expect(asked('b')).toMatchObject({ registration: 'other' })
      expect(asked('both')).toBe('registration_ambiguous')
    }
  })
})

describe('a certificate', () => {
  const id = (path: string) => `spiffe://example.org${path}`
  const x509 = { svidType: 'X509', audiences: [] }

  test('T-8: needs no audience, and has the terms of its registration', () => {
    const spec = { audiences: ['a', 'b'], x509TtlSeconds: 7200, dnsNames: ['b.example', 'a.example'], hint: 'web' }
    const grant = decideX509(east(registration('web', { ...spec, liveness: 'none' }))) as X509Grant
    expect({ ...grant, spiffeId: grant.spiffeId.toString() }).toEqual({
      registration: 'web',
      spiffeId: `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`,
      ttlSeconds: 7200,
      notAfter: NOW + 3607,
      dnsNames: ['a.example', 'b.example'],
      federatesWith: [],
      hint: 'web',
      live: false,
    })
  })

  test('lives an hour if nothing is said', () => {
    expect(decideX509(east(registration('web', x509)))).toMatchObject({ ttlSeconds: 3600 })
  })

  test('is not for who is registered for tokens alone, or not at all', () => {
    expect(decideX509(east(registration('web', { svidType: 'JWT' })))).toBe('svid_type_not_allowed')
    expect(decideX509(east())).toBe('registration_none')
  })

  test('T-26: is not for who is banned', () => {
    const ban = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Ban',
      metadata: { name: 'thief' },
      spec: { spiffeID: id('/x') },
    }
    expect(decideX509(east(registration('web', { ...x509, spiffeID: id('/x') }), ban))).toBe('banned')
  })

  describe('T-4: where several registrations give one ID', () => {
    const two = (one: object, other: object) =>
      east(
        registration('one', { spiffeID: id('/x'), audiences: ['a'], ...one }),
        registration('other', { spiffeID: id('/x'), audiences: ['b'], ...other }),
      )

    test('for different audiences, is granted if they say the same of certificates', () => {
      for (const [one, other] of [
        [{}, {}],
        [{ ttlSeconds: 60, alg: 'RS256', claims: { tier: 'x' } }, { ttlSeconds: 120 }],
        [{ dnsNames: ['a.example', 'b.example'] }, { dnsNames: ['b.example', 'a.example', 'a.example'] }],
        [{ x509TtlSeconds: 3600 }, {}],
      ] as const)
        expect(decideX509(two(one, other))).toMatchObject({ spiffeId: { path: '/x' } })
    })

    test.each<[string, object]>([
      ['life', { x509TtlSeconds: 60 }],
      ['DNS names', { dnsNames: ['a.example'] }],
      ['hint', { hint: 'other' }],
    ])('is refused if they differ in %s, whichever comes first and whether or not it is named', (_, spec) => {
      for (const policy of [two(spec, {}), two({}, spec)])
        for (const name of [null, id('/x')])
          expect(decideX509(policy, attestation(), name)).toBe('registration_ambiguous')
    })

    test('is refused if one wants the pod to be alive and the other does not care', () => {
      const policy = rawPolicy(
        raw('one', '/x', { svidTypes: ['X509'] }),
        raw('other', '/x', { svidTypes: ['X509'], liveness: 'tokenReview' }),
      )
      expect(decideX509(policy)).toBe('registration_ambiguous')
    })

    test('is by the terms of those that are for certificates', () => {
      const policy = two({ svidType: 'JWT', x509TtlSeconds: 60 }, {})
      expect(decideX509(policy)).toMatchObject({ registration: 'other', ttlSeconds: 3600 })
    })
  })

  test('T-4: is for the ID that is named, where there are several', () => {
    const policy = east(
      registration('one', { spiffeID: id('/one'), ...x509 }),
      registration('other', { spiffeID: id('/other'), ...x509, x509TtlSeconds: 60 }),
    )
    expect(decideX509(policy)).toBe('registration_ambiguous')
    expect(decideX509(policy, attestation(), id('/other'))).toMatchObject({ registration: 'other', ttlSeconds: 60 })
    expect(decideX509(policy, attestation(), id('/third'))).toBe('spiffe_id_not_allowed')
  })

  describe('T-22: with a key that is made here', () => {
    const who = attestation({ door: 'kubespiffe' })

    test('is only for who is registered for certificates and nothing else', () => {
      expect(decideX509(east(registration('web', x509)), who)).toMatchObject({ registration: 'web' })
      expect(decideX509(east(registration('web')), who)).toBe('svid_type_not_allowed')
      expect(decideX509(east(registration('web', { svidType: 'JWT' })), who)).toBe('svid_type_not_allowed')
    })

    test('is by the terms of such registrations alone', () => {
      const policy = east(
        registration('both', { spiffeID: id('/both'), x509TtlSeconds: 60 }),
        registration('web', { ...x509, spiffeID: id('/web') }),
      )
      expect(decideX509(policy, who)).toMatchObject({ spiffeId: { path: '/web' }, ttlSeconds: 3600 })
    })
  })

  test.each<[string, RefusalReason]>([
    ['/spire/agent/x', 'spiffe_id_reserved'],
    ['/spiffe-edge/reviewer/east', 'spiffe_id_reserved'],
    ['/ns/kube-system/sa/admin', 'spiffe_id_unattested'],
  ])('T-2, T-5: for %s is %s', (path, reason) => {
    expect(decideX509(rawPolicy(raw('web', path, { svidTypes: ['X509'] })))).toBe(reason)
  })
})

describe('what a registration can never give, even one that no manifest could hold', () => {
  test.each<[string, RefusalReason]>([
    ['/spire/agent/x', 'spiffe_id_reserved'],
    ['/spiffe-edge/reviewer/east', 'spiffe_id_reserved'],
    ['/ns/kube-system/sa/admin', 'spiffe_id_unattested'],
    ['/cluster/west/ns/{namespace}/sa/{serviceAccountName}', 'spiffe_id_unattested'],
    ['/{podUID}/{podName}', 'spiffe_id_illegal'],
  ])('T-2, T-4, T-5: %s is %s', (path, reason) => {
    const who = attestation({ pod: { name: 'a', uid: '../..' } })
    expect(decide(rawPolicy(raw('web', path)), [], who)).toBe(reason)
  })

  test.each<[string, string, Partial<PodAttestation>, RefusalReason]>([
    ['a namespace called spire', '/{namespace}/{serviceAccountName}', { namespace: 'spire' }, 'spiffe_id_reserved'],
    ['a pod called spiffe-edge', '/{podName}', { pod: { name: 'spiffe-edge', uid: 'u' } }, 'spiffe_id_reserved'],
    [
      'a namespace called ns, and a pod named after another namespace',
      '/{namespace}/{podName}/sa/{serviceAccountName}',
      { namespace: 'ns', pod: { name: 'kube-system', uid: 'u' } },
      'spiffe_id_unattested',
    ],
    [
      'a pod called like a cluster',
      '/cluster/{podName}/ns/{namespace}/sa/{serviceAccountName}',
      { pod: { name: 'west', uid: 'u' } },
      'spiffe_id_unattested',
    ],
    ['a token bound to no pod', '/x/{podName}', { pod: null }, 'spiffe_id_illegal'],
    [
      'a service account with a slash',
      '/x/{serviceAccountName}',
      { serviceAccount: { name: 'a/b', uid: 'u' } },
      'spiffe_id_illegal',
    ],
    [
      'a service account that is a way up',
      '/x/{serviceAccountName}',
      { serviceAccount: { name: '..', uid: 'u' } },
      'spiffe_id_illegal',
    ],
  ])('T-2, T-4, T-5: nor by way of %s', (_, path, who, reason) => {
    const policy = rawPolicy(raw('web', path, { selectors: [`k8s:ns:${who.namespace ?? POD.namespace}`] }))
    expect(decide(policy, [], attestation(who))).toBe(reason)
  })

  test('T-5: a reserved ID of one registration is not made good by another that matches', () => {
    const good = raw('good', '/web', { audiences: ['a'] })
    const bad = raw('bad', '/spire/agent/x', { audiences: ['b'] })
    for (const policy of [rawPolicy(good, bad), rawPolicy(bad, good)])
      expect(typeof decide(policy, ['a'])).toBe('string')
  })
})

describe('for all policies', () => {
  const names = fc.constantFrom('a', 'b', 'c')
  const audiences = fc.uniqueArray(fc.constantFrom('r', 's', 't', 'u'), { minLength: 1, maxLength: 4 })
  const registrations = fc
    .record({
      clusters: fc.uniqueArray(fc.constantFrom('east', 'west'), { minLength: 1 }),
      namespace: names,
      serviceAccountName: fc.option(names, { nil: undefined }),
      podName: fc.option(names, { nil: undefined }),
      path: fc.constantFrom('/x', '/ns/{namespace}/sa/{serviceAccountName}', '/{cluster}/{podName}', '/y/{podUID}'),
      audiences,
      combinations: fc.array(audiences, { maxLength: 2 }),
    })
    .map(({ clusters, namespace, serviceAccountName, podName, path, audiences: all, combinations }) =>
      raw('r', path, {
        clusters,
        selectors: [`k8s:ns:${namespace}`, ...(serviceAccountName ? [`k8s:sa:${serviceAccountName}`] : [])],
        podsOf: podName ?? null,
        audiences: all,
        // A manifest combines no audiences but those of the registration.
        audienceCombinations: combinations.map((one) => new Set(one).intersection(new Set(all))),
      }),
    )
  const named = (all: Registration[]) => all.map((one, index) => ({ ...one, name: `r${index}` }))
  const policies = fc.array(registrations, { maxLength: 5 }).map((all) => rawPolicy(...named(all)))
  const who = fc
    .record({ cluster: fc.constantFrom('east', 'west'), namespace: names, name: names, pod: fc.option(names) })
    .map(({ cluster: name, namespace, name: serviceAccount, pod }) =>
      attestation({
        cluster: name,
        namespace,
        serviceAccount: { name: serviceAccount, uid: 'u' },
        pod: pod === null ? null : { name: pod, uid: 'v' },
      }),
    )
  const requests = fc.array(fc.constantFrom('r', 's', 't', 'u', 'never'), { maxLength: 3 })

  /** Whether a registration is for this pod, said once more in other words. */
  const isFor = (
    { clusters, selectors, podsOf }: Registration,
    { cluster: name, namespace, serviceAccount, pod }: PodAttestation,
  ) =>
    [
      clusters.some((one) => one === name),
      selectors[0] === `k8s:ns:${namespace}`,
      [undefined, `k8s:sa:${serviceAccount.name}`].includes(selectors[1]),
      [null, pod?.name].includes(podsOf),
    ].every(Boolean)

  test('T-7: what is granted was asked for, or is the only audience of the registration, and is allowed by it', () => {
    fc.assert(
      fc.property(policies, who, requests, (policy, pod, requested) => {
        const decision = decide(policy, requested, pod)
        if (typeof decision === 'string') return
        const from = policy.registrations.all.find(({ name }) => name === decision.registration) as Registration
        expect(isFor(from, pod)).toBe(true)
        if (requested.length === 0) expect(decision.audience).toEqual(from.audiences)
        else expect(new Set(decision.audience)).toEqual(new Set(requested))
        expect(decision.audience.every((audience) => from.audiences.includes(audience))).toBe(true)
        if (decision.audience.length > 1) expect(from.audienceCombinations).toContainEqual(new Set(decision.audience))
        expect(decision.notAfter).toBe(pod.expiresAt)
        expect(decision.spiffeId.trustDomain).toBe(policy.trustDomain)
      }),
      { numRuns: 300 },
    )
  })

  test('T-4: a registration that does not match changes nothing, wherever it stands', () => {
    fc.assert(
      fc.property(policies, who, requests, registrations, fc.nat(), (policy, pod, requested, more, position) => {
        fc.pre(!isFor(more, pod))
        const at = position % (policy.registrations.all.length + 1)
        const larger = {
          ...policy,
          registrations: new RegistrationIndex(policy.registrations.all.toSpliced(at, 0, { ...more, name: 'more' })),
        }
        expect(decide(larger, requested, pod)).toEqual(decide(policy, requested, pod))
      }),
      { numRuns: 300 },
    )
  })

  test('T-4: the order of the registrations decides no more than which of two names a log shows', () => {
    fc.assert(
      fc.property(policies, who, requests, (policy, pod, requested) => {
        const reversed = { ...policy, registrations: new RegistrationIndex(policy.registrations.all.toReversed()) }
        const [one, other] = [decide(policy, requested, pod), decide(reversed, requested, pod)]
        // Two faults at once may be found in either order.
        if (typeof one === 'string') expect(typeof other).toBe('string')
        else expect(other).toEqual(one)
      }),
      { numRuns: 300 },
    )
  })
})
