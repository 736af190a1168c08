import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { announceKmsKey, kmsSigner } from '../../keys/kms.ts'
import { type PublicJwk, type Signer, SigningError } from '../../keys/signer.ts'
import { base64, KmsStub, kmsAnswer, kmsError, lies, only, type Trouble, troubles } from '../support/kms_stub.ts'
import { derSignature } from '../support/sign_digest.ts'
import { signerContract } from '../support/signer_contract.ts'

const INPUT = new TextEncoder().encode('header.payload')
/** How much faster time runs here than for a caller of {@link kmsSigner}, so that a KMS that hangs does so for a quarter of a second. */
const HURRY = 8

const kms = new KmsStub()
const { access } = kms
vi.stubGlobal('fetch', kms.fetch)

const realTimeout = AbortSignal.timeout.bind(AbortSignal)

beforeEach(() => {
  kms.trouble = null
  kms.requests.length = 0
  // The end of the whole call comes less soon: on a machine that stalls it would come before the second attempt.
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => realTimeout(ms < 5000 ? ms / HURRY : ms / 2))
  // The jitter before a second attempt: none.
  vi.spyOn(Math, 'random').mockReturnValue(0)
})

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  vi.unstubAllGlobals()
})

/** One key of each kind for the whole file. */
const arns = new Map<string, Promise<string>>()

function arnOf(spec: string): Promise<string> {
  const arn = arns.get(spec) ?? kms.createKey(spec)
  arns.set(spec, arn)
  return arn
}

async function announced(alg: AlgorithmName): Promise<{ arn: string; publicJwk: PublicJwk; signer: Signer }> {
  const { arn, publicJwk } = await announceKmsKey(access, await arnOf(ALGORITHMS[alg].kmsKeySpecs[0] ?? ''), alg)
  kms.requests.length = 0
  return { arn, publicJwk, signer: await kmsSigner(access, arn, publicJwk) }
}

async function failure(promise: Promise<unknown>): Promise<SigningError> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(SigningError)
  return error as SigningError
}

// The first import of the SDK, module by module as Vite serves it, takes its time.
beforeAll(async () => {
  await announced('ES256')
}, 60_000)

signerContract('AWS KMS', async (alg) => (await announced(alg)).signer)

describe('announcing a key', () => {
  test.each([
    ['ECC_NIST_P256', 'ES256'],
    ['ECC_NIST_P384', 'ES384'],
    ['ECC_NIST_P521', 'ES512'],
    ['RSA_2048', 'RS256'],
    ['RSA_3072', 'RS256'],
  ] as const)('KM-3: %s is for %s unless something else is asked for', async (spec, alg) => {
    const arn = await arnOf(spec)
    expect(await announceKmsKey(access, arn, null)).toMatchObject({ arn, publicJwk: { alg } })
  })

  test.each(['RS384', 'RS512', 'PS256', 'PS384', 'PS512'] as const)('KM-3: an RSA key may be for %s', async (alg) => {
    expect(await announceKmsKey(access, await arnOf('RSA_2048'), alg)).toMatchObject({ publicJwk: { alg } })
  })

  test('KM-10: an alias or a key id gives the ARN to pin', async () => {
    const arn = await arnOf('ECC_NIST_P256')
    kms.setAlias('alias/issuer', arn)
    for (const name of ['alias/issuer', arn.split('/').at(-1) ?? '', arn]) {
      expect((await announceKmsKey(access, name, null)).arn).toBe(arn)
    }
    expect(kms.requests.map(({ operation }) => operation)).toEqual(Array(3).fill('GetPublicKey'))
  })

  test.each([
    ['multi-region', 'arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef'],
    ['Chinese', 'arn:aws-cn:kms:cn-north-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef'],
    ['government', 'arn:aws-us-gov:kms:us-gov-east-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef'],
  ])('T-15: a %s key has a key ARN', async (_what, arn) => {
    kms.trouble = lies({ KeyId: arn })
    expect(await announceKmsKey(access, await arnOf('ECC_NIST_P256'), null)).toMatchObject({ arn })
  })

  test.each<[string, AlgorithmName]>([
    ['ECC_NIST_P256', 'ES384'],
    ['ECC_NIST_P384', 'ES256'],
    ['ECC_NIST_P521', 'ES256'],
    ['ECC_NIST_P256', 'RS256'],
    ['RSA_2048', 'ES256'],
    ['RSA_2048', 'ES512'],
  ])('12.11: a key of %s is refused for %s', async (spec, alg) => {
    expect(await failure(announceKmsKey(access, await arnOf(spec), alg))).toMatchObject({ code: 'key_mismatch' })
  })

  // Real encodings of the kinds of key that WebCrypto has no name for; the point is the base point of the curve.
  const secp256k1 =
    '3056301006072a8648ce3d020106052b8104000a03420004' +
    '79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798' +
    '483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8'
  const sm2 =
    '3059301306072a8648ce3d020106082a811ccf5501822d03420004' +
    '32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7' +
    'bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0'
  const ed25519 = '302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'

  test.each([
    ['ECC_SECG_P256K1', ['ECDSA_SHA_256'], secp256k1],
    ['SM2', ['SM2DSA'], sm2],
    ['ECC_NIST_EDWARDS25519', ['ED25519_SHA_512', 'ED25519_PH_SHA_512'], ed25519],
    ['ML_DSA_44', ['ML_DSA_SHAKE_256'], ed25519],
    ['a KeySpec of tomorrow', ['ECDSA_SHA_256'], secp256k1],
    // A KeySpec that fits does not make the key inside fit.
    ['ECC_NIST_P256', ['ECDSA_SHA_256'], secp256k1],
    ['ECC_NIST_P256', ['ECDSA_SHA_256'], sm2],
    ['ECC_NIST_P256', ['ECDSA_SHA_256'], ''],
    ['RSA_2048', ['RSASSA_PKCS1_V1_5_SHA_256'], ed25519],
  ])('12.11: a key of %s with %j is refused', async (spec, algorithms, spki) => {
    const octets = Uint8Array.from(spki.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
    const arn = kms.addKey({ spec, usage: 'SIGN_VERIFY', algorithms, spki: octets, privateKey: null })
    for (const alg of [null, 'ES256', 'RS256'] as const) {
      expect(await failure(announceKmsKey(access, arn, alg))).toMatchObject({ code: 'key_mismatch' })
    }
  })

  test('12.11: a key of usage ENCRYPT_DECRYPT or KEY_AGREEMENT is refused', async () => {
    const encrypts = await kms.createKey('RSA_2048', 'ENCRYPT_DECRYPT')
    const agrees = await kms.createKey('ECC_NIST_P256', 'KEY_AGREEMENT')
    for (const arn of [encrypts, agrees]) {
      expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code: 'key_mismatch' })
      // Whatever else the answer says.
      kms.trouble = lies({ SigningAlgorithms: ['RSASSA_PKCS1_V1_5_SHA_256', 'ECDSA_SHA_256'] })
      expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code: 'key_mismatch' })
      kms.trouble = null
    }
  })

  test('12.11: a symmetric key, which has no public key, is refused', async () => {
    const spki = new Uint8Array()
    const key = { spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', algorithms: [], spki, privateKey: null }
    expect(await failure(announceKmsKey(access, kms.addKey(key), null))).toMatchObject({ code: 'key_mismatch' })
  })

  test('RFC 7518 §3.3: an RSA key below 2048 bits is refused', async () => {
    const arn = await kms.createKey('RSA_2048', 'SIGN_VERIFY', 1024)
    expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code: 'key_mismatch' })
  })

  test.each([
    ['no KeyId', { KeyId: undefined }],
    ['a bare key id', { KeyId: '01234567-89ab-cdef-0123-456789abcdef' }],
    ['an alias ARN', { KeyId: 'arn:aws:kms:eu-central-1:111122223333:alias/issuer' }],
    ['an ARN of another service', { KeyId: 'arn:aws:iam::111122223333:key/01234567' }],
    ['an ARN with something behind it', { KeyId: 'arn:aws:kms:eu-central-1:111122223333:key/01234567\n' }],
    ['no KeyUsage', { KeyUsage: undefined }],
    ['no KeySpec', { KeySpec: undefined }],
    ['no SigningAlgorithms', { SigningAlgorithms: undefined }],
    ['other SigningAlgorithms', { SigningAlgorithms: ['ECDSA_SHA_384'] }],
    ['no PublicKey', { PublicKey: undefined }],
    ['an empty PublicKey', { PublicKey: '' }],
  ])('T-15: an answer with %s is refused', async (_what, changes) => {
    kms.trouble = lies(changes)
    const announcement = announceKmsKey(access, await arnOf('ECC_NIST_P256'), 'ES256')
    expect(await failure(announcement)).toMatchObject({ code: 'key_mismatch' })
  })

  test('T-15: a public key is not pinned to an ARN for an algorithm that it is not of', async () => {
    const { arn, publicJwk } = await announced('ES256')
    for (const alg of ['ES384', 'RS256'] as const) {
      expect(await failure(kmsSigner(access, arn, { ...publicJwk, alg }))).toMatchObject({ code: 'key_mismatch' })
    }
    expect(kms.requests).toEqual([])
  })
})

describe('on the wire', () => {
  test.each([
    ['ES256', 'SHA-256', 32],
    ['ES384', 'SHA-384', 48],
    ['ES512', 'SHA-512', 64],
    ['PS384', 'SHA-384', 48],
  ] as const)('KM-2: %s is asked for with the %s digest of the input, and says so', async (alg, hash, length) => {
    const { arn, signer } = await announced(alg)
    await signer.sign(INPUT)
    const digest = new Uint8Array(await crypto.subtle.digest(hash, INPUT))
    expect(digest.length).toBe(length)
    expect(kms.requests).toHaveLength(1)
    expect(kms.requests[0]).toMatchObject({
      operation: 'Sign',
      input: { KeyId: arn, Message: base64(digest), MessageType: 'DIGEST', SigningAlgorithm: ALGORITHMS[alg].kms },
    })
  })

  test('KM-2: KMS refuses a digest of the wrong length, and a digest that is not said to be one is hashed again', async () => {
    const { arn, publicJwk } = await announced('ES256')
    for (const [Message, MessageType] of [
      [new Uint8Array(31), 'DIGEST'],
      [new Uint8Array(await crypto.subtle.digest('SHA-256', INPUT)), 'RAW'],
    ] as const) {
      const changed: Trouble = async (request) =>
        await kms.answer({ ...request, input: { ...request.input, Message: base64(Message), MessageType } })
      kms.trouble = changed
      const error = await failure((await kmsSigner(access, arn, publicJwk)).sign(INPUT))
      expect(error.code).toBe(MessageType === 'RAW' ? 'wrong_signature' : 'key_unusable')
    }
  })

  test('KM-12: a session token is part of the signed request', async () => {
    const session = { ...access, credentials: { ...access.credentials, sessionToken: 'FwoGZXIvYXdzEXAMPLE' } }
    const { arn, publicJwk } = await announced('ES256')
    await (await kmsSigner(session, arn, publicJwk)).sign(INPUT)
    const headers = kms.requests[0]?.headers
    expect(headers?.get('x-amz-security-token')).toBe('FwoGZXIvYXdzEXAMPLE')
    expect(headers?.get('authorization')).toContain('x-amz-security-token')
    await (await kmsSigner(access, arn, publicJwk)).sign(INPUT)
    expect(kms.requests[1]?.headers.has('x-amz-security-token')).toBe(false)
  })

  test('KM-9: identical inputs are signed each time', async () => {
    const { signer } = await announced('ES256')
    await Promise.all([signer.sign(INPUT), signer.sign(INPUT), signer.sign(INPUT)])
    expect(kms.requests).toHaveLength(3)
  })

  test('one access has one client, however many signers and signatures', async () => {
    const region = vi.fn(() => access.region)
    const counted = Object.defineProperty({ ...access }, 'region', { get: region })
    const { arn, publicJwk } = await announced('ES256')
    for (const signer of [await kmsSigner(counted, arn, publicJwk), await kmsSigner(counted, arn, publicJwk)]) {
      await signer.sign(INPUT)
      await signer.sign(INPUT)
    }
    await announceKmsKey(counted, arn, null)
    expect(region).toHaveBeenCalledTimes(1)
  })
})

describe('T-15: the signature', () => {
  test('comes from the pinned key after its alias has moved on', async () => {
    const [old, other] = [await kms.createKey('ECC_NIST_P256'), await kms.createKey('ECC_NIST_P256')]
    kms.setAlias('alias/moving', old)
    const { arn, publicJwk } = await announceKmsKey(access, 'alias/moving', null)
    const signer = await kmsSigner(access, arn, publicJwk)
    kms.setAlias('alias/moving', other)
    expect((await signer.sign(INPUT)).length).toBe(64)
    expect(kms.requests.at(-1)?.input).toMatchObject({ KeyId: old })
    expect((await announceKmsKey(access, 'alias/moving', null)).publicJwk.kid).not.toBe(publicJwk.kid)
  })

  test('12.11: of another key than the pinned one is refused', async () => {
    const { arn } = await announced('ES256')
    const other = await announceKmsKey(access, await kms.createKey('ECC_NIST_P256'), null)
    // The ARN of one key, the public half of another: what a re-pointed name, or a restored state, would come to.
    const mixed = await kmsSigner(access, arn, other.publicJwk)
    expect(await failure(mixed.sign(INPUT))).toMatchObject({ code: 'wrong_signature' })
  })

  test.each<[string, AlgorithmName, object]>([
    ['that names another key', 'ES256', { KeyId: 'arn:aws:kms:eu-central-1:111122223333:key/other' }],
    ['that names the key by its alias', 'ES256', { KeyId: 'alias/issuer' }],
    ['that names no key', 'ES256', { KeyId: undefined }],
    ['without a signature', 'ES256', { Signature: undefined }],
    ['with an empty signature', 'ES256', { Signature: '' }],
    ['with a signature that is R‖S already', 'ES256', { Signature: base64(new Uint8Array(64).fill(1)) }],
    ['with a zero R', 'ES256', { Signature: base64(derSignature(0n, 1n)) }],
    ['with a zero S', 'ES256', { Signature: base64(derSignature(1n, 0n)) }],
    ['with a negative R', 'ES256', { Signature: base64(derSignature(-1n, 1n)) }],
    ['with an R longer than the curve', 'ES256', { Signature: base64(derSignature(1n << 256n, 1n)) }],
    ['with octets behind the signature', 'ES256', { Signature: base64(Uint8Array.of(...derSignature(1n, 1n), 0)) }],
    ['with a wrong SEQUENCE length', 'ES256', { Signature: 'MAcCAQECAQE=' }],
    ['with numbers that verify nothing', 'ES256', { Signature: base64(derSignature(1n, 1n)) }],
    ['that names another key', 'RS256', { KeyId: 'arn:aws:kms:eu-central-1:111122223333:key/other' }],
    ['without a signature', 'RS256', { Signature: undefined }],
    ['with a signature of zeros', 'RS256', { Signature: base64(new Uint8Array(256)) }],
    ['with a short signature', 'RS256', { Signature: base64(new Uint8Array(255).fill(1)) }],
    ['with a long signature', 'PS256', { Signature: base64(new Uint8Array(257).fill(1)) }],
  ])('12.11: an answer %s is refused, for %s', async (_what, alg, changes) => {
    const { signer } = await announced(alg)
    kms.trouble = lies(changes)
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code: 'wrong_signature' })
    // A lie is not worth a second question.
    expect(kms.requests).toHaveLength(1)
  })

  test.each<[AlgorithmName, AlgorithmName]>([
    ['RS256', 'PS256'],
    ['PS256', 'RS256'],
    ['RS256', 'RS512'],
  ])('12.11: a signature for %s made as %s is refused', async (alg, made) => {
    const { signer } = await announced(alg)
    const { hash, kms: SigningAlgorithm } = ALGORITHMS[made]
    const Message = base64(new Uint8Array(await crypto.subtle.digest(hash, INPUT)))
    kms.trouble = async (request) =>
      await kms.answer({ ...request, input: { ...request.input, Message, SigningAlgorithm } })
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code: 'wrong_signature' })
  })

  test('12.11: of another input is refused', async () => {
    const { signer } = await announced('ES256')
    let first: Response | undefined
    kms.trouble = async (_request, answer) => {
      first ??= await answer()
      return first.clone()
    }
    expect((await signer.sign(INPUT)).length).toBe(64)
    expect(await failure(signer.sign(Uint8Array.of(1)))).toMatchObject({ code: 'wrong_signature' })
  })
})

describe('12.11: a key that can not be used', () => {
  test.each(['Disabled', 'PendingDeletion'] as const)('KM-7: and is %s stops the signing at once', async (state) => {
    const arn = await kms.createKey('ECC_NIST_P256')
    const signer = await kmsSigner(access, arn, (await announceKmsKey(access, arn, null)).publicJwk)
    kms.setState(arn, state)
    kms.requests.length = 0
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code: 'key_unusable' })
    expect(kms.requests).toHaveLength(1)
    expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code: 'key_unusable' })
    kms.setState(arn, 'Enabled')
    expect((await signer.sign(INPUT)).length).toBe(64)
  })

  test('and does not exist is not announced', async () => {
    for (const name of ['alias/nobody', '01234567-89ab-cdef-0123-456789abcdef']) {
      expect(await failure(announceKmsKey(access, name, null))).toMatchObject({ code: 'key_unusable' })
    }
  })
})

const ERRORS = {
  throttled: ['ThrottlingException', 'Throttling', 'LimitExceededException', 'TooManyRequestsException', 'SlowDown'],
  unavailable: [
    'DependencyTimeoutException',
    'KMSInternalException',
    'KeyUnavailableException',
    'ServiceUnavailable',
    'InternalFailure',
    'SomethingNewException',
    'constructor',
    '',
  ],
  denied: [
    'AccessDeniedException',
    'UnrecognizedClientException',
    'ExpiredTokenException',
    'InvalidSignatureException',
    'IncompleteSignatureException',
    'MissingAuthenticationTokenException',
    'InvalidClientTokenId',
    'NotAuthorized',
  ],
  key_unusable: ['DisabledException', 'KMSInvalidStateException', 'NotFoundException', 'InvalidArnException'],
  key_mismatch: [
    'InvalidKeyUsageException',
    'UnsupportedOperationException',
    'IncorrectKeyException',
    'InvalidCiphertextException',
  ],
}

describe('KM-8: an error', () => {
  const cases = Object.entries(ERRORS).flatMap(([code, types]) => types.map((type): [string, string] => [type, code]))

  test.each(cases)('%j of KMS is %s', async (type, code) => {
    const { arn, signer } = await announced('ES256')
    // Older services put a namespace in front of the name.
    for (const name of [type, `com.amazonaws.kms#${type}`]) {
      kms.trouble = async () => kmsError(name)
      expect(await failure(signer.sign(INPUT))).toMatchObject({ code })
      expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code })
    }
  })

  test.each([
    [429, 'throttled'],
    [400, 'unavailable'],
    [403, 'unavailable'],
    [404, 'unavailable'],
    [500, 'unavailable'],
    [502, 'unavailable'],
    [503, 'unavailable'],
    [504, 'unavailable'],
  ])('of status %i without a name is %s', async (status, code) => {
    const { signer } = await announced('ES256')
    kms.trouble = async () => kmsAnswer({}, status)
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code })
  })

  test.each<[keyof typeof troubles, string, number]>([
    ['throttled', 'throttled', 2],
    ['hangs', 'unavailable', 2],
    ['hangsInBody', 'unavailable', 2],
    ['unreachable', 'unavailable', 2],
    ['failsInside', 'unavailable', 2],
    ['endless', 'unavailable', 2],
    ['html', 'unavailable', 1],
    ['htmlError', 'unavailable', 2],
    ['truncated', 'unavailable', 1],
    ['redirected', 'unavailable', 1],
  ])('when KMS %s is %s after %i requests', async (name, code, requests) => {
    const { arn, signer } = await announced('ES256')
    kms.trouble = troubles[name]
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code })
    expect(kms.requests).toHaveLength(requests)
    expect(await failure(announceKmsKey(access, arn, null))).toMatchObject({ code })
    expect(kms.requests).toHaveLength(2 * requests)
  })

  test.each(['throttled', 'hangs', 'hangsInBody', 'unreachable', 'failsInside', 'endless'] as const)(
    'when KMS %s once is made good by the second attempt',
    async (name) => {
      const { arn, signer } = await announced('ES256')
      kms.trouble = only(1, troubles[name])
      expect((await signer.sign(INPUT)).length).toBe(64)
      kms.trouble = only(1, troubles[name])
      expect(await announceKmsKey(access, arn, null)).toMatchObject({ arn })
      expect(kms.requests).toHaveLength(4)
    },
  )

  test.each([...ERRORS.key_unusable, ...ERRORS.key_mismatch, ...ERRORS.denied])('%s is not retried', async (type) => {
    const { signer } = await announced('ES256')
    kms.trouble = async () => kmsError(type)
    await failure(signer.sign(INPUT))
    expect(kms.requests).toHaveLength(1)
  })

  test('of a KMS that asks for an hour of patience comes in time', async () => {
    const { signer } = await announced('ES256')
    kms.trouble = async () => {
      const { body, status } = kmsError('ThrottlingException')
      return new Response(body, { status, headers: { 'retry-after': '3600' } })
    }
    expect(await failure(signer.sign(INPUT))).toMatchObject({ code: 'unavailable' })
    expect(kms.requests).toHaveLength(1)
  })

  test('ends what KMS has left hanging', async () => {
    const { signer } = await announced('ES256')
    const signals: AbortSignal[] = []
    kms.trouble = async (request, answer, signal) => {
      signals.push(signal)
      return await troubles.hangs(request, answer, signal)
    }
    await failure(signer.sign(INPUT))
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true])
  })

  test('of one caller leaves the others alone', async () => {
    const { signer } = await announced('ES256')
    kms.trouble = only(2, troubles.hangs)
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => signer.sign(INPUT)))
    expect(results.map(({ status }) => status)).toEqual(Array(8).fill('fulfilled'))
  })
})

describe('KM-8: nothing of KMS gets out', () => {
  const logged = ['debug', 'log', 'info', 'warn', 'error', 'trace'] as const

  test.each<[string, Trouble]>([
    ...Object.entries(troubles),
    ...Object.values(ERRORS)
      .flat()
      .map((type): [string, Trouble] => [type, async () => kmsError(type)]),
    ['a lie', lies({ KeyId: 'arn:aws:kms:eu-central-1:111122223333:alias/secret' })],
    ['a public key and a signature that are none', lies({ PublicKey: 'AAAA', Signature: 'AAAA' })],
  ])('with %s', async (_what, trouble) => {
    const { arn, signer } = await announced('ES256')
    const lines: unknown[] = []
    for (const level of logged) vi.spyOn(console, level).mockImplementation((...line) => lines.push(...line))
    kms.trouble = trouble
    for (const error of [await failure(signer.sign(INPUT)), await failure(announceKmsKey(access, arn, null))]) {
      expect(Object.getOwnPropertyNames(error).sort()).toEqual(['code', 'message', 'name', 'stack'])
      const said = [error.message, error.stack, String(error), JSON.stringify(error), ...lines.map(String)].join('\n')
      for (const secret of ['arn:', '111122223333', 'user/', arn.split('/').at(-1), 'AKID', 'wJalr', 'html']) {
        expect(said).not.toContain(secret)
      }
    }
  })
})
