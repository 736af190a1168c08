import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { NOW } from '../../support/clock.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { Network, text } from '../../support/cluster_network.ts'
import {
  jwtEntry,
  makeAuthority,
  makeCertificate,
  signJwtSvid,
  spireBundle,
  type TestAuthority,
  x509Entry,
} from '../../support/foreign_bundle.ts'
import { cluster, ISSUER, registration } from '../../support/policy.ts'
import { Administrator } from '../administrator.ts'
import { TestIssuer } from '../issuer.ts'

const PEER = 'https://peer.example/bundle'
const OTHER = 'https://other.example/bundle'
const SUB = 'spiffe://peer.example/ns/shop/sa/web'

const peer = (trustDomain = 'peer.example', url = PEER, more: object = {}) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'FederatedTrustDomain',
  metadata: { name: trustDomain },
  spec: { trustDomain, bundleEndpointURL: url, bundleEndpointProfile: { type: 'https_web' }, ...more },
})

const web = (spec: object = {}, name = 'web') =>
  registration(name, {
    clusters: undefined,
    selector: undefined,
    federated: { spiffeID: 'spiffe://peer.example/ns/*/sa/web' },
    spiffeID: 'spiffe://example.org/peer/web',
    audiences: ['k8s'],
    ...spec,
  })

const banOf = (spiffeID: string) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Ban',
  metadata: { name: 'incident' },
  spec: { spiffeID },
})

let ec: TestAuthority
let rsa: TestAuthority
let ca: TestAuthority
let otherKey: TestAuthority
let network: Network
beforeAll(async () => {
  ;[ec, rsa, ca, otherKey] = await Promise.all([
    makeAuthority('ec'),
    makeAuthority('rsa', 'PS384'),
    makeAuthority('ca'),
    makeAuthority('other'),
  ])
})
beforeEach(async () => {
  network = new Network()
  network.serve(PEER, text(spireBundle([x509Entry(ca, await makeCertificate(ca)), jwtEntry(ec), jwtEntry(rsa)])))
  network.serve(OTHER, text(spireBundle([jwtEntry(otherKey)])))
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

/** @returns an issuer that has the bundles of its peers */
async function federated(...objects: readonly object[]): Promise<TestIssuer> {
  const issuer = new TestIssuer(objects.length > 0 ? objects : [peer(), peer('other.example', OTHER), web()])
  await refresh(issuer)
  return issuer
}

/** Fetches what is due, and has the isolate know of it. */
async function refresh(issuer: TestIssuer): Promise<void> {
  const { federationRing, policyRing } = issuer.deps
  await federationRing.renew(await policyRing.current())
  await issuer.federation.wake()
  await federationRing.renew(await policyRing.current())
}

async function exchange(issuer: TestIssuer, token: string): Promise<string> {
  const answer = (await (await issuer.exchange(token)).json()) as Record<string, string>
  return answer.access_token ? String((await issuer.read(answer.access_token)).claims.sub) : String(answer.reason)
}

const svid = (claims: object = {}, key = ec, header: object = {}) =>
  signJwtSvid(key, { sub: SUB, aud: ISSUER, ...claims }, header)

describe('T-6: a JWT-SVID of a trust domain that is believed', () => {
  test('gets the SPIFFE ID of its registration, until it ends itself', async () => {
    const issuer = await federated()
    const answer = await issuer.exchange(await svid({ exp: NOW + 60 }))
    const { access_token } = (await answer.json()) as { access_token: string }
    expect((await issuer.read(access_token)).claims).toMatchObject({
      ...{ sub: 'spiffe://example.org/peer/web', aud: 'k8s', exp: NOW + 60 },
    })
  })

  test.each<[number | undefined, number, object]>([
    [3600, NOW - 60, { exp: NOW + 3540 }],
    [undefined, NOW - 60, { exp: NOW + 3540 }],
    [3600, NOW, { iat: undefined, exp: NOW + 3600 }],
    [86_400, NOW - 86_000, { exp: NOW + 400 }],
  ])('may live %s s, which is an hour where nobody says', async (maxTokenLifetimeSeconds, iat, claims) => {
    const issuer = await federated(peer('peer.example', PEER, { maxTokenLifetimeSeconds }), web())
    expect(await exchange(issuer, await svid({ iat, ...claims }))).toBe('spiffe://example.org/peer/web')
  })

  test('T-26: gets nothing where what it would be here is banned', async () => {
    const ban = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Ban',
      metadata: { name: 'peer' },
      spec: { spiffeID: 'spiffe://example.org/peer/web' },
    }
    expect(await exchange(await federated(peer(), web(), ban), await svid())).toBe('banned')
  })

  test('T-26: gets nothing where it is banned itself, in its own trust domain', async () => {
    const issuer = await federated(peer(), web(), banOf(SUB))
    expect(await exchange(issuer, await svid())).toBe('banned')
    const neighbour = await svid({ sub: 'spiffe://peer.example/ns/other/sa/web' })
    expect(await exchange(issuer, neighbour)).toBe('spiffe://example.org/peer/web')
    // API servers never see it.
    expect((await issuer.deps.policyRing.current()).policy.bans.spiffeIds).toEqual([])
  })

  test('is in the log by its trust domain and SPIFFE ID', async () => {
    const issuer = await federated()
    await issuer.exchange(await svid())
    expect(issuer.book.decisions).toMatchObject([
      { decision: 'issued', federated_trust_domain: 'peer.example', subject: SUB, message: 'workload attested' },
    ])
  })

  test.each(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const)(
    'may be signed by an RSA authority with %s',
    async (alg) => {
      const { signature, key } = (await import('../../../keys/algorithms.ts')).ALGORITHMS[alg]
      const pkcs8 = (await crypto.subtle.exportKey('pkcs8', rsa.privateKey)) as ArrayBuffer
      const privateKey = await crypto.subtle.importKey('pkcs8', pkcs8, key, false, ['sign'])
      expect(signature.name).toBe(key.name)
      expect(await exchange(await federated(), await svid({}, { ...rsa, alg, privateKey }))).toBe(
        'spiffe://example.org/peer/web',
      )
    },
  )

  test.each<[string, object]>([
    ['without typ', { typ: undefined }],
    ['with typ JOSE', { typ: 'JOSE' }],
  ])('may be %s', async (_, header) => {
    expect(await exchange(await federated(), await svid({}, ec, header))).toBe('spiffe://example.org/peer/web')
  })

  test('may name an issuer that is nobody’s here, or have one audience in a list', async () => {
    const issuer = await federated()
    for (const claims of [{ iss: 'https://oidc.peer.example' }, { aud: [ISSUER] }])
      expect(await exchange(issuer, await svid(claims))).toBe('spiffe://example.org/peer/web')
  })
})

describe('T-6: refused is one', () => {
  test.each<[string, object, object, string]>([
    ['made out to somebody else', { aud: 'https://other.example' }, {}, 'token_audience'],
    ['made out to us and somebody else', { aud: [ISSUER, 'x'] }, {}, 'token_audience'],
    ['made out to us twice', { aud: [ISSUER, ISSUER] }, {}, 'token_audience'],
    ['made out to a part of our name', { aud: `${ISSUER}/` }, {}, 'token_audience'],
    ['made out to nobody', { aud: undefined }, {}, 'token_claims'],
    ['of our own trust domain', { sub: 'spiffe://example.org/ns/shop/sa/web' }, {}, 'token_trust_domain'],
    ['of a trust domain that nobody has named', { sub: 'spiffe://third.example/a' }, {}, 'token_trust_domain'],
    ['JS-11: of another that is believed, with this one’s key', { sub: 'spiffe://other.example/a' }, {}, 'token_key'],
    ['of the trust domain itself', { sub: 'spiffe://peer.example' }, {}, 'token_subject'],
    ['of what is no SPIFFE ID', { sub: 'spiffe://PEER.example/a' }, {}, 'token_subject'],
    ['of a SPIFFE ID that ends in a slash', { sub: `${SUB}/` }, {}, 'token_subject'],
    ['that names us as its issuer', { iss: ISSUER }, {}, 'token_issuer'],
    ['whose issuer is no text', { iss: [ISSUER] }, {}, 'token_issuer'],
    ['that has expired', { exp: NOW }, {}, 'token_expired'],
    ['without an end', { exp: undefined }, {}, 'token_claims'],
    ['that is not valid yet', { nbf: NOW + 31 }, {}, 'token_not_yet_valid'],
    ['from the future', { iat: NOW + 31 }, {}, 'token_not_yet_valid'],
    ['that was made to live more than an hour', { iat: NOW - 60, exp: NOW + 3541 }, {}, 'token_lifetime'],
    ['that has more than an hour left', { iat: undefined, exp: NOW + 3601 }, {}, 'token_lifetime'],
    ['JS-3: without kid', {}, { kid: undefined }, 'token_header'],
    ['with a kid that nobody has', {}, { kid: 'none' }, 'token_key'],
    ['with the kid of another key of its domain', {}, { kid: 'rsa' }, 'token_key'],
    ['that says another algorithm', {}, { alg: 'ES384' }, 'token_key'],
    ['with none', {}, { alg: 'none' }, 'token_algorithm'],
    ['with a shared secret', {}, { alg: 'HS256' }, 'token_algorithm'],
    ['JS-5: with a key of its own', {}, { jwk: {} }, 'token_header'],
    ['JS-5: with x5t, which a provider may send', {}, { x5t: 'x' }, 'token_header'],
    ['JS-4: with another typ', {}, { typ: 'at+jwt' }, 'token_header'],
    ['whom no registration selects', { sub: 'spiffe://peer.example/ns/shop/sa/webx' }, {}, 'registration_none'],
    ['whom a wildcard does not reach', { sub: 'spiffe://peer.example/ns/a/b/sa/web' }, {}, 'registration_none'],
  ])('%s', async (_, claims, header, reason) => {
    expect(await exchange(await federated(), await svid(claims, ec, header))).toBe(reason)
  })

  test('signed with another key', async () => {
    expect(await exchange(await federated(), await svid({}, { ...otherKey, kid: 'ec' }))).toBe('token_signature')
  })

  test('JS-12: signed with the key of an X.509 authority', async () => {
    expect(await exchange(await federated(), await svid({}, ca))).toBe('token_key')
  })

  test('JS-11: of one domain with the key of another, though both are believed', async () => {
    expect(await exchange(await federated(), await svid({}, otherKey))).toBe('token_key')
  })

  test('with the issuer of a cluster or attestor', async () => {
    const attestor = {
      ...{ apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'OIDCAttestor', metadata: { name: 'ci' } },
      spec: { issuer: 'https://ci.example.org', audience: ISSUER },
    }
    const issuer = await federated(peer(), web(), cluster('east'), attestor)
    expect(await exchange(issuer, await svid({ iss: 'https://east.example.net' }))).toBe('token_issuer')
    // Which has keys of its own, or none.
    expect(await exchange(issuer, await svid({ iss: 'https://ci.example.org' }))).toBe('cluster_keys_unavailable')
  })

  test('of ours, where others are believed too', async () => {
    const issuer = await federated()
    const { access_token } = (await (await issuer.exchange(await svid())).json()) as { access_token: string }
    expect(await exchange(issuer, access_token)).toBe('token_issuer')
  })

  test('T-26: that would get a SPIFFE ID which is banned', async () => {
    const ban = {
      ...{ apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'Ban', metadata: { name: 'no' } },
      spec: { spiffeID: 'spiffe://example.org/peer/web' },
    }
    expect(await exchange(await federated(peer(), web(), ban), await svid())).toBe('banned')
  })
})

test('T-17: before there is a bundle of its trust domain the token may come again, whatever it is', async () => {
  const issuer = new TestIssuer([peer(), web()])
  for (const token of [await svid(), await svid({}, otherKey)]) {
    const answer = await issuer.exchange(token)
    expect([answer.status, answer.headers.get('Retry-After')]).toEqual([503, '5'])
    expect(await answer.json()).toMatchObject({ reason: 'federation_unavailable' })
  }
  await refresh(issuer)
  expect(await exchange(issuer, await svid())).toBe('spiffe://example.org/peer/web')
})

describe('what is believed ends', () => {
  test('BU-4: with an empty key set', async () => {
    const issuer = await federated()
    expect(await exchange(issuer, await svid())).toBe('spiffe://example.org/peer/web')
    network.serve(PEER, text(spireBundle([], 2)))
    issuer.clock.advance(300)
    await refresh(issuer)
    expect(await exchange(issuer, await svid({ exp: NOW + 3600 }))).toBe('token_key')
  })

  test('with a key that is gone, and not with one that is new', async () => {
    const issuer = await federated()
    network.serve(PEER, text(spireBundle([jwtEntry(otherKey)], 2)))
    issuer.clock.advance(300)
    await refresh(issuer)
    expect(await exchange(issuer, await svid({ exp: NOW + 3600 }))).toBe('token_key')
    expect(await exchange(issuer, await svid({ exp: NOW + 3600 }, otherKey))).toBe('spiffe://example.org/peer/web')
  })

  test('FE-13: with the object that named it', async () => {
    const alice = await Administrator.create('alice')
    const issuer = new TestIssuer([alice.object])
    await alice.apply(issuer, { objects: [peer(), web()] })
    await refresh(issuer)
    expect(await exchange(issuer, await svid())).toBe('spiffe://example.org/peer/web')
    const names = [
      { kind: 'FederatedTrustDomain', name: 'peer.example' },
      { kind: 'WorkloadRegistration', name: 'web' },
    ]
    await alice.apply(issuer, { remove: names })
    expect(await exchange(issuer, await svid())).toBe('token_issuer')
    expect(await issuer.federation.report()).toEqual([])
  })
})

test('T-26: a ban outlives the trust domain of whom it bans, and holds when that comes back', async () => {
  const alice = await Administrator.create('alice')
  const issuer = new TestIssuer([alice.object])
  const apply = async (objects: readonly object[], remove: readonly { kind: string; name: string }[] = []) =>
    (await alice.apply(issuer, { objects, remove }))[0]
  expect(await apply([banOf(SUB)])).toBe(422)
  expect(await apply([peer(), web(), banOf(SUB)])).toBe(200)
  const ended = [
    { kind: 'FederatedTrustDomain', name: 'peer.example' },
    { kind: 'WorkloadRegistration', name: 'web' },
  ]
  expect(await apply([], ended)).toBe(200)
  expect(await apply([peer(), web()])).toBe(200)
  await refresh(issuer)
  expect(await exchange(issuer, await svid())).toBe('banned')
})

test('FE-13: with a manifest that names nobody what a former one named is forgotten', async () => {
  const east = await FakeCluster.create('east')
  const issuer = new TestIssuer([east.record(), registration('pod')])
  await issuer.federation.name(
    { version: 0, mark: 'former' },
    { trustDomain: 'peer.example', url: PEER, bootstrap: null },
  )
  await issuer.federation.wake()
  issuer.clock.advance(75)
  await issuer.exchange(await east.token())
  await issuer.background.settled()
  expect(await issuer.federation.report()).toEqual([])
})

test('a service account is attested where other trust domains are believed too', async () => {
  const east = await FakeCluster.create('east')
  const issuer = await federated(east.record(), peer(), web(), registration('pod'))
  expect(await exchange(issuer, await east.token())).toMatch(/^spiffe:\/\/example\.org\/ns\//)
})

test('where nobody else is believed, a JWT-SVID is a token of nobody, and no state is asked', async () => {
  const east = await FakeCluster.create('east')
  const issuer = new TestIssuer([east.record(), registration('pod')])
  expect(await exchange(issuer, await svid())).toBe('token_issuer')
  expect((await issuer.federation.read({ version: 0, mark: '' })).bundles).toEqual([])
  expect(network.requests).not.toContain(PEER)
})
