/**
 * May they have it? A pure decision: what was attested and what is asked for go in, the terms to issue under come out.
 * Nothing is clamped to fit and nothing takes precedence: what is not plainly allowed is refused.
 */

import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { Attestation } from '../attest/attestation.ts'
import { Refusal } from '../refusal.ts'
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts'
import { isReserved } from '../spiffe/reserved.ts'
import type { Policy } from './policy.ts'
import type { Registration } from './registration.ts'
import { agreesWithFacts, type TemplateFacts } from './spiffe_id_template.ts'

declare const authorized: unique symbol

/** The terms that an SVID of either kind is issued under. */
interface Terms {
  readonly registration: string
  readonly spiffeId: SpiffeId
  readonly ttlSeconds: number
  /** Seconds since the epoch that the SVID may not outlive: the subject token's end (T-8). */
  readonly notAfter: number
  readonly hint: string | null
  /** Whether the API server must have said that the workload is alive. */
  readonly live: boolean
  readonly [authorized]: true
}

/** All that minting a JWT-SVID reads. Only {@link authorize} makes one. */
export interface JwtGrant extends Terms {
  readonly audience: readonly string[]
  /** Whether the audience is an API server, which takes the SVID as a bearer token (D12). */
  readonly bearer: boolean
  readonly alg: AlgorithmName | null
  /** Claims besides the SVID's own. */
  readonly claims: Readonly<Record<string, string>>
}

/** All that minting an X.509-SVID reads, but for the key that it is for. Only {@link authorize} makes one. */
export interface X509Grant extends Terms {
  /** Each once, sorted. */
  readonly dnsNames: readonly string[]
  /** Trust domains whose certificates the workload is given with its own. */
  readonly federatesWith: readonly string[]
}

export type Grant = JwtGrant | X509Grant

/** Whom a workload may believe in. Nothing is issued under it. Only {@link authorizeBundles} makes one. */
export interface BundlesGrant {
  readonly registrations: readonly string[]
  /** Other trust domains, each once, sorted. */
  readonly federatesWith: readonly string[]
  /** The same text as long as the SVIDs that the workload can have are the same. */
  readonly terms: string
  /** Whether the API server must have said that the workload is alive. */
  readonly live: boolean
  readonly [authorized]: true
}

/** What is asked for. */
export interface JwtWanted {
  readonly svidType: 'JWT'
  /** Of both `audience` and `resource`; none asks for the registration's only one. */
  readonly audience: readonly string[]
  /** The SPIFFE ID, for a workload that could have several; null leaves no choice. */
  readonly spiffeId: string | null
}

/** A certificate is made out to nobody, so there is no audience to choose by. */
export type X509Wanted = Omit<JwtWanted, 'svidType' | 'audience'> & { readonly svidType: 'X509' }

/**
 * @param chosen the registration that the request has been admitted by; null for whichever the policy has for the workload
 * @throws Refusal
 */
export function authorize(
  attestation: Attestation,
  wanted: JwtWanted,
  policy: Policy,
  chosen?: Registration | null,
): JwtGrant
export function authorize(
  attestation: Attestation,
  wanted: X509Wanted,
  policy: Policy,
  chosen?: Registration | null,
): X509Grant
export function authorize(
  attestation: Attestation,
  wanted: JwtWanted | X509Wanted,
  policy: Policy,
  chosen: Registration | null = null,
): Grant {
  const matching = chosen ? [chosen] : policy.registrations.matching(attestation)
  const { registrations, spiffeId } = selectRegistrations(attestation, wanted, matching, policy)
  const terms = (registration: Registration) => ({
    registration: registration.name,
    spiffeId,
    notAfter: attestation.expiresAt,
    hint: registration.hint,
    live: registration.liveness === 'tokenReview',
  })
  if (wanted.svidType === 'X509') {
    const { registration, ...certificate } = x509Terms(registrations)
    return { ...terms(registration), ...certificate } as unknown as X509Grant
  }
  const { registration, audience } = jwtTerms(registrations, wanted)
  return {
    ...terms(registration),
    audience,
    bearer: policy.audiences.apiServers.has(audience[0] ?? ''),
    ttlSeconds: registration.ttlSeconds,
    alg: registration.alg,
    claims: registration.claims,
  } as unknown as JwtGrant
}

/**
 * Of all registrations that give the workload an identity: with which of them it asks for SVIDs is not said, and a bundle names nobody.
 *
 * @throws Refusal if there is none, or with what is wrong with the first where something is with each
 */
export function authorizeBundles(attestation: Attestation, policy: Policy): BundlesGrant {
  const matching = policy.registrations.matching(attestation)
  let problem: Refusal | null = null
  const giving = matching.flatMap((registration) => {
    try {
      const spiffeId = identify(registration, attestation, policy.trustDomain)
      policy.bans.check(attestation, spiffeId)
      return [{ registration, spiffeId }]
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      problem ??= error
      return []
    }
  })
  if (giving.length === 0) throw problem ?? new Refusal('registration_none', 'no registration selects this workload')
  return {
    registrations: giving.map(({ registration }) => registration.name),
    federatesWith: [...new Set(giving.flatMap(({ registration }) => registration.federatesWith))].sort(),
    terms: JSON.stringify(giving.map(termsOf).sort()),
    live: giving.some(({ registration }) => registration.liveness === 'tokenReview'),
  } as unknown as BundlesGrant
}

function termsOf({ registration, spiffeId }: { registration: Registration; spiffeId: SpiffeId }): string {
  const { svidTypes, audiences, audienceCombinations, ttlSeconds, x509TtlSeconds } = registration
  const { alg, claims, dnsNames, federatesWith, hint } = registration
  const sets = [svidTypes, audiences, dnsNames, federatesWith].map((set) => [...set].sort())
  const combinations = audienceCombinations.map((set) => JSON.stringify([...set].sort())).sort()
  const rest = [ttlSeconds, x509TtlSeconds, alg, Object.entries(claims).sort(), hint]
  return JSON.stringify([spiffeId.toString(), sets, combinations, rest])
}

/**
 * Refuses whoever is banned, before there is an SVID to ask for (T-26).
 *
 * @param chosen the registration that would give them one; null for none
 * @throws Refusal `banned`, or whatever keeps the registration from naming them
 */
export function checkBans(attestation: Attestation, chosen: Registration | null, policy: Policy): void {
  policy.bans.check(attestation, chosen && identify(chosen, attestation, policy.trustDomain))
}

/** @returns the one registration that allows the audience, and that */
function jwtTerms(registrations: readonly Registration[], wanted: JwtWanted) {
  const requested = wanted.audience.length > 0 ? wanted.audience : [onlyAudience(registrations)]
  const [term, ...rest] = registrations.flatMap((registration) => {
    const audience = allowedAudience(registration, requested)
    return audience === null ? [] : [{ registration, audience }]
  })
  if (!term)
    throw new Refusal(
      'target_not_allowed',
      `not in the audiences of ${registrations.map(({ name }) => name).join(', ')}`,
    )
  if (rest.length > 0)
    throw new Refusal(
      'registration_ambiguous',
      `${term.registration.name} and ${rest[0]?.registration.name} allow the same audience`,
    )
  return term
}

/**
 * There is no audience to tell registrations apart by. So those of one SPIFFE ID, which are there for the sake of different
 * audiences, have to say the same of certificates.
 */
function x509Terms(registrations: readonly Registration[]) {
  const [term, ...rest] = registrations.map((registration) => ({
    registration,
    ttlSeconds: registration.x509TtlSeconds,
    dnsNames: [...new Set(registration.dnsNames)].sort(),
    federatesWith: [...registration.federatesWith].sort(),
  }))
  if (!term) throw new TypeError('at least one registration has been selected')
  const same = ({ registration: { hint, liveness }, ...certificate }: typeof term) =>
    JSON.stringify([hint, liveness, certificate])
  const other = rest.find((one) => same(one) !== same(term))
  if (other)
    throw new Refusal(
      'registration_ambiguous',
      `${term.registration.name} and ${other.registration.name} give certificates on different terms`,
    )
  return term
}

/** @returns the registrations that match and give one SPIFFE ID, and that */
function selectRegistrations(
  attestation: Attestation,
  { svidType, spiffeId }: JwtWanted | X509Wanted,
  matching: readonly Registration[],
  policy: Policy,
) {
  if (matching.length === 0) throw new Refusal('registration_none', 'no registration selects this workload')
  // A key that is made here and sent is for those alone of whom it is written that they are to have one (T-22).
  const explicit = attestation.door === 'kubespiffe'
  const candidates = matching
    .filter(({ svidTypes }) => svidTypes.includes(svidType) && (!explicit || svidTypes.length === 1))
    .map((registration) => ({ registration, id: identify(registration, attestation, policy.trustDomain) }))
  if (candidates.length === 0)
    throw new Refusal('svid_type_not_allowed', `not given by ${matching.map(({ name }) => name).join(', ')}`)
  const chosen = spiffeId === null ? candidates : candidates.filter(({ id }) => id.toString() === spiffeId)
  const [first] = chosen
  if (!first) throw new Refusal('spiffe_id_not_allowed', `not given by ${matching.map(({ name }) => name).join(', ')}`)
  for (const { registration, id } of chosen)
    if (id.path !== first.id.path)
      throw new Refusal(
        'registration_ambiguous',
        `${first.registration.name} and ${registration.name} give different SPIFFE IDs`,
      )
  policy.bans.check(attestation, first.id)
  return { registrations: chosen.map(({ registration }) => registration), spiffeId: first.id }
}

function identify(registration: Registration, attestation: Attestation, trustDomain: TrustDomain): SpiffeId {
  const facts = templateFacts(attestation)
  const id = registration.template.expand(trustDomain, facts)
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

/** What is not known of a workload fills no variable, and so gives no SPIFFE ID. */
function templateFacts(attestation: Attestation): TemplateFacts {
  if (attestation.kind !== 'pod')
    return { cluster: null, namespace: null, serviceAccountName: null, podName: null, podUID: null }
  return {
    cluster: attestation.cluster,
    namespace: attestation.namespace,
    serviceAccountName: attestation.serviceAccount.name,
    podName: attestation.pod?.name ?? null,
    podUID: attestation.pod?.uid ?? null,
  }
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
