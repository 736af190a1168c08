/** Everybody who can say who a subject token is of. Its issuer decides who is asked, and an issuer belongs to one of them. */

import { JwtError, parseJwt } from '../jwt.ts'
import type { Cluster } from '../policy/cluster.ts'
import type { OidcAttestor } from '../policy/oidc_attestor.ts'
import { Refusal } from '../refusal.ts'
import type { Attestation, Door } from './attestation.ts'
import { IGNORED_HEADER, OidcIssuer } from './oidc.ts'
import { ServiceAccountAttestor, type ServiceAccountAttestorDeps } from './service_account.ts'

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
    // Read twice only where there are such attestors at all.
    const oidc = this.#oidc.size === 0 ? undefined : this.#oidc.get(issuerOf(token))
    if (!oidc) return this.serviceAccounts.attest(token, door, now)
    try {
      return await oidc.attest(token, door, now)
    } catch (error) {
      if (!(error instanceof JwtError)) throw error
      // There is no trust domain and no SPIFFE ID in such a token, so the names meet those of the refusals.
      throw new Refusal(`token_${error.code as Exclude<JwtError['code'], 'subject' | 'trust_domain'>}`, error.message)
    }
  }
}

/** @returns what a token says of its issuer, or undefined if it is no token that anybody could attest by */
function issuerOf(token: string): unknown {
  try {
    return parseJwt(token, IGNORED_HEADER).payload.iss
  } catch (error) {
    if (error instanceof JwtError) return undefined
    throw error
  }
}
