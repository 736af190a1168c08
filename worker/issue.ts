/**
 * READ THIS for the whole story. Everything that issues an identity takes the same path, whatever door it came in by:
 * attest → authorize → mint → sign. Each step takes what the one before returns, so none can be left out.
 */

import type { PublicJwk } from '../keys/signer.ts'
import type { Attestation, Door, PodAttestation } from './attest/attestation.ts'
import { attestNode, type K8sPsat } from './attest/k8s_psat.ts'
import type { Decision } from './audit.ts'
import type { ForeignBundle } from './federation/foreign_bundle.ts'
import { mint, mintX509, sign, signX509 } from './mint.ts'
import type { PublicDocument } from './oidc/public_document.ts'
import {
  authorize,
  authorizeBundles,
  type BundlesGrant,
  type Grant,
  type JwtGrant,
  type X509Grant,
} from './policy/authorize.ts'
import { internalX509Grant } from './policy/internal_grant.ts'
import type { Policy } from './policy/policy.ts'
import type { Registration } from './policy/registration.ts'
import { Refusal } from './refusal.ts'
import type { SharedCalls } from './shared_call.ts'
import type { SpiffeId, TrustDomain } from './spiffe/id.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'
import { serialNumberOf } from './spiffe/serial_number.ts'
import { DEFAULT_X509_SVID_TTL_SECONDS } from './spiffe/x509_svid.ts'
import type { FederationRing } from './state/federation_ring.ts'
import type { KeyRing } from './state/key_ring.ts'
import type { PolicyRing, PolicySnapshot } from './state/policy_ring.ts'

/** What a door has read out of its request. */
interface SubjectRequest {
  readonly door: Door
  readonly subjectToken: string
  /** The SPIFFE ID asked for; null leaves no choice. */
  readonly spiffeId: string | null
}

export interface IssueRequest extends SubjectRequest {
  /** The audiences asked for; none leaves the choice to the registration, if there is only one. */
  readonly audience: readonly string[]
}

export interface X509IssueRequest extends SubjectRequest {
  readonly publicKey: PublicKeySource
}

/**
 * The key that a certificate is for, as SubjectPublicKeyInfo, DER. Asked for only when it is known who is asking: nobody else
 * gets to feed a parser (PS-6), or to have keys made.
 */
export type PublicKeySource = () => Promise<ArrayBuffer>

/** A JWT-SVID, and the terms it was issued under. */
export interface IssuedSvid {
  readonly svid: string
  readonly claims: JwtSvidClaims
  readonly grant: JwtGrant
}

/** An X.509-SVID, with what it takes to believe in others. Certificates are DER. */
export interface IssuedX509Svid {
  /** Leaf first. */
  readonly chain: readonly Uint8Array<ArrayBuffer>[]
  /** Those of our own authorities. */
  readonly bundle: readonly Uint8Array<ArrayBuffer>[]
  /** Those of other trust domains, by name. */
  readonly federated: ReadonlyMap<string, readonly Uint8Array<ArrayBuffer>[]>
  /** Seconds since the epoch. */
  readonly expiresAt: number
  readonly grant: X509Grant
}

/** What issuing needs. Built once per isolate. */
export interface IssueDeps {
  /** Our issuer URL. */
  readonly issuer: string
  readonly policyRing: PolicyRing
  readonly keyRing: KeyRing
  /** Identical requests that are under way at the same time share one signature. */
  readonly signing: SharedCalls<SignedSvid>
  readonly federationRing: FederationRing
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
}

/** What a request shares with those that are identical to it. */
export interface SignedSvid {
  readonly claims: JwtSvidClaims
  readonly svid: string
  readonly publicJwk: PublicJwk
}

/**
 * @param decision is told of each step as it is done
 * @throws Refusal
 */
export async function issue(request: IssueRequest, deps: IssueDeps, decision: Decision): Promise<IssuedSvid> {
  const now = deps.now()
  const { grant } = await admit(request, now, deps, decision, (attestation, policy) =>
    authorize(attestation, { svidType: 'JWT', ...request }, policy),
  )
  const { claims, svid, publicJwk } = await deps.signing.run(
    sameness(request, grant),
    () => mintAndSign(grant, now, deps, decision),
    deps.waitUntil,
  )
  decision.issued(grant.registration, claims, publicJwk)
  return { svid, claims, grant }
}

/** Who has logged in as Vault's clients do, and asks for an SVID with the token that they got. */
export interface LoginSvidRequest {
  /** Of the workload, as it stands now. */
  readonly attestation: PodAttestation
  /** That of the role. */
  readonly registration: Registration
  readonly snapshot: PolicySnapshot
}

/**
 * The second half, for a workload that was attested when it logged in: it is authorized again each time.
 *
 * @throws Refusal
 */
export async function issueForLogin(
  { attestation, registration, snapshot }: LoginSvidRequest,
  audience: string,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedSvid> {
  const wanted = { svidType: 'JWT', audience: [audience], spiffeId: null } as const
  const grant = authorize(attestation, wanted, snapshot.policy, registration)
  const { claims, svid, publicJwk } = await mintAndSign(grant, deps.now(), deps, decision)
  decision.issued(grant.registration, claims, publicJwk)
  return { svid, claims, grant }
}

/**
 * The same for a certificate.
 *
 * @throws Refusal, and whatever `publicKey` throws
 */
export async function issueX509ForLogin(
  { attestation, registration, snapshot }: LoginSvidRequest,
  publicKey: PublicKeySource,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedX509Svid> {
  const wanted = { svidType: 'X509', spiffeId: null } as const
  const grant = authorize(attestation, wanted, snapshot.policy, registration)
  return certify(grant, await publicKey(), snapshot, deps.now(), deps, decision)
}

/**
 * @param decision is told of each step as it is done
 * @throws Refusal, and whatever `request.publicKey` throws
 */
export async function issueX509(
  request: X509IssueRequest,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedX509Svid> {
  const now = deps.now()
  const { grant, snapshot } = await admit(request, now, deps, decision, (attestation, policy) =>
    authorize(attestation, { svidType: 'X509', ...request }, policy),
  )
  return certify(grant, await request.publicKey(), snapshot, now, deps, decision)
}

/** A node that is who it says, and its certificate; null where there is no certificate authority. */
export interface IssuedAgentSvid {
  readonly agentId: SpiffeId
  readonly selectors: ReadonlySet<string>
  readonly issued: IssuedX509Svid | null
}

/**
 * The same for a node, whose identity no registration gives: the cluster's record says whose pods stand for nodes.
 *
 * @param publicKey asked for in any case: a request with a key that is none is refused, whether or not it gets a certificate
 * @throws Refusal, and whatever `publicKey` throws
 */
export async function issueAgentX509(
  psat: K8sPsat,
  publicKey: PublicKeySource,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedAgentSvid> {
  decision.presented(psat.token)
  const now = deps.now()
  const snapshot = await deps.policyRing.current()
  const { attestors, policy } = snapshot
  const { attestation, agentId } = await attestNode(psat, attestors.serviceAccounts, policy.trustDomain, now)
  decision.attested(attestation)
  policy.bans.check(attestation, agentId)
  decision.agent(agentId)
  const grant = internalX509Grant({
    spiffeId: agentId,
    ttlSeconds: DEFAULT_X509_SVID_TTL_SECONDS,
    notAfter: attestation.expiresAt,
  })
  const key = await publicKey()
  const { selectors } = attestation
  try {
    return { agentId, selectors, issued: await certify(grant, key, snapshot, now, deps, decision) }
  } catch (error) {
    if (error instanceof Refusal && error.reason === 'x509_not_configured') return { agentId, selectors, issued: null }
    throw error
  }
}

/** What a workload needs to verify the SVIDs of others with. */
export interface TrustedBundles {
  readonly trustDomain: TrustDomain
  /** Our own, as anybody may read it. */
  readonly own: PublicDocument
  /** Those of other trust domains that are known, by name. */
  readonly federated: ReadonlyMap<string, ForeignBundle>
  /** The same text as long as the SVIDs that the workload can have are the same. */
  readonly terms: string
}

/**
 * The first half alone: whom somebody may believe in is for those who may have an identity, and changes nothing about it.
 *
 * @param decision is told of each step as it is done
 * @throws Refusal
 */
export async function trustedBundles(
  request: Omit<SubjectRequest, 'spiffeId'>,
  deps: IssueDeps,
  decision: Decision,
): Promise<TrustedBundles> {
  const { grant, snapshot } = await admit(request, deps.now(), deps, decision, authorizeBundles)
  const [{ bundle }, known] = await Promise.all([
    deps.keyRing.published(),
    grant.federatesWith.length === 0 ? new Map<string, ForeignBundle>() : deps.federationRing.bundles(snapshot),
  ])
  const federated = new Map(
    grant.federatesWith.flatMap((name) => {
      const bundle = known.get(name)
      return bundle ? [[name, bundle] as const] : []
    }),
  )
  decision.told(grant.registrations, [...federated.keys()])
  return { trustDomain: snapshot.policy.trustDomain, own: bundle, federated, terms: grant.terms }
}

/** What all have to pass who are here for themselves: who is asking, may they, and are they still there. */
async function admit<G extends Grant | BundlesGrant>(
  { subjectToken, door }: Omit<SubjectRequest, 'spiffeId'>,
  now: number,
  { policyRing }: IssueDeps,
  decision: Decision,
  decide: (attestation: Attestation, policy: Policy) => G,
): Promise<{ grant: G; snapshot: PolicySnapshot }> {
  decision.presented(subjectToken)
  const snapshot = await policyRing.current()
  const { attestors, policy } = snapshot
  const attestation = await attestors.attest(subjectToken, door, now)
  decision.attested(attestation)
  const grant = decide(attestation, policy)
  if (grant.live && attestation.kind === 'pod' && !attestation.live)
    await attestors.serviceAccounts.confirm(subjectToken, attestation)
  return { grant, snapshot }
}

async function mintAndSign(
  grant: JwtGrant,
  now: number,
  { issuer, keyRing }: IssueDeps,
  decision: Decision,
): Promise<SignedSvid> {
  const claims = mint(grant, issuer, decision.id, now)
  return { claims, ...(await sign(claims, grant, keyRing)) }
}

async function certify(
  grant: X509Grant,
  publicKey: ArrayBuffer,
  snapshot: PolicySnapshot,
  now: number,
  { keyRing, federationRing }: IssueDeps,
  decision: Decision,
): Promise<IssuedX509Svid> {
  const authority = await keyRing.x509Authority()
  const terms = mintX509(grant, publicKey, authority, now)
  // Before the signature: none is made for an answer that nobody gets.
  const [bundle, federated] = await Promise.all([
    keyRing.x509Authorities(),
    federatedAuthorities(grant, snapshot, federationRing),
  ])
  const certificate = await signX509(terms, authority)
  const { spiffeId, notAfter: expiresAt } = terms
  decision.certified(
    grant.registration,
    { spiffeId, expiresAt, serialNumber: serialNumberOf(certificate) },
    authority.signer.publicJwk,
  )
  // Every authority is a root: there is nothing between it and the leaf.
  return { chain: [certificate], bundle, federated, expiresAt, grant }
}

/** @returns of the trust domains that the workload is to get, those that are known */
async function federatedAuthorities(
  { federatesWith }: X509Grant,
  snapshot: PolicySnapshot,
  federationRing: IssueDeps['federationRing'],
): Promise<IssuedX509Svid['federated']> {
  if (federatesWith.length === 0) return new Map()
  const bundles = await federationRing.bundles(snapshot)
  return new Map(
    federatesWith.flatMap((name) => {
      const authorities = bundles.get(name)?.x509Authorities
      return authorities ? [[name, authorities.map(({ der }) => der)] as const] : []
    }),
  )
}

/** One text for requests of one token under one grant: each has been attested and authorized for itself. */
function sameness({ subjectToken }: IssueRequest, { spiffeId, ...terms }: JwtGrant): string {
  return JSON.stringify([subjectToken, spiffeId.toString(), terms])
}
