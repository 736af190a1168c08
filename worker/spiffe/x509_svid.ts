/**
 * Makes X.509-SVIDs, and the certificates of the authorities that sign them. Both are one template each: nothing in them
 * is anybody's choice but what the types of this module name.
 *
 * @see [X509-SVID](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)
 * @see [RFC 5280 §4](https://www.rfc-editor.org/rfc/rfc5280#section-4)
 * @see docs/adr/0007-own-writer-library-reader.md
 */

import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import {
  ascii,
  BIT_STRING,
  element,
  explicit,
  INTEGER,
  integer,
  isSame,
  OCTET_STRING,
  objectIdentifier,
  printableString,
  readElement,
  readTime,
  SEQUENCE,
  sequence,
  setOf,
  TRUE,
  time,
} from '../../keys/der.ts'
import { isSignedBy, readSigned, signatureAlgorithm, writeSigned } from '../../keys/signed.ts'
import type { PublicJwk, Signer } from '../../keys/signer.ts'
import { DNS_NAME, MAX_DNS_NAME_LENGTH } from './dns_name.ts'
import { SpiffeId, type TrustDomain } from './id.ts'

type Der = Uint8Array<ArrayBuffer>

/** The same as SPIRE's. */
export const DEFAULT_X509_SVID_TTL_SECONDS = 3600
/** Nothing revokes an X.509-SVID but time. */
export const MAX_X509_SVID_TTL_SECONDS = 86_400

/** What signs X.509-SVIDs of a trust domain: a key, and the certificate that verifiers know it by. */
export interface X509Authority {
  /** DER. */
  readonly certificate: Der
  /** Seconds since the epoch, as {@link notAfter}. */
  readonly notBefore: number
  readonly notAfter: number
  readonly signer: Signer
  readonly trustDomain: TrustDomain
  /** The certificate's subject: a Name, DER. */
  readonly subject: Der
  /** The certificate's subject key identifier. */
  readonly keyIdentifier: Der
}

/** What is certified. */
export interface X509SvidTerms {
  readonly spiffeId: SpiffeId
  /** Lower case, without wildcard. */
  readonly dnsNames: readonly string[]
  /** SubjectPublicKeyInfo, DER, as `readCsr` returns it: of a kind that is allowed, and proven to be the asker's. */
  readonly publicKey: ArrayBuffer
  /** Seconds since the epoch, as {@link notAfter}. */
  readonly notBefore: number
  readonly notAfter: number
}

const SERIAL_OCTETS = 16
const KEY_IDENTIFIER_OCTETS = 20

/** Of GeneralName, each implicit (RFC 5280 §4.2.1.6). */
const DNS_NAME_TAG = 0x82
const URI_TAG = 0x86
/** `keyIdentifier` of AuthorityKeyIdentifier, implicit (RFC 5280 §4.2.1.1). */
const KEY_IDENTIFIER_TAG = 0x80

const V3 = explicit(0, integer(Uint8Array.of(2)))
const ORGANIZATION = attribute('2.5.4.10', 'spiffe-edge')
/** T-22: nothing that somebody asked for. Not empty either, so that no reader needs a critical SAN (XS-3). */
const LEAF_SUBJECT = sequence(ORGANIZATION)

const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17'
const BASIC_CONSTRAINTS = '2.5.29.19'
const KEY_USAGE = '2.5.29.15'

const CA_EXTENSIONS = [
  // cA, with a pathLenConstraint of 0: it signs SVIDs, and nothing that signs (T-22).
  extension(BASIC_CONSTRAINTS, sequence(TRUE, integer(Uint8Array.of(0))), 'critical'),
  // keyCertSign alone. There are no CRLs. A named bit list has no zeros behind its last one.
  extension(KEY_USAGE, element(BIT_STRING, Uint8Array.of(2, 0b0000_0100)), 'critical'),
]

const LEAF_EXTENSIONS = [
  // cA is false by default, and DER does not encode defaults (XS-4).
  extension(BASIC_CONSTRAINTS, sequence(), 'critical'),
  // digitalSignature alone, for RSA too. TLS 1.3 signs, and so does all of TLS 1.2 that is forward secret; keyEncipherment
  // would let an SVID's key decrypt, and keyAgreement is for certificates of static Diffie-Hellman.
  extension(KEY_USAGE, element(BIT_STRING, Uint8Array.of(7, 0b1000_0000)), 'critical'),
  // serverAuth and clientAuth, both or none (XS-6).
  extension('2.5.29.37', sequence(objectIdentifier('1.3.6.1.5.5.7.3.1'), objectIdentifier('1.3.6.1.5.5.7.3.2'))),
]

/**
 * Makes the self-signed CA certificate of an authority.
 *
 * @param terms its trust domain, and from when to when it is good: seconds since the epoch
 * @returns DER
 * @throws RangeError if the times are none, or in the wrong order
 * @throws SigningError of the signer; `key_mismatch` if it signs with RSA-PSS
 * @see [X509-SVID §3.2](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#32-signing-certificates)
 */
export async function selfSignAuthority(
  signer: Signer,
  terms: { trustDomain: TrustDomain; notBefore: number; notAfter: number },
): Promise<Der> {
  const publicKey = await exportPublicKey(await importJwk(signer.publicJwk))
  return writeSigned(await authorityTbs(newSerial(), terms, publicKey, signer.publicJwk.alg), signer)
}

/**
 * @param certificate DER
 * @throws TypeError if it is not a certificate that {@link selfSignAuthority} made for this very key
 * @throws SigningError `key_mismatch` if the signer signs with RSA-PSS
 */
export async function openAuthority(certificate: Der, signer: Signer): Promise<X509Authority> {
  const { alg } = signer.publicJwk
  // Throws where it is RSA-PSS.
  signatureAlgorithm(alg)
  const key = await importJwk(signer.publicJwk)
  const publicKey = await exportPublicKey(key)
  try {
    const signed = readSigned(certificate)
    if (signed?.alg === alg) {
      const { serial, ...terms } = readAuthority(readElement(signed.tbs, SEQUENCE).contents)
      // Made anew of what it says, it must come out the same: so there is nothing in it that was not looked at. Who changes the
      // template keeps the old one here too, for as long as there are certificates by it.
      const same = isSame(signed.tbs, await authorityTbs(serial, terms, publicKey, alg))
      if (same && (await isSignedBy(signed, key))) {
        const keyIdentifier = await keyIdentifierOf(publicKey)
        return { certificate, ...terms, signer, subject: authoritySubject(serial), keyIdentifier }
      }
    }
  } catch {
    // It was not even DER, or what stands in the place of a time or an ID is none.
  }
  throw new TypeError('not the certificate of this key')
}

/**
 * @returns DER
 * @throws RangeError if it would outlive its authority, or its times are none, or in the wrong order
 * @throws TypeError if the SPIFFE ID is another trust domain's or has no path, or a DNS name is none
 * @throws SigningError of the signer
 * @see [X509-SVID §3.1](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#31-leaf-certificates) and §4
 */
export async function signX509Svid(terms: X509SvidTerms, authority: X509Authority): Promise<Der> {
  const { spiffeId, dnsNames, notBefore, notAfter } = terms
  if (notAfter > authority.notAfter) throw new RangeError('it would outlive its authority')
  if (spiffeId.trustDomain.name !== authority.trustDomain.name) throw new TypeError('an ID of another trust domain')
  if (spiffeId.path === '') throw new TypeError('an ID without a path, which is the authority’s own')
  for (const name of dnsNames)
    if (name.length > MAX_DNS_NAME_LENGTH || !DNS_NAME.test(name)) throw new TypeError('not a DNS name')
  const publicKey = new Uint8Array(terms.publicKey)
  const tbs = sequence(
    V3,
    integer(newSerial()),
    signatureAlgorithm(authority.signer.publicJwk.alg),
    authority.subject,
    validity(notBefore, notAfter),
    LEAF_SUBJECT,
    publicKey,
    explicit(
      3,
      sequence(
        subjectAlternativeName(spiffeId, dnsNames),
        ...LEAF_EXTENSIONS,
        ...keyIdentifiers(await keyIdentifierOf(publicKey), authority.keyIdentifier),
      ),
    ),
  )
  return writeSigned(tbs, authority.signer)
}

async function authorityTbs(
  serial: Der,
  { trustDomain, notBefore, notAfter }: { trustDomain: TrustDomain; notBefore: number; notAfter: number },
  publicKey: Der,
  alg: AlgorithmName,
): Promise<Der> {
  const subject = authoritySubject(serial)
  const keyIdentifier = await keyIdentifierOf(publicKey)
  return sequence(
    V3,
    integer(serial),
    signatureAlgorithm(alg),
    subject,
    validity(notBefore, notAfter),
    subject,
    publicKey,
    explicit(
      3,
      sequence(
        subjectAlternativeName(SpiffeId.of(trustDomain, ''), []),
        ...CA_EXTENSIONS,
        ...keyIdentifiers(keyIdentifier, keyIdentifier),
      ),
    ),
  )
}

/** What differs from one authority's certificate to another's. Nothing that stands between is looked at. */
function readAuthority(tbs: Der): { serial: Der; trustDomain: TrustDomain; notBefore: number; notAfter: number } {
  const serial = readElement(tbs.subarray(V3.length), INTEGER)
  const algorithm = readElement(serial.rest, SEQUENCE)
  const issuer = readElement(algorithm.rest, SEQUENCE)
  const times = readElement(issuer.rest, SEQUENCE)
  const notBefore = readTime(times.contents)
  const notAfter = readTime(notBefore.rest)
  const subject = readElement(times.rest, SEQUENCE)
  const publicKey = readElement(subject.rest, SEQUENCE)
  const extensions = readElement(readElement(publicKey.rest, 0xa3).contents, SEQUENCE)
  const first = readElement(extensions.contents, SEQUENCE).contents
  const names = readElement(first.subarray(objectIdentifier(SUBJECT_ALTERNATIVE_NAME).length), OCTET_STRING)
  const uri = readElement(readElement(names.contents, SEQUENCE).contents, URI_TAG)
  return {
    serial: serial.contents,
    trustDomain: SpiffeId.parse(new TextDecoder().decode(uri.contents)).trustDomain,
    notBefore: notBefore.seconds,
    notAfter: notAfter.seconds,
  }
}

function importJwk(jwk: PublicJwk): Promise<CryptoKey> {
  return crypto.subtle.importKey('jwk', jwk as JsonWebKey, ALGORITHMS[jwk.alg].key, true, ['verify'])
}

/** @returns SubjectPublicKeyInfo, DER */
async function exportPublicKey(key: CryptoKey): Promise<Der> {
  return new Uint8Array((await crypto.subtle.exportKey('spki', key)) as ArrayBuffer)
}

/** Positive, 126 bits of it random, and always of the same length (RFC 5280 §4.1.2.2). */
function newSerial(): Der {
  const serial = crypto.getRandomValues(new Uint8Array(SERIAL_OCTETS))
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40
  return serial
}

/** No two authorities have one name: a reader that looks for the issuer by name finds one. */
function authoritySubject(serial: Der): Der {
  const hex = Array.from(serial, (octet) => octet.toString(16).padStart(2, '0')).join('')
  return sequence(ORGANIZATION, attribute('2.5.4.5', hex))
}

/** A RelativeDistinguishedName of one attribute. */
function attribute(type: string, value: string): Der {
  return setOf(sequence(objectIdentifier(type), printableString(value)))
}

function validity(notBefore: number, notAfter: number): Der {
  if (notBefore >= notAfter) throw new RangeError('it would end before it begins')
  return sequence(time(notBefore), time(notAfter))
}

function subjectAlternativeName(spiffeId: SpiffeId, dnsNames: readonly string[]): Der {
  const names = dnsNames.map((name) => element(DNS_NAME_TAG, ascii(name)))
  return extension(SUBJECT_ALTERNATIVE_NAME, sequence(element(URI_TAG, ascii(spiffeId.toString())), ...names))
}

function keyIdentifiers(subject: Der, authority: Der): Der[] {
  return [
    extension('2.5.29.14', element(OCTET_STRING, subject)),
    extension('2.5.29.35', sequence(element(KEY_IDENTIFIER_TAG, authority))),
  ]
}

/**
 * @param publicKey SubjectPublicKeyInfo
 * @see [RFC 7093 §2](https://www.rfc-editor.org/rfc/rfc7093#section-2), method 1
 */
async function keyIdentifierOf(publicKey: Der): Promise<Der> {
  const algorithm = readElement(readElement(publicKey, SEQUENCE).contents, SEQUENCE)
  const bits = readElement(algorithm.rest, BIT_STRING).contents.subarray(1)
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bits), 0, KEY_IDENTIFIER_OCTETS)
}

function extension(type: string, value: Der, critical?: 'critical'): Der {
  const wrapped = element(OCTET_STRING, value)
  return critical ? sequence(objectIdentifier(type), TRUE, wrapped) : sequence(objectIdentifier(type), wrapped)
}
