import { describe, expect, test } from 'vitest'
import { isPodOf } from '../../../worker/policy/registration.ts'
import { cluster, policyOf, problemsOf, registration } from '../../support/policy.ts'

/** @returns the compiled registration */
function compiled(spec: object = {}) {
  return policyOf(cluster('east'), registration('web', spec)).registrations.all[0]
}

test('D7: a registration that says little gives short-lived SVIDs for one audience', () => {
  expect(compiled()).toMatchObject({
    name: 'web',
    clusters: ['east'],
    source: 'manifest',
    selectors: ['k8s:ns:payments-namespace', 'k8s:sa:checkout-account'],
    podsOf: null,
    svidTypes: ['JWT', 'X509'],
    claims: {},
    dnsNames: [],
    hint: null,
    liveness: 'none',
    audiences: ['k8s'],
    audienceCombinations: [],
    ttlSeconds: 300,
    alg: null,
    sharedIdentity: false,
  })
})

test('a registration that says everything is taken at its word', () => {
  const spec = {
    selector: { namespace: 'shop', serviceAccountName: 'cart', podName: 'web' },
    svidType: 'JWT',
    spiffeID: 'spiffe://example.org/web/{podUID}',
    audiences: ['a', 'b'],
    audienceCombinations: [['b', 'a']],
    ttlSeconds: 3600,
    alg: 'RS256',
    sharedIdentity: true,
  }
  expect(compiled(spec)).toMatchObject({
    selectors: ['k8s:ns:shop', 'k8s:sa:cart'],
    podsOf: 'web',
    svidTypes: ['JWT'],
    template: { segments: [{ literal: 'web' }, { variable: 'podUID' }] },
    audiences: ['a', 'b'],
    audienceCombinations: [new Set(['a', 'b'])],
    ttlSeconds: 3600,
    alg: 'RS256',
    sharedIdentity: true,
  })
})

describe('the schema', () => {
  test.each<[string, object, string]>([
    ['T-2: an empty list of clusters', { clusters: [] }, 'spec.clusters: '],
    ['T-2: a cluster twice', { clusters: ['east', 'east'] }, 'spec.clusters: names a cluster twice'],
    ['T-2: any cluster', { clusters: ['*'] }, 'spec.clusters.0: not a DNS label'],
    ['T-4: no selector', { selector: undefined }, 'spec.selector: '],
    ['T-4: a selector without a namespace', { selector: { serviceAccountName: 'b' } }, 'spec.selector.namespace: '],
    [
      'T-4: a selector that is null',
      { selector: { namespace: null, serviceAccountName: 'b' } },
      'spec.selector.namespace: ',
    ],
    [
      'T-4: any namespace',
      { selector: { namespace: '*', serviceAccountName: 'b' } },
      'spec.selector.namespace: not a Kubernetes name',
    ],
    [
      'T-4: an empty namespace',
      { selector: { namespace: '', serviceAccountName: 'b' } },
      'spec.selector.namespace: not a Kubernetes name',
    ],
    [
      'T-4: an uppercase namespace',
      { selector: { namespace: 'A', serviceAccountName: 'b' } },
      'spec.selector.namespace: not a Kubernetes name',
    ],
    [
      'T-4: labels, which a pod chooses for itself',
      { selector: { namespace: 'a', serviceAccountName: 'b', labels: { app: 'web' } } },
      'spec.selector.labels: unknown field',
    ],
    ['an unknown field', { spiffeId: 'spiffe://example.org/x' }, 'spec.spiffeId: unknown field'],
    ['a type of SVID that there is none of', { svidType: 'WIT' }, 'spec.svidType: '],
    ['both forms of selectors', { selectors: ['k8s:ns:a'] }, 'spec.selector: either selector or selectors'],
    ['T-7: no audiences', { audiences: undefined }, 'spec.audiences: '],
    ['T-7: an empty list of audiences', { audiences: [] }, 'spec.audiences: '],
    ['T-7: an empty audience', { audiences: [''] }, 'spec.audiences.0: not 1 to 512 printable characters'],
    [
      'T-7: an audience with a control character',
      { audiences: ['a\u0000'] },
      'spec.audiences.0: not 1 to 512 printable characters',
    ],
    ['T-7: a combination of one', { audienceCombinations: [['k8s']] }, 'spec.audienceCombinations.0: '],
    ['T-8: a TTL of 29 s', { ttlSeconds: 29 }, 'spec.ttlSeconds: '],
    ['T-8: a TTL above an hour', { ttlSeconds: 3601 }, 'spec.ttlSeconds: '],
    ['T-8: a TTL with a fraction', { ttlSeconds: 60.5 }, 'spec.ttlSeconds: '],
    ['T-8: a TTL as a text', { ttlSeconds: '300' }, 'spec.ttlSeconds: '],
    ['JS-2: an algorithm that is none of the nine', { alg: 'EdDSA' }, 'spec.alg: '],
    ['JS-2: no algorithm', { alg: 'none' }, 'spec.alg: '],
    ['T-2: sharedIdentity as a text, which would be true', { sharedIdentity: 'false' }, 'spec.sharedIdentity: '],
    ['a SPIFFE ID of another trust domain', { spiffeID: 'spiffe://other.example/x' }, 'spec.spiffeID: '],
    ['a SPIFFE ID without a path', { spiffeID: 'spiffe://example.org' }, 'spec.spiffeID: '],
    ['no SPIFFE ID at all', { spiffeID: 'web' }, 'spec.spiffeID: '],
  ])('%s is refused', (_, spec, problem) => {
    const problems = problemsOf(cluster('east'), registration('web', spec))
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(`WorkloadRegistration web: ${problem}`)
  })

  test('T-8: TTLs of 30 s and of an hour are taken', () => {
    for (const ttlSeconds of [30, 3600])
      expect(problemsOf(cluster('east'), registration('web', { ttlSeconds }))).toEqual([])
  })

  test('T-4: a namespace and a service account are needed, and enough', () => {
    const selected = (selector: object) => problemsOf(cluster('east'), registration('web', { selector }))
    expect(selected({ namespace: 'a', serviceAccountName: 'a.b' })).toEqual([])
    for (const selector of [{ namespace: 'a' }, { namespace: 'a', podName: 'web-1' }])
      expect(selected(selector)).toEqual([expect.stringContaining('spec.selector.serviceAccountName: ')])
    for (const selector of [{ serviceAccountName: 'a.b' }, { serviceAccountName: 'a', podName: 'web-1' }])
      expect(selected(selector)).toEqual([expect.stringContaining('spec.selector.namespace: ')])
  })
})

describe('T-4: the pods of a workload called web', () => {
  test.each([
    ['web', 'itself'],
    ['web-67c559dbb7-r5d5s', 'of a Deployment'],
    ['web-9-r5d5s', 'of a Deployment with a short hash'],
    ['web-r5d5s', 'of a ReplicaSet, Job or DaemonSet'],
    ['web-0', 'of a StatefulSet'],
    ['web-10', 'of a StatefulSet'],
    ['web-2147483647', 'of a StatefulSet'],
  ])('%s is one, %s', (name) => {
    expect(isPodOf(name, 'web')).toBe(true)
  })

  test.each([
    '',
    'we',
    'web-',
    'webs',
    'web0',
    'web-admin',
    'web-abcde',
    'web-r5d5',
    'web-r5d5ss',
    'web-r5d5s-',
    'web-R5D5S',
    'web-00',
    'web-01',
    'web--1',
    'web-1-1',
    'web-67c559dbb7c-r5d5s',
    'web-admin-67c559dbb7-r5d5s',
    'web-67c559dbb7-r5d5s-r5d5s',
    'my-web',
    'my-web-r5d5s',
    'web-r5d5s\n',
    'web.r5d5s',
  ])('%j is none', (name) => {
    expect(isPodOf(name, 'web')).toBe(false)
  })

  test('what is special in patterns is not special in names', () => {
    expect(isPodOf('aXb-0', 'a.b')).toBe(false)
    expect(isPodOf('a.b-0', 'a.b')).toBe(true)
  })
})
