/** `spiffe-edge rotate`: lets the next key sign, once it is shown that everybody knows it (D4). */

import { type Command, Option } from 'commander'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import type { KeyUse } from '../../keys/signer.ts'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { type ApiserverOptions, apiserverOptions, givenApiservers } from '../keys/given_apiservers.ts'
import { describeAuthorities, describeKeys, type KeyReport, readKeyReport, reportOf } from '../keys/key_report.ts'
import { keysClient, USES } from '../keys/keys_client.ts'
import { fetchPublishedBundle } from '../keys/published_bundle.ts'
import {
  type ApiserverGate,
  apiserverGates,
  authorityRotationProblems,
  rotationProblems,
  successors,
} from '../keys/rotation.ts'
import { describeUnproven } from '../keys/unproven.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { printable, type Terminal, table } from '../terminal.ts'

interface Options extends AdminOptions, ApiserverOptions {
  readonly use: KeyUse
  readonly alg?: AlgorithmName
  readonly dryRun?: true
  readonly output?: Format
}

export function addRotate(program: Command, terminal: Terminal): void {
  adminOptions(
    apiserverOptions(
      program
        .command('rotate')
        .description('let the next key sign, once every client has had the time to see it')
        .addOption(new Option('--use <use>', 'what the keys sign').choices([...USES]).default('jwt-svid'))
        .addOption(
          new Option('--alg <alg>', 'of the keys to rotate; the default one if there is none').choices(
            Object.keys(ALGORITHMS),
          ),
        )
        .option('--dry-run', 'only say whether it would be safe'),
    ).addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action((options: Options) => rotate(options, terminal))
}

async function rotate(options: Options, terminal: Terminal): Promise<void> {
  const given = givenApiservers(options)
  for (const { cluster, count } of given.values())
    if (count === null) throw new UsageError(`how many API servers? Give --apiservers ${printable(cluster)}=<count>`)
  const alg = options.alg ?? null
  if (options.use === 'x509-svid') {
    if (given.size > 0)
      throw new UsageError('--apiserver is for keys of tokens: API servers take no certificates of ours')
    return rotateAuthority(options, alg, terminal)
  }
  const admin = await openAdminClient(options, terminal)
  const client = keysClient(admin)
  const report = await readKeyReport(admin.issuer, client)
  const waiting = successors(report, alg)
  const problems = rotationProblems(report, alg)
  const [next] = waiting
  const { published } = report
  // Which API server holds what the issuer does not answer with is not worth asking.
  const gates =
    next && published?.current && given.size > 0
      ? await apiserverGates(admin, published.sha256, next, given.values(), terminal)
      : []
  const notReady = gates.filter(({ problem }) => problem !== null)
  const refused = [
    ...problems,
    ...notReady.map(({ cluster }) => `${cluster} does not hold the key set, or it is not certain`),
  ]
  const rotated = refused.length === 0 && options.dryRun !== true
  const result = rotated ? await reportOf(admin.issuer, await client.rotate('jwt-svid', alg)) : report

  if (options.output) terminal.print(render({ rotated, refused, apiservers: gates, ...result }, options.output))
  else if (rotated) terminal.print(`Before:\n${describe(report, gates)}\nNow:\n${describe(result, [])}`)
  else terminal.print(describe(report, gates))
  if (refused.length > 0) throw new Failure(['not rotated:', ...refused.map(printable)].join('\n  '))
  const isActive = (kid: string) => result.keys.some((key) => key.kid === kid && key.phase === 'active')
  if (rotated && !waiting.some(({ kid }) => isActive(kid)))
    throw new Failure('the worker says that it has rotated, but none of the keys that waited is active')
  terminal.say(rotated ? 'rotated' : 'it is safe to rotate')
}

async function rotateAuthority(options: Options, alg: AlgorithmName | null, terminal: Terminal): Promise<void> {
  const admin = await openAdminClient(options, terminal)
  const client = keysClient(admin)
  const before = await client.keys()
  const refused = authorityRotationProblems(before, await fetchPublishedBundle(admin.issuer), alg)
  const rotated = refused.length === 0 && options.dryRun !== true
  const keys = rotated ? await client.rotate('x509-svid', alg) : before
  terminal.print(options.output ? render({ rotated, refused, ...keys }, options.output) : describeAuthorities(keys))
  if (refused.length > 0) throw new Failure(['not rotated:', ...refused.map(printable)].join('\n  '))
  terminal.say(rotated ? 'rotated' : 'it is safe to rotate')
}

function describe(report: KeyReport, gates: readonly ApiserverGate[]): string {
  if (gates.length === 0) return describeKeys(report)
  const rows = gates.map(({ cluster, stated, seen, problem }) => [
    cluster,
    `${seen} of ${stated}`,
    problem === null ? 'hold the same' : describeUnproven(problem),
  ])
  return `${describeKeys(report)}\n${table([['CLUSTER', 'API SERVERS', 'KEY SET'], ...rows])}`
}
