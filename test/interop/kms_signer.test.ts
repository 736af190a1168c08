/**
 * `keys/kms.ts` against moto, over real connections. What AWS answers and moto does not is in `test/keys/kms.test.ts`.
 *
 * In Node, where only the `fetch` underneath is another one than in workerd.
 */

import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { announceKmsKey, type KmsAccess, kmsSigner } from '../../keys/kms.ts'
import type { Signer } from '../../keys/signer.ts'
import { type KmsEmulator, startKmsEmulator } from '../support/kms_emulator.ts'
import { type KmsProxy, type KmsProxyMode, startKmsProxy } from '../support/kms_proxy.ts'
import { createCa } from '../support/pki.ts'
import { signerContract } from '../support/signer_contract.ts'

const INPUT = new TextEncoder().encode('header.payload')

let kms: KmsEmulator
let proxy: KmsProxy
let direct: KmsAccess
let proxied: KmsAccess

beforeAll(async () => {
  kms = await startKmsEmulator()
  const ca = await createCa()
  proxy = await startKmsProxy(kms.endpoint, await ca.issue('127.0.0.1'))
  setDefaultCACertificates([...getCACertificates(), ca.certificate])
  const { region, credentials } = kms
  direct = { region, credentials, endpoint: kms.endpoint }
  proxied = { region, credentials, endpoint: proxy.endpoint }
})

afterEach(() => {
  proxy.mode = 'pass'
  proxy.operations.length = 0
})

afterAll(async () => {
  await proxy?.stop()
  await kms?.stop()
})

async function signerFor(access: KmsAccess, key: string, alg: AlgorithmName | null = null): Promise<Signer> {
  const { arn, publicJwk } = await announceKmsKey(access, key, alg)
  return await kmsSigner(access, arn, publicJwk)
}

signerContract('the KMS emulator', async (alg) => {
  const [spec = ''] = ALGORITHMS[alg].kmsKeySpecs
  return await signerFor(direct, await kms.createKey(spec), alg)
})

test.each([
  ['RSA_3072', 384],
  ['RSA_4096', 512],
])('KM-3: a key of %s signs', async (spec, length) => {
  const signer = await signerFor(direct, await kms.createKey(spec))
  expect(signer.publicJwk.alg).toBe('RS256')
  expect((await signer.sign(INPUT)).length).toBe(length)
})

test('KM-4: three hundred signatures, with all lengths of DER among them, verify', async () => {
  const signer = await signerFor(direct, await kms.createKey('ECC_NIST_P256'))
  for (let round = 0; round < 15; round++) {
    const signatures = Array.from({ length: 20 }, (_, i) => signer.sign(Uint8Array.of(round, i)))
    for (const signature of await Promise.all(signatures)) expect(signature.length).toBe(64)
  }
})

test('T-15: an alias that has moved on does not move the signer', async () => {
  const [old, other] = [await kms.createKey('ECC_NIST_P256'), await kms.createKey('ECC_NIST_P256')]
  await kms.setAlias('alias/issuer', old)
  const { arn, publicJwk } = await announceKmsKey(direct, 'alias/issuer', null)
  expect(arn).toBe(old)
  await kms.setAlias('alias/issuer', other)
  const signer = await kmsSigner(direct, arn, publicJwk)
  expect((await signer.sign(INPUT)).length).toBe(64)
  const again = await announceKmsKey(direct, 'alias/issuer', null)
  expect(again.arn).toBe(other)
  expect(again.publicJwk.kid).not.toBe(publicJwk.kid)
  // The new key's ARN under the old public half is what following the alias would come to.
  const mixed = await kmsSigner(direct, other, publicJwk)
  await expect(mixed.sign(INPUT)).rejects.toMatchObject({ code: 'wrong_signature' })
})

describe('12.11: a key', () => {
  test('KM-7: that is disabled signs nothing until it is enabled', async () => {
    const arn = await kms.createKey('ECC_NIST_P384')
    const signer = await signerFor(direct, arn)
    await kms.disableKey(arn)
    await expect(signer.sign(INPUT)).rejects.toMatchObject({ code: 'key_unusable' })
    await expect(announceKmsKey(direct, arn, null)).rejects.toMatchObject({ code: 'key_unusable' })
    await kms.enableKey(arn)
    expect((await signer.sign(INPUT)).length).toBe(96)
  })

  test('KM-7: that is to be deleted signs nothing', async () => {
    const arn = await kms.createKey('RSA_2048')
    const signer = await signerFor(direct, arn)
    await kms.scheduleDeletion(arn)
    await expect(signer.sign(INPUT)).rejects.toMatchObject({ code: 'key_unusable' })
    await expect(announceKmsKey(direct, arn, null)).rejects.toMatchObject({ code: 'key_unusable' })
  })

  test('that does not exist is not announced', async () => {
    for (const key of ['alias/nobody', '01234567-89ab-cdef-0123-456789abcdef', 'nonsense']) {
      await expect(announceKmsKey(direct, key, null)).rejects.toMatchObject({ code: 'key_unusable' })
    }
  })

  test.each([
    ['RSA_2048', 'ENCRYPT_DECRYPT', null],
    ['SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT', null],
    ['ECC_SECG_P256K1', 'SIGN_VERIFY', null],
    ['ECC_SECG_P256K1', 'SIGN_VERIFY', 'ES256'],
    ['ECC_NIST_P384', 'SIGN_VERIFY', 'ES256'],
    ['ECC_NIST_P256', 'SIGN_VERIFY', 'RS256'],
    ['RSA_2048', 'SIGN_VERIFY', 'ES256'],
  ] as const)('of %s for %s is refused for %s', async (spec, usage, alg) => {
    const arn = await kms.createKey(spec, usage)
    await expect(announceKmsKey(direct, arn, alg)).rejects.toMatchObject({ code: 'key_mismatch' })
  })
})

describe('KM-8: between us and KMS', () => {
  test('TLS of a trusted authority is spoken', async () => {
    const signer = await signerFor(proxied, await kms.createKey('ECC_NIST_P256'))
    expect((await signer.sign(INPUT)).length).toBe(64)
    expect(proxy.operations).toEqual(['GetPublicKey', 'Sign'])
  })

  test('TLS of any other authority is not', async () => {
    const stranger = await startKmsProxy(kms.endpoint, await (await createCa('stranger')).issue('127.0.0.1'))
    const access = { ...proxied, endpoint: stranger.endpoint }
    try {
      await expect(announceKmsKey(access, 'alias/issuer', null)).rejects.toMatchObject({ code: 'unavailable' })
      expect(stranger.operations).toEqual([])
    } finally {
      await stranger.stop()
    }
  })

  test.each<[KmsProxyMode, string, number]>([
    ['throttle', 'throttled', 2],
    ['fail', 'unavailable', 2],
    ['hang', 'unavailable', 2],
    ['hang_body', 'unavailable', 2],
    ['close', 'unavailable', 2],
    ['lie_about_key', 'wrong_signature', 1],
  ])('%s is %s after %i requests', async (mode, code, requests) => {
    const signer = await signerFor(proxied, await kms.createKey('ECC_NIST_P256'))
    const before = proxy.abandoned
    proxy.operations.length = 0
    proxy.mode = mode
    await expect(signer.sign(INPUT)).rejects.toMatchObject({ code })
    expect(proxy.operations).toEqual(Array(requests).fill('Sign'))
    // What hangs is not left hanging.
    if (mode === 'hang' || mode === 'hang_body') {
      await vi.waitFor(() => expect(proxy.abandoned - before).toBe(requests), { timeout: 30_000 })
    }
    proxy.mode = 'pass'
    expect((await signer.sign(INPUT)).length).toBe(64)
  })

  test.each(['ECC_NIST_P256', 'RSA_2048'])(
    'T-15: another key of %s in the place of ours is found out',
    async (spec) => {
      const signer = await signerFor(proxied, await kms.createKey(spec))
      proxy.mode = { signWith: await kms.createKey(spec) }
      await expect(signer.sign(INPUT)).rejects.toMatchObject({ code: 'wrong_signature' })
    },
  )

  test('a KMS that is not there is unavailable', async () => {
    const access = { ...direct, endpoint: 'http://127.0.0.1:1' }
    await expect(announceKmsKey(access, 'alias/issuer', null)).rejects.toMatchObject({ code: 'unavailable' })
  })
})
