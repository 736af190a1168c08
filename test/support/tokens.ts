/** Tokens of every sort, good and bad: any header, any payload, any text between the dots, signed for real. */

import { base64url } from 'jose'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { derSignature } from './sign_digest.ts'

/** The two halves of a key that signs tokens. */
export interface TokenKey {
  readonly alg: AlgorithmName
  readonly kid: string
  /** As an issuer publishes it. */
  readonly publicJwk: JsonWebKey & { kid: string; use: string; alg: string }
  readonly publicKey: CryptoKey
  readonly privateKey: CryptoKey
}

const encoder = new TextEncoder()

/** A new key, with the `kid` that kube-apiserver would give it: the SHA-256 of its SPKI (SA-3). */
export async function makeTokenKey(alg: AlgorithmName): Promise<TokenKey> {
  const { privateKey, publicKey } = (await crypto.subtle.generateKey(ALGORITHMS[alg].key, true, [
    'sign',
    'verify',
  ])) as CryptoKeyPair
  const spki = (await crypto.subtle.exportKey('spki', publicKey)) as ArrayBuffer
  const kid = base64url.encode(new Uint8Array(await crypto.subtle.digest('SHA-256', spki)))
  const { kty, n, e, crv, x, y } = (await crypto.subtle.exportKey('jwk', publicKey)) as JsonWebKey
  const members = kty === 'RSA' ? { n, e } : { crv, x, y }
  return { alg, kid, publicKey, privateKey, publicJwk: { kty, ...members, kid, use: 'sig', alg } as never }
}

/** @param part an object to be written as JSON, in which undefined members are left out; or a text or octets as they are */
export function encodePart(part: object | string | Uint8Array): string {
  if (part instanceof Uint8Array) return base64url.encode(part)
  return base64url.encode(encoder.encode(typeof part === 'string' ? part : JSON.stringify(part)))
}

/**
 * A compact JWS whose signature is right, whatever header and payload say.
 *
 * @param key signs with its own algorithm, which need not be the one that the header names
 */
export async function signToken(header: object | string, payload: object | string, key: TokenKey): Promise<string> {
  const signingInput = `${encodePart(header)}.${encodePart(payload)}`
  return `${signingInput}.${base64url.encode(await signature(signingInput, key))}`
}

/** The attack on those who take an RSA public key for an HMAC secret: here it is one, in the form of a PEM file. */
export async function signTokenWithPublicKey(header: object, payload: object, key: TokenKey): Promise<string> {
  const spki = new Uint8Array((await crypto.subtle.exportKey('spki', key.publicKey)) as ArrayBuffer)
  const lines = btoa(String.fromCharCode(...spki)).match(/.{1,64}/g) ?? []
  const pem = `-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----\n`
  const hmac = { name: 'HMAC', hash: 'SHA-256' }
  const secret = await crypto.subtle.importKey('raw', encoder.encode(pem), hmac, false, ['sign'])
  const signingInput = `${encodePart(header)}.${encodePart(payload)}`
  const mac = new Uint8Array(await crypto.subtle.sign('HMAC', secret, encoder.encode(signingInput)))
  return `${signingInput}.${base64url.encode(mac)}`
}

/** The same token with another third part. */
export function withSignature(token: string, change: (signature: Uint8Array) => Uint8Array): string {
  const [header, payload, encoded = ''] = token.split('.')
  return `${header}.${payload}.${base64url.encode(change(base64url.decode(encoded)))}`
}

/** Ways to spoil an ECDSA signature of R‖S, each of which some verifier has fallen for. */
export const spoiledEcdsaSignatures: Readonly<Record<string, (signature: Uint8Array) => Uint8Array>> = {
  'in DER form': (signature) => {
    const half = signature.length / 2
    return derSignature(bigEndian(signature.subarray(0, half)), bigEndian(signature.subarray(half)))
  },
  'with R zero': (signature) => zeroed(signature, 0, signature.length / 2),
  'with S zero': (signature) => zeroed(signature, signature.length / 2, signature.length),
  'all zero': (signature) => new Uint8Array(signature.length),
  'one octet short': (signature) => signature.subarray(1),
  'one octet long': (signature) => Uint8Array.of(...signature, 0),
  'with one bit flipped': (signature) => signature.map((octet, index) => (index === 9 ? octet ^ 1 : octet)),
}

/** Other JWKs for one and the same EC key, each of which WebCrypto takes for it. */
export const respelledKeys: Readonly<Record<string, (jwk: JsonWebKey) => JsonWebKey>> = {
  'with a member that means nothing for it': (jwk) => ({ ...jwk, n: 'AAAA' }),
  'with padding behind a coordinate': (jwk) => ({ ...jwk, x: `${jwk.x}=` }),
  'with a blank behind a coordinate': (jwk) => ({ ...jwk, x: `${jwk.x} ` }),
  'with a zero before a coordinate': ({ x = '', ...jwk }) => ({
    ...jwk,
    x: base64url.encode(Uint8Array.of(0, ...base64url.decode(x))),
  }),
}

/** How long a piece of a token must be, for its being somewhere else to be no accident. */
const TELLING_LENGTH = 16

/** @returns a piece of `token` that stands in `text`, or null if there is none */
export function findPieceOf(token: string, text: string): string | null {
  for (let start = 0; start + TELLING_LENGTH <= token.length; start++) {
    const piece = token.slice(start, start + TELLING_LENGTH)
    if (text.includes(piece)) return piece
  }
  return null
}

async function signature(signingInput: string, { alg, privateKey }: TokenKey): Promise<Uint8Array> {
  const octets = await crypto.subtle.sign(ALGORITHMS[alg].signature, privateKey, encoder.encode(signingInput))
  return new Uint8Array(octets)
}

function zeroed(signature: Uint8Array, from: number, to: number): Uint8Array {
  return signature.map((octet, index) => (index >= from && index < to ? 0 : octet))
}

function bigEndian(octets: Uint8Array): bigint {
  return BigInt(`0x${octets.toHex()}`)
}
