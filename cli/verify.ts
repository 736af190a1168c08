/**
 * `npm run verify`: checks a JWT-SVID as a relying party does, with the issuer's keys found through discovery.
 *
 * The token, or the token endpoint's answer with the token in it, comes on standard input, so that it stands in no process
 * list. What it says goes to standard output as JSON.
 * Exit code 0: valid. 1: not valid, or its issuer's keys cannot be had. 2: wrong usage.
 */

import { parseArgs } from 'node:util'
import { ALGORITHMS, type AlgorithmName } from '../keys/algorithms.ts'
import { KeySetError, readKeySet } from '../keys/key_set.ts'
import { endpointUrlProblem } from '../worker/endpoint_url.ts'
import { FetchError } from '../worker/fetch_json.ts'
import { JwtError } from '../worker/jwt.ts'
import { discoverJwksUri, fetchJwks } from '../worker/oidc/relying_party.ts'
import { TrustDomain } from '../worker/spiffe/id.ts'
import { verifyJwtSvid } from '../worker/spiffe/jwt_svid.ts'

const USAGE =
  'usage: verify --issuer <URL> --trust-domain <name> --audience <audience> < JWT-SVID or answer of the token endpoint'

async function verify(argv: string[]): Promise<object> {
  const { issuer, trustDomain, audience } = readArguments(argv)
  const token = tokenIn(await text(process.stdin))
  const jwks = await fetchJwks(await discoverJwksUri(issuer, true))
  const keys = await readKeySet(jwks, Object.keys(ALGORITHMS) as AlgorithmName[])
  const svid = await verifyJwtSvid(token, { trustDomain, issuer, audience, keys }, Math.floor(Date.now() / 1000))
  return {
    spiffe_id: svid.spiffeId.toString(),
    audience: svid.audience,
    // Seconds since the epoch: a time that no calendar holds is still a time.
    expires_at: svid.expiresAt,
  }
}

class UsageError extends Error {}

function readArguments(argv: string[]) {
  const string = { type: 'string' } as const
  try {
    const { values } = parseArgs({ args: argv, options: { issuer: string, 'trust-domain': string, audience: string } })
    const { issuer, audience, 'trust-domain': name } = values
    if (!issuer || !audience || !name) throw new Error('an option is missing')
    const problem = endpointUrlProblem(issuer, true)
    if (problem) throw new Error(`--issuer: ${problem}`)
    return { issuer, audience, trustDomain: TrustDomain.parse(name) }
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n${USAGE}`)
  }
}

/** RFC 8693 §2.2.1: the issued token is `access_token`, whatever its type. */
function tokenIn(input: string): string {
  try {
    const { access_token: token } = JSON.parse(input)
    if (typeof token === 'string') return token
  } catch {
    // Not an answer of a token endpoint, so it is the token itself.
  }
  return input.trim()
}

async function text(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

try {
  console.log(JSON.stringify(await verify(process.argv.slice(2)), null, 2))
} catch (error) {
  const known = [UsageError, JwtError, FetchError, KeySetError].some((kind) => error instanceof kind)
  if (!known) throw error
  console.error((error as Error).message)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
