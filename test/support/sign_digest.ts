/**
 * Signatures over a digest, which WebCrypto has none of: it hashes for itself. A KMS that is asked with
 * `MessageType=DIGEST` must not.
 *
 * For tests: nothing here runs in constant time.
 */

import { base64url } from 'jose'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'

/** Orders of the curves (FIPS 186-5, SEC 2). */
const ORDERS = {
  'P-256': 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  'P-384': 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  'P-521': BigInt(`0x1${'f'.repeat(65)}a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409`),
}

/** DER of the DigestInfo before the digest itself (RFC 8017 §9.2, note 1). */
const DIGEST_INFO = {
  'SHA-256': '3031300d060960864801650304020105000420',
  'SHA-384': '3041300d060960864801650304020205000430',
  'SHA-512': '3051300d060960864801650304020305000440',
}

/**
 * @param privateKey as a JWK
 * @param digest as long as the hash of `alg` makes it
 * @returns the signature as KMS gives it: DER for ECDSA, the plain octets for RSA
 */
export async function signDigest(privateKey: JsonWebKey, alg: AlgorithmName, digest: Uint8Array): Promise<Uint8Array> {
  const algorithm = ALGORITHMS[alg]
  if (algorithm.kty === 'EC') return signEcdsa(privateKey, algorithm.crv, digest)
  const modulus = number(base64url.decode(privateKey.n ?? ''))
  const bytes = (modulus.toString(2).length + 7) >> 3
  const encoded = alg.startsWith('PS')
    ? await encodePss(digest, algorithm.hash, bytes)
    : encodePkcs1(digest, algorithm.hash, bytes)
  const exponent = number(base64url.decode(privateKey.d ?? ''))
  return octets(power(number(encoded), exponent, modulus), bytes)
}

/** `SEQUENCE { INTEGER r, INTEGER s }` in DER, for numbers of any sign and size. */
export function derSignature(r: bigint, s: bigint): Uint8Array {
  const content = [...derInteger(r), ...derInteger(s)]
  return Uint8Array.of(0x30, ...derLength(content.length), ...content)
}

function derInteger(value: bigint): number[] {
  let bytes = 1
  while (BigInt.asIntN(8 * bytes, value) !== value) bytes++
  return [0x02, ...derLength(bytes), ...octets(BigInt.asUintN(8 * bytes, value), bytes)]
}

function derLength(length: number): number[] {
  return length < 0x80 ? [length] : [0x81, length]
}

/** FIPS 186-5 §6.4.1. WebCrypto makes the point: a fresh key pair is a random k and the point k·G. */
async function signEcdsa(
  { d = '' }: JsonWebKey,
  namedCurve: keyof typeof ORDERS,
  digest: Uint8Array,
): Promise<Uint8Array> {
  const n = ORDERS[namedCurve]
  const pair = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve }, true, ['sign'])) as CryptoKeyPair
  const { d: k = '', x = '' } = (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey
  const r = number(base64url.decode(x)) % n
  const inverse = power(number(base64url.decode(k)), n - 2n, n)
  const s = (inverse * (number(digest) + r * number(base64url.decode(d)))) % n
  return derSignature(r, s)
}

/** EMSA-PKCS1-v1_5 (RFC 8017 §9.2). */
function encodePkcs1(digest: Uint8Array, hash: keyof typeof DIGEST_INFO, bytes: number): Uint8Array {
  const encoded = new Uint8Array(bytes).fill(0xff)
  const info = [...(DIGEST_INFO[hash].match(/../g) ?? [])].map((hex) => Number.parseInt(hex, 16))
  encoded.set([0x00, 0x01])
  encoded.set([0x00, ...info, ...digest], bytes - digest.length - info.length - 1)
  return encoded
}

/** EMSA-PSS (RFC 8017 §9.1.1) with a salt as long as the digest, for a modulus of a whole number of octets. */
async function encodePss(digest: Uint8Array, hash: string, bytes: number): Promise<Uint8Array> {
  const salt = crypto.getRandomValues(new Uint8Array(digest.length))
  const h = await hashed(hash, [...new Uint8Array(8), ...digest, ...salt])
  const db = new Uint8Array(bytes - digest.length - 1)
  db.set([0x01, ...salt], db.length - salt.length - 1)
  const mask: number[] = []
  for (let counter = 0; mask.length < db.length; counter++) {
    mask.push(...(await hashed(hash, [...h, ...octets(BigInt(counter), 4)])))
  }
  const masked = db.map((octet, i) => octet ^ (mask[i] ?? 0))
  masked[0] = (masked[0] ?? 0) & 0x7f
  return Uint8Array.of(...masked, ...h, 0xbc)
}

async function hashed(hash: string, message: number[]): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest(hash, Uint8Array.from(message)))
}

function number(bigEndian: Uint8Array): bigint {
  return BigInt(`0x${[...bigEndian].map((octet) => octet.toString(16).padStart(2, '0')).join('') || '0'}`)
}

function octets(value: bigint, length: number): Uint8Array {
  const hex = value.toString(16).padStart(2 * length, '0')
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  let square = base % modulus
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus
    square = (square * square) % modulus
  }
  return result
}
