/**
 * The one table of signature algorithms. Nothing else switches on `alg`: code takes an entry and reads it.
 *
 * The nine names are all that a JWT-SVID may carry.
 *
 * @see [JWT-SVID §2.1](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#21-algorithm)
 * @see [RFC 7518 §3.1](https://www.rfc-editor.org/rfc/rfc7518#section-3.1)
 */

type Hash = 'SHA-256' | 'SHA-384' | 'SHA-512'

interface Shared {
  readonly hash: Hash
  /** `SigningAlgorithm` of AWS KMS. */
  readonly kms: string
  /** `KeySpec`s of AWS KMS that can make this signature. */
  readonly kmsKeySpecs: readonly string[]
  /** What `crypto.subtle.importKey` and `generateKey` want. */
  readonly key: {
    readonly name: string
    readonly hash?: Hash
    readonly namedCurve?: string
    readonly modulusLength?: number
    readonly publicExponent?: Uint8Array<ArrayBuffer>
  }
  /** What `crypto.subtle.sign` and `verify` want. */
  readonly signature: { readonly name: string; readonly hash?: Hash; readonly saltLength?: number }
}

export interface EcdsaAlgorithm extends Shared {
  readonly kty: 'EC'
  readonly crv: 'P-256' | 'P-384' | 'P-521'
  /** Length of R and of S in the JOSE form of the signature (RFC 7518 §3.4). */
  readonly scalarBytes: number
}

export interface RsaAlgorithm extends Shared {
  readonly kty: 'RSA'
}

function ecdsa(crv: EcdsaAlgorithm['crv'], hash: Hash, scalarBytes: number): EcdsaAlgorithm {
  return {
    kty: 'EC',
    crv,
    scalarBytes,
    hash,
    kms: `ECDSA_${hash.replace('-', '_')}`,
    kmsKeySpecs: [`ECC_NIST_${crv.replace('-', '')}`],
    key: { name: 'ECDSA', namedCurve: crv },
    signature: { name: 'ECDSA', hash },
  }
}

function rsa(name: 'RSASSA-PKCS1-v1_5' | 'RSA-PSS', hash: Hash, saltLength?: number): RsaAlgorithm {
  const scheme = name === 'RSA-PSS' ? 'RSASSA_PSS' : 'RSASSA_PKCS1_V1_5'
  return {
    kty: 'RSA',
    hash,
    kms: `${scheme}_${hash.replace('-', '_')}`,
    kmsKeySpecs: ['RSA_2048', 'RSA_3072', 'RSA_4096'],
    key: { name, hash, modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1) },
    signature: saltLength === undefined ? { name } : { name, saltLength },
  }
}

export const ALGORITHMS = {
  ES256: ecdsa('P-256', 'SHA-256', 32),
  ES384: ecdsa('P-384', 'SHA-384', 48),
  ES512: ecdsa('P-521', 'SHA-512', 66),
  RS256: rsa('RSASSA-PKCS1-v1_5', 'SHA-256'),
  RS384: rsa('RSASSA-PKCS1-v1_5', 'SHA-384'),
  RS512: rsa('RSASSA-PKCS1-v1_5', 'SHA-512'),
  PS256: rsa('RSA-PSS', 'SHA-256', 32),
  PS384: rsa('RSA-PSS', 'SHA-384', 48),
  PS512: rsa('RSA-PSS', 'SHA-512', 64),
} as const satisfies Record<string, EcdsaAlgorithm | RsaAlgorithm>

export type AlgorithmName = keyof typeof ALGORITHMS

/** Smallest RSA modulus that RFC 7518 §3.3 and §3.5 allow. */
export const MIN_RSA_MODULUS_BITS = 2048

/** Whether `name` is one of the nine. Compares own property names, so `constructor` is not one. */
export function isAlgorithmName(name: unknown): name is AlgorithmName {
  return typeof name === 'string' && Object.hasOwn(ALGORITHMS, name)
}
