/**
 * One JWT and everything that can be wrong with it, by name. What the claims mean is not known here, so the same list
 * breaks a JWT-SVID and a service account token.
 */

import { createSecretKey } from 'node:crypto'
import { base64url, type ForgeKey, forge, signAs } from './jwt_forge.ts'

/** What mutations start from. */
export interface Sample {
  readonly keys: Readonly<Record<string, ForgeKey>>
  readonly publicPem: string
  readonly claims: Readonly<Record<string, unknown>>
  /** Seconds since the epoch. */
  readonly now: number
}

export type Mutation = (sample: Sample) => string

const good = ({ keys, claims }: Sample, changes: object = {}, header: object = {}) =>
  forge(es256(keys), { alg: 'ES256', kid: 'es256', typ: 'JWT', ...header }, { ...claims, ...changes })
const es256 = (keys: Sample['keys']) => keys.es256 as ForgeKey
const without = (name: string) => (sample: Sample) => good(sample, { [name]: undefined })
const rawPayload = (edit: (json: string) => string | Uint8Array) => (sample: Sample) =>
  forge(es256(sample.keys), { alg: 'ES256', kid: 'es256' }, edit(JSON.stringify(sample.claims)))
const rawHeader = (json: string) => (sample: Sample) => forge(es256(sample.keys), json, sample.claims)
const header = (changes: object) => (sample: Sample) => good(sample, {}, changes)
const claim = (changes: object | ((sample: Sample) => object)) => (sample: Sample) =>
  good(sample, typeof changes === 'function' ? changes(sample) : changes)
const text = (edit: (token: string) => string) => (sample: Sample) => edit(good(sample))
const parts = (edit: (parts: [string, string, string]) => string) =>
  text((token) => edit(token.split('.') as [string, string, string]))
const signature = (make: (input: string, sample: Sample) => Uint8Array) => (sample: Sample) => {
  const input = good(sample).split('.').slice(0, 2).join('.')
  return `${input}.${base64url(make(input, sample))}`
}
/** Adds a member before the closing brace, as text. */
const member = (json: string) => rawPayload((payload) => payload.replace(/\}$/, `,${json}}`))

/** Sets the lowest bit of the last character of a part whose length leaves that bit unused. */
function strayBit(part: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1) ?? 'A') | 1]
}

export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  'nothing wrong': good,
  ...Object.fromEntries(
    ['es256', 'es384', 'es512', 'rs256', 'rs384', 'rs512', 'ps256', 'ps384', 'ps512'].map((kid) => [
      `signed with ${kid.toUpperCase()}`,
      ({ keys, claims }: Sample) => {
        const key = keys[kid] as ForgeKey
        return forge(key, { alg: key.alg, kid }, claims)
      },
    ]),
  ),

  'alg none, no signature': (sample) => `${base64url('{"alg":"none","kid":"es256"}')}.${good(sample).split('.')[1]}.`,
  'alg none, with a signature': header({ alg: 'none' }),
  'alg HS256 with the public key as secret': ({ claims, publicPem }) => {
    const input = `${base64url('{"alg":"HS256","kid":"rs256"}')}.${base64url(JSON.stringify(claims))}`
    return `${input}.${base64url(signAs('HS256', createSecretKey(Buffer.from(publicPem)), input))}`
  },
  'alg EdDSA': header({ alg: 'EdDSA' }),
  'alg ES256K': header({ alg: 'ES256K' }),
  'alg missing': header({ alg: undefined }),
  'alg an array': header({ alg: ['ES256'] }),
  'alg in lower case': header({ alg: 'es256' }),
  'ES256 by the kid of an RSA key': header({ kid: 'rs256' }),
  'RS256 by the kid of an EC key': ({ keys, claims }) =>
    forge(keys.rs256 as ForgeKey, { alg: 'RS256', kid: 'es256' }, claims),
  'ES256 by the kid of a P-384 key': header({ kid: 'es384' }),
  'PS256 by an RSA key for RS256': ({ keys, claims }) =>
    forge(keys.rs256 as ForgeKey, { alg: 'PS256', kid: 'rs256' }, claims, 'PS256'),
  'RS512 by an RSA key for RS256': ({ keys, claims }) =>
    forge(keys.rs256 as ForgeKey, { alg: 'RS512', kid: 'rs256' }, claims, 'RS512'),
  'kid unknown': header({ kid: 'nobody' }),
  'kid missing': header({ kid: undefined }),
  'kid empty': header({ kid: '' }),
  'kid a number': header({ kid: 1 }),
  'typ JOSE': header({ typ: 'JOSE' }),
  'typ missing': header({ typ: undefined }),
  'typ at+jwt': header({ typ: 'at+jwt' }),
  'typ wit+jwt': header({ typ: 'wit+jwt' }),
  'typ jwt': header({ typ: 'jwt' }),
  'typ empty': header({ typ: '' }),
  'typ a number': header({ typ: 1 }),
  'header crit': header({ crit: ['exp'], exp: 1 }),
  'header b64 false': header({ b64: false, crit: ['b64'] }),
  'header jku': header({ jku: 'https://evil.example/keys' }),
  'header jwk': header({ jwk: { kty: 'oct', k: 'AA' } }),
  'header x5c': header({ x5c: ['MIIB'] }),
  'header cty': header({ cty: 'JWT' }),
  'header with an unknown member': header({ foo: 'bar' }),
  'header with alg twice': rawHeader('{"alg":"none","alg":"ES256","kid":"es256"}'),
  'header an array': rawHeader('[]'),
  'header no JSON': rawHeader('{'),

  'JSON serialization': parts(([protectedHeader, payload, sig]) =>
    JSON.stringify({ protected: protectedHeader, payload, signature: sig }),
  ),
  'two parts': parts(([a, b]) => `${a}.${b}`),
  'four parts': parts(([a, b, c]) => `${a}.${b}.${c}.${c}`),
  'five parts': parts(([a, b, c]) => `${a}.${b}.${c}.${c}.${c}`),
  'an empty text': text(() => ''),
  'an empty payload': parts(([a, , c]) => `${a}..${c}`),
  'an empty signature': parts(([a, b]) => `${a}.${b}.`),
  'padded base64': parts(([a, b, c]) => `${a}.${b}.${c}==`),
  'standard base64 alphabet': signature(() => Buffer.alloc(64, 0xff)),
  'a blank before': text((token) => ` ${token}`),
  'a newline behind': text((token) => `${token}\n`),
  'a newline inside': parts(([a, b, c]) => `${a}.${b.slice(0, 8)}\n${b.slice(8)}.${c}`),
  'a stray bit behind the signature': parts(([a, b, c]) => `${a}.${b}.${strayBit(c)}`),

  'signature of another key': signature((input, { keys }) =>
    signAs('ES384', (keys.es384 as ForgeKey).privateKey, input),
  ),
  'signature in DER': signature((input, { keys }) => signAs('ES256', es256(keys).privateKey, input, { der: true })),
  'signature all zero': signature(() => new Uint8Array(64)),
  'signature with r zero': signature((input, { keys }) =>
    signAs('ES256', es256(keys).privateKey, input).fill(0, 0, 32),
  ),
  'signature with s zero': signature((input, { keys }) => signAs('ES256', es256(keys).privateKey, input).fill(0, 32)),
  'signature too short': signature((input, { keys }) => signAs('ES256', es256(keys).privateKey, input).subarray(0, 63)),
  'signature too long': signature((input, { keys }) =>
    Buffer.concat([signAs('ES256', es256(keys).privateKey, input), Buffer.of(0)]),
  ),
  'payload changed': parts(
    ([a, b, c]) => `${a}.${base64url(Buffer.from(b, 'base64url').toString().replace('"exp":1', '"exp":2'))}.${c}`,
  ),

  'payload an array': rawPayload((json) => `[${json}]`),
  'payload a string': rawPayload(() => '"x"'),
  'payload null': rawPayload(() => 'null'),
  'payload no JSON': rawPayload((json) => json.slice(0, -1)),
  'payload with something behind': rawPayload((json) => `${json}x`),
  'payload with blanks around': rawPayload((json) => ` ${json}\n`),
  'payload with a byte order mark': rawPayload((json) => `\ufeff${json}`),
  'payload not UTF-8': rawPayload((json) =>
    Buffer.concat([Buffer.from(json.replace(/\}$/, ',"x":"')), Buffer.from([0xff]), Buffer.from('"}')]),
  ),
  'payload oversized': claim({ padding: 'x'.repeat(20_000) }),

  'sub missing': without('sub'),
  'sub empty': claim({ sub: '' }),
  'sub an array': claim(({ claims }) => ({ sub: [claims.sub] })),
  'sub a number': claim({ sub: 1 }),
  'sub twice': member('"sub":"spiffe://example.org/other"'),
  'sub twice, the second escaped': member('"\\u0073ub":"spiffe://example.org/other"'),
  'SUB beside sub': member('"SUB":"spiffe://example.org/other"'),
  'long-s sub beside sub': member('"\u017fub":"spiffe://example.org/other"'),

  'iss missing': without('iss'),
  'iss of another': claim({ iss: 'https://other.example' }),
  'iss with a slash behind': claim(({ claims }) => ({ iss: `${claims.iss}/` })),
  'iss in upper case': claim(({ claims }) => ({ iss: String(claims.iss).toUpperCase() })),
  'iss an array': claim(({ claims }) => ({ iss: [claims.iss] })),
  'iss twice': member('"iss":"https://other.example"'),

  'aud a string': claim(({ claims }) => ({ aud: [claims.aud].flat()[0] })),
  'aud a list of one': claim(({ claims }) => ({ aud: [claims.aud].flat() })),
  'aud a list with another': claim(({ claims }) => ({ aud: [...[claims.aud].flat(), 'another'] })),
  'aud missing': without('aud'),
  'aud an empty list': claim({ aud: [] }),
  'aud an empty string': claim({ aud: '' }),
  'aud of another': claim({ aud: 'another' }),
  'aud in upper case': claim(({ claims }) => ({ aud: String([claims.aud].flat()[0]).toUpperCase() })),
  'aud with a slash behind': claim(({ claims }) => ({ aud: `${[claims.aud].flat()[0]}/` })),
  'aud with a number in it': claim(({ claims }) => ({ aud: [...[claims.aud].flat(), 1] })),
  'aud an object': claim({ aud: { a: 'k8s' } }),
  'aud twice': member('"aud":"another"'),

  'exp missing': without('exp'),
  'exp a day ago': claim(({ now }) => ({ exp: now - 86_400 })),
  'exp five seconds ago': claim(({ now }) => ({ exp: now - 5 })),
  'exp a string': claim(({ now }) => ({ exp: String(now + 300) })),
  'exp null': claim({ exp: null }),
  'exp zero': claim({ exp: 0 }),
  'exp negative': claim({ exp: -1 }),
  'exp a fraction': claim(({ now }) => ({ exp: now + 300.5 })),
  'exp beyond a double': rawPayload((json) => json.replace(/"exp":\d+/, '"exp":1e400')),
  'exp twice': member('"exp":9999999999'),
  'nbf missing': without('nbf'),
  'nbf an hour ahead': claim(({ now }) => ({ nbf: now + 3600 })),
  'nbf two minutes ahead': claim(({ now }) => ({ nbf: now + 120 })),
  'nbf ten seconds ahead': claim(({ now }) => ({ nbf: now + 10 })),
  'nbf a string': claim({ nbf: 'now' }),
  'iat missing': without('iat'),
  'iat an hour ahead': claim(({ now }) => ({ iat: now + 3600 })),
  'iat a string': claim({ iat: 'now' }),
}
