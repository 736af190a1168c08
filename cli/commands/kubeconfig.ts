/** `spiffe-edge kubeconfig`: the user of a kubeconfig that runs a command of `spiffe-edge credential`. */

import { open, readFile, realpath, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { addOptions, namedValues, type OptionTable } from '../credential.ts'
import { Failure, UsageError } from '../failure.ts'
import { describe } from '../input_file.ts'
import { type ExecUser, withUser } from '../kubeconfig_user.ts'
import { FORMATS, type Format, render } from '../render.ts'
import { replaceFile } from '../replace_file.ts'
import { printable, type Terminal } from '../terminal.ts'
import { CREDENTIALS } from './credential.ts'

const INSTALL_HINT =
  'spiffe-edge is not on the PATH of this program. It is the command line of the identity provider that the cluster trusts.'

interface Options {
  readonly user: string
  readonly command: string
  readonly apiVersion: 'v1' | 'v1beta1'
  readonly kubeconfig?: string
  readonly context?: string
  readonly replace?: true
  readonly output: Format
}

export async function addKubeconfig(program: Command, terminal: Terminal): Promise<void> {
  const kubeconfig = program
    .command('kubeconfig')
    .description('the user of a kubeconfig, whose credential is had in one of these ways')
  for (const [name, load] of Object.entries(CREDENTIALS)) {
    const { description, interactive, options } = await load()
    const command = kubeconfig
      .command(name)
      .description(description)
      .option('--user <name>', 'what the user is called', 'spiffe-edge')
      .option('--kubeconfig <file>', 'put it there, instead of printing it')
      .option('--context <name>', 'of that file: have it use this user')
      .option('--replace', 'also in the place of a user who was something else')
      .option('--command <path>', 'where the program is, for those that look nowhere', 'spiffe-edge')
      .addOption(
        new Option('--api-version <version>', 'of the ExecCredential').choices(['v1', 'v1beta1']).default('v1'),
      )
      .addOption(new Option('-o, --output <format>', 'how it is printed').choices(FORMATS).default('yaml'))
    addOptions(command, options)
    command.action(async (values: Options) => {
      const args = ['credential', name, ...argumentsOf(options, namedValues(command, { ...values }))]
      await write(execUser(values, args, interactive ?? false), values, terminal)
    })
  }
}

function execUser({ user, command, apiVersion }: Options, args: readonly string[], interactive: boolean): ExecUser {
  const exec = {
    apiVersion: `client.authentication.k8s.io/${apiVersion}`,
    command,
    args,
    interactiveMode: interactive ? ('IfAvailable' as const) : ('Never' as const),
    // The cluster may say who the token is to be made out to.
    provideClusterInfo: !args.includes('--audience'),
    installHint: INSTALL_HINT,
  }
  return { name: user, user: { exec } }
}

/** The options as they were given, but with paths that mean the same wherever kubectl is run. */
function argumentsOf(table: OptionTable, values: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(table).flatMap(([name, { type, value }]) => {
    const given = values[name]
    if (given === undefined || given === false) return []
    if (type === 'boolean') return [`--${name}`]
    return [given].flat().flatMap((one) => [`--${name}`, value === 'file' ? resolve(String(one)) : String(one)])
  })
}

async function write(user: ExecUser, options: Options, terminal: Terminal): Promise<void> {
  const { kubeconfig: path, context, replace = false, output } = options
  if (path === undefined) {
    if (context !== undefined || replace) throw new UsageError('--context and --replace are for --kubeconfig')
    return terminal.print(render({ users: [user] }, output))
  }
  // Of a link, what it leads to is changed, as kubectl does.
  const file = await realpath(path).catch(() => path)
  await locked(file, async () => {
    const old = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw new Failure(`${printable(path)}: ${describe(error)}`)
    })
    let text: string
    try {
      text = withUser(old, user, context, replace)
    } catch (error) {
      if (error instanceof Failure) throw new Failure(`${printable(path)}: ${error.message}`)
      throw error
    }
    const changed = await replaceFile(file, text)
    terminal.say(`${printable(path)}: ${changed ? 'written' : 'unchanged'}`)
  })
}

/** As kubectl does it, so that of two changes at once none is lost. */
async function locked(path: string, change: () => Promise<void>): Promise<void> {
  const lock = `${path}.lock`
  try {
    await (await open(lock, 'wx', 0o600)).close()
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EEXIST'
    throw new Failure(
      taken
        ? `${printable(path)}: something else is changing it. If that is not so, remove ${printable(lock)}`
        : `${printable(path)}: ${describe(error)}`,
    )
  }
  try {
    await change()
  } finally {
    await rm(lock, { force: true })
  }
}
