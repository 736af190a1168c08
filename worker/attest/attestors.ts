/** Everybody who can say who a subject token is of. Its issuer decides who is asked, and an issuer belongs to one of them. */

import type { UnverifiedJws } from '../../keys/jws.ts'
import type { ForeignBundle } from '../federation/foreign_bundle.ts'
import { JwtError, parseJwt } from '../jwt.ts'
import type { Policy } from '../policy/policy.ts'
import type { Attestation, Door } from './attestation.ts'
import { isJwtSvid, JwtSvidAttestor } from './jwt_svid.ts'
import { OidcIssuer } from './oidc.ts'
import { ServiceAccountAttestor, type ServiceAccountAttestorDeps, tokenRefusal } from './service_account.ts'
import { VaultLoginAttestor } from './vault_login.ts'

/** Header members that providers send and nobody needs: the thumbprint of a certificate is no key and no address. */
const IGNORED_HEADER = ['x5t']

/** What the outside world is to this module. */
export interface AttestorsDeps extends ServiceAccountAttestorDeps {
  /** Our own issuer URL. */
  readonly issuer: string
  /**
   * @returns what is known of the trust domains that the policy names, by their names
   * @throws Refusal `federation_unavailable`
   */
  foreignBundles(): Promise<ReadonlyMap<string, ForeignBundle>>
}

export class Attestors {
  readonly serviceAccounts: ServiceAccountAttestor
  readonly logins: VaultLoginAttestor
  readonly #oidc: ReadonlyMap<unknown, OidcIssuer>
  /** null where no other trust domain is believed. */
  readonly #jwtSvids: JwtSvidAttestor | null

  /** @param previous whose keys are kept for records that have not changed */
  constructor(
    { clusters, attestors, federation, vault }: Pick<Policy, 'clusters' | 'attestors' | 'federation' | 'vault'>,
    deps: AttestorsDeps,
    previous?: Attestors,
  ) {
    this.serviceAccounts = new ServiceAccountAttestor(clusters.values(), deps, previous?.serviceAccounts)
    this.logins = new VaultLoginAttestor(vault.mounts.values(), this.serviceAccounts, deps, previous?.logins)
    this.#oidc = new Map(
      [...attestors.values()].map((attestor) => {
        const before = previous ? previous.#oidc.get(attestor.issuer) : undefined
        const keys = before?.attestor.name === attestor.name ? before.keys : undefined
        return [attestor.issuer, new OidcIssuer(attestor, deps, keys)]
      }),
    )
    const { issuer } = deps
    const records = [...clusters.values(), ...attestors.values()].map((record) => record.issuer)
    this.#jwtSvids =
      federation.size === 0
        ? null
        : new JwtSvidAttestor({
            issuer,
            otherIssuers: new Set([issuer, ...records]),
            trustDomains: federation,
            bundles: () => deps.foreignBundles(),
          })
  }

  /**
   * @param token the subject token
   * @param now seconds since the epoch
   * @throws Refusal
   */
  async attest(token: string, door: Door, now: number): Promise<Attestation> {
    // A pod's token is read twice only where there are others at all. kubespiffe's door is for pods alone (T-6).
    const podsOnly = door === 'kubespiffe' || (this.#oidc.size === 0 && !this.#jwtSvids)
    const jws = podsOnly ? null : readLeniently(token)
    if (!jws) return this.serviceAccounts.attest(token, door, now)
    try {
      const oidc = this.#oidc.get(jws.payload.iss)
      if (oidc) return await oidc.attest(jws, door, now)
      if (this.#jwtSvids && isJwtSvid(jws)) return await this.#jwtSvids.attest(token, jws, door, now)
      return await this.serviceAccounts.attest(token, door, now)
    } catch (error) {
      throw error instanceof JwtError ? tokenRefusal(error) : error
    }
  }
}

/** @returns null for what is no token that anybody could attest by */
function readLeniently(token: string): UnverifiedJws | null {
  try {
    return parseJwt(token, IGNORED_HEADER)
  } catch (error) {
    if (error instanceof JwtError) return null
    throw error
  }
}
