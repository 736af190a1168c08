/** `spiffe-edge credential`: what a kubeconfig has as `exec`, one command for each place that a credential can come from. */

import type { Command } from 'commander'
import { addOptions, type CredentialCommand, namedValues, parseOptions } from '../credential.ts'
import type { Terminal } from '../terminal.ts'

export const CREDENTIALS: Readonly<Record<string, () => Promise<CredentialCommand>>> = {
  'workload-api': async () => (await import('./credential_workload_api.ts')).workloadApi,
  psat: async () => (await import('./credential_exchange.ts')).psat,
  oidc: async () => (await import('./credential_oidc.ts')).oidc,
  'oidc-file': async () => (await import('./credential_exchange.ts')).oidcFile,
}

/**
 * @param argv behind `credential`
 * @returns false if it is for commander, because help is wanted or something is wrong
 * @throws Failure, UsageError
 */
export async function runCredential([name = '', ...argv]: readonly string[], terminal: Terminal): Promise<boolean> {
  if (!Object.hasOwn(CREDENTIALS, name)) return false
  const command = await CREDENTIALS[name]?.()
  const values = command && parseOptions(argv, command.options)
  if (!values) return false
  await command.run(values, terminal)
  return true
}

export async function addCredential(program: Command, terminal: Terminal): Promise<void> {
  const credential = program
    .command('credential')
    .description('what kubectl runs to get a credential: see spiffe-edge kubeconfig')
  for (const [name, load] of Object.entries(CREDENTIALS)) {
    const { description, options, run } = await load()
    const command = credential.command(name).description(description)
    addOptions(command, options)
    command.action((values: Record<string, unknown>) => run(namedValues(command, values), terminal))
  }
}
