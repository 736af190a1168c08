import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { bitString, NULL, objectIdentifier, readElement, SEQUENCE, sequence } from '../../../keys/der.ts'
import {
  authorityAlgorithms,
  ForeignBundleError,
  parseForeignBundle,
} from '../../../worker/federation/foreign_bundle.ts'
import { NOW } from '../../support/clock.ts'
import {
  type Jwk,
  jwtEntry,
  KeyUsageFlags,
  makeAuthority,
  makeCertificate,
  spireBundle,
  type TestAuthority,
  x509Entry,
} from '../../support/foreign_bundle.ts'

const RSA_PSS = '1.2.840.113549.1.1.10'

let jwt: TestAuthority
let other: TestAuthority
let rsa: TestAuthority
let ca: TestAuthority
let certificate: Uint8Array<ArrayBuffer>
let server: Jwk[]
beforeAll(async () => {
  ;[jwt, other, rsa, ca] = await Promise.all([
    makeAuthority('jwt-1'),
    makeAuthority('jwt-2'),
    makeAuthority('jwt-3', 'RS256'),
    makeAuthority('ca', 'ES384'),
  ])
  certificate = await makeCertificate(ca)
  server = [x509Entry(ca, certificate), jwtEntry(jwt)]
})

async function verdict(text: string): Promise<string | null> {
  try {
    await parseForeignBundle(text)
    return null
  } catch (error) {
    if (error instanceof ForeignBundleError) return error.code
    throw error
  }
}

const withKeys = (...keys: unknown[]) => JSON.stringify({ keys })

describe('a bundle that is good', () => {
  test('as a SPIRE server writes it', async () => {
    expect(await parseForeignBundle(spireBundle(server, 7))).toEqual({
      sequence: 7,
      refreshHintSeconds: 300,
      jwtAuthorities: [{ kid: 'jwt-1', publicKey: jwt.jwk }],
      x509Authorities: [{ der: certificate, sha256: await sha256(certificate), notAfter: NOW + 86_400 }],
    })
  })

  test('as go-spiffe writes it: in one line, without what is not set', async () => {
    const text = JSON.stringify({ keys: [{ ...jwtEntry(jwt) }, { ...x509Entry(ca, certificate), kid: '' }] })
    expect(await parseForeignBundle(text)).toMatchObject({
      sequence: null,
      refreshHintSeconds: null,
      jwtAuthorities: [{ kid: 'jwt-1' }],
      x509Authorities: [{ notAfter: NOW + 86_400 }],
    })
  })

  test('BU-4: with no keys, which trusts nothing', async () => {
    expect(await parseForeignBundle(withKeys())).toMatchObject({ jwtAuthorities: [], x509Authorities: [] })
  })

  test('with an RSA authority, which may sign in six ways; a curve has one', async () => {
    const { jwtAuthorities } = await parseForeignBundle(withKeys(jwtEntry(rsa), jwtEntry(jwt)))
    expect(jwtAuthorities.map(({ publicKey }) => authorityAlgorithms(publicKey))).toEqual([
      ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
      ['ES256'],
    ])
    expect(authorityAlgorithms({ kty: 'EC', crv: 'P-384' })).toEqual(['ES384'])
    expect(authorityAlgorithms({ kty: 'EC', crv: 'P-521' })).toEqual(['ES512'])
  })

  test.each<[string, () => Jwk]>([
    ['without use', () => ({ ...jwtEntry(other), use: undefined })],
    ['for use sig', () => ({ ...jwtEntry(other), use: 'sig' })],
    ['for use wit-svid', () => ({ ...jwtEntry(other), use: 'wit-svid' })],
    ['for use in other letters', () => ({ ...jwtEntry(other), use: 'JWT-SVID' })],
    ['for use with a blank', () => ({ ...jwtEntry(other), use: 'jwt-svid ' })],
    ['X509-SVID in other letters', () => ({ ...x509Entry(ca, certificate), use: 'X509-SVID' })],
    ['of an unknown kty', () => ({ use: 'jwt-svid', kid: 'ed', kty: 'OKP', crv: 'Ed25519', x: 'AA' })],
    ['of an unknown kty and without kid', () => ({ use: 'jwt-svid', kty: 'AKP', alg: 'ML-DSA-44', pub: 'AA' })],
    ['without kty', () => ({ ...jwtEntry(other), kty: undefined })],
    ['of an unknown curve', () => ({ ...jwtEntry(other), crv: 'secp256k1' })],
    ['x509-svid without x5c', () => ({ ...x509Entry(ca, certificate), x5c: undefined })],
    ['x509-svid with an empty x5c', () => ({ ...x509Entry(ca, certificate), x5c: [] })],
  ])('BU-5, XS-12: a key %s is passed over, and the others count', async (_, key) => {
    const { jwtAuthorities, x509Authorities } = await parseForeignBundle(withKeys(key(), jwtEntry(jwt)))
    expect(jwtAuthorities.map(({ kid }) => kid)).toEqual(['jwt-1'])
    expect(x509Authorities).toEqual([])
  })

  test('a key of RSA-1024 is passed over', async () => {
    const weak = await makeAuthority('weak', 'RS256', 1024)
    expect((await parseForeignBundle(withKeys(jwtEntry(weak)))).jwtAuthorities).toEqual([])
  })

  test('an X.509 authority of RSA-1024 is passed over', async () => {
    const weak = await makeAuthority('weak', 'RS256', 1024)
    const keys = [x509Entry(weak, await makeCertificate(weak)), x509Entry(ca, certificate)]
    const { x509Authorities } = await parseForeignBundle(withKeys(...keys))
    expect(x509Authorities.map(({ der }) => der)).toEqual([certificate])
  })

  test.each([
    ['SHA-1', () => sequence(objectIdentifier('1.2.840.113549.1.1.5'), NULL)],
    ['RSA-PSS', () => sequence(objectIdentifier(RSA_PSS), sequence())],
    ['Ed25519', () => sequence(objectIdentifier('1.3.101.112'))],
    ['something new', () => sequence(objectIdentifier('1.3.6.1.4.1.99999.1'))],
  ])('a root is one whose own signature is by %s: nobody verifies it', async (_, identifier) => {
    const root = resigned(certificate, identifier())
    const { x509Authorities } = await parseForeignBundle(withKeys(x509Entry(ca, root)))
    expect(x509Authorities).toMatchObject([{ der: root, notAfter: NOW + 86_400 }])
  })

  test('an X.509 authority whose RSA key is for PSS alone is passed over', async () => {
    const spki = new Uint8Array((await crypto.subtle.exportKey('spki', rsa.publicKey)) as ArrayBuffer)
    const { rest } = readElement(readElement(spki, SEQUENCE).contents, SEQUENCE)
    const forPss = sequence(sequence(objectIdentifier(RSA_PSS)), rest)
    const root = replaced(await makeCertificate(rsa), spki, forPss)
    const keys = [x509Entry(rsa, root), x509Entry(ca, certificate)]
    const { x509Authorities } = await parseForeignBundle(withKeys(...keys))
    expect(x509Authorities.map(({ der }) => der)).toEqual([certificate])
  })

  test('XS-12: of x5c only the first counts', async () => {
    const key = { ...x509Entry(ca, certificate), x5c: [certificate.toBase64(), 'garbage'] }
    expect((await parseForeignBundle(withKeys(key))).x509Authorities).toHaveLength(1)
  })

  test('BU-7: members that mean nothing to us may be there', async () => {
    expect(await verdict(JSON.stringify({ keys: [{ ...jwtEntry(jwt), x5t: 'x' }], more: {} }))).toBeNull()
  })

  test('the same key under the same kid twice is one', async () => {
    expect((await parseForeignBundle(withKeys(jwtEntry(jwt), jwtEntry(jwt)))).jwtAuthorities).toHaveLength(1)
  })

  test('a CA without key usage is one, as RFC 5280 has it', async () => {
    const root = await makeCertificate(ca, { usages: null })
    expect(await verdict(withKeys(x509Entry(ca, root)))).toBeNull()
  })

  test('12.4: a hint that is absurdly long is cut', async () => {
    for (const hint of [2_592_001, 2 ** 60, 1e300])
      expect(await parseForeignBundle(`{"keys":[],"spiffe_refresh_hint":${hint}}`)).toMatchObject({
        refreshHintSeconds: 2_592_000,
      })
  })
})

describe('12.4: a bundle is refused as a whole', () => {
  test.each<[string, string, string]>([
    ['that is nothing', '', 'not_json'],
    ['that is HTML', '<!doctype html><title>x</title>', 'not_json'],
    ['that is a list', '[]', 'not_an_object'],
    ['that is null', 'null', 'not_an_object'],
    ['with two keys members', '{"keys":[],"keys":[]}', 'member_repeated'],
    ['with a repeated member inside', '{"keys":[{"use":"a","use":"b"}]}', 'member_repeated'],
    ['without keys', '{"spiffe_sequence":1}', 'keys_missing'],
    ['that is a bundle map', '{"trust_domains":{}}', 'keys_missing'],
    ['whose keys are null', '{"keys":null}', 'keys_not_a_list'],
    ['whose keys are an object', '{"keys":{}}', 'keys_not_a_list'],
    ['with a key that is text', '{"keys":["x"]}', 'key_malformed'],
    ['with a key that is null', '{"keys":[null]}', 'key_malformed'],
    ['with a key that is a list', '{"keys":[[]]}', 'key_malformed'],
    ['with too many keys', withKeys(...Array.from({ length: 101 }, () => ({}))), 'too_many_keys'],
    ['with a negative sequence', '{"keys":[],"spiffe_sequence":-1}', 'sequence_invalid'],
    ['with a fractional sequence', '{"keys":[],"spiffe_sequence":1.5}', 'sequence_invalid'],
    ['with a sequence as text', '{"keys":[],"spiffe_sequence":"1"}', 'sequence_invalid'],
    ['with null for a sequence', '{"keys":[],"spiffe_sequence":null}', 'sequence_invalid'],
    ['BU-2: with a sequence of 2^53', '{"keys":[],"spiffe_sequence":9007199254740992}', 'sequence_invalid'],
    ['BU-2: with a sequence of 2^53 + 1', '{"keys":[],"spiffe_sequence":9007199254740993}', 'sequence_invalid'],
    ['with a hint of 0', '{"keys":[],"spiffe_refresh_hint":0}', 'refresh_hint_invalid'],
    ['with a negative hint', '{"keys":[],"spiffe_refresh_hint":-300}', 'refresh_hint_invalid'],
    ['with a fractional hint', '{"keys":[],"spiffe_refresh_hint":0.5}', 'refresh_hint_invalid'],
    ['with a hint as text', '{"keys":[],"spiffe_refresh_hint":"300"}', 'refresh_hint_invalid'],
    ['with a hint without end', '{"keys":[],"spiffe_refresh_hint":1e999}', 'refresh_hint_invalid'],
  ])('%s', async (_, text, code) => {
    expect(await verdict(text)).toBe(code)
  })

  test.each<[string, () => unknown, string]>([
    ['BU-8: with a private exponent', () => ({ ...jwtEntry(jwt), d: 'AA' }), 'private_key'],
    ['BU-8: with a shared key, whatever it is for', () => ({ kty: 'oct', k: 'AA' }), 'private_key'],
    ...['p', 'q', 'dp', 'dq', 'qi', 'oth'].map((name): [string, () => unknown, string] => [
      `BU-8: with ${name}`,
      () => ({ ...jwtEntry(rsa), [name]: 'AA' }),
      'private_key',
    ]),
    ['JS-13: with a jwt-svid without kid', () => ({ ...jwtEntry(jwt), kid: undefined }), 'kid_missing'],
    ['JS-13: with a jwt-svid with an empty kid', () => ({ ...jwtEntry(jwt), kid: '' }), 'kid_missing'],
    ['JS-13: with a kid that is no text', () => ({ ...jwtEntry(jwt), kid: 1 }), 'kid_missing'],
    ['with a coordinate of another length', () => ({ ...jwtEntry(jwt), x: 'AA' }), 'key_malformed'],
    ['with a coordinate that is no text', () => ({ ...jwtEntry(jwt), x: 1 }), 'key_malformed'],
    ['with a coordinate missing', () => ({ ...jwtEntry(jwt), y: undefined }), 'key_malformed'],
    ['with a point on no curve', () => ({ ...jwtEntry(jwt), y: jwt.jwk.x }), 'key_malformed'],
    [
      'with an x5c that is text',
      () => ({ ...x509Entry(ca, certificate), x5c: certificate.toBase64() }),
      'x5c_malformed',
    ],
    ['with an x5c of null', () => ({ ...x509Entry(ca, certificate), x5c: null }), 'x5c_malformed'],
    ['with PEM in x5c', () => ({ ...x509Entry(ca, certificate), x5c: [pem(certificate)] }), 'x5c_malformed'],
    [
      'with base64 of PEM in x5c',
      () => ({ ...x509Entry(ca, certificate), x5c: [btoa(pem(certificate))] }),
      'x5c_malformed',
    ],
    [
      'with base64url in x5c',
      () => ({ ...x509Entry(ca, certificate), x5c: [certificate.toBase64({ alphabet: 'base64url' })] }),
      'x5c_malformed',
    ],
    [
      'with line ends in x5c',
      () => ({ ...x509Entry(ca, certificate), x5c: [`${certificate.toBase64()}\n`] }),
      'x5c_malformed',
    ],
    ['with something behind the certificate', () => x509Entry(ca, Uint8Array.of(...certificate, 0)), 'x5c_malformed'],
    [
      'with a certificate that names another algorithm inside than outside',
      () => x509Entry(ca, resigned(certificate, sequence(objectIdentifier('1.3.101.112')), false)),
      'x5c_malformed',
    ],
    ['with half a certificate', () => x509Entry(ca, certificate.slice(0, -1)), 'x5c_malformed'],
    ['with an x5c that is no certificate', () => x509Entry(ca, Uint8Array.of(0x30, 0)), 'x5c_malformed'],
    ['with the certificate of another key', () => ({ ...x509Entry(ca, certificate), ...other.jwk }), 'x5c_other_key'],
    [
      'with the certificate of a key of another kind',
      () => ({ ...x509Entry(ca, certificate), ...rsa.jwk, crv: undefined }),
      'x5c_other_key',
    ],
  ])('%s', async (_, key, code) => {
    expect(await verdict(withKeys(jwtEntry(other), key()))).toBe(code)
  })

  test.each([
    ['of a leaf', { ca: false, usages: KeyUsageFlags.digitalSignature }],
    ['that does not say what it is', { ca: null, usages: null }],
    ['of a CA that may sign no certificates', { ca: true, usages: KeyUsageFlags.cRLSign }],
  ])('XS-4, XS-5: with the certificate %s', async (_, change) => {
    expect(await verdict(withKeys(x509Entry(ca, await makeCertificate(ca, change))))).toBe('x5c_not_a_ca')
  })

  test('with two keys under one kid', async () => {
    expect(await verdict(withKeys(jwtEntry(jwt), { ...jwtEntry(other), kid: 'jwt-1' }))).toBe('kid_ambiguous')
  })

  test('with more than can be kept', async () => {
    const keys = Array.from({ length: 100 }, (_, at) => ({ ...jwtEntry(jwt), kid: `${at}${'k'.repeat(3000)}` }))
    expect(await verdict(withKeys(...keys))).toBe('too_large')
  })

  test('with certificates that are too large, of which none is read', async () => {
    // Each is another one, and none can be read.
    const garbage = (count: number, bytes: number) =>
      withKeys(...Array.from({ length: count }, (_, at) => x509Entry(ca, new Uint8Array(bytes).fill(at))))
    expect(await verdict(garbage(1, 4096))).toBe('x5c_malformed')
    expect(await verdict(garbage(1, 4097))).toBe('too_large')
    expect(await verdict(garbage(16, 4096))).toBe('x5c_malformed')
    expect(await verdict(garbage(17, 4096))).toBe('too_large')
  })

  test('and the reason holds none of it', async () => {
    const error = await parseForeignBundle(withKeys({ ...jwtEntry(jwt), d: 'SECRET' })).catch((reason: Error) => reason)
    expect(String((error as Error).stack)).not.toContain('SECRET')
  })
})

test('whatever comes is a bundle or has a code, and no key of it is one that was not there', async () => {
  const member = fc.constantFrom('kty', 'use', 'kid', 'crv', 'x', 'y', 'n', 'e', 'x5c', 'd', 'alg')
  const value = fc.oneof(
    fc.constantFrom<unknown>('EC', 'RSA', 'P-256', 'jwt-svid', 'x509-svid', '', null, 0, [], ['AA'], {}, undefined),
    fc.json().map((text) => JSON.parse(text) as unknown),
  )
  const key = fc
    .tuple(fc.constantFrom(0, 1), fc.dictionary(member, value, { maxKeys: 2 }))
    .map(([at, change]) => ({ ...server[at], ...change }))
  await fc.assert(
    fc.asyncProperty(
      // Also the authority's key of one use that is said to be of the other.
      fc.array(fc.oneof(key, fc.anything()), { maxLength: 4 }),
      fc.oneof(fc.integer(), fc.double(), fc.string()),
      async (keys, sequence) => {
        const text = JSON.stringify({ keys, spiffe_sequence: sequence }, (_, one) =>
          typeof one === 'bigint' ? String(one) : one,
        )
        try {
          const { jwtAuthorities, x509Authorities } = await parseForeignBundle(text)
          for (const { publicKey } of jwtAuthorities) expect([jwt.jwk, ca.jwk]).toContainEqual(publicKey)
          for (const { der } of x509Authorities) expect(der).toEqual(certificate)
        } catch (error) {
          expect(error).toBeInstanceOf(ForeignBundleError)
        }
      },
    ),
    { numRuns: 300 },
  )
})

test('whatever text comes has a code', async () => {
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), async (text) => {
      expect(await verdict(text)).not.toBeNull()
    }),
  )
})

/** @returns a certificate as if it had been signed by another algorithm */
function resigned(der: Uint8Array<ArrayBuffer>, identifier: Uint8Array<ArrayBuffer>, inside = true) {
  const tbs = readElement(readElement(der, SEQUENCE).contents, SEQUENCE)
  const version = readElement(tbs.contents, 0xa0)
  const serial = readElement(version.rest, 0x02)
  const algorithm = readElement(serial.rest, SEQUENCE)
  return sequence(
    sequence(version.whole, serial.whole, inside ? identifier : algorithm.whole, algorithm.rest),
    identifier,
    bitString(new Uint8Array(64)),
  )
}

/** @returns a certificate with another element of its TBSCertificate in the place of one */
function replaced(der: Uint8Array<ArrayBuffer>, before: Uint8Array<ArrayBuffer>, after: Uint8Array<ArrayBuffer>) {
  const tbs = readElement(readElement(der, SEQUENCE).contents, SEQUENCE)
  const elements: Uint8Array[] = []
  for (let { contents: rest } = tbs; rest.length > 0; ) {
    const next = readElement(rest, rest[0] ?? 0)
    elements.push(next.whole.toHex() === before.toHex() ? after : next.whole)
    rest = next.rest
  }
  return sequence(sequence(...elements), tbs.rest)
}

async function sha256(octets: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', octets)).toHex()
}

function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${der.toBase64()}\n-----END CERTIFICATE-----\n`
}
