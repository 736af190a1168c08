/** Makes JWTs, good and bad, from the text of their parts, so that nothing is put right on the way. */

import { constants, createHmac, type KeyObject, sign } from 'node:crypto'

export interface ForgeKey {
  readonly alg: string
  readonly kid: string
  readonly privateKey: KeyObject
}

export function base64url(bytes: string | Uint8Array): string {
  return Buffer.from(bytes).toString('base64url')
}

/** The signature that `alg` of RFC 7518 asks for; ECDSA as R‖S unless `der`. */
export function signAs(alg: string, key: KeyObject, input: string, { der = false } = {}): Buffer {
  const bits = alg.slice(2)
  if (alg.startsWith('HS')) return createHmac(`sha${bits}`, key).update(input).digest()
  const options = alg.startsWith('ES')
    ? { dsaEncoding: der ? ('der' as const) : ('ieee-p1363' as const) }
    : alg.startsWith('PS')
      ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: Number(bits) / 8 }
      : {}
  return sign(`sha${bits}`, Buffer.from(input), { key, ...options })
}

/** @param header,payload JSON values, or the text to encode as it stands */
export function forge(
  key: ForgeKey,
  header: object | string,
  payload: object | string | Uint8Array,
  alg = key.alg,
): string {
  const text = (part: object | string | Uint8Array) =>
    typeof part === 'string' || part instanceof Uint8Array ? part : JSON.stringify(part)
  const input = `${base64url(text(header))}.${base64url(text(payload))}`
  return `${input}.${base64url(signAs(alg, key.privateKey, input))}`
}
