/** Registrations by what nearly all of them demand, so that a request looks at a few of ten thousand. */

import type { Attestation } from '../attest/attestation.ts'
import { demanded, isPodOf, type Registration } from './registration.ts'

/** More say no more. */
const MAX_OVERLAPS = 20

export class RegistrationIndex {
  readonly all: readonly Registration[]
  /** By cluster, and by namespace and service account where a registration demands them. */
  readonly #buckets = new Map<string, Registration[]>()

  constructor(registrations: readonly Registration[]) {
    this.all = registrations
    for (const registration of registrations)
      for (const key of keysOf(registration)) {
        const registered = this.#buckets.get(key)
        if (registered) registered.push(registration)
        else this.#buckets.set(key, [registration])
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
    const { cluster, namespace, serviceAccount, pod, selectors } = attestation
    return this.#near(cluster, namespace, serviceAccount.name).filter(
      (registration) =>
        registration.selectors.every((selector) => selectors.has(selector)) &&
        (registration.podsOf === null || (pod !== null && isPodOf(pod.name, registration.podsOf))),
    )
  }

  /** @returns the pairs that could match one pod and give it different SPIFFE IDs */
  overlaps(): [Registration, Registration][] {
    const pairs: [Registration, Registration][] = []
    for (const registration of this.all)
      for (const cluster of registration.clusters) {
        const near = this.#near(cluster, demanded(registration, 'k8s:ns'), demanded(registration, 'k8s:sa'))
        for (const other of near)
          if (
            pairs.length < MAX_OVERLAPS &&
            other !== registration &&
            overlap(registration, other) &&
            !pairs.some((pair) => isPair(pair, registration, other))
          )
            pairs.push([other, registration])
      }
    return pairs
  }

  /** Those that demand this namespace and service account, or leave one of them open. */
  #near(cluster: string, namespace: string | null, serviceAccountName: string | null): Registration[] {
    const keys = new Set([
      bucket(cluster, namespace, serviceAccountName),
      bucket(cluster, namespace, null),
      bucket(cluster, null, serviceAccountName),
      bucket(cluster, null, null),
    ])
    return [...keys].flatMap((key) => this.#buckets.get(key) ?? [])
  }
}

/** Every place where a registration is kept. */
function keysOf(registration: Registration): string[] {
  const { oidc, clusters } = registration
  if (oidc) return [oidcBucket(oidc.attestor)]
  const [namespace, serviceAccountName] = [demanded(registration, 'k8s:ns'), demanded(registration, 'k8s:sa')]
  return clusters.map((cluster) => bucket(cluster, namespace, serviceAccountName))
}

/** A cluster's begins with the name of the cluster, which holds no colon. */
function oidcBucket(attestor: string): string {
  return `oidc: ${attestor}`
}

/** None of the three can hold a blank. */
function bucket(cluster: string, namespace: string | null, serviceAccountName: string | null): string {
  return `${cluster} ${namespace ?? ''} ${serviceAccountName ?? ''}`
}

/** Whether nothing keeps two registrations of a bucket from matching the same pod and naming it differently. */
function overlap(one: Registration, other: Registration): boolean {
  const podsDiffer = one.podsOf !== null && other.podsOf !== null && one.podsOf !== other.podsOf
  return !podsDiffer && JSON.stringify(one.template.segments) !== JSON.stringify(other.template.segments)
}

function isPair(pair: readonly Registration[], one: Registration, other: Registration): boolean {
  return pair.includes(one) && pair.includes(other)
}
