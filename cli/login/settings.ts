/** What to log in to, by options and variables. Those of kubekey count as they do there. */

import { endpointUrlProblem } from '../../worker/endpoint_url.ts'
import type { OptionTable, OptionValues } from '../credential.ts'
import { Failure, UsageError } from '../failure.ts'
import { parseTimeout } from '../patience.ts'
import type { Terminal } from '../terminal.ts'
import type { Account } from './account.ts'
import { WAYS, type Way } from './way.ts'

const DEFAULT_TIMEOUT_SECONDS = '180'

/** Which login. */
export const ACCOUNT_OPTIONS = {
  'issuer-url': { type: 'string', value: 'url', description: 'the identity provider (or IDP_ISSUER_URL)' },
  'client-id': { type: 'string', value: 'id', description: 'by which it knows this program (or CLIENT_ID)' },
  token: { type: 'string', value: 'kind', description: 'which of its tokens is used: id or access (id)' },
  scope: {
    type: 'string',
    multiple: true,
    value: 'scope',
    description: 'may be repeated (openid profile email, and offline_access where the provider has it)',
  },
  'authorization-parameter': {
    type: 'string',
    multiple: true,
    value: 'name=value',
    description: 'what else the provider is to be asked; may be repeated',
  },
} as const satisfies OptionTable

/** How. */
export const LOGIN_OPTIONS = {
  ...ACCOUNT_OPTIONS,
  'client-secret-file': {
    type: 'string',
    value: 'file',
    description: 'where the provider wants one (or CLIENT_SECRET)',
  },
  prompt: { type: 'string', value: 'way', description: `${WAYS.join(', ')}; what this session has, if nobody says` },
  port: { type: 'string', value: 'port', description: 'of the redirect URI on 127.0.0.1 (any that is free)' },
  timeout: {
    type: 'string',
    value: 'seconds',
    description: `how long to wait for the person (${DEFAULT_TIMEOUT_SECONDS})`,
  },
  'keyring-only': { type: 'boolean', description: 'fail rather than keep anything outside of the keyring' },
} as const satisfies OptionTable

/** Those that we make ourselves. */
const RESERVED_PARAMETERS = [
  'client_id',
  'client_secret',
  'code_challenge',
  'code_challenge_method',
  'nonce',
  'redirect_uri',
  'request',
  'request_uri',
  'response_mode',
  'response_type',
  'scope',
  'state',
]

export interface LoginSettings {
  readonly account: Account
  /** null: as this session has it. */
  readonly way: Way | null
  readonly port: number
  readonly timeoutSeconds: number
  readonly keyringOnly: boolean
  /**
   * Read when it is needed, which is not each time.
   *
   * @throws Failure
   */
  clientSecret(): Promise<string | null>
}

/** @throws UsageError */
export function accountOf(values: OptionValues<typeof ACCOUNT_OPTIONS>, { env }: Pick<Terminal, 'env'>): Account {
  const issuer = values['issuer-url'] ?? env.IDP_ISSUER_URL
  if (!issuer) throw new UsageError('which identity provider? Give --issuer-url, or set IDP_ISSUER_URL')
  const problem = endpointUrlProblem(issuer, true)
  if (problem) throw new UsageError(`--issuer-url: ${problem}`)
  const clientId = values['client-id'] ?? env.CLIENT_ID
  if (!clientId) throw new UsageError('which client? Give --client-id, or set CLIENT_ID')
  const token = values.token ?? 'id'
  if (token !== 'id' && token !== 'access') throw new UsageError('--token: id or access')
  const scope = values.scope ? [...new Set(values.scope.flatMap((text) => text.split(/[\s,]+/)))] : null
  if (scope && !scope.includes('openid')) throw new UsageError('--scope: openid must be one of them')
  return { issuer, clientId, token, scope, parameters: parametersOf(values['authorization-parameter'] ?? []) }
}

/** @throws UsageError */
export function loginSettings(values: OptionValues<typeof LOGIN_OPTIONS>, terminal: Terminal): LoginSettings {
  const account = accountOf(values, terminal)
  const way = values.prompt ?? null
  if (way !== null && !isWay(way)) throw new UsageError(`--prompt: ${WAYS.join(', ')}`)
  const port = values.port ?? '0'
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) throw new UsageError('--port: not a port')
  return {
    account,
    way,
    port: Number(port),
    timeoutSeconds: parseTimeout(values.timeout ?? DEFAULT_TIMEOUT_SECONDS),
    keyringOnly: values['keyring-only'] ?? false,
    clientSecret: () => clientSecretOf(values['client-secret-file'], terminal),
  }
}

/** @throws Failure */
export async function clientSecretOf(path: string | undefined, { env }: Pick<Terminal, 'env'>): Promise<string | null> {
  if (path === undefined) return env.CLIENT_SECRET || null
  const { readSecretFile } = await import('../input_file.ts')
  const secret = (await readSecretFile(path))?.trim()
  if (!secret) throw new Failure('--client-secret-file: there is no such file, or nothing in it')
  return secret
}

function isWay(text: string): text is Way {
  return (WAYS as readonly string[]).includes(text)
}

function parametersOf(texts: readonly string[]): [string, string][] {
  return texts.map((text) => {
    const [, name, value] = /^([^=]+)=([\s\S]*)$/.exec(text) ?? []
    if (name === undefined || value === undefined) throw new UsageError('--authorization-parameter: not name=value')
    if (RESERVED_PARAMETERS.includes(name)) throw new UsageError(`--authorization-parameter: not ${name}`)
    return [name, value]
  })
}
