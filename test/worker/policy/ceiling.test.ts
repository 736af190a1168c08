/** T-1: what the authors of custom resources in a cluster can do, which is what its record allows for its own pods. */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { authorize } from '../../../worker/policy/authorize.ts'
import { compilePolicy, ManifestError, parseObject, type SourcedObject } from '../../../worker/policy/manifest.ts'
import type { Policy } from '../../../worker/policy/policy.ts'
import { Refusal, type RefusalReason } from '../../../worker/refusal.ts'
import { attestation, CONTEXT, cluster, from, ISSUER, problemsOf, registration } from '../../support/policy.ts'

const API = 'https://api.example.org'
const CEILING = {
  spiffeIDPrefixes: ['/team', '/apps/west'],
  audiences: [API],
  dnsSuffixes: ['.team.example.org'],
  maxTtlSeconds: 600,
  claims: ['tier'],
}
const WEST = cluster('west', { ceiling: CEILING })

/** East is somebody else's; its one registration is deployed. */
const DEPLOYED = from(
  'manifest',
  cluster('east'),
  WEST,
  registration('east-web', { audiences: [API], spiffeID: 'spiffe://example.org/east/web' }),
)

/** @param spec is laid over a registration that has nothing wrong with it, and names no cluster */
const custom = (name: string, spec: object = {}) =>
  registration(name, {
    clusters: undefined,
    audiences: [API],
    spiffeID: 'spiffe://example.org/team/web',
    ...spec,
  })
const id = (path: string) => ({ spiffeID: `spiffe://example.org${path}` })

const compile = (...objects: readonly SourcedObject[]) => compilePolicy([...objects, ...DEPLOYED], CONTEXT)

/** The token that a pod of a cluster gets, or why it gets none. */
function given(policy: Policy, name: string) {
  return reasonOr(() => {
    const wanted = { svidType: 'JWT', audience: [API], spiffeId: null } as const
    const { spiffeId, ...grant } = authorize(attestation({ cluster: name }), wanted, policy)
    return { ...grant, spiffeId: spiffeId.toString() }
  })
}

/** The same for a certificate. */
function certificateGiven(policy: Policy, name: string) {
  return reasonOr(() => {
    const wanted = { svidType: 'X509', spiffeId: null } as const
    const { spiffeId, ...grant } = authorize(attestation({ cluster: name }), wanted, policy)
    return { ...grant, spiffeId: spiffeId.toString() }
  })
}

function reasonOr<T>(decide: () => T): T | RefusalReason {
  try {
    return decide()
  } catch (error) {
    if (error instanceof Refusal) return error.reason
    throw error
  }
}
const USUAL = given(compile().policy, 'east')
const USUAL_CERTIFICATE = certificateGiven(compile().policy, 'east')

const OUTSIDE = 'outside of what the cluster may give'

describe('T-1: an object of a cluster is taken', () => {
  test.each<[string, object]>([
    ['with all that its ceiling allows, and no more', {}],
    ['with its cluster named', { clusters: ['west'] }],
    ['with an ID that is the prefix itself', id('/team')],
    ['with an ID deeper down', id('/team/a/b/{podName}')],
    ['with a variable behind the prefix', id('/team/{podName}')],
    ['with the other prefix', id('/apps/west/web')],
    ['with a variable in the prefix that can be nothing else', id('/apps/{cluster}/web')],
    [
      'with another, which its selector fixes',
      { selector: { namespace: 'team', serviceAccountName: 'a' }, ...id('/{namespace}/web') },
    ],
    ['with a shorter TTL', { ttlSeconds: 30 }],
    ['with the longest TTL', { ttlSeconds: 600 }],
    ['with the longest TTL of certificates', { x509TtlSeconds: 600 }],
    ['with a claim that is allowed', { claims: { tier: 'gold' } }],
    ['with a DNS name below the suffix', { dnsNames: ['web.team.example.org', 'a.b.team.example.org'] }],
    ['for certificates alone', { svidType: 'X509', audiences: undefined }],
  ])('%s', (_, spec) => {
    const { policy, problems, rejected } = compile(...from({ cluster: 'west' }, custom('good', spec)))
    expect([problems, [...rejected]]).toEqual([[], []])
    expect(policy.registrations.all.at(-1)).toMatchObject({ name: 'west/good', clusters: ['west'] })
    expect(given(policy, 'east')).toEqual(USUAL)
  })
})

const ESCALATIONS: readonly [string, object, string][] = [
  ['pods of another cluster', { clusters: ['east'] }, 'spec.clusters: another cluster'],
  ['pods of both clusters', { clusters: ['west', 'east'] }, 'spec.clusters: another cluster'],
  ['pods of a cluster that there is not', { clusters: ['north'] }, 'spec.clusters: there is no Cluster north'],

  ['an ID outside of the prefix', id('/admin'), `spec.spiffeID: ${OUTSIDE}`],
  ['the ID of somebody else', id('/east/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['a prefix that only begins alike', id('/team-x/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['a prefix that only begins alike, in one segment', id('/teamster'), `spec.spiffeID: ${OUTSIDE}`],
  ['a beginning of a prefix', id('/apps'), `spec.spiffeID: ${OUTSIDE}`],
  ['another end of a prefix', id('/apps/east/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['the prefix in another case', id('/Team/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['the prefix further back', id('/x/team/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['a pod name that could become the prefix', id('/{podName}/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['a pod UID that could', id('/{podUID}/web'), `spec.spiffeID: ${OUTSIDE}`],
  ['a cluster name that could', id('/{cluster}/web'), `spec.spiffeID: ${OUTSIDE}`],
  [
    'a service account that could, of any that there are',
    { selector: undefined, selectors: ['k8s:ns:team'], ...id('/{serviceAccountName}/web') },
    `spec.spiffeID: ${OUTSIDE}`,
  ],
  [
    'a namespace that could, of any that there are',
    { selector: undefined, selectors: ['k8s:sa:team'], ...id('/{namespace}/web') },
    `spec.spiffeID: ${OUTSIDE}`,
  ],
  [
    'a namespace that is demanded to be another',
    { selector: { namespace: 'other', serviceAccountName: 'team' }, ...id('/{namespace}/web') },
    `spec.spiffeID: ${OUTSIDE}`,
  ],
  ['the default ID, which nobody has allowed', { spiffeID: undefined }, `spec.spiffeID: ${OUTSIDE}`],
  [
    'the ID of a service account of the other cluster',
    id('/cluster/east/ns/{namespace}/sa/{serviceAccountName}'),
    'spec.spiffeID: names a namespace, service account or cluster that the selectors and spec.clusters do not',
  ],
  ['T-5: a node', id('/spire/agent/x'), 'spec.spiffeID: is reserved'],
  ['T-5: the reviewer', id('/spiffe-edge/reviewer/west'), 'spec.spiffeID: is reserved'],
  ['a way up', id('/team/../admin'), 'spec.spiffeID: not a SPIFFE ID: dot segment of spiffe://example.org'],
  [
    'another trust domain',
    { spiffeID: 'spiffe://other.example/team/web' },
    'spec.spiffeID: not a SPIFFE ID: missing trust domain of spiffe://example.org',
  ],
  ['T-2: an ID that others share', { sharedIdentity: true }, 'spec.sharedIdentity: is for the deployed manifest'],

  ['an audience that it may not give', { audiences: ['https://vault.example.org'] }, `spec.audiences: ${OUTSIDE}`],
  ['one that it may and one that it may not', { audiences: [API, 'b'] }, `spec.audiences: ${OUTSIDE}`],
  ['an audience that only begins alike', { audiences: [`${API}.evil.example`] }, `spec.audiences: ${OUTSIDE}`],
  ['the API server of another cluster', { audiences: ['k8s-east'] }, `spec.audiences: ${OUTSIDE}`],
  ['its own API server', { audiences: ['k8s-west'] }, `spec.audiences: ${OUTSIDE}`],
  ['T-7: this issuer', { audiences: [ISSUER] }, `spec.audiences: ${ISSUER} is reserved`],
  ['T-11: administration', { audiences: [`${ISSUER}/admin`] }, `spec.audiences: ${ISSUER}/admin is reserved`],
  ['T-7: attestation', { audiences: ['spiffe-edge'] }, 'spec.audiences: spiffe-edge is an attestation audience'],
  [
    'T-7: a combination with another',
    { audienceCombinations: [[API, 'b']] },
    'spec.audienceCombinations: b is not in spec.audiences',
  ],

  ['a longer life', { ttlSeconds: 601 }, 'spec.ttlSeconds: above what the cluster may give'],
  ['a longer life of certificates', { x509TtlSeconds: 601 }, 'spec.x509TtlSeconds: above what the cluster may give'],
  ['a claim that it may not give', { claims: { tier: 'gold', plan: 'x' } }, `spec.claims: ${OUTSIDE}`],
  ['a claim named as every object has one', { claims: { constructor: 'x' } }, `spec.claims: ${OUTSIDE}`],
  ['a DNS name that only ends alike', { dnsNames: ['evilteam.example.org'] }, `spec.dnsNames: ${OUTSIDE}`],
  ['the DNS suffix itself', { dnsNames: ['team.example.org'] }, `spec.dnsNames: ${OUTSIDE}`],
  ['the DNS suffix further forward', { dnsNames: ['a.team.example.org.evil.example'] }, `spec.dnsNames: ${OUTSIDE}`],
  ['a good DNS name and a bad one', { dnsNames: ['a.team.example.org', 'example.org'] }, `spec.dnsNames: ${OUTSIDE}`],
  [
    'life, where nobody can be asked',
    { liveness: 'tokenReview' },
    'spec.liveness: Cluster west has no spec.connection',
  ],
]

describe('T-1: an object of a cluster is left out, says why, and hinders nothing', () => {
  test.each(ESCALATIONS)('%s', (_, spec, problem) => {
    const objects = from({ cluster: 'west' }, custom('bad', spec), custom('good'))
    for (const order of [objects, objects.toReversed()]) {
      const { policy, problems, rejected } = compile(...order)
      expect(problems).toEqual([])
      expect([...rejected.keys()]).toEqual(['west/bad'])
      expect(rejected.get('west/bad')).toContain(problem)
      expect(policy.registrations.all.map(({ name }) => name).toSorted()).toEqual(['east-web', 'west/good'])
      expect(given(policy, 'east')).toEqual(USUAL)
      expect(given(policy, 'west')).toMatchObject({ spiffeId: 'spiffe://example.org/team/web' })
    }
  })

  test.each<[string, object]>([
    ['T-14: a reserved claim', { claims: { groups: 'system:masters' } }],
    ['a DNS name with a wildcard', { dnsNames: ['*.team.example.org'] }],
    ['a DNS name with an end', { dnsNames: ['web.team.example.org.'] }],
    ['a DNS name that could be an address', { dnsNames: ['10.0.0.1'] }],
    ['a DNS name in capitals', { dnsNames: ['WEB.team.example.org'] }],
    ['an empty DNS name before the suffix', { dnsNames: ['.team.example.org'] }],
    ['an audience with a blank', { audiences: [`${API} ${API}`] }],
  ])('%s does not even parse', (_, spec) => {
    expect(() => parseObject(custom('bad', spec))).toThrow(ManifestError)
  })

  test.each(['/{podName}/team', '/team/{podName}'])('T-2: where %s is deployed elsewhere, that one stays', (path) => {
    const taken = registration('taken', { audiences: ['b'], ...id(path) })
    const { problems, rejected } = compile(
      ...from({ cluster: 'west' }, custom('bad', id('/team/team'))),
      ...from('applied', taken),
    )
    expect(problems).toEqual([])
    expect(rejected.get('west/bad')).toEqual([
      'spec.spiffeID: pods of east and west could share it: put {cluster} into it, or set sharedIdentity',
    ])
  })

  test('what an administrator has forgotten in a ceiling is no way around what nobody may give', () => {
    const careless = cluster('west', {
      ceiling: { ...CEILING, spiffeIDPrefixes: ['/spire', '/team'], audiences: [`${ISSUER}/admin`, 'spiffe-edge'] },
    })
    const bad = (spec: object) =>
      compilePolicy(
        [...from('manifest', cluster('east'), careless), ...from({ cluster: 'west' }, custom('bad', spec))],
        CONTEXT,
      ).rejected.get('west/bad')
    expect(bad({ audiences: [`${ISSUER}/admin`] })).toEqual([`spec.audiences: ${ISSUER}/admin is reserved`])
    expect(bad({ audiences: ['spiffe-edge'] })).toEqual(['spec.audiences: spiffe-edge is an attestation audience'])
    expect(bad({ svidType: 'X509', audiences: [], ...id('/spire/agent/x') })).toEqual(['spec.spiffeID: is reserved'])
  })

  test('where its cluster has no ceiling', () => {
    const { policy, rejected } = compile(...from({ cluster: 'east' }, custom('bad', id('/east/x'))))
    expect(rejected.get('east/bad')).toEqual(['objects of this cluster are not read'])
    expect(given(policy, 'east')).toEqual(USUAL)
  })

  test('where its cluster is gone, whomever it names', () => {
    for (const clusters of [undefined, ['gone'], ['east'], ['west'], ['gone', 'east']]) {
      const bad = custom('bad', { clusters, ...id('/gone/{cluster}/x') })
      const { policy, problems, rejected } = compile(...from({ cluster: 'gone' }, bad))
      expect([problems, [...rejected.keys()]]).toEqual([[], ['gone/bad']])
      expect(rejected.get('gone/bad')).toContain('objects of this cluster are not read')
      expect(policy.registrations.all.map(({ name }) => name)).toEqual(['east-web'])
    }
  })

  test('with the name of an object that is deployed, which stays what it is', () => {
    const { policy, rejected } = compile(
      ...from({ cluster: 'west' }, custom('east-web', { clusters: ['east'], ...id('/team/web') })),
    )
    expect([...rejected.keys()]).toEqual(['west/east-web'])
    expect(given(policy, 'east')).toEqual(USUAL)
  })
})

describe('T-1, T-11: of a cluster, only registrations', () => {
  const admin = {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Admin',
    metadata: { name: 'mallory' },
    spec: { token: { issuer: 'https://idp.example', audience: 'a', subject: 'mallory' } },
  }
  const ban = {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Ban',
    metadata: { name: 'outage' },
    spec: { spiffeID: 'spiffe://example.org/east/web' },
  }
  test.each<[string, object]>([
    ['an administrator', admin],
    ['a ban', ban],
    ['a new cluster', cluster('north')],
    ['a cluster in the place of another', cluster('east', { issuer: 'https://evil.example' })],
    ['a ceiling for itself', cluster('west', { ceiling: { spiffeIDPrefixes: ['/east'] } })],
  ])('%s is left out', (_, object) => {
    const { policy, problems, rejected } = compile(...from({ cluster: 'west' }, object, custom('good')))
    const { kind, metadata } = object as { kind: string; metadata: { name: string } }
    expect(problems).toEqual([])
    expect([...rejected]).toEqual([[`west/${metadata.name}`, [`kind: ${kind} is not for a cluster to say`]]])
    expect({ admins: policy.admins, clusters: [...policy.clusters] }).toEqual({
      admins: [],
      clusters: [...compile().policy.clusters],
    })
    expect(given(policy, 'east')).toEqual(USUAL)
    expect(given(policy, 'west')).toMatchObject({ registration: 'west/good' })
  })

  test('T-11: an administrator names no other', () => {
    expect(compile(...from('applied', admin)).problems).toEqual(['Admin mallory: only in the deployed manifest'])
    expect(compile(...from('manifest', admin)).problems).toEqual([])
  })
})

test('T-1: whatever objects of one cluster say, pods of another get what they got, and its own never more than allowed', () => {
  const path = fc
    .array(
      fc.constantFrom(
        'team',
        'team-x',
        'east',
        'web',
        'ns',
        'sa',
        'cluster',
        '{cluster}',
        '{namespace}',
        '{serviceAccountName}',
        '{podName}',
      ),
      { minLength: 1, maxLength: 4 },
    )
    .map((segments) => `spiffe://example.org/${segments.join('/')}`)
  const spec = fc.record(
    {
      clusters: fc.uniqueArray(fc.constantFrom('east', 'west', 'north'), { minLength: 1 }),
      spiffeID: path,
      audiences: fc.uniqueArray(fc.constantFrom(API, 'b', ISSUER, 'k8s-east', 'spiffe-edge'), { minLength: 1 }),
      ttlSeconds: fc.constantFrom(30, 600, 601),
      x509TtlSeconds: fc.constantFrom(60, 600, 601),
      claims: fc.constantFrom<object>({}, { tier: 'x' }, { plan: 'x' }),
      dnsNames: fc.subarray(['a.team.example.org', 'team.example.org']),
      sharedIdentity: fc.boolean(),
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(fc.array(spec, { maxLength: 4 }), (specs) => {
      const objects = specs.flatMap((one, index) => from({ cluster: 'west' }, custom(`r${index}`, one)))
      const { policy, problems, rejected } = compile(...objects)
      expect(problems).toEqual([])
      expect(policy.registrations.all.length + rejected.size).toBe(specs.length + 1)
      expect(given(policy, 'east')).toEqual(USUAL)
      expect(certificateGiven(policy, 'east')).toEqual(USUAL_CERTIFICATE)
      const certificate = certificateGiven(policy, 'west')
      if (typeof certificate !== 'string') {
        expect(certificate.spiffeId).toMatch(/^spiffe:\/\/example\.org\/(?:team|apps\/west)(?:\/|$)/)
        expect(certificate.ttlSeconds).toBeLessThanOrEqual(600)
        expect(certificate.dnsNames.filter((name) => !name.endsWith('.team.example.org'))).toEqual([])
      }
      const got = given(policy, 'west')
      if (typeof got === 'string') return
      expect(got.spiffeId).toMatch(/^spiffe:\/\/example\.org\/(?:team|apps\/west)(?:\/|$)/)
      expect(got).toMatchObject({ audience: [API], bearer: false })
      expect(got.ttlSeconds).toBeLessThanOrEqual(600)
      expect(Object.keys(got.claims).filter((name) => name !== 'tier')).toEqual([])
    }),
    { numRuns: 500 },
  )
})

test('T-1: an object that says nothing of certificates gets the usual life of them, or what its cluster may give', () => {
  const life = (ceiling: object, source: SourcedObject['source']) => {
    const west = cluster('west', { ceiling: { ...CEILING, ...ceiling } })
    const objects = [...from('manifest', west), ...from(source, custom('one', { ttlSeconds: 30 }))]
    return compilePolicy(objects, CONTEXT).policy.registrations.all[0]?.x509TtlSeconds
  }
  expect(life({ maxTtlSeconds: 3600 }, { cluster: 'west' })).toBe(3600)
  expect(life({ maxTtlSeconds: 600 }, { cluster: 'west' })).toBe(600)
  expect(life({ maxTtlSeconds: 30 }, { cluster: 'west' })).toBe(30)
  expect(life({ maxTtlSeconds: 30 }, 'applied')).toBe(3600)
})

test('T-1, T-22: a pod gets the DNS names of its registration and no others, each once', () => {
  const dnsNames = ['web.team.example.org', 'a.team.example.org', 'web.team.example.org']
  const { policy } = compile(...from({ cluster: 'west' }, custom('good', { dnsNames })))
  expect(certificateGiven(policy, 'west')).toMatchObject({ dnsNames: ['a.team.example.org', 'web.team.example.org'] })
})

describe('T-1: the ceilings of two clusters', () => {
  const ceilings = (east: readonly string[], west: readonly string[]) =>
    problemsOf(
      cluster('east', { audiences: ['edge-east'], ceiling: { spiffeIDPrefixes: east } }),
      cluster('west', { audiences: ['edge-west'], ceiling: { spiffeIDPrefixes: west } }),
    )

  test.each([
    [['/team'], ['/team']],
    [['/team'], ['/team/shop']],
    [['/team/shop/a'], ['/x', '/team/shop']],
    [['/a', '/a/b', '/a/b/c'], ['/a/b/d']],
  ])('%j and %j have IDs in common', (east, west) => {
    expect(ceilings(east, west)).toEqual([
      expect.stringMatching(/^Cluster (?:east|west): spec\.ceiling: .* is within that of/),
    ])
  })

  test.each([
    [['/team/shop'], ['/team/shopping']],
    [['/team-x'], ['/team']],
    [['/cluster/east'], ['/cluster/west']],
  ])('%j and %j have none', (east, west) => {
    expect(ceilings(east, west)).toEqual([])
  })
})
