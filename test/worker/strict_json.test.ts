import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseJsonObject } from '../../worker/strict_json.ts'

describe('RFC 8259 §4: a name may stand in several objects, just not twice in one', () => {
  test.each([
    ['{}', {}],
    [' { } ', {}],
    ['{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}', { a: 1, b: { a: 2 }, c: [{ a: 3 }, { a: 4 }] }],
    ['{"a":"a","b":"a"}', { a: 'a', b: 'a' }],
    ['{"a":["a","a",{"b":"a"}]}', { a: ['a', 'a', { b: 'a' }] }],
    ['{"a":"{\\"b\\":1,\\"b\\":2}"}', { a: '{"b":1,"b":2}' }],
    ['{"a":"\\\\","b":"\\"","a\\"":1}', { a: '\\', b: '"', 'a"': 1 }],
    ['{"":1,"a":2}', { '': 1, a: 2 }],
    // Names differ by case and by accent: which of them are too alike is for others to say.
    ['{"a":1,"A":2,"é":3,"e\\u0301":4}', { a: 1, A: 2, é: 3, 'e\u0301': 4 }],
  ])('%s is taken', (text, value) => {
    expect(parseJsonObject(text)).toEqual(value)
  })

  test.each([
    '{"a":1,"a":1}',
    '{"a":1,"b":2,"a":3}',
    '{"a":{"b":1,"b":2}}',
    '{"a":[{"b":1},{"b":1,"b":2}]}',
    '[{"a":1,"a":2}]',
    '{"a":1,"\\u0061":2}',
    '{"\\u0061":1,"\\u0061":2}',
    '{"a/b":1,"a\\/b":2}',
    '{"\\n":1,"\\u000a":2}',
    '{"\\u00E4":1,"\\u00e4":2}',
    '{"😀":1,"\\ud83d\\ude00":2}',
    '{"":1,"":2}',
    '{"__proto__":1,"__proto__":2}',
    '{ "a" : [ ] , "a" : { } }',
    '{"a":[[[{"x":[]}]]],"a":1}',
  ])('%s is not', (text) => {
    expect(() => parseJsonObject(text)).toThrow(SyntaxError)
  })
})

describe('12.2: what is not an object', () => {
  test.each(['', 'null', 'true', '1', '"a"', '[]', '[{}]'])('%j is not', (text) => {
    expect(() => parseJsonObject(text)).toThrow(SyntaxError)
  })
})

describe('RFC 8259 §2: what is no JSON at all', () => {
  test.each([
    '{',
    '{}}',
    '{} {}',
    '{"a":1,}',
    "{'a':1}",
    '{a:1}',
    '{"a":NaN}',
    '{"a":01}',
    '{"a":+1}',
    '{"a":1}//',
    '\ufeff{}',
    '{"a":"\n"}',
    '{"a":"\\x"}',
  ])('%j is not', (text) => {
    expect(() => parseJsonObject(text)).toThrow(SyntaxError)
  })
})

test('a member called __proto__ is a member and changes no prototype', () => {
  const value = parseJsonObject('{"__proto__":{"sub":"x"}}')
  expect(Object.keys(value)).toEqual(['__proto__'])
  expect(value.sub).toBeUndefined()
})

test('the size of a fetched answer, and nesting as deep as it allows, are no trouble', () => {
  for (const text of [
    `{"a":"${'x'.repeat(1_000_000)}"}`,
    `{"a":"${'\\n'.repeat(500_000)}"}`,
    `{"a":${'['.repeat(250_000)}${']'.repeat(250_000)}}`,
  ])
    expect(Object.keys(parseJsonObject(text))).toEqual(['a'])
})

type Json = string | number | boolean | null | Json[] | Member[]
type Member = { readonly name: string; readonly value: Json }

/** Names out of few characters, so that two objects often share one; and some that need an escape. */
const names = fc.string({ unit: fc.constantFrom(...'abä"\\/\n'), maxLength: 2 })
const { value: values } = fc.letrec<{ value: Json; members: Member[] }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(fc.string({ maxLength: 5 }), fc.integer(), fc.boolean(), fc.constant(null)),
    tie('members'),
    fc.array(tie('value'), { maxLength: 3 }),
  ),
  members: fc.uniqueArray(fc.record({ name: names, value: tie('value') }), {
    selector: ({ name }) => name,
    maxLength: 4,
  }),
}))
const objects = fc.uniqueArray(fc.record({ name: names, value: values }), {
  selector: ({ name }) => name,
  minLength: 1,
  maxLength: 4,
})

const isObject = (value: Json): value is Member[] =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.every((one) => typeof one === 'object' && one !== null && 'name' in one)

/** @param spell writes a name as one of the texts that stand for it */
function write(value: Json, spell: (name: string) => string): string {
  if (isObject(value)) return `{ ${value.map((one) => `${spell(one.name)} :${write(one.value, spell)}`).join(', ')}}`
  if (Array.isArray(value)) return `[${value.map((one) => write(one as Json, spell)).join(' ,')}]`
  return JSON.stringify(value)
}

/** Every object of a value, itself included. */
function objectsIn(value: Json): Member[][] {
  if (isObject(value)) return [value, ...value.flatMap((one) => objectsIn(one.value))]
  return Array.isArray(value) ? value.flatMap((one) => objectsIn(one as Json)) : []
}

const plainly = (name: string) => JSON.stringify(name)
const escaped = (name: string) =>
  `"${Array.from({ length: name.length }, (_, index) => `\\u${name.charCodeAt(index).toString(16).padStart(4, '0')}`).join('')}"`

describe('for all texts', () => {
  test('agrees with JSON.parse where no name is repeated', () => {
    fc.assert(
      fc.property(objects, fc.constantFrom(plainly, escaped), (object, spell) => {
        const text = write(object, spell)
        expect(parseJsonObject(text)).toEqual(JSON.parse(text))
      }),
    )
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(4), (value, indent) => {
        expect(parseJsonObject(JSON.stringify(value, null, indent))).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })

  test('takes nothing that JSON.parse does not', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'{}[]:,"\\u0061ab \n1-.e'), maxLength: 12 }), (inside) => {
        const text = `{${inside}}`
        let accepted: unknown
        try {
          accepted = parseJsonObject(text)
        } catch {
          return
        }
        expect(accepted).toEqual(JSON.parse(text))
      }),
      { numRuns: 1000 },
    )
  })

  test('refuses a repeated name at any depth, also where one of the two is spelled with escapes', () => {
    fc.assert(
      fc.property(objects, fc.nat(), fc.nat(), fc.nat(), fc.boolean(), (original, which, from, to, escapes) => {
        const object = structuredClone(original)
        const all = objectsIn(object)
        const target = all[which % all.length] as Member[]
        const { name } = target[from % target.length] as Member
        // The copy is the one that is written last, or in between, and maybe in escapes.
        target.splice(to % (target.length + 1), 0, { name, value: 0 })
        let seen = 0
        const text = write(object, (one) => (one === name && escapes && seen++ % 2 === 0 ? escaped(one) : plainly(one)))
        expect(() => JSON.parse(text)).not.toThrow()
        expect(() => parseJsonObject(text)).toThrow('a member name is repeated')
      }),
      { numRuns: 300 },
    )
  })
})
