/**
 * `spiffe-edge structured-auth sync`: keeps an API server's file at what is revoked. Everything in the file but that one rule
 * is the node's own template (T-13). Whatever goes wrong, the file stays as it was.
 */

import { realpath } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { ClusterName } from '../../worker/policy/cluster.ts'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { readInput } from '../input_file.ts'
import type { Revoked } from '../objects/revocation.ts'
import { renderWithRevocations } from '../objects/revocation_rule.ts'
import { replaceFile } from '../replace_file.ts'
import { printable, type Terminal } from '../terminal.ts'

const MAX_INTERVAL_SECONDS = 3600

interface Options extends AdminOptions {
  readonly cluster: string
  readonly template: string
  readonly file: string
  readonly interval?: string
}

export function addStructuredAuthSync(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, 'structured-auth', "an API server's AuthenticationConfiguration")
      .command('sync')
      .description('write the template with a rule that refuses what is revoked')
      .requiredOption('--cluster <name>', 'whose API server it is')
      .requiredOption('--template <file>', 'the AuthenticationConfiguration without that rule')
      .requiredOption('--file <file>', 'what kube-apiserver has as --authentication-config')
      .option('--interval <seconds>', 'go on, and look again so often'),
  ).action(async (options: Options) => {
    if (!ClusterName.safeParse(options.cluster).success) throw new UsageError('--cluster: not the name of a cluster')
    if (options.interval === undefined) await sync(options, terminal)
    else await keepInSync(options, parseInterval(options.interval), terminal)
  })
}

/**
 * @returns what is revoked, when the file says so
 * @throws Failure, UsageError
 */
async function sync(options: Options, terminal: Terminal): Promise<Revoked> {
  const { cluster, template, file } = options
  if (template === '-') throw new UsageError('--template: must be a file')
  const text = await readInput(template, terminal)
  if ((await realpath(template)) === (await realpath(file).catch(() => null)))
    throw new UsageError('--file: is the template')
  // Anew each time: who an administrator is may be in a file that is renewed.
  const client = await openAdminClient(options, terminal)
  const revoked = await client.revocations(cluster)
  const written = await replaceFile(file, renderWithRevocations(text, client.issuer, revoked))
  const { tokens, subjects } = revoked
  const count = `revoked: ${tokens.length} tokens, ${subjects.length} subjects`
  if (written || options.interval === undefined)
    terminal.print(`${printable(file)} ${written ? 'written' : 'unchanged'}; ${count}\n`)
  return revoked
}

async function keepInSync(options: Options, seconds: number, terminal: Terminal): Promise<never> {
  let version = 0
  for (;;) {
    try {
      const revoked = await sync(options, terminal)
      // Refusing it would keep out what is revoked from then on, and a stolen worker can count as it likes.
      if (revoked.version < version)
        terminal.say(
          'warning: the worker counts fewer changes than before. Was a backup restored? Revoke again what is missing',
        )
      version = revoked.version
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      terminal.say(error.message)
    }
    await setTimeout(seconds * 1000)
  }
}

function parseInterval(text: string): number {
  const seconds = Number(text)
  if (!/^\d{1,4}$/.test(text) || seconds < 1 || seconds > MAX_INTERVAL_SECONDS)
    throw new UsageError(`--interval: 1 to ${MAX_INTERVAL_SECONDS} seconds`)
  return seconds
}
