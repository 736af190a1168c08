import { describe, expect, test } from 'vitest'
import { Refusal, type RefusalReason } from '../../../worker/refusal.ts'
import { adminError, jsonResponse, methodNotAllowed, oauthError, plainError } from '../../../worker/routes/respond.ts'

/** What a caller gets for each reason. A reason that is missing here does not compile. */
const WIRE: Readonly<Record<RefusalReason, readonly [status: number, error: string]>> = {
  request_malformed: [400, 'invalid_request'],
  request_too_large: [413, 'invalid_request'],
  parameter_missing: [400, 'invalid_request'],
  parameter_repeated: [400, 'invalid_request'],
  grant_type_unsupported: [400, 'unsupported_grant_type'],
  client_authentication_unsupported: [401, 'invalid_client'],
  scope_unsupported: [400, 'invalid_scope'],
  subject_token_type_unsupported: [400, 'invalid_request'],
  requested_token_type_unsupported: [400, 'invalid_request'],
  actor_token_unsupported: [400, 'invalid_request'],

  bearer_missing: [401, 'invalid_token'],
  // TX-5: a subject token that is invalid for any reason is an invalid_request.
  token_too_large: [400, 'invalid_request'],
  token_malformed: [400, 'invalid_request'],
  token_header: [400, 'invalid_request'],
  token_algorithm: [400, 'invalid_request'],
  token_issuer: [400, 'invalid_request'],
  token_audience: [400, 'invalid_request'],
  door_closed: [403, 'access_denied'],
  token_subject: [400, 'invalid_request'],
  token_trust_domain: [400, 'invalid_request'],
  token_key: [400, 'invalid_request'],
  token_signature: [400, 'invalid_request'],
  token_claims: [400, 'invalid_request'],
  token_expired: [400, 'invalid_request'],
  token_not_yet_valid: [400, 'invalid_request'],
  token_lifetime: [400, 'invalid_request'],
  token_unbound: [400, 'invalid_request'],
  cluster_keys_unavailable: [503, 'temporarily_unavailable'],

  token_not_live: [400, 'invalid_request'],
  pod_gone: [400, 'invalid_request'],
  pod_replaced: [400, 'invalid_request'],
  node_unknown: [400, 'invalid_request'],
  cluster_api_unavailable: [503, 'temporarily_unavailable'],
  token_review_audience: [503, 'temporarily_unavailable'],
  token_review_user: [503, 'temporarily_unavailable'],
  token_review_pod: [503, 'temporarily_unavailable'],
  node_uid_missing: [503, 'temporarily_unavailable'],

  address_not_bound: [400, 'invalid_request'],
  mount_not_configured: [400, 'invalid_request'],
  token_issuer_mismatch: [400, 'invalid_request'],
  token_issued_in_future: [400, 'invalid_request'],
  token_uid_missing: [400, 'invalid_request'],
  service_account_not_bound: [400, 'invalid_request'],
  namespace_not_bound: [400, 'invalid_request'],
  namespace_unknown: [503, 'temporarily_unavailable'],
  vault_token: [400, 'invalid_request'],
  vault_request: [400, 'invalid_request'],
  tokens_unavailable: [503, 'temporarily_unavailable'],

  json_malformed: [400, 'invalid_request'],
  csr_missing: [400, 'invalid_request'],
  csr_invalid: [400, 'invalid_request'],
  attestation_payload_missing: [400, 'invalid_request'],
  attestation_payload_malformed: [400, 'invalid_request'],
  attestation_cluster_missing: [400, 'invalid_request'],
  attestation_token_missing: [400, 'invalid_request'],
  attestation_cluster_unknown: [400, 'invalid_request'],
  service_account_not_allowed: [403, 'access_denied'],

  registration_none: [400, 'invalid_request'],
  registration_ambiguous: [400, 'invalid_request'],
  svid_type_not_allowed: [400, 'invalid_request'],
  spiffe_id_not_allowed: [400, 'invalid_request'],
  banned: [400, 'invalid_request'],
  target_malformed: [400, 'invalid_target'],
  target_missing: [400, 'invalid_target'],
  target_not_allowed: [400, 'invalid_target'],
  spiffe_id_illegal: [400, 'invalid_request'],
  spiffe_id_reserved: [400, 'invalid_request'],
  spiffe_id_unattested: [400, 'invalid_request'],

  admin_none: [403, 'access_denied'],
  admin_token: [401, 'invalid_token'],
  admin_limited: [403, 'access_denied'],

  policy_unavailable: [503, 'temporarily_unavailable'],
  federation_unavailable: [503, 'temporarily_unavailable'],
  keys_unavailable: [503, 'temporarily_unavailable'],
  x509_not_configured: [403, 'access_denied'],
  signing_unavailable: [503, 'temporarily_unavailable'],
  not_configured: [503, 'temporarily_unavailable'],
  internal: [500, 'server_error'],
}

const REASONS = Object.entries(WIRE) as [RefusalReason, readonly [number, string]][]
const DETAIL = 'only for the operator'

describe('OE-1: every reason has its answer', () => {
  test.each(REASONS)('%s: %j', async (reason, [status, error]) => {
    const answer = oauthError(new Refusal(reason, DETAIL), 'id-1')
    expect(answer.status).toBe(status)
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
    const body = (await answer.json()) as Record<string, string>
    expect(body).toEqual({ error, error_description: expect.any(String), reason, id: 'id-1' })
    // 12.7: no quotes, no backslashes, no control characters, nothing but ASCII.
    expect(body.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/)
  })

  test.each(REASONS)('%s: the same status where no OAuth is spoken, and the same words', async (reason, [status]) => {
    const answer = plainError(new Refusal(reason, DETAIL))
    const text = await answer.text()
    expect(answer.status).toBe(status)
    expect(answer.headers.get('content-type')).toMatch(/^text\/plain/)
    const body = (await oauthError(new Refusal(reason, DETAIL), '').json()) as Record<string, string>
    expect(text).toBe(`${body.error_description}\n`)
  })

  test.each(REASONS)('%s: the detail stays here, and nobody on the way keeps the answer', async (reason) => {
    for (const answer of [oauthError(new Refusal(reason, DETAIL), 'id-1'), plainError(new Refusal(reason, DETAIL))]) {
      expect([answer.headers.get('cache-control'), answer.headers.get('pragma')]).toEqual(['no-store', 'no-cache'])
      expect(`${await answer.text()}${JSON.stringify([...answer.headers])}`).not.toContain(DETAIL)
    }
  })

  test.each(REASONS)(
    'T-11: %s: an administrator sees the same, and the detail only of what they sent',
    async (reason) => {
      const answer = adminError(new Refusal(reason, DETAIL))
      expect([answer.status, answer.headers.get('cache-control')]).toEqual([WIRE[reason][0], 'no-store'])
      expect(answer.headers.has('www-authenticate')).toBe(WIRE[reason][0] === 401)
      const body = (await answer.json()) as Record<string, string>
      expect(body).toEqual({ error: WIRE[reason][1], error_description: expect.any(String), reason })
      expect(body.error_description === DETAIL).toBe(reason === 'json_malformed')
    },
  )

  test('TX-5: none is invalid_grant', () => {
    for (const [reason] of REASONS) expect(JSON.stringify(WIRE[reason])).not.toContain('invalid_grant')
  })

  test('our own faults, and only those, are 5xx', () => {
    expect(REASONS.filter(([, [status]]) => status >= 500).map(([reason]) => reason)).toEqual([
      'cluster_keys_unavailable',
      'cluster_api_unavailable',
      'token_review_audience',
      'token_review_user',
      'token_review_pod',
      'node_uid_missing',
      'namespace_unknown',
      'tokens_unavailable',
      'policy_unavailable',
      'federation_unavailable',
      'keys_unavailable',
      'signing_unavailable',
      'not_configured',
      'internal',
    ])
  })
})

test('a refusal says when to come again if it knows, and not if it does not', () => {
  for (const shape of [(one: Refusal) => oauthError(one, ''), plainError]) {
    expect(shape(new Refusal('signing_unavailable', '', 2)).headers.get('retry-after')).toBe('2')
    expect(shape(new Refusal('signing_unavailable', '')).headers.has('retry-after')).toBe(false)
  }
})

test('OE-2: 401 comes with a challenge, and nothing else does', () => {
  for (const [reason, [status]] of REASONS)
    expect(oauthError(new Refusal(reason, ''), '').headers.has('www-authenticate')).toBe(status === 401)
})

test('TX-4: a token is kept by nobody on the way', async () => {
  const answer = jsonResponse({ access_token: 'a' })
  expect([answer.status, answer.headers.get('cache-control'), answer.headers.get('pragma')]).toEqual([
    200,
    'no-store',
    'no-cache',
  ])
  expect(await answer.json()).toEqual({ access_token: 'a' })
})

test('RFC 9110 §15.5.6: 405 says which methods there are', () => {
  const answer = methodNotAllowed('GET, HEAD')
  expect([answer.status, answer.headers.get('allow'), answer.headers.get('cache-control')]).toEqual([
    405,
    'GET, HEAD',
    'no-store',
  ])
})
