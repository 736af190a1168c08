/**
 * What kubectl and client-go tell a credential plugin, and what they take from it.
 *
 * @see [client-go credential plugins](https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins)
 */

import { parseJsonObject } from '../worker/strict_json.ts'
import { Failure, UsageError } from './failure.ts'
import type { Terminal } from './terminal.ts'

const GROUP = 'client.authentication.k8s.io'
const VERSIONS = ['v1', 'v1beta1'] as const

/**
 * An API server grants no leeway after `exp`, and a request is some time on its way. client-go runs the plugin again only
 * after this time (EX-6, EX-9).
 */
const EXPIRES_EARLIER_SECONDS = 10

export interface ExecInfo {
  /** The one that the answer must have as well (EX-1). */
  readonly apiVersion: `${typeof GROUP}/${(typeof VERSIONS)[number]}`
  /** Whether standard input is the person's (EX-5). */
  readonly interactive: boolean
  /** What stands in the kubeconfig's cluster, as the extension `client.authentication.k8s.io/exec`; null if nothing does. */
  readonly config: Readonly<Record<string, unknown>> | null
}

export interface Credential {
  /** A bearer token. */
  readonly token: string
  /** Its `exp`, in seconds since the epoch. */
  readonly expiresAt: number
}

/**
 * Without `KUBERNETES_EXEC_INFO`, as when somebody tries the command, the version is `EXEC_CREDENTIAL_VERSION` or v1.
 *
 * @throws UsageError
 */
export function readExecInfo({ env, interactive }: Pick<Terminal, 'env' | 'interactive'>): ExecInfo {
  const text = env.KUBERNETES_EXEC_INFO
  if (!text) {
    const version = VERSIONS.find((known) => known === (env.EXEC_CREDENTIAL_VERSION || 'v1'))
    if (!version) throw new UsageError(`EXEC_CREDENTIAL_VERSION: not one of ${VERSIONS.join(', ')}`)
    return { apiVersion: `${GROUP}/${version}`, interactive: interactive(), config: null }
  }
  let info: Record<string, unknown>
  try {
    info = parseJsonObject(text)
  } catch {
    throw new UsageError('KUBERNETES_EXEC_INFO: not a JSON object')
  }
  const version = VERSIONS.find((known) => info.apiVersion === `${GROUP}/${known}`)
  if (info.kind !== 'ExecCredential' || !version)
    throw new UsageError(`KUBERNETES_EXEC_INFO: not an ExecCredential of ${GROUP}/${VERSIONS.join(' or ')}`)
  const spec = object(info.spec)
  return {
    apiVersion: `${GROUP}/${version}`,
    interactive: spec?.interactive === true,
    config: object(object(spec?.cluster)?.config),
  }
}

/**
 * @param now seconds since the epoch
 * @returns the ExecCredential as JSON, with a line break at its end
 * @throws Failure if the token has expired: it would be refused, and the reason be found out nowhere
 */
export function execCredential({ apiVersion, interactive }: ExecInfo, credential: Credential, now: number): string {
  const { token, expiresAt } = credential
  if (expiresAt <= now) throw new Failure('the token has expired already: is the clock of this machine right?')
  // With a time that is over, client-go would run the plugin for each single request.
  const earlier = Math.min(EXPIRES_EARLIER_SECONDS, Math.floor((expiresAt - now) / 2))
  const expirationTimestamp = new Date((expiresAt - earlier) * 1000).toISOString().replace('.000', '')
  const answer = {
    apiVersion,
    kind: 'ExecCredential',
    spec: { interactive },
    status: { expirationTimestamp, token },
  }
  return `${JSON.stringify(answer)}\n`
}

function object(value: unknown): Readonly<Record<string, unknown>> | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null
}
