import '@abraham/reflection'
import { Pkcs10CertificateRequest } from '@peculiar/x509'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS } from '../../keys/algorithms.ts'
import { CsrError, readCsr, writeCsr } from '../../keys/csr.ts'
import { bitString, element, INTEGER, integer, NULL, objectIdentifier, sequence } from '../../keys/der.ts'
import { derSignature } from '../../keys/ecdsa.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { makeCsr } from '../support/csr.ts'

let good: Awaited<ReturnType<typeof makeCsr>>
beforeAll(async () => {
  good = await makeCsr()
})

/** The good request with one octet that is another. */
function changed(at: number, change: number): Uint8Array<ArrayBuffer> {
  const der = Uint8Array.from(good.der)
  der[at] = (der[at] ?? 0) ^ change
  return der
}

async function verdict(der: Uint8Array<ArrayBuffer>): Promise<string | null> {
  try {
    await readCsr(der)
    return null
  } catch (error) {
    if (error instanceof CsrError) return error.message
    throw error
  }
}

const P256 = ['1.2.840.10045.2.1', objectIdentifier('1.2.840.10045.3.1.7')] as const
const RSA = ['1.2.840.113549.1.1.1', NULL] as const
/** The generator of P-256 (SEC 2 §2.4.2). */
const COMPRESSED = '036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296'

function spki(algorithm: string, parameters: Uint8Array | null, key: Uint8Array): Uint8Array<ArrayBuffer> {
  const identifier = sequence(objectIdentifier(algorithm), ...(parameters ? [parameters] : []))
  return sequence(identifier, bitString(key))
}

/** Uncompressed, on no curve. */
function point(scalarBytes: number): Uint8Array {
  return Uint8Array.of(4, ...new Uint8Array(2 * scalarBytes).fill(1))
}

function rsaKey(modulusBytes: number, exponent: readonly number[]): Uint8Array {
  const modulus = crypto.getRandomValues(new Uint8Array(modulusBytes))
  modulus[0] = 0x80
  modulus[modulusBytes - 1] = (modulus[modulusBytes - 1] as number) | 1
  return sequence(integer(modulus), integer(Uint8Array.from(exponent)))
}

/** Signed by nobody: for what is looked at before the signature. */
function requestFor(publicKey: Uint8Array): Uint8Array<ArrayBuffer> {
  const info = sequence(integer(new Uint8Array()), sequence(), publicKey, element(0xa0))
  return sequence(info, sequence(objectIdentifier('1.2.840.10045.4.3.2')), bitString(new Uint8Array(70)))
}

test.each(['P-256', 'P-384', 'P-521', 'RSA-2048', 'RSA-3072'] as const)(
  'a request with a %s key is for that key',
  async (kind) => {
    const { der, spki } = await makeCsr(kind)
    expect(new Uint8Array(await readCsr(der))).toEqual(new Uint8Array(spki))
  },
)

describe('12.9: a request is refused', () => {
  test.each<[string, () => Uint8Array<ArrayBuffer>, string]>([
    ['that is nothing', () => new Uint8Array(), 'not a PKCS #10 request'],
    ['that is text', () => Uint8Array.from(new TextEncoder().encode('-----BEGIN')), 'not a PKCS #10 request'],
    ['that is cut off', () => good.der.slice(0, -1), 'not a PKCS #10 request'],
    ['that is a public key', () => new Uint8Array(good.spki), 'not a PKCS #10 request'],
    ['with something behind it', () => Uint8Array.of(...good.der, 0), 'more than one request'],
    ['twice', () => Uint8Array.of(...good.der, ...good.der), 'more than one request'],
    ['of more than 8 KiB', () => new Uint8Array(8193), 'too large'],
    ['with another signature', () => changed(good.der.length - 1, 1), 'not signed by its own key'],
  ])('%s', async (_, der, problem) => {
    expect(await verdict(der())).toBe(problem)
  })

  test.each([
    ['RSA-1024', 'public key not taken: too weak'],
    ['RSA-2048 with exponent 3', 'public key not taken: too weak'],
    ['RSA-2048 with SHA-1', 'signed by an algorithm that is not taken'],
    ['Ed25519', 'signed by an algorithm that is not taken'],
  ] as const)('XS-13: with a key of %s', async (kind, problem) => {
    expect(await verdict((await makeCsr(kind)).der)).toBe(problem)
  })

  test.each<[string, Uint8Array<ArrayBuffer>, string]>([
    ['secp256k1', spki('1.2.840.10045.2.1', objectIdentifier('1.3.132.0.10'), point(32)), 'public key not taken: kind'],
    ['P-224', spki('1.2.840.10045.2.1', objectIdentifier('1.3.132.0.33'), point(28)), 'public key not taken: kind'],
    ['a curve of its own', spki('1.2.840.10045.2.1', sequence(), point(32)), 'public key not taken: kind'],
    ['X25519', spki('1.3.101.110', null, new Uint8Array(32).fill(9)), 'public key not taken: kind'],
    ['RSA for PSS alone', spki('1.2.840.113549.1.1.10', null, rsaKey(256, [1, 0, 1])), 'public key not taken: kind'],
    ['P-256, a point off the curve', spki(...P256, point(32)), 'public key not taken: encoding'],
    ['P-256, the point at infinity', spki(...P256, Uint8Array.of(0)), 'public key not taken: encoding'],
    ['P-256, compressed', spki(...P256, Uint8Array.fromHex(COMPRESSED)), 'public key not taken: encoding'],
    ['RSA-2040', spki(...RSA, rsaKey(255, [1, 0, 1])), 'public key not taken: too weak'],
    ['RSA-8200', spki(...RSA, rsaKey(1025, [1, 0, 1])), 'public key not taken: too large'],
    ['RSA with exponent 0', spki(...RSA, rsaKey(256, [0])), 'public key not taken: encoding'],
    ['RSA with exponent 1', spki(...RSA, rsaKey(256, [1])), 'public key not taken: encoding'],
    ['RSA with an even exponent', spki(...RSA, rsaKey(256, [1, 0, 0])), 'public key not taken: encoding'],
    [
      'RSA with an exponent of 64 bits',
      spki(...RSA, rsaKey(256, [1, 0, 0, 0, 0, 0, 0, 1])),
      'public key not taken: encoding',
    ],
    ['RSA, without a key', spki(...RSA, new Uint8Array()), 'public key not taken: encoding'],
  ])('XS-13: with a key of %s, before its signature is looked at', async (_, publicKey, problem) => {
    expect(await verdict(requestFor(publicKey))).toBe(problem)
  })

  test('12.3: with the key of another', async () => {
    const other = new Uint8Array((await makeCsr()).spki)
    const der = Uint8Array.fromHex(good.der.toHex().replace(new Uint8Array(good.spki).toHex(), other.toHex()))
    expect(await verdict(der)).toBe('not signed by its own key')
  })

  test('whichever octet is another, and with no other error', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(good.der.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        expect(await verdict(changed(at, change))).not.toBeNull()
      }),
      { numRuns: 500 },
    )
  })
})

describe('what stands around the key', () => {
  const ECDSA_SHA256 = sequence(objectIdentifier('1.2.840.10045.4.3.2'))
  const VERSION = integer(new Uint8Array())
  const ATTRIBUTES = element(0xa0)
  let pair: CryptoKeyPair
  let key: Uint8Array<ArrayBuffer>
  beforeAll(async () => {
    pair = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])) as CryptoKeyPair
    key = new Uint8Array((await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer)
  })

  /** A request with whatever is in it, which its key has really signed. */
  async function signed(...info: readonly Uint8Array[]): Promise<Uint8Array<ArrayBuffer>> {
    const tbs = sequence(...info)
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey, tbs)
    return sequence(tbs, ECDSA_SHA256, bitString(derSignature(new Uint8Array(signature))))
  }

  test('T-22: is not read: whatever subject and attributes say, the key is the same', async () => {
    const octets = fc.uint8Array({ maxLength: 300 })
    await fc.assert(
      fc.asyncProperty(octets, octets, async (subject, attributes) => {
        const request = await signed(VERSION, sequence(subject), key, element(0xa0, attributes))
        expect(new Uint8Array(await readCsr(request))).toEqual(key)
      }),
    )
  })

  test('may lack attributes: some clients leave them out', async () => {
    expect(new Uint8Array(await readCsr(await signed(VERSION, sequence(), key)))).toEqual(key)
  })

  test.each<[string, (key: Uint8Array) => readonly Uint8Array[]]>([
    ['another version', (key) => [integer(Uint8Array.of(1)), sequence(), key, ATTRIBUTES]],
    ['a version that is padded', (key) => [element(INTEGER, Uint8Array.of(0, 0)), sequence(), key, ATTRIBUTES]],
    ['no version', (key) => [sequence(), key, ATTRIBUTES]],
    ['no subject', (key) => [VERSION, key, ATTRIBUTES]],
    ['no key', () => [VERSION, sequence(), ATTRIBUTES]],
    ['attributes of another tag', (key) => [VERSION, sequence(), key, element(0x31)]],
    ['attributes twice', (key) => [VERSION, sequence(), key, ATTRIBUTES, ATTRIBUTES]],
    ['something behind its attributes', (key) => [VERSION, sequence(), key, ATTRIBUTES, NULL]],
    ['two keys', (key) => [VERSION, sequence(), key, key, ATTRIBUTES]],
  ])('12.9: %s is refused, though it is signed', async (_, info) => {
    expect(await verdict(await signed(...info(key)))).toBe('not a PKCS #10 request')
  })

  test('12.9: what is behind the key inside of it is refused', async () => {
    const longer = sequence(key.subarray(2), NULL)
    expect(await verdict(await signed(VERSION, sequence(), longer, ATTRIBUTES))).toBe('public key not taken: encoding')
  })

  test('X.690 §10.1: a length that is not the shortest is refused at every level', async () => {
    const request = await signed(VERSION, sequence(), key, ATTRIBUTES)
    // The outer one is of 0x81 or 0x82 octets by now. One that says the same with an octet more:
    const longer = Uint8Array.of(0x30, 0x83, 0, 0, request.length - 3, ...request.subarray(3))
    for (const der of [longer, Uint8Array.of(0x30, 0x80, ...request.subarray(3), 0, 0)])
      expect(await verdict(der)).toBe('not a PKCS #10 request')
  })

  test('another reader finds the same key in whatever is taken', async () => {
    for (const kind of ['P-256', 'P-384', 'P-521', 'RSA-2048'] as const) {
      const { der } = await makeCsr(kind)
      expect(await readCsr(der)).toEqual(new Pkcs10CertificateRequest(der).publicKey.rawData)
    }
  })

  test('and never fails otherwise than by saying what is wrong, whatever it is given', async () => {
    const request = await signed(VERSION, sequence(), key, ATTRIBUTES)
    const cut = fc.record({ at: fc.nat(request.length), gone: fc.nat(4), put: fc.uint8Array({ maxLength: 4 }) })
    await fc.assert(
      fc.asyncProperty(cut, async ({ at, gone, put }) => {
        const der = Uint8Array.of(...request.subarray(0, at), ...put, ...request.subarray(at + gone))
        if ((await verdict(der)) === null) expect(new Uint8Array(await readCsr(der))).toEqual(key)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('a request of ours', () => {
  test.each(['ES256', 'ES384', 'RS256'] as const)(
    'T-22: of %s says whose key it is for, and nothing else',
    async (alg) => {
      const { publicJwk, privateJwk } = await generateLocalKey(alg)
      const key = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, ALGORITHMS[alg].key, true, ['verify'])
      const spki = (await crypto.subtle.exportKey('spki', key)) as ArrayBuffer
      const der = await writeCsr(new Uint8Array(spki), await localSigner(publicJwk, privateJwk))
      expect(await readCsr(der)).toEqual(spki)
      const request = new Pkcs10CertificateRequest(der)
      expect([request.subject, request.attributes, request.extensions]).toEqual(['', [], []])
      expect(await request.verify()).toBe(true)
    },
  )
})
