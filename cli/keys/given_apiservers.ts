/** The API servers that a command is told of: a context of a kubeconfig for each cluster, and how many there are (T-21). */

import { type Command, Option } from 'commander'
import { UsageError } from '../failure.ts'
import { printable } from '../terminal.ts'

export interface ApiserverOptions {
  readonly apiserver: readonly string[]
  readonly apiservers: readonly string[]
  readonly kubeconfig?: string
}

export interface GivenApiserver {
  /** The name of the cluster's record. */
  readonly cluster: string
  readonly kubeconfig: string
  readonly context: string
  /** How many API servers stand behind that address, as the operator states it; null if that was not said. */
  readonly count: number | null
}

export function apiserverOptions(command: Command): Command {
  const collect = (value: string, before: readonly string[]) => [...before, value]
  const many = (flags: string, description: string) =>
    new Option(flags, description).argParser(collect).default([], 'none')
  return command
    .addOption(many('--apiserver <cluster=context>', "where a cluster's API server is, by a context of the kubeconfig"))
    .addOption(many('--apiservers <cluster=count>', 'how many API servers stand behind that address'))
    .option('--kubeconfig <file>', 'with those contexts')
}

/**
 * @returns by the name of the cluster
 * @throws UsageError
 */
export function givenApiservers(options: ApiserverOptions): ReadonlyMap<string, GivenApiserver> {
  const { kubeconfig } = options
  const contexts = pairs('--apiserver', '<cluster>=<context>', options.apiserver, /^[^=]+=.+$/)
  const counts = pairs('--apiservers', '<cluster>=<count>', options.apiservers, /^[^=]+=[1-9]\d{0,2}$/)
  for (const cluster of counts.keys())
    if (!contexts.has(cluster))
      throw new UsageError(`--apiservers: give --apiserver ${printable(cluster)}=<context> too`)
  if (kubeconfig === undefined) {
    if (contexts.size > 0) throw new UsageError('--apiserver: of which kubeconfig? Give --kubeconfig')
    return new Map()
  }
  // It is read once for each context.
  if (kubeconfig === '-') throw new UsageError('--kubeconfig: give a file')
  return new Map(
    [...contexts].map(([cluster, context]) => {
      const count = counts.get(cluster)
      return [cluster, { cluster, kubeconfig, context, count: count === undefined ? null : Number(count) }]
    }),
  )
}

/** The name of a cluster has no equals sign, that of a context may. */
function pairs(option: string, form: string, texts: readonly string[], grammar: RegExp): Map<string, string> {
  const map = new Map<string, string>()
  for (const text of texts) {
    const at = text.indexOf('=')
    const cluster = text.slice(0, at)
    if (!grammar.test(text) || map.has(cluster)) throw new UsageError(`${option}: write ${form}, once for each cluster`)
    map.set(cluster, text.slice(at + 1))
  }
  return map
}
