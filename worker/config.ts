/**
 * The environment, read once into a frozen {@link Config}. Whatever is wrong is listed in full, each problem with the
 * name of its variable, and then nothing is served (T-12).
 */

import { type HttpService, isHttpService } from './fetch_json.ts'
import { describeIssuer, type KeySettings, type Mode, readKeySettings } from './key_settings.ts'
import { isBindingName } from './policy/cluster.ts'
import { compilePolicy, type ManifestObject, parseManifest } from './policy/manifest.ts'
import type { ManifestContext, Policy } from './policy/policy.ts'
import { SpiffeIdError, TrustDomain } from './spiffe/id.ts'
import { parseTokenSecret } from './vault/token.ts'

export interface Config {
  /** `iss` of every SVID, byte for byte. */
  readonly issuer: string
  /** What stands before every route: the issuer's path, empty for most. */
  readonly basePath: string
  readonly trustDomain: TrustDomain
  readonly keys: KeySettings
  /** What is deployed with the worker: the clusters and registrations that no administrator can change at run time. */
  readonly manifest: readonly ManifestObject[]
  /** The same as a policy. */
  readonly policy: Policy
  /** What objects are judged by. */
  readonly context: ManifestContext
  /** 32 octets each: the first makes Vault's kind of tokens, all are believed. None where there are no such tokens. */
  readonly vaultTokenKeys: readonly Uint8Array<ArrayBuffer>[]
  /** The bindings that records of clusters may name: services to reach an API server or a disk by, and secrets (T-10). */
  readonly clusterBindings: ReadonlyMap<string, HttpService | string>
}

/** Thrown with everything that is wrong. Names variables, and repeats no secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/**
 * @param env bindings; an empty string counts as absent, and services only as `CLUSTER_…`
 * @param manifest YAML
 * @param mode what this entry point is for: the production entry refuses an environment that says otherwise
 * @throws ConfigError
 */
export function parseConfig(env: object, manifest: string, mode: Mode): Config {
  const problems: string[] = []
  const read = (name: string) => {
    const value = (env as Record<string, unknown>)[name]
    return typeof value === 'string' ? value : null
  }
  const keys = readKeySettings(env, mode, problems)
  const { issuer } = keys.stamp
  const trustDomain = parseTrustDomain(keys.stamp.trustDomain, problems)
  // The manifest is judged by issuer and trust domain, so without them it has to wait its turn.
  const clusterBindings = readClusterBindings(env as Record<string, unknown>)
  const allowLoopbackHttp = mode === 'development'
  const context =
    trustDomain && issuer !== '' && describeIssuer(issuer, allowLoopbackHttp) === null
      ? { trustDomain, issuer, allowLoopbackHttp, bindings: clusterBindings }
      : null
  const deployed = context && readManifest(manifest, context, problems)
  const vaultTokenKeys = parseVaultTokenKeys(read('VAULT_TOKEN_KEY') ?? '', problems)
  if (vaultTokenKeys.length === 0 && deployed && deployed.policy.vault.mounts.size > 0)
    problems.push('VAULT_TOKEN_KEY: is not set, and the manifest has a VaultMount')
  if (!trustDomain || !context || !deployed || problems.length > 0) throw new ConfigError(problems)
  const basePath = new URL(issuer).pathname.replace(/\/$/, '')
  return Object.freeze({ issuer, basePath, trustDomain, keys, ...deployed, context, vaultTokenKeys, clusterBindings })
}

function readClusterBindings(env: Readonly<Record<string, unknown>>): ReadonlyMap<string, HttpService | string> {
  const bindings = new Map<string, HttpService | string>()
  for (const [name, value] of Object.entries(env)) {
    if (!isBindingName(name)) continue
    if (typeof value === 'string' ? value !== '' : isHttpService(value))
      bindings.set(name, value as HttpService | string)
  }
  return bindings
}

/** Others than the first are of tokens that were made before. */
const MAX_VAULT_TOKEN_KEYS = 4

function parseVaultTokenKeys(text: string, problems: string[]): readonly Uint8Array<ArrayBuffer>[] {
  const entries = text.split(/[\s,]+/).filter(Boolean)
  if (entries.length > MAX_VAULT_TOKEN_KEYS) problems.push(`VAULT_TOKEN_KEY: more than ${MAX_VAULT_TOKEN_KEYS} keys`)
  return entries.flatMap((entry, index) => {
    const secret = parseTokenSecret(entry)
    if (!secret) problems.push(`VAULT_TOKEN_KEY: entry ${index + 1} is not 32 octets in base64`)
    return secret ?? []
  })
}

function readManifest(text: string, context: ManifestContext, problems: string[]) {
  const { objects, problems: found } = parseManifest(text)
  const compiled = compilePolicy(
    objects.map((object) => ({ object, source: 'manifest' })),
    context,
  )
  problems.push(...[...found, ...compiled.problems].map((problem) => `manifest: ${problem}`))
  return { manifest: objects, policy: compiled.policy }
}

function parseTrustDomain(name: string, problems: string[]): TrustDomain | null {
  if (name === '') return null
  try {
    return TrustDomain.parse(name)
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    problems.push(`TRUST_DOMAIN: ${error.message}`)
    return null
  }
}
