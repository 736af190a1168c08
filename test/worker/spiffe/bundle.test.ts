import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PublicJwk } from '../../../keys/signer.ts'
import { type BundleKey, renderBundle } from '../../../worker/spiffe/bundle.ts'

const EC: PublicJwk = { kty: 'EC', use: 'sig', alg: 'ES256', kid: 'token', crv: 'P-256', x: 'eA', y: 'eQ' }
const RSA: PublicJwk = { kty: 'RSA', use: 'sig', alg: 'RS256', kid: 'ca', n: 'bg', e: 'AQAB' }
const KEYS: readonly BundleKey[] = [
  { use: 'jwt-svid', publicJwk: EC, certificate: null },
  { use: 'x509-svid', publicJwk: RSA, certificate: 'MII=' },
]
const read = (keys: readonly BundleKey[]) => JSON.parse(renderBundle(keys, 7, 300))

describe('the bundle', () => {
  test('BU-1, BU-2, BU-3: has keys, sequence and refresh hint, both of them integers', () => {
    expect(read(KEYS)).toEqual({ keys: expect.any(Array), spiffe_sequence: 7, spiffe_refresh_hint: 300 })
  })

  test('BU-4: has its keys also where there are none', () => {
    expect(read([])).toEqual({ keys: [], spiffe_sequence: 7, spiffe_refresh_hint: 300 })
  })

  test('BU-5, BU-7: a JWT authority has key type, use, kid and its key, and nothing else', () => {
    expect(read(KEYS).keys[0]).toEqual({ use: 'jwt-svid', kid: 'token', kty: 'EC', crv: 'P-256', x: 'eA', y: 'eQ' })
  })

  test('XS-11: an X.509 authority has no kid, and exactly one certificate beside its key', () => {
    expect(read(KEYS).keys[1]).toEqual({ use: 'x509-svid', kty: 'RSA', n: 'bg', e: 'AQAB', x5c: ['MII='] })
  })

  test('BU-8: holds no private member, whatever is given', () => {
    const secret = { ...EC, d: 'secret', key_ops: ['sign'] } as PublicJwk
    expect(renderBundle([{ use: 'jwt-svid', publicJwk: secret, certificate: null }], 1, 300)).not.toContain('secret')
  })

  test('D3: depends on nothing but what is given', () => {
    fc.assert(
      fc.property(fc.subarray([...KEYS]), fc.nat(), fc.nat(), (keys, sequence, hint) => {
        expect(renderBundle(keys, sequence, hint)).toBe(renderBundle(structuredClone(keys), sequence, hint))
      }),
    )
  })
})
