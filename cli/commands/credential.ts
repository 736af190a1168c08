/** `spiffe-edge credential`: what a kubeconfig has as `exec`, one command for each place that a credential can come from. */

import type { Command } from 'commander'
import { type CredentialCommand, type OptionRow, parseOptions } from '../credential.ts'
import type { Terminal } from '../terminal.ts'

const COMMANDS: Readonly<Record<string, () => Promise<CredentialCommand>>> = {
  'workload-api': async () => (await import('./credential_workload_api.ts')).workloadApi,
  psat: async () => (await import('./credential_exchange.ts')).psat,
  'oidc-file': async () => (await import('./credential_exchange.ts')).oidcFile,
}

/**
 * @param argv behind `credential`
 * @returns false if it is for commander, because help is wanted or something is wrong
 * @throws Failure, UsageError
 */
export async function runCredential([name = '', ...argv]: readonly string[], terminal: Terminal): Promise<boolean> {
  if (!Object.hasOwn(COMMANDS, name)) return false
  const command = await COMMANDS[name]?.()
  const values = command && parseOptions(argv, command.options)
  if (!values) return false
  await command.run(values, terminal)
  return true
}

export async function addCredential(program: Command, terminal: Terminal): Promise<void> {
  const credential = program
    .command('credential')
    .description('what kubectl runs to get a credential: see spiffe-edge kubeconfig')
  for (const [name, load] of Object.entries(COMMANDS)) {
    const { description, options, run } = await load()
    const command = credential.command(name).description(description)
    for (const [option, row] of Object.entries(options)) addOption(command, option, row)
    command.action((values: Record<string, never>) => {
      const named = command.options.map((option) => [option.long?.slice(2), values[option.attributeName()]])
      return run(Object.fromEntries(named.filter(([, value]) => value !== undefined)), terminal)
    })
  }
}

function addOption(command: Command, name: string, { value, multiple, description }: OptionRow): void {
  if (!value) command.option(`--${name}`, description)
  else if (!multiple) command.option(`--${name} <${value}>`, description)
  else command.option(`--${name} <${value}>`, description, (one: string, before: string[] = []) => [...before, one])
}
