/**
 * The environment, read once into a frozen {@link Config}. Whatever is wrong is listed in full, each problem with the
 * name of its variable, and then nothing is served (T-12).
 */

import { formatKeyReference, type KeyReference, parseKeyReference } from '../keys/key_reference.ts'
import type { KmsAccess } from '../keys/kms.ts'
import { endpointUrlProblem } from './endpoint_url.ts'
import type { HttpService } from './fetch_json.ts'
import { isBindingName } from './policy/cluster.ts'
import { compilePolicy, type ManifestObject, parseManifest } from './policy/manifest.ts'
import type { ManifestContext, Policy } from './policy/policy.ts'
import { SpiffeIdError, TrustDomain } from './spiffe/id.ts'

export type Mode = 'production' | 'development'

export interface Config {
  readonly mode: Mode
  /** `iss` of every SVID, byte for byte. */
  readonly issuer: string
  /** What stands before every route: the issuer's path, empty for most. */
  readonly basePath: string
  readonly trustDomain: TrustDomain
  /** In the operator's order: the first signs, all are published. */
  readonly signingKeys: readonly KeyReference[]
  /** null where no key is kept in KMS. */
  readonly kms: KmsAccess | null
  /** What is deployed with the worker: the clusters and registrations that no administrator can change at run time. */
  readonly manifest: readonly ManifestObject[]
  /** The same as a policy. */
  readonly policy: Policy
  /** What objects are judged by. */
  readonly context: ManifestContext
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

/** A JWKS of more keys is beyond what some relying parties keep. */
const MAX_SIGNING_KEYS = 20

/**
 * @param env bindings; an empty string counts as absent, and services only as `CLUSTER_…`
 * @param manifest YAML
 * @param mode what this entry point is for: the production entry refuses an environment that says otherwise
 * @throws ConfigError
 */
export function parseConfig(env: object, manifest: string, mode: Mode): Config {
  const problems: string[] = []
  const variables = env as Record<string, unknown>
  const read = (name: string): string | null => {
    const value = variables[name]
    if (typeof value !== 'string' || value === '') return null
    if (name.startsWith('AWS_') && value !== value.trim()) problems.push(`${name}: has blanks around it`)
    return value
  }
  const need = (name: string): string => {
    const value = read(name)
    if (value === null) problems.push(`${name}: is not set`)
    return value ?? ''
  }

  if ((read('MODE') ?? 'production') !== mode) problems.push(`MODE: must be ${mode} here`)
  const allowLoopbackHttp = mode === 'development'
  const issuer = need('ISSUER')
  const issuerProblem = issuer === '' ? null : describeIssuer(issuer, allowLoopbackHttp)
  if (issuerProblem) problems.push(`ISSUER: ${issuerProblem}`)
  const trustDomain = parseTrustDomain(need('TRUST_DOMAIN'), problems)
  const signingKeys = parseSigningKeys(need('SIGNING_KEY'), mode, problems)
  const usesKms = signingKeys.some(({ keeper }) => keeper === 'awskms')
  const sessionToken = usesKms ? read('AWS_SESSION_TOKEN') : null
  const kms = usesKms
    ? {
        region: need('AWS_REGION'),
        endpoint: read('AWS_ENDPOINT_URL_KMS'),
        credentials: {
          accessKeyId: need('AWS_ACCESS_KEY_ID'),
          secretAccessKey: need('AWS_SECRET_ACCESS_KEY'),
          ...(sessionToken !== null && { sessionToken }),
        },
      }
    : null
  if (kms?.endpoint) {
    const problem = endpointUrlProblem(kms.endpoint, allowLoopbackHttp)
    if (problem) problems.push(`AWS_ENDPOINT_URL_KMS: ${problem}`)
  }
  // The manifest is judged by issuer and trust domain, so without them it has to wait its turn.
  const clusterBindings = readClusterBindings(variables)
  const context =
    trustDomain && issuer !== '' && !issuerProblem
      ? { trustDomain, issuer, allowLoopbackHttp, bindings: clusterBindings }
      : null
  const deployed = context && readManifest(manifest, context, problems)
  if (!trustDomain || !context || !deployed || problems.length > 0) throw new ConfigError(problems)
  const basePath = new URL(issuer).pathname.replace(/\/$/, '')
  return Object.freeze({ mode, issuer, basePath, trustDomain, signingKeys, kms, ...deployed, context, clusterBindings })
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

function isHttpService(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof (value as { fetch?: unknown }).fetch === 'function'
}

/** @see [OpenID Connect Discovery §3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata) */
function describeIssuer(issuer: string, allowLoopbackHttp: boolean): string | null {
  const problem = endpointUrlProblem(issuer, allowLoopbackHttp)
  if (problem) return problem
  if (issuer.endsWith('/')) return 'ends in a slash'
  // What else a path may hold, a router could take for a pattern or a client could spell in another way.
  return /^(?:\/[A-Za-z0-9._~-]+)*$/.test(new URL(issuer).pathname.replace(/^\/$/, ''))
    ? null
    : 'has a path with other characters than A-Z a-z 0-9 . _ ~ -'
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

function parseSigningKeys(text: string, mode: Mode, problems: string[]): readonly KeyReference[] {
  const references: KeyReference[] = []
  const names = new Set<string>()
  for (const [index, entry] of text
    .split(/[\s,]+/)
    .filter(Boolean)
    .entries()) {
    const where = `SIGNING_KEY: entry ${index + 1}`
    const reference = parseKeyReference(entry)
    if (!reference) {
      problems.push(`${where}: is neither awskms:<key>[?alg=…] nor local:<name>[?alg=…]`)
      continue
    }
    if (reference.keeper === 'local' && mode === 'production') problems.push(`${where}: local keys are for development`)
    if (names.has(formatKeyReference(reference))) problems.push(`${where}: is listed twice`)
    names.add(formatKeyReference(reference))
    references.push(reference)
  }
  if (text !== '' && names.size === 0 && problems.every((problem) => !problem.startsWith('SIGNING_KEY')))
    problems.push('SIGNING_KEY: names no key')
  if (references.length > MAX_SIGNING_KEYS) problems.push(`SIGNING_KEY: more than ${MAX_SIGNING_KEYS} keys`)
  return references
}
