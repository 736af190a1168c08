/** Manifests and what becomes of them, in as few words as a test wants to say. */

import type { PodAttestation } from '../../worker/attest/attestation.ts'
import { podSelectors } from '../../worker/attest/selectors.ts'
import {
  compilePolicy,
  ManifestError,
  parseManifest,
  parseObject,
  type SourcedObject,
} from '../../worker/policy/manifest.ts'
import type { Policy } from '../../worker/policy/policy.ts'
import type { Registration } from '../../worker/policy/registration.ts'
import { SpiffeIdTemplate } from '../../worker/policy/spiffe_id_template.ts'
import { TrustDomain } from '../../worker/spiffe/id.ts'
import { NOW } from './clock.ts'
import { POD } from './cluster.ts'

export const ISSUER = 'https://issuer.example.org'
export const TRUST_DOMAIN = TrustDomain.parse('example.org')

/** What a platform could have bound: services, and a secret. */
const BINDINGS = new Map<string, unknown>([
  ['CLUSTER_EAST', {}],
  ['CLUSTER_WEST', {}],
  ['CLUSTER_DISK', {}],
  // There is none, and nobody has noticed.
  ['CLUSTER_OTHER', {}],
  ['CLUSTER_TOKEN', 'secret'],
])

export const CONTEXT = { issuer: ISSUER, trustDomain: TRUST_DOMAIN, allowLoopbackHttp: false, bindings: BINDINGS }

/** JSON is YAML, so objects make a manifest. */
export function manifest(...objects: readonly object[]): string {
  return objects.map((object) => `---\n${JSON.stringify(object)}\n`).join('')
}

/** A cluster whose keys nobody needs. */
export function cluster(name: string, spec: object = {}): object {
  return {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name },
    spec: { issuer: `https://${name}.example.net`, jwks: { discovery: true }, ...spec },
  }
}

/** @param spec is laid over a registration of the one pod that tests know; an undefined member is left out */
export function registration(name: string, spec: object = {}): object {
  return {
    apiVersion: 'kubespiffe.io/v1alpha1',
    kind: 'WorkloadRegistration',
    metadata: { name },
    spec: {
      clusters: ['east'],
      selector: { namespace: POD.namespace, serviceAccountName: POD.serviceAccount.name },
      audiences: ['k8s'],
      ...spec,
    },
  }
}

/** A registration as compiled, for what a manifest would not get through with. */
export function raw(name: string, path: string, change: Partial<Registration> = {}): Registration {
  return {
    name,
    clusters: ['east'],
    source: 'manifest',
    selectors: [`k8s:ns:${POD.namespace}`],
    podsOf: null,
    oidc: null,
    federated: null,
    svidTypes: ['JWT'],
    claims: {},
    dnsNames: [],
    federatesWith: [],
    hint: null,
    liveness: 'none',
    template: SpiffeIdTemplate.parse(`${TRUST_DOMAIN}${path}`, TRUST_DOMAIN),
    audiences: ['k8s'],
    audienceCombinations: [],
    ttlSeconds: 300,
    x509TtlSeconds: 3600,
    alg: null,
    sharedIdentity: false,
    ...change,
  }
}

/** Objects with where they came from. */
export function from(source: SourcedObject['source'], ...objects: readonly object[]): SourcedObject[] {
  return objects.map((object) => ({ object: parseObject(object), source }))
}

/** @param text YAML */
export function parsePolicy(text: string): Policy {
  const { objects, problems } = parseManifest(text)
  const compiled = compilePolicy(
    objects.map((object): SourcedObject => ({ object, source: 'manifest' })),
    CONTEXT,
  )
  const { policy } = compiled
  if (problems.length + compiled.problems.length > 0) throw new ManifestError([...problems, ...compiled.problems])
  return policy
}

export function policyOf(...objects: readonly object[]): Policy {
  return parsePolicy(manifest(...objects))
}

/** @returns what is wrong with a manifest of these objects, nothing if it may be used */
export function problemsOf(...objects: readonly object[]): readonly string[] {
  try {
    policyOf(...objects)
    return []
  } catch (error) {
    if (error instanceof ManifestError) return error.problems
    throw error
  }
}

/** What an attestor would make of the token of the one pod that tests know, in the cluster `east`. */
export function attestation(change: Partial<PodAttestation> = {}): PodAttestation {
  const who = {
    kind: 'pod' as const,
    door: 'token' as const,
    cluster: 'east',
    namespace: POD.namespace,
    serviceAccount: POD.serviceAccount,
    pod: POD.pod,
    node: POD.node,
    live: false,
    expiresAt: NOW + 3607,
    ...change,
  }
  const selectors = podSelectors({
    namespace: who.namespace,
    serviceAccountName: who.serviceAccount.name,
    pod: who.pod,
    nodeName: who.node?.name ?? null,
  })
  return { selectors, ...who } as PodAttestation
}
