/**
 * `POST /token`: a projected service account token in, a JWT-SVID out.
 *
 * Beside the parameters of the standard there is `spiffe_id`, for a workload that could have several identities.
 *
 * @see [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)
 */

import { Decision, type Log } from '../audit.ts'
import { type IssueDeps, type IssuedSvid, type IssueRequest, issue } from '../issue.ts'
import { TOKEN_EXCHANGE_GRANT } from '../oidc/discovery.ts'
import { Refusal } from '../refusal.ts'
import { readForm } from './read_body.ts'
import { jsonResponse, oauthError } from './respond.ts'

/** @see [RFC 8693 §3](https://www.rfc-editor.org/rfc/rfc8693#section-3) */
const JWT_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:jwt'

/** Asking for more at once is no request that a workload makes. */
const MAX_TARGETS = 16

/**
 * @returns 200 with the SVID, or an OAuth error. Either way one line is in the log.
 */
export async function exchangeToken(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('token', deps.now())
  try {
    return shape(await issue(await readExchange(request), deps, decision))
  } catch (error) {
    return oauthError(decision.refused(error), decision.id, request.headers.get('authorization'))
  } finally {
    await decision.write(deps.log)
  }
}

/**
 * @throws Refusal
 * @see [RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1)
 */
async function readExchange(request: Request): Promise<IssueRequest> {
  const form = await readForm(request, ['audience', 'resource'])
  const one = (name: string): string | undefined => form.get(name)?.[0]

  if (one('grant_type') === undefined) throw new Refusal('parameter_missing', 'grant_type')
  if (one('grant_type') !== TOKEN_EXCHANGE_GRANT) throw new Refusal('grant_type_unsupported', 'another grant_type')
  for (const credential of ['client_secret', 'client_assertion', 'client_assertion_type'])
    if (form.has(credential)) throw new Refusal('client_authentication_unsupported', credential)
  if (request.headers.has('authorization')) throw new Refusal('client_authentication_unsupported', 'authorization')

  const subjectToken = one('subject_token')
  if (subjectToken === undefined) throw new Refusal('parameter_missing', 'subject_token')
  if (!form.has('subject_token_type')) throw new Refusal('parameter_missing', 'subject_token_type')
  if (one('subject_token_type') !== JWT_TOKEN_TYPE) throw new Refusal('subject_token_type_unsupported', 'another type')
  if ((one('requested_token_type') ?? JWT_TOKEN_TYPE) !== JWT_TOKEN_TYPE)
    throw new Refusal('requested_token_type_unsupported', 'another type')
  if (form.has('actor_token') || form.has('actor_token_type')) throw new Refusal('actor_token_unsupported', 'an actor')
  if (form.has('scope')) throw new Refusal('scope_unsupported', 'a scope')

  const resources = form.get('resource') ?? []
  if (!resources.every(isAbsoluteUri)) throw new Refusal('target_malformed', 'resource')
  const audience = [...new Set([...(form.get('audience') ?? []), ...resources])]
  if (audience.length > MAX_TARGETS) throw new Refusal('target_not_allowed', `more than ${MAX_TARGETS}`)
  return { door: 'token', subjectToken, audience, spiffeId: one('spiffe_id') ?? null }
}

/**
 * @see [RFC 8693 §2.2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.1)
 */
function shape({ svid, claims, grant }: IssuedSvid): Response {
  return jsonResponse({
    access_token: svid,
    issued_token_type: JWT_TOKEN_TYPE,
    token_type: grant.bearer ? 'Bearer' : 'N_A',
    expires_in: claims.exp - claims.iat,
    ...(grant.hint !== null && { hint: grant.hint }),
  })
}

/** A scheme and something after it, and no fragment (RFC 8693 §2.1). What it names is for the registrations to know. */
function isAbsoluteUri(text: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+$/.test(text)
}
