/** `/admin/v1/keys…`: signing keys, for administrators alone. */

import * as z from 'zod/mini'
import { isAlgorithmName } from '../../keys/algorithms.ts'
import { type AdministerKeysDeps, reportKeys, revokeKey, rotateKeys } from '../administer_keys.ts'
import { type AdminDeps, authenticate, readAs } from './admin.ts'
import { adminResponse } from './respond.ts'

export interface AdminKeysDeps extends AdministerKeysDeps, Pick<AdminDeps, 'administrators' | 'log'> {}

const MAX_BODY_BYTES = 4096

const Rotate = z.strictObject({
  use: z._default(z.enum(['jwt-svid', 'x509-svid']), 'jwt-svid'),
  alg: z.nullable(z.string().check(z.refine(isAlgorithmName))),
})
/** RFC 7638 §3.4: the SHA-256 of a key, in base64url. */
const Revoke = z.strictObject({ kid: z.string().check(z.regex(/^[A-Za-z0-9_-]{43}$/)) })

/** `GET /admin/v1/keys` */
export async function getKeys(request: Request, deps: AdminKeysDeps): Promise<Response> {
  await authenticate(request, deps)
  return adminResponse(200, await reportKeys(deps))
}

/** `POST /admin/v1/keys/rotate` */
export async function postRotate(request: Request, deps: AdminKeysDeps): Promise<Response> {
  const admin = await authenticate(request, deps)
  const asked = await readAs(Rotate, request, MAX_BODY_BYTES, 'a rotate request')
  const alg = isAlgorithmName(asked.alg) ? asked.alg : null
  const { outcome, ...more } = await rotateKeys(asked.use, alg, deps)
  if (outcome !== 'rotated') return adminResponse(409, { error: outcome, ...more })
  deps.log({ event: 'keys_rotated', admin, use: asked.use, alg })
  return adminResponse(200, await reportKeys(deps))
}

/** `POST /admin/v1/keys/revoke` */
export async function postRevoke(request: Request, deps: AdminKeysDeps): Promise<Response> {
  const admin = await authenticate(request, deps)
  const { kid } = await readAs(Revoke, request, MAX_BODY_BYTES, 'a revoke request')
  const revoked = await revokeKey(kid, deps)
  if (!revoked) return adminResponse(404, { error: 'no_such_key' })
  deps.log({ event: 'key_revoked', admin, kid: revoked.kid })
  return adminResponse(200, revoked)
}
