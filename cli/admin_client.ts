/** The admin API of a worker, from the outside: every object it knows, and changes to those that were applied (T-11). */

import type { Command } from 'commander'
import { keyFile, keyring, readAdminKey, signAdminToken } from './admin_key.ts'
import { Failure, UsageError } from './failure.ts'
import { readToken } from './input_file.ts'
import { issuerOf } from './issuer.ts'
import { parseRevoked, type Revoked } from './objects/revocation.ts'
import { type Answer, requestJson } from './request.ts'
import { printable, type Terminal } from './terminal.ts'

export interface ManifestObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: Readonly<Record<string, unknown>>
}

export interface StoredObject {
  readonly object: ManifestObject
  /** `manifest`: deployed with the worker. `applied`: through this API. `cluster:<name>`: read from that cluster. */
  readonly source: string
  readonly status: 'accepted' | 'rejected'
  /** Why it was rejected. */
  readonly reason: string | null
}

export interface Objects {
  /** Counts the changes that were applied. */
  readonly version: number
  readonly objects: readonly StoredObject[]
}

export interface ObjectName {
  readonly kind: string
  readonly name: string
}

export interface ChangeRequest {
  readonly objects: readonly ManifestObject[]
  readonly remove: readonly ObjectName[]
  readonly dryRun: boolean
  /** Refuses if something was applied since; null does not ask. */
  readonly ifVersion: number | null
}

export interface Change extends ObjectName {
  readonly action: 'create' | 'update' | 'delete' | 'unchanged'
  readonly before: Readonly<Record<string, unknown>> | null
  readonly after: Readonly<Record<string, unknown>> | null
}

export interface Changes {
  readonly version: number
  readonly dryRun: boolean
  readonly changes: readonly Change[]
  readonly warnings: readonly string[]
}

/** Somebody else has applied something in between. */
export class VersionConflict extends Failure {}

export interface AdminClient {
  readonly issuer: string
  /**
   * @param path below `/admin/v1/`
   * @param body what to POST; without it the request is a GET
   * @returns the answer, whatever its status
   * @throws Failure
   */
  call(path: string, body?: object): Promise<Answer>
  /** @throws Failure */
  objects(): Promise<Objects>
  /** @throws VersionConflict, Failure */
  apply(request: ChangeRequest): Promise<Changes>
  /**
   * What the API server of a cluster is to refuse.
   *
   * @throws Failure
   */
  revocations(cluster: string): Promise<Revoked>
}

export interface AdminOptions {
  readonly issuer?: string
  readonly keyFile?: string
  readonly tokenFile?: string
}

/** The options of every command that speaks to the admin API. */
export function adminOptions(command: Command): Command {
  return command
    .option('--issuer <url>', 'the worker, by its issuer URL (or SPIFFE_EDGE_ISSUER)')
    .option('--key-file <file>', 'the administrator key, if it is not in the keyring (or SPIFFE_EDGE_ADMIN_KEY_FILE)')
    .option('--token-file <file>', "an identity provider's ID token instead (or SPIFFE_EDGE_ADMIN_TOKEN_FILE)")
}

/**
 * @returns a client that makes a token of its own for each request
 * @throws UsageError, Failure
 */
export async function openAdminClient(options: AdminOptions, terminal: Terminal): Promise<AdminClient> {
  const issuer = issuerOf(options, terminal)
  const token = await tokenSource(issuer, options, terminal)
  const call = async (path: string, body?: object) =>
    requestJson(`${issuer}/admin/v1/${path}`, issuer, { bearer: await token(), ...(body && { method: 'POST', body }) })
  return {
    issuer,
    call,
    async objects() {
      const body = bodyOf(await call('objects'))
      if (!isObjects(body)) throw new Failure(`${issuer} answers with something that is not its list of objects`)
      return body
    },
    async apply(request) {
      const body = bodyOf(await call('apply', request))
      // An answer to another question than ours must not be shown as what happened.
      if (!isChanges(body) || body.dryRun !== request.dryRun)
        throw new Failure(`${issuer} answers with something that is not a list of changes: see with get what holds now`)
      return body
    },
    async revocations(cluster) {
      const revoked = parseRevoked(bodyOf(await call(`clusters/${cluster}/revocations`)), cluster)
      if (!revoked) throw new Failure(`${issuer} answers with something that is not what is revoked, or too much of it`)
      return revoked
    },
  }
}

/** An option goes before the environment, and a token before a key. */
async function tokenSource(issuer: string, options: AdminOptions, terminal: Terminal): Promise<() => Promise<string>> {
  const { env } = terminal
  if (options.tokenFile && options.keyFile) throw new UsageError('either --token-file or --key-file')
  const tokenFile = options.tokenFile ?? (options.keyFile ? undefined : env.SPIFFE_EDGE_ADMIN_TOKEN_FILE)
  if (tokenFile) {
    const token = await readToken(tokenFile, terminal)
    return async () => token
  }
  const path = options.keyFile ?? env.SPIFFE_EDGE_ADMIN_KEY_FILE
  const key = await readAdminKey(path ? keyFile(path) : keyring(issuer), issuer)
  return () => signAdminToken(key, Math.floor(Date.now() / 1000))
}

/**
 * @returns the body of a 200 answer
 * @throws VersionConflict, Failure for any other
 */
export function bodyOf(answer: Answer): Answer['body'] {
  if (answer.status !== 200) throw refusal(answer)
  return answer.body
}

function refusal({ status, headers, body }: Answer): Failure {
  switch (status) {
    case 401:
      return new Failure(
        'the worker does not accept the token (invalid_token). Is the Admin object in its deployed manifest, and is this clock right?',
      )
    case 403:
      if (body?.reason === 'admin_limited')
        return new Failure(
          'this administrator may read the revocations of one cluster, and this is something else (forbidden)',
        )
      return new Failure('the worker has no administrators, or this is none of them (forbidden)')
    case 404:
      if (body?.error === 'cluster_unknown') return new Failure('the worker knows no such cluster')
      return new Failure('there is no admin API at this issuer')
    case 409:
      return new VersionConflict('somebody else has applied something in between. Nothing was changed: try again')
    case 413:
      return new Failure('the worker finds it too large. Apply fewer objects at once')
    case 422:
      return new Failure(['the worker refuses the change:', ...strings(body?.problems)].join('\n  '))
    case 503: {
      const seconds = String(headers['retry-after'] ?? '')
      return new Failure(`the worker is not ready${/^\d{1,6}$/.test(seconds) ? `: try again in ${seconds} s` : ''}`)
    }
  }
  const details = [body?.error, body?.error_description].filter((text) => typeof text === 'string')
  return new Failure(`the worker answers ${status}${details.map((text) => ` ${printable(String(text))}`).join(':')}`)
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string').map(printable) : []
}

/** Whether it is an object with members, as JSON has them. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isManifestObject(value: unknown): value is ManifestObject {
  return (
    isRecord(value) &&
    typeof value.apiVersion === 'string' &&
    typeof value.kind === 'string' &&
    isRecord(value.metadata) &&
    typeof value.metadata.name === 'string' &&
    isRecord(value.spec)
  )
}

function isObjects(value: unknown): value is Objects {
  return (
    isRecord(value) &&
    Number.isSafeInteger(value.version) &&
    Array.isArray(value.objects) &&
    value.objects.every(
      (entry) =>
        isRecord(entry) &&
        isManifestObject(entry.object) &&
        typeof entry.source === 'string' &&
        (entry.status === 'accepted' || entry.status === 'rejected') &&
        (entry.reason === null || typeof entry.reason === 'string'),
    )
  )
}

function isChanges(value: unknown): value is Changes {
  const isSpec = (spec: unknown) => spec === null || isRecord(spec)
  return (
    isRecord(value) &&
    Number.isSafeInteger(value.version) &&
    typeof value.dryRun === 'boolean' &&
    Array.isArray(value.warnings) &&
    value.warnings.every((warning) => typeof warning === 'string') &&
    Array.isArray(value.changes) &&
    value.changes.every(
      (change) =>
        isRecord(change) &&
        typeof change.kind === 'string' &&
        typeof change.name === 'string' &&
        ['create', 'update', 'delete', 'unchanged'].includes(change.action as string) &&
        isSpec(change.before) &&
        isSpec(change.after),
    )
  )
}
