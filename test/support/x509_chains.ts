/**
 * Chains of certificates, good and bad, each with what is to be said of it. Made octet by octet: no library makes most of
 * what is wrong with them.
 */

import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import {
  ascii,
  BIT_STRING,
  bitString,
  element,
  explicit,
  integer,
  OCTET_STRING,
  objectIdentifier,
  printableString,
  sequence,
  setOf,
  TRUE,
  time,
} from '../../keys/der.ts'
import { derSignature } from '../../keys/ecdsa.ts'
import { publicJwk } from '../../keys/jwks.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import { signatureAlgorithm } from '../../keys/signed.ts'
import type { Signer } from '../../keys/signer.ts'
import type { X509SvidErrorCode } from '../../worker/spiffe/x509_validation.ts'

type Der = Uint8Array<ArrayBuffer>

export const NOW = 1_790_000_000
const HOUR = 3600
const DAY = 86_400
export const WORKLOAD = 'spiffe://example.org/ns/shop/sa/cart'

/** Bits of KeyUsage, as RFC 5280 §4.2.1.3 counts them. */
const DIGITAL_SIGNATURE = 0
const KEY_AGREEMENT = 4
const CERT_SIGN = 5
const CRL_SIGN = 6

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const ANY_USAGE = '2.5.29.37.0'

/** ecdsa-with-SHA1. */
const SHA_1 = sequence(objectIdentifier('1.2.840.10045.4.1'))
const RSA_1024 = { ...ALGORITHMS.RS256.key, modulusLength: 1024 }

interface Fields {
  version: 1 | 3
  subject: Der
  uris: readonly string[]
  dnsNames: readonly string[]
  sanCritical: boolean
  /** Absent where null. */
  basicConstraints: { readonly ca: boolean; readonly pathLength?: number } | null
  keyUsage: readonly number[] | null
  keyUsageCritical: boolean
  extendedKeyUsage: readonly string[] | null
  /** Behind all others. */
  extensions: readonly Der[]
  notBefore: number
  notAfter: number
  publicKey: ArrayBuffer
  /** Of the outside, where it is to differ from what is signed. */
  outerAlg: AlgorithmName | null
  /** AlgorithmIdentifier, where another one than the signer's is to be said to have been used. */
  identifier: Der | null
}

/** Who signs: a key and a name. */
interface Issuer {
  readonly signer: Signer
  readonly name: Der
  readonly publicKey: ArrayBuffer
}

export interface ChainCase {
  readonly name: string
  readonly chain: readonly Der[]
  /** CA certificates by trust domain. */
  readonly bundles: ReadonlyMap<string, readonly Der[]>
  readonly now: number
  /** What our judge says; null if it takes the chain, for {@link WORKLOAD}. */
  readonly code: X509SvidErrorCode | null
  /** Why we are stricter, where go-spiffe takes the chain. */
  readonly goSpiffeTakes?: string
}

function nameOf(commonName: string): Der {
  return sequence(setOf(sequence(objectIdentifier('2.5.4.3'), printableString(commonName))))
}

async function newIssuer(commonName: string, alg: AlgorithmName = 'ES256'): Promise<Issuer> {
  const { publicJwk, privateJwk } = await generateLocalKey(alg)
  const key = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, ALGORITHMS[alg].key, true, ['verify'])
  const publicKey = (await crypto.subtle.exportKey('spki', key)) as ArrayBuffer
  return { signer: await localSigner(publicJwk, privateJwk), name: nameOf(commonName), publicKey }
}

function extension(type: string, value: Der, critical: boolean): Der {
  const wrapped = element(OCTET_STRING, value)
  return critical ? sequence(objectIdentifier(type), TRUE, wrapped) : sequence(objectIdentifier(type), wrapped)
}

function keyUsageBits(bits: readonly number[]): Der {
  const octet = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0)
  return element(BIT_STRING, Uint8Array.of(octet === 0 ? 0 : 7 - Math.max(...bits), octet))
}

async function makeCertificate(issuer: Issuer, fields: Fields): Promise<Der> {
  const names = [
    ...fields.uris.map((uri) => element(0x86, ascii(uri))),
    ...fields.dnsNames.map((name) => element(0x82, ascii(name))),
  ]
  const { basicConstraints, keyUsage, extendedKeyUsage } = fields
  const limit = basicConstraints?.pathLength === undefined ? [] : [integer(Uint8Array.of(basicConstraints.pathLength))]
  const extensions = [
    ...(names.length > 0 ? [extension('2.5.29.17', sequence(...names), fields.sanCritical)] : []),
    ...(basicConstraints
      ? [extension('2.5.29.19', basicConstraints.ca ? sequence(TRUE, ...limit) : sequence(), true)]
      : []),
    ...(keyUsage ? [extension('2.5.29.15', keyUsageBits(keyUsage), fields.keyUsageCritical)] : []),
    ...(extendedKeyUsage ? [extension('2.5.29.37', sequence(...extendedKeyUsage.map(objectIdentifier)), false)] : []),
    ...fields.extensions,
  ]
  const { alg } = issuer.signer.publicJwk
  const v3 = fields.version === 3
  const tbs = sequence(
    ...(v3 ? [explicit(0, integer(Uint8Array.of(2)))] : []),
    integer(crypto.getRandomValues(new Uint8Array(8))),
    fields.identifier ?? signatureAlgorithm(alg),
    issuer.name,
    sequence(time(fields.notBefore), time(fields.notAfter)),
    fields.subject,
    new Uint8Array(fields.publicKey),
    ...(v3 ? [explicit(3, sequence(...extensions))] : []),
  )
  const signature = await issuer.signer.sign(tbs)
  const form = ALGORITHMS[alg].kty === 'EC' ? derSignature(signature) : signature
  return sequence(tbs, fields.identifier ?? signatureAlgorithm(fields.outerAlg ?? alg), bitString(form))
}

const LEAF = {
  version: 3,
  subject: nameOf('leaf'),
  uris: [WORKLOAD],
  dnsNames: [],
  sanCritical: false,
  basicConstraints: { ca: false },
  keyUsage: [DIGITAL_SIGNATURE],
  keyUsageCritical: true,
  extendedKeyUsage: [SERVER_AUTH, CLIENT_AUTH],
  extensions: [],
  notBefore: NOW - HOUR,
  notAfter: NOW + HOUR,
  outerAlg: null,
  identifier: null,
} as const satisfies Omit<Fields, 'publicKey'>

const CA = {
  ...LEAF,
  uris: [],
  basicConstraints: { ca: true },
  keyUsage: [CERT_SIGN],
  extendedKeyUsage: null,
  notBefore: NOW - DAY,
  notAfter: NOW + DAY,
} as const satisfies Omit<Fields, 'publicKey' | 'subject'> & { subject: Der }

async function publicKeyOf(algorithm: Parameters<typeof crypto.subtle.generateKey>[0]): Promise<ArrayBuffer> {
  const pair = (await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as CryptoKeyPair
  return (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer
}

/** An extension that nobody knows, of the arc for examples. */
const unknown = (critical: boolean) => extension('2.999.1', sequence(), critical)
/** permittedSubtrees: one URI host. */
const nameConstraints = (critical: boolean) =>
  extension('2.5.29.30', sequence(element(0xa0, sequence(element(0x86, ascii('example.org'))))), critical)

export async function makeChainCases(): Promise<ChainCase[]> {
  const root = await newIssuer('root')
  const other = await newIssuer('other root')
  const namesake = await newIssuer('root')
  const first = await newIssuer('intermediate 1')
  const second = await newIssuer('intermediate 2')
  const leafKey = await publicKeyOf(ALGORITHMS.ES256.key)

  const leaf = (changes: Partial<Fields> = {}, issuer = root) =>
    makeCertificate(issuer, { ...LEAF, publicKey: leafKey, ...changes })
  const ca = (subject: Issuer, changes: Partial<Fields> = {}, issuer = subject) =>
    makeCertificate(issuer, { ...CA, subject: subject.name, publicKey: subject.publicKey, ...changes })

  const rootCertificate = await ca(root)
  const otherCertificate = await ca(other)
  const byFirst = await leaf({}, first)
  const firstCertificate = await ca(first, {}, root)

  const bundlesWith = (...authorities: Der[]) =>
    new Map([
      ['example.org', authorities],
      ['other.example', [otherCertificate]],
    ])
  const usual = { bundles: bundlesWith(rootCertificate), now: NOW }
  const good = (name: string, chain: Der[], more: Partial<ChainCase> = {}): ChainCase => {
    return { name, chain, ...usual, code: null, ...more }
  }
  const bad = (name: string, code: X509SvidErrorCode, chain: Der[], more: Partial<ChainCase> = {}): ChainCase => {
    return { name, chain, ...usual, code, ...more }
  }
  const withRoot = async (changes: Partial<Fields>) => ({ bundles: bundlesWith(await ca(root, changes)) })
  const viaFirst = async (changes: Partial<Fields>) => [byFirst, await ca(first, changes, root)]

  // A path of many, the last of which the root has signed.
  const long: Der[] = []
  let below = await newIssuer('deep 0')
  long.push(await leaf({}, below))
  for (let depth = 1; depth <= 9; depth++) {
    const above = depth === 9 ? root : await newIssuer(`deep ${depth}`)
    long.push(await ca(below, {}, above))
    below = above
  }

  const p384 = await p384WithSha256(root.name)
  const rsa = await newIssuer('root', 'RS512')
  const selfSigned = await leaf({ subject: root.name, publicKey: root.publicKey })

  return [
    good('a leaf of an authority', [await leaf()]),
    good('a leaf with DNS names', [await leaf({ dnsNames: ['cart.shop.svc', 'cart'] })]),
    good('a leaf that may be used for more', [await leaf({ keyUsage: [DIGITAL_SIGNATURE, KEY_AGREEMENT] })]),
    good('a leaf without extended key usage', [await leaf({ extendedKeyUsage: null })]),
    good('a leaf with a third extended key usage', [
      await leaf({ extendedKeyUsage: [SERVER_AUTH, CLIENT_AUTH, '2.999.2'] }),
    ]),
    good('a leaf without basic constraints', [await leaf({ basicConstraints: null })]),
    good('a leaf without a subject, whose SAN is critical', [await leaf({ subject: sequence(), sanCritical: true })]),
    good('a leaf with an unknown extension that is not critical', [await leaf({ extensions: [unknown(false)] })]),
    good(
      'a leaf of an authority whose own signature is by SHA-1',
      [await leaf()],
      await withRoot({ identifier: SHA_1 }),
    ),
    bad('an intermediate that is signed by SHA-1', 'signature_algorithm', await viaFirst({ identifier: SHA_1 })),
    good('an intermediate', [byFirst, firstCertificate]),
    good('an intermediate with a path length of 0', await viaFirst({ basicConstraints: { ca: true, pathLength: 0 } })),
    good('an intermediate for any extended key usage', await viaFirst({ extendedKeyUsage: [ANY_USAGE] })),
    good('intermediates in the wrong order, and the root', [
      await leaf({}, second),
      firstCertificate,
      rootCertificate,
      await ca(second, {}, first),
    ]),
    good('an authority that another of its name stands before', [await leaf()], {
      bundles: bundlesWith(await ca(namesake), rootCertificate),
    }),
    good('an authority that is itself an intermediate', [byFirst], { bundles: bundlesWith(firstCertificate) }),
    good('an authority with a key of P-384 that signs with SHA-256', [await leaf({}, p384)], {
      bundles: bundlesWith(await ca(p384)),
    }),
    good('an authority with RSA and SHA-512', [await leaf({}, rsa)], { bundles: bundlesWith(await ca(rsa)) }),
    good('the first second of it', [await leaf()], { now: NOW - HOUR }),
    good('the last second of it', [await leaf()], { now: NOW + HOUR }),

    bad('no URI SAN', 'no_uri_san', [await leaf({ uris: [], dnsNames: ['cart'] })]),
    bad('a SPIFFE ID in the common name alone', 'no_uri_san', [await leaf({ uris: [], subject: nameOf(WORKLOAD) })]),
    bad('a SPIFFE ID as a DNS name alone', 'no_uri_san', [await leaf({ uris: [], dnsNames: [WORKLOAD] })]),
    bad('two SPIFFE IDs', 'several_uri_sans', [await leaf({ uris: [WORKLOAD, `${WORKLOAD}2`] })]),
    bad('a SPIFFE ID twice', 'several_uri_sans', [await leaf({ uris: [WORKLOAD, WORKLOAD] })]),
    bad('a URI that is no SPIFFE ID beside one', 'several_uri_sans', [
      await leaf({ uris: [WORKLOAD, 'https://example.org/'] }),
    ]),
    bad('an ID with an upper-case host', 'spiffe_id_illegal', [await leaf({ uris: ['spiffe://Example.org/a'] })]),
    bad('an ID with an upper-case scheme', 'spiffe_id_illegal', [await leaf({ uris: ['SPIFFE://example.org/a'] })], {
      goSpiffeTakes: 'net/url makes the scheme lower-case before go-spiffe gets to see it',
    }),
    bad('an ID with percent-encoding', 'spiffe_id_illegal', [await leaf({ uris: ['spiffe://example.org/a%62'] })]),
    bad('an ID with a port', 'spiffe_id_illegal', [await leaf({ uris: ['spiffe://example.org:443/a'] })]),
    bad('an ID with a query', 'spiffe_id_illegal', [await leaf({ uris: ['spiffe://example.org/a?b'] })]),
    bad('an ID with a trailing slash', 'spiffe_id_illegal', [await leaf({ uris: ['spiffe://example.org/a/'] })]),
    bad('an ID of another scheme', 'spiffe_id_illegal', [await leaf({ uris: ['https://example.org/a'] })]),
    bad('an ID without a path', 'no_path', [await leaf({ uris: ['spiffe://example.org'] })], {
      goSpiffeTakes: 'XS-2: its Verify does not look for a path',
    }),
    bad('a leaf that is a CA', 'leaf_is_ca', [await leaf({ basicConstraints: { ca: true } })]),
    bad('an authority in the place of a leaf', 'leaf_is_ca', [rootCertificate]),
    bad('an authority that is an SVID in the place of a leaf', 'leaf_is_ca', [
      await ca(root, { uris: ['spiffe://example.org'] }),
    ]),
    bad('a leaf that signs certificates', 'leaf_signs', [await leaf({ keyUsage: [DIGITAL_SIGNATURE, CERT_SIGN] })]),
    bad('a leaf that signs CRLs', 'leaf_signs', [await leaf({ keyUsage: [DIGITAL_SIGNATURE, CRL_SIGN] })]),
    bad('a leaf without key usage', 'key_usage_missing', [await leaf({ keyUsage: null })], {
      goSpiffeTakes: 'XS-5: it only looks for what must not be set',
    }),
    bad('a leaf whose key usage is not critical', 'key_usage_not_critical', [await leaf({ keyUsageCritical: false })], {
      goSpiffeTakes: 'XS-5: it does not look',
    }),
    bad('a leaf without digitalSignature', 'no_digital_signature', [await leaf({ keyUsage: [KEY_AGREEMENT] })], {
      goSpiffeTakes: 'XS-5: only its parser of own SVIDs looks',
    }),
    bad('a leaf for servers alone', 'extended_key_usage', [await leaf({ extendedKeyUsage: [SERVER_AUTH] })], {
      goSpiffeTakes: 'XS-6: it takes any extended key usage',
    }),
    bad('a leaf for clients alone', 'extended_key_usage', [await leaf({ extendedKeyUsage: [CLIENT_AUTH] })], {
      goSpiffeTakes: 'XS-6: it takes any extended key usage',
    }),
    bad('an empty subject with a SAN that is not critical', 'san_not_critical', [await leaf({ subject: sequence() })], {
      goSpiffeTakes: 'XS-3: it does not look',
    }),
    bad('an unknown critical extension', 'critical_extension_unknown', [await leaf({ extensions: [unknown(true)] })]),
    bad('name constraints on a leaf', 'name_constraints', [await leaf({ extensions: [nameConstraints(true)] })], {
      goSpiffeTakes: 'Go knows name constraints, and does not apply them to the certificate itself',
    }),
    bad('an extension twice', 'extension_twice', [await leaf({ extensions: [unknown(false), unknown(false)] })]),
    bad('two SANs', 'extension_twice', [
      await leaf({ extensions: [extension('2.5.29.17', sequence(element(0x86, ascii(`${WORKLOAD}2`))), false)] }),
    ]),
    bad('a certificate of version 1', 'version', [await leaf({ version: 1 })]),
    bad('another algorithm outside than inside', 'signature_algorithm', [await leaf({ outerAlg: 'ES384' })]),
    bad('nothing', 'chain_empty', []),
    bad('something behind the leaf', 'malformed', [Uint8Array.of(...(await leaf()), 0)]),
    bad('a leaf that is cut off', 'malformed', [(await leaf()).slice(0, -1)]),
    bad('an intermediate that is cut off', 'malformed', [await leaf(), firstCertificate.slice(0, -1)]),
    bad('a key of RSA-1024', 'key', [await leaf({ publicKey: await publicKeyOf(RSA_1024) })], {
      goSpiffeTakes: 'XS-13: it does not look at the key of a leaf',
    }),
    bad('a key of Ed25519', 'key', [await leaf({ publicKey: await publicKeyOf({ name: 'Ed25519' }) })], {
      goSpiffeTakes: 'XS-13: Go knows Ed25519',
    }),

    bad('a trust domain without a bundle', 'trust_domain_unknown', [
      await leaf({ uris: ['spiffe://third.example/a'] }),
    ]),
    bad('a trust domain without authorities', 'issuer_unknown', [await leaf()], { bundles: bundlesWith() }),
    bad('FE-12: the authority of another trust domain', 'issuer_unknown', [await leaf({}, other)]),
    bad('FE-12: an ID of another trust domain', 'issuer_unknown', [await leaf({ uris: ['spiffe://other.example/a'] })]),
    bad('an authority that only has the name', 'signature', [await leaf({}, namesake)]),
    bad('a root that comes with the chain', 'issuer_unknown', [await leaf({}, second), await ca(second)]),
    bad('a leaf that the bundle has for an authority', 'issuer_not_ca', [selfSigned], {
      bundles: bundlesWith(selfSigned),
      goSpiffeTakes: 'Go takes what is among the roots for a path of one',
    }),
    bad('a leaf that is not good yet', 'not_yet_valid', [await leaf()], { now: NOW - HOUR - 1 }),
    bad('a leaf that has expired', 'expired', [await leaf()], { now: NOW + HOUR + 1 }),
    bad('an intermediate that is not good yet', 'issuer_not_yet_valid', await viaFirst({ notBefore: NOW + 1 })),
    bad('an intermediate that has expired', 'issuer_expired', await viaFirst({ notAfter: NOW - 1 })),
    bad('an intermediate that is no CA', 'issuer_not_ca', await viaFirst({ basicConstraints: { ca: false } })),
    bad('an intermediate without basic constraints', 'issuer_not_ca', await viaFirst({ basicConstraints: null })),
    bad('an intermediate without keyCertSign', 'issuer_key_usage', await viaFirst({ keyUsage: [CRL_SIGN] })),
    bad('an intermediate without key usage', 'issuer_key_usage', await viaFirst({ keyUsage: null }), {
      goSpiffeTakes: 'XS-5: Go takes a CA without key usage for one that may do everything',
    }),
    bad(
      'an intermediate whose key usage is not critical',
      'issuer_key_usage',
      await viaFirst({ keyUsageCritical: false }),
      {
        goSpiffeTakes: 'XS-5: it does not look',
      },
    ),
    bad(
      'an intermediate for servers alone',
      'extended_key_usage',
      await viaFirst({ extendedKeyUsage: [SERVER_AUTH] }),
      {
        goSpiffeTakes: 'XS-6: it takes any extended key usage',
      },
    ),
    bad(
      'an intermediate with an unknown critical extension',
      'critical_extension_unknown',
      await viaFirst({ extensions: [unknown(true)] }),
    ),
    bad(
      'XS-8: an intermediate with name constraints',
      'name_constraints',
      await viaFirst({ extensions: [nameConstraints(true)] }),
      {
        goSpiffeTakes: 'Go applies name constraints, and the ID is within these',
      },
    ),
    bad('an intermediate of version 1', 'version', await viaFirst({ version: 1 })),
    bad('an intermediate below one with a path length of 0', 'path_length', [
      await leaf({}, second),
      await ca(second, {}, first),
      await ca(first, { basicConstraints: { ca: true, pathLength: 0 } }, root),
    ]),
    bad(
      'T-22: an intermediate below an authority with a path length of 0',
      'path_length',
      [byFirst, firstCertificate],
      await withRoot({ basicConstraints: { ca: true, pathLength: 0 } }),
    ),
    bad(
      'an authority that is not good yet',
      'issuer_not_yet_valid',
      [await leaf()],
      await withRoot({ notBefore: NOW + 1 }),
    ),
    bad('an authority that has expired', 'issuer_expired', [await leaf()], await withRoot({ notAfter: NOW - 1 })),
    bad(
      'an authority that is no CA',
      'issuer_not_ca',
      [await leaf()],
      await withRoot({ basicConstraints: { ca: false } }),
    ),
    bad(
      'an authority without keyCertSign',
      'issuer_key_usage',
      [await leaf()],
      await withRoot({ keyUsage: [CRL_SIGN] }),
    ),
    bad(
      'an authority with an unknown critical extension',
      'critical_extension_unknown',
      [await leaf()],
      await withRoot({ extensions: [unknown(true)] }),
    ),
    bad('an authority that is no certificate', 'authority_malformed', [await leaf()], {
      bundles: bundlesWith(rootCertificate, rootCertificate.slice(1)),
    }),
    bad('nine intermediates', 'chain_too_long', long, { goSpiffeTakes: 'it has no such limit' }),
  ]
}

/** A key that signs with another hash than that of its curve: ours do not, others do. */
async function p384WithSha256(name: Der): Promise<Issuer> {
  const pair = (await crypto.subtle.generateKey(ALGORITHMS.ES384.key, true, ['sign', 'verify'])) as CryptoKeyPair
  const signer: Signer = {
    publicJwk: { ...(await publicJwk(pair.publicKey, 'ES384')), alg: 'ES256' },
    sign: async (tbs) =>
      new Uint8Array(await crypto.subtle.sign(ALGORITHMS.ES256.signature, pair.privateKey, tbs as Der)),
  }
  return { signer, name, publicKey: (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer }
}
