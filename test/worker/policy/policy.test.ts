import { describe, expect, test } from 'vitest'
import { cluster, ISSUER, policyOf, problemsOf, registration } from '../../support/policy.ts'
import { respelledKeys } from '../../support/tokens.ts'

const SHARED = 'https://kubernetes.default.svc.cluster.local'

/** RFC 7515 A.3. */
const KEY = {
  kty: 'EC',
  crv: 'P-256',
  kid: 'one',
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
  y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
}
/** RFC 7517 A.1. */
const OTHER = {
  x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4',
  y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM',
}

/** @param changes to one public key, a key for each */
const inline = (...changes: readonly object[]) => ({
  jwks: { inline: { keys: changes.map((change) => ({ ...KEY, ...change })) } },
})

test('a cluster and a registration that have nothing wrong with them pass', () => {
  expect(problemsOf(cluster('east'), registration('web'))).toEqual([])
})

describe('where a cluster may be', () => {
  test('T-6: not at this issuer, whose SVIDs would come back as subject tokens', () => {
    for (const jwks of [{ discovery: true }, { url: 'https://elsewhere.example/keys' }])
      expect(problemsOf(cluster('east', { issuer: ISSUER, jwks }))).toEqual([
        'Cluster east: spec.issuer: is this issuer itself',
      ])
  })

  test.each([
    ['http://east.example.net', 'not https'],
    ['https://east.example.net?a', 'has a query'],
    ['https://east.example.net/#a', 'has a fragment'],
    ['https://a:b@east.example.net', 'has user information'],
    ['https://EAST.example.net', 'not in its normal form'],
    ['kubernetes/serviceaccount', 'not a URL'],
  ])('OD-4: the issuer %s cannot be discovered: %s', (issuer, problem) => {
    expect(problemsOf(cluster('east', { issuer }))).toEqual([`Cluster east: spec.issuer: ${problem}`])
    // Where nothing is fetched from it an issuer is just a name.
    expect(problemsOf(cluster('east', { issuer, ...inline({}) }))).toEqual([])
  })

  test.each([
    ['http://10.0.0.1/keys', 'not https'],
    ['http://localhost/keys', 'not https'],
    ['https://user@east.example.net/keys', 'has user information'],
    ['file:///etc/keys', 'not https'],
    ['', 'not a URL'],
  ])('12.6: keys cannot be fetched from %j: %s', (url, problem) => {
    expect(problemsOf(cluster('east', { jwks: { url } }))).toEqual([`Cluster east: spec.jwks.url: ${problem}`])
  })
})

describe('T-3: issuer and audience select one record', () => {
  test('two clusters may share an issuer if no audience is shared', () => {
    const one = cluster('one', { issuer: SHARED, ...inline({}), audiences: ['edge-one'] })
    const two = cluster('two', {
      issuer: SHARED,
      ...inline({ kid: 'two', ...OTHER }),
      audiences: ['edge-two', 'other'],
    })
    expect(problemsOf(one, two)).toEqual([])
  })

  test('or an audience, if no issuer is shared', () => {
    expect(problemsOf(cluster('one'), cluster('two'))).toEqual([])
  })

  test('but not both', () => {
    const one = cluster('one', { issuer: SHARED, ...inline({}), audiences: ['a', 'edge'] })
    const two = cluster('two', { issuer: SHARED, ...inline({ kid: 'two', ...OTHER }), audiences: ['edge', 'b'] })
    expect(problemsOf(one, two)).toEqual([
      "Cluster one: spec.audiences: edge is another cluster's too, and the issuer is shared",
      "Cluster two: spec.audiences: edge is another cluster's too, and the issuer is shared",
    ])
  })
})

test('T-3: audiences of clusters that share an issuer are unique over all records, not only over those', () => {
  const one = cluster('one', { issuer: SHARED, ...inline({}), audiences: ['edge-one'] })
  const two = cluster('two', { issuer: SHARED, ...inline({ kid: 'two', ...OTHER }), audiences: ['edge-two'] })
  expect(problemsOf(one, two, cluster('three', { audiences: ['edge-two'] }))).toEqual([
    "Cluster two: spec.audiences: edge-two is another cluster's too, and the issuer is shared",
  ])
})

describe('T-3: a key stands in one record', () => {
  const first = cluster('one', inline({}))

  test('two clusters with keys of their own pass', () => {
    expect(problemsOf(first, cluster('two', inline({ kid: 'two', ...OTHER })))).toEqual([])
  })

  test.each<[string, object]>([
    ['the same key', {}],
    ['the same kid over another key', { ...OTHER }],
    ['the same key under another kid', { kid: 'two' }],
    ['the same key with another alg', { kid: 'two', alg: 'ES256' }],
    ...Object.entries(respelledKeys).map(([what, respell]): [string, object] => [
      `the same key ${what}`,
      { ...respell(KEY), kid: 'two' },
    ]),
  ])('%s in two records is refused', (_, member) => {
    const problems = problemsOf(first, cluster('two', inline(member)))
    expect(problems).toContainEqual(expect.stringMatching(/^Cluster two: spec\.jwks\.inline: /))
  })

  test('RFC 7517 §5: keys of kinds that nobody reads here are no concern', () => {
    const others = (...names: readonly string[]) =>
      names.map((name) => ({
        kty: 'AKP',
        alg: 'ML-DSA-44',
        kid: name,
        crv: undefined,
        x: undefined,
        y: undefined,
        pub: name,
      }))
    const one = cluster('one', inline({}, ...others('a', 'b')))
    const two = cluster('two', inline({ kid: 'two', ...OTHER }, ...others('c')))
    expect(problemsOf(one, two)).toEqual([])
  })

  test('one kid twice in one record is refused', () => {
    const problems = problemsOf(cluster('one', inline({}, { ...OTHER })))
    expect(problems).toEqual(['Cluster one: spec.jwks.inline: a key or kid stands in Cluster one too'])
  })
})

describe('inline keys', () => {
  test.each<[string, object, string]>([
    ['none at all', inline(), 'has no keys'],
    ['BU-8: a private EC key', inline({ d: 'AAAA' }), 'holds a private key'],
    ['BU-8: a shared key', inline({ kty: 'oct', k: 'AAAA' }), 'holds a private key'],
    ['no kid', inline({ kid: undefined }), 'a key has no kid'],
    ['an empty kid', inline({ kid: '' }), 'a key has no kid'],
    ['a kid that is no text', inline({ kid: 1 }), 'a key has no kid'],
  ])('%s: refused', (_, spec, problem) => {
    expect(problemsOf(cluster('east', spec))).toEqual([`Cluster east: spec.jwks.inline: ${problem}`])
  })
})

describe('T-7: an audience has one kind', () => {
  test.each([ISSUER, `${ISSUER}/`, `${ISSUER}/admin`, `${ISSUER}/reviewer/east`])('%s is reserved', (audience) => {
    expect(problemsOf(cluster('east', { audiences: [audience] }))).toEqual([
      `Cluster east: spec.audiences: ${audience} is reserved`,
    ])
    expect(problemsOf(cluster('east', { apiServer: { audiences: [audience] } }))).toEqual([
      `Cluster east: spec.apiServer.audiences: ${audience} is reserved`,
    ])
    expect(problemsOf(cluster('east'), registration('web', { audiences: [audience] }))).toEqual([
      `WorkloadRegistration web: spec.audiences: ${audience} is reserved`,
    ])
  })

  test.each([`${ISSUER}.example`, `${ISSUER}-other`, 'https://api.example.org'])('%s is not', (audience) => {
    expect(problemsOf(cluster('east'), registration('web', { audiences: [audience] }))).toEqual([])
  })

  test('an attestation audience cannot be granted, whichever cluster it is of', () => {
    const objects = [cluster('east'), cluster('west', { audiences: ['edge-west'] })]
    for (const audience of ['spiffe-edge', 'edge-west'])
      expect(problemsOf(...objects, registration('web', { audiences: ['k8s-east', audience] }))).toEqual([
        `WorkloadRegistration web: spec.audiences: ${audience} is an attestation audience`,
      ])
  })

  test('nor can it be that of an API server', () => {
    const objects = [cluster('east', { audiences: ['k8s-west'] }), cluster('west')]
    expect(problemsOf(...objects)).toEqual([
      'Cluster west: spec.apiServer.audiences: k8s-west is an attestation audience',
    ])
    expect(problemsOf(cluster('east', { audiences: ['k8s'] }))).toEqual([
      'Cluster east: spec.apiServer.audiences: k8s is an attestation audience',
    ])
  })

  test('two API servers have no audience in common, and none by default', () => {
    const explicit = { apiServer: { audiences: ['k8s'] } }
    expect(problemsOf(cluster('east', explicit), cluster('west', explicit))).toEqual([
      "Cluster east: spec.apiServer.audiences: k8s is another cluster's too",
      "Cluster west: spec.apiServer.audiences: k8s is another cluster's too",
    ])
    expect(problemsOf(cluster('east', { apiServer: { audiences: ['k8s-west'] } }), cluster('west'))).toHaveLength(2)
  })
})

describe('T-7: combinations of audiences', () => {
  const combined = (audiences: readonly string[], ...audienceCombinations: readonly (readonly string[])[]) =>
    problemsOf(cluster('east'), registration('web', { audiences, audienceCombinations }))

  test('of the registration may be listed', () => {
    expect(combined(['a', 'b', 'c'], ['a', 'b'], ['a', 'b', 'c'])).toEqual([])
  })

  test('of others may not', () => {
    expect(combined(['a'], ['a', 'b'])).toEqual([
      'WorkloadRegistration web: spec.audienceCombinations: b is not in spec.audiences',
    ])
  })

  test('never hold the audience of an API server', () => {
    expect(combined(['a', 'k8s'], ['a', 'k8s'])).toEqual([
      "WorkloadRegistration web: spec.audienceCombinations: k8s is an API server's and goes with nothing else",
    ])
  })
})

describe('T-2: whose identity it is', () => {
  const two = [cluster('east'), cluster('west')]
  const inBoth = (spec: object) =>
    problemsOf(...two, registration('web', { clusters: ['east', 'west'], audiences: ['a'], ...spec }))
  const shared = 'could share it: put {cluster} into it, or set sharedIdentity'

  test('a registration names clusters that there are', () => {
    expect(problemsOf(cluster('east'), registration('web', { clusters: ['north'] }))).toEqual([
      'WorkloadRegistration web: spec.clusters: there is no Cluster north',
    ])
  })

  test('the default has the cluster in it where there are several, and only there', () => {
    const path = (...objects: readonly object[]) =>
      policyOf(...objects, registration('web', { audiences: ['a'] }))
        .registrations.all[0]?.template.segments.map((segment) =>
          'literal' in segment ? segment.literal : `{${segment.variable}}`,
        )
        .join('/')
    expect(path(cluster('east'))).toBe('ns/{namespace}/sa/{serviceAccountName}')
    expect(path(...two)).toBe('cluster/{cluster}/ns/{namespace}/sa/{serviceAccountName}')
  })

  test.each([
    ['the default', {}],
    ['a template with the cluster', { spiffeID: 'spiffe://example.org/{cluster}/web' }],
    ['sharedIdentity', { spiffeID: 'spiffe://example.org/web', sharedIdentity: true }],
  ])('one that matches in two clusters passes with %s', (_, spec) => {
    expect(inBoth(spec)).toEqual([])
  })

  test.each([
    'spiffe://example.org/web',
    'spiffe://example.org/{podName}/{podUID}',
    'spiffe://example.org/cluster-{cluster}',
  ])('%s in two clusters is refused', (spiffeID) => {
    const problems = inBoth({ spiffeID })
    expect(problems).toHaveLength(1)
    if (spiffeID.includes('cluster-')) expect(problems[0]).toContain('bad path character')
    else expect(problems[0]).toBe(`WorkloadRegistration web: spec.spiffeID: pods of east and west ${shared}`)
  })

  test.each([
    ['the same literal', '/web', '/web'],
    ['a literal that a variable can take', '/a/{podName}', '/a/web'],
    ['a literal that a selector gives', '/a/{namespace}', '/a/payments-namespace'],
    ['two variables', '/{podUID}/x', '/{podName}/x'],
    ["the other cluster's name as a literal", '/{cluster}/x', '/{podName}/x'],
  ])('two registrations of two clusters with %s are refused', (_, east, west) => {
    const problems = problemsOf(
      ...two,
      registration('one', { clusters: ['east'], audiences: ['a'], spiffeID: `spiffe://example.org${east}` }),
      registration('two', {
        clusters: ['west'],
        audiences: ['a'],
        spiffeID: `spiffe://example.org${west}`,
      }),
    )
    expect(problems).toEqual([`WorkloadRegistration two: spec.spiffeID: pods of east and west ${shared}`])
  })

  test('the shape that an API server maps to names says which cluster it is of, where there are several', () => {
    const problem =
      'WorkloadRegistration web: spec.spiffeID: with several clusters, /ns/…/sa/… does not say whose: begin with /cluster/{cluster}, or set sharedIdentity'
    for (const path of ['/ns/{namespace}/sa/{serviceAccountName}', '/ns/payments-namespace/sa/checkout-account']) {
      const web = (spec: object) =>
        registration('web', { audiences: ['a'], spiffeID: `spiffe://example.org${path}`, ...spec })
      expect(problemsOf(...two, web({}))).toEqual([problem])
      expect(problemsOf(...two, web({ sharedIdentity: true }))).toEqual([])
      expect(problemsOf(cluster('east'), web({}))).toEqual([])
    }
  })

  test('sharedIdentity must be written in both', () => {
    const share = (one: boolean, other: boolean) =>
      problemsOf(
        ...two,
        registration('one', {
          clusters: ['east'],
          audiences: ['a'],
          spiffeID: 'spiffe://example.org/x',
          sharedIdentity: one,
        }),
        registration('two', {
          clusters: ['west'],
          audiences: ['a'],
          spiffeID: 'spiffe://example.org/x',
          sharedIdentity: other,
        }),
      )
    expect([
      share(true, true),
      share(false, false).length,
      share(true, false).length,
      share(false, true).length,
    ]).toEqual([[], 1, 1, 1])
  })

  test('within one cluster two registrations may give one identity', () => {
    const one = registration('one', { spiffeID: 'spiffe://example.org/x' })
    const other = registration('other', {
      spiffeID: 'spiffe://example.org/x',
      selector: { namespace: 'other', serviceAccountName: 'other' },
    })
    expect(problemsOf(cluster('east'), one, other)).toEqual([])
  })
})

describe('T-2: an ID of the mapped shapes says what is attested', () => {
  const attested = 'names a namespace, service account or cluster that the selectors and spec.clusters do not'
  const given = (path: string, selector?: object) =>
    problemsOf(
      cluster('east'),
      registration('web', { spiffeID: `spiffe://example.org${path}`, ...(selector && { selector }) }),
    )

  test.each([
    '/ns/{namespace}/sa/{serviceAccountName}',
    '/ns/payments-namespace/sa/checkout-account',
    '/ns/payments-namespace/sa/{serviceAccountName}',
    '/cluster/east/ns/payments-namespace/sa/checkout-account',
    '/cluster/{cluster}/ns/{namespace}/sa/{serviceAccountName}',
    // Other shapes, which are not mapped.
    '/ns/kube-system/sa/admin/x',
    '/ns/kube-system',
    '/a/ns/kube-system/sa/admin',
    '/NS/kube-system/sa/admin',
  ])('%s passes', (path) => {
    expect(given(path)).toEqual([])
  })

  test.each([
    '/ns/kube-system/sa/admin',
    '/ns/{namespace}/sa/admin',
    '/ns/kube-system/sa/{serviceAccountName}',
    '/ns/{podName}/sa/{serviceAccountName}',
    '/ns/{namespace}/sa/{podName}',
    '/ns/{serviceAccountName}/sa/{namespace}',
    '/cluster/west/ns/{namespace}/sa/{serviceAccountName}',
    '/cluster/{namespace}/ns/{namespace}/sa/{serviceAccountName}',
    '/cluster/{cluster}/ns/{namespace}/sa/admin',
  ])('%s does not', (path) => {
    expect(given(path)).toEqual([`WorkloadRegistration web: spec.spiffeID: ${attested}`])
  })

  test('a literal namespace needs a selector that demands it', () => {
    expect(
      given('/ns/payments-namespace/sa/checkout-account', {
        namespace: 'other',
        serviceAccountName: 'checkout-account',
      }),
    ).toEqual([`WorkloadRegistration web: spec.spiffeID: ${attested}`])
  })
})

describe('T-5: reserved IDs', () => {
  test.each(['/spire/server', '/spire/agent/{podUID}', '/spire', '/spiffe-edge/reviewer/{cluster}', '/spiffe-edge'])(
    '%s is refused',
    (path) => {
      expect(problemsOf(cluster('east'), registration('web', { spiffeID: `spiffe://example.org${path}` }))).toEqual([
        'WorkloadRegistration web: spec.spiffeID: is reserved',
      ])
    },
  )
})

describe('T-10: what a record says of its API server', () => {
  const connection = { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }

  test.each<[string, object, readonly string[]]>([
    ['a connection', { connection }, []],
    ['one over the public internet', { connection: { url: 'https://east.example.net/' } }, []],
    ['http', { connection: { url: 'http://10.0.0.1:6443' } }, ['spec.connection.url: not https']],
    ['a path', { connection: { url: 'https://10.0.0.1/api' } }, ['spec.connection.url: has a path']],
    [
      'keys by a connection that there is not',
      { jwks: { connection: true } },
      ['spec.jwks.connection: needs spec.connection'],
    ],
    ['liveness without one', { liveness: 'tokenReview' }, ['spec.liveness: needs spec.connection']],
    [
      'nodes without one',
      { serviceAccountAllowList: ['a:b'] },
      ['spec.serviceAccountAllowList: needs spec.connection'],
    ],
    [
      'no audiences, and no nodes',
      { connection, audiences: [] },
      ['spec.audiences: is empty, which is for node attestation: needs spec.serviceAccountAllowList'],
    ],
    ['no audiences, with nodes', { connection, audiences: [], serviceAccountAllowList: ['a:b'] }, []],
    [
      'keys that a client would have to fetch',
      { connection, jwks: { connection: true }, reviewer: 'client' },
      ['spec.jwks.connection: needs a reviewer other than client, who has no token to be verified with yet'],
    ],
  ])('%s', (_, spec, problems) => {
    expect(problemsOf(cluster('east', spec))).toEqual(problems.map((problem) => `Cluster east: ${problem}`))
  })

  test('T-3: two records do not read their keys at one place', () => {
    const spec = { connection, jwks: { connection: true } }
    expect(problemsOf(cluster('east', spec), cluster('west', spec))).toEqual([
      'Cluster west: spec.connection: the keys would be those of Cluster east',
    ])
  })

  test.each(['KEY_STATE', 'cluster_east', 'CLUSTER_', 'AWS_SECRET_ACCESS_KEY', 'CLUSTER_A\n'])(
    'a binding that is called %j is reached by no record',
    (binding) => {
      for (const spec of [
        { connection: { ...connection, binding } },
        { connection, reviewer: { secret: binding } },
        { connection, reviewer: { file: { binding, path: 'token' } } },
      ])
        expect(problemsOf(cluster('east', spec))).not.toEqual([])
    },
  )
})
