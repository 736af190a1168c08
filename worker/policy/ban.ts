/** Who gets nothing any more, at any door, whatever the registrations say (T-26). */

import * as z from 'zod/mini'
import type { Attestation, PodAttestation } from '../attest/attestation.ts'
import { Refusal } from '../refusal.ts'
import { SpiffeId, SpiffeIdError, type TrustDomain } from '../spiffe/id.ts'
import { ClusterName, KUBERNETES_NAME, ServiceAccount } from './cluster.ts'

const SpiffeIdText = z.string().check(z.refine(isSpiffeId, 'not a SPIFFE ID'))

export const NodeUID = z.string().check(z.regex(/^[A-Za-z0-9-]{1,128}$/, 'not a UID'))

/** For people. */
const Reason = z.optional(z.string().check(z.maxLength(1024)))

/** The manifest's form of a ban. */
export const BanManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('Ban'),
  metadata: z.strictObject({
    name: z.string().check(z.regex(KUBERNETES_NAME, 'not a name')),
  }),
  spec: z.union([
    z.strictObject({ spiffeID: SpiffeIdText, reason: Reason }),
    z.strictObject({ cluster: ClusterName, serviceAccount: ServiceAccount, reason: Reason }),
    z.strictObject({ cluster: ClusterName, nodeUID: NodeUID, reason: Reason }),
  ]),
})

/**
 * @param ours our own trust domain
 * @param federation others, by their names
 * @returns what is wrong with a ban, beginning with its kind and name; null for nothing
 */
export function banProblem(
  { metadata, spec }: z.infer<typeof BanManifest>,
  ours: TrustDomain,
  federation: ReadonlyMap<string, unknown>,
): string | null {
  if (!('spiffeID' in spec) || isOf(ours, spec.spiffeID)) return null
  if (federation.has(SpiffeId.parse(spec.spiffeID).trustDomain.name)) return null
  return `Ban ${metadata.name}: spec.spiffeID: is of another trust domain, and of none that is federated with`
}

export class Bans {
  readonly #spiffeIds = new Map<string, string>()
  /** The same of other trust domains. */
  readonly #foreignIds = new Map<string, string>()
  readonly #facts = new Map<string, string>()

  /** @param ours our own trust domain */
  constructor(bans: readonly z.infer<typeof BanManifest>[], ours: TrustDomain) {
    for (const { metadata, spec } of bans) {
      if ('spiffeID' in spec)
        (isOf(ours, spec.spiffeID) ? this.#spiffeIds : this.#foreignIds).set(spec.spiffeID, metadata.name)
      else if ('nodeUID' in spec) this.#facts.set(`${spec.cluster} node ${spec.nodeUID}`, metadata.name)
      else this.#facts.set(`${spec.cluster} service account ${spec.serviceAccount}`, metadata.name)
    }
  }

  /**
   * The SPIFFE IDs of our own that are banned by themselves, in the order of their characters. It is what API servers are
   * told, which never see a token of another trust domain.
   */
  get spiffeIds(): readonly string[] {
    return [...this.#spiffeIds.keys()].sort()
  }

  /**
   * @param id what they would be given; null where that is no SPIFFE ID
   * @throws Refusal `banned`
   */
  check(attestation: Attestation, id: SpiffeId | null): void {
    const ban = (id && this.#spiffeIds.get(id.toString())) ?? this.#ofWhoAsks(attestation)
    if (ban !== undefined) throw new Refusal('banned', `by Ban ${ban}`)
  }

  #ofWhoAsks(attestation: Attestation): string | undefined {
    if (attestation.kind === 'pod') return this.#ofPod(attestation)
    return attestation.kind === 'federated' ? this.#foreignIds.get(attestation.spiffeId.toString()) : undefined
  }

  #ofPod({ cluster, namespace, serviceAccount, node }: PodAttestation): string | undefined {
    return (
      this.#facts.get(`${cluster} service account ${namespace}:${serviceAccount.name}`) ??
      (node?.uid ? this.#facts.get(`${cluster} node ${node.uid}`) : undefined)
    )
  }
}

function isOf(trustDomain: TrustDomain, spiffeId: string): boolean {
  return spiffeId.startsWith(`${trustDomain}/`)
}

function isSpiffeId(text: string): boolean {
  try {
    return SpiffeId.parse(text).path !== ''
  } catch (error) {
    if (error instanceof SpiffeIdError) return false
    throw error
  }
}
