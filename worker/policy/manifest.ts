/**
 * Objects of every kind, from the manifest that is deployed, from administrators and from clusters, put together into one policy.
 */

import { parseAllDocuments } from 'yaml'
import * as z from 'zod/mini'
import { SpiffeIdError } from '../spiffe/id.ts'
import { AdminManifest, compileAdmin } from './admin.ts'
import { BanManifest, Bans, banProblem } from './ban.ts'
import { ClusterManifest, compileCluster } from './cluster.ts'
import { compileFederatedTrustDomain, FederatedTrustDomainManifest } from './federated_trust_domain.ts'
import { compileOidcAttestor, OidcAttestorManifest } from './oidc_attestor.ts'
import {
  audiencesOf,
  checkAdmin,
  checkAdmins,
  checkAttestors,
  checkCeiling,
  checkClusters,
  checkFederation,
  checkRegistration,
  type ManifestContext,
  type Policy,
} from './policy.ts'
import { compileRegistration, type Registration, RegistrationManifest, type Source } from './registration.ts'
import { RegistrationIndex } from './registration_index.ts'
import { RevocationManifest, Revocations } from './revocation.ts'
import { SharedIdentities } from './shared_identities.ts'
import { checkVaultMount, checkVaultRole } from './vault.ts'
import { compileVaultMount, VaultMountManifest } from './vault_mount.ts'
import { compileVaultOidcRole, VaultOidcRoleManifest } from './vault_oidc_role.ts'
import { compileVaultRole, type VaultRole, VaultRoleManifest } from './vault_role.ts'

/** Thrown with everything that is wrong, each with the kind and name of its object. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

export const ManifestObject = z.discriminatedUnion('kind', [
  ClusterManifest,
  RegistrationManifest,
  OidcAttestorManifest,
  FederatedTrustDomainManifest,
  BanManifest,
  RevocationManifest,
  AdminManifest,
  VaultMountManifest,
  VaultRoleManifest,
  VaultOidcRoleManifest,
])
export type ManifestObject = z.infer<typeof ManifestObject>

/** Registrations, each counted once for every cluster that it names: more would not fit into an isolate. */
const MAX_PAIRS = 200_000

/** An object, and where it came from. */
export interface SourcedObject {
  readonly object: ManifestObject
  readonly source: Source
}

export interface CompiledPolicy {
  readonly policy: Policy
  /** What is wrong with objects of the manifest or of administrators. Where there is something, `policy` may not be used. */
  readonly problems: readonly string[]
  /** Live objects that are left out, as `<cluster>/<name>`, each with its problems. */
  readonly rejected: ReadonlyMap<string, readonly string[]>
}

/**
 * @param text YAML 1.2, any number of documents
 * @returns the objects that have nothing wrong with them, and what is wrong with the others
 */
export function parseManifest(text: string): { objects: readonly ManifestObject[]; problems: readonly string[] } {
  const problems: string[] = []
  return { objects: parseObjects(text, problems), problems }
}

/**
 * @param value what an administrator or a cluster has sent
 * @throws ManifestError
 */
export function parseObject(value: unknown): ManifestObject {
  const parsed = ManifestObject.safeParse(value)
  if (parsed.success) return parsed.data
  throw new ManifestError(parsed.error.issues.map((issue) => `${titleOf(value, 0)}: ${describe(issue)}`))
}

/** Puts objects together. One of a cluster that is wrong is left out; with any other, nothing can be used. */
export function compilePolicy(sourced: readonly SourcedObject[], context: ManifestContext): CompiledPolicy {
  const problems: string[] = []
  const rejected = new Map<string, readonly string[]>()
  // A cluster speaks of its own workloads. Whatever else its API server gives is an attempt at more (T-1).
  const objects = sourced.filter(({ object: { kind, metadata }, source }) => {
    if (typeof source === 'string' || kind === 'WorkloadRegistration') return true
    rejected.set(`${source.cluster}/${metadata.name}`, [`kind: ${kind} is not for a cluster to say`])
    return false
  })
  const names = new Set<string>()
  for (const { object, source } of objects) {
    const title = `${object.kind} ${object.metadata.name}`
    if (typeof source === 'object') continue
    if (names.has(title)) problems.push(`${title}: the name is taken`)
    names.add(title)
    // A host that is named at run time never gets to see a token of ours (T-10).
    if (object.kind === 'Cluster' && source !== 'manifest' && object.spec.connection && !object.spec.connection.binding)
      problems.push(`${title}: spec.connection: needs a binding, but in the deployed manifest`)
    if (object.kind === 'Admin' && source !== 'manifest') problems.push(`${title}: only in the deployed manifest`)
  }

  const clusterManifests = objects.flatMap(({ object }) => (object.kind === 'Cluster' ? [object] : []))
  const clusters = new Map(
    clusterManifests.map((object) => [object.metadata.name, compileCluster(object, clusterManifests.length === 1)]),
  )
  const attestors = new Map(
    objects.flatMap(({ object }) =>
      object.kind === 'OIDCAttestor' ? [[object.metadata.name, compileOidcAttestor(object)] as const] : [],
    ),
  )
  problems.push(...checkClusters([...clusters.values()], context))
  problems.push(...checkAttestors([...attestors.values()], [...clusters.values()], context))

  const peers = objects.flatMap(({ object }) => (object.kind === 'FederatedTrustDomain' ? [object] : []))
  problems.push(...checkFederation(peers, context))
  const federation = new Map(peers.map((object) => [object.spec.trustDomain, compileFederatedTrustDomain(object)]))

  const mounts = new Map(
    objects.flatMap(({ object }) => {
      if (object.kind !== 'VaultMount') return []
      const mount = compileVaultMount(object)
      return [[mount.path, mount] as const]
    }),
  )
  const roleManifests = objects.flatMap(({ object, source }) =>
    object.kind === 'VaultRole' ? [{ object, source }] : [],
  )
  const loginAudiences = [
    ...mounts.values().flatMap(({ config }) => config?.audiences ?? []),
    ...roleManifests.map(({ object }) => object.spec.audience).filter((audience) => audience !== ''),
  ]
  const audiences = audiencesOf(clusters.values(), attestors.values(), loginAudiences)
  for (const mount of mounts.values())
    problems.push(
      ...checkVaultMount(mount, mounts.keys(), clusters, audiences, context).map(
        (text) => `VaultMount ${mount.path}: ${text}`,
      ),
    )
  const bans = objects.flatMap(({ object }) => (object.kind === 'Ban' ? [object] : []))
  for (const { object, source } of objects) {
    // One that has been applied outlives the trust domain that it is about: should that come back, nobody has to remember it.
    if (object.kind !== 'Ban' || source === 'applied') continue
    const problem = banProblem(object, context.trustDomain, federation)
    if (problem !== null) problems.push(problem)
  }
  const admins = objects.flatMap(({ object }) => (object.kind === 'Admin' ? [compileAdmin(object)] : []))
  problems.push(...checkAdmins(admins))
  for (const admin of admins)
    problems.push(...checkAdmin(admin, audiences, context).map((problem) => `Admin ${admin.name}: ${problem}`))
  const pairs = objects.reduce(
    (sum, { object, source }) =>
      // A live object is of one cluster, whatever it says, and how many there are is bounded where they are read.
      sum +
      (typeof source === 'string' && object.kind === 'WorkloadRegistration' ? (object.spec.clusters?.length ?? 1) : 0),
    0,
  )
  if (pairs > MAX_PAIRS)
    problems.push(`spec.clusters: ${pairs} pairs of registration and cluster, more than ${MAX_PAIRS}`)
  const identities = new SharedIdentities()
  const registrations: Registration[] = []
  // Live objects last, so that none of them can keep another from being accepted.
  for (const { object, source } of objects.toSorted((one, other) => rank(one) - rank(other))) {
    if (object.kind !== 'WorkloadRegistration') continue
    const { registration, found } = compileOne(object, source)
    if (registration && found.length === 0) registrations.push(registration)
    else if (typeof source === 'object') rejected.set(`${source.cluster}/${object.metadata.name}`, found)
    else problems.push(...found.map((problem) => `WorkloadRegistration ${object.metadata.name}: ${problem}`))
  }

  const roles = new Map<string, VaultRole>()
  for (const { object, source } of roleManifests) {
    const { name } = object.metadata
    const { role, found } = compileRole(object, source)
    if (role && found.length === 0) roles.set(name, role)
    else problems.push(...found.map((problem) => `VaultRole ${name}: ${problem}`))
  }

  function compileRole(object: ManifestObject & { kind: 'VaultRole' }, source: Source) {
    const { name } = object.metadata
    const config = mounts.get(name.slice(0, name.lastIndexOf('/')))?.config ?? null
    let role: VaultRole
    try {
      role = compileVaultRole(object, source, context.trustDomain, config?.cluster ?? null)
    } catch (error) {
      if (!(error instanceof SpiffeIdError)) throw error
      return { role: null, found: [`spec.spiffe_id: ${error.message} of ${context.trustDomain}`] }
    }
    const found = checkVaultRole(role, { mounts, clusters, attestors, federation, audiences }, context)
    const sharing = found.length === 0 && role.registration ? identities.add(role.registration) : null
    if (sharing)
      found.push(`spec.spiffe_id: pods of ${sharing[0]} and ${sharing[1]} could share it: put {cluster} into it`)
    return { role, found }
  }

  function compileOne(object: ManifestObject & { kind: 'WorkloadRegistration' }, source: Source) {
    let registration: Registration
    try {
      registration = compileRegistration(object, source, context.trustDomain, clusters)
    } catch (error) {
      if (!(error instanceof SpiffeIdError)) throw error
      return { registration: null, found: [`spec.spiffeID: ${error.message} of ${context.trustDomain}`] }
    }
    const found = checkRegistration(registration, { clusters, attestors, federation, audiences }, context)
    if (typeof source === 'object') {
      found.push(...checkCeiling(registration, clusters.get(source.cluster)))
    }
    const sharing = found.length === 0 ? identities.add(registration) : null
    if (sharing)
      found.push(
        `spec.spiffeID: pods of ${sharing[0]} and ${sharing[1]} could share it: put {cluster} into it, or set sharedIdentity`,
      )
    return { registration, found }
  }

  const policy: Policy = {
    trustDomain: context.trustDomain,
    clusters,
    attestors,
    federation,
    registrations: new RegistrationIndex(registrations),
    bans: new Bans(bans, context.trustDomain),
    revocations: new Revocations(objects.flatMap(({ object }) => (object.kind === 'Revocation' ? [object] : []))),
    admins,
    audiences,
    vault: {
      mounts,
      roles,
      oidcRoles: new Map(
        objects.flatMap(({ object }) =>
          object.kind === 'VaultOIDCRole' ? [[object.metadata.name, compileVaultOidcRole(object)] as const] : [],
        ),
      ),
    },
  }
  return { policy, problems, rejected }
}

function rank({ source }: SourcedObject): number {
  return typeof source === 'object' ? 1 : 0
}

function parseObjects(text: string, problems: string[]): ManifestObject[] {
  const objects: ManifestObject[] = []
  const documents = parseAllDocuments(text, { version: '1.2', schema: 'core', strict: true, uniqueKeys: true })
  if (!Array.isArray(documents)) return objects
  for (const [index, document] of documents.entries()) {
    // A warning is about something that is not taken as it was meant: a tag, or another version of YAML.
    const [error] = [...document.errors, ...document.warnings]
    if (error) {
      problems.push(`document ${index + 1}: not YAML: ${error.code} at line ${error.linePos?.[0].line ?? '?'}`)
      continue
    }
    // No aliases: nothing in a manifest needs them, and they multiply.
    let value: unknown
    try {
      value = document.toJS({ maxAliasCount: 0 })
    } catch {
      problems.push(`document ${index + 1}: uses an alias`)
      continue
    }
    if (value === null) continue
    const parsed = ManifestObject.safeParse(value)
    if (parsed.success) objects.push(parsed.data)
    else problems.push(...parsed.error.issues.map((issue) => `${titleOf(value, index)}: ${describe(issue)}`))
  }
  return objects
}

function titleOf(value: unknown, index: number): string {
  const { kind, metadata } = (value ?? {}) as { kind?: unknown; metadata?: { name?: unknown } }
  const name = metadata?.name
  return typeof kind === 'string' && typeof name === 'string' ? `${kind} ${name}` : `document ${index + 1}`
}

function describe(issue: z.core.$ZodIssue): string {
  const where = issue.path.join('.')
  if (issue.code === 'unrecognized_keys')
    return `${[where, ''].join(where ? '.' : '')}${issue.keys.join(', ')}: unknown field`
  // What is wrong with a name stands one level further down.
  if (issue.code === 'invalid_key') return `${where}: ${issue.issues.map(({ message }) => message).join(', ')}`
  return where === '' ? issue.message : `${where}: ${issue.message}`
}
