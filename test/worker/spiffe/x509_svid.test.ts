import '@abraham/reflection'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
} from '@peculiar/x509'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../../keys/algorithms.ts'
import { generateLocalKey, localSigner } from '../../../keys/local.ts'
import type { PublicJwk, Signer } from '../../../keys/signer.ts'
import { SpiffeId, TrustDomain } from '../../../worker/spiffe/id.ts'
import { openAuthority, selfSignAuthority, signX509Svid, type X509Authority } from '../../../worker/spiffe/x509_svid.ts'

const NOW = 1_790_000_000
const HOUR = 3600
const DAY = 86_400
/** Of the year 9999. */
const END_OF_TIME = 253_402_300_799
const TRUST_DOMAIN = TrustDomain.parse('example.org')
const WORKLOAD = SpiffeId.parse('spiffe://example.org/ns/shop/sa/cart')
const AUTHORITY_ALGORITHMS = ['ES256', 'ES384', 'ES512', 'RS256', 'RS384', 'RS512'] as const
const LEAF_KEYS = {
  'P-256': ALGORITHMS.ES256.key,
  'P-384': ALGORITHMS.ES384.key,
  'P-521': ALGORITHMS.ES512.key,
  'RSA-2048': ALGORITHMS.RS256.key,
  'RSA-3072': { ...ALGORITHMS.RS256.key, modulusLength: 3072 },
} as const

const authorities = new Map<AlgorithmName, X509Authority>()
const leafKeys = new Map<string, ArrayBuffer>()
let es256: X509Authority

beforeAll(async () => {
  for (const alg of AUTHORITY_ALGORITHMS) authorities.set(alg, await newAuthority(await newSigner(alg)))
  for (const [name, algorithm] of Object.entries(LEAF_KEYS)) {
    const pair = (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair
    leafKeys.set(name, (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer)
  }
  es256 = authorities.get('ES256') as X509Authority
})

async function newSigner(alg: AlgorithmName): Promise<Signer> {
  const { publicJwk, privateJwk } = await generateLocalKey(alg)
  return localSigner(publicJwk, privateJwk)
}

async function newAuthority(signer: Signer, notBefore = NOW, notAfter = NOW + DAY): Promise<X509Authority> {
  return openAuthority(await selfSignAuthority(signer, { trustDomain: TRUST_DOMAIN, notBefore, notAfter }), signer)
}

function terms(changes: Partial<Parameters<typeof signX509Svid>[0]> = {}): Parameters<typeof signX509Svid>[0] {
  return {
    spiffeId: WORKLOAD,
    dnsNames: [],
    publicKey: leafKeys.get('P-256') as ArrayBuffer,
    notBefore: NOW - 10,
    notAfter: NOW + HOUR,
    ...changes,
  }
}

async function issue(
  changes: Partial<Parameters<typeof signX509Svid>[0]> = {},
  authority = es256,
): Promise<X509Certificate> {
  return new X509Certificate(await signX509Svid(terms(changes), authority))
}

/** As the library has read it, and exactly one of its kind. */
function extensionOf<T>(certificate: X509Certificate, kind: abstract new (...args: never[]) => T): T {
  const found = certificate.extensions.filter((extension) => extension instanceof kind)
  expect(found).toHaveLength(1)
  return found[0] as T
}

function criticality(certificate: X509Certificate): Record<string, boolean> {
  return Object.fromEntries(certificate.extensions.map(({ type, critical }) => [type, critical]))
}

function namesOf(certificate: X509Certificate): { type: string; value: string }[] {
  return extensionOf(certificate, SubjectAlternativeNameExtension).names.toJSON()
}

async function keyIdentifierOf(spki: BufferSource, alg: keyof typeof LEAF_KEYS): Promise<string> {
  const key = await crypto.subtle.importKey('spki', spki, LEAF_KEYS[alg], true, ['verify'])
  const bits = (await crypto.subtle.exportKey('raw', key)) as ArrayBuffer
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bits), 0, 20).toHex()
}

describe.each(AUTHORITY_ALGORITHMS)('an authority that signs with %s', (alg) => {
  const authority = () => authorities.get(alg) as X509Authority
  const certificate = () => new X509Certificate(authority().certificate)

  test('XS-15: has signed its own certificate', async () => {
    expect(await certificate().verify({ date: new Date(1000 * NOW + 1) })).toBe(true)
    expect(certificate().issuer).toBe(certificate().subject)
  })

  test('XS-15: names its algorithm twice, without parameters for ECDSA and with NULL for RSA', async () => {
    for (const der of [authority().certificate, await signX509Svid(terms(), authority())]) {
      const identifier = ALGORITHM_IDENTIFIERS[alg]
      expect(der.toHex().split(identifier)).toHaveLength(3)
    }
  })

  test.each(Object.keys(LEAF_KEYS))('certifies a key of %s', async (kind) => {
    const publicKey = leafKeys.get(kind) as ArrayBuffer
    const leaf = await issue({ publicKey }, authority())
    expect(await leaf.verify({ publicKey: certificate().publicKey, date: new Date(1000 * NOW + 1) })).toBe(true)
    expect(leaf.publicKey.rawData).toEqual(publicKey)
    expect(leaf.issuer).toBe(certificate().subject)
  })
})

/** AlgorithmIdentifiers as RFC 5758 §3.2 and RFC 4055 §5 have them, DER. */
const ALGORITHM_IDENTIFIERS = {
  ES256: '300a06082a8648ce3d040302',
  ES384: '300a06082a8648ce3d040303',
  ES512: '300a06082a8648ce3d040304',
  RS256: '300d06092a864886f70d01010b0500',
  RS384: '300d06092a864886f70d01010c0500',
  RS512: '300d06092a864886f70d01010d0500',
}

describe('the certificate of an authority', () => {
  const certificate = () => new X509Certificate(es256.certificate)

  test('XS-4: is a CA’s, of nothing that is a CA itself, critically so', () => {
    expect(extensionOf(certificate(), BasicConstraintsExtension)).toMatchObject({ ca: true, pathLength: 0 })
  })

  test('XS-5: has keyCertSign and no other use', () => {
    expect(extensionOf(certificate(), KeyUsagesExtension).usages).toBe(KeyUsageFlags.keyCertSign)
  })

  test('XS-7: is an SVID itself, with the ID of the trust domain, which has no path', () => {
    expect(namesOf(certificate())).toEqual([{ type: 'url', value: 'spiffe://example.org' }])
  })

  test('XS-15: has these extensions and no others, and only what a reader must understand is critical', () => {
    expect(criticality(certificate())).toEqual({
      '2.5.29.17': false,
      '2.5.29.19': true,
      '2.5.29.15': true,
      '2.5.29.14': false,
      '2.5.29.35': false,
    })
  })

  test('RFC 7093 §2: names its key by the first 160 bits of its SHA-256', async () => {
    const id = await keyIdentifierOf(certificate().publicKey.rawData, 'P-256')
    expect(extensionOf(certificate(), SubjectKeyIdentifierExtension).keyId).toBe(id)
    expect(extensionOf(certificate(), AuthorityKeyIdentifierExtension).keyId).toBe(id)
  })

  test('has a name that no other has, not even one of the same key', async () => {
    const again = new X509Certificate((await newAuthority(es256.signer)).certificate)
    expect(certificate().subject).toBe(`O=spiffe-edge, 2.5.4.5=${certificate().serialNumber}`)
    expect(again.subject).not.toBe(certificate().subject)
  })
})

describe('an X.509-SVID', () => {
  test('XS-1, XS-2: has one URI, which is the SPIFFE ID, and the DNS names behind it', async () => {
    expect(namesOf(await issue({ dnsNames: ['cart.shop.svc', 'cart'] }))).toEqual([
      { type: 'url', value: WORKLOAD.toString() },
      { type: 'dns', value: 'cart.shop.svc' },
      { type: 'dns', value: 'cart' },
    ])
  })

  test('XS-3, T-22: has the same subject as all others, so its names need not be critical', async () => {
    expect((await issue({ dnsNames: ['cart'] })).subject).toBe('O=spiffe-edge')
  })

  test('XS-4: says in an empty SEQUENCE that it is no CA', async () => {
    const { ca, pathLength, value } = extensionOf(await issue(), BasicConstraintsExtension)
    expect([ca, pathLength, new Uint8Array(value).toHex()]).toEqual([false, undefined, '3000'])
  })

  test.each(Object.keys(LEAF_KEYS))('XS-5: may sign, and nothing else, with a key of %s', async (kind) => {
    const leaf = await issue({ publicKey: leafKeys.get(kind) as ArrayBuffer })
    expect(extensionOf(leaf, KeyUsagesExtension).usages).toBe(KeyUsageFlags.digitalSignature)
  })

  test('XS-6: is for both ends of TLS', async () => {
    const { usages } = extensionOf(await issue(), ExtendedKeyUsageExtension)
    expect(usages).toEqual([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth])
  })

  test('XS-3, XS-5, XS-15: has these extensions and no others', async () => {
    expect(criticality(await issue({ dnsNames: ['cart'] }))).toEqual({
      '2.5.29.17': false,
      '2.5.29.19': true,
      '2.5.29.15': true,
      '2.5.29.37': false,
      '2.5.29.14': false,
      '2.5.29.35': false,
    })
  })

  test('XS-14: names its key, and that of its authority', async () => {
    const leaf = await issue()
    const id = await keyIdentifierOf(leaf.publicKey.rawData, 'P-256')
    const ca = extensionOf(new X509Certificate(es256.certificate), SubjectKeyIdentifierExtension)
    expect(extensionOf(leaf, SubjectKeyIdentifierExtension).keyId).toBe(id)
    expect(extensionOf(leaf, AuthorityKeyIdentifierExtension).keyId).toBe(ca.keyId)
  })

  test('XS-15: is of version 3', async () => {
    expect((await signX509Svid(terms(), es256)).toHex()).toMatch(/^3082....3082....a003020102/)
  })

  test('XS-15: has a serial number that is positive, of 16 octets, and never the same', async () => {
    const serials = new Set<string>()
    for (let i = 0; i < 200; i++) serials.add((await issue()).serialNumber)
    expect(serials.size).toBe(200)
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9a-f]{31}$/)
  })

  test('whatever its terms are, a library reads them out of it', async () => {
    const segment = fc.stringMatching(/^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,200}$/)
    const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/)
    const anyTerms = fc.record({
      path: fc.array(segment, { minLength: 1, maxLength: 8 }),
      dnsNames: fc.array(
        fc
          .array(label, { minLength: 1, maxLength: 5 })
          .filter((labels) => !/^\d+$/.test(labels.at(-1) ?? ''))
          .map((labels) => labels.join('.')),
        { maxLength: 32 },
      ),
      notBefore: fc.integer({ min: 0, max: END_OF_TIME - 1 }),
      seconds: fc.integer({ min: 1, max: DAY }),
      kind: fc.constantFrom(...leafKeys.keys()),
    })
    const eternal = await newAuthority(es256.signer, 0, END_OF_TIME)
    const eternalKey = new X509Certificate(eternal.certificate).publicKey
    await fc.assert(
      fc.asyncProperty(anyTerms, async ({ path, dnsNames, notBefore, seconds, kind }) => {
        const spiffeId = SpiffeId.of(TRUST_DOMAIN, `/${path.join('/')}`)
        const notAfter = Math.min(notBefore + seconds, END_OF_TIME)
        const publicKey = leafKeys.get(kind) as ArrayBuffer
        const leaf = await issue({ spiffeId, dnsNames, notBefore, notAfter, publicKey }, eternal)
        expect(namesOf(leaf)).toEqual([
          { type: 'url', value: spiffeId.toString() },
          ...dnsNames.map((value) => ({ type: 'dns', value })),
        ])
        expect([leaf.notBefore.getTime(), leaf.notAfter.getTime()]).toEqual([1000 * notBefore, 1000 * notAfter])
        expect(leaf.publicKey.rawData).toEqual(publicKey)
        expect(await leaf.verify({ publicKey: eternalKey, signatureOnly: true })).toBe(true)
      }),
      { numRuns: 100 },
    )
  })

  test.each([
    [2_524_607_999, '170d3439313233313233353935395a'],
    [2_524_608_000, '180f32303530303130313030303030305a'],
  ])('XS-15: RFC 5280 §4.1.2.5: %i is written as it must be', async (notAfter, der) => {
    const eternal = await newAuthority(es256.signer, 0, END_OF_TIME)
    const svid = await signX509Svid(terms({ notBefore: notAfter - HOUR, notAfter }), eternal)
    expect(svid.toHex()).toContain(der)
    expect(new X509Certificate(svid).notAfter.getTime()).toBe(1000 * notAfter)
  })
})

describe('is not issued', () => {
  const verdict = (changes: Partial<Parameters<typeof signX509Svid>[0]>) => signX509Svid(terms(changes), es256)

  test('T-8, 12.3: for longer than its authority is good', async () => {
    await expect(verdict({ notAfter: NOW + DAY + 1 })).rejects.toThrow(RangeError)
    expect((await issue({ notAfter: NOW + DAY })).notAfter.getTime()).toBe(1000 * (NOW + DAY))
  })

  test.each([
    ['backwards', { notBefore: NOW + HOUR, notAfter: NOW }],
    ['for no time', { notBefore: NOW, notAfter: NOW }],
    ['for part of a second', { notAfter: NOW + 0.5 }],
    ['from before 1970', { notBefore: -1 }],
    ['from no time', { notBefore: Number.NaN }],
    ['until no time', { notAfter: Number.NaN }],
    ['from the beginning', { notBefore: Number.NEGATIVE_INFINITY }],
  ])('%s', async (_, times) => {
    await expect(verdict(times)).rejects.toThrow(RangeError)
  })

  test.each(['spiffe://example.org', 'spiffe://other.example/ns/shop/sa/cart'])('XS-2, FE-12: to %s', async (id) => {
    await expect(verdict({ spiffeId: SpiffeId.parse(id) })).rejects.toThrow(TypeError)
  })

  test.each([
    '',
    '*',
    '*.example.org',
    'Cart',
    'a..b',
    'a.',
    '-a',
    'a-',
    'a b',
    'ä',
    'a\0',
    'a_b',
    'a@b',
    'a'.repeat(64),
    '10.0.0.1',
    '1',
    'web.example.123',
  ])('T-22: with a DNS name %j', async (name) => {
    await expect(verdict({ dnsNames: ['cart', name] })).rejects.toThrow(TypeError)
  })

  test('with a DNS name of 254 characters', async () => {
    const name = `${'a.'.repeat(126)}a`
    expect(namesOf(await issue({ dnsNames: [name] }))).toHaveLength(2)
    await expect(verdict({ dnsNames: [`a${name}`] })).rejects.toThrow(TypeError)
  })
})

describe('RFC 4055 §3.1: an authority that would sign with RSA-PSS', () => {
  test.each(['PS256', 'PS384', 'PS512'] as const)('is none: %s', async (alg) => {
    const rs256 = authorities.get('RS256') as X509Authority
    const signer: Signer = { ...es256.signer, publicJwk: { ...rs256.signer.publicJwk, alg } }
    const refusal = { name: 'SigningError', code: 'key_mismatch' }
    await expect(newAuthority(signer)).rejects.toMatchObject(refusal)
    await expect(openAuthority(es256.certificate, signer)).rejects.toMatchObject(refusal)
  })
})

/** Made by `selfSignAuthority` as it was then. Its private key is nowhere. */
const SIGNED_IN_2026 =
  'MIICCTCCAa+gAwIBAgIQSFA+MZSsmeYKFGgcGOv5DzAKBggqhkjOPQQDAjBBMRQwEgYDVQQKEwtzcGlmZmUtZWRnZTEpMCcGA1UEBRMgNDg1MDNlMzE5NGFjOTllNjBhMTQ2ODFjMThlYmY5MGYwHhcNMjYxMTE4MTEwNjQwWhcNMzYxMTExMDcwNjQwWjBBMRQwEgYDVQQKEwtzcGlmZmUtZWRnZTEpMCcGA1UEBRMgNDg1MDNlMzE5NGFjOTllNjBhMTQ2ODFjMThlYmY5MGYwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATih4OCvkjblXgS3lP94/o4rfXX7m9dKsb4xpru4Zk9xA9+Hyejg2Sa2hOjAqa76IYdeQJoIvu3R+HTKMBNhrDWo4GIMIGFMB8GA1UdEQQYMBaGFHNwaWZmZTovL2V4YW1wbGUub3JnMBIGA1UdEwEB/wQIMAYBAf8CAQAwDgYDVR0PAQH/BAQDAgIEMB0GA1UdDgQWBBReIpWRSdzBQMyS8PnqgJBnyTpw7zAfBgNVHSMEGDAWgBReIpWRSdzBQMyS8PnqgJBnyTpw7zAKBggqhkjOPQQDAgNIADBFAiEAtjEFCtlizPdCcZHEolNeSrCwofrvUUToWRbwW9EKaSsCIEGXY29uPdszb4rbHhEP86IVnHjMXxI6XbIh0L6LgRGY'

describe('an authority is opened', () => {
  test('of a certificate that was signed long ago: states keep theirs for years, whatever becomes of the template', async () => {
    const publicJwk: PublicJwk = {
      ...({
        kty: 'EC',
        use: 'sig',
        alg: 'ES256',
        kid: 'XUC-BO9ZFnUjYsI2DAZbamQpMC3iZkGKQwBCrzrR5Ic',
        crv: 'P-256',
      } as const),
      x: '4oeDgr5I25V4Et5T_eP6OK311-5vXSrG-Maa7uGZPcQ',
      y: 'D34fJ6ODZJraE6MCprvohh15Amgi-7dH4dMowE2GsNY',
    }
    const signer = { publicJwk, sign: () => Promise.reject(new TypeError('it signs nothing')) }
    const { trustDomain, notBefore, notAfter } = await openAuthority(Uint8Array.fromBase64(SIGNED_IN_2026), signer)
    expect([trustDomain.name, notBefore, notAfter]).toEqual(['example.org', 1795000000, 2110000000])
  })

  test('with what its certificate says', () => {
    expect(es256).toMatchObject({ notBefore: NOW, notAfter: NOW + DAY, trustDomain: TRUST_DOMAIN })
    expect(new Uint8Array(new X509Certificate(es256.certificate).subjectName.toArrayBuffer())).toEqual(es256.subject)
  })

  test('for times around 2050', async () => {
    for (const notAfter of [2_524_607_999, 2_524_608_000, END_OF_TIME])
      expect(await newAuthority(es256.signer, 0, notAfter)).toMatchObject({ notBefore: 0, notAfter })
  })

  test('by nobody else’s key', async () => {
    await expect(openAuthority(es256.certificate, await newSigner('ES256'))).rejects.toThrow(TypeError)
    await expect(openAuthority(es256.certificate, await newSigner('ES384'))).rejects.toThrow(TypeError)
  })

  test('by no X.509-SVID of its own', async () => {
    await expect(openAuthority(await signX509Svid(terms(), es256), es256.signer)).rejects.toThrow(TypeError)
  })

  test.each(['ES256', 'RS256'] as const)('with %s only as it was made: no octet of it can be another', async (alg) => {
    const { certificate, signer } = authorities.get(alg) as X509Authority
    for (let at = 0; at < certificate.length; at++) {
      const changed = certificate.slice()
      changed[at] = (changed[at] as number) ^ (1 + (at % 255))
      await expect(openAuthority(changed, signer), `octet ${at}`).rejects.toThrow(TypeError)
    }
  })

  test('only as a whole, and with nothing behind it', async () => {
    const { certificate, signer } = es256
    for (const der of [new Uint8Array(), certificate.slice(0, -1), Uint8Array.of(...certificate, 0)])
      await expect(openAuthority(der, signer)).rejects.toThrow(TypeError)
  })

  test('SigningErrors of the signer come through', async () => {
    const failing: Signer = {
      publicJwk: es256.signer.publicJwk,
      sign: () => Promise.reject(Object.assign(new Error(), { code: 'throttled' })),
    }
    await expect(newAuthority(failing)).rejects.toMatchObject({ code: 'throttled' })
    await expect(signX509Svid(terms(), { ...es256, signer: failing })).rejects.toMatchObject({ code: 'throttled' })
  })
})
