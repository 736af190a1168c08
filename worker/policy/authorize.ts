/**
 * May they have it? A pure decision: what was attested and what is asked for go in, the terms to issue under come out.
 * Nothing is clamped to fit and nothing takes precedence: what is not plainly allowed is refused.
 */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { Attestation } from '../attest/attestation.ts'
import { Refusal } from '../refusal.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Policy } from './policy.ts'
import { isPodOf, type Registration } from './registration.ts'
import { agreesWithFacts, type TemplateFacts } from './spiffe_id_template.ts'

declare const authorized: unique symbol

/** The terms that an SVID is issued under, and all that minting reads. Only {@link authorize} makes one. */
export interface Grant {
  readonly registration: string
  readonly spiffeId: SpiffeId
  readonly audience: readonly string[]
  /** Whether the audience is an API server, which takes the SVID as a bearer token (D12). */
  readonly bearer: boolean
  readonly ttlSeconds: number
  /** Seconds since the epoch that the SVID may not outlive: the subject token's end (T-8). */
  readonly notAfter: number
  readonly alg: AlgorithmName | null
  readonly [authorized]: true
}

/**
 * @param requested the audiences asked for, of both `audience` and `resource`; none asks for the registration's only one
 * @throws Refusal
 */
export function authorize(attestation: Attestation, requested: readonly string[], policy: Policy): Grant {
  const facts: TemplateFacts = {
    cluster: attestation.cluster,
    namespace: attestation.namespace,
    serviceAccountName: attestation.serviceAccount.name,
    podName: attestation.pod?.name ?? null,
    podUID: attestation.pod?.uid ?? null,
  }
  const matches = policy.registrations.filter((registration) => selects(registration, attestation))
  const [first] = matches
  if (!first) throw new Refusal('registration_none', 'no registration selects this pod')
  const spiffeId = identify(first, facts, policy)
  for (const other of matches)
    if (identify(other, facts, policy).path !== spiffeId.path)
      throw new Refusal('registration_ambiguous', `${first.name} and ${other.name} give different SPIFFE IDs`)

  const wanted = requested.length > 0 ? requested : [onlyAudience(matches)]
  const [term, ...rest] = matches.flatMap((registration) => {
    const audience = allowedAudience(registration, wanted)
    return audience === null ? [] : [{ registration, audience }]
  })
  if (!term)
    throw new Refusal('target_not_allowed', `not in the audiences of ${matches.map(({ name }) => name).join(', ')}`)
  const { registration, audience } = term
  if (rest.length > 0)
    throw new Refusal(
      'registration_ambiguous',
      `${registration.name} and ${rest[0]?.registration.name} allow the same audience`,
    )
  return {
    registration: registration.name,
    spiffeId,
    audience,
    bearer: [...policy.clusters.values()].some(({ apiServerAudiences }) =>
      apiServerAudiences.includes(audience[0] ?? ''),
    ),
    ttlSeconds: registration.ttlSeconds,
    notAfter: attestation.expiresAt,
    alg: registration.alg,
  } as Grant
}

function selects(
  { clusters, selector }: Registration,
  { cluster, namespace, serviceAccount, pod }: Attestation,
): boolean {
  if (!clusters.includes(cluster)) return false
  if (selector.namespace !== namespace) return false
  if (selector.serviceAccountName !== undefined && selector.serviceAccountName !== serviceAccount.name) return false
  if (selector.podName !== undefined && !(pod && isPodOf(pod.name, selector.podName))) return false
  return true
}

function identify(registration: Registration, facts: TemplateFacts, policy: Policy): SpiffeId {
  const id = registration.template.expand(policy.trustDomain, facts)
  if (!id)
    throw new Refusal('spiffe_id_illegal', `the template of ${registration.name} gives no SPIFFE ID for this pod`)
  if (isReserved(id))
    throw new Refusal('spiffe_id_reserved', `the template of ${registration.name} gives a reserved SPIFFE ID`)
  if (!agreesWithFacts(id, facts))
    throw new Refusal(
      'spiffe_id_unattested',
      `the template of ${registration.name} gives the SPIFFE ID of another service account`,
    )
  return id
}

/** The audience of a request that asks for none: the only one that there is (T-7). */
function onlyAudience(matches: readonly Registration[]): string {
  const [only, ...others] = new Set(matches.flatMap(({ audiences }) => audiences))
  if (only === undefined || others.length > 0)
    throw new Refusal(
      'target_missing',
      `several audiences to choose from in ${matches.map(({ name }) => name).join(', ')}`,
    )
  return only
}

/** The audiences of the token, if the registration allows just these together (T-7); null if not. */
function allowedAudience(
  { audiences, audienceCombinations }: Registration,
  requested: readonly string[],
): readonly string[] | null {
  const wanted = new Set(requested)
  const [first] = wanted
  if (wanted.size === 1) return first !== undefined && audiences.includes(first) ? [first] : null
  return audienceCombinations.some((set) => set.size === wanted.size && wanted.isSubsetOf(set)) ? [...wanted] : null
}
