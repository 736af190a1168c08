import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  isPathSegment,
  SpiffeId,
  SpiffeIdError,
  type SpiffeIdErrorCode,
  TrustDomain,
} from '../../../worker/spiffe/id.ts'

/** @returns why `text` is not a SPIFFE ID, or null if it is one */
function verdict(text: string): SpiffeIdErrorCode | null {
  try {
    SpiffeId.parse(text)
    return null
  } catch (error) {
    if (error instanceof SpiffeIdError) return error.code
    throw error
  }
}

const PATH_CHARACTERS = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-']
const HOST_CHARACTERS = [...'abcdefghijklmnopqrstuvwxyz0123456789._-']

const segments = fc
  .string({ unit: fc.constantFrom(...PATH_CHARACTERS), minLength: 1, maxLength: 20 })
  .filter((segment) => segment !== '.' && segment !== '..')
const hosts = fc.string({ unit: fc.constantFrom(...HOST_CHARACTERS), minLength: 1, maxLength: 40 })
const ids = fc
  .tuple(hosts, fc.array(segments, { maxLength: 6 }))
  .map(([host, path]) => `spiffe://${[host, ...path].join('/')}`)

describe('what is a SPIFFE ID', () => {
  test.each([
    ['ID-6: the trust domain itself', 'spiffe://td', 'td', ''],
    ['ID-1: a path', 'spiffe://td/a', 'td', '/a'],
    ['ID-3: underscores, digits, dots and dashes in the host', 'spiffe://a_b.1-c/x', 'a_b.1-c', '/x'],
    ['ID-4: an IPv4 address as the host', 'spiffe://10.0.0.1/x', '10.0.0.1', '/x'],
    ['ID-4: a host that is no DNS name', 'spiffe://-.-/x', '-.-', '/x'],
    [
      'ID-5: all characters of a segment',
      `spiffe://td/${PATH_CHARACTERS.join('')}`,
      'td',
      `/${PATH_CHARACTERS.join('')}`,
    ],
    ['ID-5: three dots, which are not special', 'spiffe://td/.../.a/..b', 'td', '/.../.a/..b'],
    ['ID-8: an uppercase path, which stays what it is', 'spiffe://td/A/a', 'td', '/A/a'],
    ['ID-12: a namespace and service account', 'spiffe://td/ns/kube-system/sa/a.b', 'td', '/ns/kube-system/sa/a.b'],
  ])('%s', (_, text, host, path) => {
    const id = SpiffeId.parse(text)
    expect([id.trustDomain.name, id.path, id.toString()]).toEqual([host, path, text])
  })

  test('ID-7: 255 bytes of trust domain and 2048 bytes in all', () => {
    expect(TrustDomain.parse('a'.repeat(255)).toString()).toBe(`spiffe://${'a'.repeat(255)}`)
    const longest = `spiffe://td/${'a'.repeat(2048 - 'spiffe://td/'.length)}`
    expect(SpiffeId.parse(longest).toString()).toBe(longest)
  })
})

describe('12.1: what is not', () => {
  test.each<[string, SpiffeIdErrorCode]>([
    ['', 'empty'],
    ['spiffe:', 'wrong_scheme'],
    ['spiffe://', 'missing_trust_domain'],
    ['spiffe:///path', 'missing_trust_domain'],

    ['https://td/x', 'wrong_scheme'],
    ['SPIFFE://td/x', 'wrong_scheme'],
    ['Spiffe://td/x', 'wrong_scheme'],
    ['spiffe:/td/x', 'wrong_scheme'],
    ['td/x', 'wrong_scheme'],

    ['spiffe://TD.example/x', 'bad_trust_domain_character'],

    ['spiffe://td:8443/x', 'bad_trust_domain_character'],
    ['spiffe://td:/x', 'bad_trust_domain_character'],
    ['spiffe://user@td/x', 'bad_trust_domain_character'],
    ['spiffe://user:secret@td/x', 'bad_trust_domain_character'],
    ['spiffe://[::1]/x', 'bad_trust_domain_character'],

    ['spiffe://td%2eexample/x', 'bad_trust_domain_character'],
    ['spiffe://td/a%20b', 'bad_path_character'],
    ['spiffe://td/%61', 'bad_path_character'],

    ['spiffe://td/', 'trailing_slash'],
    ['spiffe://td/a/', 'trailing_slash'],
    ['spiffe://td//a', 'empty_segment'],
    ['spiffe://td/a//b', 'empty_segment'],

    ['spiffe://td/.', 'dot_segment'],
    ['spiffe://td/..', 'dot_segment'],
    ['spiffe://td/../x', 'dot_segment'],
    ['spiffe://td/a/./b', 'dot_segment'],
    ['spiffe://td/a/../b', 'dot_segment'],

    ['spiffe://td/a?x=1', 'bad_path_character'],
    ['spiffe://td/a#f', 'bad_path_character'],
    ['spiffe://td?x', 'bad_trust_domain_character'],
    ['spiffe://td#', 'bad_trust_domain_character'],

    ['spiffe://td/ä', 'bad_path_character'],
    ['spiffe://tд/x', 'bad_trust_domain_character'],
    ['spiffe://td/a b', 'bad_path_character'],
    ['spiffe://td/a\nb', 'bad_path_character'],
    ['spiffe://td/a:b', 'bad_path_character'],
    ['spiffe://td/~a', 'bad_path_character'],
    ['spiffe://td/a\\b', 'bad_path_character'],
    ['spiffe://td/a\0', 'bad_path_character'],
    // Kelvin sign and long s, which case-insensitive comparisons take for k and s.
    ['spiffe://\u212a/x', 'bad_trust_domain_character'],
    ['\u017fpiffe://td/x', 'wrong_scheme'],

    [`spiffe://${'a'.repeat(256)}/x`, 'trust_domain_too_long'],
    [`spiffe://td/${'a'.repeat(2049 - 'spiffe://td/'.length)}`, 'too_long'],

    [' spiffe://td/x', 'wrong_scheme'],
    ['spiffe://td/x ', 'bad_path_character'],
    ['spiffe://td/x\n', 'bad_path_character'],
    ['\ufeffspiffe://td/x', 'wrong_scheme'],
    ['spiffe://td\n', 'bad_trust_domain_character'],
  ])('%j: %s', (text, code) => {
    expect(verdict(text)).toBe(code)
  })

  test.each<[string, SpiffeIdErrorCode]>([
    ['a', 'no_leading_slash'],
    ['/', 'trailing_slash'],
    ['//', 'trailing_slash'],
    [`/${'a'.repeat(2048)}`, 'too_long'],
  ])('the path %.9j that is put behind a trust domain: %s', (path, code) => {
    expect(() => SpiffeId.of(TrustDomain.parse('td'), path)).toThrow(new SpiffeIdError(code))
  })

  test.each<[string, SpiffeIdErrorCode]>([
    ['', 'missing_trust_domain'],
    ['spiffe://td', 'bad_trust_domain_character'],
    ['td/x', 'bad_trust_domain_character'],
    ['Td', 'bad_trust_domain_character'],
    ['a'.repeat(256), 'trust_domain_too_long'],
  ])('the trust domain %.20j: %s', (name, code) => {
    expect(() => TrustDomain.parse(name)).toThrow(new SpiffeIdError(code))
  })

  test('an error says which rule was broken and repeats nothing of the text', () => {
    expect(new SpiffeIdError('bad_path_character').message).toBe('not a SPIFFE ID: bad path character')
    for (const text of ['spiffe://td/secret value', 'spiffe://SECRET/x', 'secret'])
      expect(() => SpiffeId.parse(text)).toThrow(/^not a SPIFFE ID: [a-z ]+$/)
  })
})

test.each(['a', 'A', '0', '_', '-', '...', '.a', 'a.'])('ID-5: %j is a path segment', (text) => {
  expect(isPathSegment(text)).toBe(true)
})

test.each(['', '.', '..', '/', 'a/b', '{a}', '%', ' ', 'a\n', 'ä', ':', '~'])('ID-5: %j is no path segment', (text) => {
  expect(isPathSegment(text)).toBe(false)
})

describe('for all texts', () => {
  test('ID-1, ID-5: every ID that is made to the rules is taken and comes out as it went in', () => {
    fc.assert(
      fc.property(ids, (text) => {
        expect(SpiffeId.parse(text).toString()).toBe(text)
      }),
    )
  })

  test('ID-8, ID-9: what is taken at all comes out byte for byte, whatever went in', () => {
    const alphabet = fc.constantFrom(...PATH_CHARACTERS, ...'//..%:@?# \n{}~[]äſ')
    fc.assert(
      fc.property(fc.string({ unit: alphabet, maxLength: 30 }), (rest) => {
        const text = `spiffe://${rest}`
        if (verdict(text) !== null) return
        const id = SpiffeId.parse(text)
        expect(id.toString()).toBe(text)
        // The definition itself, in one expression.
        expect(text).toMatch(/^spiffe:\/\/[a-z0-9._-]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[a-zA-Z0-9._-]+)*$/)
      }),
      { numRuns: 500 },
    )
  })

  test('ID-2, ID-3, ID-5: one illegal character anywhere spoils any ID', () => {
    const illegal = fc
      .oneof(
        fc.constantFrom(...' :@?#%[]{}~!$&\'()*+,;=|\\^`"<>\n\r\t\0äſ\u212a\u2024'),
        fc.string({ minLength: 1, maxLength: 1 }),
      )
      .filter((character) => !PATH_CHARACTERS.includes(character) && character !== '/')
    fc.assert(
      fc.property(ids, illegal, fc.nat(), (text, character, position) => {
        const at = position % (text.length + 1)
        expect(verdict(text.slice(0, at) + character + text.slice(at))).not.toBeNull()
      }),
      { numRuns: 500 },
    )
  })

  test('ID-5: so does a slash, a dot segment or a double dot segment too many', () => {
    const pathed = fc.tuple(hosts, fc.array(segments, { minLength: 1, maxLength: 5 }))
    fc.assert(
      fc.property(pathed, fc.nat(), fc.constantFrom('', '.', '..'), ([host, path], position, extra) => {
        const spoilt = path.toSpliced(position % (path.length + 1), 0, extra)
        expect(verdict(`spiffe://${[host, ...spoilt].join('/')}`)).not.toBeNull()
      }),
    )
  })

  test('ID-8: so does an uppercase letter in scheme or host', () => {
    fc.assert(
      fc.property(ids, fc.nat(), (text, position) => {
        const end = `${text}/`.indexOf('/', 9)
        const at = position % end
        const upper = text.slice(0, at) + (text[at] ?? '').toUpperCase() + text.slice(at + 1)
        expect(upper === text || verdict(upper) !== null).toBe(true)
      }),
    )
  })
})
