/** T-22, T-23: SVIDs for who has logged in as Vault's clients do. */

import '@abraham/reflection'
import { SubjectAlternativeNameExtension, X509Certificate } from '@peculiar/x509'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { pem } from '../../../keys/pem.ts'
import type { X509Authority } from '../../../worker/spiffe/x509_svid.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { makeCsr } from '../../support/csr.ts'
import { giveAuthorities, makeAuthority } from '../authority.ts'
import { type VaultResponse, VaultWorld } from '../vault_client.ts'

const ID = `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`
const ROLE = {
  spiffe_id: 'spiffe://example.org/ns/{namespace}/sa/{serviceAccountName}',
  svid_audiences: 'web,other',
  x509_svid: true,
  dns_names: 'web.example.org',
}

let east: FakeCluster
let authority: X509Authority
let csr: string
beforeAll(async () => {
  east = await FakeCluster.create('east')
  authority = await makeAuthority()
  csr = pem('CERTIFICATE REQUEST', (await makeCsr()).der)
})

let world: VaultWorld
beforeEach(async () => {
  world = await VaultWorld.create(east)
  giveAuthorities(world.issuer, authority)
})

async function setUp(role: object = {}): Promise<string> {
  await world.setUp({ ...ROLE, ...role })
  await world.manage('POST', 'identity/oidc/role/web', { key: 'default', client_id: 'web' })
  return world.logIn(await east.token())
}

const ask = (token: string, name = 'web') => world.ask('GET', `identity/oidc/token/${name}`, undefined, { token })
const sign = (token: string, body: object, role = 'demo') => world.ask('POST', `pki/sign/${role}`, body, { token })

function reasonOf({ headers }: VaultResponse): unknown {
  const id = headers.get('x-request-id')
  return world.issuer.book.decisions.find((decision) => decision.id === id)?.reason
}

describe('identity/oidc/token/<name>', () => {
  test('is a JWT-SVID of the role, for the audience that the name stands for', async () => {
    const { status, body } = await ask(await setUp({ svid_ttl: 60 }))
    expect([status, body.mount_type, body.data.client_id, body.data.ttl]).toEqual([200, 'identity', 'web', 60])
    const { claims } = await world.issuer.read(body.data.token)
    expect(claims).toEqual({
      iss: world.issuer.deps.issuer,
      sub: ID,
      aud: 'web',
      iat: NOW,
      exp: NOW + 60,
      jti: body.request_id,
    })
    expect(world.issuer.book.decisions.at(-1)).toMatchObject({
      decision: 'issued',
      registration: 'VaultRole kubernetes/demo',
      spiffe_id: ID,
      role: 'kubernetes/demo',
    })
  })

  test('its issuer and keys are where Vault has them', async () => {
    const { body } = await world.ask('GET', 'identity/oidc/.well-known/openid-configuration')
    expect(body).toMatchObject({ issuer: world.issuer.deps.issuer, jwks_uri: `${world.issuer.deps.issuer}/keys` })
    const keys = await world.ask('GET', 'identity/oidc/.well-known/keys')
    expect(JSON.stringify(keys.body)).toBe(await world.issuer.publishedJwks())
  })

  test.each<[string, object, string, unknown]>([
    ['an unknown name', {}, 'other', 'role "other" not found'],
    [
      'a role that gives none',
      { spiffe_id: '', svid_audiences: '', x509_svid: false, dns_names: '' },
      'web',
      'role demo gives no SVID: it has no spiffe_id',
    ],
    [
      'an audience that the role does not have',
      { svid_audiences: 'other' },
      'web',
      'the role is not for this audience',
    ],
  ])('none for %s', async (_, role, name, text) => {
    const { status, body } = await ask(await setUp(role), name)
    expect([status, body.errors]).toEqual([400, [text]])
  })

  test('none without a token, and none for an administrator, who is no workload', async () => {
    await setUp()
    expect((await world.ask('GET', 'identity/oidc/token/web')).status).toBe(403)
    expect((await world.manage('GET', 'identity/oidc/token/web')).status).toBe(403)
  })

  test('T-23: each time by the role as it is now', async () => {
    const token = await setUp()
    const role = async (change: object) => world.manage('PUT', 'auth/kubernetes/role/demo', change)
    await role({ spiffe_id: 'spiffe://example.org/team/{namespace}' })
    expect((await world.issuer.read((await ask(token)).body.data.token)).claims.sub).toBe(
      `spiffe://example.org/team/${POD.namespace}`,
    )
    await role({ bound_service_account_names: 'other' })
    expect([(await ask(token)).status, reasonOf(await ask(token))]).toEqual([403, 'service_account_not_bound'])
    await role({ bound_service_account_names: '*', bound_service_account_namespaces: 'other' })
    expect(reasonOf(await ask(token))).toBe('namespace_not_bound')
    await world.manage('DELETE', 'auth/kubernetes/role/demo')
    expect((await ask(token)).status).toBe(400)
  })

  test('T-8: none past the pod’s own token, unless its API server says that the pod is there', async () => {
    const token = await setUp({ token_ttl: '10h' })
    expect((await ask(token)).status).toBe(200)
    world.issuer.clock.advance(4000)
    const { body } = await ask(token)
    const { claims } = await world.issuer.read(body.data.token)
    expect(claims.exp).toBe(world.issuer.clock.now() + 300)
    world.api.pods.clear()
    const refused = await ask(token)
    expect([refused.status, reasonOf(refused)]).toEqual([403, 'pod_gone'])
  })

  test('T-8: and never past the token itself', async () => {
    const token = await setUp({ token_ttl: 100 })
    world.issuer.clock.advance(50)
    expect((await world.issuer.read((await ask(token)).body.data.token)).claims.exp).toBe(NOW + 100)
  })

  test('T-8: a token that ends with the pod’s asks nobody', async () => {
    const token = await setUp({ token_ttl: 0 })
    world.api.pods.clear()
    const { body } = await ask(token)
    expect((await world.issuer.read(body.data.token)).claims.exp).toBe(NOW + 300)
  })

  test('a batch token does as well', async () => {
    expect((await ask(await setUp({ token_type: 'batch' }))).status).toBe(200)
  })
})

describe('pki/sign/<role>', () => {
  test('is an X.509-SVID for the CSR’s key, in Vault’s form', async () => {
    const { status, body } = await sign(await setUp(), { csr })
    expect([status, body.mount_type]).toEqual([200, 'pki'])
    const { certificate, issuing_ca, ca_chain, serial_number, expiration } = body.data
    const leaf = new X509Certificate(certificate)
    expect(leaf.subject).toBe('O=spiffe-edge')
    expect(leaf.getExtension(SubjectAlternativeNameExtension)?.names.toJSON()).toEqual([
      { type: 'url', value: ID },
      { type: 'dns', value: 'web.example.org' },
    ])
    expect(await leaf.verify({ publicKey: new X509Certificate(issuing_ca), signatureOnly: true })).toBe(true)
    expect(ca_chain).toEqual([issuing_ca])
    expect(serial_number.replaceAll(':', '')).toBe(leaf.serialNumber)
    expect(serial_number).toMatch(/^(?:[0-9a-f]{2}:)+[0-9a-f]{2}$/)
    expect(expiration).toBe(leaf.notAfter.getTime() / 1000)
  })

  test('T-22: names in parameters are those that it gets anyway, or it is refused', async () => {
    const token = await setUp()
    const same = { csr, common_name: '', uri_sans: ID, alt_names: 'web.example.org', ip_sans: '', format: 'pem' }
    expect((await sign(token, same)).status).toBe(200)
    for (const other of [
      { common_name: 'web' },
      { uri_sans: 'spiffe://example.org/admin' },
      { alt_names: 'web.example.org,admin.example.org' },
      { ip_sans: '192.0.2.1' },
      { ttl: '1h' },
      { format: 'der' },
    ])
      expect((await sign(token, { csr, ...other })).status).toBe(400)
  })

  test.each<[string, object, object, string, readonly unknown[]]>([
    ['no CSR', {}, {}, 'demo', [400, 'no csr given']],
    ['a CSR that is none', {}, { csr: 'x' }, 'demo', [400, 'certificate request could not be parsed']],
    ['a role that gives none', { x509_svid: false, dns_names: '' }, { csr: '' }, 'demo', [400, 'no csr given']],
  ])('refused: %s', async (_, role, body, name, expected) => {
    const answer = await sign(await setUp(role), body, name)
    expect([answer.status, ...answer.body.errors]).toEqual(expected)
  })

  test('refused: a role without X.509-SVIDs, and the role of another token', async () => {
    const token = await setUp({ x509_svid: false, dns_names: '' })
    expect((await sign(token, { csr })).body.errors).toEqual(['the role gives no SVID of this kind'])
    expect((await sign(token, { csr }, 'other')).body.errors).toEqual(['unknown role: other'])
  })
})
