/** Another trust domain: its authorities, what they sign, and its bundle as servers write it. */

import '@abraham/reflection'
import {
  BasicConstraintsExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { NOW } from './clock.ts'

export { KeyUsageFlags }

const encoder = new TextEncoder()

export type Jwk = Record<string, unknown>

export interface TestAuthority {
  readonly kid: string
  readonly alg: AlgorithmName
  readonly privateKey: CryptoKey
  readonly publicKey: CryptoKey
  /** `kty` and the members that make the key. */
  readonly jwk: Jwk
}

export async function makeAuthority(kid: string, alg: AlgorithmName = 'ES256', bits = 2048): Promise<TestAuthority> {
  const { key } = ALGORITHMS[alg]
  const algorithm = key.modulusLength ? { ...key, modulusLength: bits } : key
  const pair = (await crypto.subtle.generateKey(algorithm as never, true, ['sign', 'verify'])) as CryptoKeyPair
  const { kty, crv, x, y, n, e } = (await crypto.subtle.exportKey('jwk', pair.publicKey)) as JsonWebKey
  const jwk = JSON.parse(JSON.stringify({ kty, crv, x, y, n, e })) as Jwk
  return { kid, alg, privateKey: pair.privateKey, publicKey: pair.publicKey, jwk }
}

/** @returns DER of a CA's certificate, as SPIRE makes it unless told otherwise */
export async function makeCertificate(
  { privateKey, publicKey }: TestAuthority,
  {
    ca = true as boolean | null,
    usages = KeyUsageFlags.keyCertSign as number | null,
    notBefore = NOW - 60,
    notAfter = NOW + 86_400,
  } = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const extensions: Extension[] = [
    new SubjectAlternativeNameExtension([{ type: 'url', value: 'spiffe://peer.example' }]),
    ...(ca === null ? [] : [new BasicConstraintsExtension(ca, undefined, true)]),
    ...(usages === null ? [] : [new KeyUsagesExtension(usages, true)]),
  ]
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: 'C=US, O=SPIRE',
    keys: { privateKey, publicKey },
    signingAlgorithm: { ...privateKey.algorithm, hash: 'SHA-256' },
    notBefore: new Date(notBefore * 1000),
    notAfter: new Date(notAfter * 1000),
    extensions,
  })
  return new Uint8Array(certificate.rawData)
}

export function jwtEntry({ kid, jwk }: TestAuthority): Jwk {
  return { use: 'jwt-svid', ...jwk, kid }
}

export function x509Entry({ jwk }: TestAuthority, der: Uint8Array): Jwk {
  return { use: 'x509-svid', ...jwk, x5c: [btoa(String.fromCharCode(...der))] }
}

/** As SPIRE's server writes it: members in this order, and indented by four. */
export function spireBundle(keys: readonly Jwk[], sequence: number | undefined = 1, hint: number | undefined = 300) {
  return JSON.stringify({ keys, spiffe_sequence: sequence, spiffe_refresh_hint: hint }, null, 4)
}

/** @param claims laid over a JWT-SVID's; a member that is undefined is left out */
export async function signJwtSvid(authority: TestAuthority, claims: object, header: object = {}): Promise<string> {
  const encode = (octets: Uint8Array) =>
    btoa(String.fromCharCode(...octets))
      .replaceAll('+', '-')
      .replaceAll('/', '_')
      .replace(/=+$/, '')
  const part = (value: object) => encode(encoder.encode(JSON.stringify(value)))
  const { alg, kid, privateKey } = authority
  const input = `${part({ alg, kid, typ: 'JWT', ...header })}.${part({ exp: NOW + 300, iat: NOW, ...claims })}`
  const signature = await crypto.subtle.sign(ALGORITHMS[alg].signature, privateKey, encoder.encode(input))
  return `${input}.${encode(new Uint8Array(signature))}`
}
