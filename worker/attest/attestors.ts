/** Everybody who can say who a subject token is of. Its issuer decides who is asked, and an issuer belongs to one of them. */

import type { UnverifiedJws } from '../../keys/jws.ts'
import { JwtError, parseJwt } from '../jwt.ts'
import type { Cluster } from '../policy/cluster.ts'
import type { OidcAttestor } from '../policy/oidc_attestor.ts'
import type { Attestation, Door } from './attestation.ts'
import { OidcIssuer } from './oidc.ts'
import { ServiceAccountAttestor, type ServiceAccountAttestorDeps, tokenRefusal } from './service_account.ts'

/** Header members that providers send and nobody needs: the thumbprint of a certificate is no key and no address. */
const IGNORED_HEADER = ['x5t']

export class Attestors {
  readonly serviceAccounts: ServiceAccountAttestor
  readonly #oidc: ReadonlyMap<unknown, OidcIssuer>

  /** @param previous whose keys are kept for records that have not changed */
  constructor(
    { clusters, attestors }: { clusters: ReadonlyMap<string, Cluster>; attestors: ReadonlyMap<string, OidcAttestor> },
    deps: ServiceAccountAttestorDeps,
    previous?: Attestors,
  ) {
    this.serviceAccounts = new ServiceAccountAttestor(clusters.values(), deps, previous?.serviceAccounts)
    this.#oidc = new Map(
      [...attestors.values()].map((attestor) => {
        const before = previous ? previous.#oidc.get(attestor.issuer) : undefined
        const keys = before?.attestor.name === attestor.name ? before.keys : undefined
        return [attestor.issuer, new OidcIssuer(attestor, deps, keys)]
      }),
    )
  }

  /**
   * @param token the subject token
   * @param now seconds since the epoch
   * @throws Refusal
   */
  async attest(token: string, door: Door, now: number): Promise<Attestation> {
    // A pod's token is read twice only where there are such attestors at all. kubespiffe's door is for pods alone (T-6).
    const jws = this.#oidc.size === 0 || door === 'kubespiffe' ? null : readLeniently(token)
    const oidc = jws && this.#oidc.get(jws.payload.iss)
    if (!oidc) return this.serviceAccounts.attest(token, door, now)
    try {
      return await oidc.attest(jws, door, now)
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
