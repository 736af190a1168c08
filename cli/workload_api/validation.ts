/**
 * JWT-SVIDs of ours and of others, judged by the bundle of the trust domain that they say they are of.
 *
 * @see [JWT-SVID §4](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#4-token-signing-and-validation)
 */

import { type ForeignBundle, verificationKeys } from '../../worker/federation/foreign_bundle.ts'
import { JwtError, parseJwt } from '../../worker/jwt.ts'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import { verifyJwtSvid } from '../../worker/spiffe/jwt_svid.ts'

export interface JwtSvidJudgement {
  readonly spiffeId: string
  readonly audience: readonly string[]
  /** All of them. */
  readonly claims: Readonly<Record<string, unknown>>
}

/** Whose tokens are taken, and for whom. */
export interface JwtSvidDemand {
  /** The required `iss`; null where the bundle alone decides. */
  readonly issuer: string | null
  readonly audience: string
  /** By the name of their trust domain. */
  readonly bundles: ReadonlyMap<string, ForeignBundle>
}

/**
 * @param svid JWS Compact Serialization
 * @param now seconds since the epoch
 * @throws JwtError
 * @see JS-11, JS-17
 */
export async function verifyByBundle(
  svid: string,
  { issuer, audience, bundles }: JwtSvidDemand,
  now: number,
): Promise<JwtSvidJudgement> {
  const unverified = parseJwt(svid)
  const { trustDomain, path } = parseSubject(unverified.payload.sub)
  if (path === '') throw new JwtError('subject')
  const bundle = bundles.get(trustDomain.name)
  if (!bundle) throw new JwtError('trust_domain')
  const keys = await verificationKeys(unverified, bundle)
  const verified = await verifyJwtSvid(svid, { trustDomain, issuer, audience, keys }, now)
  return { spiffeId: verified.spiffeId.toString(), audience: verified.audience, claims: unverified.payload }
}

/** @throws JwtError */
function parseSubject(sub: unknown): SpiffeId {
  try {
    if (typeof sub === 'string') return SpiffeId.parse(sub)
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
  }
  throw new JwtError('subject')
}
