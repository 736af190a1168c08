/** Who gets nothing any more, at any door, whatever the registrations say (T-26). */

import * as z from 'zod/mini'
import type { Attestation, PodAttestation } from '../attest/attestation.ts'
import { Refusal } from '../refusal.ts'
import { SpiffeId, SpiffeIdError } from '../spiffe/id.ts'
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

export class Bans {
  readonly #spiffeIds = new Map<string, string>()
  readonly #facts = new Map<string, string>()

  constructor(bans: readonly z.infer<typeof BanManifest>[]) {
    for (const { metadata, spec } of bans) {
      if ('spiffeID' in spec) this.#spiffeIds.set(spec.spiffeID, metadata.name)
      else if ('nodeUID' in spec) this.#facts.set(`${spec.cluster} node ${spec.nodeUID}`, metadata.name)
      else this.#facts.set(`${spec.cluster} service account ${spec.serviceAccount}`, metadata.name)
    }
  }

  /** The SPIFFE IDs that are banned by themselves, in the order of their characters. */
  get spiffeIds(): readonly string[] {
    return [...this.#spiffeIds.keys()].sort()
  }

  /**
   * @param id what they would be given; null where that is no SPIFFE ID
   * @throws Refusal `banned`
   */
  check(attestation: Attestation, id: SpiffeId | null): void {
    const ban =
      (id && this.#spiffeIds.get(id.toString())) ?? (attestation.kind === 'pod' ? this.#ofPod(attestation) : undefined)
    if (ban !== undefined) throw new Refusal('banned', `by Ban ${ban}`)
  }

  #ofPod({ cluster, namespace, serviceAccount, node }: PodAttestation): string | undefined {
    return (
      this.#facts.get(`${cluster} service account ${namespace}:${serviceAccount.name}`) ??
      (node?.uid ? this.#facts.get(`${cluster} node ${node.uid}`) : undefined)
    )
  }
}

function isSpiffeId(text: string): boolean {
  try {
    return SpiffeId.parse(text).path !== ''
  } catch (error) {
    if (error instanceof SpiffeIdError) return false
    throw error
  }
}
