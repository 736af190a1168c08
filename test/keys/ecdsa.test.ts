import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ALGORITHMS } from '../../keys/algorithms.ts'
import { derSignature, joseSignature } from '../../keys/ecdsa.ts'
import { derSignature as derOf } from '../support/sign_digest.ts'

const CURVES = [ALGORITHMS.ES256, ALGORITHMS.ES384, ALGORITHMS.ES512].map(({ crv, scalarBytes }) => ({
  crv,
  scalarBytes,
}))

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(hex.replaceAll(' ', '').match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

function hex(octets: Uint8Array): string {
  return [...octets].map((octet) => octet.toString(16).padStart(2, '0')).join('')
}

/** @returns null where the reader refuses; throws if it fails in any other way */
function read(der: Uint8Array, scalarBytes: number): Uint8Array | null {
  try {
    return joseSignature(der, scalarBytes)
  } catch (error) {
    expect(error).toMatchObject({ name: 'SigningError', code: 'wrong_signature' })
    return null
  }
}

/** Numbers of every length that fits, not only of nearly full length as random ones are. */
function scalar(scalarBytes: number): fc.Arbitrary<bigint> {
  return fc.integer({ min: 1, max: 8 * scalarBytes }).chain((bits) => fc.bigInt(1n, (1n << BigInt(bits)) - 1n))
}

test('RFC 6979 §A.2.5: the signature of "sample" with P-256 and SHA-256, out of DER, verifies', async () => {
  const r = 'efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716'
  const s = 'f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8'
  const point =
    '04 60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6' +
    '7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299'
  const signature = joseSignature(bytes(`3046 022100${r} 022100${s}`), 32)
  expect(hex(signature)).toBe(r + s)
  const key = await crypto.subtle.importKey('raw', bytes(point), ALGORITHMS.ES256.key, false, ['verify'])
  const message = new TextEncoder().encode('sample')
  expect(await crypto.subtle.verify(ALGORITHMS.ES256.signature, key, signature, message)).toBe(true)
})

describe.each(CURVES)('KM-4: a signature of $crv', ({ scalarBytes }) => {
  const pair = fc.tuple(scalar(scalarBytes), scalar(scalarBytes))

  test('keeps its two numbers, each left-padded to full length', () => {
    fc.assert(
      fc.property(pair, ([r, s]) => {
        const expected = [r, s].map((value) => value.toString(16).padStart(2 * scalarBytes, '0')).join('')
        expect(hex(joseSignature(derOf(r, s), scalarBytes))).toBe(expected)
      }),
      { numRuns: 300 },
    )
  })

  test('goes into DER and comes back', () => {
    fc.assert(
      fc.property(pair, ([r, s]) => {
        const der = derOf(r, s)
        expect(hex(derSignature(joseSignature(der, scalarBytes)))).toBe(hex(der))
      }),
      { numRuns: 300 },
    )
  })

  test('has one encoding: whatever is done to an octet, it is refused or it is another signature', () => {
    fc.assert(
      fc.property(pair, fc.nat(), fc.integer({ min: 1, max: 255 }), ([r, s], at, change) => {
        const der = derOf(r, s)
        const index = at % der.length
        der[index] = (der[index] ?? 0) ^ change
        const jose = read(der, scalarBytes)
        if (!jose) return
        const [r2, s2] = [jose.subarray(0, scalarBytes), jose.subarray(scalarBytes)].map((half) =>
          BigInt(`0x${hex(half)}`),
        )
        expect(hex(derOf(r2 ?? 0n, s2 ?? 0n))).toBe(hex(der))
      }),
      { numRuns: 1000 },
    )
  })

  test('is refused when cut short anywhere, and with anything behind it', () => {
    fc.assert(
      fc.property(pair, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 4 }), ([r, s], at, more) => {
        const der = derOf(r, s)
        expect(read(der.subarray(0, at % der.length), scalarBytes)).toBeNull()
        expect(read(Uint8Array.of(...der, ...more), scalarBytes)).toBeNull()
      }),
    )
  })

  test('is refused with a number that is zero, negative or longer than the curve', () => {
    const tooLong = 1n << BigInt(8 * scalarBytes)
    for (const bad of [0n, -1n, -(tooLong >> 1n), tooLong, tooLong << 64n]) {
      expect(read(derOf(bad, 1n), scalarBytes)).toBeNull()
      expect(read(derOf(1n, bad), scalarBytes)).toBeNull()
    }
    expect(read(derOf(tooLong - 1n, 1n), scalarBytes)).not.toBeNull()
  })

  test('is refused in any other shape', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2 * scalarBytes + 16 }), (octets) => {
        const jose = read(octets, scalarBytes)
        expect(jose === null || jose.length === 2 * scalarBytes).toBe(true)
      }),
    )
  })
})

test('X.690 §8.1.3: two numbers of P-521 need a length of two octets', () => {
  const largest = (1n << 521n) - 1n
  const der = derOf(largest, largest)
  expect(hex(der.subarray(0, 3))).toBe('308188')
  expect(joseSignature(der, 66).length).toBe(132)
})

test.each([
  ['nothing', ''],
  ['a tag alone', '30'],
  ['an empty SEQUENCE', '3000'],
  ['one number', '3003 020101'],
  ['three numbers', '3009 020101 020102 020103'],
  ['a SET', '3106 020101 020102'],
  ['a primitive SEQUENCE', '1006 020101 020102'],
  ['an OCTET STRING for r', '3006 040101 020102'],
  ['an OCTET STRING for s', '3006 020101 040102'],
  ['an empty INTEGER', '3005 0200 020102'],
  ['a SEQUENCE that says it is longer', '3007 020101 020102'],
  ['a SEQUENCE that says it is shorter', '3005 020101 020102'],
  ['r that reaches into s', '3006 020401 020102'],
  ['s that reaches past the end', '3006 020101 020202'],
  ['a trailing octet', '3006 020101 020102 00'],
  ['an octet inside, behind s', '3007 020101 020102 00'],
  ['a long form where the short one does', '308106 020101 020102'],
  ['a length of two long octets', '30820006 020101 020102'],
  ['an indefinite length', '3080 020101 020102 0000'],
  ['a long form for an INTEGER', '3007 02810101 020102'],
  ['a negative r', '3006 0201ff 020102'],
  ['a zero s', '3006 020101 020100'],
  ['a zero in two octets', '3007 02020000 020102'],
  ['an r with a needless zero in front', '3007 02020001 020102'],
  ['an s with two zeros in front', '3008 020101 0203000080'],
])('X.690: %s is no signature', (_what, der) => {
  expect(read(bytes(der), 32)).toBeNull()
})

test('12.2: a signature that is already R‖S is not taken for DER', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (jose) => {
      expect(read(jose, 32)).toBeNull()
    }),
  )
})
