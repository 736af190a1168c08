/** Who is asking, as far as it has been proven. */

import type { SpiffeId } from '../spiffe/id.ts'

/** Where a request came in: a token that is good at one door is not for that reason good at another (T-6). */
export type Door = 'token' | 'svid_x509' | 'bundles' | 'kubespiffe' | 'k8s_psat' | 'vault'

declare const proven: unique symbol

/** A pod's identity, read off a verified token. */
export interface PodFacts {
  readonly kind: 'pod'
  readonly door: Door
  /** Name of the cluster's record. */
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccount: { readonly name: string; readonly uid: string }
  /** null only where the cluster's record allows tokens that are bound to no pod. */
  readonly pod: { readonly name: string; readonly uid: string } | null
  /** The pod's node, where the token names it. Clusters before 1.30 do not. */
  readonly node: { readonly name: string; readonly uid: string | null } | null
  /** What registrations match by, in SPIRE's forms. */
  readonly selectors: ReadonlySet<string>
  /** Whether the cluster's API server has said that token and pod are alive. */
  readonly live: boolean
  /** Seconds since the epoch: the end of the subject token. */
  readonly expiresAt: number
}

/** What a provider says of a workload that is no pod. */
export interface OidcFacts {
  readonly kind: 'oidc'
  readonly door: Door
  /** Name of the attestor's record. */
  readonly attestor: string
  /** Of the token, `sub` among them. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Seconds since the epoch: the end of the subject token. */
  readonly expiresAt: number
}

/** What another trust domain says of a workload of its own. */
export interface FederatedFacts {
  readonly kind: 'federated'
  readonly door: Door
  /** Its name. */
  readonly trustDomain: string
  readonly spiffeId: SpiffeId
  /** Seconds since the epoch: the end of the subject token. */
  readonly expiresAt: number
}

interface Proven {
  readonly [proven]: true
}

/** Facts that have been proven. Only the attestors of this folder make one. */
export type PodAttestation = PodFacts & Proven
export type OidcAttestation = OidcFacts & Proven
export type FederatedAttestation = FederatedFacts & Proven
export type Attestation = PodAttestation | OidcAttestation | FederatedAttestation

export function attested<Facts extends PodFacts | OidcFacts | FederatedFacts>(facts: Facts): Facts & Proven {
  return facts as Facts & Proven
}
