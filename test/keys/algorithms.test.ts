import { expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName, isAlgorithmName } from '../../keys/algorithms.ts'

const RSA_KEY_SPECS = ['RSA_2048', 'RSA_3072', 'RSA_4096']

/** KM-3, with the length of a hash of RFC 7518 §3.1 and the length of R and S of §3.4. */
const TABLE: [AlgorithmName, string, string[], number, number?][] = [
  ['RS256', 'RSASSA_PKCS1_V1_5_SHA_256', RSA_KEY_SPECS, 32],
  ['RS384', 'RSASSA_PKCS1_V1_5_SHA_384', RSA_KEY_SPECS, 48],
  ['RS512', 'RSASSA_PKCS1_V1_5_SHA_512', RSA_KEY_SPECS, 64],
  ['PS256', 'RSASSA_PSS_SHA_256', RSA_KEY_SPECS, 32],
  ['PS384', 'RSASSA_PSS_SHA_384', RSA_KEY_SPECS, 48],
  ['PS512', 'RSASSA_PSS_SHA_512', RSA_KEY_SPECS, 64],
  ['ES256', 'ECDSA_SHA_256', ['ECC_NIST_P256'], 32, 32],
  ['ES384', 'ECDSA_SHA_384', ['ECC_NIST_P384'], 48, 48],
  ['ES512', 'ECDSA_SHA_512', ['ECC_NIST_P521'], 64, 66],
]

test('JS-2: there are nine algorithms', () => {
  expect(Object.keys(ALGORITHMS).sort()).toEqual(TABLE.map(([name]) => name).sort())
  expect(TABLE.every(([name]) => isAlgorithmName(name))).toBe(true)
})

test.each(TABLE)('KM-3: %s is %s of KMS', async (name, kms, kmsKeySpecs, hashBytes, scalarBytes) => {
  const algorithm = ALGORITHMS[name]
  expect(algorithm).toMatchObject({ kms, kmsKeySpecs })
  expect((await crypto.subtle.digest(algorithm.hash, new Uint8Array())).byteLength).toBe(hashBytes)
  expect('scalarBytes' in algorithm ? algorithm.scalarBytes : undefined).toBe(scalarBytes)
})

test.each(['PS256', 'PS384', 'PS512'] as const)('RFC 7518 §3.5: the salt of %s is as long as its hash', (name) => {
  const { signature, hash } = ALGORITHMS[name]
  expect(signature).toEqual({ name: 'RSA-PSS', saltLength: Number(hash.slice('SHA-'.length)) / 8 })
})

test.each([
  'none',
  'None',
  'HS256',
  'EdDSA',
  'ES256K',
  'ML-DSA-44',
  'es256',
  'ES256 ',
  '',
  'constructor',
  '__proto__',
  'toString',
  ['ES256'],
  { alg: 'ES256' },
  256,
  true,
  null,
  undefined,
])('JS-2: %j is none of them', (name) => {
  expect(isAlgorithmName(name)).toBe(false)
})
