import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { KeyClaims } from '../../../worker/attest/cluster_keys.ts'
import { ServiceAccountAttestor } from '../../../worker/attest/service_account.ts'
import { Refusal, type RefusalReason } from '../../../worker/refusal.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, SHARED_ISSUER, type TokenChange } from '../../support/cluster.ts'
import { Network } from '../../support/cluster_network.ts'
import { ISSUER, policyOf } from '../../support/policy.ts'
import { findPieceOf, signTokenWithPublicKey, spoiledEcdsaSignatures, withSignature } from '../../support/tokens.ts'
import { Background, LogBook } from '../issuer.ts'

let east: FakeCluster
let west: FakeCluster
/** Two clusters that both call themselves by the default name. */
let kindOne: FakeCluster
let kindTwo: FakeCluster
beforeAll(async () => {
  ;[east, west, kindOne, kindTwo] = await Promise.all([
    FakeCluster.create('east', { alg: 'RS256' }),
    FakeCluster.create('west'),
    FakeCluster.create('kind-one', { issuer: SHARED_ISSUER, audience: 'edge-one' }),
    FakeCluster.create('kind-two', { issuer: SHARED_ISSUER, audience: 'edge-two' }),
  ])
})

let network: Network
let book: LogBook
let background: Background
beforeEach(() => {
  network = new Network()
  book = new LogBook()
  background = new Background()
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

function attestor(...records: readonly object[]): ServiceAccountAttestor {
  const all = records.length > 0 ? records : [east, west, kindOne, kindTwo].map((cluster) => cluster.record())
  return new ServiceAccountAttestor(policyOf(...all).clusters.values(), {
    now: () => NOW,
    waitUntil: background.waitUntil,
    log: book.log,
    allowLoopbackHttp: false,
    claims: new KeyClaims(),
    api: () => null,
  })
}

/** @returns why a token is refused, or the name of the cluster whose pod it attests */
async function verdict(token: string, by = attestor()): Promise<RefusalReason | string> {
  try {
    return (await by.attest(token, 'token', NOW)).cluster
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    expect(findPieceOf(token, `${error.message} ${error.detail}`)).toBeNull()
    return error.reason
  }
}

describe('a projected token', () => {
  test('SA-1: in the exact shape of a real one attests its pod', async () => {
    expect(await attestor().attest(await east.token(), 'token', NOW)).toEqual({
      kind: 'pod',
      door: 'token',
      cluster: 'east',
      namespace: POD.namespace,
      serviceAccount: POD.serviceAccount,
      pod: POD.pod,
      node: POD.node,
      selectors: new Set([
        `k8s:ns:${POD.namespace}`,
        `k8s:sa:${POD.serviceAccount.name}`,
        `k8s:pod-name:${POD.pod.name}`,
        `k8s:pod-uid:${POD.pod.uid}`,
        `k8s:node-name:${POD.node.name}`,
      ]),
      live: false,
      expiresAt: NOW + 3607,
    })
  })

  test.each<[string, TokenChange]>([
    ['typ JWT', { header: { typ: 'JWT' } }],
    ['an audience that is no list', { claims: { aud: 'spiffe-edge' } }],
    ['neither jti nor nbf', { claims: { jti: undefined, nbf: undefined } }],
    ['SA-2: no node, as before 1.30', { kubernetes: { node: undefined } }],
    ['SA-2: a node without a uid', { kubernetes: { node: { name: 'node-1' } } }],
    ['SA-1: warnafter', { kubernetes: { warnafter: NOW + 3000 } }],
    ['a clock 30 s ahead of ours', { claims: { iat: NOW + 30, nbf: NOW + 30 } }],
    ['SA-5: just the lifetime that the record allows', { claims: { exp: NOW + 7200 } }],
    ['one second left', { claims: { exp: NOW + 1, iat: NOW - 3600, nbf: NOW - 3600 } }],
  ])('with %s is taken', async (_, change) => {
    expect(await verdict(await east.token(change))).toBe('east')
  })

  test.each(['RS256', 'ES256', 'ES384', 'ES512'] as const)('SA-3: signed with %s is taken', async (alg) => {
    const cluster = await FakeCluster.create('east', { alg })
    expect(await verdict(await cluster.token(), attestor(cluster.record()))).toBe('east')
  })

  test('bound to no pod is taken where the record allows it', async () => {
    const token = await east.token({ kubernetes: { pod: undefined, node: undefined } })
    const attestation = await attestor(east.record({ requireBoundPod: false })).attest(token, 'token', NOW)
    expect(attestation).toMatchObject({ cluster: 'east', pod: null })
  })
})

describe('12.8: PSAT', () => {
  test.each<[string, () => TokenChange, RefusalReason]>([
    ['issuer of an unknown cluster', () => ({ claims: { iss: 'https://north.example.org' } }), 'token_issuer'],
    ['issuer with a slash behind', () => ({ claims: { iss: `${east.issuer}/` } }), 'token_issuer'],
    ['issuer in another case', () => ({ claims: { iss: east.issuer.toUpperCase() } }), 'token_issuer'],
    ['no issuer', () => ({ claims: { iss: undefined } }), 'token_issuer'],
    ['issuer a list', () => ({ claims: { iss: [east.issuer] } }), 'token_issuer'],
    ['issuer a name that every object has', () => ({ claims: { iss: 'constructor' } }), 'token_issuer'],

    ['audience of the API server only', () => ({ claims: { aud: [SHARED_ISSUER] } }), 'token_audience'],
    ["audience of the API server's SVIDs", () => ({ claims: { aud: ['k8s-east'] } }), 'token_audience'],
    [
      'T-6: ours and that of the API server',
      () => ({ claims: { aud: ['spiffe-edge', SHARED_ISSUER] } }),
      'token_audience',
    ],
    ["T-6: another door's", () => ({ claims: { aud: ['kubespiffed'] } }), 'token_audience'],
    ['T-6: our issuer', () => ({ claims: { aud: [ISSUER] } }), 'token_audience'],
    ['audience in another case', () => ({ claims: { aud: ['Spiffe-Edge'] } }), 'token_audience'],
    ['an empty audience', () => ({ claims: { aud: [''] } }), 'token_audience'],
    ['no audience', () => ({ claims: { aud: undefined } }), 'token_claims'],
    ['an empty list of audiences', () => ({ claims: { aud: [] } }), 'token_claims'],
    ['an audience that is no text', () => ({ claims: { aud: ['spiffe-edge', 1] } }), 'token_claims'],

    ['SA-4: no exp', () => ({ claims: { exp: undefined } }), 'token_claims'],
    ['expired', () => ({ claims: { exp: NOW, iat: NOW - 3607 } }), 'token_expired'],
    ['not valid yet', () => ({ claims: { nbf: NOW + 31 } }), 'token_not_yet_valid'],
    ['issued in the future', () => ({ claims: { iat: NOW + 31 } }), 'token_not_yet_valid'],
    ['no iat', () => ({ claims: { iat: undefined } }), 'token_claims'],
    ['iat a text', () => ({ claims: { iat: String(NOW) } }), 'token_claims'],

    ['SA-5: exp − iat of one year', () => ({ claims: { exp: NOW + 365 * 86_400 } }), 'token_lifetime'],
    ['SA-5: one second more than the record allows', () => ({ claims: { exp: NOW + 7201 } }), 'token_lifetime'],
    [
      'SA-5: the same, long ago',
      () => ({ claims: { iat: NOW - 7200, nbf: NOW - 7200, exp: NOW + 1 } }),
      'token_lifetime',
    ],
    ['SA-5: iat 0', () => ({ claims: { iat: 0 } }), 'token_lifetime'],

    [
      'sub of another namespace',
      () => ({ claims: { sub: `system:serviceaccount:other:${POD.serviceAccount.name}` } }),
      'token_claims',
    ],
    [
      'sub of another service account',
      () => ({ claims: { sub: `system:serviceaccount:${POD.namespace}:other` } }),
      'token_claims',
    ],
    ['kubernetes.io of another namespace', () => ({ kubernetes: { namespace: 'other' } }), 'token_claims'],
    [
      'kubernetes.io of another service account',
      () => ({ kubernetes: { serviceaccount: { name: 'other', uid: 'u' } } }),
      'token_claims',
    ],
    ['sub of a node', () => ({ claims: { sub: 'system:node:node-1' } }), 'token_claims'],
    ['sub a SPIFFE ID', () => ({ claims: { sub: 'spiffe://example.org/x' } }), 'token_claims'],
    ['no sub', () => ({ claims: { sub: undefined } }), 'token_claims'],
    ['sub a list', () => ({ claims: { sub: ['system:serviceaccount:a:b'] } }), 'token_claims'],
    [
      'an empty namespace',
      () => ({ claims: { sub: 'system:serviceaccount::x' }, kubernetes: { namespace: '' } }),
      'token_claims',
    ],

    ['no pod where a pod is demanded', () => ({ kubernetes: { pod: undefined } }), 'token_unbound'],
    ['bound to a Secret', () => ({ kubernetes: { pod: undefined, secret: { name: 's', uid: 'u' } } }), 'token_unbound'],
    ['bound to a Node', () => ({ kubernetes: { pod: undefined } }), 'token_unbound'],
    ['a pod without a uid', () => ({ kubernetes: { pod: { name: 'web' } } }), 'token_claims'],
    ['a pod with an empty uid', () => ({ kubernetes: { pod: { name: 'web', uid: '' } } }), 'token_claims'],
    ['a pod without a name', () => ({ kubernetes: { pod: { uid: 'u' } } }), 'token_claims'],
    ['pod null', () => ({ kubernetes: { pod: null } }), 'token_claims'],
    ['pod a text', () => ({ kubernetes: { pod: 'web' } }), 'token_claims'],
    [
      'a service account without a uid',
      () => ({ kubernetes: { serviceaccount: { name: POD.serviceAccount.name } } }),
      'token_claims',
    ],
    ['no kubernetes.io', () => ({ claims: { 'kubernetes.io': undefined } }), 'token_claims'],
    ['kubernetes.io a list', () => ({ claims: { 'kubernetes.io': [] } }), 'token_claims'],
    [
      'kubernetes.io by inheritance',
      () => ({ claims: { 'kubernetes.io': undefined, ['__proto__']: { 'kubernetes.io': {} } } }),
      'token_claims',
    ],
  ])('%s', async (_, change, reason) => {
    expect(await verdict(await east.token(change()))).toBe(reason)
  })

  test('SA-4: a legacy token is of an issuer that is not known, and has no audience where it is', async () => {
    const claims = {
      iss: 'kubernetes/serviceaccount',
      sub: 'system:serviceaccount:default:web',
      'kubernetes.io/serviceaccount/namespace': 'default',
      'kubernetes.io/serviceaccount/secret.name': 'web-token-abcde',
      'kubernetes.io/serviceaccount/service-account.name': 'web',
      'kubernetes.io/serviceaccount/service-account.uid': 'u',
    }
    const token = await east.token({ claims: JSON.stringify(claims) })
    expect(await verdict(token)).toBe('token_issuer')
    expect(await verdict(token, attestor(east.record({ issuer: 'kubernetes/serviceaccount' })))).toBe('token_claims')
  })

  test('SA-5: a record may allow a day, and no token of a year', async () => {
    const by = attestor(east.record({ maxTokenLifetimeSeconds: 86_400 }))
    expect(await verdict(await east.token({ claims: { exp: NOW + 86_400 } }), by)).toBe('east')
    expect(await verdict(await east.token({ claims: { exp: NOW + 86_401 } }), by)).toBe('token_lifetime')
  })
})

describe('T-6: what is no service account token at all', () => {
  test('an own SVID, signed with a key that even a cluster has', async () => {
    const claims = {
      iss: ISSUER,
      sub: 'spiffe://example.org/ns/a/sa/b',
      aud: ISSUER,
      exp: NOW + 300,
      iat: NOW,
      jti: 'x',
    }
    expect(await verdict(await east.token({ header: { typ: 'JWT' }, claims: JSON.stringify(claims) }))).toBe(
      'token_issuer',
    )
  })

  test('an ID token of the cluster itself, without the claims of a service account', async () => {
    const { iss, aud, exp, iat } = east.claims()
    expect(await verdict(await east.token({ claims: JSON.stringify({ iss, aud, exp, iat, sub: 'alice' }) }))).toBe(
      'token_claims',
    )
  })
})

describe('12.2: the token itself', () => {
  test.each<[string, TokenChange, RefusalReason]>([
    ['alg none', { header: { alg: 'none' } }, 'token_algorithm'],
    ['alg HS256', { header: { alg: 'HS256' } }, 'token_algorithm'],
    ['no alg', { header: { alg: undefined } }, 'token_algorithm'],
    ['alg of another key type', { header: { alg: 'ES256' } }, 'token_signature'],
    ['alg of another padding', { header: { alg: 'PS256' } }, 'token_signature'],
    ['alg of another hash', { header: { alg: 'RS512' } }, 'token_signature'],
    ['typ at+jwt', { header: { typ: 'at+jwt' } }, 'token_header'],
    ['no kid', { header: { kid: undefined } }, 'token_header'],
    ['crit', { header: { crit: ['exp'] } }, 'token_header'],
    ['jku', { header: { jku: 'https://evil.example/keys' } }, 'token_header'],
    ['jwk', { header: { jwk: {} } }, 'token_header'],
    ['an unknown kid', { header: { kid: 'unknown' } }, 'token_key'],
    ['the payload no object', { claims: '[]' }, 'token_malformed'],
    ['sub twice', { claims: '{"sub":"a","sub":"b"}' }, 'token_malformed'],
    ['SUB beside sub', { claims: { SUB: 'system:serviceaccount:a:b' } }, 'token_claims'],
    ['more than 16 KiB', { claims: { padding: 'x'.repeat(16_384) } }, 'token_too_large'],
  ])('with %s', async (_, change, reason) => {
    expect(await verdict(await east.token(change))).toBe(reason)
  })

  test.each<[string, string, RefusalReason]>([
    ['nothing', '', 'token_malformed'],
    ['text', 'token', 'token_malformed'],
    ['a byte order mark', '\ufeff', 'token_malformed'],
    ['64 KiB of dots', '.'.repeat(65_536), 'token_too_large'],
  ])('%s', async (_, token, reason) => {
    expect(await verdict(token)).toBe(reason)
  })

  test('HS256 with the RSA public key as the secret', async () => {
    const token = await signTokenWithPublicKey({ alg: 'HS256', kid: east.key.kid }, east.claims(), east.key)
    expect(await verdict(token)).toBe('token_algorithm')
  })

  test.each(Object.entries(spoiledEcdsaSignatures))('an ECDSA signature %s', async (_, spoil) => {
    const token = await west.token()
    expect(await verdict(token)).toBe('west')
    expect(await verdict(withSignature(token, spoil))).toBe('token_signature')
  })

  test('signed by somebody else under a kid of the cluster', async () => {
    expect(await verdict(await east.token({ header: { alg: 'ES256' }, key: west.key }))).toBe('token_signature')
    const { kid, alg } = west.key
    expect(await verdict(await west.token({ header: { kid, alg }, key: kindOne.key }))).toBe('token_signature')
  })

  test('a bad signature is found before anything is said about the claims', async () => {
    const token = await east.token({ claims: { sub: 'x', exp: 1, iat: 'x' } })
    expect(await verdict(withSignature(token, (octets) => octets.toReversed()))).toBe('token_signature')
  })
})

describe('T-3: clusters that share an issuer', () => {
  test('are told apart by the audience', async () => {
    expect(await verdict(await kindOne.token())).toBe('kind-one')
    expect(await verdict(await kindTwo.token())).toBe('kind-two')
  })

  test('are each tried with their own keys only', async () => {
    const aud = [kindTwo.audience]
    expect(await verdict(await kindOne.token({ claims: { aud } }))).toBe('token_key')
    expect(await verdict(await kindOne.token({ claims: { aud }, header: { kid: kindTwo.key.kid } }))).toBe(
      'token_signature',
    )
  })

  test('do not both answer to a token that is made out to both', async () => {
    expect(await verdict(await kindOne.token({ claims: { aud: [kindOne.audience, kindTwo.audience] } }))).toBe(
      'token_audience',
    )
  })

  test('nor does a cluster speak for one with an issuer of its own', async () => {
    expect(await verdict(await west.token({ claims: { iss: east.issuer } }))).toBe('token_key')
    expect(await verdict(await west.token({ claims: { iss: east.issuer }, header: { kid: east.key.kid } }))).toBe(
      'token_signature',
    )
  })

  test('a record with several audiences takes a token for any or all of them', async () => {
    const by = attestor(east.record({ audiences: ['a', 'b'] }))
    for (const aud of [['a'], ['b'], ['a', 'b'], 'b'])
      expect(await verdict(await east.token({ claims: { aud } }), by)).toBe('east')
    expect(await verdict(await east.token({ claims: { aud: ['a', 'c'] } }), by)).toBe('token_audience')
  })
})

describe('a token decides nothing about what is fetched', () => {
  test.each<[string, TokenChange]>([
    ['an unknown issuer', { claims: { iss: 'https://evil.example' } }],
    ['a header that points elsewhere', { header: { jku: 'https://evil.example/keys' } }],
    ['another audience', { claims: { aud: ['other'] } }],
    ['an algorithm that is not ours', { header: { alg: 'none' } }],
  ])('%s: nothing is', async (_, change) => {
    await verdict(await west.token(change), attestor(west.record({ jwks: { discovery: true } })))
    expect(network.requests).toEqual([])
  })

  test('keys that cannot be had are nobody’s fault but ours', async () => {
    const by = attestor(west.record({ jwks: { discovery: true } }))
    expect(await verdict(await west.token(), by)).toBe('cluster_keys_unavailable')
    expect(network.requests).toEqual([`${west.issuer}/.well-known/openid-configuration`])
  })
})
