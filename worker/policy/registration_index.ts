/** Registrations by what nearly all of them demand, so that a request looks at a few of ten thousand. */

import type { Attestation } from '../attest/attestation.ts'
import { demanded, isPodOf, type Registration } from './registration.ts'

/** More say no more. */
const MAX_OVERLAPS = 20
/** Looking for them is a courtesy, and must not take seconds where thousands of registrations are much alike. */
const MAX_STEPS = 500_000

export class RegistrationIndex {
  readonly all: readonly Registration[]
  /** By cluster, and by namespace and service account where a registration demands them. */
  readonly #buckets = new Map<string, Registration[]>()
  /** By cluster: those that demand a namespace and no service account. */
  readonly #namespaceWide = new Map<string, Registration[]>()

  constructor(registrations: readonly Registration[]) {
    this.all = registrations
    for (const registration of registrations) {
      if (registration.oidc) {
        add(this.#buckets, oidcBucket(registration.oidc.attestor), registration)
        continue
      }
      if (registration.federated) {
        add(this.#buckets, federatedBucket(registration.federated.trustDomain), registration)
        continue
      }
      const [namespace, serviceAccountName] = [demanded(registration, 'k8s:ns'), demanded(registration, 'k8s:sa')]
      for (const cluster of new Set(registration.clusters)) {
        add(this.#buckets, bucket(cluster, namespace, serviceAccountName), registration)
        if (namespace !== null && serviceAccountName === null) add(this.#namespaceWide, cluster, registration)
      }
    }
  }

  /** @returns those whose every selector matches (T-4) */
  matching(attestation: Attestation): readonly Registration[] {
    if (attestation.kind === 'oidc') {
      const { attestor, claims } = attestation
      return (this.#buckets.get(oidcBucket(attestor)) ?? []).filter(({ oidc }) =>
        // Own members only: a claim that a token does not have is not there.
        oidc?.claims.entries().every(([name, matches]) => Object.hasOwn(claims, name) && matches(claims[name])),
      )
    }
    if (attestation.kind === 'federated') {
      const { trustDomain, spiffeId } = attestation
      return (this.#buckets.get(federatedBucket(trustDomain)) ?? []).filter(({ federated }) =>
        federated?.matches(spiffeId.toString()),
      )
    }
    const { cluster, namespace, serviceAccount, pod, selectors } = attestation
    return this.#near(cluster, namespace, serviceAccount.name)
      .filter(
        (registration) =>
          registration.selectors.every((selector) => selectors.has(selector)) &&
          (registration.podsOf === null || (pod !== null && isPodOf(pod.name, registration.podsOf))),
      )
      .toArray()
  }

  /** @returns pairs that could match one pod and give it different SPIFFE IDs: the first few that are found */
  overlaps(): [Registration, Registration][] {
    const templates = new Map(this.all.map((one) => [one, JSON.stringify(one.template.segments)]))
    const pairs: [Registration, Registration][] = []
    let steps = 0
    for (const registration of this.all)
      for (const cluster of new Set(registration.clusters))
        for (const other of this.#meeting(cluster, registration)) {
          if (++steps > MAX_STEPS || pairs.length === MAX_OVERLAPS) return pairs
          if (templates.get(registration) === templates.get(other) || !overlap(registration, other)) continue
          if (!pairs.some((pair) => pair.includes(registration) && pair.includes(other)))
            pairs.push([other, registration])
        }
    return pairs
  }

  /** Of each two registrations that one pod's namespace and service account can satisfy, one meets the other here. */
  *#meeting(cluster: string, registration: Registration): Generator<Registration> {
    const [namespace, serviceAccountName] = [demanded(registration, 'k8s:ns'), demanded(registration, 'k8s:sa')]
    yield* this.#near(cluster, namespace, serviceAccountName)
    if (namespace === null && serviceAccountName !== null) yield* this.#namespaceWide.get(cluster) ?? []
  }

  /** Those that demand this namespace and service account, or leave one of them open. */
  *#near(cluster: string, namespace: string | null, serviceAccountName: string | null): Generator<Registration> {
    const keys = new Set([
      bucket(cluster, namespace, serviceAccountName),
      bucket(cluster, namespace, null),
      bucket(cluster, null, serviceAccountName),
      bucket(cluster, null, null),
    ])
    for (const key of keys) yield* this.#buckets.get(key) ?? []
  }
}

/** A cluster's begins with the name of the cluster, which holds no colon. */
function oidcBucket(attestor: string): string {
  return `oidc: ${attestor}`
}

function federatedBucket(trustDomain: string): string {
  return `federated: ${trustDomain}`
}

/** None of the three can hold a blank. */
function bucket(cluster: string, namespace: string | null, serviceAccountName: string | null): string {
  return `${cluster} ${namespace ?? ''} ${serviceAccountName ?? ''}`
}

function add(lists: Map<string, Registration[]>, key: string, registration: Registration): void {
  const list = lists.get(key)
  if (list) list.push(registration)
  else lists.set(key, [registration])
}

/** Whether nothing keeps two registrations of a cluster from matching the same pod, for SVIDs of one type. */
function overlap(one: Registration, other: Registration): boolean {
  if (one.podsOf !== null && other.podsOf !== null && one.podsOf !== other.podsOf) return false
  if (!one.svidTypes.some((type) => other.svidTypes.includes(type))) return false
  const facts = new Map(one.selectors.map(factOf))
  return other.selectors.map(factOf).every(([name, value]) => (facts.get(name) ?? value) === value)
}

/** A selector as what is demanded, of which a pod has one, and its value. */
function factOf(selector: string): [name: string, value: string] {
  const [name = ''] = /^k8s:(?:pod-label:[^:]*|[^:]*)/.exec(selector) ?? []
  return [name, selector.slice(name.length)]
}
