/** `/admin/v1/…`: objects at run time, and what is revoked, for administrators alone. */

import * as z from 'zod/mini'
import { type AdministerDeps, applyObjects, listObjects } from '../administer.ts'
import type { Administrators } from '../attest/administrators.ts'
import type { Log } from '../audit.ts'
import { Refusal } from '../refusal.ts'
import { readBearer } from './read_bearer.ts'
import { readJson } from './read_body.ts'
import { adminResponse } from './respond.ts'

export interface AdminDeps extends AdministerDeps {
  readonly administrators: Administrators
  now(): number
  log: Log
}

/** An operator's whole estate: ten thousand registrations are below it. */
const MAX_APPLY_BYTES = 16 * 1024 * 1024

const Name = z.strictObject({ kind: z.string(), name: z.string() })
const Apply = z.strictObject({
  objects: z._default(z.array(z.unknown()).check(z.maxLength(20_000)), []),
  remove: z._default(z.array(Name).check(z.maxLength(20_000)), []),
  dryRun: z._default(z.boolean(), false),
  ifVersion: z._default(z.nullable(z.int()), null),
})

/** `GET /admin/v1/objects` */
export async function getObjects(request: Request, deps: AdminDeps): Promise<Response> {
  await authenticate(request, deps)
  return adminResponse(200, await listObjects(deps))
}

/** `POST /admin/v1/apply` */
export async function postApply(request: Request, deps: AdminDeps): Promise<Response> {
  const admin = await authenticate(request, deps)
  const asked = await readAs(Apply, request, MAX_APPLY_BYTES, 'an apply request')
  const outcome = await applyObjects(asked, deps)
  if (outcome.outcome === 'conflict') return adminResponse(409, { error: 'version_conflict' })
  if (outcome.outcome === 'refused') return adminResponse(422, { error: 'policy_refused', problems: outcome.problems })
  const { version, changes, warnings } = outcome
  const changed = changes.filter(({ action }) => action !== 'unchanged')
  if (!asked.dryRun && changed.length > 0)
    deps.log({
      event: 'policy_changed',
      admin,
      version,
      changes: changed.map(({ action, kind, name }) => `${action} ${kind} ${name}`),
    })
  return adminResponse(200, { version, dryRun: asked.dryRun, changes, warnings })
}

/**
 * `GET /admin/v1/clusters/<cluster>/revocations`: what the API server of a cluster is to refuse. Read by every control-plane
 * node, each with the credential of its cluster (T-13). The list is the same for all clusters, whose other objects it does not show.
 */
export async function getRevocations(request: Request, cluster: string, deps: AdminDeps): Promise<Response> {
  await authenticate(request, deps, cluster)
  // What holds now: a revocation is not to wait for the lease of a copy.
  const { version, policy } = await deps.policyRing.renew()
  if (!policy.clusters.has(cluster)) return adminResponse(404, { error: 'cluster_unknown' })
  const tokens = policy.revocations.tokens(deps.now())
  return adminResponse(200, { cluster, version, tokens, subjects: policy.bans.spiffeIds })
}

/**
 * @param what it should be, for the message
 * @throws Refusal `json_malformed`, `request_too_large`
 */
export async function readAs<Body>(
  schema: z.ZodMiniType<Body>,
  request: Request,
  maxBytes: number,
  what: string,
): Promise<Body> {
  const parsed = schema.safeParse(await readJson(request, maxBytes))
  if (!parsed.success) throw new Refusal('json_malformed', `not ${what}`)
  return parsed.data
}

/**
 * @param revocationsOf the cluster whose revocations are asked for; null for whatever else there is to ask for
 * @returns the administrator's name
 * @throws Refusal `admin_none`, `admin_token`, `admin_limited`
 */
export async function authenticate(
  request: Request,
  { administrators, now, log }: Pick<AdminDeps, 'administrators' | 'now' | 'log'>,
  revocationsOf: string | null = null,
): Promise<string> {
  try {
    return await administrators.authenticate(readBearer(request), now(), revocationsOf)
  } catch (error) {
    if (error instanceof Refusal) log({ event: 'admin_refused', reason: error.reason, detail: error.detail })
    throw error
  }
}
