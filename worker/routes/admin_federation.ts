/** `/admin/v1/federation…`: the bundles of other trust domains, for administrators alone (T-24). */

import * as z from 'zod/mini'
import { type AdministerFederationDeps, refreshBundle, reportFederation, setBundle } from '../administer_federation.ts'
import { type AdminDeps, authenticate, readAs } from './admin.ts'
import { adminResponse } from './respond.ts'

export interface AdminFederationDeps
  extends AdministerFederationDeps,
    Pick<AdminDeps, 'administrators' | 'log' | 'now'> {}

/** A bundle of 1 MiB as a text in JSON, in which each quote takes two characters. */
const MAX_BUNDLE_BYTES = 2 * 1024 * 1024
const MAX_BODY_BYTES = 4096

const SetBundle = z.strictObject({ trustDomain: z.string(), bundle: z.string() })
const Refresh = z.strictObject({ trustDomain: z.string() })

/** `GET /admin/v1/federation` */
export async function getFederation(request: Request, deps: AdminFederationDeps): Promise<Response> {
  await authenticate(request, deps)
  return adminResponse(200, { now: deps.now(), trustDomains: await reportFederation(deps) })
}

/** `POST /admin/v1/federation/bundle` */
export async function postBundle(request: Request, deps: AdminFederationDeps): Promise<Response> {
  const admin = await authenticate(request, deps)
  const { trustDomain, bundle } = await readAs(SetBundle, request, MAX_BUNDLE_BYTES, 'a bundle of a trust domain')
  const outcome = await setBundle(trustDomain, bundle, deps)
  if (outcome.outcome === 'unknown') return unknown()
  if (outcome.outcome === 'refused') return adminResponse(422, { error: 'bundle_refused', code: outcome.code })
  deps.log({ event: 'federation_bundle_set', admin, trust_domain: trustDomain })
  return status(trustDomain, deps)
}

/** `POST /admin/v1/federation/refresh` */
export async function postRefresh(request: Request, deps: AdminFederationDeps): Promise<Response> {
  const admin = await authenticate(request, deps)
  const { trustDomain } = await readAs(Refresh, request, MAX_BODY_BYTES, 'the name of a trust domain')
  const outcome = await refreshBundle(trustDomain, deps)
  if (outcome.outcome === 'unknown') return unknown()
  if (outcome.outcome === 'no_endpoint') return adminResponse(409, { error: 'no_endpoint' })
  if (outcome.outcome === 'failed') return adminResponse(409, { error: 'bundle_not_fetched', code: outcome.code })
  deps.log({ event: 'federation_bundle_refreshed', admin, trust_domain: trustDomain })
  return status(trustDomain, deps)
}

/** @returns what holds of one trust domain now */
async function status(trustDomain: string, deps: AdminFederationDeps): Promise<Response> {
  const trustDomains = (await reportFederation(deps)).filter((one) => one.trustDomain === trustDomain)
  return adminResponse(200, { now: deps.now(), trustDomains })
}

function unknown(): Response {
  return adminResponse(404, { error: 'no_such_trust_domain' })
}
