/** A request of Vault's clients, and what its handlers answer: the wire in between is that of `vault.ts`. */

import type { Decision } from '../audit.ts'
import type { IssueDeps } from '../issue.ts'
import type { HolderDeps } from '../vault/holder.ts'
import type { AdminDeps } from './admin.ts'

export type Operation = 'read' | 'list' | 'update' | 'delete'

export interface VaultDeps extends HolderDeps, IssueDeps, AdminDeps {
  now(): number
}

export interface VaultCall {
  readonly request: Request
  readonly operation: Operation
  /** Behind `/v1/`. */
  readonly path: string
  readonly query: URLSearchParams
  /** What the path has in the places that vary, in order. */
  readonly names: readonly string[]
  /** @returns the parameters, none where there is no body */
  body(): Promise<Readonly<Record<string, unknown>>>
  /** What came in `X-Vault-Token`, or as bearer. */
  readonly token: string | null
  /** The client's; null where the platform does not say. */
  readonly address: string | null
  readonly decision: Decision
  readonly deps: VaultDeps
}

export interface VaultAnswer {
  /** 200 where nothing else is said, and 204 for an answer with nothing in it. */
  readonly status?: number
  readonly data?: object | null
  readonly auth?: object | null
  readonly warnings?: readonly string[]
  /** In the place of the envelope. */
  readonly raw?: Response | object
}

export type VaultHandler = (call: VaultCall) => Promise<VaultAnswer>

export const NOTHING: VaultAnswer = {}

/** What Vault says of a path that nothing is mounted at. */
export function noRoute(path: string): string {
  return `no handler for route "${path}". route entry not found.`
}
