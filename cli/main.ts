#!/usr/bin/env node
/**
 * `spiffe-edge`: argv to command, and how it ends to an exit code.
 *
 * 0: done. 1: it failed, or was refused. 2: it was not understood. Standard output is the result and nothing else.
 */

import { basename } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { runCredential } from './commands/credential.ts'
import { Failure, UsageError } from './failure.ts'
import { writeStandard } from './standard_streams.ts'
import type { Terminal } from './terminal.ts'

type Add = (program: Command, terminal: Terminal) => void | Promise<void>

/** Loaded only when asked for: a command should not wait for the libraries of another. */
export const COMMANDS: Readonly<Record<string, readonly (() => Promise<Add>)[]>> = {
  kubeconfig: [async () => (await import('./commands/kubeconfig.ts')).addKubeconfig],
  credential: [async () => (await import('./commands/credential.ts')).addCredential],
  agent: [async () => (await import('./commands/agent.ts')).addAgent],
  login: [async () => (await import('./commands/login.ts')).addLogin],
  logout: [async () => (await import('./commands/logout.ts')).addLogout],
  admin: [
    async () => (await import('./commands/admin_create.ts')).addAdminCreate,
    async () => (await import('./commands/admin_token.ts')).addAdminToken,
  ],
  apply: [async () => (await import('./commands/apply.ts')).addApply],
  get: [async () => (await import('./commands/get.ts')).addGet],
  delete: [async () => (await import('./commands/delete.ts')).addDelete],
  ban: [async () => (await import('./commands/ban.ts')).addBan],
  unban: [async () => (await import('./commands/unban.ts')).addUnban],
  revoke: [
    async () => (await import('./commands/revoke_key.ts')).addRevokeKey,
    async () => (await import('./commands/revoke_token.ts')).addRevokeToken,
    async () => (await import('./commands/revoke_subject.ts')).addRevokeSubject,
  ],
  'structured-auth': [async () => (await import('./commands/structured_auth_sync.ts')).addStructuredAuthSync],
  cluster: [
    async () => (await import('./commands/cluster_import.ts')).addClusterImport,
    async () => (await import('./commands/cluster_check.ts')).addClusterCheck,
  ],
  federation: [
    async () => (await import('./commands/federation_status.ts')).addFederationStatus,
    async () => (await import('./commands/federation_refresh.ts')).addFederationRefresh,
    async () => (await import('./commands/federation_set.ts')).addFederationSet,
    async () => (await import('./commands/federation_fetch.ts')).addFederationFetch,
  ],
  status: [async () => (await import('./commands/status.ts')).addStatus],
  rotate: [async () => (await import('./commands/rotate.ts')).addRotate],
  completion: [async () => (await import('./commands/completion.ts')).addCompletion],
  verify: [async () => (await import('./commands/verify.ts')).addVerify],
}

/**
 * @param argv without the program's own name
 * @returns the exit code
 */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  try {
    if (argv[0] === 'credential' && (await runCredential(argv.slice(1), terminal))) return 0
    return await runCommand(argv, terminal)
  } catch (error) {
    if (error instanceof UsageError || error instanceof Failure) {
      terminal.say(error.message)
      return error instanceof UsageError ? 2 : 1
    }
    // A message that is not ours may repeat what it was about. Where it happened is enough to find it.
    const { name, stack = '' } = error as Error
    terminal.say([`internal error: ${name}`, ...stack.split('\n').filter((line) => /^ {4}at /.test(line))].join('\n'))
    return 1
  }
}

async function runCommand(argv: readonly string[], terminal: Terminal): Promise<number> {
  const { CommanderError } = await import('commander')
  const [verb = ''] = argv
  // What completes commands has to know them all.
  const alone = Object.hasOwn(COMMANDS, verb) && verb !== 'completion'
  const program = await loadProgram(alone ? [verb] : Object.keys(COMMANDS), terminal)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return 0
  } catch (error) {
    // Commander has said what is wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    throw error
  }
}

/**
 * @param verbs which commands it is to have
 * @returns what reads a command line
 */
export async function loadProgram(verbs: readonly string[], terminal: Terminal): Promise<Command> {
  const { Command } = await import('commander')
  const { addExamples } = await import('./examples.ts')
  const { default: manifest } = await import('../package.json', { with: { type: 'json' } })
  const program = new Command('spiffe-edge')
    .description('the identity provider of a Kubernetes trust domain, from the command line')
    .version(manifest.version, '--version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.print(text),
      writeErr: (text) => terminal.say(text.replace(/\n$/, '')),
    })
  for (const verb of verbs) for (const load of COMMANDS[verb] ?? []) await (await load())(program, terminal)
  addExamples(program)
  return program
}

/** This process, as a terminal. */
const here: Terminal = {
  env: process.env,
  // Each is a stream that takes its time to set up, so it is when it is used.
  get stdin() {
    return process.stdin
  },
  print: (text) => writeStandard(1, text),
  say: (line) => writeStandard(2, `${line}\n`),
  // Of what is no terminal it is not false, but undefined.
  interactive: () => process.stdin.isTTY === true,
  now: () => Date.now(),
  wait: (milliseconds) => setTimeout(milliseconds),
}

/** Under that program's name, as a link of whoever wants it so, this is its successor. */
const PREDECESSOR = 'k8s-spiffe-workload-jwt-exec-auth'

if (import.meta.main) {
  const [, path = '', ...argv] = process.argv
  const command = basename(path) === PREDECESSOR ? ['credential', 'workload-api', ...argv] : argv
  // What has been said is written. To leave at once saves Node taking itself apart, which somebody would wait for.
  void main(command, here).then((code) => process.exit(code))
}
