/**
 * What the credential plugins have in common: a table of options, and what an SVID is for.
 *
 * kubectl starts a plugin on each command, and to load commander takes a quarter of what Node itself takes to start. So a command line that is
 * right is read by Node's own `parseArgs`, and commander is there for help and for saying what is wrong. Both read the same table.
 */

import { parseArgs } from 'node:util'
import type { Command } from 'commander'
import type { ExecInfo } from './exec_credential.ts'
import { UsageError } from './failure.ts'
import type { Terminal } from './terminal.ts'

/** As `parseArgs` takes it, with what help says. */
export interface OptionRow {
  readonly type: 'string' | 'boolean'
  readonly multiple?: true
  /** What its value is called; none for a flag. */
  readonly value?: string
  readonly description: string
}

export type OptionTable = Readonly<Record<string, OptionRow>>

export type OptionValues<T extends OptionTable> = {
  readonly [Name in keyof T]?: T[Name] extends { readonly type: 'boolean' }
    ? boolean
    : T[Name] extends { readonly multiple: true }
      ? readonly string[]
      : string
}

export interface CredentialCommand {
  readonly description: string
  /** Whether it may ask a person something. */
  readonly interactive?: boolean
  readonly options: OptionTable
  /** @throws Failure, UsageError */
  run(values: OptionValues<OptionTable>, terminal: Terminal): Promise<void>
}

/** @returns the command, whose `run` gets just the options of its table */
export function credentialCommand<T extends OptionTable>(
  description: string,
  options: T,
  run: (values: OptionValues<T>, terminal: Terminal) => Promise<void>,
): CredentialCommand {
  return { description, options, run: run as CredentialCommand['run'] }
}

/** @returns null if there is something in the command line that is for commander */
export function parseOptions(argv: readonly string[], options: OptionTable): OptionValues<OptionTable> | null {
  try {
    const { values } = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false })
    return { ...values } as OptionValues<OptionTable>
  } catch {
    return null
  }
}

/** Adds the table to a command of commander's. */
export function addOptions(command: Command, options: OptionTable): void {
  for (const [name, { value, multiple, description }] of Object.entries(options)) {
    if (!value) command.option(`--${name}`, description)
    else if (!multiple) command.option(`--${name} <${value}>`, description)
    else command.option(`--${name} <${value}>`, description, (one: string, before: string[] = []) => [...before, one])
  }
}

/** @returns what commander has read, as `parseOptions` would have */
export function namedValues<T extends OptionTable>(command: Command, values: Record<string, unknown>): OptionValues<T> {
  const named = command.options.map((option) => [option.long?.slice(2), values[option.attributeName()]])
  return Object.fromEntries(named.filter(([, value]) => value !== undefined))
}

/** The rows that all have who ask for a JWT-SVID. */
export const SVID_OPTIONS = {
  audience: {
    type: 'string',
    multiple: true,
    value: 'audience',
    description: 'who the SVID is to be made out to; may be repeated (or SPIFFE_JWT_AUDIENCE; k8s if nobody says)',
  },
  'spiffe-id': { type: 'string', value: 'id', description: 'which identity, where there are several' },
  timeout: { type: 'string', value: 'seconds', description: 'how long to try (30)' },
} as const satisfies OptionTable

export const DEFAULT_TIMEOUT_SECONDS = '30'
/** The seed of all plugins of this kind has it so. */
const DEFAULT_AUDIENCE = 'k8s'

/**
 * The nearest word counts: the option, what stands in the kubeconfig for the cluster, the variable.
 *
 * @throws UsageError
 */
export function audienceOf(option: readonly string[] | undefined, { config }: ExecInfo, { env }: Terminal): string[] {
  const audience = option ?? configured(config) ?? [env.SPIFFE_JWT_AUDIENCE || DEFAULT_AUDIENCE]
  if (audience.length === 0 || audience.includes('')) throw new UsageError('an audience is empty')
  return [...new Set(audience)]
}

function configured(config: ExecInfo['config']): string[] | null {
  const audience = config?.audience
  if (audience === undefined) return null
  const list = [audience].flat()
  if (list.every((one) => typeof one === 'string')) return list as string[]
  throw new UsageError("the cluster's exec extension: its audience is neither a text nor a list of texts")
}
