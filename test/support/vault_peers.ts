/** The other sides of the Vault-compatible API, as programs. test/vault/README.md has what each is asked and answers. */

import { resolve } from 'node:path'
import { type LineProgram, startLineProgram } from './lines.ts'
import { pythonWith } from './python_venv.ts'

const PROGRAM = resolve('build/go/vault-peers')

/** Vault's own Kubernetes auth plugin, and Vault's way of turning its answers into HTTP. */
export function startVaultPlugin(): Promise<LineProgram> {
  return startLineProgram(PROGRAM, ['plugin'])
}

export const VAULT_CLIENTS = ['vault', 'openbao', 'hvac', 'node-vault'] as const
export type VaultClient = (typeof VAULT_CLIENTS)[number]

/** @param caFile PEM; without it the system's CAs count */
export async function startVaultClient(client: VaultClient, address: string, caFile?: string): Promise<LineProgram> {
  const args = ['--address', address, ...(caFile === undefined ? [] : ['--ca', caFile])]
  switch (client) {
    case 'hvac': {
      const python = await pythonWith('hvac-venv', resolve('test/vault/requirements.txt'))
      return startLineProgram(python, [resolve('test/vault/hvac_client.py'), ...args])
    }
    case 'node-vault':
      return startLineProgram(process.execPath, [resolve('test/vault/node_client.ts'), ...args])
    default:
      return startLineProgram(PROGRAM, ['client', client, ...args])
  }
}

const CORE = resolve('build/go/vault-core')

export interface VaultCore {
  /** Plain HTTP. */
  readonly address: string
  /** May do everything. */
  readonly rootToken: string
  stop(): Promise<void>
}

/** A whole Vault, but for its secrets engines. */
export async function startVaultCore(): Promise<VaultCore> {
  const { ready, stop } = await startLineProgram(CORE, ['server'])
  return { address: String(ready.address), rootToken: String(ready.token), stop }
}

export interface AgentSettings {
  readonly address: string
  readonly caFile?: string
  readonly mount: string
  readonly role: string
  readonly jwtFile: string
  /** Where the token is put. */
  readonly sinkFile: string
}

/** The auto-auth of Vault Agent. It answers nothing: its token is in the file, sooner or later. */
export function startVaultAgent({
  address,
  caFile,
  mount,
  role,
  jwtFile,
  sinkFile,
}: AgentSettings): Promise<LineProgram> {
  const flags = { address, mount, role, jwt: jwtFile, sink: sinkFile, ...(caFile !== undefined && { ca: caFile }) }
  return startLineProgram(CORE, ['agent', ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])])
}
