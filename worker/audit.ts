/**
 * The record of every decision: one JSON line each, whether an identity was issued or refused. It holds what is needed to
 * find a decision again and to tell who was given what, and never a token: of that, only the SHA-256.
 */

import type { Attestation } from './attest/attestation.ts'
import { Refusal } from './refusal.ts'
import type { SpiffeId } from './spiffe/id.ts'
import type { JwtSvidClaims } from './spiffe/jwt_svid.ts'

/** Writes one flat object as a line of JSON. */
export type Log = (event: object) => void

const encoder = new TextEncoder()

/** What names a token of Vault's kind, and does not open anything. */
export interface HeldToken {
  readonly mount: string
  readonly role: string
  /** Empty where there is none. */
  readonly accessor: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
}

/** What came of a decision that issues nothing. */
export type Outcome = 'attested' | 'told' | 'logged_in' | 'looked_up' | 'renewed' | 'revoked' | 'administered'

/** One decision, filled along the way and written once, in a `finally`. */
export class Decision {
  /** Names this decision in the log, in a refusal's answer, and as `jti` in a token that is made for it. */
  readonly id = crypto.randomUUID()
  readonly #door: string
  readonly #time: number
  #subjectToken: string | null = null
  #attestation: Attestation | null = null
  #issued: object | null = null
  #agentId: SpiffeId | null = null
  #asked: object | null = null
  #admin: string | null = null
  #login: object | null = null
  #bundles: object | null = null
  #outcome: Outcome = 'attested'
  #refusal: Refusal | null = null

  /** @param time seconds since the epoch */
  constructor(door: string, time: number) {
    this.#door = door
    this.#time = time
  }

  presented(subjectToken: string): void {
    this.#subjectToken = subjectToken
  }

  attested(attestation: Attestation): void {
    this.#attestation = attestation
  }

  issued(
    registration: string,
    { sub, aud, exp, jti }: JwtSvidClaims,
    { kid, alg }: { kid: string; alg: string },
  ): void {
    this.#issued = {
      registration,
      spiffe_id: sub,
      audience: aud,
      expires: exp,
      // The token of an identical request that was under way already.
      ...(jti !== this.id && { jti }),
      kid,
      alg,
    }
  }

  /** @param certificate of which there is one for each of these lines, and one signature of the authority `kid` */
  certified(
    registration: string,
    { spiffeId, expiresAt, serialNumber }: { spiffeId: SpiffeId; expiresAt: number; serialNumber: string },
    { kid, alg }: { kid: string; alg: string },
  ): void {
    this.#issued = {
      registration,
      spiffe_id: spiffeId.toString(),
      serial_number: serialNumber,
      expires: expiresAt,
      kid,
      alg,
    }
  }

  /** A node has been attested: nothing is issued, but it has been told who it is. */
  agent(id: SpiffeId): void {
    this.#agentId = id
  }

  /** A token of Vault's kind is given, or has been shown. Its accessor names it, and opens nothing. */
  held({ mount, role, accessor, expiresAt }: HeldToken): void {
    this.#login = { role: `${mount}/${role}`, ...(accessor !== '' && { accessor }), token_expires: expiresAt }
  }

  /** What is asked for at a door that is for many things. */
  asked(operation: string, path: string): void {
    this.#asked = { operation, path }
  }

  /** What a workload may verify SVIDs of others with: besides our own bundle, those of these trust domains. */
  told(registrations: readonly string[], federated: readonly string[]): void {
    this.#bundles = { registrations, federated }
    this.#outcome = 'told'
  }

  administered(admin: string): void {
    this.#admin = admin
    this.#outcome = 'administered'
  }

  done(outcome: Outcome): void {
    this.#outcome = outcome
  }

  /**
   * @param error whatever was thrown; what is not a {@link Refusal} becomes one that says nothing
   * @returns the refusal to answer with
   */
  refused(error: unknown): Refusal {
    this.#refusal =
      error instanceof Refusal ? error : new Refusal('internal', error instanceof Error ? error.name : typeof error)
    return this.#refusal
  }

  /** In kubespiffe's words, for people and for what looks for them. */
  #message(): string {
    if (this.#admin !== null) return `administrator ${this.#refusal ? 'rejected' : 'attested'}`
    const who = !this.#attestation ? 'token' : this.#attestation.kind === 'pod' ? 'pod' : 'workload'
    return `${who} ${this.#refusal ? 'rejected' : 'attested'}`
  }

  async write(log: Log): Promise<void> {
    const attestation = this.#attestation
    log({
      event: 'decision',
      message: this.#message(),
      time: new Date(this.#time * 1000).toISOString(),
      id: this.id,
      door: this.#door,
      decision: this.#refusal ? 'refused' : this.#issued ? 'issued' : this.#outcome,
      ...(this.#refusal && { reason: this.#refusal.reason, detail: this.#refusal.detail }),
      ...this.#asked,
      ...(this.#admin !== null && { admin: this.#admin }),
      ...(this.#subjectToken !== null && { subject_token_sha256: await sha256Hex(this.#subjectToken) }),
      ...(attestation?.kind === 'oidc' && { attestor: attestation.attestor, subject: attestation.claims.sub }),
      ...(attestation?.kind === 'federated' && {
        federated_trust_domain: attestation.trustDomain,
        subject: attestation.spiffeId.toString(),
      }),
      ...(attestation?.kind === 'pod' && {
        cluster: attestation.cluster,
        namespace: attestation.namespace,
        service_account: attestation.serviceAccount.name,
        service_account_uid: attestation.serviceAccount.uid,
        ...(attestation.pod && { pod: attestation.pod.name, pod_uid: attestation.pod.uid }),
        ...(attestation.live && { live: true }),
      }),
      ...(this.#agentId && { spiffe_id: this.#agentId.toString() }),
      ...this.#login,
      ...this.#bundles,
      ...this.#issued,
    })
  }
}

async function sha256Hex(text: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', encoder.encode(text))).toHex()
}
