/**
 * What administrators do at run time: look at all objects, and change those that have been applied. A change is judged
 * together with everything else that there is, and happens whole or not at all.
 */

import { ForeignBundleError, parseForeignBundle } from './federation/foreign_bundle.ts'
import { banProblem } from './policy/ban.ts'
import {
  compilePolicy,
  ManifestError,
  type ManifestObject,
  parseObject,
  type SourcedObject,
} from './policy/manifest.ts'
import type { ManifestContext, Policy } from './policy/policy.ts'
import type { Registration } from './policy/registration.ts'
import { revocationsProblem } from './policy/revocation.ts'
import { Refusal } from './refusal.ts'
import { settledOrLate } from './shared_call.ts'
import type { FederationRing } from './state/federation_ring.ts'
import { STATE_RETRY_AFTER_SECONDS, STATE_TIMEOUT_MS } from './state/leased_copy.ts'
import type { PolicyRing, PolicySnapshot } from './state/policy_ring.ts'
import type { ObjectName, PolicyState } from './state/policy_state.ts'

/** What administering needs. Built once per isolate. */
export interface AdministerDeps {
  readonly policyRing: PolicyRing
  readonly federationRing: FederationRing
  readonly context: ManifestContext
  /** Seconds since the epoch. */
  now(): number
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
  for (const object of put) problems.push(...(await checkBundle(object)))
  const touched = new Set([...put.map(nameOf), ...request.remove].map(titleOf))
  const kept = before.objects.filter(
    ({ object, source }) => source !== 'applied' || !touched.has(titleOf(nameOf(object))),
  )
  const compiled = compilePolicy(
    [...kept, ...put.map((object): SourcedObject => ({ object, source: 'applied' }))],
    deps.context,
  )
  problems.push(...compiled.problems)
  for (const object of put) {
    const problem =
      object.kind === 'Ban' ? banProblem(object, deps.context.trustDomain, compiled.policy.federation) : null
    if (problem !== null) problems.push(problem)
  }
  const full = revocationsProblem(compiled.policy.revocations.tokens(deps.now()), compiled.policy.bans.spiffeIds)
  const revoking = put.find((object) => object.kind === 'Revocation' && object.spec.expiresAt > deps.now())
  if (full && revoking) problems.push(`Revocation ${revoking.metadata.name}: ${full}`)
  if (problems.length > 0) return { outcome: 'refused', problems: [...new Set(problems)] }

  const changes = describeChanges(put, request.remove, before)
  const warnings = [
    ...describeSideEffects(before.policy, compiled.policy, touched),
    ...compiled.policy.registrations
      .overlaps()
      .map(
        ([one, other]) =>
          `${one.name} and ${other.name} can select the same pod and name it differently: it has to ask for one`,
      ),
    ...[...compiled.rejected.keys()]
      .filter((name) => !before.rejected.has(name))
      .map((name) => `${name} will be rejected`),
    // It is kept: the cluster may come later. A name that is misspelt would else be found out by whom the ban was for.
    ...put.flatMap(({ kind, metadata, spec }) =>
      kind === 'Ban' && 'cluster' in spec && !compiled.policy.clusters.has(spec.cluster)
        ? [`Ban ${metadata.name}: there is no cluster ${spec.cluster}, so it bans nobody`]
        : [],
    ),
    ...put.flatMap((object) =>
      object.kind === 'Revocation' && object.spec.expiresAt <= deps.now()
        ? [`Revocation ${object.metadata.name}: has expired, so it has no effect`]
        : [],
    ),
    // Nothing is issued to them any more all the same: a ban is never refused for what an API server can hold.
    ...(full && put.some(({ kind }) => kind === 'Ban')
      ? [`${full}: what API servers refuse stays as it is until there are fewer`]
      : []),
  ]
  // What changes nothing is no new version, for which every isolate would have to read everything again.
  if (request.dryRun || changes.every(({ action }) => action === 'unchanged'))
    return { outcome: 'applied', version: before.version, changes, warnings }
  const rows = put.map((object) => ({ ...nameOf(object), object }))
  const version = await change(deps.policyState().apply(rows, request.remove, before.version))
  if (version === null) return { outcome: 'conflict' }
  // It has happened. If this isolate can't read it back at once, it will before its lease is over.
  await deps.policyRing.renew().catch(() => {})
  // What they may still know is used by nobody whose policy does not name it, and is deleted later if it can't be now.
  const ended = [...before.policy.federation.keys()].filter((name) => !compiled.policy.federation.has(name))
  if (ended.length > 0) await deps.federationRing.forget(version, ended).catch(() => {})
  return { outcome: 'applied', version, changes, warnings }
}

/** @throws Refusal `policy_unavailable` where nobody can say whether the change has happened: asking again with its version tells */
async function change(asking: Promise<number | null>): Promise<number | null> {
  const outcome = await settledOrLate(asking, STATE_TIMEOUT_MS).catch(() => null)
  if (!outcome)
    throw new Refusal('policy_unavailable', 'policy state: no answer to a change', STATE_RETRY_AFTER_SECONDS)
  return outcome.value
}

/** What an administrator names must be there, be theirs, and be named once. */
function checkNames(
  put: readonly ManifestObject[],
  remove: readonly ObjectName[],
  { objects, rejected }: PolicySnapshot,
): string[] {
  const problems: string[] = []
  const seen = new Set<string>()
  for (const title of [...put.map(nameOf), ...remove].map(titleOf)) {
    if (seen.has(title)) problems.push(`${title}: is named twice`)
    seen.add(title)
  }
  const sources = new Map(
    objects
      .filter(({ source }) => typeof source === 'string')
      .map(({ object, source }) => [titleOf(nameOf(object)), source]),
  )
  for (const title of remove.map(titleOf)) {
    // What has been applied and is left out is theirs too, also where the manifest has its name by now.
    if (rejected.has(title) || sources.get(title) === 'applied') continue
    problems.push(`${title}: ${sources.has(title) ? 'is in the deployed manifest' : 'there is none'}`)
  }
  return problems
}

/** What only an apply looks into, because it takes a parser of certificates that no request should wait for. */
async function checkBundle(object: ManifestObject): Promise<string[]> {
  if (object.kind !== 'FederatedTrustDomain' || object.spec.trustDomainBundle === undefined) return []
  try {
    await parseForeignBundle(object.spec.trustDomainBundle)
    return []
  } catch (error) {
    if (!(error instanceof ForeignBundleError)) throw error
    return [`${titleOf(nameOf(object))}: spec.trustDomainBundle: ${error.message}`]
  }
}

function describeChanges(
  put: readonly ManifestObject[],
  remove: readonly ObjectName[],
  { objects }: PolicySnapshot,
): Change[] {
  const present = new Map(
    objects
      .filter(({ source }) => source === 'applied')
      .map(({ object }) => [titleOf(nameOf(object)), object.spec as object]),
  )
  return [
    ...put.map((object): Change => {
      const name = nameOf(object)
      const before = present.get(titleOf(name)) ?? null
      const action =
        before === null ? 'create' : JSON.stringify(before) === JSON.stringify(object.spec) ? 'unchanged' : 'update'
      return { ...name, action, before, after: object.spec }
    }),
    ...remove.map(
      (name): Change => ({ ...name, action: 'delete', before: present.get(titleOf(name)) ?? null, after: null }),
    ),
  ]
}

/** What changes for objects that nobody has touched: defaults depend on whether there is one cluster or several (T-2, T-7). */
function describeSideEffects(before: Policy, after: Policy, touched: ReadonlySet<string>): string[] {
  const clusters = [...after.clusters.values()].filter(({ name, apiServerAudiences }) => {
    const was = before.clusters.get(name)?.apiServerAudiences
    return was && !touched.has(`Cluster ${name}`) && JSON.stringify(was) !== JSON.stringify(apiServerAudiences)
  })
  const templateOf = ({ template }: Registration) => JSON.stringify(template.segments)
  const templates = new Map(before.registrations.all.map((one) => [one.name, templateOf(one)]))
  const renamed = after.registrations.all.filter((one) => {
    const was = templates.get(one.name)
    return was !== undefined && !touched.has(`WorkloadRegistration ${one.name}`) && was !== templateOf(one)
  })
  return [
    ...clusters.map(
      ({ name, apiServerAudiences }) =>
        `the audience of the API server of ${name} becomes ${apiServerAudiences.join(', ')}`,
    ),
    ...(renamed.length > 0
      ? [
          `${renamed.length} registrations that leave out spec.spiffeID will give other IDs, such as ${renamed[0]?.name}`,
        ]
      : []),
  ]
}

function nameOf({ kind, metadata }: ManifestObject): ObjectName {
  return { kind, name: metadata.name }
}

function titleOf({ kind, name }: ObjectName): string {
  return `${kind} ${name}`
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
  const shown = new Set(
    objects.flatMap(({ object, source }) =>
      typeof source === 'object' ? [`${source.cluster}/${object.metadata.name}`] : [],
    ),
  )
  return [...rejected].flatMap(([title, problems]): ObjectStatus[] => {
    if (shown.has(title)) return []
    const [, cluster, live] = /^([a-z0-9-]+)\/(.*)$/s.exec(title) ?? []
    const [, kind, name] = /^(\S*) (.*)$/s.exec(title) ?? []
    return [
      {
        object:
          live === undefined
            ? { kind, metadata: { name } }
            : { kind: 'WorkloadRegistration', metadata: { name: live } },
        source: live === undefined ? 'applied' : `cluster:${cluster}`,
        status: 'rejected',
        reason: problems.join('; '),
      },
    ]
  })
}
