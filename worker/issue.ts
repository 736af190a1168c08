/**
 * READ THIS for the whole story. Everything that issues an identity takes the same path, whatever door it came in by:
 * attest → authorize → mint → sign. Each step takes what the one before returns, so none can be left out.
 */

import type { PublicJwk } from '../keys/signer.ts'
import type { Door } from './attest/attestation.ts'
import type { Decision } from './audit.ts'
import { mint, sign } from './mint.ts'
import { authorize, type Grant } from './policy/authorize.ts'
import type { SharedCalls } from './shared_call.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'
import type { KeyRing } from './state/key_ring.ts'
import type { PolicyRing } from './state/policy_ring.ts'

/** What a door has read out of its request. */
export interface IssueRequest {
  readonly door: Door
  readonly subjectToken: string
  /** The audiences asked for; none leaves the choice to the registration, if there is only one. */
  readonly audience: readonly string[]
  /** The SPIFFE ID asked for; null leaves no choice. */
  readonly spiffeId: string | null
}

/** An SVID, and the terms it was issued under. */
export interface IssuedSvid {
  readonly svid: string
  readonly claims: JwtSvidClaims
  readonly grant: Grant
}

/** What issuing needs. Built once per isolate. */
export interface IssueDeps {
  /** Our issuer URL. */
  readonly issuer: string
  readonly policyRing: PolicyRing
  readonly keyRing: KeyRing
  /** Identical requests that are under way at the same time share one signature. */
  readonly signing: SharedCalls<SignedSvid>
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
  decision.presented(request.subjectToken)
  const now = deps.now()
  const { attestors, policy } = await deps.policyRing.current()
  const attestation = await attestors.attest(request.subjectToken, request.door, now)
  decision.attested(attestation)
  const grant = authorize(attestation, { svidType: 'JWT', ...request }, policy)
  if (grant.live && attestation.kind === 'pod' && !attestation.live)
    await attestors.serviceAccounts.confirm(request.subjectToken, attestation)
  const { claims, svid, publicJwk } = await deps.signing.run(
    sameness(request, grant),
    async () => {
      const minted = mint(grant, deps.issuer, decision.id, now)
      return { claims: minted, ...(await sign(minted, grant, deps.keyRing)) }
    },
    deps.waitUntil,
  )
  decision.issued(grant.registration, claims, publicJwk)
  return { svid, claims, grant }
}

/** One text for requests of one token under one grant: each has been attested and authorized for itself. */
function sameness({ subjectToken }: IssueRequest, { spiffeId, ...terms }: Grant): string {
  return JSON.stringify([subjectToken, spiffeId.toString(), terms])
}
