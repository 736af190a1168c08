import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { CsrError, readCsr } from '../../keys/csr.ts'
import { makeCsr } from '../support/csr.ts'

let good: Awaited<ReturnType<typeof makeCsr>>
beforeAll(async () => {
  good = await makeCsr()
})

/** The good request with one octet that is another. */
function changed(at: number, change: number): Uint8Array<ArrayBuffer> {
  const der = Uint8Array.from(good.der)
  der[at] = (der[at] ?? 0) ^ change
  return der
}

async function verdict(der: Uint8Array<ArrayBuffer>): Promise<string | null> {
  try {
    await readCsr(der)
    return null
  } catch (error) {
    if (error instanceof CsrError) return error.message
    throw error
  }
}

test.each(['P-256', 'RSA-2048'] as const)('a request with a %s key is for that key', async (kind) => {
  const { der, spki } = await makeCsr(kind)
  expect(new Uint8Array(await readCsr(der))).toEqual(new Uint8Array(spki))
})

describe('12.9: a request is refused', () => {
  test.each<[string, () => Uint8Array<ArrayBuffer>, string]>([
    ['that is nothing', () => new Uint8Array(), 'not a PKCS #10 request'],
    ['that is text', () => Uint8Array.from(new TextEncoder().encode('-----BEGIN')), 'not a PKCS #10 request'],
    ['that is cut off', () => good.der.slice(0, -1), 'not a PKCS #10 request'],
    ['that is a public key', () => new Uint8Array(good.spki), 'not a PKCS #10 request'],
    ['with something behind it', () => Uint8Array.of(...good.der, 0), 'more than one request'],
    ['twice', () => Uint8Array.of(...good.der, ...good.der), 'more than one request'],
    ['of more than 8 KiB', () => new Uint8Array(8193), 'too large'],
    ['with another signature', () => changed(good.der.length - 1, 1), 'not signed by its own key'],
  ])('%s', async (_, der, problem) => {
    expect(await verdict(der())).toBe(problem)
  })

  // The library writes a request anew before it checks the signature, so a change to what says nothing may pass.
  test('whichever octet is another, it gets nobody another key, and fails with no other error', async () => {
    const spki = new Uint8Array(good.spki)
    await fc.assert(
      fc.asyncProperty(fc.nat(good.der.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const der = changed(at, change)
        if ((await verdict(der)) === null) expect(new Uint8Array(await readCsr(der))).toEqual(spki)
      }),
      { numRuns: 500 },
    )
  })
})
