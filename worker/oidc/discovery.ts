import type { AlgorithmName } from '../../keys/algorithms.ts'

/** @see [RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1) */
export const TOKEN_EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'

/** Where under the issuer's path things are. Relying parties remember `/keys` for as long as they run, so it never moves. */
export const PATHS = {
  discovery: '/.well-known/openid-configuration',
  jwks: '/keys',
  bundle: '/bundle',
  token: '/token',
  svidX509: '/svid/x509',
  bundles: '/bundles',
  kubespiffe: '/v1/svid',
  vault: '/v1',
  structuredAuth: '/structured-auth.yaml',
  nodeAttestation: '/attest/k8s_psat',
  adminObjects: '/admin/v1/objects',
  adminApply: '/admin/v1/apply',
  adminKeys: '/admin/v1/keys',
  adminRotate: '/admin/v1/keys/rotate',
  adminRevoke: '/admin/v1/keys/revoke',
  adminFederation: '/admin/v1/federation',
  adminBundle: '/admin/v1/federation/bundle',
  adminRefresh: '/admin/v1/federation/refresh',
  adminRevocations: '/admin/v1/clusters/:cluster/revocations',
} as const

/**
 * The discovery document. There is no `authorization_endpoint`, because nobody logs in here: Kubernetes' own issuer leaves
 * it out too, and every relying party of tokens alone accepts that.
 *
 * @param algorithms of the keys really present
 * @returns JSON text that depends on nothing but the two arguments
 * @see [OpenID Connect Discovery §3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata)
 * @see [RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)
 */
export function renderDiscovery(issuer: string, algorithms: readonly AlgorithmName[]): string {
  return JSON.stringify({
    issuer,
    jwks_uri: issuer + PATHS.jwks,
    token_endpoint: issuer + PATHS.token,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: algorithms,
    grant_types_supported: [TOKEN_EXCHANGE_GRANT],
    token_endpoint_auth_methods_supported: ['none'],
  })
}
