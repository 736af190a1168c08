/**
 * The AuthenticationConfiguration that makes a kube-apiserver trust this issuer.
 *
 * Nothing in it comes from who asks, but for a choice among what stands here and in the cluster's record. Every scalar is
 * written as a JSON string, so none can become structure (T-13).
 *
 * @see [Structured authentication configuration](https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration)
 */

import { stringify } from 'yaml'
import type { Cluster } from '../policy/cluster.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { CANARY_USERNAME, canaryId } from './canary.ts'
import { reviewerAudience, reviewerId, reviewerUsername, reviewsItself } from './reviewer.ts'

export const API_VERSIONS = ['v1', 'v1beta1'] as const
export type ApiVersion = (typeof API_VERSIONS)[number]

/** `sub`: the SPIFFE ID is the username. `service-account`: names in the manner of Kubernetes' own service accounts. */
export const MAPPINGS = ['sub', 'service-account'] as const
export type Mapping = (typeof MAPPINGS)[number]

/**
 * @param issuer our issuer URL
 * @returns YAML
 */
export function renderAuthenticationConfiguration(
  issuer: string,
  trustDomain: TrustDomain,
  cluster: Cluster,
  apiVersion: ApiVersion,
  mapping: Mapping,
): string {
  const audiences = [
    ...cluster.apiServerAudiences,
    ...(reviewsItself(cluster) ? [reviewerAudience(issuer, cluster.name)] : []),
  ]
  const configuration = {
    apiVersion: `apiserver.config.k8s.io/${apiVersion}`,
    kind: 'AuthenticationConfiguration',
    jwt: [
      {
        issuer: {
          url: issuer,
          ...(cluster.certificateAuthority !== null && { certificateAuthority: cluster.certificateAuthority }),
          audiences,
          ...(audiences.length > 1 && { audienceMatchPolicy: 'MatchAny' }),
        },
        claimMappings:
          mapping === 'sub' ? { username: { claim: 'sub', prefix: '' } } : serviceAccountMappings(trustDomain, cluster),
        userValidationRules: [...(mapping === 'sub' ? [trustDomainRule(trustDomain)] : []), ...USER_VALIDATION_RULES],
      },
    ],
  }
  return stringify(configuration, {
    defaultStringType: 'QUOTE_DOUBLE',
    defaultKeyType: 'PLAIN',
    doubleQuotedAsJSON: true,
    lineWidth: 0,
    aliasDuplicateObjects: false,
  })
}

/**
 * Kubernetes lets any issuer give any name, `system:masters` among them. With these rules the worst that a stolen edge
 * account can do is bounded by what RBAC gives to names that do not begin with `system:`.
 */
const USER_VALIDATION_RULES = [
  { expression: "!user.username.startsWith('system:')", message: 'the username must not begin with system:' },
  {
    expression: "user.groups.all(group, !group.startsWith('system:'))",
    message: 'no group may begin with system:',
  },
]

/** Without it a stolen issuer could give the names of people, or of another trust domain's workloads. */
function trustDomainRule(trustDomain: TrustDomain) {
  return {
    expression: `user.username.startsWith('${trustDomain}/')`,
    message: `the username must be a SPIFFE ID of ${trustDomain.name}`,
  }
}

/**
 * `…/ns/<ns>/sa/<sa>` becomes `spiffe:serviceaccount:<ns>:<sa>` in the groups `spiffe:serviceaccounts` and
 * `spiffe:serviceaccounts:<ns>`, and the same with `cluster:<cluster>:` in it for IDs that name a cluster. An ID of any
 * other shape gets an empty username, which the API server refuses (T-2). The exceptions are the worker itself, at the
 * one cluster where it reviews tokens: `spiffe:spiffe-edge:reviewer:<cluster>`; and what shows that a key is dead (T-21):
 * `spiffe:spiffe-edge:canary`. Neither is in any group.
 */
function serviceAccountMappings(trustDomain: TrustDomain, cluster: Cluster) {
  const prefix = `^spiffe://${trustDomain.name.replaceAll('.', '[.]')}`
  const serviceAccount = '/ns/[a-z0-9.-]+/sa/[a-z0-9.-]+$'
  const plain = `claims.sub.matches('${prefix}${serviceAccount}')`
  const clustered = `claims.sub.matches('${prefix}/cluster/[a-z0-9-]+${serviceAccount}')`
  // `spiffe:`, ``, the trust domain and `ns` or `cluster` come before.
  const part = (index: number) => `claims.sub.split('/')[${index}]`
  const own = [
    ...(reviewsItself(cluster) ? [[reviewerId(trustDomain, cluster.name), reviewerUsername(cluster.name)]] : []),
    [canaryId(trustDomain), CANARY_USERNAME],
  ]
  const ourselves = own.map(([id, username]) => `claims.sub == '${id}' ? '${username}' : `).join('')
  return {
    username: {
      expression:
        `${ourselves}${plain} ? 'spiffe:serviceaccount:' + ${part(4)} + ':' + ${part(6)} : ` +
        `${clustered} ? 'spiffe:cluster:' + ${part(4)} + ':serviceaccount:' + ${part(6)} + ':' + ${part(8)} : ''`,
    },
    groups: {
      expression:
        `${plain} ? ['spiffe:serviceaccounts', 'spiffe:serviceaccounts:' + ${part(4)}] : ` +
        `${clustered} ? ['spiffe:cluster:' + ${part(4)} + ':serviceaccounts', ` +
        `'spiffe:cluster:' + ${part(4)} + ':serviceaccounts:' + ${part(6)}] : []`,
    },
  }
}
