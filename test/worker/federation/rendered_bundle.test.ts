import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import type { AlgorithmName } from '../../../keys/algorithms.ts'
import { parseForeignBundle } from '../../../worker/federation/foreign_bundle.ts'
import { renderForeignBundle } from '../../../worker/federation/rendered_bundle.ts'
import {
  type Jwk,
  jwtEntry,
  makeAuthority,
  makeCertificate,
  spireBundle,
  x509Entry,
} from '../../support/foreign_bundle.ts'

const ALGORITHMS: readonly AlgorithmName[] = ['ES256', 'ES384', 'ES512', 'RS256']

let entries: Jwk[]
beforeAll(async () => {
  const authorities = await Promise.all(ALGORITHMS.map((alg) => makeAuthority(alg, alg)))
  entries = (
    await Promise.all(authorities.map(async (one) => [x509Entry(one, await makeCertificate(one)), jwtEntry(one)]))
  ).flat()
})

test('XS-11, BU-7: whatever we have judged is passed on so that it is judged alike', async () => {
  const number = fc.option(fc.integer({ min: 1, max: 2_000_000 }), { nil: undefined })
  await fc.assert(
    fc.asyncProperty(fc.subarray([...entries.keys()]), number, number, async (chosen, sequence, hint) => {
      const text = JSON.stringify({
        keys: chosen.map((index) => entries[index]),
        spiffe_sequence: sequence,
        spiffe_refresh_hint: hint,
      })
      const bundle = await parseForeignBundle(text)
      expect(await parseForeignBundle(await renderForeignBundle(bundle))).toEqual(bundle)
    }),
    { numRuns: 30 },
  )
})

test('BU-5: what is not for us is not passed on, and an entry has no member that readers do not know', async () => {
  const [x509, jwt] = entries
  const bundle = await parseForeignBundle(
    spireBundle(
      [
        { ...x509, kid: 'x', alg: 'ES256' },
        { ...jwt, alg: 'ES256', key_ops: ['verify'] },
        { use: 'sig', kty: 'oct' },
      ],
      1,
      300,
    ),
  )
  const { keys, ...rest } = JSON.parse(await renderForeignBundle(bundle))
  expect(rest).toEqual({ spiffe_sequence: 1, spiffe_refresh_hint: 300 })
  expect(keys.map((key: object) => Object.keys(key).sort())).toEqual([
    ['crv', 'kty', 'use', 'x', 'x5c', 'y'],
    ['crv', 'kid', 'kty', 'use', 'x', 'y'],
  ])
})
