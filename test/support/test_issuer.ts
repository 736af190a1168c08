/** An OIDC issuer of the tests' own, over TLS: one key of every algorithm, and headers that a test may choose. */

import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import type { ForgeKey } from './jwt_forge.ts'
import { createCa } from './pki.ts'

export const ALGORITHM_NAMES = Object.keys(ALGORITHMS) as AlgorithmName[]

export interface TestIssuer {
  readonly url: string
  /** PEM file of the CA that the issuer's certificate chains to, and its content. */
  readonly caFile: string
  readonly ca: string
  /** By the algorithm's name in lower case, which is also the `kid`. */
  readonly keys: Readonly<Record<string, ForgeKey>>
  /** What is published: change it, and the next request sees the change. */
  jwks: object[]
  /** `Cache-Control` of the JWKS, or null for none. */
  cacheControl: string | null
  /** How often the JWKS has been fetched. */
  fetches: number
  /** A folder for files of the test, gone at the end. */
  readonly folder: string
  stop(): void
}

export async function startTestIssuer(algorithms: readonly AlgorithmName[] = ALGORITHM_NAMES): Promise<TestIssuer> {
  const ca = await createCa()
  const tls = await ca.issue('localhost')
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-issuer-'))
  const caFile = join(folder, 'ca.crt')
  writeFileSync(caFile, ca.certificate)
  const keys: Record<string, ForgeKey> = {}
  for (const alg of algorithms) {
    const wanted = ALGORITHMS[alg]
    const { privateKey } =
      wanted.kty === 'EC'
        ? generateKeyPairSync('ec', { namedCurve: wanted.crv })
        : generateKeyPairSync('rsa', { modulusLength: 2048 })
    keys[alg.toLowerCase()] = { alg, kid: alg.toLowerCase(), privateKey }
  }
  const server = createServer({ key: tls.key, cert: tls.certificate }, ({ url }, response) => {
    response.setHeader('content-type', 'application/json')
    if (url !== '/keys') {
      const document = {
        issuer: issuer.url,
        jwks_uri: `${issuer.url}/keys`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ALGORITHM_NAMES,
      }
      response.end(JSON.stringify(document))
      return
    }
    issuer.fetches++
    if (issuer.cacheControl !== null) response.setHeader('cache-control', issuer.cacheControl)
    response.end(JSON.stringify({ keys: issuer.jwks }))
  })
  await new Promise<void>((listening) => server.listen(0, 'localhost', listening))
  const issuer: TestIssuer = {
    url: `https://localhost:${(server.address() as AddressInfo).port}`,
    caFile,
    ca: ca.certificate,
    keys,
    jwks: Object.values(keys).map(publicJwk),
    cacheControl: null,
    fetches: 0,
    folder,
    stop() {
      server.close()
      server.closeAllConnections()
      rmSync(folder, { recursive: true })
    },
  }
  return issuer
}

export function publicJwk({ privateKey, kid, alg }: ForgeKey): object {
  return { ...createPublicKey(privateKey).export({ format: 'jwk' }), kid, alg, use: 'sig' }
}
