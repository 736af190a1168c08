import { createLocalJWKSet, jwtVerify, SignJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { importSpki, publicJwk, renderJwks } from '../../keys/jwks.ts'

const NAMES = Object.keys(ALGORITHMS) as AlgorithmName[]

const pairs = {} as Record<'P-256' | 'P-384' | 'P-521' | 'RSA', CryptoKeyPair>

async function generate(alg: AlgorithmName, modulusLength = 2048): Promise<CryptoKeyPair> {
  const { key, kty } = ALGORITHMS[alg]
  const parameters = kty === 'RSA' ? { ...key, modulusLength } : key
  return (await crypto.subtle.generateKey(parameters, true, ['sign', 'verify'])) as CryptoKeyPair
}

async function spkiOf({ publicKey }: CryptoKeyPair): Promise<Uint8Array> {
  return new Uint8Array((await crypto.subtle.exportKey('spki', publicKey)) as ArrayBuffer)
}

function pairFor(alg: AlgorithmName): CryptoKeyPair {
  const algorithm = ALGORITHMS[alg]
  return pairs[algorithm.kty === 'EC' ? algorithm.crv : 'RSA']
}

beforeAll(async () => {
  pairs['P-256'] = await generate('ES256')
  pairs['P-384'] = await generate('ES384')
  pairs['P-521'] = await generate('ES512')
  pairs.RSA = await generate('RS256')
})

test('RFC 7638 §3.1 vector: the kid is the thumbprint', async () => {
  const jwk = {
    kty: 'RSA',
    n: '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw',
    e: 'AQAB',
  }
  const key = await crypto.subtle.importKey('jwk', jwk, ALGORITHMS.RS256.key, true, ['verify'])
  const { kid, ...published } = await publicJwk(key, 'RS256')
  expect(kid).toBe('NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs')
  expect(published).toEqual({ ...jwk, use: 'sig', alg: 'RS256' })
})

test.each(NAMES)('KM-5: an SPKI becomes the JWK of the same key, for %s', async (alg) => {
  const pair = pairFor(alg)
  const jwk = await publicJwk(await importSpki(await spkiOf(pair), alg), alg)
  const exported = (await crypto.subtle.exportKey('jwk', pair.publicKey)) as JsonWebKey
  const { kty, n, e, crv, x, y } = exported
  expect(jwk).toEqual({ use: 'sig', alg, kid: jwk.kid, ...(kty === 'EC' ? { kty, crv, x, y } : { kty, n, e }) })
})

/** Points with a zero in front of X or of Y, found by trying. */
const SHORT_POINTS: [AlgorithmName, string, string][] = [
  ['ES256', 'AEeQ3GIRjQWMgQTk-EUPcaoLuFUK_upYA3Hn0tG4jRw', 'YqoyIKphber1Tr4Z8YSB9fCr9xGFuG41T1TFNKe45gQ'],
  ['ES256', 'GgKfDH6tKw3cREOXmo5c2PGbkDYootQeMTSZOI3Pp0A', 'AM-nvHxpsM_uS08JIzwkRs52xkngxYF43iFie5alcZQ'],
  [
    'ES384',
    'AIW9jA39RkbDb70qxDuEJKf4_mvovbUrOMojgd_nKwe2ZkC6UOFRsmK_7cZNO9xD',
    'WGrIwT_XrIFa1on90RzGubKmSlfjqG4WK0LiRO5lMmdbY7RMzA-jWh3SftUBphN4',
  ],
  [
    'ES384',
    'hh8vUgaHIAecJl_owAhJ1RtaaYEaww86ZOJKoe0xNJ6vXXF9lzrAW0VL5LzLxBXa',
    'AOnvJVAxnOyD2tDJ0PtAS9ACtyaL-C-IHP8jNNojom7yHZVHQAD0JYFA036gwMt9',
  ],
  [
    'ES512',
    'AABU3JVpbTKQ2e8czahKqK8OBa2IGgerCAI6W7o45_IZqWMbLawzBlAqPlKiZWOMGMVp_NKaGm3ESYdNYUEbs_dV',
    'ASQ_c0qXnHAjM8hsgmXV731Yjbb8RC6HYtZnMcHpMAEp5HYh6ed989A_orsTnqLcilvHTZhXVsFh7KRF-dE7Lq7e',
  ],
  [
    'ES512',
    'APogE36cIjfyVXM6mShJyeUq9FoBpslD3U3So0zjNbvQ3aGl5D9eA_uUCcbZ7ypF3OeiIqY7UJt5gjgbL1Yc8dq_',
    'AADL-3_Vnx9uMHAUJXVl1bJmVMGb1jFD1UVGIj4W9RimaJht-qNPjG2xO_9_5bxSDmORpnRKzQ3HRhGoxoQN6AW0',
  ],
]

test.each(SHORT_POINTS)('KM-6: coordinates keep a zero in front, for %s with %s', async (alg, x, y) => {
  const { key, kty, ...rest } = ALGORITHMS[alg]
  const crv = 'crv' in rest ? rest.crv : ''
  const imported = await crypto.subtle.importKey('jwk', { kty, crv, x, y }, key, true, ['verify'])
  const spki = new Uint8Array((await crypto.subtle.exportKey('spki', imported)) as ArrayBuffer)
  expect(await publicJwk(await importSpki(spki, alg), alg)).toMatchObject({ x, y })
})

test('KM-6: the modulus has no zero in front', async () => {
  const { n } = (await publicJwk(pairs.RSA.publicKey, 'RS256')) as { n: string }
  expect(n.length).toBe(Math.ceil((256 * 4) / 3))
})

const MISMATCHES: [AlgorithmName, AlgorithmName][] = NAMES.flatMap((alg) =>
  NAMES.filter((other) => {
    const [a, b] = [ALGORITHMS[alg], ALGORITHMS[other]]
    return a.kty !== b.kty || (a.kty === 'EC' && b.kty === 'EC' && a.crv !== b.crv)
  }).map((other): [AlgorithmName, AlgorithmName] => [alg, other]),
)

test.each(MISMATCHES)('12.11: no %s from a key for %s', async (alg, other) => {
  const pair = pairFor(other)
  await expect(publicJwk(pair.publicKey, alg)).rejects.toMatchObject({ code: 'key_mismatch' })
  await expect(importSpki(await spkiOf(pair), alg)).rejects.toMatchObject({ code: 'key_mismatch' })
})

test('RFC 7518 §3.3: an RSA key below 2048 bits is refused', async () => {
  const { publicKey } = await generate('RS256', 1024)
  await expect(publicJwk(publicKey, 'RS256')).rejects.toMatchObject({ code: 'key_mismatch' })
})

test('KM-5: what is not an SPKI is refused', async () => {
  const spki = await spkiOf(pairs['P-256'])
  const damaged = spki.slice()
  damaged[damaged.length - 1] = (damaged.at(-1) ?? 0) ^ 1
  for (const bad of [new Uint8Array(), spki.subarray(1), spki.subarray(0, -1), Uint8Array.of(...spki, 0), damaged]) {
    await expect(importSpki(bad, 'ES256')).rejects.toMatchObject({ code: 'key_mismatch' })
  }
})

describe('RFC 7517 §5: the JWK Set', () => {
  test('depends on the keys and their order, and on nothing else', async () => {
    const a = await publicJwk(pairs['P-256'].publicKey, 'ES256')
    const b = await publicJwk(pairs.RSA.publicKey, 'PS256')
    expect(renderJwks([a, b])).toBe(renderJwks([{ ...a }, structuredClone(b)]))
    expect(renderJwks([a, b])).not.toBe(renderJwks([b, a]))
    expect(JSON.parse(renderJwks([b, a]))).toEqual({ keys: [b, a] })
    expect(renderJwks([])).toBe('{"keys":[]}')
  })

  test.each(NAMES)('is one that jose verifies a %s token with', async (alg) => {
    const algorithm = ALGORITHMS[alg]
    const jwk = await publicJwk(pairFor(alg).publicKey, alg)
    const decoy = await publicJwk((await generate('ES256')).publicKey, 'ES256')
    const exported = (await crypto.subtle.exportKey('jwk', pairFor(alg).privateKey)) as JsonWebKey
    const { alg: _, ...members } = exported
    const key = await crypto.subtle.importKey('jwk', members, algorithm.key, false, ['sign'])
    const token = await new SignJWT({}).setProtectedHeader({ alg, kid: jwk.kid }).sign(key)
    const set = createLocalJWKSet(JSON.parse(renderJwks([decoy, jwk])))
    expect((await jwtVerify(token, set)).protectedHeader.kid).toBe(jwk.kid)
  })
})
