/**
 * The bundle of another trust domain, judged before anything is believed that it vouches for. What is not for us is passed
 * over; what is wrong in itself makes the whole of it worth nothing, and what was known before stays.
 *
 * @see [SPIFFE Trust Domain and Bundle §4](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#4-spiffe-bundle-format)
 */

import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { CertificateError, readTrustAnchor } from '../../keys/certificate.ts'
import type { UnverifiedJws, VerificationKey } from '../../keys/jws.ts'
import { importJwk, isCanonical, isPrivate, keyMark, keyMembers, MAX_KEYS } from '../../keys/key_set.ts'
import { isKnownKind, PublicKeyError } from '../../keys/spki.ts'
import { parseJsonObject } from '../strict_json.ts'

/** A hint that is longer says no more: nobody publishes a key so long before its use. */
const MAX_REFRESH_HINT_SECONDS = 30 * 86_400
/** Of the keys that are kept. All of a hundred peers must fit into one answer of the state, which holds 32 MiB. */
const MAX_KEPT_BYTES = 256 * 1024
/** Of one authority's certificate: several times what the largest key and signature take. To read one costs what is in it. */
const MAX_CERTIFICATE_BYTES = 4096
/** Of them all. Read they are in the state's own time, in which nobody else's bundle is. */
const MAX_CERTIFICATES_BYTES = 64 * 1024

/** Why a bundle is refused. */
export type ForeignBundleErrorCode =
  | 'not_json'
  | 'not_an_object'
  | 'member_repeated'
  | 'keys_missing'
  | 'keys_not_a_list'
  | 'too_many_keys'
  | 'too_large'
  | 'key_malformed'
  | 'private_key'
  | 'kid_missing'
  | 'kid_ambiguous'
  | 'x5c_malformed'
  | 'x5c_not_a_ca'
  | 'x5c_other_key'
  | 'sequence_invalid'
  | 'refresh_hint_invalid'

/** Thrown where a bundle is refused. Holds none of it. */
export class ForeignBundleError extends Error {
  override readonly name = 'ForeignBundleError'
  readonly code: ForeignBundleErrorCode

  constructor(code: ForeignBundleErrorCode) {
    super(`not an acceptable bundle: ${code.replaceAll('_', ' ')}`)
    this.code = code
  }
}

/** A bundle that has been judged. Plain data, which can be stored and sent as it is. */
export interface ForeignBundle {
  /** `spiffe_sequence`; null if it has none. */
  readonly sequence: number | null
  /** `spiffe_refresh_hint`; null if it has none. */
  readonly refreshHintSeconds: number | null
  /** What signs JWT-SVIDs, each `kid` once. */
  readonly jwtAuthorities: readonly JwtAuthority[]
  readonly x509Authorities: readonly X509Authority[]
}

export interface JwtAuthority {
  readonly kid: string
  /** The members that make the key, and no others. */
  readonly publicKey: JsonWebKey
}

export interface X509Authority {
  /** The certificate. */
  readonly der: Uint8Array<ArrayBuffer>
  /** Of the certificate, in hexadecimal. */
  readonly sha256: string
  /** Seconds since the epoch. */
  readonly notAfter: number
}

/** What can be said of a bundle without looking into its certificates and keys. */
interface Outline {
  readonly sequence: number | null
  readonly refreshHintSeconds: number | null
  readonly jwtAuthorities: readonly JwtAuthority[]
  readonly x509: readonly { readonly der: Uint8Array<ArrayBuffer>; readonly publicKey: JsonWebKey }[]
}

/**
 * @param text a JWK Set with the parameters that SPIFFE adds to it, of any trust domain: it does not say of which (BU-1)
 * @returns what SVIDs of that trust domain may be verified with. An empty set is a bundle too: then nothing of it is trusted (BU-4).
 * @throws ForeignBundleError
 * @see BU-2 to BU-8, XS-11, XS-12
 */
export async function parseForeignBundle(text: string): Promise<ForeignBundle> {
  const { x509, jwtAuthorities, ...parameters } = outline(text)
  const bundle: ForeignBundle = {
    ...parameters,
    jwtAuthorities: await usable(jwtAuthorities),
    x509Authorities: (await Promise.all(x509.map(readAuthority))).filter((authority) => authority !== null),
  }
  const certificates = bundle.x509Authorities.reduce((sum, { der }) => sum + der.byteLength, 0)
  if (JSON.stringify(bundle.jwtAuthorities).length + certificates > MAX_KEPT_BYTES)
    throw new ForeignBundleError('too_large')
  return bundle
}

/**
 * The part of {@link parseForeignBundle} that waits for nobody.
 *
 * @throws ForeignBundleError
 */
export function checkForeignBundle(text: string): void {
  outline(text)
}

/** @returns the algorithms that a key of an authority may be used with: one of a curve, six of RSA. A JWK does not say (BU-7). */
export function authorityAlgorithms({ kty, crv }: JsonWebKey): AlgorithmName[] {
  return (Object.keys(ALGORITHMS) as AlgorithmName[]).filter((name) => {
    const wanted = ALGORITHMS[name]
    return wanted.kty === kty && (wanted.kty === 'RSA' || wanted.crv === crv)
  })
}

/** @returns the one key that the token may be signed with, if there is one: by its `kid`, for its `alg` */
export async function verificationKeys(
  { header: { kid, alg } }: UnverifiedJws,
  bundle: ForeignBundle,
): Promise<ReadonlyMap<string, VerificationKey>> {
  const authority = bundle.jwtAuthorities.find((one) => one.kid === kid)
  if (!authority || !authorityAlgorithms(authority.publicKey).includes(alg)) return new Map()
  const key = await importJwk(authority.publicKey, alg)
  return new Map(key ? [[kid, key]] : [])
}

function outline(text: string): Outline {
  const document = parseDocument(text)
  const { keys, spiffe_sequence: sequence, spiffe_refresh_hint: hint } = document
  if (keys === undefined) throw new ForeignBundleError('keys_missing')
  if (!Array.isArray(keys)) throw new ForeignBundleError('keys_not_a_list')
  if (keys.length > MAX_KEYS) throw new ForeignBundleError('too_many_keys')
  const jwt = new Map<string, JwtAuthority>()
  const x509 = new Map<string, Outline['x509'][number]>()
  for (const entry of keys) {
    const jwk = readJwk(entry)
    // Also of a key that is not for us: who gives one away has made a mistake that more than this key may suffer from (BU-8).
    if (isPrivate(jwk)) throw new ForeignBundleError('private_key')
    const { use, kid, x5c } = jwk
    if (use !== 'jwt-svid' && use !== 'x509-svid') continue
    const publicKey = readPublicKey(jwk)
    if (!publicKey) continue
    if (use === 'jwt-svid' && (typeof kid !== 'string' || kid === '')) throw new ForeignBundleError('kid_missing')
    if (use === 'jwt-svid') {
      const before = jwt.get(kid as string)
      if (before && keyMark(before.publicKey) !== keyMark(publicKey)) throw new ForeignBundleError('kid_ambiguous')
      jwt.set(kid as string, { kid: kid as string, publicKey })
    } else if (x5c !== undefined && !(Array.isArray(x5c) && x5c.length === 0)) {
      // Whatever else is in it means nothing (XS-12).
      const [text, der] = readX5c(x5c)
      if (der.byteLength > MAX_CERTIFICATE_BYTES) throw new ForeignBundleError('too_large')
      x509.set(text, { der, publicKey })
    }
  }
  // Before any of them is read, which is what costs.
  if (x509.values().reduce((sum, { der }) => sum + der.byteLength, 0) > MAX_CERTIFICATES_BYTES)
    throw new ForeignBundleError('too_large')
  return {
    sequence: readSequence(sequence),
    refreshHintSeconds: readRefreshHint(hint),
    jwtAuthorities: [...jwt.values()],
    x509: [...x509.values()],
  }
}

function parseDocument(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new ForeignBundleError('not_json')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ForeignBundleError('not_an_object')
  try {
    return parseJsonObject(text)
  } catch {
    throw new ForeignBundleError('member_repeated')
  }
}

function readJwk(entry: unknown): JsonWebKey & { readonly kid?: unknown; readonly x5c?: unknown } {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) throw new ForeignBundleError('key_malformed')
  return entry as JsonWebKey
}

/** @returns null for a key of a kind that nobody here reads, which is no mistake (BU-5, RFC 7517 §5) */
function readPublicKey(jwk: JsonWebKey): JsonWebKey | null {
  if (authorityAlgorithms(jwk).length === 0) return null
  if (!isCanonical(jwk)) throw new ForeignBundleError('key_malformed')
  return keyMembers(jwk)
}

/** The standard's base64, with padding, of DER: no PEM, no base64url, no line ends (XS-11). */
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/

function readX5c(x5c: unknown): [text: string, der: Uint8Array<ArrayBuffer>] {
  const certificate: unknown = Array.isArray(x5c) ? x5c[0] : null
  if (typeof certificate !== 'string' || !BASE64.test(certificate)) throw new ForeignBundleError('x5c_malformed')
  // Not by Uint8Array.fromBase64: the command line judges bundles too, and its Node has none yet.
  let octets: string
  try {
    octets = atob(certificate)
  } catch {
    throw new ForeignBundleError('x5c_malformed')
  }
  if (btoa(octets) !== certificate) throw new ForeignBundleError('x5c_malformed')
  return [certificate, Uint8Array.from(octets, (octet) => octet.charCodeAt(0))]
}

/** Beyond 2^53 - 1 two numbers that differ would look the same (BU-2). */
function readSequence(sequence: unknown): number | null {
  if (sequence === undefined) return null
  if (!Number.isSafeInteger(sequence) || (sequence as number) < 0) throw new ForeignBundleError('sequence_invalid')
  return sequence as number
}

function readRefreshHint(hint: unknown): number | null {
  if (hint === undefined) return null
  if (!Number.isInteger(hint) || (hint as number) < 1) throw new ForeignBundleError('refresh_hint_invalid')
  return Math.min(hint as number, MAX_REFRESH_HINT_SECONDS)
}

/** An RSA key that is too small is none that RFC 7518 allows, and is passed over. A point on no curve is a broken key. */
async function usable(authorities: readonly JwtAuthority[]): Promise<JwtAuthority[]> {
  const keys = await Promise.all(
    authorities.map(async (authority) => {
      const [alg] = authorityAlgorithms(authority.publicKey)
      if (alg && (await importJwk(authority.publicKey, alg))) return [authority]
      if (authority.publicKey.kty === 'EC') throw new ForeignBundleError('key_malformed')
      return []
    }),
  )
  return keys.flat()
}

/** @see X509-SVID §4: a CA's key usage, which a root that is no SVID may leave out (RFC 5280 §4.2.1.3), must allow certificates */
async function readAuthority({ der, publicKey }: Outline['x509'][number]): Promise<X509Authority | null> {
  try {
    const { isCa, keyUsage, publicKey: certified, notAfter } = await readTrustAnchor(der)
    if (!isCa || keyUsage?.certSign === false) throw new ForeignBundleError('x5c_not_a_ca')
    // RSA that is for PSS alone looks like any other in a JWK.
    if (!isKnownKind(certified)) return null
    const [alg] = authorityAlgorithms(publicKey)
    if (!alg || !(await isSameKey(certified, publicKey, alg))) throw new ForeignBundleError('x5c_other_key')
    // One that could be factored vouches for nobody.
    if (!(await importJwk(publicKey, alg))) return null
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', der))
    return { der, sha256: Array.from(digest, (octet) => octet.toString(16).padStart(2, '0')).join(''), notAfter }
  } catch (error) {
    if (error instanceof CertificateError || error instanceof PublicKeyError)
      throw new ForeignBundleError('x5c_malformed')
    throw error
  }
}

/** @returns whether the key of a certificate is that of the JWK that it stands in */
async function isSameKey(spki: Uint8Array<ArrayBuffer>, publicKey: JsonWebKey, alg: AlgorithmName): Promise<boolean> {
  try {
    const key = await crypto.subtle.importKey('spki', spki, ALGORITHMS[alg].key, true, ['verify'])
    return keyMark((await crypto.subtle.exportKey('jwk', key)) as JsonWebKey) === keyMark(publicKey)
  } catch {
    // It is of another kind.
    return false
  }
}
