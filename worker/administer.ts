/**
 * What administrators do at run time: look at all objects, and change those that have been applied. A change is judged
 * together with everything else that there is, and happens whole or not at all.
 */

import {
  compilePolicy,
  ManifestError,
  type ManifestObject,
  parseObject,
  type SourcedObject,
} from './policy/manifest.ts'
import type { ManifestContext } from './policy/policy.ts'
import type { PolicyRing, PolicySnapshot } from './state/policy_ring.ts'
import type { ObjectName, PolicyState } from './state/policy_state.ts'

/** What administering needs. Built once per isolate. */
export interface AdministerDeps {
  readonly policyRing: PolicyRing
  readonly context: ManifestContext
  policyState(): Pick<DurableObjectStub<PolicyState>, 'apply'>
}

/** An object, where it came from, and whether it counts. */
export interface ObjectStatus {
  readonly object: object
  readonly source: string
  readonly status: 'accepted' | 'rejected'
  readonly reason: string | null
}

export interface ApplyRequest {
  readonly objects: readonly unknown[]
  readonly remove: readonly ObjectName[]
  readonly dryRun: boolean
  /** What the caller knows; null for whatever there is. */
  readonly ifVersion: number | null
}

export interface Change extends ObjectName {
  readonly action: 'create' | 'update' | 'delete' | 'unchanged'
  readonly before: object | null
  readonly after: object | null
}

export type ApplyOutcome =
  | {
      readonly outcome: 'applied'
      readonly version: number
      readonly changes: readonly Change[]
      readonly warnings: readonly string[]
    }
  | { readonly outcome: 'conflict' }
  | { readonly outcome: 'refused'; readonly problems: readonly string[] }

export async function listObjects({
  policyRing,
}: AdministerDeps): Promise<{ version: number; objects: ObjectStatus[] }> {
  const { version, objects, rejected } = await policyRing.renew()
  return { version, objects: [...objects.map((one) => statusOf(one, rejected)), ...lost(rejected, objects)] }
}

/** @throws Refusal `policy_unavailable` */
export async function applyObjects(request: ApplyRequest, deps: AdministerDeps): Promise<ApplyOutcome> {
  const before = await deps.policyRing.renew()
  if (request.ifVersion !== null && request.ifVersion !== before.version) return { outcome: 'conflict' }
  const problems: string[] = []
  const put = request.objects.flatMap((value) => {
    try {
      return [parseObject(value)]
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error
      problems.push(...error.problems)
      return []
    }
  })
  problems.push(...checkNames(put, request.remove, before))
  const kept = before.objects.filter(
    ({ object, source }) => source !== 'applied' || !touches([...put.map(nameOf), ...request.remove], object),
  )
  const compiled = compilePolicy(
    [...kept, ...put.map((object): SourcedObject => ({ object, source: 'applied' }))],
    deps.context,
  )
  problems.push(...compiled.problems)
  if (problems.length > 0) return { outcome: 'refused', problems: [...new Set(problems)] }

  const changes = describeChanges(put, request.remove, before)
  const warnings = [
    ...compiled.policy.registrations
      .overlaps()
      .map(
        ([one, other]) =>
          `${one.name} and ${other.name} can select the same pod and name it differently: it has to ask for one`,
      ),
    ...[...compiled.rejected.keys()]
      .filter((name) => !before.rejected.has(name))
      .map((name) => `${name} will be rejected`),
  ]
  if (request.dryRun) return { outcome: 'applied', version: before.version, changes, warnings }
  const rows = put.map((object) => ({ ...nameOf(object), object }))
  const version = await deps.policyState().apply(rows, request.remove, before.version)
  if (version === null) return { outcome: 'conflict' }
  await deps.policyRing.renew()
  return { outcome: 'applied', version, changes, warnings }
}

/** What an administrator names must be there, be theirs, and be named once. */
function checkNames(
  put: readonly ManifestObject[],
  remove: readonly ObjectName[],
  { objects, rejected }: PolicySnapshot,
): string[] {
  const problems: string[] = []
  const seen = new Set<string>()
  for (const { kind, name } of [...put.map(nameOf), ...remove]) {
    const title = `${kind} ${name}`
    if (seen.has(title)) problems.push(`${title}: is named twice`)
    seen.add(title)
  }
  for (const { kind, name } of remove) {
    const found = objects.find(({ object, source }) => typeof source === 'string' && touches([{ kind, name }], object))
    if (found?.source === 'manifest') problems.push(`${kind} ${name}: is in the deployed manifest`)
    else if (!found && !rejected.has(`${kind} ${name}`)) problems.push(`${kind} ${name}: there is none`)
  }
  return problems
}

function describeChanges(
  put: readonly ManifestObject[],
  remove: readonly ObjectName[],
  { objects }: PolicySnapshot,
): Change[] {
  const present = (name: ObjectName) =>
    objects.find(({ object, source }) => source === 'applied' && touches([name], object))?.object.spec ?? null
  return [
    ...put.map((object): Change => {
      const before = present(nameOf(object))
      const action =
        before === null ? 'create' : JSON.stringify(before) === JSON.stringify(object.spec) ? 'unchanged' : 'update'
      return { ...nameOf(object), action, before, after: object.spec }
    }),
    ...remove.map((name): Change => ({ ...name, action: 'delete', before: present(name), after: null })),
  ]
}

function nameOf({ kind, metadata }: ManifestObject): ObjectName {
  return { kind, name: metadata.name }
}

function touches(names: readonly ObjectName[], object: ManifestObject): boolean {
  return names.some(({ kind, name }) => kind === object.kind && name === object.metadata.name)
}

function statusOf({ object, source }: SourcedObject, rejected: PolicySnapshot['rejected']): ObjectStatus {
  const live = typeof source === 'object'
  const problems = live ? rejected.get(`${source.cluster}/${object.metadata.name}`) : undefined
  return {
    object,
    source: live ? `cluster:${source.cluster}` : source,
    status: problems ? 'rejected' : 'accepted',
    reason: problems?.join('; ') ?? null,
  }
}

/** Objects that are stored and left out. */
function lost(rejected: PolicySnapshot['rejected'], objects: readonly SourcedObject[]): ObjectStatus[] {
  return [...rejected].flatMap(([title, problems]): ObjectStatus[] => {
    const [cluster, name] = title.split('/')
    const live = name !== undefined
    if (
      live &&
      objects.some(
        ({ object, source }) =>
          typeof source === 'object' && source.cluster === cluster && object.metadata.name === name,
      )
    )
      return []
    const [kind, plain] = live ? ['WorkloadRegistration', name] : title.split(' ')
    return [
      {
        object: { kind, metadata: { name: plain } },
        source: live ? `cluster:${cluster}` : 'applied',
        status: 'rejected',
        reason: problems.join('; '),
      },
    ]
  })
}
