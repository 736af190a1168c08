/** What every {@link Signer} promises, wherever its key lives. */

import { calculateJwkThumbprint, compactVerify, importJWK } from 'jose'
import { describe, expect, test } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { signCompact } from '../../keys/jws.ts'
import type { Signer } from '../../keys/signer.ts'

/** KMS itself takes no longer message than this (KM-1). */
const KMS_MESSAGE_LIMIT = 4096

/**
 * @param keeper what the tests are called after
 * @param signerFor makes a signer whose RSA keys, if it has any, are of 2048 bits
 */
export function signerContract(keeper: string, signerFor: (alg: AlgorithmName) => Promise<Signer>): void {
  describe.each(Object.keys(ALGORITHMS) as AlgorithmName[])(`a signer of ${keeper} for %s`, (alg) => {
    const algorithm = ALGORITHMS[alg]
    const members = algorithm.kty === 'EC' ? ['crv', 'x', 'y'] : ['n', 'e']
    let made: Promise<Signer> | undefined
    const signer = () => {
      made ??= signerFor(alg)
      return made
    }

    test('RFC 7517 §4: publishes the members that relying parties need and no private one', async () => {
      const { publicJwk } = await signer()
      expect(Object.keys(publicJwk).sort()).toEqual(['alg', 'kid', 'kty', 'use', ...members].sort())
      expect(publicJwk).toMatchObject({ kty: algorithm.kty, use: 'sig', alg })
    })

    test('RFC 7638 §3: its kid is the thumbprint of its public key', async () => {
      const { publicJwk } = await signer()
      expect(publicJwk.kid).toBe(await calculateJwkThumbprint(publicJwk))
    })

    test('RFC 7518 §3.3, §3.4: a signature has the one length that its key allows', async () => {
      const signature = await (await signer()).sign(new Uint8Array(32))
      expect(signature.length).toBe(algorithm.kty === 'EC' ? 2 * algorithm.scalarBytes : 256)
    })

    test('JS-2: another implementation verifies a token with the published key', async () => {
      const { publicJwk, sign } = await signer()
      const compact = await signCompact({ alg, kid: publicJwk.kid }, { sub: 'ä' }, { publicJwk, sign })
      const verified = await compactVerify(compact, await importJWK(publicJwk, alg), { algorithms: [alg] })
      expect(new TextDecoder().decode(verified.payload)).toBe('{"sub":"ä"}')
    })

    test('KM-2: a signing input may be empty, or longer than what KMS takes for a message', async () => {
      for (const length of [0, KMS_MESSAGE_LIMIT + 1]) {
        const input = new Uint8Array(length).fill(7)
        expect(await verifies(await signer(), input)).toBe(true)
        expect(input).toEqual(new Uint8Array(length).fill(7))
      }
    })

    test('signs several inputs at once, each with a signature of its own', async () => {
      const { publicJwk, sign } = await signer()
      const inputs = [1, 2, 3].map((octet) => Uint8Array.of(octet))
      const signatures = await Promise.all(inputs.map((input) => sign(input)))
      for (const [i, input] of inputs.entries()) {
        const stored = { publicJwk, sign: async () => signatures[i] ?? new Uint8Array() }
        expect(await verifies(stored, input)).toBe(true)
        expect(await verifies(stored, Uint8Array.of(9))).toBe(false)
      }
    })
  })
}

async function verifies({ publicJwk, sign }: Signer, input: Uint8Array): Promise<boolean> {
  const { key, signature } = ALGORITHMS[publicJwk.alg]
  const publicKey = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, key, false, ['verify'])
  return await crypto.subtle.verify(signature, publicKey, (await sign(input)) as BufferSource, input as BufferSource)
}
