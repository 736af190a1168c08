/** Every line of requirements 12.2 is here. What the verifier gets its keys from, a JWK Set, is judged by `keys/key_set.ts`. */

import { base64url } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import type { AlgorithmName } from '../../../keys/algorithms.ts'
import { ALGORITHMS } from '../../../keys/algorithms.ts'
import { readKeySet } from '../../../keys/key_set.ts'
import { JwtError, type JwtErrorCode } from '../../../worker/jwt.ts'
import { TrustDomain } from '../../../worker/spiffe/id.ts'
import { type JwtSvidExpectation, verifyJwtSvid } from '../../../worker/spiffe/jwt_svid.ts'
import { NOW } from '../../support/clock.ts'
import {
  encodePart,
  makeTokenKey,
  signToken,
  signTokenWithPublicKey,
  spoiledEcdsaSignatures,
  type TokenKey,
  withSignature,
} from '../../support/tokens.ts'

const ISSUER = 'https://issuer.example.org'
const AUDIENCE = 'https://api.example.org/orders'
const ALL_ALGORITHMS = Object.keys(ALGORITHMS) as AlgorithmName[]

let es256: TokenKey
let es384: TokenKey
let rs256: TokenKey
let foreign: TokenKey
let expected: JwtSvidExpectation

beforeAll(async () => {
  ;[es256, es384, rs256, foreign] = await Promise.all([
    makeTokenKey('ES256'),
    makeTokenKey('ES384'),
    makeTokenKey('RS256'),
    makeTokenKey('ES256'),
  ])
  expected = { ...expectation(), keys: await keysOf(es256, es384, rs256) }
})

function expectation(): Omit<JwtSvidExpectation, 'keys'> {
  return { trustDomain: TrustDomain.parse('example.org'), issuer: ISSUER, audience: AUDIENCE }
}

async function keysOf(...keys: TokenKey[]) {
  return readKeySet(
    keys.map(({ publicJwk }) => publicJwk),
    ALL_ALGORITHMS,
  )
}

const claims = () => ({
  iss: ISSUER,
  sub: 'spiffe://example.org/ns/payments/sa/checkout',
  aud: AUDIENCE,
  exp: NOW + 300,
  iat: NOW,
  jti: 'one',
})

/** An SVID, with members of header and payload changed; one that is undefined is left out. */
async function svid(header: object = {}, payload: object | string = {}, key = es256): Promise<string> {
  return signToken(
    { alg: key.alg, kid: key.kid, typ: 'JWT', ...header },
    typeof payload === 'string' ? payload : { ...claims(), ...payload },
    key,
  )
}

/** @returns why a token was refused, or null if it was taken */
async function verdict(token: string, change: Partial<JwtSvidExpectation> = {}): Promise<JwtErrorCode | null> {
  try {
    await verifyJwtSvid(token, { ...expected, ...change }, NOW)
    return null
  } catch (error) {
    if (error instanceof JwtError) return error.code
    throw error
  }
}

describe('a JWT-SVID that is good', () => {
  test('JS-6, JS-7, JS-8: gives its SPIFFE ID, audience and times', async () => {
    const { spiffeId, ...rest } = await verifyJwtSvid(await svid(), expected, NOW)
    expect(spiffeId.toString()).toBe('spiffe://example.org/ns/payments/sa/checkout')
    expect(rest).toEqual({ audience: [AUDIENCE], expiresAt: NOW + 300, issuedAt: NOW })
  })

  test.each(ALL_ALGORITHMS)('JS-2: may be signed with %s', async (alg) => {
    const key = await makeTokenKey(alg)
    expect(await verdict(await svid({}, {}, key), { keys: await keysOf(key) })).toBeNull()
  })

  test.each([
    ['JS-4: no typ', { typ: undefined }, {}],
    ['JS-4: typ JOSE', { typ: 'JOSE' }, {}],
    ['JS-7: several audiences, ours among them', {}, { aud: ['other', AUDIENCE] }],
    ['JS-9: neither iat nor jti', {}, { iat: undefined, jti: undefined }],
    ['JS-9: an nbf in the past', {}, { nbf: NOW - 60 }],
    ['JS-6: the ID of the trust domain', {}, { sub: 'spiffe://example.org' }],
    ['JS-9: claims of its own', {}, { 'https://example.org/x': { a: 1 } }],
  ])('%s', async (_, header, payload) => {
    expect(await verdict(await svid(header, payload))).toBeNull()
  })

  test('JS-9: may be without iss, or have any, where the bundle alone decides', async () => {
    expect(await verdict(await svid({}, { iss: undefined }), { issuer: null })).toBeNull()
    expect(await verdict(await svid({}, { iss: 'https://elsewhere.example' }), { issuer: null })).toBeNull()
  })
})

describe('12.2: alg', () => {
  test.each<[string, unknown]>([
    ['none', 'none'],
    ['HS256', 'HS256'],
    ['EdDSA', 'EdDSA'],
    ['Ed25519', 'Ed25519'],
    ['ES256K', 'ES256K'],
    ['ML-DSA-44', 'ML-DSA-44'],
    ['missing', undefined],
    ['an array', ['ES256']],
    ['an object', { ES256: true }],
    ['null', null],
    ['in lower case', 'es256'],
    ['with a blank', 'ES256 '],
    ['a name that every object has', 'constructor'],
  ])('%s is refused before anything else is looked at', async (_, alg) => {
    expect(await verdict(await svid({ alg }))).toBe('algorithm')
    expect(await verdict(await svid({ alg, kid: 'unknown' }, { sub: 'x', exp: 0 }))).toBe('algorithm')
  })

  test('none, without a signature, is not even three parts', async () => {
    const token = `${encodePart({ alg: 'none', kid: es256.kid })}.${encodePart(claims())}`
    expect(await verdict(`${token}.`)).toBe('malformed')
    expect(await verdict(token)).toBe('malformed')
    expect(await verdict(`${token}.AAAA`)).toBe('algorithm')
  })

  test('HS256 with the RSA public key as the secret is refused', async () => {
    const token = await signTokenWithPublicKey({ alg: 'HS256', kid: rs256.kid, typ: 'JWT' }, claims(), rs256)
    expect(await verdict(token)).toBe('algorithm')
  })

  test.each<[string, string, () => TokenKey]>([
    ['ES256 over an RSA key', 'ES256', () => rs256],
    ['PS256 over an RSA key that is for RS256', 'PS256', () => rs256],
    ['RS256 over an EC key', 'RS256', () => es256],
    ['ES256 with a P-384 key', 'ES256', () => es384],
    ['ES384 with a P-256 key', 'ES384', () => es256],
  ])('%s is refused', async (_, alg, key) => {
    expect(await verdict(await svid({ alg }, {}, key()))).toBe('signature')
  })
})

describe('12.2: header', () => {
  test.each<[string, object]>([
    ['typ at+jwt', { typ: 'at+jwt' }],
    ['typ wit+jwt', { typ: 'wit+jwt' }],
    ['typ jwt', { typ: 'jwt' }],
    ['typ application/jwt', { typ: 'application/jwt' }],
    ['typ empty', { typ: '' }],
    ['typ a number', { typ: 1 }],
    ['typ null', { typ: null }],
    ['typ a list', { typ: ['JWT'] }],
    ['crit', { crit: ['exp'] }],
    ['crit, empty', { crit: [] }],
    ['jku', { jku: 'https://evil.example/keys' }],
    ['jwk', { jwk: { kty: 'EC' } }],
    ['x5u', { x5u: 'https://evil.example' }],
    ['x5c', { x5c: ['AAAA'] }],
    ['x5t', { x5t: 'AAAA' }],
    ['b64 false', { b64: false }],
    ['cty', { cty: 'JWT' }],
    ['enc', { enc: 'A256GCM' }],
    ['no kid (JS-3)', { kid: undefined }],
    ['an empty kid', { kid: '' }],
    ['kid a number', { kid: 1 }],
    ['kid a list', { kid: ['a'] }],
  ])('%s is refused', async (_, header) => {
    expect(await verdict(await svid(header))).toBe('header')
  })

  test('jwk with the key that made the signature is refused, and with its kid too', async () => {
    const { kid, publicJwk } = foreign
    expect(await verdict(await svid({ kid, jwk: publicJwk }, {}, foreign))).toBe('header')
  })
})

describe('12.2: form', () => {
  let token: string
  let parts: string[]
  beforeAll(async () => {
    token = await svid()
    parts = token.split('.')
  })

  test.each<[string, () => string]>([
    ['JWS JSON, flattened', () => JSON.stringify({ protected: parts[0], payload: parts[1], signature: parts[2] })],
    [
      'JWS JSON, general',
      () => JSON.stringify({ payload: parts[1], signatures: [{ protected: parts[0], signature: parts[2] }] }),
    ],
    ['no parts', () => ''],
    ['1 part', () => parts[0] ?? ''],
    ['2 parts', () => parts.slice(0, 2).join('.')],
    ['4 parts', () => `${token}.${parts[2]}`],
    ['5 parts, as a JWE has', () => `${token}.AAAA.AAAA`],
    ['an empty header', () => `.${parts[1]}.${parts[2]}`],
    ['an empty payload, as a detached one has', () => `${parts[0]}..${parts[2]}`],
    ['an empty signature', () => `${parts[0]}.${parts[1]}.`],
    ['padded base64', () => `${parts[0]}=.${parts[1]}.${parts[2]}`],
    ['a padded signature', () => `${token}==`],
    ['standard base64 in the signature', () => `${parts[0]}.${parts[1]}.++//${parts[2]?.slice(4)}`],
    ['a leading blank', () => ` ${token}`],
    ['a trailing blank', () => `${token} `],
    ['a trailing newline', () => `${token}\n`],
    ['a newline inside', () => `${parts[0]}.${parts[1]?.slice(0, 8)}\n${parts[1]?.slice(8)}.${parts[2]}`],
    ['a blank inside', () => `${parts[0]} .${parts[1]}.${parts[2]}`],
    ['a scheme before it', () => `Bearer ${token}`],
    ['a letter that only looks like one of the alphabet', () => token.replace('e', 'е')],
    ['a length that base64 cannot have', () => `${parts[0]}.${parts[1]}.AAAAA`],
    [
      'bits left over in the last letter',
      () => `${parts[0]}.${parts[1]}.${parts[2]?.slice(0, -1)}${strayed(parts[2])}`,
    ],
    ['octets that are no UTF-8', () => `${parts[0]}.${encodePart(Uint8Array.of(0x7b, 0xff, 0x7d))}.${parts[2]}`],
    ['a byte order mark', () => `${parts[0]}.${encodePart('\ufeff{}')}.${parts[2]}`],
    ['a header that is no object', () => `${encodePart('"ES256"')}.${parts[1]}.${parts[2]}`],
    ['a header with alg twice', () => `${encodePart('{"alg":"none","alg":"ES256"}')}.${parts[1]}.${parts[2]}`],
  ])('%s is refused', async (_, make) => {
    expect(await verdict(make())).toBe('malformed')
  })
})

describe('12.2: sub', () => {
  test.each<[string, unknown, JwtErrorCode]>([
    ['none', undefined, 'subject'],
    ['null', null, 'subject'],
    ['empty', '', 'subject'],
    ['a service account', 'system:serviceaccount:payments:checkout', 'subject'],
    ['a URL', 'https://example.org/x', 'subject'],
    ['an uppercase host', 'spiffe://EXAMPLE.org/x', 'subject'],
    ['a trailing slash', 'spiffe://example.org/', 'subject'],
    ['a dot segment', 'spiffe://example.org/a/../b', 'subject'],
    ['an array', ['spiffe://example.org/x'], 'subject'],
    ['an object', { 0: 'spiffe://example.org/x' }, 'subject'],
    ['another trust domain, signed with a key of ours', 'spiffe://other.example/x', 'trust_domain'],
    ['a trust domain that ours is the end of', 'spiffe://my.example.org/x', 'trust_domain'],
    ['a trust domain that ours is the beginning of', 'spiffe://example.org.evil.example/x', 'trust_domain'],
  ])('%s is refused', async (_, sub, code) => {
    expect(await verdict(await svid({}, { sub }))).toBe(code)
  })
})

describe('12.2: aud', () => {
  test.each<[string, unknown, JwtErrorCode]>([
    ['none', undefined, 'claims'],
    ['null', null, 'claims'],
    ['an empty list', [], 'claims'],
    ['without our value', 'other', 'audience'],
    ['a list without our value', ['other', 'another'], 'audience'],
    ['empty', '', 'audience'],
    ['another case', AUDIENCE.toUpperCase(), 'audience'],
    ['a trailing slash', `${AUDIENCE}/`, 'audience'],
    ['a blank behind', `${AUDIENCE} `, 'audience'],
    ['our value as one of several in a text', `other,${AUDIENCE}`, 'audience'],
    ['an element that is no string', [AUDIENCE, 1], 'claims'],
    ['a list in the list', [[AUDIENCE]], 'claims'],
    ['an object', { [AUDIENCE]: true }, 'claims'],
  ])('%s is refused', async (_, aud, code) => {
    expect(await verdict(await svid({}, { aud }))).toBe(code)
  })
})

describe('12.2: times', () => {
  test.each<[string, string, JwtErrorCode]>([
    ['no exp', '', 'claims'],
    ['exp in the past', `"exp":${NOW - 1}`, 'expired'],
    ['exp now: the leeway is none, like that of kube-apiserver', `"exp":${NOW}`, 'expired'],
    ['exp a string', `"exp":"${NOW + 300}"`, 'claims'],
    ['exp 1e400', '"exp":1e400', 'claims'],
    ['exp NaN, which is no JSON', '"exp":NaN', 'malformed'],
    ['exp negative', '"exp":-1', 'claims'],
    ['exp null', '"exp":null', 'claims'],
    ['nbf in the future', `"exp":${NOW + 300},"nbf":${NOW + 60}`, 'not_yet_valid'],
    ['iat in the future', `"exp":${NOW + 300},"iat":${NOW + 60}`, 'not_yet_valid'],
    ['exp twice', `"exp":1,"exp":${NOW + 300}`, 'malformed'],
  ])('%s is refused', async (_, times, code) => {
    const { iss, sub, aud } = claims()
    const rest = JSON.stringify({ iss, sub, aud }).slice(0, -1)
    expect(await verdict(await svid({}, `${rest}${times && `,${times}`}}`))).toBe(code)
  })
})

describe('12.2: keys', () => {
  test.each(['x509-svid', 'wit-svid', 'jwt-svid', 'enc', 'SIG', 'sig ', ''])(
    'JS-12: a key with use %j does not come out of a JWK Set, and so verifies nothing',
    async (use) => {
      const other = await makeTokenKey('ES256')
      const keys = await readKeySet([{ ...es256.publicJwk, use }, other.publicJwk], ALL_ALGORITHMS)
      expect([...keys.keys()]).toEqual([other.kid])
      expect(await verdict(await svid(), { keys })).toBe('key')
    },
  )

  test.each(['unknown', 'constructor', '__proto__', '../keys/1', "' or 1=1 --"])(
    'JB-2: kid %j is unknown',
    async (kid) => {
      expect(await verdict(await svid({ kid }))).toBe('key')
    },
  )

  test("JS-11: a kid that is in another domain's bundle only is unknown", async () => {
    expect(await verdict(await svid({}, {}, foreign))).toBe('key')
    expect(await verdict(await svid({}, {}, foreign), { keys: await keysOf(foreign) })).toBeNull()
  })

  test('a domain without keys has no good SVIDs', async () => {
    expect(await verdict(await svid(), { keys: new Map() })).toBe('key')
  })
})

describe('12.2: signature', () => {
  test.each(Object.entries(spoiledEcdsaSignatures))('%s is refused', async (_, spoil) => {
    expect(await verdict(withSignature(await svid(), spoil))).toBe('signature')
    expect(await verdict(withSignature(await svid({}, {}, es384), spoil))).toBe('signature')
  })

  test('of RSA, all zero or cut short, is refused', async () => {
    const token = await svid({}, {}, rs256)
    expect(await verdict(token)).toBeNull()
    expect(await verdict(withSignature(token, (octets) => new Uint8Array(octets.length)))).toBe('signature')
    expect(await verdict(withSignature(token, (octets) => octets.subarray(1)))).toBe('signature')
  })

  test('by another key under the kid of one that is known is refused', async () => {
    expect(await verdict(await svid({ kid: es256.kid }, {}, foreign))).toBe('signature')
  })

  test('over another payload or another header is refused', async () => {
    const [header, payload, signature] = (await svid()).split('.')
    const promoted = encodePart({ ...claims(), sub: 'spiffe://example.org/ns/payments/sa/admin' })
    expect(await verdict(`${header}.${promoted}.${signature}`)).toBe('signature')
    const retyped = encodePart({ alg: 'ES256', kid: es256.kid })
    expect(await verdict(`${retyped}.${payload}.${signature}`)).toBe('signature')
  })
})

describe('12.2: payload', () => {
  test.each<[string, string, JwtErrorCode]>([
    ['a string', '"x"', 'malformed'],
    ['a list', '[{"sub":"spiffe://example.org/x"}]', 'malformed'],
    ['null', 'null', 'malformed'],
    ['nothing', ' ', 'malformed'],
    ['sub twice', '{"sub":"spiffe://example.org/a","sub":"spiffe://example.org/b"}', 'malformed'],
    ['aud twice', '{"aud":"a","aud":"b"}', 'malformed'],
    ['aud twice, once in escapes', '{"aud":"a","\\u0061ud":"b"}', 'malformed'],
    ['\u017fub beside sub', '{"sub":"spiffe://example.org/a","\u017fub":"spiffe://example.org/b"}', 'claims'],
    ['SUB beside sub', '{"sub":"spiffe://example.org/a","SUB":"spiffe://example.org/b"}', 'claims'],
  ])('%s is refused', async (_, payload, code) => {
    expect(await verdict(await svid({}, payload))).toBe(code)
  })

  test('an oversized token is refused', async () => {
    expect(await verdict(await svid({}, { padding: 'x'.repeat(8_000) }))).toBeNull()
    expect(await verdict(await svid({}, { padding: 'x'.repeat(13_000) }))).toBe('too_large')
  })
})

describe('OD-4: iss, where one is demanded', () => {
  test.each([undefined, null, '', `${ISSUER}/`, ISSUER.toUpperCase(), 'https://issuer.example.org:443', [ISSUER]])(
    '%j is refused',
    async (iss) => {
      expect(await verdict(await svid({}, { iss }))).toBe('issuer')
    },
  )
})

/** The same last letter but for the bits that no octet is made of. */
function strayed(part = ''): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const octets = base64url.decode(part).length
  if (octets % 3 === 0) throw new TypeError('no bits are left over')
  return alphabet[alphabet.indexOf(part.at(-1) ?? '') ^ 1] ?? ''
}
