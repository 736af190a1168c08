import { beforeAll, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import type { PublicJwk } from '../../keys/signer.ts'
import { signerContract } from '../support/signer_contract.ts'

type LocalKey = Awaited<ReturnType<typeof generateLocalKey>>

/** Made once: an RSA key takes long, and serves all six algorithms. */
const made = new Map<string, Promise<LocalKey>>()

async function keyFor(alg: AlgorithmName): Promise<LocalKey> {
  const algorithm = ALGORITHMS[alg]
  const kind = algorithm.kty === 'EC' ? algorithm.crv : 'RSA'
  const key = made.get(kind) ?? generateLocalKey(alg)
  made.set(kind, key)
  const { publicJwk, privateJwk } = await key
  return { publicJwk: { ...publicJwk, alg }, privateJwk }
}

signerContract('the local keeper', async (alg) => {
  const { publicJwk, privateJwk } = await keyFor(alg)
  return await localSigner(publicJwk, privateJwk)
})

let es256: LocalKey
let es384: LocalKey
let rs256: LocalKey

beforeAll(async () => {
  es256 = await keyFor('ES256')
  es384 = await keyFor('ES384')
  rs256 = await keyFor('RS256')
})

test('a new key is another one each time', async () => {
  const [a, b] = [await generateLocalKey('ES256'), await generateLocalKey('ES256')]
  expect(a.publicJwk.kid).not.toBe(b.publicJwk.kid)
})

test('the private half survives being stored as JSON', async () => {
  const { publicJwk, privateJwk } = JSON.parse(JSON.stringify(es256)) as LocalKey
  expect((await (await localSigner(publicJwk, privateJwk)).sign(new Uint8Array())).length).toBe(64)
})

test('RFC 7518 §3.4: signatures of numbers with zeros in front keep their length', async () => {
  const { sign } = await localSigner(es256.publicJwk, es256.privateJwk)
  // About four of 512 have a zero in front of R, and as many in front of S.
  const signatures = await Promise.all(Array.from({ length: 512 }, (_, i) => sign(Uint8Array.of(i >> 8, i))))
  expect(new Set(signatures.map(({ length }) => length))).toEqual(new Set([64]))
})

test('a signer shows the public half only', async () => {
  const signer = await localSigner(es256.publicJwk, es256.privateJwk)
  expect(JSON.stringify(signer)).toBe(JSON.stringify({ publicJwk: es256.publicJwk }))
})

test('12.2: two halves that do not belong together are refused', async () => {
  const other = await generateLocalKey('ES256')
  const refused: [PublicJwk, JsonWebKey][] = [
    [es256.publicJwk, other.privateJwk],
    [other.publicJwk, es256.privateJwk],
    [es256.publicJwk, es384.privateJwk],
    [es256.publicJwk, rs256.privateJwk],
    [rs256.publicJwk, es256.privateJwk],
    [{ ...es256.publicJwk, alg: 'ES384' }, es256.privateJwk],
    [{ ...es256.publicJwk, alg: 'RS256' }, es256.privateJwk],
    [{ ...rs256.publicJwk, alg: 'ES256' }, rs256.privateJwk],
    [es256.publicJwk, es256.publicJwk as JsonWebKey],
    [es256.publicJwk, {} as JsonWebKey],
    [es256.publicJwk, { ...es256.privateJwk, d: 'AAAA' }],
    // The private scalar of another key under this key's public point.
    [es256.publicJwk, { ...es256.privateJwk, d: other.privateJwk.d ?? '' }],
  ]
  for (const [publicJwk, privateJwk] of refused) {
    const error = await localSigner(publicJwk, privateJwk).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ name: 'SigningError', code: 'key_mismatch' })
    expect(error).not.toHaveProperty('cause')
  }
})
