/**
 * Attests a workload of another trust domain by its JWT-SVID. Only that trust domain's own authorities are tried, and only for
 * what is made out to us and nobody else (T-6).
 *
 * @see [SPIFFE Federation §7.3](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md)
 * @see [JWT-SVID §4](https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md#4-token-signing-and-validation)
 */

import type { UnverifiedJws } from '../../keys/jws.ts'
import { type ForeignBundle, verificationKeys } from '../federation/foreign_bundle.ts'
import { JwtError } from '../jwt.ts'
import type { FederatedTrustDomain } from '../policy/federated_trust_domain.ts'
import { Refusal } from '../refusal.ts'
import { SpiffeId, SpiffeIdError } from '../spiffe/id.ts'
import { verifyJwtSvid } from '../spiffe/jwt_svid.ts'
import { attested, type Door, type FederatedAttestation } from './attestation.ts'

/** What the outside world is to this module. */
export interface JwtSvidAttestorDeps {
  /** Our own issuer URL: what a token must be made out to. */
  readonly issuer: string
  /** Those whose tokens are never a JWT-SVID of somebody else: our own, and the issuers of records. */
  readonly otherIssuers: ReadonlySet<string>
  /** Those that the policy names, by their names. */
  readonly trustDomains: ReadonlyMap<string, Pick<FederatedTrustDomain, 'maxTokenLifetimeSeconds'>>
  /**
   * @returns what is known of them, by their names
   * @throws Refusal `federation_unavailable`
   */
  bundles(): Promise<ReadonlyMap<string, ForeignBundle>>
}

/** When the caller may come again while the bundle of its trust domain is not there yet: to fetch one takes as long. */
const BUNDLE_RETRY_AFTER_SECONDS = 5

/** Whether a token says that it is a JWT-SVID. No service account has a subject like that. */
export function isJwtSvid({ payload: { sub } }: UnverifiedJws): boolean {
  return typeof sub === 'string' && sub.startsWith('spiffe://')
}

export class JwtSvidAttestor {
  readonly #deps: JwtSvidAttestorDeps

  constructor(deps: JwtSvidAttestorDeps) {
    this.#deps = deps
  }

  /**
   * @param token the subject token
   * @param unverified the same, read and not yet believed
   * @param now seconds since the epoch
   * @throws Refusal, JwtError
   */
  async attest(token: string, unverified: UnverifiedJws, door: Door, now: number): Promise<FederatedAttestation> {
    const { issuer, otherIssuers, trustDomains, bundles } = this.#deps
    const { iss, sub } = unverified.payload
    if (iss !== undefined && (typeof iss !== 'string' || otherIssuers.has(iss))) throw new JwtError('issuer')
    const { trustDomain, path } = parseSubject(sub)
    // Our own is named by no policy.
    const record = trustDomains.get(trustDomain.name)
    if (!record) throw new JwtError('trust_domain')
    if (path === '') throw new JwtError('subject')
    const bundle = (await bundles()).get(trustDomain.name)
    // It says nothing of the token, which may be good. A bundle without keys does.
    if (!bundle)
      throw new Refusal('federation_unavailable', `no bundle of ${trustDomain.name} yet`, BUNDLE_RETRY_AFTER_SECONDS)
    const keys = await verificationKeys(unverified, bundle)
    const verified = await verifyJwtSvid(token, { trustDomain, issuer: null, audience: issuer, keys }, now)
    if (verified.audience.length > 1) throw new JwtError('audience')
    const { spiffeId, expiresAt, issuedAt } = verified
    // JWT-SVID §3.3 asks for no iat. What is left of a token is less than it was made to live.
    if (expiresAt - (issuedAt ?? now) > record.maxTokenLifetimeSeconds)
      throw new Refusal('token_lifetime', `made to live more than ${record.maxTokenLifetimeSeconds} s`)
    return attested({ kind: 'federated', door, trustDomain: trustDomain.name, spiffeId, expiresAt })
  }
}

function parseSubject(sub: unknown): SpiffeId {
  try {
    return SpiffeId.parse(String(sub))
  } catch (error) {
    if (!(error instanceof SpiffeIdError)) throw error
    throw new JwtError('subject')
  }
}
