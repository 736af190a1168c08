import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isWithin, matches, parseCidr, parseNamespaceSelector } from '../../../worker/policy/vault_role.ts'

describe('VR-1: patterns', () => {
  test.each<[string, string, boolean]>([
    ['*', '', true],
    ['*', 'anything', true],
    ['web', 'web', true],
    ['web', 'webs', false],
    ['web*', 'web', true],
    ['*web', 'the-web', true],
    ['*web', 'web-the', false],
    ['a*b*c', 'a-b-c', true],
    ['a*b*c', 'acb', false],
    ['a*a', 'a', false],
    ['a**a', 'aa', true],
    ['ab*ba', 'aba', false],
    ['a.c', 'abc', false],
    ['A', 'a', false],
    ['', '', true],
  ])('%s binds %s: %s', (pattern, text, is) => {
    expect(matches(pattern, text)).toBe(is)
  })

  test('are what a regular expression of them is', () => {
    const part = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 8 })
    const text = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 12 })
    fc.assert(
      fc.property(part, text, (pattern, value) => {
        const whole = new RegExp(`^${pattern.replaceAll('*', '.*')}$`)
        expect(matches(pattern, value)).toBe(whole.test(value))
      }),
      { numRuns: 1000 },
    )
  })

  test('cost what they are long, however hostile', () => {
    const pattern = '*a'.repeat(126)
    const start = performance.now()
    for (let count = 0; count < 1000; count++) matches(pattern, `${'a'.repeat(125)}b`)
    // A thousand of them: a pattern that backtracks would not come back at all.
    expect(performance.now() - start).toBeLessThan(10_000)
  })
})

describe('namespace selectors', () => {
  test.each<[string, object | null]>([
    ['{"matchLabels":{"a":"b","c/d":"e"}}', { a: 'b', 'c/d': 'e' }],
    ['matchLabels:\n  team: payments', { team: 'payments' }],
    ['matchLabels: {}', null],
    ['{}', null],
    ['', null],
    ['nonsense', null],
    ['{"matchExpressions":[]}', null],
    ['{"matchLabels":{"a":"b"},"matchExpressions":[]}', null],
    ['{"matchLabels":{"a":1}}', null],
    ['{"matchLabels":{"a":"b"},"matchLabels":{"c":"d"}}', null],
    ['matchLabels: {a: b}\n---\nmatchLabels: {c: d}', null],
    ['matchLabels: !x {a: b}', null],
  ])('%s', (text, labels) => {
    const parsed = parseNamespaceSelector(text)
    expect(parsed && Object.fromEntries(parsed)).toEqual(labels)
  })
})

describe('addresses', () => {
  test.each<[string | null, string, boolean]>([
    ['10.1.2.3', '10.0.0.0/8', true],
    ['11.1.2.3', '10.0.0.0/8', false],
    ['10.1.2.3', '10.1.2.3', true],
    ['::ffff:10.1.2.3', '10.0.0.0/8', true],
    ['2001:db8::1', '2001:db8::/32', true],
    ['2001:db8::1', '10.0.0.0/8', false],
    ['10.1.2.3', '::/0', false],
    ['2001:db8::1', '0.0.0.0/0', false],
    [null, '0.0.0.0/0', false],
    ['', '0.0.0.0/0', false],
    ['0x0a010203', '0.0.0.0/0', false],
    ['10.1', '10.0.0.0/8', false],
    ['010.1.2.3', '10.0.0.0/8', false],
  ])('%s is within %s: %s', (address, range, is) => {
    expect(isWithin(address, [range])).toBe(is)
  })

  test.each(['10.0.0.0/33', '10.0.0/8', '1', 'x', '', '/tmp/socket', '2001:db8::/129', '10.0.0.1:80'])(
    '%s is none',
    (text) => {
      expect(parseCidr(text)).toBeNull()
    },
  )
})
