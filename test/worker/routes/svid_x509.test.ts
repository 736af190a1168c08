/** Requirements §3 and 12.3, as far as they are for who issues: `/svid/x509` with a whole issuer around it. */

import '@abraham/reflection'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
  X509Certificate,
} from '@peculiar/x509'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { certificatesPem, pem } from '../../../keys/pem.ts'
import { SigningError } from '../../../keys/signer.ts'
import type { RefusalReason } from '../../../worker/refusal.ts'
import type { X509Authority } from '../../../worker/spiffe/x509_svid.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD, type TokenChange } from '../../support/cluster.ts'
import { Network } from '../../support/cluster_network.ts'
import { base64, makeCsr } from '../../support/csr.ts'
import {
  type Jwk,
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

const ID = `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

let east: FakeCluster
let authority: X509Authority
let other: X509Authority
let csr: Awaited<ReturnType<typeof makeCsr>>
beforeAll(async () => {
  east = await FakeCluster.create('east')
  ;[authority, other, csr] = await Promise.all([makeAuthority(), makeAuthority(), makeCsr()])
})

let server: FakeApiServer
let issuer: TestIssuer
beforeEach(() => {
  vi.stubGlobal('fetch', new Network().fetch)
  server = new FakeApiServer(east)
  issuer = issuerOf()
})
afterEach(() => {
  vi.unstubAllGlobals()
})

/** @param spec of the one registration */
function issuerOf(spec: object = {}, ...more: readonly object[]): TestIssuer {
  const connection = { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }
  const made = new TestIssuer([east.record({ connection }), registration('web', spec), ...more], {
    CLUSTER_EAST: server,
  })
  giveAuthorities(made, authority, other)
  return made
}

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** @param init laid over a request that has nothing wrong with it */
async function send(token: string | null, body: unknown, init: RequestInit = {}, by = issuer): Promise<Answer> {
  const response = await by.fetch('/svid/x509', {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
    headers: {
      'content-type': 'application/json',
      ...(token !== null && { authorization: `Bearer ${token}` }),
      ...init.headers,
    },
  })
  const text = await response.text()
  expect(response.headers.get('cache-control')).toBe('no-store')
  // A certificate has the pod's names in it, as the token has, and both in base64.
  const repeated = response.ok ? by.book.text : text + by.book.text
  if (token !== null) expect(findPieceOf(token, repeated)).toBeNull()
  return { status: response.status, headers: response.headers, body: JSON.parse(text) }
}

async function certified(body: object = {}, by = issuer, change: TokenChange = {}) {
  const answer = await send(await east.token(change), { csr: base64(csr.der), ...body }, {}, by)
  expect(answer.body).toHaveProperty('x509_svid')
  return { ...answer, leaf: new X509Certificate(String(answer.body.x509_svid)) }
}

async function refused(body: unknown, by = issuer, change: TokenChange = {}): Promise<readonly unknown[]> {
  const answer = await send(await east.token(change), body, {}, by)
  return [answer.status, answer.body.reason]
}

function namesOf(leaf: X509Certificate) {
  return leaf.getExtension(SubjectAlternativeNameExtension)?.names.toJSON()
}

describe('a workload with a CSR', () => {
  test('gets an SVID for its key, and what it takes to verify those of others', async () => {
    const { status, headers, body, leaf } = await certified()
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('application/json')
    expect(body).toEqual({
      spiffe_id: ID,
      x509_svid: pem('CERTIFICATE', new Uint8Array(leaf.rawData)),
      bundle: certificatesPem([authority.certificate, other.certificate]),
      expires_at: NOW + 3600,
    })
    expect(new Uint8Array(leaf.publicKey.rawData)).toEqual(new Uint8Array(csr.spki))
    expect(await leaf.verify({ publicKey: new X509Certificate(authority.certificate), signatureOnly: true })).toBe(true)
    expect(namesOf(leaf)).toEqual([{ type: 'url', value: ID }])
    expect([leaf.notBefore, leaf.notAfter].map((date) => date.getTime() / 1000)).toEqual([NOW - 10, NOW + 3600])
  })

  test('may send it as PEM', async () => {
    const { leaf } = await certified({ csr: pem('CERTIFICATE REQUEST', csr.der) })
    expect(new Uint8Array(leaf.publicKey.rawData)).toEqual(new Uint8Array(csr.spki))
  })

  test('gets the DNS names, the life and the hint of its registration', async () => {
    const dnsNames = ['web.shop.example', 'a.shop.example']
    const by = issuerOf({ dnsNames, x509TtlSeconds: 60, hint: 'web' })
    const { body, leaf } = await certified({}, by)
    expect(body).toMatchObject({ expires_at: NOW + 60, hint: 'web' })
    expect(namesOf(leaf)).toEqual([
      { type: 'url', value: ID },
      { type: 'dns', value: 'a.shop.example' },
      { type: 'dns', value: 'web.shop.example' },
    ])
  })

  test('T-8: gets nothing that outlives its token', async () => {
    const by = issuerOf({ x509TtlSeconds: 86_400 })
    const { body, leaf } = await certified({}, by, { claims: { exp: NOW + 60 } })
    expect([body.expires_at, leaf.notAfter.getTime() / 1000]).toEqual([NOW + 60, NOW + 60])
  })

  test('XS-14, 12.3: gets nothing that outlives the CA', async () => {
    giveAuthorities(issuer, await makeAuthority(NOW + 30))
    const { body, leaf } = await certified()
    expect([body.expires_at, leaf.notAfter.getTime() / 1000]).toEqual([NOW + 30, NOW + 30])
  })

  test('T-4: may name one of its SPIFFE IDs', async () => {
    const spiffeID = 'spiffe://example.org/other'
    const by = issuerOf({}, registration('other', { spiffeID }))
    expect((await certified({ spiffe_id: spiffeID }, by)).body.spiffe_id).toBe(spiffeID)
    expect(await refused({ csr: base64(csr.der) }, by)).toEqual([400, 'registration_ambiguous'])
    expect(await refused({ csr: base64(csr.der), spiffe_id: `${spiffeID}/x` }, by)).toEqual([
      400,
      'spiffe_id_not_allowed',
    ])
  })

  test('gets the certificates of those other trust domains that its registration says, and only as long as they are named', async () => {
    const [one, another] = await Promise.all([makeCa('one'), makeCa('another')])
    const [der, unasked] = await Promise.all([makeCertificate(one), makeCertificate(another)])
    const named = (name: string, entries: Jwk[]) => ({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'FederatedTrustDomain',
      metadata: { name },
      spec: { trustDomain: name, trustDomainBundle: spireBundle(entries) },
    })
    const peers = [
      named('partner.example', [x509Entry(one, der)]),
      named('unasked.example', [x509Entry(another, unasked)]),
      named('empty.example', []),
    ]
    const federatesWith = ['partner.example', 'empty.example']
    const by = issuerOf({ federatesWith }, ...peers)
    await by.deps.federationRing.renew(await by.deps.policyRing.current())
    expect((await certified({}, by)).body.federated_bundles).toEqual({
      'empty.example': '',
      'partner.example': certificatesPem([der]),
    })
    expect((await certified({}, issuerOf({}, ...peers))).body).not.toHaveProperty('federated_bundles')
  })

  test('leaves one line, with the certificate’s serial number and the key of the CA', async () => {
    const { leaf } = await certified()
    expect(issuer.book.decisions).toHaveLength(1)
    expect(issuer.book.decisions).toMatchObject([
      {
        door: 'svid_x509',
        decision: 'issued',
        registration: 'web',
        spiffe_id: ID,
        serial_number: leaf.serialNumber,
        expires: NOW + 3600,
        kid: authority.signer.publicJwk.kid,
      },
    ])
  })
})

describe('T-22, XS-13: of a CSR, the key and nothing else is taken', () => {
  test('not its subject, names, constraints or usages', async () => {
    const keys = (await crypto.subtle.generateKey(P256, true, ['sign', 'verify'])) as CryptoKeyPair
    const greedy = await Pkcs10CertificateRequestGenerator.create({
      keys,
      signingAlgorithm: P256,
      name: 'CN=admin, O=system:masters',
      extensions: [
        new SubjectAlternativeNameExtension([
          { type: 'url', value: 'spiffe://example.org/admin' },
          { type: 'dns', value: 'kubernetes.default.svc' },
        ]),
        new BasicConstraintsExtension(true, 3, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    })
    const { leaf } = await certified({ csr: base64(new Uint8Array(greedy.rawData)) })
    const { leaf: usual } = await certified()
    expect(new Uint8Array(leaf.publicKey.rawData)).toEqual(new Uint8Array(greedy.publicKey.rawData))
    expect(leaf.subject).toBe(usual.subject)
    expect(leaf.subject).not.toMatch(/admin|masters/)
    expect(namesOf(leaf)).toEqual([{ type: 'url', value: ID }])
    const kinds = (certificate: X509Certificate) => certificate.extensions.map(({ type, critical }) => [type, critical])
    expect(kinds(leaf)).toEqual(kinds(usual))
    expect(leaf.getExtension(BasicConstraintsExtension)?.ca).toBe(false)
    expect(leaf.getExtension(KeyUsagesExtension)?.usages).toBe(KeyUsageFlags.digitalSignature)
  })

  test.each<[string, () => unknown, RefusalReason]>([
    ['none', () => undefined, 'csr_missing'],
    ['an empty one', () => '', 'csr_missing'],
    ['one that is no text', () => [base64(csr.der)], 'csr_missing'],
    ['one that is no base64', () => '%', 'csr_invalid'],
    ['one in base64url', () => base64(Uint8Array.of(0xfb, 0xff, 0xfe)).replaceAll('+', '-'), 'csr_invalid'],
    ['one that is cut off', () => base64(csr.der.slice(0, -1)), 'csr_invalid'],
    ['two', () => base64(Uint8Array.of(...csr.der, ...csr.der)), 'csr_invalid'],
    ['two as PEM', () => pem('CERTIFICATE REQUEST', csr.der).repeat(2), 'csr_invalid'],
    ['another PEM block', () => pem('CERTIFICATE', csr.der), 'csr_invalid'],
    ['a public key', () => base64(new Uint8Array(csr.spki)), 'csr_invalid'],
    ['12.3: one with a broken signature', () => base64(csr.der.with(-1, (csr.der.at(-1) ?? 0) ^ 1)), 'csr_invalid'],
    ['one of more than 8 KiB', () => base64(new Uint8Array(8193)), 'csr_invalid'],
  ])('a request with %s is refused', async (_, make, reason) => {
    expect(await refused({ csr: make() })).toEqual([400, reason])
    expect(issuer.book.decisions).toMatchObject([{ door: 'svid_x509', decision: 'refused', reason }])
  })

  test.each(['RSA-1024', 'RSA-2048 with exponent 3', 'Ed25519'] as const)(
    '12.3, XS-13: a request with a key that is %s is refused',
    async (kind) => {
      expect(await refused({ csr: base64((await makeCsr(kind)).der) })).toEqual([400, 'csr_invalid'])
    },
  )

  test.each(['P-384', 'P-521', 'RSA-2048'] as const)('a request with a key that is %s is taken', async (kind) => {
    const { der, spki } = await makeCsr(kind)
    const { leaf } = await certified({ csr: base64(der) })
    expect(new Uint8Array(leaf.publicKey.rawData)).toEqual(new Uint8Array(spki))
  })

  test('PS-6: and is not parsed for who may not have a certificate', async () => {
    const broken = base64(Uint8Array.of(1, 2, 3))
    expect(await refused({ csr: broken }, issuer, { header: { kid: 'x' } })).toEqual([400, 'token_key'])
    expect(await refused({ csr: broken }, issuerOf({ svidType: 'JWT' }))).toEqual([400, 'svid_type_not_allowed'])
    expect(await refused({ csr: broken })).toEqual([400, 'csr_invalid'])
  })
})

describe('a request is refused', () => {
  const good = () => ({ csr: base64(csr.der) })

  test.each<[string, HeadersInit]>([
    ['nothing', {}],
    ['another scheme', { authorization: 'Basic YTpi' }],
    ['no token', { authorization: 'Bearer ' }],
    ['two tokens', { authorization: 'Bearer a.b.c d.e.f' }],
    ['a token alone', { authorization: 'a.b.c' }],
  ])('RFC 6750 §3: with a challenge where there is %s for a bearer token', async (_, headers) => {
    const { status, body, headers: answered } = await send(null, good(), { headers })
    expect([status, body.error, body.reason]).toEqual([401, 'invalid_token', 'bearer_missing'])
    expect(answered.get('www-authenticate')).toBe('Bearer')
  })

  test.each<[string, unknown]>([
    ['that is no JSON', 'csr=AA'],
    ['that is a list', '[]'],
    ['with a member twice', '{"csr":"AA==","csr":"AA=="}'],
    ['with a member that is none of ours', { csr: 'AA==', dns_names: ['a.example'] }],
    ['with the audience of a token', { csr: 'AA==', audience: 'k8s' }],
    ['with a SPIFFE ID that is no text', { csr: 'AA==', spiffe_id: ['x'] }],
  ])('%s', async (_, body) => {
    expect(await refused(body)).toEqual([400, 'json_malformed'])
  })

  test.each(['application/x-www-form-urlencoded', 'text/plain', 'application/pkcs10'])('as %s', async (type) => {
    const { body } = await send(await east.token(), good(), { headers: { 'content-type': type } })
    expect(body.reason).toBe('json_malformed')
  })

  test('of more than 64 KiB', async () => {
    expect(await refused(' '.repeat(65_537))).toEqual([413, 'request_too_large'])
  })

  test('by another method', async () => {
    const answer = await issuer.fetch('/svid/x509')
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST'])
  })

  test('whatever it is, as one of the caller', async () => {
    const value = fc.oneof(fc.string(), fc.integer(), fc.constant(null), fc.object({ maxDepth: 1 }))
    const token = await east.token()
    await fc.assert(
      fc.asyncProperty(fc.record({ csr: value, spiffe_id: value }, { requiredKeys: [] }), async (body) => {
        expect((await send(token, body)).status).toBe(400)
      }),
      { numRuns: 100 },
    )
  })

  test.each<[string, TokenChange, RefusalReason]>([
    ['a token of another door', { claims: { aud: ['kubespiffed'] } }, 'token_audience'],
    ['a token for the API server', { claims: { aud: ['https://kubernetes.default.svc'] } }, 'token_audience'],
    ['a token that is over', { claims: { exp: NOW - 1, iat: NOW - 3600 } }, 'token_expired'],
    ['a token of a stranger', { header: { kid: 'x' } }, 'token_key'],
  ])('T-6: with %s', async (_, change, reason) => {
    expect(await refused(good(), issuer, change)).toEqual([400, reason])
  })

  test('T-6: with an SVID of ours', async () => {
    const { access_token: svid } = (await (await issuer.exchange(await east.token())).json()) as Record<string, string>
    expect((await send(svid ?? '', good())).body.reason).toBe('token_issuer')
  })

  test('T-26: of who is banned', async () => {
    const ban = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Ban',
      metadata: { name: 'thief' },
      spec: { spiffeID: ID },
    }
    expect(await refused(good(), issuerOf({}, ban))).toEqual([400, 'banned'])
  })

  test('of a pod that is gone, where its registration wants it to be alive', async () => {
    const by = issuerOf({ liveness: 'tokenReview' })
    await certified({}, by)
    server.pods.clear()
    by.clock.advance(60)
    expect(await refused(good(), by)).toEqual([400, 'token_not_live'])
  })
})

describe('where it cannot be signed', () => {
  test('for want of a CA, it is said so to who may have one, and only to them', async () => {
    const by = new TestIssuer([east.record(), registration('web')])
    expect(await refused({ csr: base64(csr.der) }, by)).toEqual([403, 'x509_not_configured'])
    expect(await refused({ csr: base64(csr.der) }, by, { header: { kid: 'x' } })).toEqual([400, 'token_key'])
  })

  test('because the CA has come to its end', async () => {
    giveAuthorities(issuer, await makeAuthority(NOW))
    expect(await refused({ csr: base64(csr.der) })).toEqual([503, 'signing_unavailable'])
  })

  test.each(['throttled', 'unavailable', 'denied'] as const)('12.11: because the keeper is %s', async (code) => {
    const sign = () => Promise.reject(new SigningError(code))
    giveAuthorities(issuer, { ...authority, signer: { ...authority.signer, sign } })
    const answer = await send(await east.token(), { csr: base64(csr.der) })
    expect([answer.status, answer.body.reason, answer.headers.get('retry-after')]).toEqual([
      503,
      'signing_unavailable',
      '2',
    ])
    expect(issuer.book.decisions.at(-1)).toMatchObject({ decision: 'refused', detail: code })
    expect(issuer.book.decisions.at(-1)).not.toHaveProperty('serial_number')
  })
})

test('KM-9: a certificate is one signature', async () => {
  const sign = vi.fn(authority.signer.sign)
  giveAuthorities(issuer, { ...authority, signer: { ...authority.signer, sign } })
  await certified()
  expect(sign).toHaveBeenCalledTimes(1)
})
