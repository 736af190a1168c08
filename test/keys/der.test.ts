import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  ascii,
  element,
  integer,
  OCTET_STRING,
  objectIdentifier,
  readElement,
  readTime,
  SEQUENCE,
  sequence,
  time,
} from '../../keys/der.ts'

/** Of the year 9999. */
const END_OF_TIME = 253_402_300_799

function bytes(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(hex.replaceAll(' ', ''))
}

describe('X.690 §8.1.3: a length', () => {
  test.each([
    [0, '0400'],
    [127, '047f'],
    [128, '048180'],
    [255, '0481ff'],
    [256, '04820100'],
    [65_535, '0482ffff'],
    [65_536, '0483010000'],
  ])('of %i is as short as can be, and read back', (length, header) => {
    const content = new Uint8Array(length).fill(7)
    const der = element(OCTET_STRING, content)
    expect(der.subarray(0, header.length / 2).toHex()).toBe(header)
    const read = readElement(Uint8Array.of(...der, 1, 2), OCTET_STRING)
    expect(read.whole).toEqual(der)
    expect(read.contents).toEqual(content)
    expect(read.rest).toEqual(Uint8Array.of(1, 2))
  })

  test.each([
    ['of nothing', ''],
    ['that is missing', '04'],
    ['in a long form where the short one does', '048101 00'],
    ['in two octets where one does', `04820080${'00'.repeat(0x80)}`],
    ['of zero in the long form', '048100'],
    ['that is indefinite', '0480 0000'],
    ['that is reserved', '04ff'],
    ['of four octets', '048401000000'],
    ['that is cut off', '0482'],
    ['that says more than there is', '0402 00'],
    ['of another tag', '0500'],
  ])('%s is refused', (_, der) => {
    expect(() => readElement(bytes(der), OCTET_STRING)).toThrow(TypeError)
  })

  test('whatever the octets are, they are refused or are the one encoding of what is read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (octets) => {
        const der = Uint8Array.of(SEQUENCE, ...octets)
        let read: ReturnType<typeof readElement>
        try {
          read = readElement(der, SEQUENCE)
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError)
          return
        }
        expect(Uint8Array.of(...sequence(read.contents), ...read.rest)).toEqual(der)
      }),
      { numRuns: 1000 },
    )
  })
})

test.each([
  ['', '020100'],
  ['00', '020100'],
  ['0000', '020100'],
  ['01', '020101'],
  ['7f', '02017f'],
  ['80', '02020080'],
  ['00000080', '02020080'],
  ['ff00', '020300ff00'],
])('X.690 §8.3: the number 0x%s is %s, never negative', (magnitude, der) => {
  expect(integer(bytes(magnitude)).toHex()).toBe(der)
})

test.each([
  ['2.5.4.10', '060355040a'],
  ['1.2.840.10045.4.3.2', '06082a8648ce3d040302'],
  ['1.2.840.113549.1.1.11', '06092a864886f70d01010b'],
  ['2.999.128.16384', '0607883781008180 00'.replace(' ', '')],
])('X.690 §8.19: %s is %s', (dotted, der) => {
  expect(objectIdentifier(dotted).toHex()).toBe(der)
})

describe('RFC 5280 §4.1.2.5: a time', () => {
  test.each([
    [0, 'UTCTime', '170d3730303130313030303030305a'],
    [2_524_607_999, 'UTCTime', '170d3439313233313233353935395a'],
    [2_524_608_000, 'GeneralizedTime', '180f32303530303130313030303030305a'],
    [END_OF_TIME, 'GeneralizedTime', '180f39393939313233313233353935395a'],
  ])('of %i is a %s', (seconds, _, der) => {
    expect(time(seconds).toHex()).toBe(der)
  })

  test('is read back as it was written', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: END_OF_TIME }), (seconds) => {
        expect(readTime(time(seconds))).toEqual({ seconds, rest: new Uint8Array() })
      }),
      { numRuns: 500 },
    )
  })

  test.each([-1, 0.5, END_OF_TIME + 1, Number.NaN, Number.POSITIVE_INFINITY])('is never %d', (seconds) => {
    expect(() => time(seconds)).toThrow(RangeError)
  })

  test.each(['2026-01-01', '20260101000000', '20261301000000Z', '20260101000000+0100'])('is none in %j', (text) => {
    expect(() => readTime(element(0x18, ascii(text)))).toThrow(TypeError)
  })
})
