/**
 * Whether a chain of certificates is an X.509-SVID, and whose. What is not understood is refused.
 *
 * @see [X509-SVID §5](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#5-validation)
 * @see [RFC 5280 §6](https://www.rfc-editor.org/rfc/rfc5280#section-6)
 */

import { ALGORITHMS } from '../../keys/algorithms.ts'
import {
  type Certificate,
  CertificateError,
  type CertificateErrorCode,
  readCertificate,
  readTrustAnchor,
  type TrustAnchor,
} from '../../keys/certificate.ts'
import { isSame } from '../../keys/der.ts'
import { isSignedBy } from '../../keys/signed.ts'
import { importPublicKey, PublicKeyError } from '../../keys/spki.ts'
import { SpiffeId, SpiffeIdError } from './id.ts'

/** Why a chain is no X.509-SVID. */
export type X509SvidErrorCode =
  | CertificateErrorCode
  | 'chain_empty'
  | 'chain_too_long'
  /** The same as those of a leaf, of a certificate of the trust domain's bundle. */
  | 'authority_malformed'
  /** Of a kind or size that is not certified. */
  | 'key'
  | 'critical_extension_unknown'
  | 'name_constraints'
  | 'no_uri_san'
  | 'several_uri_sans'
  | 'san_not_critical'
  | 'spiffe_id_illegal'
  /** The SPIFFE ID has none: it is the trust domain's own. */
  | 'no_path'
  | 'leaf_is_ca'
  | 'leaf_signs'
  | 'key_usage_missing'
  | 'key_usage_not_critical'
  | 'no_digital_signature'
  | 'extended_key_usage'
  | 'trust_domain_unknown'
  | 'not_yet_valid'
  | 'expired'
  /** No certificate that has been given has the name of the issuer. */
  | 'issuer_unknown'
  | 'issuer_not_ca'
  /** It has no keyCertSign, or not critically so. */
  | 'issuer_key_usage'
  | 'issuer_not_yet_valid'
  | 'issuer_expired'
  | 'path_length'
  | 'signature'

/** Thrown for a chain that is no X.509-SVID. Holds none of it. */
export class X509SvidError extends Error {
  override readonly name = 'X509SvidError'
  readonly code: X509SvidErrorCode

  constructor(code: X509SvidErrorCode) {
    super(`X.509-SVID refused: ${code.replaceAll('_', ' ')}`)
    this.code = code
  }
}

/** Nobody's path is half as long. With {@link findPath} it bounds the signatures that are checked. */
const MAX_INTERMEDIATES = 8

const KEY_USAGE = '2.5.29.15'
const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17'
const NAME_CONSTRAINTS = '2.5.29.30'
/** Extensions whose meaning is looked at below, and so may be critical: these, basicConstraints and extKeyUsage. */
const UNDERSTOOD: ReadonlySet<string> = new Set([KEY_USAGE, SUBJECT_ALTERNATIVE_NAME, '2.5.29.19', '2.5.29.37'])
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const ANY_EXTENDED_KEY_USAGE = '2.5.29.37.0'

const EMPTY_NAME = Uint8Array.of(0x30, 0)

/**
 * @param chain DER each: the leaf, and behind it intermediates in any order
 * @param bundles the CA certificates of each trust domain, DER, by its name. None but those of the leaf's own trust domain
 *   are considered (XS-9)
 * @param now seconds since the epoch
 * @returns whose it is, until when it is good, in seconds since the epoch, and its key as SubjectPublicKeyInfo, DER
 * @throws X509SvidError
 */
export async function validateX509Svid(
  chain: readonly Uint8Array<ArrayBuffer>[],
  bundles: ReadonlyMap<string, readonly Uint8Array<ArrayBuffer>[]>,
  now: number,
): Promise<{ spiffeId: SpiffeId; notAfter: number; publicKey: Uint8Array<ArrayBuffer> }> {
  const [first, ...others] = chain
  if (first === undefined) throw new X509SvidError('chain_empty')
  if (others.length > MAX_INTERMEDIATES) throw new X509SvidError('chain_too_long')
  const leaf = await readOne(first)
  checkLeaf(leaf)
  const spiffeId = readSpiffeId(leaf)
  await importKey(leaf, leaf)
  const bundle = bundles.get(spiffeId.trustDomain.name)
  if (!bundle) throw new X509SvidError('trust_domain_unknown')
  if (!(now >= leaf.notBefore)) throw new X509SvidError('not_yet_valid')
  if (!(now <= leaf.notAfter)) throw new X509SvidError('expired')
  const intermediates = await Promise.all(others.map(readOne))
  const authorities = await Promise.all(bundle.map(readAuthority))
  await findPath(leaf, intermediates, authorities, now)
  return { spiffeId, notAfter: leaf.notAfter, publicKey: leaf.publicKey }
}

async function readOne(der: Uint8Array<ArrayBuffer>): Promise<Certificate> {
  try {
    return await readCertificate(der)
  } catch (error) {
    if (error instanceof CertificateError) throw new X509SvidError(error.code)
    throw error
  }
}

async function readAuthority(der: Uint8Array<ArrayBuffer>): Promise<TrustAnchor> {
  try {
    return await readTrustAnchor(der)
  } catch (error) {
    if (error instanceof CertificateError) throw new X509SvidError('authority_malformed')
    throw error
  }
}

/** X509-SVID §4 and §5.2. */
function checkLeaf(leaf: Certificate): void {
  checkExtensions(leaf)
  if (leaf.isCa) throw new X509SvidError('leaf_is_ca')
  if (!leaf.keyUsage) throw new X509SvidError('key_usage_missing')
  const { digitalSignature, certSign, crlSign } = leaf.keyUsage
  if (certSign || crlSign) throw new X509SvidError('leaf_signs')
  if (leaf.extensions.get(KEY_USAGE) !== true) throw new X509SvidError('key_usage_not_critical')
  if (!digitalSignature) throw new X509SvidError('no_digital_signature')
  const uses = leaf.extendedKeyUsage
  if (uses && !(uses.includes(SERVER_AUTH) && uses.includes(CLIENT_AUTH))) throw new X509SvidError('extended_key_usage')
}

/** X509-SVID §2 and §3.1. */
function readSpiffeId({ uris, subject, extensions }: Certificate): SpiffeId {
  const [uri, another] = uris
  if (uri === undefined) throw new X509SvidError('no_uri_san')
  if (another !== undefined) throw new X509SvidError('several_uri_sans')
  if (isSame(subject, EMPTY_NAME) && extensions.get(SUBJECT_ALTERNATIVE_NAME) !== true)
    throw new X509SvidError('san_not_critical')
  let spiffeId: SpiffeId
  try {
    spiffeId = SpiffeId.parse(uri)
  } catch (error) {
    if (error instanceof SpiffeIdError) throw new X509SvidError('spiffe_id_illegal')
    throw error
  }
  if (spiffeId.path === '') throw new X509SvidError('no_path')
  return spiffeId
}

/**
 * Breadth first: each intermediate is looked at where it is nearest to the leaf, which is where its limit on the length of
 * the path is the least in the way.
 *
 * @throws X509SvidError with what was wrong with the first certificate that has the name of the issuer
 * @see [RFC 5280 §6.1](https://www.rfc-editor.org/rfc/rfc5280#section-6.1)
 */
async function findPath(
  leaf: Certificate,
  intermediates: readonly Certificate[],
  authorities: readonly TrustAnchor[],
  now: number,
): Promise<void> {
  const unused = new Set(intermediates)
  let problem: X509SvidError | null = null
  let reached = [leaf]
  for (let below = 0; reached.length > 0; below++) {
    const next: Certificate[] = []
    for (const certificate of reached)
      for (const [issuer, intermediate] of [
        ...authorities.map((one) => [one, null] as const),
        ...unused.values().map((one) => [one, one] as const),
      ]) {
        if (!isSame(issuer.subject, certificate.issuer)) continue
        try {
          await checkIssuer(issuer, certificate, below, now)
        } catch (error) {
          if (!(error instanceof X509SvidError)) throw error
          problem ??= error
          continue
        }
        // An authority.
        if (!intermediate) return
        unused.delete(intermediate)
        next.push(intermediate)
      }
    reached = next
  }
  throw problem ?? new X509SvidError('issuer_unknown')
}

/**
 * @param below how many intermediates are between the issuer and the leaf
 * @throws X509SvidError
 */
async function checkIssuer(issuer: TrustAnchor, certificate: Certificate, below: number, now: number): Promise<void> {
  checkExtensions(issuer)
  if (!issuer.isCa) throw new X509SvidError('issuer_not_ca')
  if (!issuer.keyUsage?.certSign || issuer.extensions.get(KEY_USAGE) !== true)
    throw new X509SvidError('issuer_key_usage')
  const uses = issuer.extendedKeyUsage
  if (uses && !uses.includes(ANY_EXTENDED_KEY_USAGE) && !(uses.includes(SERVER_AUTH) && uses.includes(CLIENT_AUTH)))
    throw new X509SvidError('extended_key_usage')
  if (issuer.pathLength !== null && issuer.pathLength < below) throw new X509SvidError('path_length')
  if (!(now >= issuer.notBefore)) throw new X509SvidError('issuer_not_yet_valid')
  if (!(now <= issuer.notAfter)) throw new X509SvidError('issuer_expired')
  if (!(await isSignedBy(certificate.signed, await importKey(issuer, certificate))))
    throw new X509SvidError('signature')
}

function checkExtensions({ extensions }: TrustAnchor): void {
  // Where somebody has written down limits that we do not check, nothing is to be believed beyond them.
  if (extensions.has(NAME_CONSTRAINTS)) throw new X509SvidError('name_constraints')
  for (const [type, critical] of extensions)
    if (critical && !UNDERSTOOD.has(type)) throw new X509SvidError('critical_extension_unknown')
}

/** @returns the key of `owner`, for the signature of `signed` */
async function importKey(owner: TrustAnchor, { signed }: Certificate): Promise<CryptoKey> {
  try {
    return await importPublicKey(owner.publicKey, ALGORITHMS[signed.alg].hash)
  } catch (error) {
    if (error instanceof PublicKeyError) throw new X509SvidError('key')
    throw error
  }
}
