import { describe, expect, test } from 'vitest'
import { Decision } from '../../worker/audit.ts'
import { Refusal } from '../../worker/refusal.ts'
import { SpiffeId } from '../../worker/spiffe/id.ts'
import { NOW } from '../support/clock.ts'
import { POD } from '../support/cluster.ts'
import { attestation } from '../support/policy.ts'
import { LogBook } from './issuer.ts'

const TOKEN = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl'
/** Of the text above, by another program: `printf %s … | sha256sum`. */
const TOKEN_SHA256 = 'f85549153be8f12837ac8530bfc04d56b7ee125d2630677e2b73c693bde51845'

const CLAIMS = {
  iss: 'https://issuer.example.org',
  sub: 'spiffe://example.org/web',
  aud: 'k8s',
  exp: NOW + 300,
  iat: NOW,
  jti: 'jti',
}

/** @returns what is written of a decision */
async function written(make: (decision: Decision) => void, decision = new Decision('token', NOW)) {
  const book = new LogBook()
  make(decision)
  await decision.write(book.log)
  expect(book.events).toHaveLength(1)
  return book.events[0]
}

describe('style 4.10: one line for one decision', () => {
  test('issued: who got what, and which token was shown for it', async () => {
    const decision = new Decision('token', NOW)
    const line = await written((one) => {
      one.presented(TOKEN)
      one.attested(attestation())
      one.issued('web', { ...CLAIMS, jti: decision.id }, { kid: 'kid-1', alg: 'ES256' })
    }, decision)
    expect(line).toEqual({
      event: 'decision',
      message: 'pod attested',
      time: new Date(NOW * 1000).toISOString(),
      id: decision.id,
      door: 'token',
      decision: 'issued',
      subject_token_sha256: TOKEN_SHA256,
      cluster: 'east',
      namespace: POD.namespace,
      service_account: POD.serviceAccount.name,
      service_account_uid: POD.serviceAccount.uid,
      pod: POD.pod.name,
      pod_uid: POD.pod.uid,
      registration: 'web',
      spiffe_id: 'spiffe://example.org/web',
      audience: 'k8s',
      expires: NOW + 300,
      kid: 'kid-1',
      alg: 'ES256',
    })
  })

  test('issued with the token of an identical request: by which name that goes', async () => {
    const line = await written((one) => one.issued('web', CLAIMS, { kid: 'kid-1', alg: 'ES256' }))
    expect(line).toMatchObject({ decision: 'issued', jti: CLAIMS.jti, id: expect.not.stringMatching(CLAIMS.jti) })
  })

  test('issued as a certificate: which one, and by whose key it was signed', async () => {
    const spiffeId = SpiffeId.parse('spiffe://example.org/web')
    const certificate = { spiffeId, expiresAt: NOW + 3600, serialNumber: '0a1b' }
    const line = await written((one) => one.certified('web', certificate, { kid: 'ca-1', alg: 'ES384' }))
    expect(line).toMatchObject({
      decision: 'issued',
      registration: 'web',
      spiffe_id: 'spiffe://example.org/web',
      serial_number: '0a1b',
      expires: NOW + 3600,
      kid: 'ca-1',
      alg: 'ES384',
    })
    expect(line).not.toHaveProperty('audience')
  })

  test('refused before anything was read: that, and why', async () => {
    const decision = new Decision('token', NOW)
    const line = await written((one) => one.refused(new Refusal('parameter_missing', 'grant_type')), decision)
    expect(line).toEqual({
      event: 'decision',
      message: 'token rejected',
      time: new Date(NOW * 1000).toISOString(),
      id: decision.id,
      door: 'token',
      decision: 'refused',
      reason: 'parameter_missing',
      detail: 'grant_type',
    })
  })

  test('refused after the pod was attested: whose request it was', async () => {
    const line = await written((one) => {
      one.presented(TOKEN)
      one.attested(attestation({ pod: null }))
      one.refused(new Refusal('registration_none', 'no registration selects this pod'))
    })
    expect(line).toMatchObject({
      message: 'pod rejected',
      decision: 'refused',
      reason: 'registration_none',
      namespace: POD.namespace,
    })
    expect(line).not.toHaveProperty('pod')
    expect(line).not.toHaveProperty('spiffe_id')
  })

  test('refused after it was signed: refused', async () => {
    const line = await written((one) => {
      one.issued('web', CLAIMS, { kid: 'kid-1', alg: 'ES256' })
      one.refused(new Refusal('signing_unavailable', 'throttled'))
    })
    expect(line).toMatchObject({ decision: 'refused', reason: 'signing_unavailable' })
  })

  test('each has a name of its own', () => {
    const ids = Array.from({ length: 100 }, () => new Decision('token', NOW).id)
    expect(new Set(ids).size).toBe(100)
    expect(ids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })
})

describe('what was thrown and is no refusal', () => {
  test.each([
    [new TypeError(`cannot read ${TOKEN}`), 'TypeError'],
    [TOKEN, 'string'],
    [undefined, 'undefined'],
    [{ token: TOKEN }, 'object'],
  ])('%#: becomes one that says nothing but of what kind it was', async (thrown, detail) => {
    const decision = new Decision('token', NOW)
    const line = await written((one) => {
      expect(one.refused(thrown)).toMatchObject({ reason: 'internal', detail })
    }, decision)
    expect(line).toMatchObject({ decision: 'refused', reason: 'internal', detail })
    expect(JSON.stringify(line)).not.toContain('eyJ')
  })
})

test('style 4.9: the token itself is not in the line, whatever part of it', async () => {
  const line = JSON.stringify(await written((one) => one.presented(TOKEN)))
  for (const part of TOKEN.split('.')) expect(line).not.toContain(part)
})

test('a line that cannot be written is an error, and not an identity that nobody knows of', async () => {
  const full = () => {
    throw new Error('disk full')
  }
  await expect(new Decision('token', NOW).write(full)).rejects.toThrow('disk full')
})

test('PS-7: a node that is attested has its line: who it is, and that nothing was issued', async () => {
  const line = await written((one) => {
    one.presented(TOKEN)
    one.attested(attestation({ door: 'k8s_psat', live: true }))
    one.agent(SpiffeId.parse('spiffe://example.org/spire/agent/k8s_psat/east/uid'))
  }, new Decision('k8s_psat', NOW))
  expect(line).toMatchObject({
    door: 'k8s_psat',
    decision: 'attested',
    cluster: 'east',
    live: true,
    spiffe_id: 'spiffe://example.org/spire/agent/k8s_psat/east/uid',
  })
  expect(line).not.toHaveProperty('registration')
})
