/**
 * What a cluster's API server says of a token that has been verified already, and of the pod that it is bound to: whether
 * both are still alive. Offline verification comes first, always, so no forged token ever gets here, and `iss` has been
 * proven to be that cluster's (T-6).
 *
 * @see [TokenReview](https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/)
 */

import { type KubernetesApi, KubernetesApiError, type TokenReviewStatus } from '../cluster/kubernetes_api.ts'
import { FETCH_TIMEOUT_MS } from '../fetch_json.ts'
import type { Cluster } from '../policy/cluster.ts'
import { Refusal } from '../refusal.ts'
import { SharedCalls } from '../shared_call.ts'

/** How long a yes is kept, and so how much later than its API server we may learn of a pod's end. */
export const KEPT_SECONDS = 10
/** Tokens that a yes is kept for. A pod has one in use, so this is ten thousand pods that ask within ten seconds. */
const MAX_KEPT = 10_000
/** Reviews under way at a time, of one isolate at one API server. Who comes later is told to come again. */
const MAX_UNDER_WAY = 64
const RETRY_AFTER_SECONDS = 2

const USERNAME = /^system:serviceaccount:([^:]+):([^:]+)$/
const EXTRA = 'authentication.kubernetes.io/'

const encoder = new TextEncoder()

/** What a verified service account token says. */
export interface TokenFacts {
  readonly namespace: string
  readonly serviceAccount: { readonly name: string; readonly uid: string }
  readonly pod: { readonly name: string; readonly uid: string } | null
  readonly node: { readonly name: string; readonly uid: string | null } | null
}

/** What only the API server knows of a pod. */
export interface LivePod {
  /** null while it has not been scheduled. */
  readonly nodeName: string | null
  readonly hostIP: string | null
  /** Those whose keys the cluster's record allows. */
  readonly labels: Readonly<Record<string, string>>
}

export interface LiveNode {
  readonly uid: string
  readonly labels: Readonly<Record<string, string>>
}

/** What the outside world is to this module. */
export interface TokenReviewsDeps {
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
}

/** The reviews of one cluster. */
export class TokenReviews {
  readonly #cluster: Cluster
  readonly #api: KubernetesApi
  readonly #deps: TokenReviewsDeps
  /** By the token's SHA-256 and what it had to be made out to, oldest first. */
  readonly #kept = new Map<string, { readonly pod: LivePod | null; readonly until: number }>()
  readonly #underWay = new SharedCalls<LivePod | null>()

  constructor(cluster: Cluster, api: KubernetesApi, deps: TokenReviewsDeps) {
    this.#cluster = cluster
    this.#api = api
    this.#deps = deps
  }

  /**
   * @param facts what `token` says, verified
   * @param audiences one of which it must be good for; none of them means the API server's own
   * @returns its pod, or null if it is bound to none
   * @throws Refusal
   */
  async review(token: string, facts: TokenFacts, audiences: readonly string[]): Promise<LivePod | null> {
    const digest = await crypto.subtle.digest('SHA-256', encoder.encode(token))
    // A yes at one door is none at another, whose tokens are made out to others (T-6). No audience has a blank in it.
    const key = [new Uint8Array(digest).toBase64(), ...audiences].join(' ')
    const kept = this.#kept.get(key)
    if (kept && this.#deps.now() < kept.until) return kept.pod
    if (!this.#underWay.isUnderWay(key) && this.#underWay.size >= MAX_UNDER_WAY)
      throw unavailable(`cluster ${this.#cluster.name}: ${MAX_UNDER_WAY} reviews are under way`)
    return this.#underWay.run(key, () => this.#ask(token, facts, audiences, key), this.#deps.waitUntil)
  }

  /**
   * Asks whether a pod is still there that was when its token was reviewed.
   *
   * @throws Refusal
   */
  async confirmPod({ namespace, pod, node }: TokenFacts): Promise<void> {
    if (!pod) throw new Refusal('token_unbound', 'bound to no pod')
    const key = ['pod', namespace, pod.name, pod.uid].join(' ')
    if (!this.#underWay.isUnderWay(key) && this.#underWay.size >= MAX_UNDER_WAY)
      throw unavailable(`cluster ${this.#cluster.name}: ${MAX_UNDER_WAY} reviews are under way`)
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    await this.#underWay.run(key, () => this.#findPod(namespace, pod, node, { signal }), this.#deps.waitUntil)
  }

  /**
   * @param facts of a token that has been verified
   * @param reviewed the token, for a reviewer that shows it; null where it is not at hand
   * @returns the labels of its namespace; null where there is no such namespace
   * @throws Refusal
   */
  async findNamespace(
    { namespace }: TokenFacts,
    reviewed: string | null,
  ): Promise<Readonly<Record<string, string>> | null> {
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    const found = await this.#asking(() =>
      this.#api.getNamespace(namespace, { ...(reviewed !== null && { reviewed }), signal }),
    )
    return found?.metadata.labels ?? null
  }

  /**
   * @param facts of a token that has been reviewed
   * @returns the node that its pod is on
   * @throws Refusal
   */
  async findNode({ node }: TokenFacts, nodeName: string | null, reviewed: string): Promise<LiveNode> {
    const name = nodeName ?? ''
    if (name === '') throw new Refusal('node_unknown', 'the pod is on no node')
    const found = await this.#asking(() => this.#api.getNode(name, { reviewed }))
    if (!found) throw new Refusal('node_unknown', 'there is no such node')
    const { uid, labels } = found.metadata
    if (uid === '') throw new Refusal('node_uid_missing', `cluster ${this.#cluster.name}: a node without UID`)
    // Another machine, or the same one under a new registration: either way not what the token was made out for.
    if (node && node.uid !== null && node.uid !== uid) throw new Refusal('node_unknown', 'another node of that name')
    return { uid, labels: allowed(labels, this.#cluster.allowedNodeLabelKeys) }
  }

  async #ask(token: string, facts: TokenFacts, audiences: readonly string[], key: string): Promise<LivePod | null> {
    const askedAt = this.#deps.now()
    // One deadline for both steps: who has joined this call waits for one (T-18).
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    const status = await this.#asking(() => this.#api.reviewToken(token, audiences, signal))
    checkReview(status, facts, audiences)
    const pod = facts.pod && (await this.#findPod(facts.namespace, facts.pod, facts.node, { reviewed: token, signal }))
    this.#keep(key, { pod, until: askedAt + KEPT_SECONDS })
    return pod
  }

  async #findPod(
    namespace: string,
    { name, uid }: { name: string; uid: string },
    node: TokenFacts['node'],
    options: { reviewed?: string; signal: AbortSignal },
  ): Promise<LivePod> {
    const pod = await this.#asking(() => this.#api.getPod(namespace, name, options))
    if (!pod) throw new Refusal('pod_gone', 'there is no such pod')
    if (pod.metadata.uid !== uid) throw new Refusal('pod_replaced', 'another pod of that name')
    const { nodeName } = pod.spec
    // A pod never moves.
    if (node && node.name !== nodeName) throw new Refusal('token_review_pod', 'the pod is on another node')
    return {
      nodeName: nodeName === '' ? null : nodeName,
      hostIP: pod.status.hostIP === '' ? null : pod.status.hostIP,
      labels: allowed(pod.metadata.labels, this.#cluster.allowedPodLabelKeys),
    }
  }

  /** @throws Refusal in the place of a KubernetesApiError */
  async #asking<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      if (!(error instanceof KubernetesApiError)) throw error
      if (error.code === 'name') throw new Refusal('token_claims', error.message)
      // The token is its own reviewer here, so it is not the API server that is at fault.
      if (error.status === 401 && this.#cluster.reviewer.by === 'client')
        throw new Refusal('token_not_live', 'not taken as a bearer token')
      throw unavailable(error.message)
    }
  }

  #keep(key: string, entry: { readonly pod: LivePod | null; readonly until: number }): void {
    this.#kept.delete(key)
    const [oldest] = this.#kept.keys()
    if (oldest !== undefined && this.#kept.size >= MAX_KEPT) this.#kept.delete(oldest)
    this.#kept.set(key, entry)
  }
}

/**
 * An API server that says yes must say yes to this token: made out to one of the audiences, of this service account, bound
 * to this pod. Anything else is another's word, or a lie.
 *
 * @param audiences that were asked for; with none of them the API server's own was meant, whatever it calls itself (TR-2)
 * @throws Refusal
 */
function checkReview(status: TokenReviewStatus, facts: TokenFacts, audiences: readonly string[]): void {
  const { authenticated, user } = status
  if (!authenticated) throw new Refusal('token_not_live', 'not authenticated by TokenReview')
  if (status.error !== '') throw new Refusal('token_review_user', 'authenticated, and an error')
  if (audiences.length > 0 && !audiences.some((audience) => status.audiences.includes(audience)))
    throw new Refusal('token_review_audience', 'status.audiences has none of the audiences that were asked for')
  const { namespace, serviceAccount, pod } = facts
  const [, ofNamespace, name] = USERNAME.exec(user.username) ?? []
  if (ofNamespace !== namespace || name !== serviceAccount.name)
    throw new Refusal('token_review_user', 'status.user is another user')
  if (user.uid !== serviceAccount.uid)
    throw new Refusal('token_review_user', 'status.user is another service account of that name')
  for (const [extra, expected] of [
    ['pod-name', pod?.name],
    ['pod-uid', pod?.uid],
  ] as const) {
    const values = Object.hasOwn(user.extra, EXTRA + extra) ? (user.extra[EXTRA + extra] ?? []) : []
    if (expected === undefined ? values.length > 0 : values.length !== 1 || values[0] !== expected)
      throw new Refusal('token_review_pod', `${extra} is not just that of the token`)
  }
}

function allowed(labels: Readonly<Record<string, string>>, keys: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    [...new Set(keys)].flatMap((key) => (Object.hasOwn(labels, key) ? [[key, labels[key] as string]] : [])),
  )
}

function unavailable(detail: string): Refusal {
  return new Refusal('cluster_api_unavailable', detail, RETRY_AFTER_SECONDS)
}
