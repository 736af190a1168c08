import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { publicJwk as toPublicJwk } from '../../keys/jwks.ts'
import { exportPkcs8, generateLocalKey } from '../../keys/local.ts'
import { type PublicJwk, SigningError } from '../../keys/signer.ts'
import {
  importWrappingSecret,
  type WrapContext,
  type WrappingKey,
  wrapPrivateKey,
  wrappedSigner,
} from '../../keys/wrapped.ts'
import { base64, KmsStub, kmsError, lies, type Trouble, troubles } from '../support/kms_stub.ts'
import { signerContract } from '../support/signer_contract.ts'

const INPUT = new TextEncoder().encode('header.payload')
const HURRY = 8

const kms = new KmsStub()
const { access } = kms
vi.stubGlobal('fetch', kms.fetch)

const realTimeout = AbortSignal.timeout.bind(AbortSignal)

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

function contextOf({ kid }: PublicJwk, changes: Partial<WrapContext> = {}): WrapContext {
  return { trustDomain: 'example.org', kid, use: 'jwt-svid', ...changes }
}

let es256: LocalKey
/** Of {@link es256}. */
let context: WrapContext
let secret: WrappingKey
let otherSecret: WrappingKey
let arn: string
let byKms: WrappingKey

// The first import of the SDK, module by module as Vite serves it, takes its time.
beforeAll(async () => {
  es256 = await keyFor('ES256')
  context = contextOf(es256.publicJwk)
  secret = { keeper: 'secret', key: await importWrappingSecret(base64(new Uint8Array(32).fill(1))) }
  otherSecret = { keeper: 'secret', key: await importWrappingSecret(base64(new Uint8Array(32).fill(2))) }
  arn = await kms.createKey('SYMMETRIC_DEFAULT')
  byKms = { keeper: 'awskms', access, key: arn }
  await wrapPrivateKey(es256.privateJwk, context, byKms)
}, 60_000)

beforeEach(() => {
  kms.trouble = null
  kms.requests.length = 0
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => realTimeout(ms / HURRY))
  vi.spyOn(Math, 'random').mockReturnValue(0)
})

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  vi.unstubAllGlobals()
})

async function code(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(SigningError)
  expect(Object.getOwnPropertyNames(error).sort()).toEqual(['code', 'message', 'name', 'stack'])
  return (error as SigningError).code
}

const KEEPERS: readonly [string, () => WrappingKey][] = [
  ['a secret', () => secret],
  ['KMS', () => byKms],
]

for (const [keeper, wrapping] of KEEPERS) {
  signerContract(`a key wrapped by ${keeper}`, async (alg) => {
    const { publicJwk, privateJwk } = await keyFor(alg)
    const wrapped = await wrapPrivateKey(privateJwk, contextOf(publicJwk), wrapping())
    return await wrappedSigner(publicJwk, wrapped, contextOf(publicJwk), [wrapping()])
  })
}

describe.each(KEEPERS)('T-16: a key wrapped by %s', (_keeper, wrapping) => {
  const texts = fc.oneof(fc.domain(), fc.string({ unit: 'grapheme' }))
  const uses = fc.constantFrom('jwt-svid' as const, 'x509-svid' as const)
  const algorithms = fc.constantFrom(...(Object.keys(ALGORITHMS) as AlgorithmName[]))

  test('opens in its own context and in no other', async () => {
    await fc.assert(
      fc.asyncProperty(algorithms, texts, texts, uses, async (alg, trustDomain, otherDomain, use) => {
        const { publicJwk, privateJwk } = await keyFor(alg)
        const own = contextOf(publicJwk, { trustDomain, use })
        const wrapped = await wrapPrivateKey(privateJwk, own, wrapping())
        const { publicJwk: published, sign } = await wrappedSigner(publicJwk, wrapped, own, [wrapping()])
        expect(published).toBe(publicJwk)
        expect((await sign(INPUT)).length).toBeGreaterThan(0)
        const others: WrapContext[] = [{ ...own, use: use === 'jwt-svid' ? 'x509-svid' : 'jwt-svid' }]
        if (otherDomain !== trustDomain) others.push({ ...own, trustDomain: otherDomain })
        for (const other of others) {
          expect(await code(wrappedSigner(publicJwk, wrapped, other, [wrapping()]))).toBe('key_mismatch')
        }
      }),
      { numRuns: 40 },
    )
  })

  test('does not open as another key, whichever way its kid is changed', async () => {
    const other = await generateLocalKey('ES256')
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    const swapped = await wrapPrivateKey(other.privateJwk, contextOf(other.publicJwk), wrapping())
    for (const [publicJwk, text, kid] of [
      [es256.publicJwk, swapped, es256.publicJwk.kid],
      [other.publicJwk, wrapped, other.publicJwk.kid],
      [es256.publicJwk, wrapped, other.publicJwk.kid],
      [es256.publicJwk, swapped, other.publicJwk.kid],
      // A state in which the public key was exchanged under the kid of the one that is wrapped.
      [{ ...other.publicJwk, kid: es256.publicJwk.kid }, wrapped, es256.publicJwk.kid],
      [{ ...es256.publicJwk, kid: other.publicJwk.kid }, swapped, other.publicJwk.kid],
    ] as const) {
      expect(await code(wrappedSigner(publicJwk, text, { ...context, kid }, [wrapping()]))).toBe('key_mismatch')
    }
  })

  test('does not open for a public key that says another kid than the context', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    const publicJwk = { ...es256.publicJwk, kid: 'another' }
    expect(await code(wrappedSigner(publicJwk, wrapped, context, [wrapping()]))).toBe('key_mismatch')
  })

  test('does not open for an algorithm that the key is not of', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    for (const alg of ['ES384', 'RS256'] as const) {
      const publicJwk = { ...es256.publicJwk, alg }
      expect(await code(wrappedSigner(publicJwk, wrapped, context, [wrapping()]))).toBe('key_mismatch')
    }
  })

  test('does not open when one octet of the text is another', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    const characters = fc.constantFrom(...'ABCXYZabcxyz0189-_.=+/ \n\0ä')
    await fc.assert(
      fc.asyncProperty(fc.nat(wrapped.length - 1), characters, async (at, character) => {
        fc.pre(wrapped[at] !== character)
        const changed = wrapped.slice(0, at) + character + wrapped.slice(at + 1)
        expect(await code(wrappedSigner(es256.publicJwk, changed, context, [wrapping()]))).toBe('key_mismatch')
      }),
      { numRuns: 300 },
    )
  })

  test('does not open when a bit of the last character is another, or the text is shorter or longer', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const last = alphabet.indexOf(wrapped.at(-1) ?? '')
    const changes = [0, 1, 2, 3, 4, 5].map((bit) => wrapped.slice(0, -1) + alphabet[last ^ (1 << bit)])
    changes.push(wrapped.slice(0, -1), wrapped.slice(0, -2), wrapped.slice(0, -4), `${wrapped}A`, `${wrapped}AAAA`)
    changes.push(` ${wrapped}`, `${wrapped}\n`, `${wrapped}=`, wrapped.replace('v1', 'v2'))
    for (const changed of changes) {
      expect(await code(wrappedSigner(es256.publicJwk, changed, context, [wrapping()]))).toBe('key_mismatch')
    }
  })

  test('is another text each time, of printable characters, without the key in it', async () => {
    const texts = [0, 1, 2].map(() => wrapPrivateKey(es256.privateJwk, context, wrapping()))
    expect(new Set(await Promise.all(texts)).size).toBe(3)
    const pkcs8 = await exportPkcs8(es256.privateJwk)
    for (const text of await Promise.all(texts)) {
      expect(text).toMatch(/^v1\.(secret|awskms)\.[\w.-]+$/)
      expect(atob(text.split('.').at(-1)?.replaceAll('-', '+').replaceAll('_', '/') ?? '')).not.toContain(
        String.fromCharCode(...pkcs8.subarray(-32)),
      )
    }
  })

  test('is not extractable once it is open, and what it was opened from is overwritten', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, wrapping())
    const imported: unknown[][] = []
    const importKey = crypto.subtle.importKey.bind(crypto.subtle) as (...args: unknown[]) => Promise<CryptoKey>
    vi.spyOn(crypto.subtle, 'importKey').mockImplementation(((...args: unknown[]) => {
      imported.push(args)
      return importKey(...args)
    }) as typeof crypto.subtle.importKey)
    const signer = await wrappedSigner(es256.publicJwk, wrapped, context, [wrapping()])
    expect(JSON.stringify(signer)).toBe(JSON.stringify({ publicJwk: es256.publicJwk }))
    // The SDK signs its requests with raw keys.
    const privately = imported.filter(([format, , , , usages]) => format !== 'raw' && String(usages) === 'sign')
    expect(privately.map(([format, , , extractable]) => [format, extractable])).toEqual([['pkcs8', false]])
    expect([...new Set(privately[0]?.[1] as Uint8Array)]).toEqual([0])
  })

  test('leaves nothing of the key in the clear when it is wrapped', async () => {
    const exported: ArrayBuffer[] = []
    const exportKey = crypto.subtle.exportKey.bind(crypto.subtle)
    vi.spyOn(crypto.subtle, 'exportKey').mockImplementation((async (format: 'pkcs8', key: CryptoKey) => {
      const octets = (await exportKey(format, key)) as ArrayBuffer
      exported.push(octets)
      return octets
    }) as typeof crypto.subtle.exportKey)
    await wrapPrivateKey(es256.privateJwk, context, wrapping())
    expect(exported.map((octets) => [...new Set(new Uint8Array(octets))])).toEqual([[0]])
  })

  test('is not made of a key that is none, or for the kid of another', async () => {
    const other = await generateLocalKey('ES256')
    const { d: _, ...halfKey } = es256.privateJwk
    for (const [privateJwk, kid] of [
      [es256.privateJwk, other.publicJwk.kid],
      [other.privateJwk, context.kid],
      [halfKey, context.kid],
      [es256.publicJwk as JsonWebKey, context.kid],
      [{}, context.kid],
      [{ kty: 'oct', k: 'AAAA' }, context.kid],
      [{ ...es256.privateJwk, crv: 'P-384' }, context.kid],
    ] as [JsonWebKey, string][]) {
      expect(await code(wrapPrivateKey(privateJwk, { ...context, kid }, wrapping()))).toBe('key_mismatch')
    }
    expect(kms.requests).toEqual([])
  })
})

test.each(['', 'v1', 'v1.secret', 'v1.secret.', 'v1.secret..', 'v1.awskms.', 'v1.constructor.AAAA', 'null', '{}'])(
  'T-16: %j is no wrapped key',
  async (text) => {
    expect(await code(wrappedSigner(es256.publicJwk, text, context, [secret, byKms]))).toBe('key_mismatch')
    expect(kms.requests).toEqual([])
  },
)

test('T-16: no two contexts bind to the same additional data', async () => {
  const additional: string[] = []
  const encrypt = crypto.subtle.encrypt.bind(crypto.subtle)
  vi.spyOn(crypto.subtle, 'encrypt').mockImplementation((async (
    algorithm: SubtleCryptoEncryptAlgorithm,
    ...rest: [CryptoKey, BufferSource]
  ) => {
    additional.push(new TextDecoder().decode(algorithm.additionalData as BufferSource))
    return await encrypt(algorithm, ...rest)
  }) as typeof crypto.subtle.encrypt)
  const { kid } = context
  const domains = [
    '',
    'a',
    `a","${kid}`,
    `a","${kid}","jwt-svid`,
    'a"',
    'a\\',
    'a\\"',
    'a,',
    'a\u0000',
    'a\ud800',
    'a\ufffd',
  ]
  for (const trustDomain of domains) {
    for (const use of ['jwt-svid', 'x509-svid'] as const) {
      await wrapPrivateKey(es256.privateJwk, { ...context, trustDomain, use }, secret)
    }
  }
  expect(new Set(additional).size).toBe(2 * domains.length)
})

describe('T-16: a wrapping key', () => {
  test('that is replaced goes on opening what it has wrapped, in any order', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, secret)
    const lists = [
      [otherSecret, secret],
      [secret, otherSecret],
      [byKms, otherSecret, secret],
      [byKms, secret],
    ]
    for (const wrapping of lists) {
      expect((await wrappedSigner(es256.publicJwk, wrapped, context, wrapping)).publicJwk).toBe(es256.publicJwk)
    }
    // KMS is not asked about what KMS has not wrapped.
    expect(kms.requests).toEqual([])
  })

  test('that is not listed opens nothing', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, secret)
    for (const wrapping of [[], [otherSecret], [byKms], [byKms, otherSecret]]) {
      expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, wrapping))).toBe('key_mismatch')
    }
    const inKms = await wrapPrivateKey(es256.privateJwk, context, byKms)
    const another: WrappingKey = { keeper: 'awskms', access, key: await kms.createKey('SYMMETRIC_DEFAULT') }
    for (const wrapping of [[], [secret], [another]]) {
      expect(await code(wrappedSigner(es256.publicJwk, inKms, context, wrapping))).toBe('key_mismatch')
    }
    await wrappedSigner(es256.publicJwk, inKms, context, [another, secret, byKms])
  })

  test.each<[string, SubtleCryptoGenerateKeyAlgorithm, string[]]>([
    ['of 128 bits', { name: 'AES-GCM', length: 128 }, ['encrypt', 'decrypt']],
    ['for another mode', { name: 'AES-CBC', length: 256 }, ['encrypt', 'decrypt']],
    ['that may only decrypt', { name: 'AES-GCM', length: 256 }, ['decrypt']],
    ['for HMAC', { name: 'HMAC', hash: 'SHA-256', length: 256 }, ['sign']],
  ])('%s wraps nothing', async (_what, algorithm, usages) => {
    const key = (await crypto.subtle.generateKey(algorithm, false, usages)) as CryptoKey
    const wrapping: WrappingKey = { keeper: 'secret', key }
    expect(await code(wrapPrivateKey(es256.privateJwk, context, wrapping))).toBe('key_mismatch')
    if (usages.includes('decrypt') && algorithm.name === 'AES-GCM') return
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, secret)
    expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, [wrapping]))).toBe('key_mismatch')
  })

  const octets = Uint8Array.from({ length: 32 }, (_, i) => 255 - i)
  const padded = base64(octets)
  const url = padded.replaceAll('+', '-').replaceAll('/', '_')

  test.each([padded, padded.slice(0, -1), url, url.slice(0, -1)])('is read from %j', async (text) => {
    const key = await importWrappingSecret(text)
    expect(key).toMatchObject({ extractable: false, algorithm: { name: 'AES-GCM', length: 256 } })
    expect([...key.usages].sort()).toEqual(['decrypt', 'encrypt'])
    const raw = await crypto.subtle.importKey('raw', octets, 'AES-GCM', false, ['encrypt', 'decrypt'])
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, { keeper: 'secret', key: raw })
    await wrappedSigner(es256.publicJwk, wrapped, context, [{ keeper: 'secret', key }])
  })

  test.each([
    '',
    base64(new Uint8Array(31).fill(7)),
    base64(new Uint8Array(33).fill(7)),
    base64(new Uint8Array(16).fill(7)),
    `${padded}\n`,
    ` ${padded}`,
    `${padded}=`,
    `=${padded}`,
    // Both alphabets at once, and stray bits at the end.
    `${padded.slice(0, -3)}_${padded.slice(-2)}`,
    `${url.slice(0, -2)}${String.fromCharCode(url.charCodeAt(42) + 1)}`,
    'a passphrase of forty-three characters, here',
    '0'.repeat(64),
  ])('is not read from %j, and the error does not repeat it', async (text) => {
    const error = await importWrappingSecret(text).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(TypeError)
    const { message, cause } = error as TypeError
    expect([message, cause]).toEqual(['not 32 octets in base64url or base64', undefined])
  })

  test('KM-1: of KMS takes the longest key there is', async () => {
    const longest = { ...ALGORITHMS.RS256.key, modulusLength: 4096 }
    const pair = (await crypto.subtle.generateKey(longest, true, ['sign', 'verify'])) as CryptoKeyPair
    const privateJwk = (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey
    const publicJwk = await toPublicJwk(pair.publicKey, 'RS256')
    const wrapped = await wrapPrivateKey(privateJwk, contextOf(publicJwk), byKms)
    expect(atob(String(kms.requests[0]?.input.Plaintext)).length).toBeLessThan(4096)
    const signer = await wrappedSigner(publicJwk, wrapped, contextOf(publicJwk), [byKms])
    expect((await signer.sign(INPUT)).length).toBe(512)
  }, 120_000)
})

describe('T-16: KMS', () => {
  test('is told the context, and which key to decrypt with', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, byKms)
    await wrappedSigner(es256.publicJwk, wrapped, context, [byKms])
    const asked = {
      KeyId: arn,
      EncryptionContext: {
        'spiffe-edge:trust-domain': 'example.org',
        'spiffe-edge:kid': context.kid,
        'spiffe-edge:use': 'jwt-svid',
      },
      EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
    }
    expect(kms.requests).toMatchObject([
      { operation: 'Encrypt', input: asked },
      { operation: 'Decrypt', input: asked },
    ])
  })

  test('may be asked by alias, which opens nothing after it has moved on, while the key itself still does', async () => {
    kms.setAlias('alias/wrapping', arn)
    const byAlias: WrappingKey = { keeper: 'awskms', access, key: 'alias/wrapping' }
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, byAlias)
    await wrappedSigner(es256.publicJwk, wrapped, context, [byAlias])
    kms.setAlias('alias/wrapping', await kms.createKey('SYMMETRIC_DEFAULT'))
    expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, [byAlias]))).toBe('key_mismatch')
    await wrappedSigner(es256.publicJwk, wrapped, context, [byAlias, byKms])
  })

  test.each(['ECC_NIST_P256', 'RSA_2048'])('with a key of %s wraps nothing', async (spec) => {
    const key = await kms.createKey(spec)
    const wrapping: WrappingKey = { keeper: 'awskms', access, key }
    expect(await code(wrapPrivateKey(es256.privateJwk, context, wrapping))).toBe('key_mismatch')
  })

  const TROUBLES: readonly [string, Trouble, string][] = [
    ['throttles', troubles.throttled, 'throttled'],
    ['denies', async () => kmsError('AccessDeniedException'), 'denied'],
    ['has disabled the key', async () => kmsError('DisabledException'), 'key_unusable'],
    ['has the key pending deletion', async () => kmsError('KMSInvalidStateException'), 'key_unusable'],
    ['knows no such key', async () => kmsError('NotFoundException'), 'key_unusable'],
    ['fails inside', troubles.failsInside, 'unavailable'],
    ['hangs', troubles.hangs, 'unavailable'],
    ['is unreachable', troubles.unreachable, 'unavailable'],
    ['has another key answer', lies({ KeyId: 'arn:aws:kms:eu-central-1:111122223333:key/other' }), 'key_mismatch'],
    ['names the key by its alias', lies({ KeyId: 'arn:aws:kms:eu-central-1:111122223333:alias/a' }), 'key_mismatch'],
    ['names no key', lies({ KeyId: undefined }), 'key_mismatch'],
    ['gives nothing', lies({ CiphertextBlob: undefined, Plaintext: undefined }), 'key_mismatch'],
    ['gives an empty text', lies({ CiphertextBlob: '', Plaintext: '' }), 'key_mismatch'],
  ]

  test.each(TROUBLES)('that %s neither wraps nor opens', async (_what, trouble, expected) => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, byKms)
    kms.trouble = trouble
    expect(await code(wrapPrivateKey(es256.privateJwk, context, byKms))).toBe(expected)
    expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, [byKms]))).toBe(expected)
  })

  test('that gives the octets of another key, or of none, is found out', async () => {
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, byKms)
    const other = await generateLocalKey('ES256')
    for (const octets of [await exportPkcs8(other.privateJwk), new Uint8Array(138), Uint8Array.of(0x30)]) {
      kms.trouble = lies({ Plaintext: base64(octets) })
      expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, [byKms]))).toBe('key_mismatch')
    }
  })

  test('that can not be asked about one key does not hide that another opens it, nor is its silence a mismatch', async () => {
    const silent: WrappingKey = { keeper: 'awskms', access, key: await kms.createKey('SYMMETRIC_DEFAULT') }
    const another: WrappingKey = { keeper: 'awskms', access, key: await kms.createKey('SYMMETRIC_DEFAULT') }
    const wrapped = await wrapPrivateKey(es256.privateJwk, context, byKms)
    kms.trouble = async ({ input }, answer) => await (input.KeyId === silent.key ? troubles.failsInside() : answer())
    await wrappedSigner(es256.publicJwk, wrapped, context, [silent, byKms])
    for (const wrapping of [
      [silent, another],
      [another, silent],
      [another, silent, secret],
    ]) {
      expect(await code(wrappedSigner(es256.publicJwk, wrapped, context, wrapping))).toBe('unavailable')
    }
  })
})
