/**
 * The `config` of a mount as Vault's API writes and reads it. A write replaces the whole (VC-1).
 *
 * The host is not a place to connect to: it names one of the clusters that the policy has, which are reached as their records
 * say and in no other way (T-10).
 *
 * @see [Configure method](https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#configure-method)
 */

import { readPublicKeyPem } from '../../keys/public_key_pem.ts'
import { reviewerPurpose } from '../attest/vault_login.ts'
import type { Cluster } from '../policy/cluster.ts'
import type { VaultMount, VaultMountConfig } from '../policy/vault_mount.ts'
import { ignoredWarning, readFields } from './fields.ts'
import type { TokenSecret } from './token.ts'
import { VaultError } from './vault_error.ts'

const SCHEMA = {
  kubernetes_host: 'text',
  kubernetes_ca_cert: 'text',
  token_reviewer_jwt: 'text',
  pem_keys: 'list',
  disable_local_ca_jwt: 'bool',
  issuer: 'text',
  disable_iss_validation: 'bool',
  use_annotations_as_alias_metadata: 'bool',
  // What Vault's config knows nothing of (T-6, T-10).
  cluster: 'text',
  audiences: 'list',
  allow_api_server_audience: 'bool',
} as const

export interface WrittenConfig {
  readonly config: VaultMountConfig
  readonly warnings: readonly string[]
}

/**
 * @param clusters all there are, by name
 * @throws VaultError 400
 */
export async function writeConfig(
  { path }: VaultMount,
  body: Readonly<Record<string, unknown>>,
  clusters: ReadonlyMap<string, Cluster>,
  secret: TokenSecret,
): Promise<WrittenConfig> {
  const { fields, ignored } = readFields(body, SCHEMA)
  const { kubernetes_host: host = '', kubernetes_ca_cert: ca = '', token_reviewer_jwt: reviewer = '' } = fields
  if (host === '') throw new VaultError(400, 'no host provided')
  if (ca !== '' && !/-----BEGIN [A-Z0-9 ]+-----[\s\S]+-----END [A-Z0-9 ]+-----/.test(ca))
    throw new VaultError(400, 'The provided CA PEM data contains no valid certificates')
  const pemKeys = [...(fields.pem_keys ?? [])]
  for (const pem of pemKeys)
    await readPublicKeyPem(pem).catch(() => {
      throw new VaultError(400, 'data does not contain any valid RSA or ECDSA public keys')
    })
  if (fields.use_annotations_as_alias_metadata)
    throw new VaultError(400, 'use_annotations_as_alias_metadata is not supported: there are no aliases with metadata')
  if (reviewer !== '' && !/^[\x21-\x7e]{1,16384}$/.test(reviewer))
    throw new VaultError(400, 'token_reviewer_jwt is not a token')
  const cluster = findCluster(host, fields.cluster ?? '', clusters)
  const config: VaultMountConfig = {
    kubernetes_host: host,
    kubernetes_ca_cert: ca,
    ...(reviewer !== '' && { token_reviewer_jwt: await secret.seal(reviewer, reviewerPurpose(path)) }),
    pem_keys: pemKeys,
    disable_local_ca_jwt: fields.disable_local_ca_jwt ?? false,
    issuer: fields.issuer ?? '',
    disable_iss_validation: fields.disable_iss_validation ?? true,
    cluster: cluster.name,
    audiences: [...(fields.audiences ?? [])],
    allow_api_server_audience: fields.allow_api_server_audience ?? false,
  }
  return { config, warnings: [...warn(config, cluster), ...ignoredWarning(ignored)] }
}

/** The one that is named, or else the one whose API server is said to be there. */
function findCluster(host: string, name: string, clusters: ReadonlyMap<string, Cluster>): Cluster {
  const named = clusters.get(name)
  if (named) return named
  if (name !== '') throw new VaultError(400, 'there is no Cluster of the name that cluster gives')
  const origin = URL.parse(host)?.origin
  const [found, ...more] = [...clusters.values()].filter(
    ({ connection }) => connection && URL.parse(connection.url)?.origin === origin,
  )
  if (found && more.length === 0) return found
  throw new VaultError(
    400,
    'kubernetes_host is not where a Cluster that is known here has its API server: name the Cluster with cluster=…',
  )
}

function warn(config: VaultMountConfig, { name, connection, audiences }: Cluster): string[] {
  const warnings: string[] = []
  if (config.kubernetes_ca_cert !== '')
    warnings.push(`kubernetes_ca_cert is kept and not used: Cluster ${name} is reached by the CA of its own connection`)
  if (!connection)
    warnings.push(
      `Cluster ${name} has no connection: tokens are verified with its public keys alone, and end with the service account token`,
    )
  if (!config.disable_iss_validation && config.issuer === '')
    warnings.push('issuer is not set, so only tokens of the issuer kubernetes/serviceaccount pass its validation')
  if (config.audiences.length === 0 && !config.allow_api_server_audience)
    warnings.push(
      `A role without audience takes tokens that are made out to ${audiences.join(', ')}; the API server's own audience needs allow_api_server_audience=true`,
    )
  return warnings
}

/** @returns the config's `data`, as Vault's API reads it. The reviewer's token is never in it. */
export function readConfig(config: VaultMountConfig): Record<string, unknown> {
  const { token_reviewer_jwt: sealed, ...data } = config
  return { ...data, token_reviewer_jwt_set: sealed !== undefined, use_annotations_as_alias_metadata: false }
}
