/** HCL 1 as far as SPIRE uses it, and what a hostile file may try. */

import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type HclBody, HclError, type HclValue, parseHcl } from '../../../cli/cluster/hcl.ts'

/** Maps as objects, for comparing. A name that is there once stands for its value. */
function plain(value: HclValue): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (!(value instanceof Map)) return value
  return Object.fromEntries(
    [...(value as HclBody)].map(([key, values]) => [
      key,
      values.length === 1 ? plain(values[0] ?? null) : values.map(plain),
    ]),
  )
}
const read = (text: string) => plain(parseHcl(text))

describe('what it reads', () => {
  test.each([
    ['attributes', 'a = "x"\nb = 1\nc = true\nd = -2.5\ne = 0x10\n', { a: 'x', b: 1, c: true, d: -2.5, e: 16 }],
    ['names of all sorts', 'a-b_c.d = 1\n"e f" = 2', { 'a-b_c.d': 1, 'e f': 2 }],
    [
      'lists, with and without a last comma',
      'a = ["x", "y",]\nb = [\n1,\n2\n]\nc = []',
      { a: ['x', 'y'], b: [1, 2], c: [] },
    ],
    ['objects and blocks', 'a = { b = 1, c = 2 }\nd { e = 3 }', { a: { b: 1, c: 2 }, d: { e: 3 } }],
    ['labels', 'a "b" { c = 1 }\na "d" "e" {}', { a: [{ b: { c: 1 } }, { d: { e: {} } }] }],
    ['objects in lists', 'a = [{ b = 1 }, { b = 2 }]', { a: [{ b: 1 }, { b: 2 }] }],
    ['comments', '# one\na = 1 // two\n/* three\n} */ b = 2 /**/', { a: 1, b: 2 }],
    ['escapes', String.raw`a = "\"\\\n\tA\x42\103"`, { a: '"\\\n\tABC' }],
    // biome-ignore-start lint/suspicious/noTemplateCurlyInString: what SPIRE might expand
    ['what looks like an interpolation', 'a = "${HOME}/x"', { a: '${HOME}/x' }],
    // biome-ignore-end lint/suspicious/noTemplateCurlyInString: no more of it
    ['a here-document', 'a = <<EOF\n one\n  two\nEOF\nb = 1', { a: ' one\n  two\n', b: 1 }],
    ['an indented here-document', 'a = <<-EOF\n   one\n     two\n   EOF\n', { a: 'one\n  two\n' }],
    ['a byte order mark and Windows line breaks', '\uFEFFa = 1\r\nb = 2\r\n', { a: 1, b: 2 }],
    ['nothing', ' \n# nothing\n', {}],
    ['JSON', '{"a": {"b": ["x"]}, "c": null}', { a: { b: ['x'] }, c: null }],
  ])('%s', (_, text, value) => {
    expect(read(text)).toEqual(value)
  })

  test('names that mean something to JavaScript are only names', () => {
    expect([...parseHcl('__proto__ = 1\nconstructor { x = 1 }').keys()]).toEqual(['__proto__', 'constructor'])
    expect([...parseHcl('{"__proto__": {"polluted": true}}').keys()]).toEqual(['__proto__'])
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })
})

describe('what it refuses, with the line', () => {
  test.each([
    ['an attribute twice', 'a = 1\na = 2', /twice, at line 2/],
    ['a block twice', 'a {}\na {}', /twice/],
    ['an attribute and a block', 'a = 1\na "b" {}', /twice/],
    ['a block and an attribute', 'a "b" {}\na = 1', /twice/],
    ['a member twice in an object', 'a = { "b" = 1\n "b" = 2 }', /twice/],
    ['a member twice in JSON', '{"a":1,"a":2}', /twice/],
    ['a name alone', 'a', /neither = nor/],
    ['a value alone', '= 1', /a name is missing/],
    ['an attribute with a label', 'a "b" = 1', /label/],
    ['too many labels', 'a b c d e f {}', /labels/],
    ['a bare word', 'a = b', /not a value/],
    ['a function', 'a = file("x")', /not HCL/],
    ['an open block', 'a {', /a name is missing/],
    ['one brace too many', 'a {}\n}', /line 2/],
    ['an open list', 'a = [1', /list|value/],
    ['a list without commas', 'a = [1 2]', /list/],
    ['an open string', 'a = "x', /not HCL/],
    ['a string over two lines', 'a = "x\ny"', /not HCL/],
    ['an unknown escape', String.raw`a = "\q"`, /escape/],
    ['an escape beyond Unicode', String.raw`a = "\UFFFFFFFF"`, /escape/],
    ['an open comment', '/* a', /not HCL/],
    ['an open here-document', 'a = <<EOF\nx\n', /here-document/],
    ['JSON that is none', '{"a":', /not JSON/],
    ['something after JSON', '{"a":1} b', /not JSON/],
  ])('%s', (_, text, message) => {
    expect(() => parseHcl(text)).toThrow(HclError)
    expect(() => parseHcl(text)).toThrow(message)
  })

  test('its messages repeat nothing of the text', () => {
    for (const text of ['password = hunter2', 'hunter2 = "', '{"hunter2": hunter2}'])
      expect(() => parseHcl(text)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter2') }))
  })

  test.each([
    ['lists', `a = ${'['.repeat(100_000)}`],
    ['objects', 'a = {'.repeat(100_000)],
    ['blocks', 'a {'.repeat(100_000)],
    ['JSON lists', `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['JSON objects', `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`],
  ])('%s nested too deeply', (_, text) => {
    expect(() => parseHcl(text)).toThrow(HclError)
  })

  test('a text that is too large', () => {
    expect(() => parseHcl('#'.repeat(1024 * 1024 + 1))).toThrow(/too large/)
  })

  test.each([
    ['comments', '#\n'.repeat(500_000)],
    ['stars without an end', `/*${'*'.repeat(1_000_000)}`],
    ['quotes', `a = "${'\\"'.repeat(500_000)}`],
    ['blanks', ' '.repeat(1_000_000)],
    ['one name', 'a'.repeat(1_000_000)],
    ['many blocks of one name', Array.from({ length: 20_000 }, (_, n) => `a "${n}" {}\n`).join('')],
  ])('a megabyte of %s is read or refused in good time, which is that of a test', (_, text) => {
    try {
      parseHcl(text)
    } catch (error) {
      expect(error).toBeInstanceOf(HclError)
    }
  })
})

describe('any text', () => {
  const piece = fc.constantFrom(...'{}[]=,"\\\n #/*<-$a1', 'true', '0x', '<<EOF\n', 'EOF', '\\u', '//', '/*', '*/')
  test.each([
    ['of pieces of the language', fc.array(piece, { maxLength: 60 }).map((pieces) => pieces.join(''))],
    ['at all', fc.string({ unit: 'binary', maxLength: 200 })],
  ])('%s is read, or refused by an HclError', (_, texts) => {
    fc.assert(
      fc.property(texts, (text) => {
        try {
          expect(parseHcl(text)).toBeInstanceOf(Map)
        } catch (error) {
          expect(error).toBeInstanceOf(HclError)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('every JSON object without names twice comes out as it went in, written as JSON or as HCL', () => {
    const value = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 3 },
        fc.string(),
        fc.integer(),
        fc.boolean(),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(fc.string(), tie('value'), { maxKeys: 3, noNullPrototype: true }),
      ),
    })).value
    const object = fc.dictionary(fc.string(), value, { maxKeys: 4, noNullPrototype: true })
    const hcl = (inner: unknown): string =>
      Array.isArray(inner)
        ? `[${inner.map(hcl).join(',')}]`
        : typeof inner === 'object'
          ? `{${body(inner as object)}}`
          : JSON.stringify(inner)
    const body = (inner: object) =>
      Object.entries(inner)
        .map(([key, entry]) => `${JSON.stringify(key)} = ${hcl(entry)}\n`)
        .join('')
    fc.assert(
      fc.property(object, (wanted) => {
        expect(read(JSON.stringify(wanted))).toEqual(wanted)
        expect(read(`\n${body(wanted)}`)).toEqual(wanted)
      }),
      { numRuns: 500 },
    )
  })
})
