import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type FieldTypes, readFields } from '../../../worker/vault/fields.ts'
import { VaultError } from '../../../worker/vault/vault_error.ts'

function read(type: keyof FieldTypes, value: unknown): unknown {
  try {
    return readFields({ x: value }, { x: type }).fields.x
  } catch (error) {
    if (!(error instanceof VaultError)) throw error
    return error.message.replace('Field validation failed: error converting input for field "x": ', '! ')
  }
}

/** As version 0.21.0 of Vault's SDK has answered. */
describe('parameters as Vault reads them', () => {
  test.each<[keyof FieldTypes, unknown, unknown]>([
    ['text', 'a', 'a'],
    ['text', 5, '5'],
    ['text', true, '1'],
    ['text', null, undefined],
    ['bool', 'true', true],
    ['bool', 't', true],
    ['bool', '', false],
    ['bool', 2, true],
    ['bool', null, undefined],
    ['bool', 'abc', `! cannot parse '' as bool: strconv.ParseBool: parsing "abc": invalid syntax`],
    ['int', '5', 5],
    ['int', -5, -5],
    ['int', true, 1],
    ['int', 'abc', `! cannot parse '' as int: strconv.ParseInt: parsing "abc": invalid syntax`],
    ['int', 1.5, `! cannot parse '' as int: strconv.ParseInt: parsing "1.5": invalid syntax`],
    ['duration', 60, 60],
    ['duration', '60', 60],
    ['duration', '1h30m', 5400],
    ['duration', '1.5s', 1],
    ['duration', '500ms', 0],
    ['duration', '1d', 86_400],
    ['duration', '', 0],
    ['duration', 'abc', '! time: invalid duration "abc"'],
    ['duration', 1.5, '! time: missing unit in duration "1.5"'],
    ['duration', '1w', '! time: unknown unit "w" in duration "1w"'],
    ['duration', -1, "! cannot provide negative value '-1'"],
    ['duration', '-1h', "! cannot provide negative value '-3600'"],
    ['duration', true, '! could not parse duration from input'],
    ['duration', 9_223_372_036, 9_223_372_036],
    ['duration', 9_223_372_037, '! multiplication of durations resulted in overflow, one operand may be too large'],
    ['list', 'a, b', ['a', 'b']],
    ['list', 'A, b,,a', ['A', 'b', '', 'a']],
    ['list', '', []],
    ['list', ['a,b ', 5], ['a,b', '5']],
    ['list', 5, ['5']],
  ])('%s %j', (type, value, expected) => {
    expect(read(type, value)).toEqual(expected)
  })

  test.each<keyof FieldTypes>(['text', 'bool', 'int', 'duration', 'list'])('%s: never an object', (type) => {
    expect(read(type, {})).toMatch(/^! /)
    expect(read(type, { a: 'secret' })).not.toContain('secret')
  })

  test('what means nothing is told, and never becomes a member of anything', () => {
    const body = JSON.parse('{"b":1,"a":2,"__proto__":3,"toString":4,"x":5}')
    const { fields, ignored } = readFields(body, { x: 'int' })
    expect([fields, ignored]).toEqual([{ x: 5 }, ['__proto__', 'a', 'b', 'toString']])
  })

  test('a long text is not repeated: it may be a token', () => {
    for (const type of ['bool', 'int', 'duration'] as const)
      expect(read(type, 'eyJhbGciOiJFUzI1NiJ9.secret')).not.toContain('eyJ')
  })

  test('whatever is sent, there is a value of the type or an error', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('text', 'bool', 'int', 'duration', 'list' as const),
        fc.jsonValue(),
        (type, value) => {
          const result = read(type, value)
          const types = { text: 'string', bool: 'boolean', int: 'number', duration: 'number', list: 'object' }
          if (result !== undefined && !String(result).startsWith('! ')) expect(typeof result).toBe(types[type])
          if (type === 'duration' && typeof result === 'number') expect(result).toBeGreaterThanOrEqual(0)
        },
      ),
    )
  })
})
