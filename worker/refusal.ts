/**
 * Every way to say no. A refusal is thrown where the check stands and shaped once, in `routes/respond.ts`, whose map
 * over this union does not compile until somebody has decided what the caller of a new reason gets to see.
 */

export type RefusalReason =
  // The request itself (RFC 8693 §2.1, RFC 6749 §5.2).
  | 'request_malformed'
  | 'request_too_large'
  | 'parameter_missing'
  | 'parameter_repeated'
  | 'grant_type_unsupported'
  | 'client_authentication_unsupported'
  | 'scope_unsupported'
  | 'subject_token_type_unsupported'
  | 'requested_token_type_unsupported'
  | 'actor_token_unsupported'
  // Who is asking: the subject token.
  | 'bearer_missing'
  | 'token_too_large'
  | 'token_malformed'
  | 'token_header'
  | 'token_algorithm'
  | 'token_issuer'
  | 'token_audience'
  | 'door_closed'
  | 'token_subject'
  | 'token_trust_domain'
  | 'token_key'
  | 'token_signature'
  | 'token_claims'
  | 'token_expired'
  | 'token_not_yet_valid'
  | 'token_lifetime'
  | 'token_unbound'
  | 'cluster_keys_unavailable'
  // Are they still there: the cluster's API server.
  | 'token_not_live'
  | 'pod_gone'
  | 'pod_replaced'
  | 'node_unknown'
  | 'cluster_api_unavailable'
  | 'token_review_audience'
  | 'token_review_user'
  | 'token_review_pod'
  | 'node_uid_missing'
  // Does a role of Vault's bind them (VL-1, VL-2).
  | 'address_not_bound'
  | 'mount_not_configured'
  | 'token_issuer_mismatch'
  | 'token_issued_in_future'
  | 'token_uid_missing'
  | 'service_account_not_bound'
  | 'namespace_not_bound'
  | 'namespace_unknown'
  // Is it a token of Vault's kind that was made here and still holds (T-23).
  | 'vault_token'
  | 'vault_request'
  // Which key it is for.
  | 'json_malformed'
  | 'csr_missing'
  | 'csr_invalid'
  // Are they a node (PS-5, PS-6).
  | 'attestation_payload_missing'
  | 'attestation_payload_malformed'
  | 'attestation_cluster_missing'
  | 'attestation_token_missing'
  | 'attestation_cluster_unknown'
  | 'service_account_not_allowed'
  // May they have it: the registrations.
  | 'registration_none'
  | 'registration_ambiguous'
  | 'svid_type_not_allowed'
  | 'spiffe_id_not_allowed'
  | 'banned'
  | 'target_malformed'
  | 'target_missing'
  | 'target_not_allowed'
  | 'spiffe_id_illegal'
  | 'spiffe_id_reserved'
  | 'spiffe_id_unattested'
  // May they administer.
  | 'admin_none'
  | 'admin_token'
  | 'admin_limited'
  // Our side.
  | 'policy_unavailable'
  | 'federation_unavailable'
  | 'keys_unavailable'
  | 'signing_unavailable'
  | 'x509_not_configured'
  | 'tokens_unavailable'
  | 'not_configured'
  | 'internal'

/**
 * The decision not to issue.
 *
 * @param reason the stable code
 * @param detail for the operator's log only: it may name what was compared, and must never hold a token or key
 * @param retryAfterSeconds for the refusals of our own side, when the caller may try again
 */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly reason: RefusalReason
  readonly detail: string
  readonly retryAfterSeconds: number | null

  constructor(reason: RefusalReason, detail: string, retryAfterSeconds: number | null = null) {
    super(reason)
    this.reason = reason
    this.detail = detail
    this.retryAfterSeconds = retryAfterSeconds
  }
}
