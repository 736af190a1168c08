/** What a caller gets to see: the one map from refusals to the wire, and the headers that all answers of a kind share. */

import type { Refusal, RefusalReason } from '../refusal.ts'

interface WireError {
  readonly status: 400 | 401 | 403 | 413 | 500 | 503
  /** RFC 6749 §5.2 and RFC 8693 §2.2.2. */
  readonly error:
    | 'invalid_request'
    | 'invalid_client'
    | 'invalid_scope'
    | 'invalid_target'
    | 'unsupported_grant_type'
    | 'access_denied'
    | 'server_error'
    | 'invalid_token'
    | 'temporarily_unavailable'
  /** Only %x20-21 / %x23-5B / %x5D-7E, and nothing of the request. */
  readonly description: string
}

function request(description: string): WireError {
  return { status: 400, error: 'invalid_request', description }
}

function target(description: string): WireError {
  return { status: 400, error: 'invalid_target', description }
}

function unavailable(description: string): WireError {
  return { status: 503, error: 'temporarily_unavailable', description }
}

/**
 * A subject token that is invalid for any reason, policy included, is an `invalid_request`.
 *
 * @see [RFC 8693 §2.2.2](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.2)
 */
const WIRE: Readonly<Record<RefusalReason, WireError>> = {
  request_malformed: request('the request is not a form-encoded POST without a query'),
  request_too_large: { status: 413, error: 'invalid_request', description: 'the request is too large' },
  parameter_missing: request('a required parameter is missing'),
  parameter_repeated: request('a parameter is given more than once'),
  grant_type_unsupported: {
    status: 400,
    error: 'unsupported_grant_type',
    description: 'only token exchange is offered',
  },
  client_authentication_unsupported: {
    status: 401,
    error: 'invalid_client',
    description: 'the subject token is all the authentication there is',
  },
  scope_unsupported: { status: 400, error: 'invalid_scope', description: 'there are no scopes' },
  subject_token_type_unsupported: request('subject_token_type must be urn:ietf:params:oauth:token-type:jwt'),
  requested_token_type_unsupported: request('requested_token_type must be urn:ietf:params:oauth:token-type:jwt'),
  actor_token_unsupported: request('delegation is not offered'),

  bearer_missing: {
    status: 401,
    error: 'invalid_token',
    description: 'the subject token is to be sent as bearer token, and is all the authentication there is',
  },
  token_too_large: request('the subject token is too large'),
  token_malformed: request('the subject token is not a JWT in compact form'),
  token_header: request('the header of the subject token is not that of a service account token'),
  token_algorithm: request('the subject token is signed with an algorithm that is not accepted'),
  token_issuer: request('the subject token is of an issuer that is not known here'),
  token_audience: request('the subject token is made out to another audience'),
  door_closed: {
    status: 403,
    error: 'access_denied',
    description: 'the cluster of the subject token does not use this door',
  },
  token_subject: request('the subject token is not one of a workload'),
  token_trust_domain: request('the subject token is of a trust domain that is not believed here'),
  token_key: request('the subject token is signed with a key that its issuer does not publish'),
  token_signature: request('the signature of the subject token is not valid'),
  token_claims: request('the claims of the subject token are not those of a bound service account token'),
  token_expired: request('the subject token has expired'),
  token_not_yet_valid: request('the subject token is not valid yet'),
  token_lifetime: request('the subject token lives longer than its cluster may make it live'),
  token_unbound: request('the subject token is bound to no pod'),
  cluster_keys_unavailable: unavailable('the keys of the cluster cannot be had at the moment'),

  token_not_live: request('the API server of the cluster does not take the subject token, or no longer'),
  pod_gone: request('the pod that the subject token is bound to is gone'),
  pod_replaced: request('the pod that the subject token is bound to has been replaced by another'),
  node_unknown: request('the pod is on no node that its cluster knows by that name'),
  cluster_api_unavailable: unavailable('the API server of the cluster cannot be asked at the moment'),
  token_review_audience: unavailable('the API server of the cluster does not confirm the audience'),
  token_review_user: unavailable('the API server of the cluster takes the subject token for that of another'),
  token_review_pod: unavailable('the API server of the cluster takes the subject token for that of another pod'),
  node_uid_missing: unavailable('the API server of the cluster gives the node no UID'),

  address_not_bound: request('the role is not for that address'),
  mount_not_configured: request('the mount is not configured'),
  token_issuer_mismatch: request('the subject token is of another issuer than the mount is configured for'),
  token_issued_in_future: request('the subject token was issued in the future'),
  token_uid_missing: request('the subject token names no UID'),
  service_account_not_bound: request('the role is not for that service account'),
  namespace_not_bound: request('the role is not for that namespace'),
  namespace_unknown: unavailable('the labels of the namespace cannot be had'),
  vault_token: request('the token is not one that holds here'),
  vault_request: request('the request is not one of Vault clients that is answered here'),

  json_malformed: request('the request is not a POST of one JSON object without a query, of members that are known'),
  csr_missing: request('missing CSR'),
  csr_invalid: request(
    'the CSR is not a PKCS 10 request, PEM or DER in base64, signed by a key of its own that is certified here: P-256, P-384, P-521, or RSA from 2048 bits with exponent 65537',
  ),
  attestation_payload_missing: request('missing attestation payload'),
  attestation_payload_malformed: request('the attestation payload is not an object with the texts cluster and token'),
  attestation_cluster_missing: request('missing cluster in attestation data'),
  attestation_token_missing: request('missing token in attestation data'),
  attestation_cluster_unknown: request('not configured for that cluster'),
  service_account_not_allowed: {
    status: 403,
    error: 'access_denied',
    description: 'not an allowed service account for that cluster',
  },

  registration_none: request('no registration selects this workload'),
  registration_ambiguous: request('several registrations select this workload and do not agree'),
  svid_type_not_allowed: request('the registration gives this workload another type of SVID'),
  spiffe_id_not_allowed: request('no registration gives this workload the SPIFFE ID that was asked for'),
  banned: request('this workload is banned'),
  target_malformed: target('a resource is not an absolute URI without fragment'),
  target_missing: target('there are several audiences to choose from: name one'),
  target_not_allowed: target('the audience is not among those of the registration'),
  spiffe_id_illegal: request('the registration gives this workload no legal SPIFFE ID'),
  spiffe_id_reserved: request('the registration gives this workload a reserved SPIFFE ID'),
  spiffe_id_unattested: request('the registration gives this workload the SPIFFE ID of another'),

  admin_none: { status: 403, error: 'access_denied', description: 'there are no administrators' },
  admin_limited: {
    status: 403,
    error: 'access_denied',
    description: 'this administrator may read the revocations of one cluster and do nothing else',
  },
  admin_token: { status: 401, error: 'invalid_token', description: 'the bearer token is no token of an administrator' },

  policy_unavailable: unavailable('the registrations cannot be had at the moment'),
  federation_unavailable: unavailable('the bundles of other trust domains cannot be had at the moment'),
  keys_unavailable: unavailable('there are no keys at the moment'),
  signing_unavailable: unavailable('signing is not possible at the moment'),
  tokens_unavailable: unavailable('the tokens cannot be looked up at the moment'),
  // Nothing that passes by itself, so no 503, and no 404, which would be taken for a wrong URL.
  x509_not_configured: { status: 403, error: 'access_denied', description: 'this issuer has no certificate authority' },
  not_configured: unavailable('this issuer is not configured'),
  internal: { status: 500, error: 'server_error', description: 'something went wrong here' },
}

const NO_STORE = { 'cache-control': 'no-store', pragma: 'no-cache' }

/**
 * @param id of the decision, by which the operator finds the whole reason
 * @param authorization the request's header of that name: a challenge has to be for the scheme that was tried
 * @returns an OAuth error with the stable `reason` beside it
 * @see [RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)
 */
export function oauthError(refusal: Refusal, id: string, authorization: string | null = null): Response {
  const { status, error, description } = WIRE[refusal.reason]
  const body = { error, error_description: description, reason: refusal.reason, id }
  const challenge = /^basic /i.test(authorization ?? '') ? 'Basic realm="none"' : 'Bearer'
  const headers = { ...errorHeaders(refusal), ...(status === 401 && { 'www-authenticate': challenge }) }
  return Response.json(body, { status, headers })
}

/** What SPIRE's plugin calls PermissionDenied, and not a mistake of the request (PS-5, PS-6). */
const DENIED_NODES: ReadonlySet<RefusalReason> = new Set([
  'token_not_live',
  'pod_replaced',
  'service_account_not_allowed',
  'banned',
])

/**
 * @param id of the decision, by which the operator finds the whole reason
 * @returns the same form as {@link oauthError}, with the distinctions that SPIRE's plugin makes
 */
export function nodeAttestationError(refusal: Refusal, id: string): Response {
  return DENIED_NODES.has(refusal.reason) ? accessDenied(refusal, id) : oauthError(refusal, id)
}

/**
 * @param id of the decision, by which the operator finds the whole reason
 * @returns the same form as {@link oauthError}. Whoever gets nothing gets a 403: kubespiffe itself answers an empty 200 (T-22).
 */
export function kubespiffeError(refusal: Refusal, id: string): Response {
  return WIRE[refusal.reason].status === 400 ? accessDenied(refusal, id) : oauthError(refusal, id)
}

function accessDenied(refusal: Refusal, id: string): Response {
  const { description } = WIRE[refusal.reason]
  const body = { error: 'access_denied', error_description: description, reason: refusal.reason, id }
  return Response.json(body, { status: 403, headers: errorHeaders(refusal) })
}

/** A refusal at a door that speaks no OAuth. */
export function plainError(refusal: Refusal): Response {
  const { status, description } = WIRE[refusal.reason]
  return new Response(`${description}\n`, { status, headers: errorHeaders(refusal) })
}

const JSON_HEADERS = new Headers({ 'content-type': 'application/json', ...NO_STORE })

/** A token, or who somebody is, which nobody on the way may keep (RFC 6749 §5.1). */
export function jsonResponse(body: object): Response {
  return jsonText(JSON.stringify(body))
}

/** The same of JSON text. */
export function jsonText(body: string): Response {
  return new Response(body, { headers: JSON_HEADERS })
}

/** An answer to an administrator. */
export function adminResponse(status: number, body: object): Response {
  return Response.json(body, { status, headers: NO_STORE })
}

/** A refusal to an administrator, with the stable code of RFC 6750 §3.1 or RFC 6749 where there is one. */
export function adminError(refusal: Refusal): Response {
  const { status, error, description: usual } = WIRE[refusal.reason]
  // By then we know who is asking.
  const description = refusal.reason === 'json_malformed' ? refusal.detail : usual
  const headers = {
    ...errorHeaders(refusal),
    ...(status === 401 && { 'www-authenticate': 'Bearer error="invalid_token"' }),
  }
  return Response.json({ error, error_description: description, reason: refusal.reason }, { status, headers })
}

export function methodNotAllowed(allow: string): Response {
  return new Response('method not allowed\n', { status: 405, headers: { allow, ...NO_STORE } })
}

export function errorHeaders({ retryAfterSeconds }: Refusal): Record<string, string> {
  return {
    ...NO_STORE,
    ...(retryAfterSeconds !== null && { 'retry-after': String(retryAfterSeconds) }),
  }
}
