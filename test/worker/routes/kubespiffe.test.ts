/** facts.md §2: kubespiffe's one route, with its demo's objects as they are and a whole issuer around it. */

import '@abraham/reflection'
import { PemConverter, SubjectAlternativeNameExtension, X509Certificate } from '@peculiar/x509'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { parseDocument } from 'yaml'
import type { Door } from '../../../worker/attest/attestation.ts'
import type { X509Authority } from '../../../worker/spiffe/x509_svid.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, SHARED_ISSUER } from '../../support/cluster.ts'
import { json, Network } from '../../support/cluster_network.ts'
import { base64, makeCsr } from '../../support/csr.ts'
import { FakeApiServer } from '../../support/kube_api.ts'
import { cluster, policyOf, problemsOf, registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { giveAuthorities, makeAuthority } from '../authority.ts'
import { TestIssuer } from '../issuer.ts'
import { VAULT_TOKEN_KEY, vaultObject } from '../vault_client.ts'

/** Its demo's, word for word. */
const DEMO = ['workload', 'another'].map(
  (name) => `apiVersion: kubespiffe.io/v1alpha1
kind: WorkloadRegistration
metadata:
  name: ${name}
spec:
  spiffeID: spiffe://example.org/ns/default/sa/default
  svidType: X509
  selector:
    namespace: default
    serviceAccountName: default
    podName: ${name}
`,
)
const demo = () => DEMO.map((text) => parseDocument(text).toJS())
const ID = 'spiffe://example.org/ns/default/sa/default'
const KUBESPIFFED = { claims: { aud: ['kubespiffed'] } }

let east: FakeCluster
let authority: X509Authority
let csr: string
beforeAll(async () => {
  east = await FakeCluster.create('east')
  authority = await makeAuthority()
  csr = base64((await makeCsr()).der)
})

let server: FakeApiServer
beforeEach(() => {
  vi.stubGlobal('fetch', new Network().fetch)
  server = new FakeApiServer(east)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

/** @param spec of the cluster's record, with kubespiffe's door open */
function issuerOf(objects: readonly object[], spec: object = {}): TestIssuer {
  const connection = { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }
  const issuer = new TestIssuer([east.record({ connection, kubespiffe: true, ...spec }), ...objects], {
    CLUSTER_EAST: server,
    VAULT_TOKEN_KEY,
  })
  giveAuthorities(issuer, authority)
  return issuer
}

/** The token of a pod of the demo, as its deployment asks for it. */
async function demoToken(pod: string): Promise<string> {
  const account = { name: 'default', uid: 'uid-1' }
  return east.token({
    claims: { aud: ['kubespiffed'], sub: 'system:serviceaccount:default:default' },
    kubernetes: { namespace: 'default', serviceaccount: account, pod: { name: pod, uid: 'uid-2' } },
  })
}

async function ask(issuer: TestIssuer, token: string | null) {
  const headers: HeadersInit = token === null ? {} : { authorization: `Bearer ${token}` }
  const response = await issuer.fetch('/v1/svid', { headers })
  expect(response.headers.get('cache-control')).toBe('no-store')
  expect(response.headers.get('content-type')).toBe('application/json')
  const text = await response.text()
  if (token !== null) expect(findPieceOf(token, response.ok ? issuer.book.text : text + issuer.book.text)).toBeNull()
  return { status: response.status, headers: response.headers, body: JSON.parse(text) as Record<string, string> }
}

async function outcome(issuer: TestIssuer, token: string): Promise<unknown> {
  const { status, body } = await ask(issuer, token)
  return status === 200 ? status : [status, body.reason]
}

describe('a pod of kubespiffe’s demo', () => {
  test.each(['workload-67c559dbb7-r5d5s', 'another-5b77f9d8fc-7r5m7'])('%s gets an SVID with its key', async (pod) => {
    const { status, body } = await ask(issuerOf(demo()), await demoToken(pod))
    expect([status, Object.keys(body)]).toEqual([200, ['x509_svid', 'x509_svid_key', 'bundle']])
    const [svid = '', key = '', bundle = ''] = Object.values(body).map(atob)
    const leaf = new X509Certificate(svid)
    expect(leaf.getExtension(SubjectAlternativeNameExtension)?.names.toJSON()).toEqual([{ type: 'url', value: ID }])
    expect(await leaf.verify({ publicKey: new X509Certificate(bundle), signatureOnly: true })).toBe(true)
    expect(leaf.notAfter.getTime() / 1000).toBe(NOW + 3600)
    expect(key).toMatch(/^-----BEGIN PRIVATE KEY-----\n/)
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
    const privateKey = await crypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(key), algorithm, false, ['sign'])
    const data = Uint8Array.of(1, 2, 3)
    const signed = await crypto.subtle.sign({ ...algorithm, hash: 'SHA-256' }, privateKey, data)
    const publicKey = await leaf.publicKey.export(algorithm, ['verify'])
    expect(await crypto.subtle.verify({ ...algorithm, hash: 'SHA-256' }, publicKey, signed, data)).toBe(true)
  })

  test('unattested has no registration, and gets a 403 that says so', async () => {
    const { status, body } = await ask(issuerOf(demo()), await demoToken('unattested-5b77f9d8fc-7r5m7'))
    expect([status, body]).toEqual([
      403,
      {
        error: 'access_denied',
        error_description: 'no registration selects this workload',
        reason: 'registration_none',
        id: expect.any(String),
      },
    ])
  })

  test('T-22: gets a new key each time, of which nothing is in the log', async () => {
    const issuer = issuerOf(demo())
    const token = await demoToken('workload-67c559dbb7-r5d5s')
    const keys: string[] = []
    for (let times = 0; times < 2; times++) keys.push((await ask(issuer, token)).body.x509_svid_key ?? '')
    expect(new Set(keys).size).toBe(2)
    for (const key of keys) {
      expect(findPieceOf(key, issuer.book.text)).toBeNull()
      expect(findPieceOf(atob(key).split('\n').slice(1, -2).join(''), issuer.book.text)).toBeNull()
    }
  })

  test('leaves kubespiffe’s words in one line', async () => {
    const issuer = issuerOf(demo())
    await ask(issuer, await demoToken('workload-67c559dbb7-r5d5s'))
    await ask(issuer, await demoToken('unattested-5b77f9d8fc-7r5m7'))
    expect(issuer.book.decisions).toMatchObject([
      { message: 'pod attested', door: 'kubespiffe', decision: 'issued', spiffe_id: ID, registration: 'workload' },
      { message: 'pod rejected', door: 'kubespiffe', decision: 'refused', reason: 'registration_none' },
    ])
  })
})

describe('who gets no key from here', () => {
  test.each<[string, object]>([
    ['of both types, unless it says so', { audiences: ['a'] }],
    ['of tokens', { svidType: 'JWT' }],
  ])('T-22: a pod with a registration %s', async (_, spec) => {
    const issuer = issuerOf([registration('web', spec)])
    expect(await outcome(issuer, await east.token(KUBESPIFFED))).toEqual([403, 'svid_type_not_allowed'])
  })

  test('T-6: pods of a cluster whose record does not say so', async () => {
    const issuer = issuerOf([registration('web', { svidType: 'X509' })], { kubespiffe: undefined })
    expect(await outcome(issuer, await east.token())).toEqual([403, 'door_closed'])
    expect(await outcome(issuer, await east.token(KUBESPIFFED))).toEqual([403, 'token_audience'])
  })

  test('RFC 6750 §3: nobody without a token', async () => {
    const { status, headers, body } = await ask(issuerOf(demo()), null)
    expect([status, headers.get('www-authenticate'), body.reason]).toEqual([401, 'Bearer', 'bearer_missing'])
  })

  test('T-26: who is banned', async () => {
    const spec = { cluster: 'east', serviceAccount: 'default:default' }
    const ban = { apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'Ban', metadata: { name: 'thief' }, spec }
    const token = await demoToken('workload-67c559dbb7-r5d5s')
    expect(await outcome(issuerOf([...demo(), ban]), token)).toEqual([403, 'banned'])
  })

  test.each<[string, object, string]>([
    ['token that is over', { claims: { ...KUBESPIFFED.claims, exp: NOW - 1, iat: NOW - 3600 } }, 'token_expired'],
    ['token of a stranger', { ...KUBESPIFFED, header: { kid: 'x' } }, 'token_key'],
    ['token for somebody else too', { claims: { aud: ['kubespiffed', 'other'] } }, 'token_audience'],
    ['legacy token, whose audience is a text', { claims: { aud: 'other' } }, 'token_audience'],
  ])('nobody with a %s', async (_, change, reason) => {
    expect(await outcome(issuerOf(demo()), await east.token(change))).toEqual([403, reason])
  })

  test('and where there is no CA, nobody at all', async () => {
    const issuer = new TestIssuer([east.record({ kubespiffe: true }), ...demo()])
    expect(await outcome(issuer, await demoToken('workload-67c559dbb7-r5d5s'))).toEqual([403, 'x509_not_configured'])
  })

  test('nothing is made for who may not have it', async () => {
    const generateKey = vi.spyOn(crypto.subtle, 'generateKey')
    await outcome(issuerOf(demo()), await demoToken('unattested-5b77f9d8fc-7r5m7'))
    expect(generateKey).not.toHaveBeenCalled()
    generateKey.mockRestore()
  })
})

const VAULT_AUDIENCE = 'invalid audience (aud) claim: audience claim does not match any expected audience'

describe('T-6: which token is good at which door', () => {
  const ATTESTED = `${POD.namespace}:${POD.serviceAccount.name}`
  const doors: Readonly<Record<Door, (issuer: TestIssuer, token: string) => Promise<Response>>> = {
    token: (issuer, token) => issuer.exchange(token),
    svid_x509: (issuer, token) =>
      issuer.fetch('/svid/x509', {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify({ csr }),
      }),
    bundles: (issuer, token) => issuer.fetch('/bundles', { headers: { authorization: `Bearer ${token}` } }),
    kubespiffe: (issuer, token) => issuer.fetch('/v1/svid', { headers: { authorization: `Bearer ${token}` } }),
    k8s_psat: (issuer, token) =>
      issuer.fetch('/attest/k8s_psat', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ payload: { cluster: 'east', token }, csr }),
      }),
    vault: (issuer, token) =>
      issuer.fetch('/v1/auth/kubernetes/login', { method: 'POST', body: JSON.stringify({ role: 'web', jwt: token }) }),
  }
  const vault = [
    vaultObject('VaultMount', 'kubernetes', { config: { kubernetes_host: 'https://10.0.0.1:6443', cluster: 'east' } }),
    vaultObject('VaultRole', 'kubernetes/web', {
      bound_service_account_names: ['*'],
      bound_service_account_namespaces: ['*'],
    }),
  ]
  /** One registration for each kind of SVID, and for the nodes an allow list. */
  const everything = (spec: object = {}) =>
    issuerOf(
      [registration('token', { svidType: 'JWT' }), registration('certificate', { svidType: 'X509' }), ...vault],
      {
        serviceAccountAllowList: [ATTESTED],
        ...spec,
      },
    )

  test.each<[string, readonly string[], readonly Door[]]>([
    ['the cluster’s own', ['spiffe-edge'], ['token', 'svid_x509', 'bundles', 'kubespiffe', 'k8s_psat', 'vault']],
    ['kubespiffe’s', ['kubespiffed'], ['kubespiffe']],
    ['both', ['spiffe-edge', 'kubespiffed'], ['kubespiffe']],
    ['the API server’s', ['https://kubernetes.default.svc'], []],
    ['its own and the API server’s', ['spiffe-edge', 'https://kubernetes.default.svc'], []],
  ])('%s audience', async (_, aud, good) => {
    for (const [door, knock] of Object.entries(doors)) {
      const answer = await knock(everything(), await east.token({ claims: { aud } }))
      expect([door, answer.status === 200]).toEqual([door, good.includes(door as Door)])
      if (!answer.ok)
        expect(await answer.json()).toMatchObject(
          door === 'vault' ? { errors: [VAULT_AUDIENCE] } : { reason: 'token_audience' },
        )
    }
  })

  test('at none but the one for nodes, where the cluster’s only audience is that of its API server', async () => {
    const token = await east.token({ claims: { aud: ['https://kubernetes.default.svc'] } })
    for (const [door, knock] of Object.entries(doors))
      expect([door, (await knock(everything({ audiences: [] }), token)).status === 200]).toEqual([
        door,
        door === 'k8s_psat',
      ])
  })

  test('an API server’s yes at one door is none at another', async () => {
    const issuer = everything({ audiences: [], liveness: 'tokenReview' })
    const token = await east.token(KUBESPIFFED)
    expect((await doors.kubespiffe(issuer, token)).status).toBe(200)
    await doors.k8s_psat(issuer, token)
    const asked = server.reviews.map(({ body }) => (body as { spec: { audiences?: string[] } }).spec.audiences)
    expect(asked).toEqual([['kubespiffed'], undefined])
  })

  test('that a registration wants the pod to be alive is asked with the audiences of the door', async () => {
    const certificate = registration('certificate', { svidType: 'X509', liveness: 'tokenReview' })
    const issuer = issuerOf([certificate])
    expect((await doors.kubespiffe(issuer, await east.token(KUBESPIFFED))).status).toBe(200)
    expect(server.reviews[0]?.body).toMatchObject({ spec: { audiences: ['spiffe-edge', 'kubespiffed'] } })
  })

  test('a provider’s token is good at the doors of who is no pod', async () => {
    const ci = await FakeCluster.create('ci', { audience: 'https://issuer.example.org' })
    const network = new Network()
    network.serve(`${ci.issuer}/.well-known/openid-configuration`, json(ci.discovery()))
    network.serve(`${ci.issuer}/openid/v1/jwks`, json(ci.jwks()))
    vi.stubGlobal('fetch', network.fetch)
    const attestor = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'OIDCAttestor',
      metadata: { name: 'ci' },
      spec: { issuer: ci.issuer, audience: ci.audience },
    }
    const job = registration('job', {
      clusters: undefined,
      selector: undefined,
      oidc: { attestor: 'ci', subject: 'job' },
      spiffeID: 'spiffe://example.org/ci/job',
      svidType: 'X509',
    })
    const issuer = issuerOf([attestor, job])
    const token = await ci.token({ claims: { sub: 'job', aud: ci.audience, exp: NOW + 600 } })
    expect((await doors.svid_x509(issuer, token)).status).toBe(200)
    expect(await outcome(issuer, token)).toEqual([403, 'token_issuer'])
  })
})

describe('T-3: clusters that share an issuer', () => {
  const record = (name: string, spec: object) =>
    cluster(name, {
      issuer: SHARED_ISSUER,
      jwks: { url: `https://${name}.example/jwks` },
      audiences: [`edge-${name}`],
      ...spec,
    })

  test('cannot both have kubespiffe’s audience', () => {
    expect(problemsOf(record('east', { kubespiffe: true }), record('west', { kubespiffe: true }))).toEqual([
      "Cluster east: spec.kubespiffe: kubespiffed is another cluster's too, and the issuer is shared",
      "Cluster west: spec.kubespiffe: kubespiffed is another cluster's too, and the issuer is shared",
    ])
    expect(problemsOf(record('east', { kubespiffe: true }), record('west', {}))).toEqual([])
  })

  test('and others can', () => {
    expect(problemsOf(cluster('east', { kubespiffe: true }), cluster('west', { kubespiffe: true }))).toEqual([])
  })

  test('T-7: nobody is given a token with that audience, where it attests', () => {
    const web = registration('web', { audiences: ['kubespiffed'] })
    expect(problemsOf(cluster('east', { kubespiffe: true }), web)).toEqual([
      'WorkloadRegistration web: spec.audiences: kubespiffed is an attestation audience',
    ])
    expect(policyOf(cluster('east'), web).registrations.all).toHaveLength(1)
  })
})

test.each(['HEAD', 'POST', 'PUT', 'DELETE'])('GET /v1/svid is for GET: %s is 405, and no decision', async (method) => {
  const issuer = issuerOf(demo())
  const answer = await issuer.fetch('/v1/svid', { method })
  expect([answer.status, answer.headers.get('allow'), issuer.book.decisions]).toEqual([405, 'GET', []])
})
