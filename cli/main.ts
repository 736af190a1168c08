#!/usr/bin/env node
/**
 * `spiffe-edge`: argv to command, and how it ends to an exit code.
 *
 * 0: done. 1: it failed, or was refused. 2: it was not understood. Standard output is the result and nothing else.
 */

import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { runCredential } from './commands/credential.ts'
import { Failure, UsageError } from './failure.ts'
import { writeStandardOutput } from './standard_output.ts'
import type { Terminal } from './terminal.ts'

type Add = (program: Command, terminal: Terminal) => void | Promise<void>

/** Loaded only when asked for: a command should not wait for the libraries of another. */
const COMMANDS: Readonly<Record<string, readonly (() => Promise<Add>)[]>> = {
  credential: [async () => (await import('./commands/credential.ts')).addCredential],
  agent: [async () => (await import('./commands/agent.ts')).addAgent],
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
  const { Command, CommanderError } = await import('commander')
  const program = new Command('spiffe-edge')
    .description('the identity provider of a Kubernetes trust domain, from the command line')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.print(text),
      writeErr: (text) => terminal.say(text.replace(/\n$/, '')),
    })
  const [verb = ''] = argv
  for (const name of Object.hasOwn(COMMANDS, verb) ? [verb] : Object.keys(COMMANDS))
    for (const load of COMMANDS[name] ?? []) await (await load())(program, terminal)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return 0
  } catch (error) {
    // Commander has said what is wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    throw error
  }
}

/** This process, as a terminal. */
const here: Terminal = {
  env: process.env,
  // Each is a stream that takes its time to set up, so it is when it is used.
  get stdin() {
    return process.stdin
  },
  print: writeStandardOutput,
  say(line) {
    process.stderr.write(`${line}\n`)
  },
  interactive: () => process.stdin.isTTY,
  now: () => Date.now(),
  wait: (milliseconds) => setTimeout(milliseconds),
}

if (import.meta.main)
  void main(process.argv.slice(2), here).then((code) => {
    process.exitCode = code
  })
