/**
 * `spiffe-edge verify`: checks a JWT-SVID as a relying party does, with the issuer's keys found through discovery.
 *
 * The token, or the token endpoint's answer with the token in it, comes on standard input, so that it stands in no process
 * list.
 */

import type { Command } from 'commander'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { KeySetError, readKeySet } from '../../keys/key_set.ts'
import { endpointUrlProblem } from '../../worker/endpoint_url.ts'
import { FetchError } from '../../worker/fetch_json.ts'
import { JwtError } from '../../worker/jwt.ts'
import { discoverJwksUri, fetchJwks } from '../../worker/oidc/relying_party.ts'
import { SpiffeIdError, TrustDomain } from '../../worker/spiffe/id.ts'
import { verifyJwtSvid } from '../../worker/spiffe/jwt_svid.ts'
import { Failure, UsageError } from '../failure.ts'
import { readInput } from '../input_file.ts'
import { render } from '../render.ts'
import type { Terminal } from '../terminal.ts'

interface Options {
  readonly issuer: string
  readonly trustDomain: string
  readonly audience: string
}

export function addVerify(program: Command, terminal: Terminal): void {
  program
    .command('verify')
    .description('check the JWT-SVID on standard input as a relying party does')
    .requiredOption('--issuer <url>', 'who issued it')
    .requiredOption('--trust-domain <name>', 'the trust domain that it must be of')
    .requiredOption('--audience <audience>', 'who it must be made out to')
    .action(async (options: Options) => terminal.print(render(await verify(options, terminal), 'json')))
}

async function verify({ issuer, audience, ...options }: Options, terminal: Terminal): Promise<object> {
  const problem = endpointUrlProblem(issuer, true)
  if (problem) throw new UsageError(`--issuer: ${problem}`)
  const trustDomain = parseTrustDomain(options.trustDomain)
  const token = tokenIn(await readInput('-', terminal))
  try {
    const jwks = await fetchJwks(await discoverJwksUri(issuer, true))
    const keys = await readKeySet(jwks, Object.keys(ALGORITHMS) as AlgorithmName[])
    const svid = await verifyJwtSvid(token, { trustDomain, issuer, audience, keys }, Math.floor(Date.now() / 1000))
    return {
      spiffe_id: svid.spiffeId.toString(),
      audience: svid.audience,
      // Seconds since the epoch: a time that no calendar holds is still a time.
      expires_at: svid.expiresAt,
    }
  } catch (error) {
    if ([JwtError, FetchError, KeySetError].some((kind) => error instanceof kind))
      throw new Failure((error as Error).message)
    throw error
  }
}

function parseTrustDomain(name: string): TrustDomain {
  try {
    return TrustDomain.parse(name)
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    throw new UsageError(`--trust-domain: ${error.message}`)
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
