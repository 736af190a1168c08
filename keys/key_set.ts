/**
 * Somebody else's JWK Set, as keys to verify with.
 *
 * @see [RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)
 */

import { base64url } from 'jose'
import { ALGORITHMS, type AlgorithmName, isAlgorithmName, MIN_RSA_MODULUS_BITS } from './algorithms.ts'
import type { VerificationKey } from './jws.ts'

/** An issuer has a key, or a few while it rotates. The bound keeps one document from filling an isolate's memory. */
export const MAX_KEYS = 100

/** A set that may not be used. The message is ours and repeats nothing of the set. */
export class KeySetError extends Error {
  override readonly name = 'KeySetError'
}

/** By `kid`. */
export type KeySet = ReadonlyMap<string, IssuerKey>

export interface IssuerKey extends VerificationKey {
  /** The same text for the same key, under whatever `kid`, by which two sets can be told to share it. */
  readonly mark: string
}

/**
 * Keys of kinds that are not for us are passed over, as RFC 7517 §5 wants; a set that is wrong in itself is not used.
 *
 * @param jwks the `keys` member
 * @param algorithms what the issuer may sign with
 * @throws KeySetError
 */
export async function readKeySet(jwks: readonly unknown[], algorithms: readonly AlgorithmName[]): Promise<KeySet> {
  if (jwks.length > MAX_KEYS) throw new KeySetError('the JWKS has too many keys')
  const keys = new Map<string, IssuerKey>()
  for (const entry of jwks) {
    if (typeof entry !== 'object' || entry === null) throw new KeySetError('the JWKS holds something that is no key')
    const jwk = entry as JsonWebKey & { kid?: unknown }
    if (isPrivate(jwk)) throw new KeySetError('the JWKS holds a private key')
    const key = await verificationKey(jwk)
    if (!key || typeof jwk.kid !== 'string' || !algorithms.includes(key.alg)) continue
    if (keys.has(jwk.kid)) throw new KeySetError('the JWKS has one kid twice')
    keys.set(jwk.kid, { ...key, mark: keyMark(jwk) })
  }
  if (keys.size === 0) throw new KeySetError('the JWKS has no key that can be used')
  return keys
}

/** Members that give away a secret: of a key pair, or a shared key. Two primes are as good as the private exponent. */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const

/** @see [RFC 7518 §6](https://www.rfc-editor.org/rfc/rfc7518#section-6) */
export function isPrivate(jwk: JsonWebKey): boolean {
  return PRIVATE_MEMBERS.some((name) => jwk[name] !== undefined)
}

/** @returns the same text for the same key, whatever its `kid` */
export function keyMark(jwk: JsonWebKey): string {
  return JSON.stringify(keyMembers(jwk) ?? jwk)
}

/**
 * Whether a key is written in the one way that RFC 7518 §6.2.1 and §6.3.1 have for it, so that equal keys look equal. Other
 * kinds of keys are not judged: nobody reads them here.
 */
export function isCanonical(jwk: JsonWebKey): boolean {
  const members = keyMembers(jwk)
  if (!members) return true
  const { kty, crv, ...numbers } = members
  return Object.values(numbers).every((text) => {
    if (typeof text !== 'string') return false
    const bytes = decode(text)
    if (!bytes || base64url.encode(bytes) !== text) return false
    // A coordinate has the length of the curve's field, a number of RSA no leading zero.
    return kty === 'EC' ? bytes.length === COORDINATE_BYTES[crv ?? ''] : bytes[0] !== 0
  })
}

const COORDINATE_BYTES: Readonly<Record<string, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 }

/** The members that make the key, and none that mean nothing for its kind. Null for a kind that nobody reads here. */
export function keyMembers({ kty, crv, x, y, n, e }: JsonWebKey): JsonWebKey | null {
  if (kty === 'EC') return { kty, crv, x, y } as JsonWebKey
  return kty === 'RSA' ? ({ kty, n, e } as JsonWebKey) : null
}

function decode(text: string): Uint8Array | null {
  try {
    return base64url.decode(text)
  } catch {
    return null
  }
}

/** Null for a key that is not for signatures, or of a kind, size or algorithm that we do not read. */
async function verificationKey(jwk: JsonWebKey & { use?: unknown; alg?: unknown }): Promise<VerificationKey | null> {
  if (jwk.use !== undefined && jwk.use !== 'sig') return null
  const alg = jwk.alg ?? impliedAlgorithm(jwk)
  return isAlgorithmName(alg) ? importJwk(jwk, alg) : null
}

/** @returns null for a key that is not one for `alg`, is too small, or is not in its canonical form */
export async function importJwk(jwk: JsonWebKey, alg: AlgorithmName): Promise<VerificationKey | null> {
  const wanted = ALGORITHMS[alg]
  if (jwk.kty !== wanted.kty || (wanted.kty === 'EC' && jwk.crv !== wanted.crv) || !isCanonical(jwk)) return null
  try {
    const key = await crypto.subtle.importKey('jwk', keyMembers(jwk) ?? jwk, wanted.key, false, ['verify'])
    const { modulusLength } = key.algorithm as { modulusLength?: number }
    if (modulusLength !== undefined && modulusLength < MIN_RSA_MODULUS_BITS) return null
    return { alg, key }
  } catch {
    return null
  }
}

/** A curve has one algorithm; an RSA key that does not say is taken for RS256, as every OIDC provider means it. */
function impliedAlgorithm({ kty, crv }: JsonWebKey): AlgorithmName | undefined {
  if (kty === 'RSA') return 'RS256'
  return (Object.keys(ALGORITHMS) as AlgorithmName[]).find((name) => {
    const wanted = ALGORITHMS[name]
    return wanted.kty === 'EC' && wanted.kty === kty && wanted.crv === crv
  })
}
