/** Requirements 12.9 and §9: SPIRE's node attestation, over HTTP and with a whole issuer around it. */

import '@abraham/reflection'
import { SubjectAlternativeNameExtension, X509Certificate } from '@peculiar/x509'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { certificatesPem } from '../../../keys/pem.ts'
import type { RefusalReason } from '../../../worker/refusal.ts'
import type { X509Authority } from '../../../worker/spiffe/x509_svid.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, SHARED_ISSUER, type TokenChange } from '../../support/cluster.ts'
import { Network } from '../../support/cluster_network.ts'
import { base64, makeCsr } from '../../support/csr.ts'
import { FakeApiServer, NODE_IP } from '../../support/kube_api.ts'
import { registration } from '../../support/policy.ts'
import { findPieceOf } from '../../support/tokens.ts'
import { giveAuthorities, makeAuthority } from '../authority.ts'
import { TestIssuer } from '../issuer.ts'

const ALLOWED = `${POD.namespace}:${POD.serviceAccount.name}`

let east: FakeCluster
let west: FakeCluster
let csr: string
beforeAll(async () => {
  ;[east, west] = await Promise.all([
    FakeCluster.create('east', { issuer: SHARED_ISSUER, audience: 'spire-east' }),
    FakeCluster.create('west', { issuer: SHARED_ISSUER, audience: 'spire-west' }),
  ])
  csr = base64((await makeCsr()).der)
})

let atEast: FakeApiServer
let atWest: FakeApiServer
let issuer: TestIssuer
beforeEach(() => {
  vi.stubGlobal('fetch', new Network().fetch)
  atEast = new FakeApiServer(east)
  atWest = new FakeApiServer(west)
  issuer = issuerOf()
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

function issuerOf(spec: object = {}, ...more: readonly object[]): TestIssuer {
  const record = (cluster: FakeCluster, change: object = {}) =>
    cluster.record({
      connection: { url: 'https://10.0.0.1:6443', binding: `CLUSTER_${cluster.name.toUpperCase()}` },
      serviceAccountAllowList: [ALLOWED],
      allowedPodLabelKeys: ['app', 'absent', 'app'],
      allowedNodeLabelKeys: ['zone'],
      ...change,
    })
  return new TestIssuer([record(east, spec), record(west), ...more], { CLUSTER_EAST: atEast, CLUSTER_WEST: atWest })
}

interface Outcome {
  readonly status: number
  readonly body: Record<string, unknown>
}

async function send(body: unknown, headers: Record<string, string> = {}, by = issuer): Promise<Outcome> {
  const response = await by.fetch('/attest/k8s_psat', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  expect(response.headers.get('cache-control')).toBe('no-store')
  return { status: response.status, body: await response.json() }
}

/** Attestation data as SPIRE's agent sends it. Neither answer nor log repeats the token. */
async function attest(
  token: string,
  by = issuer,
  cluster = 'east',
  request: string | undefined = csr,
): Promise<Outcome> {
  const outcome = await send({ payload: { cluster, token }, csr: request }, {}, by)
  // A certificate is base64 too, of names that stand in the token as well.
  const { x509_svid: _, ...said } = outcome.body
  expect(findPieceOf(token, JSON.stringify(said) + by.book.text)).toBeNull()
  return outcome
}

async function refused(change: TokenChange, by = issuer, cluster = 'east'): Promise<[number, unknown]> {
  const { status, body } = await attest(await east.token(change), by, cluster)
  return [status, body.reason]
}

const detail = (by = issuer) => by.book.decisions.at(-1)?.detail

describe('PS-7, PS-8: a node', () => {
  test('gets its agent’s ID and every selector of the list', async () => {
    const { status, body } = await attest(await east.token())
    expect([status, body]).toEqual([
      200,
      {
        agent_id: `spiffe://example.org/spire/agent/k8s_psat/east/${POD.node.uid}`,
        selectors: [
          'k8s_psat:cluster:east',
          `k8s_psat:agent_ns:${POD.namespace}`,
          `k8s_psat:agent_sa:${POD.serviceAccount.name}`,
          `k8s_psat:agent_pod_name:${POD.pod.name}`,
          `k8s_psat:agent_pod_uid:${POD.pod.uid}`,
          `k8s_psat:agent_node_ip:${NODE_IP}`,
          `k8s_psat:agent_node_name:${POD.node.name}`,
          `k8s_psat:agent_node_uid:${POD.node.uid}`,
          'k8s_psat:agent_node_label:zone:a',
          'k8s_psat:agent_pod_label:app:checkout',
        ],
        reattestable: true,
      },
    ])
    expect(atEast.asked).toEqual(['v1/tokenreviews', `pods/${POD.pod.name}`, `nodes/${POD.node.name}`])
  })

  test('PS-7: is named by its pod where the record says so', async () => {
    const { body } = await attest(await east.token(), issuerOf({ usePodUIDForAgentID: true }))
    expect(body.agent_id).toBe(`spiffe://example.org/spire/agent/k8s_psat/east/pod/${POD.pod.uid}`)
  })

  test('12.9: has no label whose key is not allowed', async () => {
    const { body } = await attest(await east.token(), issuerOf({ allowedPodLabelKeys: [], allowedNodeLabelKeys: [] }))
    expect(JSON.stringify(body.selectors)).not.toContain('label')
  })

  test('leaves one line, that of an attestation', async () => {
    const { body } = await attest(await east.token())
    expect(issuer.book.decisions).toMatchObject([
      { door: 'k8s_psat', decision: 'attested', cluster: 'east', live: true, spiffe_id: body.agent_id },
    ])
  })

  test('SA-2: of a cluster before 1.30, whose tokens name no node', async () => {
    const { body } = await attest(await east.token({ kubernetes: { node: undefined } }))
    expect(body.agent_id).toContain(POD.node.uid)
  })

  test('PS-9: may come again', async () => {
    const token = await east.token()
    await attest(token)
    expect((await attest(token)).status).toBe(200)
    expect(atEast.reviews).toHaveLength(1)
  })
})

describe('PS-5, PS-6: what is not attestation data', () => {
  const payload = { cluster: 'east', token: 'a.b.c' }
  test.each<[string, unknown, RefusalReason]>([
    ['no JSON', 'payload=1', 'json_malformed'],
    ['a list', '[]', 'json_malformed'],
    ['a member twice', '{"csr":"a","csr":"b"}', 'json_malformed'],
    ['a member that is none of ours', { payload, csr: 'AA==', spiffe_id: 'x' }, 'json_malformed'],
    ['12.9: no CSR', { payload }, 'csr_missing'],
    ['an empty CSR', { payload, csr: '' }, 'csr_missing'],
    ['a CSR that is no text', { payload, csr: {} }, 'csr_missing'],
    ['a CSR that is no base64', { payload, csr: '%' }, 'csr_invalid'],
    ['no payload', { csr: 'AA==' }, 'attestation_payload_missing'],
    ['payload null', { csr: 'AA==', payload: null }, 'attestation_payload_missing'],
    ['12.9: payload no JSON', { csr: 'AA==', payload: 'east' }, 'attestation_payload_malformed'],
    ['payload a list', { csr: 'AA==', payload: [] }, 'attestation_payload_malformed'],
    ['cluster a number', { csr: 'AA==', payload: { cluster: 1, token: 'a' } }, 'attestation_payload_malformed'],
    ['token an object', { csr: 'AA==', payload: { cluster: 'east', token: {} } }, 'attestation_payload_malformed'],
    ['no cluster', { csr: 'AA==', payload: { token: 'a.b.c' } }, 'attestation_cluster_missing'],
    ['an empty cluster', { csr: 'AA==', payload: { cluster: '', token: '' } }, 'attestation_cluster_missing'],
    ['no token', { csr: 'AA==', payload: { cluster: 'east' } }, 'attestation_token_missing'],
    ['an empty token', { csr: 'AA==', payload: { cluster: 'north', token: '' } }, 'attestation_token_missing'],
    [
      '12.9: unknown cluster',
      { csr: 'AA==', payload: { cluster: 'north', token: 'a' } },
      'attestation_cluster_unknown',
    ],
    [
      'a name that every object has',
      { csr: 'AA==', payload: { cluster: 'constructor', token: 'a' } },
      'attestation_cluster_unknown',
    ],
    ['a token that is none', { csr: 'AA==', payload }, 'token_malformed'],
  ])('%s', async (_, body, reason) => {
    expect(await send(body)).toMatchObject({ status: 400, body: { error: 'invalid_request', reason } })
    expect(atEast.calls).toEqual([])
    expect(issuer.book.decisions).toMatchObject([{ door: 'k8s_psat', decision: 'refused', reason }])
  })

  test.each([['text/plain'], ['application/x-www-form-urlencoded'], ['application/json; charset=latin1'], ['']])(
    'content of the type %j',
    async (type) => {
      expect((await send({ payload, csr }, { 'content-type': type })).body.reason).toBe('json_malformed')
    },
  )

  test('more than 64 KiB', async () => {
    expect(await send(' '.repeat(65_537))).toMatchObject({ status: 413, body: { reason: 'request_too_large' } })
  })

  test('a query', async () => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }
    expect(await (await issuer.fetch('/attest/k8s_psat?cluster=east', init)).json()).toMatchObject({
      reason: 'json_malformed',
    })
  })

  test('another method', async () => {
    const answer = await issuer.fetch('/attest/k8s_psat')
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST'])
  })

  test('whatever it is, the answer is a refusal of the caller, and the API server hears of nothing', async () => {
    const value = fc.letrec((tie) => ({
      any: fc.oneof(fc.string(), fc.integer(), fc.constant(null), fc.array(tie('any')), fc.object({ maxDepth: 1 })),
    })).any
    const body = fc.record(
      { payload: fc.oneof(value, fc.record({ cluster: value, token: value })), csr: value },
      { requiredKeys: [] },
    )
    await fc.assert(
      fc.asyncProperty(body, async (one) => {
        expect((await send(one)).status).toBe(400)
      }),
      { numRuns: 200 },
    )
    expect(atEast.calls).toEqual([])
  })
})

describe('12.9: a token that speaks for no node', () => {
  test('T-6: cluster A’s token presented as cluster B', async () => {
    const token = await west.token()
    expect(await attest(token, issuer, 'east')).toMatchObject({ status: 400, body: { reason: 'token_audience' } })
    const dressed = await west.token({ claims: { aud: [east.audience] } })
    expect((await attest(dressed, issuer, 'east')).body.reason).toBe('token_key')
    const named = await west.token({ claims: { aud: [east.audience] }, header: { kid: east.key.kid } })
    expect((await attest(named, issuer, 'east')).body.reason).toBe('token_signature')
    expect([atEast.calls, atWest.calls]).toEqual([[], []])
    expect((await attest(token, issuer, 'west')).status).toBe(200)
  })

  test.each<[string, TokenChange, RefusalReason]>([
    ['token for another audience', { claims: { aud: ['spire-server'] } }, 'token_audience'],
    ['for two', { claims: { aud: ['spire-east', 'vault'] } }, 'token_audience'],
    ['of another issuer', { claims: { iss: 'https://east.example.org' } }, 'token_issuer'],
    ['token not bound to a pod', { kubernetes: { pod: undefined } }, 'token_unbound'],
    ['of a lifetime of a year', { claims: { exp: 1_900_000_000 } }, 'token_lifetime'],
  ])('%s', async (_, change, reason) => {
    expect(await refused(change)).toEqual([400, reason])
    expect(atEast.calls).toEqual([])
  })

  test('is bound to no pod, even where the record allows that elsewhere', async () => {
    expect(await refused({ kubernetes: { pod: undefined } }, issuerOf({ requireBoundPod: false }))).toEqual([
      400,
      'token_unbound',
    ])
  })

  test('SA in the wrong namespace', async () => {
    const token = await east.tokenOf('other', POD.serviceAccount.name)
    expect(await attest(token)).toMatchObject({
      status: 403,
      body: { error: 'access_denied', reason: 'service_account_not_allowed' },
    })
    expect(detail()).toBe(`"other:${POD.serviceAccount.name}" is not an allowed service account for cluster "east"`)
    expect(atEast.calls).toEqual([])
  })

  test('T-14: an empty allow list means nobody', async () => {
    expect(await refused({}, issuerOf({ serviceAccountAllowList: [] }))).toEqual([403, 'service_account_not_allowed'])
  })

  test('PS-11: username a:b:spire:spire-agent', async () => {
    atEast.lie = (status) => ({ ...status, user: { ...(status.user as object), username: `a:b:${ALLOWED}` } })
    expect(await refused({})).toEqual([503, 'token_review_user'])
  })

  test('not authenticated, and a TokenReview that fails', async () => {
    atEast.lie = () => ({ error: 'invalid bearer token' })
    expect(await refused({})).toEqual([403, 'token_not_live'])
    atEast.interfere = () => new Response('', { status: 500 })
    expect(await refused({})).toEqual([503, 'cluster_api_unavailable'])
  })

  test('pod recreated with the same name and another UID', async () => {
    const token = await east.token()
    atEast.interfere = ({ url }) =>
      url.includes('/pods/')
        ? Response.json({ metadata: { uid: 'new' }, spec: { nodeName: POD.node.name } })
        : undefined
    expect(await attest(token)).toMatchObject({ status: 403, body: { error: 'access_denied', reason: 'pod_replaced' } })
  })

  test('a pod that is on no node yet', async () => {
    atEast.addPod(POD.namespace, POD.pod, '')
    expect(await refused({ kubernetes: { node: undefined } })).toEqual([400, 'node_unknown'])
  })
})

describe('12.9: the node', () => {
  test('gone', async () => {
    atEast.nodes.clear()
    expect(await refused({})).toEqual([400, 'node_unknown'])
  })

  test('without a UID', async () => {
    for (const metadata of [{ uid: '' }, {}]) {
      atEast.nodes.set(POD.node.name, { metadata })
      expect(await refused({})).toEqual([503, 'node_uid_missing'])
    }
  })

  test('of the same name with another UID than the token’s', async () => {
    atEast.nodes.set(POD.node.name, { metadata: { uid: 'other' } })
    expect(await refused({})).toEqual([400, 'node_unknown'])
  })

  test('T-4: whose UID would be more than one segment', async () => {
    for (const uid of ['a/b', '..', 'a b']) {
      atEast.nodes.set(POD.node.name, { metadata: { uid } })
      expect(await refused({ kubernetes: { node: { name: POD.node.name } } })).toEqual([400, 'spiffe_id_illegal'])
    }
  })
})

describe('T-6: a record with the audience of its API server', () => {
  const own = { audiences: [] }

  test('leaves it to the API server, which says yes under whatever name', async () => {
    const token = await east.token({ claims: { aud: ['https://kubernetes.default.svc'] } })
    const { status } = await attest(token, issuerOf(own))
    expect(status).toBe(200)
    expect(atEast.reviews[0]?.body?.spec as object).not.toHaveProperty('audiences')
  })

  test('or no', async () => {
    atEast.lie = () => ({ error: 'token audiences are invalid' })
    expect(await refused({ claims: { aud: ['vault'] } }, issuerOf(own))).toEqual([403, 'token_not_live'])
  })

  test('does so at that door and no other', async () => {
    const by = issuerOf({ ...own, liveness: 'tokenReview' })
    const answer = await by.exchange(await east.token({ claims: { aud: ['https://kubernetes.default.svc'] } }))
    expect(await answer.json()).toMatchObject({ reason: 'token_audience' })
    expect(atEast.calls).toEqual([])
  })
})

describe('12.9: the CSR', () => {
  test('unsigned, or not one at all', async () => {
    const der = (await makeCsr()).der
    const broken = base64(der.with(-1, (der.at(-1) ?? 0) ^ 1) as never)
    for (const request of [broken, 'AAAA', base64(new TextEncoder().encode('-----BEGIN'))])
      expect((await attest(await east.token(), issuer, 'east', request)).body.reason).toBe('csr_invalid')
  })

  test('PS-6: is not looked at for who is no node', async () => {
    atEast.lie = () => ({})
    expect((await attest(await east.token(), issuer, 'east', 'AAAA')).body.reason).toBe('token_not_live')
  })
})

test('T-5: no registration gives an agent’s ID, and no exchange', () => {
  const spiffeID = 'spiffe://example.org/spire/agent/k8s_psat/east/{podUID}'
  expect(() => new TestIssuer([east.record(), registration('web', { spiffeID })])).toThrow('is reserved')
})

describe('T-26: a ban', () => {
  const ban = (spec: object) => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Ban',
    metadata: { name: 'thief' },
    spec,
  })

  test.each<[string, object]>([
    ['of the agent', { spiffeID: `spiffe://example.org/spire/agent/k8s_psat/east/${POD.node.uid}` }],
    ['of the node', { cluster: 'east', nodeUID: POD.node.uid }],
    ['of the service account', { cluster: 'east', serviceAccount: ALLOWED }],
  ])('%s holds for a node that attests again', async (_, spec) => {
    expect(await refused({}, issuerOf({}, ban(spec)))).toEqual([403, 'banned'])
  })

  test('of the same names in another cluster does not', async () => {
    expect(
      (await attest(await east.token(), issuerOf({}, ban({ cluster: 'west', nodeUID: POD.node.uid })))).status,
    ).toBe(200)
  })
})

describe('where there is a certificate authority, a node', () => {
  const AGENT = `spiffe://example.org/spire/agent/k8s_psat/east/${POD.node.uid}`
  let authority: X509Authority
  beforeAll(async () => {
    authority = await makeAuthority()
  })
  beforeEach(() => {
    giveAuthorities(issuer, authority)
  })

  test('PS-4: gets its SVID, for the key of its CSR, with everything else as before', async () => {
    const { der, spki } = await makeCsr()
    const { status, body } = await attest(await east.token(), issuer, 'east', base64(der))
    expect([status, Object.keys(body)]).toEqual([
      200,
      ['agent_id', 'selectors', 'reattestable', 'x509_svid', 'bundle', 'expires_at'],
    ])
    expect(body).toMatchObject({ agent_id: AGENT, reattestable: true, expires_at: NOW + 3600 })
    expect(body.bundle).toBe(certificatesPem([authority.certificate]))
    const leaf = new X509Certificate(String(body.x509_svid))
    expect(leaf.getExtension(SubjectAlternativeNameExtension)?.names.toJSON()).toEqual([{ type: 'url', value: AGENT }])
    expect(new Uint8Array(leaf.publicKey.rawData)).toEqual(new Uint8Array(spki))
    expect(leaf.notAfter.getTime() / 1000).toBe(NOW + 3600)
    expect(await leaf.verify({ publicKey: new X509Certificate(authority.certificate), signatureOnly: true })).toBe(true)
  })

  test('T-8: gets none that outlives its token, or the CA', async () => {
    const short = await attest(await east.token({ claims: { exp: NOW + 600 } }))
    expect(short.body.expires_at).toBe(NOW + 600)
    giveAuthorities(issuer, await makeAuthority(NOW + 60))
    expect((await attest(await east.token())).body.expires_at).toBe(NOW + 60)
  })

  test('leaves one line, with the certificate that it got', async () => {
    const { body } = await attest(await east.token())
    expect(issuer.book.decisions).toMatchObject([
      {
        door: 'k8s_psat',
        decision: 'issued',
        registration: 'internal',
        spiffe_id: AGENT,
        serial_number: new X509Certificate(String(body.x509_svid)).serialNumber,
        kid: authority.signer.publicJwk.kid,
      },
    ])
  })

  test('12.9, T-26: gets none with a CSR that is none, or once it is banned', async () => {
    const broken = await attest(await east.token(), issuer, 'east', 'AA==')
    expect([broken.status, broken.body.reason]).toEqual([400, 'csr_invalid'])
    const by = issuerOf(
      {},
      {
        apiVersion: 'spiffe-edge.io/v1alpha1',
        kind: 'Ban',
        metadata: { name: 'thief' },
        spec: { spiffeID: AGENT },
      },
    )
    giveAuthorities(by, authority)
    expect(await refused({}, by)).toEqual([403, 'banned'])
    expect(by.book.decisions[0]).not.toHaveProperty('serial_number')
  })

  test('is told where it could not be signed', async () => {
    giveAuthorities(issuer, await makeAuthority(NOW))
    expect(await refused({})).toEqual([503, 'signing_unavailable'])
  })
})
