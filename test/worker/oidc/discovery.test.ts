import { describe, expect, test } from 'vitest'
import { PATHS, renderDiscovery } from '../../../worker/oidc/discovery.ts'

describe('the discovery document', () => {
  test('OD-3, OD-5, OD-6: has what relying parties of tokens need, and no more', () => {
    expect(JSON.parse(renderDiscovery('https://issuer.example.org', ['ES256', 'RS256']))).toEqual({
      issuer: 'https://issuer.example.org',
      jwks_uri: 'https://issuer.example.org/keys',
      token_endpoint: 'https://issuer.example.org/token',
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256', 'RS256'],
      grant_types_supported: ['urn:ietf:params:oauth:grant-type:token-exchange'],
      token_endpoint_auth_methods_supported: ['none'],
    })
  })

  test('OD-1: names what is below the path of the issuer', () => {
    expect(JSON.parse(renderDiscovery('https://example.org/a/b', ['ES256']))).toMatchObject({
      issuer: 'https://example.org/a/b',
      jwks_uri: 'https://example.org/a/b/keys',
      token_endpoint: 'https://example.org/a/b/token',
    })
  })

  test('D3: is the same text for the same issuer and algorithms', () => {
    const render = () => renderDiscovery('https://issuer.example.org', ['ES256', 'RS256'])
    expect(render()).toBe(render())
  })

  test('D3: the places do not move', () => {
    expect(PATHS).toEqual({
      discovery: '/.well-known/openid-configuration',
      jwks: '/keys',
      bundle: '/bundle',
      bundles: '/bundles',
      token: '/token',
      structuredAuth: '/structured-auth.yaml',
      svidX509: '/svid/x509',
      kubespiffe: '/v1/svid',
      vault: '/v1',
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
    })
  })
})
