/** The worker's doors, with the pod's token, which is read anew each time: kubelets replace it. */

import { type BundleMap, certify, exchangeToken, fetchBundleMap, type JwtSvid, type X509Svid } from '../exchange.ts'

/** Callers wait for some of the answers, and kubectl's patience is not theirs. */
const TIMEOUT_MS = 10_000

export interface IssuerDoors {
  /** The issuer URL. */
  readonly issuer: string
  /** @throws NotYet, Refused, Failure, as all of them */
  bundles(): Promise<BundleMap>
  /** @param csr PKCS #10, PEM */
  x509Svid(csr: string, spiffeId: string | null): Promise<X509Svid>
  jwtSvid(audience: readonly string[], spiffeId: string | null): Promise<JwtSvid>
}

/**
 * @param subjectToken throws Failure if there is none
 * @param signal breaks off what is under way
 */
export function issuerDoors(issuer: string, subjectToken: () => Promise<string>, signal: AbortSignal): IssuerDoors {
  const patience = { timeoutMs: TIMEOUT_MS, signal }
  const asWorkload = async () => ({ issuer, subjectToken: await subjectToken(), ...patience })
  return {
    issuer,
    bundles: async () => fetchBundleMap(issuer, await subjectToken(), patience),
    x509Svid: async (csr, spiffeId) => certify({ ...(await asWorkload()), csr, spiffeId }),
    jwtSvid: async (audience, spiffeId) => exchangeToken({ ...(await asWorkload()), audience, spiffeId }),
  }
}
