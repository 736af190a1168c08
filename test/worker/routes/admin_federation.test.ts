import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { NOW } from '../../support/clock.ts'
import { Network, text } from '../../support/cluster_network.ts'
import { jwtEntry, makeAuthority, spireBundle, type TestAuthority } from '../../support/foreign_bundle.ts'
import { Administrator } from '../administrator.ts'
import { TestIssuer } from '../issuer.ts'

const PEER = 'https://peer.example/'
const peer = (trustDomain: string, spec: object = {}) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'FederatedTrustDomain',
  metadata: { name: trustDomain },
  spec: { trustDomain, ...spec },
})
const WEB = { bundleEndpointURL: PEER, bundleEndpointProfile: { type: 'https_web' } }

let alice: Administrator
let one: TestAuthority
let two: TestAuthority
beforeAll(async () => {
  ;[alice, one, two] = await Promise.all([Administrator.create(), makeAuthority('one'), makeAuthority('two')])
})

let network: Network
let issuer: TestIssuer
beforeEach(() => {
  network = new Network()
  network.serve(PEER, text(spireBundle([jwtEntry(one)], 7)))
  vi.stubGlobal('fetch', network.fetch)
  issuer = new TestIssuer([alice.object, peer('peer.example', WEB), peer('given.example')])
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const post = async (path: string, body: object) => {
  const answer = await alice.send(issuer, body, {}, `/admin/v1/federation/${path}`)
  return { status: answer.status, ...((await answer.json()) as Record<string, unknown>) }
}
const report = async () => (await alice.get(issuer, '/admin/v1/federation')).json()

test('says what is known of each trust domain that the policy names', async () => {
  await report()
  await issuer.federation.wake()
  const nothing = { fetchedAt: null, succeededAt: null, failure: null, changedAt: null, breaksAt: null }
  expect(await report()).toEqual({
    now: NOW,
    trustDomains: [
      {
        ...nothing,
        ...{ name: 'given.example', trustDomain: 'given.example', change: { added: [], removed: [] } },
        ...{ bundleEndpointURL: null, bundleEndpointProfile: null, nextAt: null, keys: null, sequence: null },
        refreshHintSeconds: null,
      },
      {
        ...{ name: 'peer.example', trustDomain: 'peer.example', failure: null, sequence: 7, refreshHintSeconds: 300 },
        ...{ bundleEndpointURL: PEER, bundleEndpointProfile: 'https_web', keys: { jwt: 1, x509: 0 } },
        ...{ fetchedAt: NOW, succeededAt: NOW, nextAt: NOW + 300, changedAt: NOW, breaksAt: NOW + 900 },
        change: { added: ['one'], removed: [] },
      },
    ],
  })
})

test('says so of each that the policy names, also where the state goes by another policy in a rollout', async () => {
  await issuer.federation.name(
    { version: 9, mark: 'other' },
    { trustDomain: 'given.example', url: null, bootstrap: null },
  )
  const unheardOf = { keys: null, sequence: null, fetchedAt: null, succeededAt: null, nextAt: null, failure: null }
  expect(await report()).toMatchObject({
    trustDomains: [
      { trustDomain: 'given.example' },
      { name: 'peer.example', trustDomain: 'peer.example', bundleEndpointURL: PEER, ...unheardOf },
    ],
  })
})

test('where the policy names nobody, says so and asks nobody', async () => {
  issuer = new TestIssuer([alice.object])
  issuer.deps.federationState = () => {
    throw new Error('asked')
  }
  expect(await report()).toEqual({ now: NOW, trustDomains: [] })
  expect(await post('refresh', { trustDomain: 'peer.example' })).toMatchObject({ status: 404 })
})

describe('a bundle that an administrator brings', () => {
  test('is known from then on, whatever its sequence, and in the log with who brought it', async () => {
    await post('refresh', { trustDomain: 'peer.example' })
    const answer = await post('bundle', { trustDomain: 'peer.example', bundle: spireBundle([jwtEntry(two)], 2) })
    expect(answer).toMatchObject({
      ...{ status: 200, trustDomains: [{ sequence: 2, change: { added: ['two'], removed: ['one'] } }] },
    })
    expect(issuer.book.events).toContainEqual({
      ...{ event: 'federation_bundle_set', admin: 'alice', trust_domain: 'peer.example' },
    })
    const { federationRing, policyRing } = issuer.deps
    const bundles = await federationRing.bundles(await policyRing.current())
    expect(bundles.get('peer.example')?.jwtAuthorities).toMatchObject([{ kid: 'two' }])
  })

  test('is refused with its code, and what was known stays', async () => {
    await post('refresh', { trustDomain: 'peer.example' })
    for (const [bundle, code] of [
      ['[]', 'not_an_object'],
      [spireBundle([{ ...jwtEntry(two), d: 'x' }]), 'private_key'],
    ])
      expect(await post('bundle', { trustDomain: 'peer.example', bundle })).toEqual({
        ...{ status: 422, error: 'bundle_refused', code },
      })
    expect(await report()).toMatchObject({ trustDomains: [{}, { sequence: 7, failure: null }] })
  })

  test('is for a trust domain that is named, and a text', async () => {
    const bundle = spireBundle([])
    expect(await post('bundle', { trustDomain: 'third.example', bundle })).toEqual({
      ...{ status: 404, error: 'no_such_trust_domain' },
    })
    for (const body of [{ trustDomain: 'peer.example' }, { trustDomain: 'peer.example', bundle: {} }, {}])
      expect(await post('bundle', body)).toMatchObject({ status: 400, reason: 'json_malformed' })
  })
})

describe('a bundle that is fetched now', () => {
  test('is known when the answer is there', async () => {
    expect(await post('refresh', { trustDomain: 'peer.example' })).toMatchObject({
      ...{ status: 200, trustDomains: [{ trustDomain: 'peer.example', sequence: 7 }] },
    })
    expect(issuer.book.events).toContainEqual({
      ...{ event: 'federation_bundle_refreshed', admin: 'alice', trust_domain: 'peer.example' },
    })
  })

  test('or the answer says why it is not', async () => {
    network.serve(PEER, text('', 'text/plain', 500))
    expect(await post('refresh', { trustDomain: 'peer.example' })).toEqual({
      ...{ status: 409, error: 'bundle_not_fetched', code: 'status' },
    })
    expect(await post('refresh', { trustDomain: 'given.example' })).toEqual({ status: 409, error: 'no_endpoint' })
    expect(await post('refresh', { trustDomain: 'third.example' })).toMatchObject({ status: 404 })
  })
})

test('T-24: is for administrators alone', async () => {
  for (const [path, method] of [
    ['', 'GET'],
    ['/bundle', 'POST'],
    ['/refresh', 'POST'],
  ] as const) {
    const { status } = await issuer.fetch(`/admin/v1/federation${path}`, { method })
    expect(status).toBe(401)
  }
  expect(network.requests).toEqual([])
})

test('12.4: a bundle in the policy is looked into when it is applied', async () => {
  const trustDomainBundle = spireBundle([{ use: 'x509-svid', ...one.jwk, x5c: ['AAAA'] }])
  const answer = await alice.send(issuer, { objects: [peer('third.example', { trustDomainBundle })] })
  expect([answer.status, await answer.json()]).toEqual([
    422,
    {
      error: 'policy_refused',
      problems: ['FederatedTrustDomain third.example: spec.trustDomainBundle: not an acceptable bundle: x5c malformed'],
    },
  ])
})
