import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeFields, type Field, HpackDecoder, HpackError } from '../../../cli/workload_api/hpack.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const AUTHORITY: Field = [':authority', 'www.example.com']
const REQUEST: readonly Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
]

describe('the examples of RFC 7541', () => {
  test.each<[string, readonly string[], readonly (readonly Field[])[]]>([
    [
      'C.3, without Huffman',
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        '8286 84be 5808 6e6f 2d63 6163 6865',
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
      ],
      [
        [...REQUEST, AUTHORITY],
        [...REQUEST, AUTHORITY, ['cache-control', 'no-cache']],
        [[':method', 'GET'], [':scheme', 'https'], [':path', '/index.html'], AUTHORITY, ['custom-key', 'custom-value']],
      ],
    ],
    [
      'C.4, with Huffman',
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        '8286 84be 5886 a8eb 1064 9cbf',
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
      ],
      [
        [...REQUEST, AUTHORITY],
        [...REQUEST, AUTHORITY, ['cache-control', 'no-cache']],
        [[':method', 'GET'], [':scheme', 'https'], [':path', '/index.html'], AUTHORITY, ['custom-key', 'custom-value']],
      ],
    ],
    ['C.2.2, a literal that is not kept', ['040c 2f73 616d 706c 652f 7061 7468'], [[[':path', '/sample/path']]]],
    ['C.2.3, a literal that never is', ['1008 7061 7373 776f 7264 0673 6563 7265 74'], [[['password', 'secret']]]],
  ])('%s', (_, blocks, fields) => {
    const decoder = new HpackDecoder()
    expect(blocks.map((block) => decoder.decode(hex(block)))).toEqual(fields)
  })
})

test('§4.3, §4.4: a table that is made smaller forgets the oldest, and one that is too small for an entry is empty', () => {
  const kept = (name: string, value = '') =>
    Buffer.concat([Buffer.of(0x40, name.length), Buffer.from(name), Buffer.of(value.length), Buffer.from(value)])
  const decoder = new HpackDecoder()
  decoder.decode(Buffer.concat([kept('a'), kept('b')]))
  expect(decoder.decode(Buffer.of(0xbe, 0xbf))).toEqual([
    ['b', ''],
    ['a', ''],
  ])
  // One entry of 33 octets.
  decoder.decode(Buffer.of(0x3f, 33 - 31))
  expect(decoder.decode(Buffer.of(0xbe))).toEqual([['b', '']])
  expect(() => decoder.decode(Buffer.of(0xbf))).toThrow(HpackError)
  expect(decoder.decode(kept('name', 'value'))).toEqual([['name', 'value']])
  expect(() => decoder.decode(Buffer.of(0xbe))).toThrow(HpackError)
})

test.each([
  ['an index of nothing', '80'],
  ['an index behind the tables', 'be'],
  ['an index that does not end', 'ff ff ff ff ff ff ff'],
  ['an index that is cut off', 'ff 80'],
  ['a length behind the end', '00 05 61'],
  ['a name without a value', '00 01 61'],
  ['a literal without anything', '40'],
  ['a table larger than agreed', '3f e2 1f'],
  ['§5.2: the end of the string within it', '00 84 ff ff ff fc 00'],
  ['§5.2: padding that is no end of the string', '00 81 18 00'],
  ['§5.2: an octet of padding', '00 82 1f ff 00'],
])('%s is refused', (_, block) => {
  expect(() => new HpackDecoder().decode(hex(block))).toThrow(HpackError)
})

test('whatever octets there are, they are fields or an error', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder()
      try {
        for (const block of blocks)
          for (const field of decoder.decode(block))
            expect(field.map((text) => typeof text)).toEqual(['string', 'string'])
      } catch (error) {
        expect(error).toBeInstanceOf(HpackError)
      }
    }),
  )
})

test('what is written can be read', () => {
  const text = fc.string({
    maxLength: 126,
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  })
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text)), (fields) => {
      expect(new HpackDecoder().decode(encodeFields(fields))).toEqual(fields)
    }),
  )
  expect(() => encodeFields([['x', 'x'.repeat(127)]])).toThrow(RangeError)
})
