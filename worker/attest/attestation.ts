/** Who is asking, as far as it has been proven. */

/** Where a request came in: a token that is good at one door is not for that reason good at another (T-6). */
export type Door = 'token'

declare const attested: unique symbol

/** A pod's identity, read off a verified token. Only the attestors of this folder make one. */
export interface Attestation {
  readonly door: Door
  /** Name of the cluster's record. */
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccount: { readonly name: string; readonly uid: string }
  /** null only where the cluster's record allows tokens that are bound to no pod. */
  readonly pod: { readonly name: string; readonly uid: string } | null
  /** Seconds since the epoch: the end of the subject token. */
  readonly expiresAt: number
  readonly [attested]: true
}
