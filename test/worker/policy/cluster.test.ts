import { describe, expect, test } from 'vitest'
import { cluster, policyOf, problemsOf } from '../../support/policy.ts'

const PEM = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUfY==\n-----END CERTIFICATE-----\n'
const JWK = { kty: 'EC', crv: 'P-256', kid: 'one', x: 'A'.repeat(43), y: 'E'.repeat(43) }

/** @returns the compiled record of a cluster with this spec */
function compiled(name: string, spec: object = {}, ...others: readonly object[]) {
  return policyOf(cluster(name, spec), ...others).clusters.get(name)
}

/** What a record says that never talks to its API server. */
const NO_API_SERVER = {
  connection: null,
  reviewer: { by: 'self' },
  liveness: 'none',
  ceiling: null,
  serviceAccountAllowList: [],
  allowedNodeLabelKeys: [],
  allowedPodLabelKeys: [],
  usePodUIDForAgentID: false,
}

test('T-3: a record that says little is a cluster with cautious defaults', () => {
  expect(compiled('east')).toEqual({
    name: 'east',
    issuer: 'https://east.example.net',
    keySource: { from: 'discovery' },
    audiences: ['spiffe-edge'],
    maxTokenLifetimeSeconds: 7200,
    requireBoundPod: true,
    ...NO_API_SERVER,
    kubespiffe: false,
    apiServerAudiences: ['k8s'],
    certificateAuthority: null,
  })
})

test('T-7: the default audience of the API server names the cluster where there are several', () => {
  const { clusters } = policyOf(cluster('east'), cluster('west'))
  expect([...clusters.values()].map(({ apiServerAudiences }) => apiServerAudiences)).toEqual([
    ['k8s-east'],
    ['k8s-west'],
  ])
})

test('a record that says everything is taken at its word', () => {
  const spec = {
    issuer: 'https://kubernetes.default.svc.cluster.local',
    jwks: { url: 'https://east.example.net/keys' },
    audiences: ['a', 'b'],
    maxTokenLifetimeSeconds: 600,
    requireBoundPod: false,
    kubespiffe: true,
    apiServer: { audiences: ['api-a', 'api-b'], certificateAuthority: PEM + PEM },
  }
  expect(compiled('east', spec)).toEqual({
    name: 'east',
    issuer: spec.issuer,
    keySource: { from: 'url', url: 'https://east.example.net/keys' },
    audiences: ['a', 'b'],
    maxTokenLifetimeSeconds: 600,
    requireBoundPod: false,
    ...NO_API_SERVER,
    kubespiffe: true,
    apiServerAudiences: ['api-a', 'api-b'],
    certificateAuthority: PEM + PEM,
  })
})

test('T-10: a record may carry its keys', () => {
  expect(compiled('east', { jwks: { inline: { keys: [JWK] } } })?.keySource).toEqual({ from: 'inline', keys: [JWK] })
})

describe('a cluster has a name that is one path segment', () => {
  test.each(['a', '0', 'east-1', 'a'.repeat(63)])('%s is taken', (name) => {
    expect(problemsOf(cluster(name))).toEqual([])
  })

  test.each(['', '-a', 'a-', 'A', 'a.b', 'a/b', 'a_b', '..', 'ä', 'a\n', 'a'.repeat(64)])('%j is not', (name) => {
    expect(problemsOf(cluster(name))).toEqual([`Cluster ${name}: metadata.name: not a DNS label`])
  })
})

describe('the schema', () => {
  test.each<[string, object, string]>([
    ['an unknown field', { issuers: [] }, 'Cluster east: spec.issuers: unknown field'],
    ['a field of JavaScript itself', { constructor: {} }, 'Cluster east: spec.constructor: unknown field'],
    ['no issuer', { issuer: undefined }, 'Cluster east: spec.issuer: '],
    ['an empty issuer', { issuer: '' }, 'Cluster east: spec.issuer: '],
    ['an endless issuer', { issuer: `https://${'a'.repeat(2048)}` }, 'Cluster east: spec.issuer: '],
    ['no jwks', { jwks: undefined }, 'Cluster east: spec.jwks: '],
    ['jwks from two places', { jwks: { discovery: true, url: 'https://a' } }, 'Cluster east: spec.jwks: '],
    ['jwks from nowhere', { jwks: { discovery: false } }, 'Cluster east: spec.jwks: '],
    ['101 keys', { jwks: { inline: { keys: Array(101).fill(JWK) } } }, 'Cluster east: spec.jwks'],
    ['a key without kty', { jwks: { inline: { keys: [{ kid: 'a' }] } } }, 'Cluster east: spec.jwks'],
    [
      'T-6: no attestation audience, which is the API server’s, where nobody may be a node',
      { audiences: [] },
      'Cluster east: spec.audiences: is empty, which is for node attestation: needs spec.serviceAccountAllowList',
    ],
    [
      "T-6: kubespiffe's audience at every door",
      { audiences: ['spiffe-edge', 'kubespiffed'] },
      'Cluster east: spec.audiences: kubespiffed is good at one door only: set spec.kubespiffe',
    ],
    [
      "T-7: kubespiffe's audience for its API server",
      { kubespiffe: true, apiServer: { audiences: ['kubespiffed'] } },
      'Cluster east: spec.apiServer.audiences: kubespiffed is an attestation audience',
    ],
    ['an empty attestation audience', { audiences: [''] }, 'Cluster east: spec.audiences.0: not 1 to 512 printable'],
    ['an audience with a blank', { audiences: ['a b'] }, 'Cluster east: spec.audiences.0: not 1 to 512 printable'],
    ['an audience with a newline', { audiences: ['a\n'] }, 'Cluster east: spec.audiences.0: not 1 to 512 printable'],
    ['an audience of 513', { audiences: ['a'.repeat(513)] }, 'Cluster east: spec.audiences.0: not 1 to 512 printable'],
    ['an audience that is no text', { audiences: [1] }, 'Cluster east: spec.audiences.0: '],
    [
      'SA-5: a token lifetime above a day',
      { maxTokenLifetimeSeconds: 86_401 },
      'Cluster east: spec.maxTokenLifetimeSeconds: ',
    ],
    [
      'SA-7: a token lifetime below what Kubernetes issues',
      { maxTokenLifetimeSeconds: 599 },
      'Cluster east: spec.maxTokenLifetimeSeconds: ',
    ],
    [
      'a token lifetime with a fraction',
      { maxTokenLifetimeSeconds: 600.5 },
      'Cluster east: spec.maxTokenLifetimeSeconds: ',
    ],
    ['a token lifetime as a text', { maxTokenLifetimeSeconds: '3600' }, 'Cluster east: spec.maxTokenLifetimeSeconds: '],
    [
      'requireBoundPod as a text, which would be true',
      { requireBoundPod: 'false' },
      'Cluster east: spec.requireBoundPod: ',
    ],
    ['12.8: empty API server audiences', { apiServer: { audiences: [] } }, 'Cluster east: spec.apiServer.audiences: '],
    [
      '12.8: an empty API server audience',
      { apiServer: { audiences: [''] } },
      'Cluster east: spec.apiServer.audiences.0: ',
    ],
    [
      '12.8: duplicate API server audiences',
      { apiServer: { audiences: ['k8s', 'k8s'] } },
      'Cluster east: spec.apiServer.audiences',
    ],
    [
      'a CA that is no PEM',
      { apiServer: { certificateAuthority: 'MIIB' } },
      'Cluster east: spec.apiServer.certificateAuthority: not one or more PEM',
    ],
    [
      'a CA with something beside the certificates',
      { apiServer: { certificateAuthority: `${PEM}-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n` } },
      'Cluster east: spec.apiServer.certificateAuthority: not one or more PEM',
    ],
    [
      'T-10: a CA outside of apiServer, refused and not ignored',
      { certificateAuthority: PEM },
      'Cluster east: spec.certificateAuthority: unknown field',
    ],
  ])('%s is refused', (_, spec, problem) => {
    const problems = problemsOf(cluster('east', spec))
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(problem)
  })

  test('SA-5, SA-7: a token lifetime of ten minutes and one of a day are taken', () => {
    for (const maxTokenLifetimeSeconds of [600, 86_400])
      expect(problemsOf(cluster('east', { maxTokenLifetimeSeconds }))).toEqual([])
  })

  test('an audience of 512 printable characters is taken', () => {
    expect(problemsOf(cluster('east', { audiences: ['~"\\!'.repeat(128)] }))).toEqual([])
  })
})

test.each(['AAAA', 'MIIB\u2028', '\ufeffMIIB', 'MIIB\u00a0'])(
  'AC-2: a CA that kube-apiserver would not parse is refused: %j',
  (body) => {
    const certificateAuthority = `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`
    expect(problemsOf(cluster('east', { apiServer: { certificateAuthority } }))).toEqual([
      'Cluster east: spec.apiServer.certificateAuthority: not one or more PEM certificates',
    ])
  },
)
