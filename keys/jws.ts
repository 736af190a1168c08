/**
 * JWS Compact Serialization: made with a {@link Signer}, taken apart without mercy, checked with a public key.
 *
 * jose's producers want a key where we may have only a signing call to a KMS, and its consumers would take apart again
 * what has been taken apart here by stricter rules, hence both are here. The signatures themselves are WebCrypto's.
 *
 * @see [RFC 7515 §7.1](https://www.rfc-editor.org/rfc/rfc7515#section-7.1)
 */

import { base64url } from 'jose'
import { ALGORITHMS, type AlgorithmName, isAlgorithmName } from './algorithms.ts'
import type { Signer } from './signer.ts'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Three parts of unpadded base64url and nothing around them (RFC 7515 §2, §3.1). */
const COMPACT = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/

/**
 * Why a text is not a token that we read any further: it is no compact JWS of two JSON objects, its header has a member
 * or value that we do not allow, or its `alg` is not one of the nine.
 */
export type JwsErrorCode = 'malformed' | 'header' | 'algorithm'

/** Thrown by {@link parseCompact}. Never holds any of the token. */
export class JwsError extends Error {
  override readonly name = 'JwsError'
  readonly code: JwsErrorCode

  constructor(code: JwsErrorCode) {
    super(`not an acceptable JWS: ${code}`)
    this.code = code
  }
}

/** A token that has been read and not yet believed. */
export interface UnverifiedJws {
  readonly header: { readonly alg: AlgorithmName; readonly kid: string }
  readonly payload: Readonly<Record<string, unknown>>
  /** What the signature is over: the first two parts as they stand. */
  readonly signingInput: string
  readonly signature: Uint8Array
}

/** A public key with the one algorithm it may be used with (RFC 8725 §3.1). */
export interface VerificationKey {
  readonly alg: AlgorithmName
  readonly key: CryptoKey
}

/**
 * Takes a token apart and checks its header, before any key is looked for.
 *
 * The header may hold `alg`, `kid` and `typ` and nothing else, so there is no `crit` to obey and no `jku`, `jwk` or
 * `x5c` to be led by.
 *
 * @param parseJson parser for header and payload, which throws on anything but one JSON object
 * @param ignored header members that may be there and mean nothing
 * @throws JwsError
 * @see [JWT-SVID §2](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#2-jose-header)
 */
export function parseCompact(
  compact: string,
  parseJson: (text: string) => Record<string, unknown>,
  ignored: readonly string[] = [],
): UnverifiedJws {
  const parts = COMPACT.exec(compact)
  if (!parts) throw new JwsError('malformed')
  const [, encodedHeader = '', encodedPayload = '', encodedSignature = ''] = parts
  let header: Record<string, unknown>
  let payload: Record<string, unknown>
  let signature: Uint8Array
  try {
    header = parseJson(decodeText(encodedHeader))
    payload = parseJson(decodeText(encodedPayload))
    signature = decodeCanonical(encodedSignature)
  } catch {
    throw new JwsError('malformed')
  }
  const { alg, kid, typ, ...others } = header
  if (!isAlgorithmName(alg)) throw new JwsError('algorithm')
  if (typeof kid !== 'string' || kid === '') throw new JwsError('header')
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') throw new JwsError('header')
  if (!Object.keys(others).every((name) => ignored.includes(name))) throw new JwsError('header')
  return { header: { alg, kid }, payload, signingInput: `${encodedHeader}.${encodedPayload}`, signature }
}

/**
 * @returns whether `jws` is signed by `key`, with the algorithm that belongs to the key and no other
 */
export async function verifyCompact(jws: UnverifiedJws, { alg, key }: VerificationKey): Promise<boolean> {
  if (jws.header.alg !== alg) return false
  try {
    const signingInput = encoder.encode(jws.signingInput)
    return await crypto.subtle.verify(ALGORITHMS[alg].signature, key, new Uint8Array(jws.signature), signingInput)
  } catch {
    // The key is of another kind than its entry says.
    return false
  }
}

/**
 * @returns the token
 * @throws SigningError
 */
export async function signCompact(header: object, payload: object, signer: Signer): Promise<string> {
  const signingInput = `${encode(header)}.${encode(payload)}`
  const signature = await signer.sign(encoder.encode(signingInput))
  return `${signingInput}.${base64url.encode(signature)}`
}

function encode(value: object): string {
  return base64url.encode(encoder.encode(JSON.stringify(value)))
}

function decodeText(part: string): string {
  return decoder.decode(decodeCanonical(part))
}

/** One value has one encoding: a last character with stray bits would give a second text for the same token. */
function decodeCanonical(part: string): Uint8Array {
  const bytes = base64url.decode(part)
  if (base64url.encode(bytes) !== part) throw new JwsError('malformed')
  return bytes
}
