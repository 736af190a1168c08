/** A pod's token, made with the cluster's key as the cluster makes it: for tests that need no cluster besides. */

import { forge } from './jwt_forge.ts'
import { SERVICE_ACCOUNT_ISSUER, type ServiceAccountKey } from './kube_apiserver.ts'
import { registration } from './policy.ts'

/** The name of the cluster's record. */
export const CLUSTER = 'real'

/** @returns a token of the pod `web-0` in the namespace `shop` */
export function podTokenBy({ jwk, privateKey }: ServiceAccountKey): string {
  const now = Math.floor(Date.now() / 1000)
  const claims = {
    ...{ iss: SERVICE_ACCOUNT_ISSUER, aud: ['spiffe-edge'], exp: now + 600, iat: now, nbf: now },
    sub: 'system:serviceaccount:shop:web',
    'kubernetes.io': {
      namespace: 'shop',
      serviceaccount: { name: 'web', uid: '1' },
      pod: { name: 'web-0', uid: '2' },
    },
  }
  const header = { alg: String(jwk.alg), kid: String(jwk.kid) }
  return forge({ ...header, privateKey }, header, claims)
}

/** @returns the cluster's object for the manifest */
export function clusterRecord({ jwk }: ServiceAccountKey, spec: object = {}): object {
  return {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name: CLUSTER },
    spec: { issuer: SERVICE_ACCOUNT_ISSUER, jwks: { inline: { keys: [jwk] } }, ...spec },
  }
}

/** @returns the registration of its service account, for the audience `k8s` */
export function webRegistration(spec: object = {}): object {
  const selector = { namespace: 'shop', serviceAccountName: 'web' }
  return registration('web', { clusters: [CLUSTER], selector, ...spec })
}
