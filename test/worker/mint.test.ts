import { describe, expect, test } from 'vitest'
import { mint } from '../../worker/mint.ts'
import type { Grant } from '../../worker/policy/authorize.ts'
import { internalGrant, isInternalGrant } from '../../worker/policy/internal_grant.ts'
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
      const forged = { ...other, spiffeId: grant.spiffeId, audience: grant.audience } as Grant
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
