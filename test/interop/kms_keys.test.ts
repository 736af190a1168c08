/**
 * `keys/kms_keys.ts` and `keys/wrapped.ts` against moto, over real connections: keys that the worker makes, and keys that
 * it wraps. What AWS answers and moto does not is in `test/keys/kms_keys.test.ts` and `test/keys/wrapped.test.ts`.
 */

import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { importSpki, publicJwk as toPublicJwk } from '../../keys/jwks.ts'
import { announceKmsKey, kmsSigner } from '../../keys/kms.ts'
import { type KmsAccess, takeKmsUsage } from '../../keys/kms_client.ts'
import { createKmsKey, findCreatedKmsKeys, scheduleKmsKeyDeletion } from '../../keys/kms_keys.ts'
import { generateLocalKey } from '../../keys/local.ts'
import type { PublicJwk } from '../../keys/signer.ts'
import {
  importWrappingSecret,
  type WrapContext,
  type WrappingKey,
  wrapPrivateKey,
  wrappedSigner,
} from '../../keys/wrapped.ts'
import { type KmsEmulator, startKmsEmulator } from '../support/kms_emulator.ts'
import { type KmsProxy, startKmsProxy } from '../support/kms_proxy.ts'
import { missing } from '../support/tools.ts'

const INPUT = new TextEncoder().encode('header.payload')

describe.skipIf(missing('python'))('keys in the KMS emulator', () => {
  let kms: KmsEmulator
  let proxy: KmsProxy
  let direct: KmsAccess
  let proxied: KmsAccess

  beforeAll(async () => {
    kms = await startKmsEmulator()
    proxy = await startKmsProxy(kms.endpoint, null)
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

  function newTags() {
    return { 'spiffe-edge:trust-domain': 'example.org', 'spiffe-edge:creation': crypto.randomUUID() }
  }

  function byCreation(tags: ReturnType<typeof newTags>) {
    return { key: 'spiffe-edge:creation', value: tags['spiffe-edge:creation'] }
  }

  async function stateOf(arn: string): Promise<unknown> {
    const { KeyMetadata } = await kms.call('DescribeKey', { KeyId: arn })
    return (KeyMetadata as { KeyState: string }).KeyState
  }

  test.each(Object.keys(ALGORITHMS) as AlgorithmName[])(
    'T-15, KM-3: a key for %s is made, tagged, found, signs, and is given back',
    async (alg) => {
      const tags = newTags()
      const arn = await createKmsKey(direct, alg, tags)
      const stored = await kms.call('ListResourceTags', { KeyId: arn })
      expect(stored.Tags).toEqual(Object.entries(tags).map(([TagKey, TagValue]) => ({ TagKey, TagValue })))
      expect(await findCreatedKmsKeys(direct, byCreation(tags))).toEqual([arn])
      const signer = await kmsSigner(direct, arn, (await announceKmsKey(direct, arn, alg)).publicJwk)
      expect((await signer.sign(INPUT)).length).toBeGreaterThan(0)
      await scheduleKmsKeyDeletion(direct, arn)
      expect(await stateOf(arn)).toBe('PendingDeletion')
      await expect(signer.sign(INPUT)).rejects.toMatchObject({ code: 'key_unusable' })
      await scheduleKmsKeyDeletion(direct, arn)
    },
  )

  test('T-15: a creation that has not happened has no key, among many that have', async () => {
    await Promise.all(Array.from({ length: 60 }, () => createKmsKey(direct, 'ES256', newTags())))
    expect(await findCreatedKmsKeys(direct, byCreation(newTags()))).toEqual([])
  })

  test('T-15: where there are more keys than a page has room for, all are found', async () => {
    const tags = newTags()
    const made = await Promise.all(Array.from({ length: 60 }, () => createKmsKey(direct, 'ES256', tags)))
    proxy.operations.length = 0
    const found = await findCreatedKmsKeys(proxied, byCreation(tags))
    expect([...found].sort()).toEqual(made.sort())
    expect(proxy.operations.length).toBeGreaterThan(1)
    expect(proxy.operations.every((operation) => operation.endsWith('.GetResources'))).toBe(true)
  })

  test('T-15: KMS fails while a key is made: it is asked once', async () => {
    takeKmsUsage(proxied)
    for (const mode of ['throttle', 'fail', 'close', 'hang'] as const) {
      proxy.mode = mode
      const code = mode === 'throttle' ? 'throttled' : 'unavailable'
      await expect(createKmsKey(proxied, 'ES256', newTags())).rejects.toMatchObject({ code })
      await expect(findCreatedKmsKeys(proxied, byCreation(newTags()))).rejects.toMatchObject({ code })
    }
    const question = 'ResourceGroupsTaggingAPI_20170126.GetResources'
    expect(proxy.operations).toEqual(Array(4).fill(['CreateKey', question]).flat())
    expect(takeKmsUsage(proxied)).toMatchObject({ calls: 8, throttled: 2, failed: 8 })
  })

  test('KM-11: the deletion of a key that there is not is done, and that of an alias is not', async () => {
    const arn = await createKmsKey(direct, 'ES256', newTags())
    await scheduleKmsKeyDeletion(direct, arn.replace(/.{12}$/, '000000000000'))
    await kms.setAlias('alias/not-a-key', arn)
    await expect(scheduleKmsKeyDeletion(direct, 'alias/not-a-key')).rejects.toMatchObject({ code: 'key_mismatch' })
    expect(await stateOf(arn)).toBe('Enabled')
  })

  describe('T-16: wrapping', () => {
    let wrapping: WrappingKey & { keeper: 'awskms' }

    beforeAll(async () => {
      wrapping = { keeper: 'awskms', access: direct, key: await kms.createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT') }
    })

    function contextOf({ kid }: PublicJwk): WrapContext {
      return { trustDomain: 'example.org', kid, use: 'jwt-svid' }
    }

    test.each(Object.keys(ALGORITHMS) as AlgorithmName[])('a key for %s opens and signs', async (alg) => {
      const { publicJwk, privateJwk } = await generateLocalKey(alg)
      const context = contextOf(publicJwk)
      const wrapped = await wrapPrivateKey(privateJwk, context, wrapping)
      const { sign } = await wrappedSigner(publicJwk, wrapped, context, [wrapping])
      const { key, signature } = ALGORITHMS[alg]
      const publicKey = await crypto.subtle.importKey('jwk', publicJwk, key, false, ['verify'])
      const made = (await sign(INPUT)) as Uint8Array<ArrayBuffer>
      expect(await crypto.subtle.verify(signature, publicKey, made, INPUT)).toBe(true)
    })

    test('KM-1: a key of RSA_4096 fits, by KMS and by a secret', async () => {
      const pair = generateKeyPairSync('rsa', { modulusLength: 4096 })
      const privateJwk = pair.privateKey.export({ format: 'jwk' }) as JsonWebKey
      const spki = pair.publicKey.export({ format: 'der', type: 'spki' })
      const publicJwk = await toPublicJwk(await importSpki(spki, 'PS512'), 'PS512')
      const secret: WrappingKey = {
        keeper: 'secret',
        key: await importWrappingSecret(randomBytes(32).toString('base64url')),
      }
      for (const by of [wrapping, secret]) {
        const wrapped = await wrapPrivateKey(privateJwk, contextOf(publicJwk), by)
        const signer = await wrappedSigner(publicJwk, wrapped, contextOf(publicJwk), [secret, wrapping])
        expect((await signer.sign(INPUT)).length).toBe(512)
      }
    })

    test('a key does not open for another trust domain, kid or use, nor with another key of KMS', async () => {
      const { publicJwk, privateJwk } = await generateLocalKey('ES256')
      const other = await generateLocalKey('ES256')
      const context = contextOf(publicJwk)
      const wrapped = await wrapPrivateKey(privateJwk, context, wrapping)
      const refused: [PublicJwk, WrapContext, WrappingKey][] = [
        [publicJwk, { ...context, trustDomain: 'example.net' }, wrapping],
        [publicJwk, { ...context, use: 'x509-svid' }, wrapping],
        [other.publicJwk, contextOf(other.publicJwk), wrapping],
        [{ ...publicJwk, kid: other.publicJwk.kid }, contextOf(other.publicJwk), wrapping],
        [publicJwk, context, { ...wrapping, key: await kms.createKey('SYMMETRIC_DEFAULT', 'ENCRYPT_DECRYPT') }],
      ]
      for (const [published, other, by] of refused) {
        const opening = wrappedSigner(published, wrapped, other, [by])
        await expect(opening).rejects.toMatchObject({ name: 'SigningError', code: 'key_mismatch' })
      }
      // One octet of the ciphertext, wherever it is.
      for (const at of [12, 60, 90, 120, wrapped.length - 8]) {
        const changed = wrapped.slice(0, at) + (wrapped[at] === 'A' ? 'B' : 'A') + wrapped.slice(at + 1)
        const opening = wrappedSigner(publicJwk, changed, context, [wrapping])
        await expect(opening).rejects.toMatchObject({ code: 'key_mismatch' })
      }
      await wrappedSigner(publicJwk, wrapped, context, [wrapping])
    })

    test.each(['ECC_NIST_P256', 'RSA_2048'])('a key of %s wraps nothing', async (spec) => {
      const { publicJwk, privateJwk } = await generateLocalKey('ES256')
      for (const usage of spec === 'RSA_2048' ? ['SIGN_VERIFY', 'ENCRYPT_DECRYPT'] : ['SIGN_VERIFY']) {
        const key = await kms.createKey(spec, usage)
        const wrapped = wrapPrivateKey(privateJwk, contextOf(publicJwk), { ...wrapping, key })
        await expect(wrapped).rejects.toMatchObject({ code: 'key_mismatch' })
      }
    })

    test('a wrapping key that is disabled opens nothing until it is enabled', async () => {
      const { publicJwk, privateJwk } = await generateLocalKey('ES256')
      const context = contextOf(publicJwk)
      const wrapped = await wrapPrivateKey(privateJwk, context, wrapping)
      await kms.disableKey(wrapping.key)
      const opening = wrappedSigner(publicJwk, wrapped, context, [wrapping])
      await expect(opening).rejects.toMatchObject({ code: 'key_unusable' })
      await kms.enableKey(wrapping.key)
      await wrappedSigner(publicJwk, wrapped, context, [wrapping])
    })

    test('while KMS is not itself, a wrapped key does not open', async () => {
      const { publicJwk, privateJwk } = await generateLocalKey('ES256')
      const context = contextOf(publicJwk)
      const through: WrappingKey = { ...wrapping, access: proxied }
      const wrapped = await wrapPrivateKey(privateJwk, context, through)
      for (const [mode, code] of [
        ['throttle', 'throttled'],
        ['fail', 'unavailable'],
        ['close', 'unavailable'],
        ['lie_about_key', 'key_mismatch'],
      ] as const) {
        proxy.mode = mode
        const opening = wrappedSigner(publicJwk, wrapped, context, [through])
        await expect(opening).rejects.toMatchObject({ code })
      }
      proxy.mode = 'pass'
      await wrappedSigner(publicJwk, wrapped, context, [through])
    })
  })
})
