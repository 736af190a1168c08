/** The one metric that is read, as kube-apiserver writes it and as the format would also allow it. */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MetricError, metricHash, readKeySets } from '../../../cli/keys/key_set_metric.ts'

const NAME = 'apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info'
const ISSUER = 'https://issuer.example.org'
const A = 'a'.repeat(64)
const B = 'b'.repeat(64)
const line = ({ hash = `sha256:${A}`, id = `sha256:${B}`, issuer = metricHash(ISSUER), rest = ' 1' } = {}) =>
  `${NAME}{apiserver_id_hash="${id}",hash="${hash}",jwt_issuer_hash="${issuer}"}${rest}`

test('an issuer is named by the SHA-256 of its URL, as kube-apiserver names it', () => {
  // printf %s https://issuer.example.org | sha256sum
  expect(metricHash(ISSUER)).toBe('sha256:5ccbe22cf80912a5aa7be2361790a99bf0c9a09e2c55a94cb8169a254542c75f')
})

test('the key set of this issuer, and of no other', () => {
  const text = ['# HELP x', line({ issuer: metricHash('https://other.example.org') }), line(), 'up 1', ''].join('\n')
  expect(readKeySets(text, ISSUER)).toEqual(new Map([[`sha256:${B}`, A]]))
})

test.each([
  ['nothing', ''],
  ['a comment that names it', `# HELP ${NAME} of the last key set\n# TYPE ${NAME} gauge\n`],
  ['a metric whose name is longer', `${line().replace('_info{', '_info_total{')}\n`],
  ['a metric whose name ends like it', `other_${line()}\n`],
  ['a label of another metric', `other{text="${NAME}"} 1\n`],
  ['no issuer', `${NAME}{hash="sha256:${A}"} 1\n`],
  ['no labels in the braces', `${NAME}{} 1\n`],
])('%s is no key set', (_, text) => {
  expect(readKeySets(text, ISSUER).size).toBe(0)
})

test.each([
  [
    'blanks and tabs, a comma at the end, and a time',
    ` {\thash = "sha256:${A}" , jwt_issuer_hash="I", apiserver_id_hash="sha256:${B}", }  1.0 1795000000000`,
  ],
  ['a label that is not known', `{zone="eu",hash="sha256:${A}",jwt_issuer_hash="I",apiserver_id_hash="sha256:${B}"} 1`],
])('%s', (_, rest) => {
  expect(readKeySets(NAME + rest.replace('I', metricHash(ISSUER)), ISSUER)).toEqual(new Map([[`sha256:${B}`, A]]))
})

describe('T-21: what cannot be read is no proof', () => {
  test.each([
    ['no labels', `${NAME} 1`],
    ['no end of the labels', `${NAME}{hash="sha256:${A}"`],
    ['no end of a value', `${NAME}{hash="sha256:${A}} 1`],
    ['an escape that there is not', `${NAME}{hash="\\x"} 1`],
    ['no comma', `${NAME}{hash="x" zone="y"} 1`],
    ['two commas', `${NAME}{hash="x",,zone="y"} 1`],
    ['a label twice', `${NAME}{hash="sha256:${A}",hash="sha256:${B}"} 1`],
    ['no value', line({ rest: '' })],
    ['zero', line({ rest: ' 0' })],
    ['NaN', line({ rest: ' NaN' })],
    ['a value with something behind it', line({ rest: ' 1 2 3' })],
    ['a key set without a hash', line({ hash: '' })],
    ['another hash function', line({ hash: `sha512:${A}` })],
    ['a hash in capital letters', line({ hash: `sha256:${A.toUpperCase()}` })],
    ['an API server without an identity', line({ id: '' })],
    ['an API server twice', `${line()}\n${line({ hash: `sha256:${B}` })}`],
  ])('%s', (_, text) => {
    expect(() => readKeySets(text, ISSUER)).toThrow(MetricError)
  })

  test('any text is read or refused with a MetricError, and nothing else comes out of it', () => {
    const piece = fc.constantFrom(NAME, '{', '}', '"', '\\', ',', '=', ' ', '\n', ' 1', 'hash', `sha256:${A}`, 'x')
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string())), (pieces) => {
        try {
          for (const [id, hash] of readKeySets(pieces.join(''), ISSUER))
            expect(`${id}${hash}`).toMatch(/^sha256:[0-9a-f]{128}$/)
        } catch (error) {
          expect(error).toBeInstanceOf(MetricError)
        }
      }),
    )
  })
})

test('labels in any order, with any values beside them, among any other metrics', () => {
  const escaped = (text: string) =>
    text.replace(/[\\"\n]/g, (character) => (character === '\n' ? '\\n' : `\\${character}`))
  const hex = fc.stringMatching(/^[0-9a-f]{64}$/)
  // Whole lines of others, which never begin with the name.
  const other = fc.string().map((text) => `other{text="${escaped(text).replaceAll('\r', '')}"} 1`)
  const entry = fc.record({
    hash: hex,
    id: hex,
    mine: fc.boolean(),
    zone: fc.string(),
    order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
  })
  fc.assert(
    fc.property(fc.uniqueArray(entry, { selector: ({ id }) => id }), fc.array(other), (entries, others) => {
      const lines = entries.map(({ hash, id, mine, zone, order }) => {
        const labels = [
          `apiserver_id_hash="sha256:${id}"`,
          `hash="sha256:${hash}"`,
          `jwt_issuer_hash="${mine ? metricHash(ISSUER) : metricHash(zone)}"`,
          `zone="${escaped(zone)}"`,
        ]
        return `${NAME}{${order.map((index) => labels[index]).join(',')}} 1`
      })
      const mine = entries.filter((one) => one.mine).map(({ id, hash }) => [`sha256:${id}`, hash] as const)
      expect(readKeySets([...others, ...lines, ...others].join('\n'), ISSUER)).toEqual(new Map(mine))
    }),
  )
})
