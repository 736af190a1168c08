/** `spiffe-edge revoke key`: ends a signing key at once, and shows where its tokens are refused (T-21). */

import { Command, Option } from 'commander'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { type ApiserverOptions, apiserverOptions, givenApiservers } from '../keys/given_apiservers.ts'
import { type ClusterProof, type RevocationReport, revokeAndProve } from '../keys/key_revocation.ts'
import { describeUnproven } from '../keys/unproven.ts'
import { REVOKE } from '../objects/revocation.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { formatTime, printable, type Terminal, table } from '../terminal.ts'

interface Options extends AdminOptions, ApiserverOptions {
  readonly output?: Format
}

/** One kid in 64 begins with a dash, as options do. */
const DASHED_KID = /^-[\w-]{42}$/

class RevokeKey extends Command {
  override parseOptions(argv: string[]) {
    const [kids, others] = [argv.filter((text) => DASHED_KID.test(text)), argv.filter((text) => !DASHED_KID.test(text))]
    return super.parseOptions(kids.length > 0 && !argv.includes('--') ? [...others, '--', ...kids] : argv)
  }
}

export function addRevokeKey(program: Command, terminal: Terminal): void {
  const revoke = group(program, ...REVOKE)
  const command = new RevokeKey('key').copyInheritedSettings(revoke)
  revoke.addCommand(command)
  adminOptions(
    apiserverOptions(
      command
        .description('end a signing key at once, and show that its tokens are refused')
        .argument('<kid>', 'as in `spiffe-edge status`'),
    ).addOption(new Option('-o, --output <format>').choices(FORMATS)),
  ).action(async (kid: string, options: Options) => {
    if (kid === '') throw new UsageError('which key? Its kid is in `spiffe-edge status`')
    const given = givenApiservers(options)
    const report = await revokeAndProve(await openAdminClient(options, terminal), kid, given, terminal)
    terminal.print(options.output ? render(report, options.output) : describe(report))
    const failures = failuresOf(report)
    if (failures.length > 0) throw new Failure(failures.map(printable).join('\n'))
  })
}

function describe(report: RevocationReport): string {
  const { kid, use, revokedAt, signingStopsAt, withdrawn, clusters } = report
  const lines = [
    `${kid} was revoked at ${formatTime(revokedAt)}. No isolate signs with it after ${formatTime(signingStopsAt)}.`,
    withdrawn ? 'The issuer no longer answers with it.' : 'The issuer still answers with it, or does not answer.',
    ...(use === 'x509-svid' ? [whenReadersDropIt(report)] : clusters.length === 0 ? ['There are no clusters.'] : []),
  ]
  const text = lines.map((line) => `${printable(line)}\n`).join('')
  if (clusters.length === 0) return text
  return `${text}\n${table([['CLUSTER', 'RESULT', 'API SERVERS', 'WHY'], ...clusters.map(rowOf)])}`
}

function whenReadersDropIt({ refreshHint }: RevocationReport): string {
  const when =
    refreshHint === null ? 'when they next read the bundle' : `within ${refreshHint} s, if they keep to the hint`
  return `Who verifies certificates refuses its own ${when}. Whether they have is not known here.`
}

function rowOf({ cluster, result, reasons, apiservers: { stated, seen } }: ClusterProof): string[] {
  const why = reasons.length === 0 ? 'its tokens are refused' : reasons.map(describeUnproven).join('; ')
  return [cluster, result, `${seen} of ${stated ?? 'unknown'}`, why]
}

/** A cluster that nobody has looked at may accept the key's tokens for as long as its API servers run. */
function failuresOf({ clusters, problems }: RevocationReport): string[] {
  const unproven = clusters.filter(({ result }) => result === 'unproven').map(({ cluster }) => cluster)
  return [
    ...problems,
    ...(unproven.length === 0
      ? []
      : [
          `the key is revoked, but its end is unproven for: ${unproven.join(', ')}`,
          'Restart their API servers one after the other, and they read the keys anew. Or run this again with --apiserver and',
          '--apiservers for each: it makes them look, and shows which keys they hold.',
        ]),
  ]
}
