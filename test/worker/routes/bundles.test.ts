/** `/bundles` with a whole issuer around it: whom a workload is to believe, and who gets to know. */

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { parseForeignBundle } from '../../../worker/federation/foreign_bundle.ts'
import type { RefusalReason } from '../../../worker/refusal.ts'
import type { X509Authority } from '../../../worker/spiffe/x509_svid.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, type TokenChange } from '../../support/cluster.ts'
import { Network } from '../../support/cluster_network.ts'
import {
  jwtEntry,
  makeAuthority as makeCa,
  makeCertificate,
  spireBundle,
  x509Entry,
} from '../../support/foreign_bundle.ts'
import { FakeApiServer } from '../../support/kube_api.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { giveAuthorities, makeAuthority } from '../authority.ts'
import { TestIssuer } from '../issuer.ts'

let east: FakeCluster
let authority: X509Authority
let peerBundle: string
let peerText: string
beforeAll(async () => {
  east = await FakeCluster.create('east')
  authority = await makeAuthority()
  const ca = await makeCa('one')
  peerText = spireBundle([x509Entry(ca, await makeCertificate(ca)), jwtEntry(ca)], 7, 600)
  peerBundle = peerText
})

let server: FakeApiServer
beforeEach(() => {
  vi.stubGlobal('fetch', new Network().fetch)
  server = new FakeApiServer(east)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const peer = (name: string, trustDomainBundle = peerBundle) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'FederatedTrustDomain',
  metadata: { name },
  spec: { trustDomain: name, trustDomainBundle },
})
const ban = (spec: object) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Ban',
  metadata: { name: 'thief' },
  spec,
})

async function issuerOf(...objects: readonly object[]): Promise<TestIssuer> {
  const connection = { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }
  const issuer = new TestIssuer([east.record({ connection }), ...objects], { CLUSTER_EAST: server })
  giveAuthorities(issuer, authority)
  const snapshot = await issuer.deps.policyRing.current()
  if (snapshot.policy.federation.size > 0) await issuer.deps.federationRing.renew(snapshot)
  return issuer
}

async function ask(issuer: TestIssuer, token: string | null, init: RequestInit = {}, path = '/bundles') {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` }
  const response = await issuer.fetch(path, { headers, ...init })
  const text = await response.text()
  if (token !== null) expect(findPieceOf(token, text + issuer.book.text)).toBeNull()
  return { status: response.status, headers: response.headers, text }
}

async function given(issuer: TestIssuer, change: TokenChange = {}) {
  const { status, text } = await ask(issuer, await east.token(change))
  expect([status, text]).toEqual([200, text])
  return JSON.parse(text) as { trust_domain: string; terms: string; trust_domains: Record<string, object> }
}

async function refused(issuer: TestIssuer, change: TokenChange = {}): Promise<readonly unknown[]> {
  const { status, text } = await ask(issuer, await east.token(change))
  return [status, JSON.parse(text).reason]
}

const namesOf = ({ trust_domains }: Awaited<ReturnType<typeof given>>) => Object.keys(trust_domains)

describe('BU-11: a workload gets a bundle map', () => {
  test('with our own bundle in it, as everybody can read it, and whose it is', async () => {
    const issuer = await issuerOf(registration('web'))
    const map = await given(issuer)
    const published = await (await issuer.fetch('/bundle')).json()
    expect(map).toEqual({
      trust_domain: 'example.org',
      terms: expect.stringMatching(/^[0-9a-f]{64}$/),
      trust_domains: { 'example.org': published },
    })
  })

  test('with those of the trust domains that its registration names, and no others', async () => {
    const issuer = await issuerOf(
      ...[peer('partner.example'), peer('unasked.example')],
      registration('web', { federatesWith: ['partner.example'] }),
    )
    const map = await given(issuer)
    expect(namesOf(map)).toEqual(['example.org', 'partner.example'])
    const passedOn = await parseForeignBundle(JSON.stringify(map.trust_domains['partner.example']))
    expect(passedOn).toEqual(await parseForeignBundle(peerText))
    expect(passedOn).toMatchObject({ sequence: 7, refreshHintSeconds: 600 })
  })

  describe('and something that is another when it can have other SVIDs', () => {
    const termsOf = async (...objects: readonly object[]) => (await given(await issuerOf(...objects))).terms

    test('the same in another isolate, in another order, and whatever others can have', async () => {
      const terms = await termsOf(registration('web'))
      expect(await termsOf(registration('web'))).toBe(terms)
      const elsewhere = { selector: { namespace: 'other', serviceAccountName: 'other' } }
      expect(await termsOf(registration('other', elsewhere), registration('web'))).toBe(terms)
      const pair = [{ audiences: ['a', 'b'] }, { audiences: ['b', 'a'] }].map((spec) => registration('web', spec))
      expect(await termsOf(pair[0] as object)).toBe(await termsOf(pair[1] as object))
    })

    test.each<[string, object]>([
      ['its SPIFFE ID', { spiffeID: 'spiffe://example.org/other' }],
      ['its audiences', { audiences: ['other'] }],
      ['the kind of SVID', { svidType: 'JWT' }],
      ['how long it lives', { ttlSeconds: 120 }],
      ['the names in it', { dnsNames: ['web.example.org'] }],
      ['its hint', { hint: 'other' }],
      ['its claims', { claims: { team: 'shop' } }],
    ])('%s', async (_, spec) => {
      expect(await termsOf(registration('web', spec))).not.toBe(await termsOf(registration('web')))
    })

    test('T-26: one of its identities is banned', async () => {
      const two = [registration('web'), registration('two', { spiffeID: 'spiffe://example.org/two' })]
      const terms = await termsOf(...two)
      expect(await termsOf(...two, ban({ spiffeID: 'spiffe://example.org/two' }))).not.toBe(terms)
      expect(await termsOf(...two, ban({ spiffeID: 'spiffe://example.org/somebody' }))).toBe(terms)
    })
  })

  test('BU-4: an empty bundle is one', async () => {
    const issuer = await issuerOf(
      peer('empty.example', JSON.stringify({ keys: [] })),
      registration('web', { federatesWith: ['empty.example'] }),
    )
    expect((await given(issuer)).trust_domains['empty.example']).toEqual({ keys: [] })
  })

  test('of all registrations that give it an identity, of either kind and under whichever SPIFFE ID', async () => {
    const issuer = await issuerOf(
      ...[peer('a.example'), peer('b.example'), peer('c.example')],
      registration('one', { svidType: 'JWT', federatesWith: ['b.example', 'a.example'] }),
      registration('two', { svidType: 'X509', spiffeID: 'spiffe://example.org/two', federatesWith: ['b.example'] }),
      registration('other', {
        selector: { namespace: 'other', serviceAccountName: 'x' },
        federatesWith: ['c.example'],
      }),
    )
    expect(namesOf(await given(issuer))).toEqual(['example.org', 'a.example', 'b.example'])
  })

  test('where there is no CA, too', async () => {
    const issuer = new TestIssuer([east.record(), registration('web')])
    const { trust_domains } = await given(issuer)
    expect(Object.keys(trust_domains)).toEqual(['example.org'])
  })

  test('which nobody on the way may keep', async () => {
    const { headers } = await ask(await issuerOf(registration('web')), await east.token())
    expect(headers.get('cache-control')).toBe('no-store')
    expect(headers.get('content-type')).toBe('application/json')
    expect(headers.get('access-control-allow-origin')).toBeNull()
  })

  test('and one line is in the log', async () => {
    const issuer = await issuerOf(peer('partner.example'), registration('web', { federatesWith: ['partner.example'] }))
    await given(issuer)
    expect(issuer.book.decisions).toMatchObject([
      {
        ...{ door: 'bundles', decision: 'told', registrations: ['web'], federated: ['partner.example'] },
        ...{ cluster: 'east', namespace: POD.namespace },
      },
    ])
  })
})

describe('a request is refused', () => {
  const SPIFFE_ID = `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`

  test('T-24: with a challenge where there is no token', async () => {
    const { status, headers, text } = await ask(await issuerOf(registration('web')), null)
    expect([status, JSON.parse(text).reason]).toEqual([401, 'bearer_missing'])
    expect(headers.get('www-authenticate')).toBe('Bearer')
  })

  test('with a query, in which a token could be', async () => {
    const { status, text } = await ask(await issuerOf(registration('web')), await east.token(), {}, '/bundles?token=x')
    expect([status, JSON.parse(text).reason]).toEqual([400, 'request_malformed'])
  })

  test.each(['POST', 'PUT', 'DELETE'])('by %s', async (method) => {
    const { status, headers } = await ask(await issuerOf(registration('web')), null, { method })
    expect([status, headers.get('allow')]).toEqual([405, 'GET, HEAD'])
  })

  test.each<[string, TokenChange, RefusalReason]>([
    ['another door', { claims: { aud: ['kubespiffed'] } }, 'token_audience'],
    ['the API server', { claims: { aud: ['https://kubernetes.default.svc'] } }, 'token_audience'],
    ['before', { claims: { exp: NOW - 1, iat: NOW - 3600 } }, 'token_expired'],
    ['a stranger', { header: { kid: 'x' } }, 'token_key'],
  ])('T-6: with a token of %s', async (_, change, reason) => {
    expect(await refused(await issuerOf(registration('web')), change)).toEqual([400, reason])
  })

  test('of a workload that nobody has registered', async () => {
    const issuer = await issuerOf(
      registration('other', { selector: { namespace: 'other', serviceAccountName: 'other' } }),
    )
    expect(await refused(issuer)).toEqual([400, 'registration_none'])
  })

  test.each<[string, object]>([
    ['service account', { cluster: 'east', serviceAccount: `${POD.namespace}:${POD.serviceAccount.name}` }],
    ['node', { cluster: 'east', nodeUID: POD.node.uid }],
    ['SPIFFE ID', { spiffeID: SPIFFE_ID }],
  ])('T-26: of a workload that is banned by its %s', async (_, spec) => {
    const issuer = await issuerOf(registration('web'), ban(spec))
    expect(await refused(issuer)).toEqual([400, 'banned'])
    expect(issuer.book.decisions).toMatchObject([{ door: 'bundles', decision: 'refused', reason: 'banned' }])
  })

  test('T-26: a ban of one of its SPIFFE IDs takes away what goes with that', async () => {
    const issuer = await issuerOf(
      ...[peer('a.example'), peer('b.example'), ban({ spiffeID: SPIFFE_ID })],
      registration('web', { federatesWith: ['a.example'] }),
      registration('two', { spiffeID: 'spiffe://example.org/two', federatesWith: ['b.example'] }),
    )
    expect(namesOf(await given(issuer))).toEqual(['example.org', 'b.example'])
  })

  test('D6: of a pod that is gone, where a registration wants it to be alive', async () => {
    const issuer = await issuerOf(registration('web', { liveness: 'tokenReview' }))
    expect(await given(issuer)).toHaveProperty('trust_domain')
    server.pods.clear()
    expect(await refused(issuer, { claims: { jti: 'another' } })).toEqual([
      400,
      expect.stringMatching(/^(token_not_live|pod_gone)$/),
    ])
  })
})
