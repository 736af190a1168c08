/**
 * READ THIS for the whole story. Everything that issues an identity takes the same path, whatever door it came in by:
 * attest → authorize → mint → sign. Each step takes what the one before returns, so none can be left out.
 */

import { signCompact } from '../keys/jws.ts'
import { SigningError } from '../keys/signer.ts'
import type { Door } from './attest/attestation.ts'
import type { Decision } from './audit.ts'
import { authorize, type Grant } from './policy/authorize.ts'
import { Refusal } from './refusal.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'
import { isReserved } from './spiffe/reserved.ts'
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
  /** Seconds since the epoch. */
  now(): number
}

/** Long enough for a KMS that throttles to have caught its breath. */
const SIGNING_RETRY_AFTER_SECONDS = 2

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
  const claims = mint(grant, deps.issuer, decision.id, now)
  const { svid, publicJwk } = await sign(claims, grant, deps.keyRing)
  decision.issued(grant.registration, claims, publicJwk)
  return { svid, claims, grant }
}

/**
 * @param jti names this one token
 * @see [JWT-SVID §3](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#3-jwt-claims)
 */
function mint(
  { spiffeId, audience, ttlSeconds, notAfter, claims }: Grant,
  iss: string,
  jti: string,
  now: number,
): JwtSvidClaims {
  // Authorizing refuses these too. Here it holds for every grant there will ever be (T-5).
  if (isReserved(spiffeId))
    throw new Refusal('spiffe_id_reserved', 'nothing but the issuer itself has such an identity')
  return {
    // First, so that none of them could take the place of one below.
    ...claims,
    iss,
    sub: spiffeId.toString(),
    aud: audience.length === 1 ? (audience[0] as string) : audience,
    exp: Math.min(now + ttlSeconds, notAfter),
    iat: now,
    jti,
  }
}

async function sign(claims: JwtSvidClaims, grant: Grant, keyRing: KeyRing) {
  try {
    const signer = await keyRing.signer(grant.alg)
    const { kid, alg } = signer.publicJwk
    return { svid: await signCompact({ alg, kid, typ: 'JWT' }, claims, signer), publicJwk: signer.publicJwk }
  } catch (error) {
    if (!(error instanceof SigningError)) throw error
    throw new Refusal('signing_unavailable', error.code, SIGNING_RETRY_AFTER_SECONDS)
  }
}
