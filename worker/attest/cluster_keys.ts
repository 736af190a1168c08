/**
 * The public keys of one cluster: written into its record, or fetched from where the record says and kept.
 *
 * A token decides nothing about what is fetched. Its issuer has been looked up before anything here is called, and its
 * `kid` can at most bring a planned fetch forward.
 */

import { type IssuerKey, type KeySet, KeySetError, keyMark, readKeySet } from '../../keys/key_set.ts'
import { type KubernetesApi, KubernetesApiError } from '../cluster/kubernetes_api.ts'
import { FETCH_TIMEOUT_MS, FetchError } from '../fetch_json.ts'
import { discoverJwksUri, fetchJwks } from '../oidc/relying_party.ts'
import { CLUSTER_ALGORITHMS, type Cluster } from '../policy/cluster.ts'
import { Refusal } from '../refusal.ts'
import { SharedCall } from '../shared_call.ts'

/** After this a set is renewed in the background while it goes on being used. */
const FRESH_SECONDS = 300
/** After this it is renewed before it is used again, so that a key which its cluster has dropped is not taken for long. */
const STALE_SECONDS = 3600
/** How long a set is good without its source. Issuing goes on while a cluster's API server is down (D6), but not for ever. */
const USABLE_SECONDS = 86_400
/** At most one fetch in this time, whatever tokens come: a forged `kid` must not turn us on the cluster. */
const COOLDOWN_SECONDS = 30
/** The same while nothing is known of the cluster yet, so that one lost packet does not cost half a minute. */
const FIRST_COOLDOWN_SECONDS = 5

/** What the outside world is to this module. */
export interface ClusterKeysDeps {
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
  /** Operator's log: one flat object, no secrets. */
  log(event: object): void
  readonly allowLoopbackHttp: boolean
  readonly claims: KeyClaims
}

/**
 * Which cluster speaks with which key. One key speaks for one cluster: if two had it, each could speak for the other (T-3).
 *
 * A public key can be written into any set, so a set proves nothing. What proves a key is a token that was signed with it,
 * or the operator, who has written it into a record (docs/adr/0003).
 */
export class KeyClaims {
  readonly #claimed = new Map<string, Set<string>>()

  /** @returns the name of the cluster that the key is, which is `cluster` if nobody has claimed it before */
  claim(cluster: string, mark: string): string {
    const owner = this.otherOwner(cluster, [mark])
    if (owner !== null) return owner
    const own = this.#claimed.get(cluster)
    if (own) own.add(mark)
    else this.#claimed.set(cluster, new Set([mark]))
    return cluster
  }

  /** @returns the name of another cluster that has claimed one of the keys, or null */
  otherOwner(cluster: string, marks: Iterable<string>): string | null {
    const wanted = new Set(marks)
    for (const [other, claimed] of this.#claimed) if (other !== cluster && !claimed.isDisjointFrom(wanted)) return other
    return null
  }

  /** Gives up every claim of clusters that there are no more. */
  keepOnly(clusters: ReadonlySet<string>): void {
    for (const cluster of this.#claimed.keys()) if (!clusters.has(cluster)) this.#claimed.delete(cluster)
  }

  /** Gives up every claim of `cluster` but those on `marks`. */
  retain(cluster: string, marks: Iterable<string>): void {
    const claimed = this.#claimed.get(cluster)
    if (claimed) this.#claimed.set(cluster, claimed.intersection(new Set(marks)))
  }
}

/** Whose keys they are, and where. */
export type KeyOwner = Pick<Cluster, 'name' | 'issuer' | 'keySource'>

export class ClusterKeys {
  readonly #cluster: KeyOwner
  readonly #deps: ClusterKeysDeps
  readonly #api: KubernetesApi | null
  readonly #refreshing = new SharedCall<void>()
  #set: { readonly keys: KeySet; readonly fetchedAt: number } | null = null
  #attemptedAt = Number.NEGATIVE_INFINITY

  /** @param api of the cluster, where its keys are to be had nowhere else */
  constructor(cluster: KeyOwner, deps: ClusterKeysDeps, api: KubernetesApi | null = null) {
    this.#cluster = cluster
    this.#deps = deps
    this.#api = api
    // What a former record of that name has claimed, it has claimed with other keys.
    deps.claims.retain(cluster.name, [])
    // What is written into a record is that cluster's, whoever comes first with another set (T-3).
    if (cluster.keySource.from === 'inline')
      for (const jwk of cluster.keySource.keys) deps.claims.claim(cluster.name, keyMark(jwk))
  }

  /**
   * @returns the key with that `kid`, or null if the cluster has none
   * @throws Refusal `cluster_keys_unavailable` if nothing usable is known of the cluster's keys
   */
  async find(kid: string): Promise<IssuerKey | null> {
    const age = this.#age()
    if (age > STALE_SECONDS || !this.#set?.keys.has(kid)) await this.#refresh()
    else if (age > FRESH_SECONDS) this.#deps.waitUntil(this.#refresh())
    if (!this.#set || this.#age() > USABLE_SECONDS)
      throw new Refusal('cluster_keys_unavailable', `no keys of cluster ${this.#cluster.name}`, FIRST_COOLDOWN_SECONDS)
    return this.#set.keys.get(kid) ?? null
  }

  /**
   * Takes a key as this cluster's own, on the evidence of a token of this cluster that was signed with it.
   *
   * @throws Refusal `token_key` if it has been proven to be another cluster's
   */
  prove({ mark }: IssuerKey): void {
    const owner = this.#deps.claims.claim(this.#cluster.name, mark)
    if (owner !== this.#cluster.name) throw new Refusal('token_key', `the key is that of cluster ${owner}`)
  }

  #age(): number {
    if (!this.#set) return Number.POSITIVE_INFINITY
    return this.#cluster.keySource.from === 'inline' ? 0 : this.#deps.now() - this.#set.fetchedAt
  }

  /** Never rejects: a source that fails leaves what is known as it was, and a line in the log. */
  async #refresh(): Promise<void> {
    if (this.#set && this.#cluster.keySource.from === 'inline') return
    const cooldown = this.#set ? COOLDOWN_SECONDS : FIRST_COOLDOWN_SECONDS
    const joining = this.#refreshing.underWay
    if (!joining && this.#deps.now() - this.#attemptedAt < cooldown) return
    await this.#refreshing.run(() => this.#load(), this.#deps.waitUntil)
  }

  async #load(): Promise<void> {
    try {
      const keys = await readKeySet(await this.#fetchKeySet(), CLUSTER_ALGORITHMS)
      const { name, keySource } = this.#cluster
      const marks = keys
        .values()
        .map(({ mark }) => mark)
        .toArray()
      if (this.#deps.claims.otherOwner(name, marks) !== null) throw new KeySetError('a key is another cluster’s')
      if (keySource.from !== 'inline') this.#deps.claims.retain(name, marks)
      this.#set = { keys, fetchedAt: this.#deps.now() }
    } catch (error) {
      const known = [FetchError, KubernetesApiError, KeySetError].some((kind) => error instanceof kind)
      const reason = known ? (error as Error).message : 'internal'
      this.#deps.log({ event: 'cluster_keys_refused', cluster: this.#cluster.name, reason })
    } finally {
      this.#attemptedAt = this.#deps.now()
    }
  }

  async #fetchKeySet(): Promise<readonly unknown[]> {
    const { keySource, issuer } = this.#cluster
    if (keySource.from === 'inline') return keySource.keys
    // One deadline for both steps: who has joined this call waits for one (T-18).
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    if (keySource.from === 'connection') {
      if (!this.#api) throw new KeySetError('there is no connection to ask for keys')
      return this.#api.getJwks(signal)
    }
    if (keySource.from === 'url') return fetchJwks(keySource.url, signal)
    return fetchJwks(await discoverJwksUri(issuer, this.#deps.allowLoopbackHttp, signal), signal)
  }
}
