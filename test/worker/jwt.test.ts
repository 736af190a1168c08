import { beforeAll, describe, expect, test } from 'vitest'
import { checkTimes, JwtError, type JwtErrorCode, parseAudience, parseJwt } from '../../worker/jwt.ts'
import { NOW } from '../support/clock.ts'
import { encodePart, findPieceOf, makeTokenKey, signToken, type TokenKey } from '../support/tokens.ts'

let key: TokenKey
beforeAll(async () => {
  key = await makeTokenKey('ES256')
})

const header = () => ({ alg: 'ES256', kid: key.kid })

/** @returns why a call was refused, or null if it was not */
function verdict(call: () => unknown): JwtErrorCode | null {
  try {
    call()
    return null
  } catch (error) {
    if (error instanceof JwtError) return error.code
    throw error
  }
}

describe('a token that is read and not yet believed', () => {
  test('JS-17: gives its header and payload', async () => {
    const token = await signToken({ ...header(), typ: 'JWT' }, { iss: 'x', nested: { a: [1] } }, key)
    expect(parseJwt(token)).toMatchObject({ header: header(), payload: { iss: 'x', nested: { a: [1] } } })
  })

  test('JS-17: may be 16 KiB long and not a byte longer', async () => {
    const sized = (length: number) => `${encodePart(header())}.${encodePart('{}')}.${'A'.repeat(length)}`
    const room = 16_384 - sized(0).length
    // A length that base64url can have.
    const fit = room % 4 === 1 ? room - 1 : room
    expect(verdict(() => parseJwt(sized(fit)))).toBeNull()
    expect(verdict(() => parseJwt(sized(room + 1)))).toBe('too_large')
    expect(verdict(() => parseJwt(' '.repeat(1_000_000)))).toBe('too_large')
  })

  test.each<[string, JwtErrorCode]>([
    ['{"sub":"a","sub":"b"}', 'malformed'],
    ['{"sub":"a","s\\u0075b":"b"}', 'malformed'],
    ['{"aud":"a","aud":["b"]}', 'malformed'],
    ['{"kubernetes.io":{"namespace":"a","namespace":"b"}}', 'malformed'],
    ['[]', 'malformed'],
    ['"sub"', 'malformed'],
    ['null', 'malformed'],
    ['', 'malformed'],
    ['{"sub":"a","SUB":"b"}', 'claims'],
    ['{"Iss":"a"}', 'claims'],
    ['{"sub":"a","\u017fub":"b"}', 'claims'],
    ['{"i\u017f\u017f":"b"}', 'claims'],
    ['{"sub":"a","\\u017fub":"b"}', 'claims'],
    ['{"EXP":1}', 'claims'],
    ['{"Nbf":1}', 'claims'],
    ['{"iAt":1}', 'claims'],
    ['{"Jti":1}', 'claims'],
    ['{"AUD":1}', 'claims'],
  ])('12.2, JB-4: with the payload %s is %s', async (payload, code) => {
    const token = await signToken(header(), payload, key)
    expect(verdict(() => parseJwt(token))).toBe(code)
  })

  test('JB-4: claims that only look somewhat alike are left alone', async () => {
    const payload = { subject: 'a', s: 1, 'sub ': 1, azp: 1, 'kubernetes.io': { SUB: 1 } }
    expect(verdict(() => parseJwt(`${encodePart(header())}.${encodePart(payload)}.AAAA`))).toBeNull()
  })

  test('an error repeats nothing of the token', async () => {
    const token = await signToken({ ...header(), crit: ['x'] }, { sub: 'secret' }, key)
    for (const spoilt of [token, `${token}.`, token.slice(1), `${token}!`])
      try {
        parseJwt(spoilt)
        expect.unreachable()
      } catch (error) {
        const { name, message, stack } = error as JwtError
        expect(findPieceOf(token, `${name} ${message} ${stack}`)).toBeNull()
      }
  })
})

describe('times', () => {
  test.each([
    [{ exp: NOW + 1 }, { expiresAt: NOW + 1, issuedAt: null }],
    [
      { exp: NOW + 1, iat: NOW + 30, nbf: NOW + 30 },
      { expiresAt: NOW + 1, issuedAt: NOW + 30 },
    ],
    [
      { exp: Number.MAX_SAFE_INTEGER, iat: 0, nbf: 0 },
      { expiresAt: Number.MAX_SAFE_INTEGER, issuedAt: 0 },
    ],
  ])('JS-8, JS-9: %j is good, with 30 s for a clock that is ahead', (payload, times) => {
    expect(checkTimes(payload, NOW)).toEqual(times)
  })

  test.each<[string, object, JwtErrorCode]>([
    ['JS-8: no exp', {}, 'claims'],
    ['JS-8: an exp of just now, for which there is no leeway', { exp: NOW }, 'expired'],
    ['JS-8: an exp in the past', { exp: NOW - 1 }, 'expired'],
    ['12.2: exp 0', { exp: 0 }, 'expired'],
    ['12.2: exp as a string', { exp: String(NOW + 60) }, 'claims'],
    ['12.2: exp null', { exp: null }, 'claims'],
    ['12.2: exp true', { exp: true }, 'claims'],
    ['12.2: exp in a list', { exp: [NOW + 60] }, 'claims'],
    ['12.2: exp NaN', { exp: Number.NaN }, 'claims'],
    ['12.2: exp 1e400, which JSON.parse reads as infinite', JSON.parse('{"exp":1e400}'), 'claims'],
    ['12.2: exp beyond the integers', { exp: 2 ** 53 }, 'claims'],
    ['12.2: exp negative', { exp: -1 }, 'claims'],
    ['JS-15: exp with a fraction', { exp: NOW + 60.5 }, 'claims'],
    ['JS-9: nbf in the future', { exp: NOW + 60, nbf: NOW + 31 }, 'not_yet_valid'],
    ['JS-9: iat in the future', { exp: NOW + 60, iat: NOW + 31 }, 'not_yet_valid'],
    ['JS-9: nbf as a string', { exp: NOW + 60, nbf: '0' }, 'claims'],
    ['JS-9: nbf null', { exp: NOW + 60, nbf: null }, 'claims'],
    ['JS-9: iat as a string', { exp: NOW + 60, iat: '0' }, 'claims'],
    ['JS-9: iat negative', { exp: NOW + 60, iat: -1 }, 'claims'],
  ])('%s is refused', (_, payload, code) => {
    expect(verdict(() => checkTimes(payload as Record<string, unknown>, NOW))).toBe(code)
  })
})

describe('audiences', () => {
  test('JS-7: a string and a list are the two forms', () => {
    expect(parseAudience('a')).toEqual(['a'])
    expect(parseAudience(['a', 'b'])).toEqual(['a', 'b'])
  })

  test.each([
    [undefined],
    [null],
    [[]],
    [{}],
    [1],
    [true],
    [['a', 1]],
    [['a', null]],
    [[['a']]],
    [{ 0: 'a', length: 1 }],
  ])('12.2: %j is none', (aud) => {
    expect(verdict(() => parseAudience(aud))).toBe('claims')
  })
})
