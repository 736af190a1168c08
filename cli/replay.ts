/**
 * What a change would do to those who have been given an identity: the worker's own policy code decides about the pods of
 * its audit log once more, by the objects as they are and as they would be.
 */

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Attestation } from '../worker/attest/attestation.ts'
import { podSelectors } from '../worker/attest/selectors.ts'
import { authorize } from '../worker/policy/authorize.ts'
import { ManifestError, parseManifest } from '../worker/policy/manifest.ts'
import type { ManifestContext, Policy } from '../worker/policy/policy.ts'
import { Refusal } from '../worker/refusal.ts'
import { SpiffeId, type TrustDomain } from '../worker/spiffe/id.ts'
import { parseJsonObject } from '../worker/strict_json.ts'
import type { ManifestObject, ObjectName, StoredObject } from './admin_client.ts'
import { Failure } from './failure.ts'
import { describe } from './input_file.ts'
import { printable } from './terminal.ts'

/** What the policy code reads. Objects of other kinds take no part in the decision here. */
const REPLAYED_KINDS = ['Cluster', 'WorkloadRegistration']
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
  /** Objects that take no part, as `kind/name`. */
  readonly leftOut: readonly string[]
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
  const before = accepted.map(({ object }) => object)
  const after = [
    ...accepted
      .filter(({ object, source }) => source.startsWith('cluster:') || !touched.includes(nameOf(object)))
      .map(({ object }) => object),
    ...change.objects,
  ]
  const leftOut = [...new Set([...before, ...after].filter(({ kind }) => !REPLAYED_KINDS.includes(kind)).map(nameOf))]
  if (!log.trustDomain) return { subjects: 0, unread: log.unread, leftOut, changed: [] }
  const context = { issuer, trustDomain: log.trustDomain, allowLoopbackHttp: issuer.startsWith('http:') }
  const policies = { before: compile(before, context, 'as they are'), after: compile(after, context, 'as changed') }
  const changed = log.subjects.flatMap((subject) => {
    const outcomes = { before: decide(subject, policies.before), after: decide(subject, policies.after) }
    return JSON.stringify(outcomes.before) === JSON.stringify(outcomes.after) ? [] : [{ ...subject, ...outcomes }]
  })
  return { subjects: log.subjects.length, unread: log.unread, leftOut, changed }
}

/** @returns lines for a person */
export function describeReplay({ subjects, unread, leftOut, changed }: Replay): string {
  const rows = changed.map(({ cluster, namespace, serviceAccount, pod, audience, before, after }) => {
    const who = `${cluster} ${namespace}:${serviceAccount}${pod === null ? '' : ` ${pod}`}`
    return `  ${who} for ${audience.join(' ')}: ${show(before)} → ${show(after)}`
  })
  return [
    `${changed.length} of ${subjects} pods and audiences in the audit log would change`,
    ...rows,
    ...(unread > 0 ? [`${unread} lines were not understood`] : []),
    ...(leftOut.length > 0 ? [`not looked at: ${leftOut.join(', ')}`] : []),
  ]
    .map((line) => `${printable(line)}\n`)
    .join('')
}

function show(outcome: Outcome): string {
  return 'refused' in outcome ? `refused (${outcome.refused})` : `${outcome.spiffeID} for ${outcome.ttlSeconds} s`
}

function compile(objects: readonly ManifestObject[], context: ManifestContext, which: string): Policy {
  const text = objects
    .filter(({ kind }) => REPLAYED_KINDS.includes(kind))
    .map((object) => `---\n${JSON.stringify(object)}\n`)
    .join('')
  try {
    return parseManifest(text, context)
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
    const grant = authorize({ ...facts, selectors } as unknown as Attestation, audience, policy)
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
