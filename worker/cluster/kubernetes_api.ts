/**
 * The Kubernetes API as we use it: six calls, to one API server, as one user. The answers are read into types that hold
 * nothing else than what is used.
 *
 * A name from a token becomes a segment of a path only if Kubernetes itself could have given it.
 *
 * @see [Kubernetes API](https://kubernetes.io/docs/reference/kubernetes-api/)
 */

import * as z from 'zod/mini'
import { FetchError, type FetchErrorCode, type FetchOptions, fetchJson, type HttpService } from '../fetch_json.ts'
import { type Cluster, type Connection, KUBERNETES_NAME } from '../policy/cluster.ts'
import { Refusal } from '../refusal.ts'
import {
  type ReviewerDeps,
  ReviewerError,
  type ReviewerToken,
  reviewerId,
  reviewerToken,
  reviewerUsername,
} from './reviewer.ts'

/** Objects of a page: small enough that their JSON keeps within what an answer may be long. */
const PAGE_SIZE = 250
/** Ten thousand registrations are more than a manifest of any size we know. */
const MAX_PAGES = 40

/** A DNS label, where {@link KUBERNETES_NAME} may be a subdomain. */
const NAMESPACE = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Why there is no answer. `malformed` is an object that is not what was asked for, `name` one that cannot exist, and
 * `reviewer` says that there was no token to call with.
 */
export type KubernetesApiErrorCode = FetchErrorCode | 'malformed' | 'name' | 'reviewer'

/** Thrown by every call. The message is for the operator: it names cluster, call and cure, and holds no token or answer. */
export class KubernetesApiError extends Error {
  override readonly name = 'KubernetesApiError'
  readonly code: KubernetesApiErrorCode
  /** HTTP status, where there was an answer. */
  readonly status: number | null

  constructor(code: KubernetesApiErrorCode, status: number | null, message: string) {
    super(message)
    this.code = code
    this.status = status
  }
}

const Text = z.string()
const Labels = z._default(z.record(Text, Text), {})

/** @see [TokenReview](https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/) */
const TokenReview = z.object({
  status: z.object({
    authenticated: z._default(z.boolean(), false),
    user: z._default(
      z.object({
        username: z._default(Text, ''),
        uid: z._default(Text, ''),
        extra: z._default(z.record(Text, z.array(Text)), {}),
      }),
      { username: '', uid: '', extra: {} },
    ),
    audiences: z._default(z.array(Text), []),
    error: z._default(Text, ''),
  }),
})
const Pod = z.object({
  metadata: z.object({ uid: Text, labels: Labels }),
  spec: z.object({ nodeName: z._default(Text, '') }),
  status: z._default(z.object({ hostIP: z._default(Text, '') }), { hostIP: '' }),
})
const Node = z.object({ metadata: z.object({ uid: z._default(Text, ''), labels: Labels }) })
const Namespace = z.object({ metadata: z.object({ labels: Labels }) })
const Jwks = z.object({ keys: z.array(z.unknown()) })
const List = z.object({
  metadata: z.object({ continue: z._default(Text, '') }),
  items: z.array(z.unknown()),
})

export type TokenReviewStatus = z.infer<typeof TokenReview>['status']
export type Pod = z.infer<typeof Pod>
export type Node = z.infer<typeof Node>
export type Namespace = z.infer<typeof Namespace>

/** When to give up, and the token that is being reviewed, which a reviewer of the kind `client` shows. */
export interface CallOptions {
  readonly signal?: AbortSignal
  readonly reviewed?: string
}

/** All methods throw {@link KubernetesApiError}. */
export class KubernetesApi {
  readonly #cluster: Cluster
  readonly #origin: string
  readonly #through: HttpService | null
  readonly #token: ReviewerToken
  readonly #deps: ReviewerDeps

  /** @throws TypeError if the record's binding is none that reaches a host: configuration has been checked before */
  constructor(cluster: Cluster, { url, binding }: Connection, deps: ReviewerDeps) {
    const through = binding === null ? null : deps.bindings.get(binding)
    if (through === undefined || typeof through === 'string') throw new TypeError(`no such binding as ${binding}`)
    this.#cluster = cluster
    this.#origin = url.replace(/\/$/, '')
    this.#through = through
    this.#token = reviewerToken(cluster, deps)
    this.#deps = deps
  }

  /**
   * @param audiences that the token must be good for one of; none is the API server's own
   * @see TR-1, TR-2
   */
  async reviewToken(token: string, audiences: readonly string[], signal?: AbortSignal): Promise<TokenReviewStatus> {
    const post = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token, ...(audiences.length > 0 && { audiences }) },
    }
    const options = { reviewed: token, ...(signal && { signal }) }
    const path = '/apis/authentication.k8s.io/v1/tokenreviews'
    return (await this.#call('create tokenreviews', TokenReview, path, options, post)).status
  }

  /** @returns null if there is no such pod */
  async getPod(namespace: string, name: string, options: CallOptions = {}): Promise<Pod | null> {
    if (!NAMESPACE.test(namespace) || !KUBERNETES_NAME.test(name)) throw this.#error('name', null, 'get pods')
    return this.#find('get pods', Pod, `/api/v1/namespaces/${namespace}/pods/${name}`, options)
  }

  /** @returns null if there is no such node */
  async getNode(name: string, options: CallOptions = {}): Promise<Node | null> {
    if (!KUBERNETES_NAME.test(name)) throw this.#error('name', null, 'get nodes')
    return this.#find('get nodes', Node, `/api/v1/nodes/${name}`, options)
  }

  /** @returns null if there is no such namespace */
  async getNamespace(name: string, options: CallOptions = {}): Promise<Namespace | null> {
    if (!NAMESPACE.test(name)) throw this.#error('name', null, 'get namespaces')
    return this.#find('get namespaces', Namespace, `/api/v1/namespaces/${name}`, options)
  }

  /** @returns the `keys` of the JWK Set that service account tokens are signed by, not looked into yet */
  async getJwks(signal?: AbortSignal): Promise<readonly unknown[]> {
    return (await this.#call('get /openid/v1/jwks', Jwks, '/openid/v1/jwks', signal ? { signal } : {})).keys
  }

  /** @returns every WorkloadRegistration of kubespiffe's, not looked into yet */
  async listWorkloadRegistrations(): Promise<readonly unknown[]> {
    const action = 'list workloadregistrations.kubespiffe.io'
    const items: unknown[] = []
    const query = new URLSearchParams({ limit: String(PAGE_SIZE) })
    for (let page = 0; page < MAX_PAGES; page++) {
      const path = `/apis/kubespiffe.io/v1alpha1/workloadregistrations?${query}`
      const list = await this.#call(action, List, path, {})
      items.push(...list.items)
      if (list.metadata.continue === '') return items
      query.set('continue', list.metadata.continue)
    }
    throw this.#error('too_large', null, action)
  }

  async #find<T>(action: string, shape: z.ZodMiniType<T>, path: string, options: CallOptions): Promise<T | null> {
    try {
      return await this.#call(action, shape, path, options)
    } catch (error) {
      if (error instanceof KubernetesApiError && error.status === 404) return null
      throw error
    }
  }

  async #call<T>(
    action: string,
    shape: z.ZodMiniType<T>,
    path: string,
    { signal, reviewed }: CallOptions,
    post?: object,
  ): Promise<T> {
    let answer: Record<string, unknown>
    try {
      const bearer = await this.#token(reviewed ?? null)
      const options: FetchOptions = { signal, post, bearer, through: this.#through }
      answer = await fetchJson(this.#origin + path, options)
    } catch (error) {
      if (error instanceof FetchError) throw this.#error(error.code, error.status, action)
      if (error instanceof ReviewerError) throw this.#error('reviewer', null, action, error.message)
      if (error instanceof Refusal) throw this.#error('reviewer', null, action, `${error.reason}: ${error.detail}`)
      throw error
    }
    const { success, data } = shape.safeParse(answer)
    if (!success) throw this.#error('malformed', null, action)
    return data
  }

  #error(code: KubernetesApiErrorCode, status: number | null, action: string, why = this.#cure(status)) {
    const what = code === 'status' ? status : code
    const message = `cluster ${this.#cluster.name}: ${what} on ${action}${why === '' ? '' : `: ${why}`}`
    return new KubernetesApiError(code, status, message)
  }

  /** What the operator has left to do. */
  #cure(status: number | null): string {
    const { name, reviewer } = this.#cluster
    const itself = reviewer.by === 'self'
    if (status === 403) {
      const user = itself
        ? `${reviewerId(this.#deps.trustDomain, name)} (${reviewerUsername(name)} with the mapping service-account)`
        : 'the user of the token'
      return `bind the ClusterRole of deploy/kubernetes to ${user}`
    }
    if (status === 401)
      return itself
        ? `its apiserver needs the AuthenticationConfiguration of /structured-auth.yaml?cluster=${name}`
        : 'the token is not valid there'
    return ''
  }
}
