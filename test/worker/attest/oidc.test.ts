import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, type TokenChange } from '../../support/cluster.ts'
import { json, Network } from '../../support/cluster_network.ts'
import { cluster, ISSUER, problemsOf, registration } from '../../support/policy.ts'
import { makeTokenKey } from '../../support/tokens.ts'
import { TestIssuer } from '../issuer.ts'

const CI = 'https://ci.example.org'
const SUBJECT = 'repo:octo-org/octo-repo:ref:refs/heads/main'

/** A provider of tokens for jobs, in the shape of a CI system's. */
let provider: FakeCluster
let network: Network
beforeAll(async () => {
  provider = await FakeCluster.create('ci', { issuer: CI, audience: ISSUER, alg: 'RS256' })
})
beforeEach(() => {
  network = new Network()
  network.serve(`${CI}/.well-known/openid-configuration`, () => Response.json(provider.discovery()))
  network.serve(`${CI}/openid/v1/jwks`, () => Response.json(provider.jwks()))
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const attestor = (spec: object = {}, name = 'ci') => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'OIDCAttestor',
  metadata: { name },
  spec: { issuer: CI, audience: ISSUER, ...spec },
})

const job = (oidc: object = {}, spec: object = {}) =>
  registration('job', {
    clusters: undefined,
    selector: undefined,
    oidc: { attestor: 'ci', subject: SUBJECT, ...oidc },
    spiffeID: 'spiffe://example.org/ci/deploy',
    audiences: ['k8s'],
    ...spec,
  })

/** A job's token; a member that is undefined is left out. */
const token = ({ claims = {}, header = {}, ...rest }: TokenChange & { claims?: object; header?: object } = {}) =>
  provider.token({
    claims: {
      aud: ISSUER,
      sub: SUBJECT,
      exp: NOW + 300,
      'kubernetes.io': undefined,
      repository_owner_id: '123',
      ...claims,
    },
    header: { typ: 'JWT', x5t: 'eBZ_cn3sXYAd0ch4THBKHIgOwOE', ...header },
    ...rest,
  })

async function exchange(subject: string, ...objects: readonly object[]): Promise<string> {
  const by = new TestIssuer(objects.length > 0 ? objects : [attestor(), job()])
  const { access_token, reason } = (await (await by.exchange(subject)).json()) as Record<string, string>
  return access_token ? String((await by.read(access_token)).claims.sub) : String(reason)
}

describe('T-6: a job of an allow-listed provider', () => {
  test('gets the SPIFFE ID of its registration', async () => {
    expect(await exchange(await token())).toBe('spiffe://example.org/ci/deploy')
  })

  test('is in the log by its subject, and not as a pod', async () => {
    const by = new TestIssuer([attestor(), job()])
    await by.exchange(await token())
    expect(by.book.decisions).toMatchObject([{ decision: 'issued', attestor: 'ci', subject: SUBJECT }])
    expect(by.book.decisions[0]).not.toHaveProperty('cluster')
  })

  test.each<[string, TokenChange & { claims?: object; header?: object }, string]>([
    ['made out to somebody else', { claims: { aud: 'https://other.example' } }, 'token_audience'],
    ['made out to us and somebody else', { claims: { aud: [ISSUER, 'https://other.example'] } }, 'token_audience'],
    ['made out to a part of our name', { claims: { aud: `${ISSUER}/` } }, 'token_audience'],
    ['of another issuer', { header: { x5t: undefined }, claims: { iss: 'https://ci.example.net' } }, 'token_issuer'],
    ['of the issuer with a slash', { header: { x5t: undefined }, claims: { iss: `${CI}/` } }, 'token_issuer'],
    ['that has expired', { claims: { exp: NOW } }, 'token_expired'],
    ['that is not valid yet', { claims: { nbf: NOW + 31 } }, 'token_not_yet_valid'],
    ['without an end', { claims: { exp: undefined } }, 'token_claims'],
    ['without a beginning', { claims: { iat: undefined } }, 'token_claims'],
    ['without a subject', { claims: { sub: undefined } }, 'token_claims'],
    ['with an empty subject', { claims: { sub: '' } }, 'token_claims'],
    ['with a subject that is no text', { claims: { sub: [SUBJECT] } }, 'token_claims'],
    ['that lives longer than the record allows', { claims: { exp: NOW + 3601 } }, 'token_lifetime'],
    ['with a key of its own in the header', { header: { jwk: {} } }, 'token_header'],
    ['with a kid that nobody knows', { header: { kid: 'unknown' } }, 'token_key'],
    ['signed with none', { header: { alg: 'none' } }, 'token_algorithm'],
    ['of another subject', { claims: { sub: 'repo:octo-org/octo-repo:ref:refs/heads/evil' } }, 'registration_none'],
  ])('%s is refused', async (_, change, reason) => {
    expect(await exchange(await token(change))).toBe(reason)
  })

  test('signed with a key that is not the provider’s is refused', async () => {
    expect(await exchange(await token({ key: await makeTokenKey('RS256') }))).toBe('token_signature')
  })

  test('a pod’s token with a thumbprint in its header is still refused: only a provider may send one', async () => {
    const east = await FakeCluster.create('east')
    const by = await exchange(
      await east.token({ header: { x5t: 'x' } }),
      east.record(),
      attestor(),
      job(),
      registration('web'),
    )
    expect(by).toBe('token_header')
  })

  test('an SVID of ours is no token of a provider, even where both are made out to us', async () => {
    const issuer = new TestIssuer([attestor(), job({}, { audiences: ['a'] })])
    const { access_token } = (await (await issuer.exchange(await token())).json()) as Record<string, string>
    expect(((await (await issuer.exchange(access_token ?? '')).json()) as Record<string, string>).reason).toBe(
      'token_issuer',
    )
  })
})

describe('claims select by their whole value', () => {
  test.each<[string, string, boolean]>([
    [SUBJECT, SUBJECT, true],
    ['repo:octo-org/*:ref:refs/heads/main', SUBJECT, true],
    ['repo:octo-org/octo-repo:**', SUBJECT, true],
    ['repo:octo-org/octo-repo:ref:refs/heads/*', 'repo:octo-org/octo-repo:ref:refs/heads/a/b', false],
    ['repo:octo-org/octo-repo:ref:refs/heads/**', 'repo:octo-org/octo-repo:ref:refs/heads/a/b', true],
    ['repo:octo-org/*:ref:refs/heads/main', 'repo:octo-org/a:x/b:ref:refs/heads/main', false],
    ['repo:octo-org/*', SUBJECT, false],
    ['repo:octo-org/octo-repo:ref:refs/heads/mai', SUBJECT, false],
    ['epo:octo-org/octo-repo:ref:refs/heads/main', SUBJECT, false],
    ['repo:octo.org/octo-repo:ref:refs/heads/main', SUBJECT, false],
    ['repo:octo-org/octo-repo:ref:refs/heads/main|x', SUBJECT, false],
    ['*', 'a', true],
    ['*', 'a:b', false],
    ['a*', 'a', false],
    ['**', 'a\nb', true],
    ['a**', 'a', true],
    ['**', 'a'.repeat(255), true],
  ])('%j and %j: %s', async (subject, sub, matches) => {
    expect(await exchange(await token({ claims: { sub } }), attestor(), job({ subject }))).toBe(
      matches ? 'spiffe://example.org/ci/deploy' : 'registration_none',
    )
  })

  test.each<[string, object, object, boolean]>([
    ['that the token has', { repository_owner_id: '123' }, {}, true],
    ['with another value', { repository_owner_id: '124' }, {}, false],
    ['that it does not have', { environment: '**' }, {}, false],
    ['that every object has', { constructor: '**' }, {}, false],
    ['that is no text', { repository_owner_id: '**' }, { repository_owner_id: 123 }, false],
    ['that is too long to be looked at', { long: '**' }, { long: 'a'.repeat(1025) }, false],
  ])('a claim %s', async (_, claims, more, matches) => {
    expect(await exchange(await token({ claims: more }), attestor(), job({ claims }))).toBe(
      matches ? 'spiffe://example.org/ci/deploy' : 'registration_none',
    )
  })
})

describe('what the manifest refuses', () => {
  const problem = (...objects: readonly object[]) => problemsOf(cluster('east'), ...objects)

  test.each<[string, object, string]>([
    ['our own issuer', { issuer: ISSUER }, 'spec.issuer: is this issuer itself'],
    ['a cluster’s issuer', { issuer: 'https://east.example.net' }, 'spec.issuer: is that of Cluster east'],
    ['http', { issuer: 'http://ci.example.org' }, 'spec.issuer: not https'],
    ['an internal audience', { audience: `${ISSUER}/admin` }, `spec.audience: ${ISSUER}/admin is reserved`],
    ['an API server’s audience', { audience: 'k8s' }, "spec.audience: k8s is an API server's"],
    ['two audiences', { audience: ['a', 'b'] }, 'spec.audience: '],
  ])('%s', (_, spec, text) => {
    expect(problem(attestor(spec))).toEqual([expect.stringContaining(`OIDCAttestor ci: ${text}`)])
  })

  test('two attestors of one issuer', () => {
    expect(problem(attestor(), attestor({ audience: 'b' }, 'other'))).toEqual([
      'OIDCAttestor other: spec.issuer: is that of OIDCAttestor ci',
    ])
  })

  test.each<[string, object, object, string]>([
    ['no subject', { subject: undefined }, {}, 'spec.oidc.subject: '],
    [
      'an attestor that there is none of',
      { attestor: 'other' },
      {},
      'spec.oidc.attestor: there is no OIDCAttestor other',
    ],
    ['three wildcards', { subject: '*a*b*' }, {}, 'spec.oidc.subject: has more than two wildcards'],
    ['no SPIFFE ID', {}, { spiffeID: undefined }, 'spec.oidc: needs spec.spiffeID, and no spec.clusters'],
    ['clusters', {}, { clusters: ['east'] }, 'spec.oidc: needs spec.spiffeID, and no spec.clusters'],
    [
      'a variable',
      {},
      { spiffeID: 'spiffe://example.org/{namespace}' },
      'spec.spiffeID: only a pod can fill a variable',
    ],
    [
      'the ID of a service account',
      {},
      { spiffeID: 'spiffe://example.org/ns/a/sa/b' },
      'spec.spiffeID: names a namespace',
    ],
    ['a reserved ID', {}, { spiffeID: 'spiffe://example.org/spire/server' }, 'spec.spiffeID: is reserved'],
    ['selectors of pods too', {}, { selectors: ['k8s:ns:a'] }, 'spec.selector: exactly one of'],
  ])('a registration with %s', (_, oidc, spec, text) => {
    const problems = problem(attestor(), job(oidc, { audiences: ['a'], ...spec }))
    expect(problems).toEqual([expect.stringContaining(`WorkloadRegistration job: ${text}`)])
  })

  test('T-2: the SPIFFE ID of pods', () => {
    const web = registration('web', { spiffeID: 'spiffe://example.org/ci/deploy' })
    expect(problem(attestor(), web, job())).toEqual([
      expect.stringContaining('pods of east and OIDCAttestor ci could share it'),
    ])
  })
})

test('12.6: what a provider publishes is judged as a cluster’s is', async () => {
  network.serve(
    `${CI}/.well-known/openid-configuration`,
    json({ ...provider.discovery(), issuer: 'https://evil.example' }),
  )
  expect(await exchange(await token())).toBe('cluster_keys_unavailable')
})
