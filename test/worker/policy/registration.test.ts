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
    [
      'both forms of selectors',
      { selectors: ['k8s:ns:a'] },
      'spec.selector: exactly one of selector, selectors, oidc and federated',
    ],
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

describe('T-4: selectors in the forms of SPIRE', () => {
  const refused = (selectors: unknown) =>
    problemsOf(cluster('east'), registration('web', { selector: undefined, selectors }))

  test.each([
    'k8s:ns:payments',
    'k8s:sa:web',
    'k8s:pod-name:web-0',
    'k8s:pod-uid:79261129-6b60-41e9-9054-0800277ac80f',
    'k8s:node-name:node-1.example.org',
  ])('%s is taken', (selector) => {
    expect(refused([selector])).toEqual([])
    expect(compiled({ selector: undefined, selectors: ['k8s:ns:a', selector] })).toMatchObject({
      selectors: ['k8s:ns:a', selector],
      podsOf: null,
    })
  })

  test.each([
    '',
    'k8s',
    'k8s:ns',
    'k8s:ns:',
    ':ns:payments',
    'ns:payments',
    'K8S:ns:payments',
    'k8s:NS:payments',
    'k8s:ns:pay ments',
    'k8s:ns:payments\n',
    'k8s:ns:a\nk8s:sa:b',
    'k8s:ns:\u0000',
    'k8s:ns:zahl\u00e4',
    `k8s:ns:${'x'.repeat(513)}`,
    'k8s:pod-label',
    'k8s:pod-label:app',
    'k8s:pod-label::web',
    'k8s:pod-label:a p:web',
    // What SPIRE attests and we do not.
    'k8s:pod-image:web',
    'k8s:container-name:web',
    'k8s:pod-owner:Deployment:web',
    'k8s:node-label:a:b',
    'unix:uid:0',
    'k8s_psat:cluster:east',
    'spiffe://example.org/web',
  ])('%j is not', (selector) => {
    expect(refused([selector])).toEqual([
      'WorkloadRegistration web: spec.selectors.0: not a selector that is attested here',
    ])
  })

  test.each<[string, unknown]>([
    ['none at all', []],
    ['more than 256', Array.from({ length: 257 }, (_, index) => `k8s:ns:n${index}`)],
    ['a text', 'k8s:ns:a'],
    ['something that is no text', [7]],
  ])('%s are refused', (_, selectors) => {
    expect(refused(selectors)).toEqual([expect.stringMatching(/^WorkloadRegistration web: spec\.selectors/)])
  })

  describe('of a label', () => {
    const reviewed = (spec: object) =>
      cluster('east', { liveness: 'tokenReview', connection: { url: 'https://10.0.0.1:6443' }, ...spec })
    const labelled = (selector: string, record: object) =>
      problemsOf(record, registration('web', { selector: undefined, selectors: ['k8s:ns:a', selector] }))

    test('are taken where the API server is asked for just that label', () => {
      const record = reviewed({ allowedPodLabelKeys: ['app', 'example.org/tier'] })
      expect(labelled('k8s:pod-label:app:web', record)).toEqual([])
      expect(labelled('k8s:pod-label:example.org/tier:a:b', record)).toEqual([])
    })

    test.each<[string, string, object]>([
      ['that is not allowed', 'other', reviewed({ allowedPodLabelKeys: ['app'] })],
      ['that begins like an allowed one', 'app.x', reviewed({ allowedPodLabelKeys: ['app'] })],
      ['in another case', 'App', reviewed({ allowedPodLabelKeys: ['app'] })],
      ['where none is allowed', 'app', reviewed({})],
      ['where nobody is asked', 'app', cluster('east', { allowedPodLabelKeys: ['app'] })],
    ])('%s is not', (_, key, record) => {
      expect(labelled(`k8s:pod-label:${key}:web`, record)).toEqual([
        `WorkloadRegistration web: spec.selectors: the label ${key} is not attested in Cluster east`,
      ])
    })

    test('in two clusters must be attested in both', () => {
      const objects = [reviewed({ allowedPodLabelKeys: ['app'] }), cluster('west')]
      const web = registration('web', {
        clusters: ['east', 'west'],
        selector: undefined,
        selectors: ['k8s:pod-label:app:web'],
        audiences: ['a'],
      })
      expect(problemsOf(...objects, web)).toEqual([
        'WorkloadRegistration web: spec.selectors: the label app is not attested in Cluster west',
      ])
    })
  })
})

describe('T-14: extra claims', () => {
  const refused = (claims: unknown) => problemsOf(cluster('east'), registration('web', { claims }))

  test('are taken as they are', () => {
    const claims = { tier: 'gold', a: '', x_1: 'x'.repeat(256) }
    expect(compiled({ claims })).toMatchObject({ claims })
  })

  test.each(
    (
      'iss sub aud exp nbf iat jti azp nonce auth_time acr amr cnf act may_act scope scp client_id sid groups roles ' +
      'entitlements email email_verified preferred_username upn oid tid hd node_name'
    ).split(' '),
  )('%s means something already', (name) => {
    expect(refused({ [name]: 'x' })).toEqual([
      `WorkloadRegistration web: spec.claims.${name}: a claim that means something already`,
    ])
  })

  test.each([
    '',
    'ISS',
    'Sub',
    '\u017fub',
    'a b',
    'a-b',
    'a.b',
    '_a',
    '1a',
    'kubernetes.io',
    'https://a.example/b',
    'a\n',
    'x'.repeat(65),
  ])('%j is no name of one', (name) => {
    expect(refused({ [name]: 'x' })).toEqual([expect.stringContaining('not a claim name')])
  })

  test.each<[string, unknown]>([
    ['a number', { tier: 1 }],
    ['a list, as groups are', { tier: ['system:masters'] }],
    ['an object', { tier: {} }],
    ['null', { tier: null }],
    ['a text without end', { tier: 'x'.repeat(257) }],
    ['no record', ['tier']],
  ])('%s is not the value of one', (_, claims) => {
    expect(refused(claims)).toEqual([expect.stringMatching(/^WorkloadRegistration web: spec\.claims/)])
  })

  test('names that every object has are neither lost nor harmful', () => {
    expect(compiled({ claims: JSON.parse('{"constructor":"x"}') })?.claims).toEqual({ constructor: 'x' })
    const hidden = compiled({ claims: JSON.parse('{"__proto__":{"iss":"https://evil.example"}}') })
    expect([Object.keys(hidden?.claims ?? {}), Object.getPrototypeOf(hidden?.claims)]).toEqual([[], Object.prototype])
    expect(Object.prototype).not.toHaveProperty('iss')
  })
})

describe('T-22: DNS names', () => {
  const refused = (dnsNames: unknown) => problemsOf(cluster('east'), registration('web', { dnsNames }))

  test.each(['web', 'web.example.org', '1.example.org', 'xn--zahl-0qa.example', `${'a.'.repeat(126)}a`])(
    '%s is one',
    (name) => {
      expect(refused([name])).toEqual([])
    },
  )

  test.each([
    '',
    '.',
    'web.',
    '.web',
    'a..b',
    '*.example.org',
    'WEB',
    '-a',
    'a-',
    'a_b',
    'a b',
    'web\n',
    'web\u0000',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(127)}a`,
    'web/example',
    'w\u00e4b',
  ])('%j is none', (name) => {
    expect(refused([name])).toEqual([expect.stringMatching(/^WorkloadRegistration web: spec\.dnsNames\.0: /)])
  })

  test('are 32 at most', () => {
    const names = Array.from({ length: 33 }, (_, index) => `w${index}`)
    expect(refused(names.slice(1))).toEqual([])
    expect(refused(names)).toHaveLength(1)
  })
})

describe('what else a registration may say', () => {
  test('a hint of 1 to 64 printable characters', () => {
    const refused = (hint: unknown) => problemsOf(cluster('east'), registration('web', { hint })).length
    expect(['a', 'db client', 'x'.repeat(64)].map(refused)).toEqual([0, 0, 0])
    expect(['', 'x'.repeat(65), 'a\n', '\u00e4', 7].map(refused)).toEqual([1, 1, 1, 1, 1])
  })

  test('one type of SVID; where it says none, both are meant', () => {
    expect(compiled({ svidType: 'X509' })?.svidTypes).toEqual(['X509'])
    expect(compiled({ svidType: 'JWT' })?.svidTypes).toEqual(['JWT'])
    expect(compiled()?.svidTypes).toEqual(['JWT', 'X509'])
  })

  test('T-7: audiences are for tokens, so certificates need none', () => {
    const audiences = (svidType: string | undefined) =>
      problemsOf(cluster('east'), registration('web', { svidType, audiences: [] }))
    expect(audiences('X509')).toEqual([])
    for (const type of ['JWT', undefined])
      expect(audiences(type)).toEqual(['WorkloadRegistration web: spec.audiences: is empty'])
  })

  test('T-8: life, where somebody can be asked', () => {
    const asked = (spec: object) => problemsOf(cluster('east', spec), registration('web', { liveness: 'tokenReview' }))
    expect(asked({ connection: { url: 'https://10.0.0.1:6443' } })).toEqual([])
    expect(asked({})).toEqual(['WorkloadRegistration web: spec.liveness: Cluster east has no spec.connection'])
  })

  test('T-2: no cluster, where there is only one', () => {
    const web = registration('web', { clusters: undefined, audiences: ['a'] })
    expect(policyOf(cluster('north'), web).registrations.all[0]?.clusters).toEqual(['north'])
    expect(problemsOf(cluster('east'), cluster('west'), web)).toContain(
      'WorkloadRegistration web: spec.clusters: name them, there are several',
    )
    expect(problemsOf(web)).toHaveLength(1)
  })
})
