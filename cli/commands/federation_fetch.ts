/** `spiffe-edge federation fetch`: reads a bundle endpoint from this machine, which can do what no worker can (T-22). */

import { type Command, Option } from 'commander'
import { endpointUrlProblem } from '../../worker/endpoint_url.ts'
import { SpiffeId, SpiffeIdError, TrustDomain } from '../../worker/spiffe/id.ts'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { type EndpointIdentity, fetchBundle, readBundle } from '../federation/bundle_endpoint.ts'
import { federationClient } from '../federation/federation_client.ts'
import { group } from '../group.ts'
import { readInput } from '../input_file.ts'
import { printable, type Terminal } from '../terminal.ts'

interface Options extends AdminOptions {
  readonly url: string
  readonly profile: 'https_web' | 'https_spiffe'
  readonly trustDomain: string
  readonly endpointSpiffeId?: string
  readonly bundle?: string
  readonly set?: true
}

export function addFederationFetch(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, 'federation', 'other trust domains that are believed')
      .command('fetch')
      .description('read a bundle endpoint from this machine')
      .requiredOption('--url <url>', 'of the bundle endpoint')
      .addOption(
        new Option('--profile <profile>', 'how the endpoint is known')
          .choices(['https_web', 'https_spiffe'])
          .makeOptionMandatory(),
      )
      .requiredOption('--trust-domain <name>', 'whose bundle it is')
      .option('--endpoint-spiffe-id <id>', 'https_spiffe: who the endpoint must be')
      .option('--bundle <file>', 'https_spiffe: the bundle of the trust domain of that SPIFFE ID')
      .option('--set', 'bring it to the worker, instead of printing it'),
  ).action((options: Options) => fetch(options, terminal))
}

async function fetch(options: Options, terminal: Terminal): Promise<void> {
  const problem = endpointUrlProblem(options.url, false, true)
  if (problem) throw new UsageError(`--url: ${problem}`)
  parsed('--trust-domain', () => TrustDomain.parse(options.trustDomain))
  const identity = await endpointIdentity(options, terminal)
  const { text } = await fetchBundle(options.url, identity)
  if (!options.set) return terminal.print(text.endsWith('\n') ? text : `${text}\n`)
  await federationClient(await openAdminClient(options, terminal)).set(options.trustDomain, text)
  terminal.say('set')
}

/** @throws UsageError, Failure */
async function endpointIdentity(
  { profile, endpointSpiffeId, bundle }: Options,
  terminal: Terminal,
): Promise<EndpointIdentity | null> {
  if (profile === 'https_web') {
    if (endpointSpiffeId !== undefined || bundle !== undefined)
      throw new UsageError('--endpoint-spiffe-id and --bundle are for https_spiffe')
    return null
  }
  if (endpointSpiffeId === undefined || bundle === undefined)
    throw new UsageError('https_spiffe needs --endpoint-spiffe-id and --bundle')
  const spiffeId = parsed('--endpoint-spiffe-id', () => SpiffeId.parse(endpointSpiffeId))
  const known = await readBundle(await readInput(bundle, terminal), bundle)
  // With none of them, Node would take the public ones.
  if (known.x509Authorities.length === 0) throw new Failure(`${printable(bundle)}: has no X.509 authorities`)
  return { spiffeId, bundle: known }
}

function parsed<T>(option: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof SpiffeIdError) throw new UsageError(`${option}: ${error.message}`)
    throw error
  }
}
