/**
 * What a change would do to those who have been given an identity: the worker's own policy code decides about the pods of
 * its audit log once more, by the objects as they are and as they would be.
 */

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Attestation } from '../../worker/attest/attestation.ts'
import { podSelectors } from '../../worker/attest/selectors.ts'
import { authorize } from '../../worker/policy/authorize.ts'
import { compilePolicy, ManifestError, parseObject, type SourcedObject } from '../../worker/policy/manifest.ts'
import type { ManifestContext, Policy } from '../../worker/policy/policy.ts'
import { Refusal } from '../../worker/refusal.ts'
import { SpiffeId, type TrustDomain } from '../../worker/spiffe/id.ts'
import { parseJsonObject } from '../../worker/strict_json.ts'
import type { ManifestObject, ObjectName, StoredObject } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { describe } from '../input_file.ts'
import { printable } from '../terminal.ts'

/** More than this many pods is the log of more than anybody wants to read. */
const MAX_SUBJECTS = 200_000
/** The worker's lines are shorter. */
const MAX_LINE_CHARACTERS = 65_536

/** A pod that was issued something, for one audience or combination of them. */
interface Subject {
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly pod: string | null
  readonly audience: readonly string[]
  readonly podUID: string | null
}

type Outcome = { readonly spiffeID: string; readonly ttlSeconds: number } | { readonly refused: string }

export interface Replay {
  /** Distinct pods and audiences. */
  readonly subjects: number
  /** Lines that were not understood. */
  readonly unread: number
  readonly changed: readonly (Subject & { readonly before: Outcome; readonly after: Outcome })[]
}

/**
 * @param path the audit log: JSON lines
 * @param current every object that the worker knows
 * @throws Failure
 */
export async function replay(
  path: string,
  issuer: string,
  current: readonly StoredObject[],
  change: { readonly objects: readonly ManifestObject[]; readonly remove: readonly ObjectName[] },
): Promise<Replay> {
  const log = await readAuditLog(path)
  const accepted = current.filter(({ status }) => status === 'accepted')
  const touched = [...change.objects.map((object) => nameOf(object)), ...change.remove.map((name) => title(name))]
  const before = accepted.map(sourced)
  const after = [
    ...accepted
      .filter(({ object, source }) => source.startsWith('cluster:') || !touched.includes(nameOf(object)))
      .map(sourced),
    ...change.objects.map((object) => ({ object, source: 'applied' as const })),
  ]
  if (!log.trustDomain) return { subjects: 0, unread: log.unread, changed: [] }
  // Which bindings there are, only the worker knows.
  const context = {
    issuer,
    trustDomain: log.trustDomain,
    allowLoopbackHttp: issuer.startsWith('http:'),
    bindings: null,
  }
  const policies = { before: compile(before, context, 'as they are'), after: compile(after, context, 'as changed') }
  const changed = log.subjects.flatMap((subject) => {
    const outcomes = { before: decide(subject, policies.before), after: decide(subject, policies.after) }
    return JSON.stringify(outcomes.before) === JSON.stringify(outcomes.after) ? [] : [{ ...subject, ...outcomes }]
  })
  return { subjects: log.subjects.length, unread: log.unread, changed }
}

/** @returns lines for a person */
export function describeReplay({ subjects, unread, changed }: Replay): string {
  const rows = changed.map(({ cluster, namespace, serviceAccount, pod, audience, before, after }) => {
    const who = `${cluster} ${namespace}:${serviceAccount}${pod === null ? '' : ` ${pod}`}`
    return `  ${who} for ${audience.join(' ')}: ${show(before)} → ${show(after)}`
  })
  return [
    `${changed.length} of ${subjects} pods and audiences in the audit log would change`,
    ...rows,
    ...(unread > 0 ? [`${unread} lines were not understood`] : []),
  ]
    .map((line) => `${printable(line)}\n`)
    .join('')
}

function show(outcome: Outcome): string {
  return 'refused' in outcome ? `refused (${outcome.refused})` : `${outcome.spiffeID} for ${outcome.ttlSeconds} s`
}

type Unparsed = Pick<SourcedObject, 'source'> & { readonly object: ManifestObject }

function sourced({ object, source }: StoredObject): Unparsed {
  const [, cluster] = /^cluster:(.+)$/.exec(source) ?? []
  return { object, source: cluster !== undefined ? { cluster } : source === 'manifest' ? source : 'applied' }
}

function compile(objects: readonly Unparsed[], context: ManifestContext, which: string): Policy {
  try {
    const parsed = objects.map(({ object, source }) => ({ object: parseObject(object), source }))
    const { policy, problems } = compilePolicy(parsed, context)
    if (problems.length > 0) throw new ManifestError(problems)
    return policy
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error
    throw new Failure(
      [`this program's policy code refuses the objects ${which}:`, ...error.problems.map(printable)].join('\n  '),
    )
  }
}

function decide({ cluster, namespace, serviceAccount, pod, podUID, audience }: Subject, policy: Policy): Outcome {
  // What was attested then, as far as the log has it. It has neither node nor labels.
  const facts = {
    kind: 'pod',
    door: 'token',
    cluster,
    namespace,
    serviceAccount: { name: serviceAccount, uid: '' },
    pod: pod === null ? null : { name: pod, uid: podUID ?? 'unknown' },
    node: null,
    live: true,
    expiresAt: Number.MAX_SAFE_INTEGER,
  } as const
  const selectors = podSelectors({ ...facts, serviceAccountName: serviceAccount, nodeName: null })
  try {
    const grant = authorize(
      { ...facts, selectors } as unknown as Attestation,
      { svidType: 'JWT', audience, spiffeId: null },
      policy,
    )
    return { spiffeID: grant.spiffeId.toString(), ttlSeconds: grant.ttlSeconds }
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    return { refused: error.reason }
  }
}

async function readAuditLog(
  path: string,
): Promise<{ subjects: readonly Subject[]; unread: number; trustDomain: TrustDomain | null }> {
  const subjects = new Map<string, Subject>()
  let unread = 0
  let trustDomain: TrustDomain | null = null
  try {
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line.trim() === '') continue
      const issued = parseLine(line)
      if (issued === 'other') continue
      if (issued === 'unread') {
        unread++
        continue
      }
      trustDomain ??= issued.trustDomain
      if (trustDomain.name !== issued.trustDomain.name)
        throw new Failure(`${printable(path)}: is of several trust domains`)
      const { podUID: _, ...distinct } = issued.subject
      subjects.set(JSON.stringify(Object.values(distinct)), issued.subject)
      if (subjects.size > MAX_SUBJECTS)
        throw new Failure(`${printable(path)}: more than ${MAX_SUBJECTS} pods: give a part of it`)
    }
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure(`${printable(path)}: ${describe(error)}`)
  }
  return { subjects: [...subjects.values()], unread, trustDomain }
}

/** @see worker/audit.ts */
function parseLine(line: string): { subject: Subject; trustDomain: TrustDomain } | 'other' | 'unread' {
  if (line.length > MAX_LINE_CHARACTERS) return 'unread'
  try {
    const entry = parseJsonObject(line)
    if (entry.event !== 'decision' || entry.decision !== 'issued') return 'other'
    // Nodes have no registration, and of a workload that is no pod the log does not have the claims.
    if (entry.door !== 'token' || entry.attestor !== undefined || entry.federated_trust_domain !== undefined)
      return 'other'
    const { cluster, namespace, service_account: serviceAccount, pod = null, audience, spiffe_id: spiffeId } = entry
    const podUID = typeof entry.pod_uid === 'string' ? entry.pod_uid : null
    const list = typeof audience === 'string' ? [audience] : audience
    if (
      ![cluster, namespace, serviceAccount, spiffeId].every((text) => typeof text === 'string') ||
      !(pod === null || typeof pod === 'string') ||
      !(Array.isArray(list) && list.every((text) => typeof text === 'string'))
    )
      return 'unread'
    const subject = { cluster, namespace, serviceAccount, pod, audience: list, podUID } as Subject
    return { subject, trustDomain: SpiffeId.parse(spiffeId as string).trustDomain }
  } catch {
    return 'unread'
  }
}

function nameOf({ kind, metadata }: ManifestObject): string {
  return `${kind}/${metadata.name}`
}

function title({ kind, name }: ObjectName): string {
  return `${kind}/${name}`
}
