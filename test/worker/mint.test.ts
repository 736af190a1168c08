import { describe, expect, test } from 'vitest'
import { mint, mintX509 } from '../../worker/mint.ts'
import type { JwtGrant, X509Grant } from '../../worker/policy/authorize.ts'
import { internalGrant, internalX509Grant, isInternalGrant } from '../../worker/policy/internal_grant.ts'
import { Refusal } from '../../worker/refusal.ts'
import { SpiffeId } from '../../worker/spiffe/id.ts'
import { NOW } from '../support/clock.ts'
import { ISSUER, TRUST_DOMAIN } from '../support/policy.ts'

const RESERVED = ['/spire/agent/k8s_psat/east/uid', '/spire/server', '/spiffe-edge/reviewer/east', '']
const terms = (path: string) => ({
  spiffeId: SpiffeId.of(TRUST_DOMAIN, path),
  audience: `${ISSUER}/reviewer/east`,
  ttlSeconds: 60,
  notAfter: NOW + 60,
})

describe('T-5: a reserved SPIFFE ID', () => {
  test.each(RESERVED)('%j is minted by a grant of the issuer’s own', (path) => {
    expect(mint(internalGrant(terms(path)), ISSUER, 'jti-1', NOW)).toEqual({
      iss: ISSUER,
      sub: `spiffe://example.org${path}`,
      aud: `${ISSUER}/reviewer/east`,
      exp: NOW + 60,
      iat: NOW,
      jti: 'jti-1',
    })
  })

  test.each(RESERVED)('%j is minted by no other, be it a copy', (path) => {
    const grant = internalGrant(terms(path))
    for (const other of [{ ...grant }, structuredClone({ ...grant, spiffeId: null }), Object.create(grant)]) {
      const forged = { ...other, spiffeId: grant.spiffeId, audience: grant.audience } as JwtGrant
      expect(isInternalGrant(forged)).toBe(false)
      expect(() => mint(forged, ISSUER, 'jti-1', NOW)).toThrow(Refusal)
    }
  })

  test('is all that such a grant is for: the identities of workloads come by registrations', () => {
    for (const path of ['/ns/a/sa/b', '/spirelike', '/spiffe-edge-2/x'])
      expect(() => internalGrant(terms(path))).toThrow(TypeError)
  })

  test('stays what it was granted as', () => {
    const grant = internalGrant(terms('/spiffe-edge/reviewer/east'))
    expect(Object.isFrozen(grant)).toBe(true)
  })
})

test('T-8: nothing outlives what the grant says', () => {
  const grant = internalGrant({ ...terms('/spiffe-edge/reviewer/east'), notAfter: NOW + 10 })
  expect(mint(grant, ISSUER, 'jti-1', NOW).exp).toBe(NOW + 10)
})

describe('a certificate', () => {
  const KEY = new ArrayBuffer(8)
  const DAY = 86_400
  const authority = { notAfter: NOW + 10 * DAY }
  const agent = { spiffeId: SpiffeId.of(TRUST_DOMAIN, '/spire/agent/x'), ttlSeconds: 3600, notAfter: NOW + DAY }

  test.each(RESERVED)('T-5: for %j is minted by a grant of the issuer’s own', (path) => {
    const spiffeId = SpiffeId.of(TRUST_DOMAIN, path)
    expect(mintX509(internalX509Grant({ ...agent, spiffeId }), KEY, authority, NOW)).toEqual({
      spiffeId,
      dnsNames: [],
      publicKey: KEY,
      notBefore: NOW - 10,
      notAfter: NOW + 3600,
    })
  })

  test.each(RESERVED)('T-5: for %j is minted by no other, be it a copy', (path) => {
    const grant = internalX509Grant({ ...agent, spiffeId: SpiffeId.of(TRUST_DOMAIN, path) })
    for (const forged of [{ ...grant }, Object.create(grant)] as X509Grant[])
      expect(() => mintX509(forged, KEY, authority, NOW)).toThrow(
        expect.objectContaining({ reason: 'spiffe_id_reserved' }),
      )
  })

  test('T-5: such a grant is for nobody else', () => {
    const spiffeId = SpiffeId.of(TRUST_DOMAIN, '/ns/a/sa/b')
    expect(() => internalX509Grant({ ...agent, spiffeId })).toThrow(TypeError)
  })

  test.each([
    ['its own TTL', 60, NOW + DAY, NOW + DAY, NOW + 60],
    ['T-8: the subject token', 3600, NOW + 600, NOW + DAY, NOW + 600],
    ['XS-14, 12.3: the CA', 3600, NOW + DAY, NOW + 30, NOW + 30],
  ])('ends with %s, if that ends first', (_, ttlSeconds, tokenEnd, authorityEnd, end) => {
    const grant = internalX509Grant({ ...agent, ttlSeconds, notAfter: tokenEnd })
    expect(mintX509(grant, KEY, { notAfter: authorityEnd }, NOW).notAfter).toBe(end)
  })

  test.each([NOW, NOW - 1])('12.3: is not minted for an authority that ended at %i', (notAfter) => {
    expect(() => mintX509(internalX509Grant(agent), KEY, { notAfter }, NOW)).toThrow(
      expect.objectContaining({ reason: 'signing_unavailable' }),
    )
  })
})
