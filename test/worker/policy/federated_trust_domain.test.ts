import { describe, expect, test } from 'vitest'
import { compilePolicy } from '../../../worker/policy/manifest.ts'
import { CONTEXT, cluster, from, policyOf, problemsOf, registration } from '../../support/policy.ts'

const WEB = { bundleEndpointURL: 'https://peer.example:8443/bundle', bundleEndpointProfile: { type: 'https_web' } }

/** @param spec is laid over one that is good; an undefined member is left out */
function peer(spec: object = {}, name = 'peer') {
  return {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'FederatedTrustDomain',
    metadata: { name },
    spec: { trustDomain: 'peer.example', ...WEB, ...spec },
  }
}

const foreign = (spec: object = {}) =>
  registration('foreign', {
    clusters: undefined,
    selector: undefined,
    federated: { spiffeID: 'spiffe://peer.example/ns/*/sa/web' },
    spiffeID: 'spiffe://example.org/peer/web',
    ...spec,
  })

describe('a trust domain that is to be believed', () => {
  test.each<[string, object]>([
    ['with endpoint and profile', {}],
    ['whose endpoint has a query', { bundleEndpointURL: 'https://peer.example/?format=spiffe' }],
    ['whose bundle comes from the administrator', { bundleEndpointURL: undefined, bundleEndpointProfile: undefined }],
    ['with a bundle to begin with', { trustDomainBundle: '{"keys":[]}' }],
    ['whose name is no DNS name', { trustDomain: 'peer_1' }],
  ])('%s', (_, spec) => {
    expect(problemsOf(peer(spec))).toEqual([])
  })

  test('FE-1: trust domain, endpoint and bundle are what was written', () => {
    const { federation } = policyOf(peer({ trustDomainBundle: '{"keys":[]}' }), peer({ trustDomain: 'b' }, 'b'))
    expect([...federation.keys()]).toEqual(['peer.example', 'b'])
    expect(federation.get('peer.example')).toEqual({
      name: 'peer',
      trustDomain: 'peer.example',
      bundleEndpointUrl: WEB.bundleEndpointURL,
      bootstrapBundle: '{"keys":[]}',
      maxTokenLifetimeSeconds: 3600,
    })
  })
})

describe('12.4: refused at apply', () => {
  test.each<[string, object, string]>([
    ['no trust domain', { trustDomain: undefined }, 'spec.trustDomain: '],
    ['a trust domain with a scheme', { trustDomain: 'spiffe://peer.example' }, 'spec.trustDomain: not the name'],
    ['our own trust domain', { trustDomain: 'example.org' }, 'spec.trustDomain: is our own'],
    ['no profile', { bundleEndpointProfile: undefined }, 'spec.bundleEndpointProfile: is missing'],
    ['a profile without a URL', { bundleEndpointURL: undefined }, 'spec.bundleEndpointURL: is missing'],
    ['a misspelt profile', { bundleEndpointProfile: { type: 'https-web' } }, 'spec.bundleEndpointProfile.type: '],
    ['a profile without type', { bundleEndpointProfile: {} }, 'spec.bundleEndpointProfile.type: '],
    ['a profile as text', { bundleEndpointProfile: 'https_web' }, 'spec.bundleEndpointProfile: '],
    [
      'T-22: https_spiffe',
      { bundleEndpointProfile: { type: 'https_spiffe', endpointSPIFFEID: 'spiffe://peer.example/spire/server' } },
      'spec.bundleEndpointProfile: the worker cannot check',
    ],
    [
      'T-22: https_spiffe without endpointSPIFFEID',
      { bundleEndpointProfile: { type: 'https_spiffe' } },
      'spec.bundleEndpointProfile: the worker cannot check',
    ],
    [
      'https_web with a SPIFFE ID',
      { bundleEndpointProfile: { type: 'https_web', endpointSPIFFEID: 'spiffe://peer.example/x' } },
      'spec.bundleEndpointProfile.endpointSPIFFEID: is for https_spiffe',
    ],
    ['http', { bundleEndpointURL: 'http://peer.example' }, 'spec.bundleEndpointURL: not https'],
    ['http on this machine', { bundleEndpointURL: 'http://127.0.0.1:1' }, 'spec.bundleEndpointURL: not https'],
    ['userinfo', { bundleEndpointURL: 'https://a:b@peer.example' }, 'spec.bundleEndpointURL: has user information'],
    ['a fragment', { bundleEndpointURL: 'https://peer.example/#a' }, 'spec.bundleEndpointURL: has a fragment'],
    [
      'a bundle that is none',
      { trustDomainBundle: '{}' },
      'spec.trustDomainBundle: not an acceptable bundle: keys missing',
    ],
    [
      'BU-8: a bundle with a private key',
      { trustDomainBundle: '{"keys":[{"kty":"EC","d":"AA"}]}' },
      'spec.trustDomainBundle: not an acceptable bundle: private key',
    ],
    ['a bundle that is no text', { trustDomainBundle: { keys: [] } }, 'spec.trustDomainBundle: '],
    ['a lifetime of less than a minute', { maxTokenLifetimeSeconds: 59 }, 'spec.maxTokenLifetimeSeconds: '],
    ['a lifetime of more than a day', { maxTokenLifetimeSeconds: 86_401 }, 'spec.maxTokenLifetimeSeconds: '],
    ['a field that there is not', { classNameX: 'a' }, 'spec.classNameX: unknown field'],
  ])('%s', (_, spec, problem) => {
    expect(problemsOf(peer(spec))).toEqual([expect.stringContaining(`FederatedTrustDomain peer: ${problem}`)])
  })

  test('two objects for one trust domain', () => {
    expect(problemsOf(peer(), peer({}, 'again'))).toEqual([
      'FederatedTrustDomain again: spec.trustDomain: is that of FederatedTrustDomain peer too',
    ])
  })

  test('more than a hundred', () => {
    const peers = Array.from({ length: 102 }, (_, at) => peer({ trustDomain: `peer-${at}` }, `peer-${at}`))
    expect(problemsOf(...peers.slice(2))).toEqual([])
    expect(problemsOf(...peers)).toEqual([
      'FederatedTrustDomain peer-100: spec.trustDomain: is one more than the 100 that there may be',
      'FederatedTrustDomain peer-101: spec.trustDomain: is one more than the 100 that there may be',
    ])
  })

  test('T-1: in a cluster', () => {
    const objects = [
      ...from('manifest', cluster('west', { ceiling: { spiffeIDPrefixes: ['/west'] } })),
      ...from({ cluster: 'west' }, peer()),
    ]
    const { policy, rejected } = compilePolicy(objects, CONTEXT)
    expect(policy.federation.size).toBe(0)
    expect([...rejected.keys()]).toEqual(['west/peer'])
  })
})

describe('a registration for workloads of another trust domain', () => {
  test('is good', () => {
    expect(problemsOf(peer(), foreign())).toEqual([])
  })

  test.each<[string, object, string]>([
    [
      'a pattern of a trust domain',
      { federated: { spiffeID: 'spiffe://*/web' } },
      'spec.federated.spiffeID: not a pattern',
    ],
    [
      'a part of a trust domain',
      { federated: { spiffeID: 'spiffe://peer.*/web' } },
      'spec.federated.spiffeID: not a pattern',
    ],
    [
      'a trust domain alone',
      { federated: { spiffeID: 'spiffe://peer.example' } },
      'spec.federated.spiffeID: not a pattern',
    ],
    [
      'a trust domain that runs on',
      { federated: { spiffeID: 'spiffe://peer.example**' } },
      'spec.federated.spiffeID: not a pattern',
    ],
    ['what is no SPIFFE ID', { federated: { spiffeID: '**' } }, 'spec.federated.spiffeID: not a pattern'],
    [
      'a path that can be none',
      { federated: { spiffeID: 'spiffe://peer.example//web' } },
      'spec.federated.spiffeID: not a pattern',
    ],
    [
      'three wildcards',
      { federated: { spiffeID: 'spiffe://peer.example/*/*/*' } },
      'spec.federated.spiffeID: has more than two',
    ],
    [
      'another trust domain',
      { federated: { spiffeID: 'spiffe://other.example/web' } },
      'spec.federated.spiffeID: there is no FederatedTrustDomain for other.example',
    ],
    [
      'our own trust domain',
      { federated: { spiffeID: 'spiffe://example.org/web' } },
      'spec.federated.spiffeID: there is no FederatedTrustDomain for example.org',
    ],
    ['no SPIFFE ID', { spiffeID: undefined }, 'spec.federated: needs spec.spiffeID'],
    ['clusters', { clusters: ['east'] }, 'spec.federated: needs spec.spiffeID'],
    ['a selector too', { selectors: ['k8s:ns:a'] }, 'spec.selector: exactly one of'],
    ['liveness', { liveness: 'tokenReview' }, 'spec.liveness: only a pod'],
    ['a variable', { spiffeID: 'spiffe://example.org/{namespace}' }, 'spec.spiffeID: only a pod'],
    [
      'federatesWith a stranger',
      { federatesWith: ['other.example'] },
      'spec.federatesWith: there is no FederatedTrustDomain for other.example',
    ],
    [
      'federatesWith one twice',
      { federatesWith: ['peer.example', 'peer.example'] },
      'spec.federatesWith: names one twice',
    ],
  ])('%s: refused', (_, spec, problem) => {
    expect(problemsOf(peer(), foreign(spec)).join()).toContain(problem)
  })

  test('T-2: shares no SPIFFE ID with pods', () => {
    const pods = registration('pods', { spiffeID: 'spiffe://example.org/peer/web' })
    expect(problemsOf(cluster('east'), peer(), pods, foreign())).toEqual([
      expect.stringContaining('pods of east and trust domain peer.example could share it'),
    ])
  })
})

describe('T-1: what a cluster may say of other trust domains', () => {
  const rejectedOf = (object: object, ceiling: object = {}) => {
    const objects = [
      ...from(
        'manifest',
        peer(),
        cluster('east', { ceiling: { spiffeIDPrefixes: ['/ns'], audiences: ['a'], ...ceiling } }),
      ),
      ...from({ cluster: 'east' }, object),
    ]
    return [...compilePolicy(objects, CONTEXT).rejected.values()].flat()
  }
  const live = registration('live', { clusters: undefined, audiences: ['a'], federatesWith: ['peer.example'] })

  test('nothing by default', () => {
    expect(rejectedOf(live)).toEqual(['spec.federatesWith: outside of what the cluster may give'])
  })

  test('what its ceiling lists', () => {
    expect(rejectedOf(live, { federatesWith: ['peer.example'] })).toEqual([])
  })

  test('never that their workloads get an identity', () => {
    const object = foreign({ audiences: ['a'], spiffeID: 'spiffe://example.org/ns/web' })
    expect(rejectedOf(object, { federatesWith: ['peer.example'] })).toContain('spec.clusters: another cluster')
  })
})
