/**
 * The one table of signature algorithms. Nothing else switches on `alg`: code takes an entry and reads it.
 *
 * The nine names are all that a JWT-SVID may carry.
 *
 * @see [JWT-SVID §2.1](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#21-algorithm)
 * @see [RFC 7518 §3.1](https://www.rfc-editor.org/rfc/rfc7518#section-3.1)
 */

export type Hash = 'SHA-256' | 'SHA-384' | 'SHA-512'

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
  /**
   * What names the signature in a certificate. Null for RSA-PSS, whose name takes parameters that few readers know
   * (RFC 4055 §3.1).
   */
  readonly signatureOid: string | null
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

function ecdsa(crv: EcdsaAlgorithm['crv'], hash: Hash, scalarBytes: number, signatureOid: string): EcdsaAlgorithm {
  return {
    kty: 'EC',
    crv,
    scalarBytes,
    hash,
    kms: `ECDSA_${hash.replace('-', '_')}`,
    kmsKeySpecs: [`ECC_NIST_${crv.replace('-', '')}`],
    key: { name: 'ECDSA', namedCurve: crv },
    signatureOid,
    signature: { name: 'ECDSA', hash },
  }
}

function rsa(hash: Hash, form: { readonly signatureOid: string } | { readonly saltLength: number }): RsaAlgorithm {
  const pss = 'saltLength' in form
  const name = pss ? 'RSA-PSS' : 'RSASSA-PKCS1-v1_5'
  const scheme = pss ? 'RSASSA_PSS' : 'RSASSA_PKCS1_V1_5'
  return {
    kty: 'RSA',
    hash,
    kms: `${scheme}_${hash.replace('-', '_')}`,
    kmsKeySpecs: ['RSA_2048', 'RSA_3072', 'RSA_4096'],
    key: { name, hash, modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1) },
    signatureOid: pss ? null : form.signatureOid,
    signature: pss ? { name, saltLength: form.saltLength } : { name },
  }
}

export const ALGORITHMS = {
  ES256: ecdsa('P-256', 'SHA-256', 32, '1.2.840.10045.4.3.2'),
  ES384: ecdsa('P-384', 'SHA-384', 48, '1.2.840.10045.4.3.3'),
  ES512: ecdsa('P-521', 'SHA-512', 66, '1.2.840.10045.4.3.4'),
  RS256: rsa('SHA-256', { signatureOid: '1.2.840.113549.1.1.11' }),
  RS384: rsa('SHA-384', { signatureOid: '1.2.840.113549.1.1.12' }),
  RS512: rsa('SHA-512', { signatureOid: '1.2.840.113549.1.1.13' }),
  PS256: rsa('SHA-256', { saltLength: 32 }),
  PS384: rsa('SHA-384', { saltLength: 48 }),
  PS512: rsa('SHA-512', { saltLength: 64 }),
} as const satisfies Record<string, EcdsaAlgorithm | RsaAlgorithm>

export type AlgorithmName = keyof typeof ALGORITHMS

/** Smallest RSA modulus that RFC 7518 §3.3 and §3.5 allow. */
export const MIN_RSA_MODULUS_BITS = 2048

/** Whether `name` is one of the nine. Compares own property names, so `constructor` is not one. */
export function isAlgorithmName(name: unknown): name is AlgorithmName {
  return typeof name === 'string' && Object.hasOwn(ALGORITHMS, name)
}
