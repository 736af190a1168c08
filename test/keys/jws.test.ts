import fc from 'fast-check'
import { base64url } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { type JwsErrorCode, parseCompact, signCompact, type VerificationKey, verifyCompact } from '../../keys/jws.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { type PublicJwk, type Signer, SigningError } from '../../keys/signer.ts'
import { parseJsonObject } from '../../worker/strict_json.ts'
import { derSignature } from '../support/sign_digest.ts'

interface TestKey {
  readonly publicJwk: PublicJwk
  readonly privateJwk: JsonWebKey
  readonly signer: Signer
  readonly verification: VerificationKey
}

let es256: TestKey
let es384: TestKey
let rs256: TestKey
/** Of {@link es256}. */
let token: string

async function testKey(alg: AlgorithmName): Promise<TestKey> {
  const { publicJwk, privateJwk } = await generateLocalKey(alg)
  const verification = await verificationKey(publicJwk)
  return { publicJwk, privateJwk, signer: await localSigner(publicJwk, privateJwk), verification }
}

async function verificationKey(publicJwk: PublicJwk): Promise<VerificationKey> {
  const { alg } = publicJwk
  const { key } = ALGORITHMS[alg]
  return { alg, key: await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, key, false, ['verify']) }
}

beforeAll(async () => {
  es256 = await testKey('ES256')
  es384 = await testKey('ES384')
  rs256 = await testKey('RS256')
  token = await signCompact({ alg: 'ES256', kid: 'k', typ: 'JWT' }, { sub: 'spiffe://td.test/a' }, es256.signer)
})

function encode(value: unknown): string {
  return base64url.encode(typeof value === 'string' ? value : JSON.stringify(value))
}

/** @returns the error code, or null where the token is read */
function refusal(compact: string): JwsErrorCode | null {
  try {
    parseCompact(compact, parseJsonObject)
    return null
  } catch (error) {
    expect(error).toMatchObject({ name: 'JwsError' })
    expect(error).not.toHaveProperty('cause')
    return (error as { code: JwsErrorCode }).code
  }
}

/** `compact` with the text of its first, second or third part put through `change`. */
function changed(compact: string, part: 0 | 1 | 2, change: (text: string) => string): string {
  return compact
    .split('.')
    .map((text, i) => (i === part ? change(text) : text))
    .join('.')
}

test('JS-1: a token is read into header and payload', () => {
  expect(parseCompact(token, parseJsonObject)).toMatchObject({
    signingInput: token.slice(0, token.lastIndexOf('.')),
    header: { alg: 'ES256', kid: 'k' },
    payload: { sub: 'spiffe://td.test/a' },
  })
})

describe('12.2: a header', () => {
  test.each([
    ['alg none', { alg: 'none' }, 'algorithm'],
    ['alg HS256', { alg: 'HS256' }, 'algorithm'],
    ['alg EdDSA', { alg: 'EdDSA' }, 'algorithm'],
    ['alg ES256K', { alg: 'ES256K' }, 'algorithm'],
    ['alg ML-DSA-44', { alg: 'ML-DSA-44' }, 'algorithm'],
    ['alg es256', { alg: 'es256' }, 'algorithm'],
    ['no alg', { alg: undefined }, 'algorithm'],
    ['alg null', { alg: null }, 'algorithm'],
    ['an array for alg', { alg: ['ES256'] }, 'algorithm'],
    ['an object for alg', { alg: { toString: 'ES256' } }, 'algorithm'],
    ['alg constructor', { alg: 'constructor' }, 'algorithm'],
    ['no kid', { kid: undefined }, 'header'],
    ['an empty kid', { kid: '' }, 'header'],
    ['a number for kid', { kid: 1 }, 'header'],
    ['an array for kid', { kid: ['k'] }, 'header'],
    ['typ at+jwt', { typ: 'at+jwt' }, 'header'],
    ['typ wit+jwt', { typ: 'wit+jwt' }, 'header'],
    ['typ jwt', { typ: 'jwt' }, 'header'],
    ['typ application/jwt', { typ: 'application/jwt' }, 'header'],
    ['an empty typ', { typ: '' }, 'header'],
    ['typ null', { typ: null }, 'header'],
    ['a number for typ', { typ: 1 }, 'header'],
    ['crit', { crit: ['exp'] }, 'header'],
    ['an empty crit', { crit: [] }, 'header'],
    ['jku', { jku: 'https://evil.test/jwks' }, 'header'],
    ['jwk', { jwk: { kty: 'EC' } }, 'header'],
    ['x5u', { x5u: 'https://evil.test/x5u' }, 'header'],
    ['x5c', { x5c: ['MIIB'] }, 'header'],
    ['x5t', { x5t: 'AAAA' }, 'header'],
    ['b64 false', { b64: false }, 'header'],
    ['b64 true', { b64: true }, 'header'],
    ['cty', { cty: 'JWT' }, 'header'],
    ['zip', { zip: 'DEF' }, 'header'],
    ['a member that nobody knows', { x: 1 }, 'header'],
    ['Alg beside alg', { Alg: 'none' }, 'header'],
  ])('with %s is refused', (_what, members, code) => {
    const header = { alg: 'ES256', kid: 'k', typ: 'JWT', ...members }
    expect(refusal(changed(token, 0, () => encode(header)))).toBe(code)
  })

  test.each([
    ['__proto__', '{"alg":"ES256","kid":"k","__proto__":{"crit":[]}}', 'header'],
    ['alg twice', '{"alg":"none","kid":"k","alg":"ES256"}', 'malformed'],
    ['alg twice, once escaped', '{"alg":"none","kid":"k","\\u0061lg":"ES256"}', 'malformed'],
    ['a comment', '{"alg":"ES256","kid":"k"}//', 'malformed'],
  ])('with %s is refused', (_what, header, code) => {
    expect(refusal(changed(token, 0, () => encode(header)))).toBe(code)
  })

  test.each(['JWT', 'JOSE', undefined])('JS-4: may have typ %s', (typ) => {
    expect(refusal(changed(token, 0, () => encode({ alg: 'ES256', kid: 'k', typ })))).toBeNull()
  })

  test.each(Object.keys(ALGORITHMS))('JS-2: may have alg %s', (alg) => {
    expect(refusal(changed(token, 0, () => encode({ alg, kid: 'k' })))).toBeNull()
  })
})

describe.each([0, 1] as const)('12.2: part %i', (part) => {
  test.each([
    '[]',
    '"x"',
    '1',
    'null',
    'true',
    '',
    '{',
    '{}{}',
    '{"a":1,}',
    "{'a':1}",
    '\ufeff{}',
    '[{"alg":"ES256"}]',
  ])('that is %j is refused', (text) => {
    expect(refusal(changed(token, part, () => encode(text)))).toBe('malformed')
  })

  test('that is not UTF-8 is refused', () => {
    const octets = [...new TextEncoder().encode('{"alg":"ES256","kid":"'), 0xff, ...new TextEncoder().encode('"}')]
    expect(refusal(changed(token, part, () => base64url.encode(Uint8Array.from(octets))))).toBe('malformed')
    // A surrogate, which lenient decoders let through.
    const surrogate = octets.flatMap((octet) => (octet === 0xff ? [0xed, 0xa0, 0x80] : [octet]))
    expect(refusal(changed(token, part, () => base64url.encode(Uint8Array.from(surrogate))))).toBe('malformed')
  })
})

describe('12.2: a serialization', () => {
  test('in JSON is refused', () => {
    const [header, payload, signature] = token.split('.')
    expect(refusal(JSON.stringify({ protected: header, payload, signature }))).toBe('malformed')
    expect(refusal(JSON.stringify({ payload, signatures: [{ protected: header, signature }] }))).toBe('malformed')
  })

  test('of any other number of parts is refused', () => {
    const [header, payload, signature] = token.split('.')
    const texts = [
      '',
      '.',
      '..',
      header,
      `${header}.${payload}`,
      `${header}.${payload}.`,
      `${header}..${signature}`,
      `.${payload}.${signature}`,
      `${token}.`,
      `.${token}`,
      `${token}.${signature}`,
      `${token}.${payload}.${signature}`,
    ]
    for (const text of texts) expect(refusal(text ?? '')).toBe('malformed')
  })

  test.each([0, 1, 2] as const)('with padding, the standard alphabet or blanks in part %i is refused', (part) => {
    const spoilt = [
      (text: string) => `${text}=`,
      (text: string) => `${text}==`,
      (text: string) => `${text.slice(0, 4)}+${text.slice(5)}`,
      (text: string) => `${text.slice(0, 4)}/${text.slice(5)}`,
      (text: string) => `${text.slice(0, 4)}%${text.slice(5)}`,
      (text: string) => ` ${text}`,
      (text: string) => `${text} `,
      (text: string) => `${text}\n`,
      (text: string) => `${text.slice(0, 4)}\r\n${text.slice(4)}`,
      (text: string) => `${text}\u0000`,
      (text: string) => `${text.slice(0, 4)}é${text.slice(5)}`,
    ]
    for (const spoil of spoilt) expect(refusal(changed(token, part, spoil))).toBe('malformed')
  })

  test('RFC 4648 §3.5: a last character with stray bits is refused', () => {
    for (const part of [0, 1, 2] as const) {
      // `eA` and `eB` decode to the same octet; so do `eHg` and `eHh`.
      for (const text of ['eB', 'eHh', 'e']) {
        expect(refusal(changed(token, part, () => text))).toBe('malformed')
      }
    }
    expect(refusal(changed(token, 2, () => 'eA'))).toBeNull()
  })
})

describe('12.2: a signature', () => {
  async function verifies(signature: Uint8Array): Promise<boolean> {
    const compact = changed(token, 2, () => base64url.encode(signature))
    return await verifyCompact(parseCompact(compact, parseJsonObject), es256.verification)
  }

  test('as it was made is believed', async () => {
    expect(await verifies(base64url.decode(token.split('.')[2] ?? ''))).toBe(true)
  })

  test('in DER form is not', async () => {
    const jose = base64url.decode(token.split('.')[2] ?? '')
    const [r, s] = [jose.subarray(0, 32), jose.subarray(32)].map((half) =>
      BigInt(`0x${[...half].map((octet) => octet.toString(16).padStart(2, '0')).join('')}`),
    )
    expect(await verifies(derSignature(r ?? 0n, s ?? 0n))).toBe(false)
  })

  test('that is all zero, or has a zero R or S, is not', async () => {
    const jose = base64url.decode(token.split('.')[2] ?? '')
    expect(await verifies(new Uint8Array(64))).toBe(false)
    expect(await verifies(jose.slice().fill(0, 0, 32))).toBe(false)
    expect(await verifies(jose.slice().fill(0, 32))).toBe(false)
  })

  test('of another length is not', async () => {
    const jose = base64url.decode(token.split('.')[2] ?? '')
    expect(await verifies(jose.subarray(0, 63))).toBe(false)
    expect(await verifies(Uint8Array.of(...jose, 0))).toBe(false)
    expect(await verifies(Uint8Array.of(0, ...jose))).toBe(false)
    expect(await verifies(Uint8Array.of(1))).toBe(false)
  })

  test('of another key is not', async () => {
    const other = await testKey('ES256')
    expect(await verifyCompact(parseCompact(token, parseJsonObject), other.verification)).toBe(false)
  })

  test('is not, once any character of the token has changed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.constantFrom(...'AQgw09-_.e'), async (at, character) => {
        const index = at % token.length
        const other = token.slice(0, index) + character + token.slice(index + 1)
        if (other === token || refusal(other) !== null) return
        expect(await verifyCompact(parseCompact(other, parseJsonObject), es256.verification)).toBe(false)
      }),
      { numRuns: 300 },
    )
  })
})

describe('RFC 8725 §3.1: a key is used with its own algorithm only', () => {
  async function verifies(alg: string, signer: Signer, key: VerificationKey): Promise<boolean> {
    const compact = await signCompact({ alg, kid: 'k' }, {}, signer)
    return await verifyCompact(parseCompact(compact, parseJsonObject), key)
  }

  test('12.2: no ES256 header over an RSA key, no RS256 over an EC key', async () => {
    expect(await verifies('ES256', rs256.signer, rs256.verification)).toBe(false)
    expect(await verifies('RS256', es256.signer, es256.verification)).toBe(false)
    // Not even where the key has been filed under the wrong algorithm.
    expect(await verifies('ES256', rs256.signer, { alg: 'ES256', key: rs256.verification.key })).toBe(false)
    expect(await verifies('RS256', es256.signer, { alg: 'RS256', key: es256.verification.key })).toBe(false)
  })

  test('12.2: no ES256 with a P-384 key', async () => {
    expect(await verifies('ES256', es384.signer, es384.verification)).toBe(false)
    expect(await verifies('ES256', es384.signer, { alg: 'ES256', key: es384.verification.key })).toBe(false)
  })

  test('no PS256 or RS512 with a key for RS256', async () => {
    for (const alg of ['PS256', 'RS512'] as const) {
      const signer = await localSigner({ ...rs256.publicJwk, alg }, rs256.privateJwk)
      const key = await verificationKey({ ...rs256.publicJwk, alg })
      expect(await verifies(alg, signer, key)).toBe(true)
      expect(await verifies(alg, signer, rs256.verification)).toBe(false)
    }
  })

  test('12.2: an HMAC with the public key for a secret is refused before any key is looked for', async () => {
    const secret = new TextEncoder().encode(JSON.stringify(rs256.publicJwk))
    const key = await crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
    const signer = {
      publicJwk: rs256.publicJwk,
      sign: async (input: Uint8Array) => new Uint8Array(await crypto.subtle.sign('HMAC', key, input)),
    }
    expect(refusal(await signCompact({ alg: 'HS256', kid: 'k' }, {}, signer))).toBe('algorithm')
  })
})

test('JS-1: what is signed is read back and believed', async () => {
  const payload = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue())
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1, unit: 'grapheme' }), payload, async (kid, claims) => {
      const compact = await signCompact({ alg: 'ES256', kid }, claims, es256.signer)
      const jws = parseCompact(compact, parseJsonObject)
      expect(jws.header).toEqual({ alg: 'ES256', kid })
      expect(JSON.stringify(jws.payload)).toBe(JSON.stringify(claims))
      expect(await verifyCompact(jws, es256.verification)).toBe(true)
    }),
  )
})

test('a signer that fails, fails the token', async () => {
  const signer: Signer = {
    publicJwk: es256.publicJwk,
    async sign() {
      throw new SigningError('throttled')
    },
  }
  await expect(signCompact({}, {}, signer)).rejects.toMatchObject({ name: 'SigningError', code: 'throttled' })
})
