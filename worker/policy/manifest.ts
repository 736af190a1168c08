/**
 * The operator's manifest: YAML documents of the kinds `Cluster` and `WorkloadRegistration`, read into one policy.
 * Either all of it is good or none of it is used.
 */

import { parseAllDocuments } from 'yaml'
import * as z from 'zod/mini'
import { SpiffeIdError } from '../spiffe/id.ts'
import { type Cluster, ClusterManifest, compileCluster } from './cluster.ts'
import { checkPolicy, type ManifestContext, type Policy } from './policy.ts'
import { compileRegistration, type Registration, RegistrationManifest } from './registration.ts'

/** Thrown with everything that is wrong, each with the kind and name of its object. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

const ManifestObject = z.discriminatedUnion('kind', [ClusterManifest, RegistrationManifest])

/**
 * @param text YAML 1.2, any number of documents
 * @throws ManifestError
 */
export function parseManifest(text: string, context: ManifestContext): Policy {
  const problems: string[] = []
  const objects = parseObjects(text, problems)
  const clusterManifests = objects.filter((object) => object.kind === 'Cluster')
  const alone = clusterManifests.length === 1
  const clusters = new Map<string, Cluster>()
  for (const object of clusterManifests) {
    const { name } = object.metadata
    if (clusters.has(name)) problems.push(`Cluster ${name}: the name is taken`)
    clusters.set(name, compileCluster(object, alone))
  }
  const registrations: Registration[] = []
  for (const object of objects) {
    if (object.kind !== 'WorkloadRegistration') continue
    const { name } = object.metadata
    if (registrations.some((other) => other.name === name))
      problems.push(`WorkloadRegistration ${name}: the name is taken`)
    try {
      registrations.push(compileRegistration(object, context.trustDomain, alone))
    } catch (error) {
      if (!(error instanceof SpiffeIdError)) throw error
      problems.push(`WorkloadRegistration ${name}: spec.spiffeID: ${error.message} of ${context.trustDomain}`)
    }
  }
  const policy: Policy = { trustDomain: context.trustDomain, clusters, registrations }
  problems.push(...checkPolicy(policy, context))
  if (problems.length > 0) throw new ManifestError(problems)
  return policy
}

function parseObjects(text: string, problems: string[]): z.infer<typeof ManifestObject>[] {
  const objects: z.infer<typeof ManifestObject>[] = []
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
  const { kind, metadata } = value as { kind?: unknown; metadata?: { name?: unknown } }
  const name = metadata?.name
  return typeof kind === 'string' && typeof name === 'string' ? `${kind} ${name}` : `document ${index + 1}`
}

function describe(issue: z.core.$ZodIssue): string {
  const where = issue.path.join('.')
  if (issue.code === 'unrecognized_keys')
    return `${[where, ''].join(where ? '.' : '')}${issue.keys.join(', ')}: unknown field`
  return where === '' ? issue.message : `${where}: ${issue.message}`
}
