/**
 * Attests a workload by the token of an OpenID provider that a record names: a CI job, a cloud's instance.
 *
 * @see [OpenID Connect Core §3.1.3.7](https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation)
 */

import { type UnverifiedJws, verifyCompact } from '../../keys/jws.ts'
import { checkTimes, JwtError, parseAudience } from '../jwt.ts'
import type { OidcAttestor } from '../policy/oidc_attestor.ts'
import { Refusal } from '../refusal.ts'
import { attested, type Door, type OidcAttestation } from './attestation.ts'
import { ClusterKeys, type ClusterKeysDeps } from './cluster_keys.ts'

/** As OpenID Connect Core §2 has it. */
const MAX_SUBJECT_LENGTH = 255

export class OidcIssuer {
  readonly attestor: OidcAttestor
  readonly keys: ClusterKeys

  /** @param keys those from before, if the record has not changed */
  constructor(attestor: OidcAttestor, deps: ClusterKeysDeps, keys?: ClusterKeys) {
    this.attestor = attestor
    const { name, issuer } = attestor
    this.keys =
      keys ?? new ClusterKeys({ name: `OIDCAttestor ${name}`, issuer, keySource: { from: 'discovery' } }, deps)
  }

  /**
   * @param jws the subject token, read and not yet believed
   * @param now seconds since the epoch
   * @throws Refusal, JwtError
   */
  async attest(jws: UnverifiedJws, door: Door, now: number): Promise<OidcAttestation> {
    const { name, issuer, audience, maxTokenLifetimeSeconds } = this.attestor
    const { iss, aud, sub } = jws.payload
    if (iss !== issuer) throw new JwtError('issuer')
    const [only, ...more] = parseAudience(aud)
    if (only !== audience || more.length > 0) throw new JwtError('audience')
    const key = await this.keys.find(jws.header.kid)
    if (!key) throw new JwtError('key')
    if (!(await verifyCompact(jws, key))) throw new JwtError('signature')
    const { expiresAt, issuedAt } = checkTimes(jws.payload, now)
    if (typeof sub !== 'string' || sub === '' || sub.length > MAX_SUBJECT_LENGTH || issuedAt === null)
      throw new JwtError('claims')
    if (expiresAt - issuedAt > maxTokenLifetimeSeconds)
      throw new Refusal('token_lifetime', `made to live more than ${maxTokenLifetimeSeconds} s`)
    this.keys.prove(key)
    return attested({ kind: 'oidc', door, attestor: name, claims: jws.payload, expiresAt })
  }
}
