import { describe, expect, test } from 'vitest'
import { cluster, ISSUER, policyOf, problemsOf } from '../../support/policy.ts'
import { makeTokenKey, respelledKeys } from '../../support/tokens.ts'

const { publicJwk } = await makeTokenKey('ES256')
const { kty, crv, x, y } = publicJwk as JsonWebKey
const KEY = { kty, crv, x, y }
const TOKEN = { issuer: 'https://idp.example.com', audience: 'spiffe-edge-admin', subject: 'alice' }

const admin = (spec: object, name = 'alice') => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Admin',
  metadata: { name },
  spec,
})
const problems = (spec: object) => problemsOf(cluster('east'), admin(spec))

test('T-11: an administrator is a public key, or one subject of one identity provider', () => {
  const { admins } = policyOf(admin({ publicKey: KEY }), admin({ token: TOKEN }, 'bob'))
  expect(admins).toEqual([
    { name: 'alice', revocationsOf: null, by: 'key', publicKey: KEY },
    { name: 'bob', revocationsOf: null, by: 'token', ...TOKEN },
  ])
})

test('T-13: an administrator may be for the revocations of one cluster, which need not be there yet', () => {
  const { admins } = policyOf(
    admin({ publicKey: KEY, revocationsOf: 'east' }),
    admin({ token: TOKEN, revocationsOf: 'west' }, 'bob'),
  )
  expect(admins.map(({ revocationsOf }) => revocationsOf)).toEqual(['east', 'west'])
})

test.each<[string, object]>([
  ['key', { publicKey: KEY }],
  ['subject', { token: TOKEN }],
])('T-11: a %s that makes two administrators is refused, for they may differ in what they may do', (_, spec) => {
  expect(problemsOf(admin(spec), admin({ ...spec, revocationsOf: 'east' }, 'bob'))).toEqual([
    'Admin bob: spec: is that of Admin alice too',
  ])
})

describe('T-11: an administrator is not', () => {
  test.each<[string, object]>([
    ['nobody', {}],
    ['both', { publicKey: KEY, token: TOKEN }],
    ['a private key', { publicKey: { ...KEY, d: 'AAAA' } }],
    ['a key of another curve', { publicKey: { ...KEY, crv: 'P-384' } }],
    ['a key of another kind', { publicKey: { kty: 'RSA', n: 'AAAA', e: 'AQAB' } }],
    ['a shared secret', { publicKey: { kty: 'oct', k: 'AAAA' } }],
    ...Object.entries(respelledKeys).map(([what, respell]): [string, object] => [
      `a key ${what}`,
      { publicKey: respell(KEY as JsonWebKey) },
    ]),
    ['everybody of an identity provider', { token: { ...TOKEN, subject: undefined } }],
    ['an empty subject', { token: { ...TOKEN, subject: '' } }],
    ['several subjects', { token: { ...TOKEN, subject: ['alice', 'bob'] } }],
    ['a subject for whatever audience', { token: { ...TOKEN, audience: undefined } }],
    ['a group', { token: { ...TOKEN, groups: ['admins'] } }],
    ['somebody for the revocations of what is no cluster', { publicKey: KEY, revocationsOf: 'EAST' }],
    ['somebody for the revocations of several clusters', { publicKey: KEY, revocationsOf: ['east', 'west'] }],
    ['somebody for the revocations of every cluster', { token: TOKEN, revocationsOf: '*' }],
    ['somebody for the revocations of no cluster', { token: TOKEN, revocationsOf: '' }],
  ])('%s', (_, spec) => {
    expect(problems(spec)).toEqual([expect.stringMatching(/^Admin alice: spec/)])
  })

  test.each<[string, object, string]>([
    ['somebody with an SVID', { issuer: ISSUER }, 'spec.token.issuer: is this issuer itself'],
    ['of a provider without TLS', { issuer: 'http://idp.example.com' }, 'spec.token.issuer: not https'],
    ['of a provider that is no URL', { issuer: 'idp' }, 'spec.token.issuer: not a URL'],
    [
      'T-6: somebody whose token is good for a workload too',
      { audience: 'spiffe-edge' },
      'spec.token.audience: is an attestation audience',
    ],
    [
      'T-7: somebody whose token is good at an API server too',
      { audience: 'k8s' },
      "spec.token.audience: is an API server's",
    ],
  ])('%s', (_, change, problem) => {
    expect(problems({ token: { ...TOKEN, ...change } })).toEqual([`Admin alice: ${problem}`])
  })
})
