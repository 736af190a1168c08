import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { generateLocalKey, localSigner } from '../../../keys/local.ts'
import { SpiffeId, TrustDomain } from '../../../worker/spiffe/id.ts'
import { openAuthority, selfSignAuthority, signX509Svid } from '../../../worker/spiffe/x509_svid.ts'
import { validateX509Svid, X509SvidError } from '../../../worker/spiffe/x509_validation.ts'
import { makeCsr } from '../../support/csr.ts'
import { type ChainCase, makeChainCases, NOW, WORKLOAD } from '../../support/x509_chains.ts'

/** An identity that is not {@link WORKLOAD}. */
const ANOTHER = /^spiffe:\/\/(?!example\.org\/ns\/shop\/sa\/cart$)/

const cases = await makeChainCases()

/** @returns the SPIFFE ID, or the code of the refusal; throws if it fails in any other way */
async function verdict({ chain, bundles, now }: Pick<ChainCase, 'chain' | 'bundles' | 'now'>): Promise<string> {
  try {
    return (await validateX509Svid(chain, bundles, now)).spiffeId.toString()
  } catch (error) {
    if (error instanceof X509SvidError) return error.code
    throw error
  }
}

test.each(cases.filter(({ code }) => code === null))('X509-SVID §5: it takes $name', async (chainCase) => {
  expect(await verdict(chainCase)).toBe(WORKLOAD)
})

test.each(cases.filter(({ code }) => code !== null))('12.3: it refuses $name: $code', async (chainCase) => {
  expect(await verdict(chainCase)).toBe(chainCase.code)
})

test.each([Number.NaN, undefined as unknown as number])('it refuses everything when the time is %s', async (now) => {
  expect(await verdict({ ...(cases[0] as ChainCase), now })).toBe('not_yet_valid')
})

describe('what the writer makes', () => {
  test.each(['ES256', 'ES384', 'ES512', 'RS256', 'RS384', 'RS512'] as const)('with %s is taken', async (alg) => {
    const { publicJwk, privateJwk } = await generateLocalKey(alg)
    const signer = await localSigner(publicJwk, privateJwk)
    const trustDomain = TrustDomain.parse('example.org')
    const certificate = await selfSignAuthority(signer, { trustDomain, notBefore: NOW, notAfter: NOW + 100 })
    const authority = await openAuthority(certificate, signer)
    const { spki: publicKey } = await makeCsr()
    const spiffeId = SpiffeId.parse(WORKLOAD)
    const terms = { spiffeId, dnsNames: ['cart'], publicKey, notBefore: NOW - 10, notAfter: NOW + 60 }
    const svid = await signX509Svid(terms, authority)
    const bundles = new Map([['example.org', [certificate]]])
    expect(await validateX509Svid([svid], bundles, NOW)).toEqual({
      ...{ spiffeId, notAfter: NOW + 60 },
      publicKey: new Uint8Array(publicKey),
    })
    expect(await verdict({ chain: [certificate], bundles, now: NOW })).toBe('leaf_is_ca')
    expect(await verdict({ chain: [svid], bundles, now: NOW + 61 })).toBe('expired')
  })
})

describe('whatever is done to a good chain', () => {
  const deep = cases.find(({ name }) => name.startsWith('intermediates in the wrong order')) as ChainCase

  test('to one octet of it, it is refused or says the same', async () => {
    const position = fc.tuple(fc.nat(deep.chain.length - 1), fc.nat(), fc.integer({ min: 1, max: 255 }))
    await fc.assert(
      fc.asyncProperty(position, async ([which, at, change]) => {
        const chain = deep.chain.map((der) => der.slice())
        const der = chain[which] as Uint8Array
        der[at % der.length] = (der[at % der.length] as number) ^ change
        const said = await verdict({ ...deep, chain })
        // A certificate that no path needs may be anything: the root, which comes along.
        if (which !== 2) expect(said).not.toBe(WORKLOAD)
        expect(said).not.toMatch(ANOTHER)
      }),
      { numRuns: 1000 },
    )
    // A thousand chains of four take a machine that is busy with other work more than the usual time.
  }, 60_000)

  test('by cutting, repeating and mixing, it is refused or says the same', async () => {
    const piece = fc.tuple(fc.nat(deep.chain.length - 1), fc.nat(400), fc.nat(400), fc.uint8Array({ maxLength: 8 }))
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 4 }), async (pieces) => {
        const chain = pieces.map(([which, from, skip, more]) => {
          const der = deep.chain[which] as Uint8Array
          return Uint8Array.of(...der.subarray(0, from), ...more, ...der.subarray(from + skip))
        })
        expect(await verdict({ ...deep, chain })).not.toMatch(ANOTHER)
      }),
      { numRuns: 500 },
    )
  })
})
