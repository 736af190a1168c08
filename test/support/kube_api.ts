/**
 * An API server as the worker sees it: TokenReview, pods, nodes, its own keys and registrations, with authentication and
 * authorization of who asks. It believes the claims of any token: what is forged must never get here.
 */

import type { HttpService } from '../../worker/fetch_json.ts'
import { type FakeCluster, POD } from './cluster.ts'

export interface ApiCall {
  readonly accept: string
  readonly method: string
  readonly url: string
  readonly bearer: string
  readonly body: Record<string, unknown> | null
}

/** What a test puts in the place of an answer; `undefined` leaves the answer as it is. */
export type Interference = (call: ApiCall, signal: AbortSignal) => Response | Promise<Response> | undefined

export const NODE_IP = '172.16.10.1'

export class FakeApiServer implements HttpService {
  readonly calls: ApiCall[] = []
  readonly pods = new Map<string, Record<string, unknown>>()
  readonly nodes = new Map<string, Record<string, unknown>>()
  /** Any other object, by the path of its URL. */
  readonly objects = new Map<string, Record<string, unknown>>()
  /** Usernames that RBAC allows everything here; null is everybody. */
  bound: Set<string> | null = null
  interfere: Interference = () => undefined
  /** What a TokenReview answers, made of what it should have answered. */
  lie: (status: Record<string, unknown>) => Record<string, unknown> = (status) => status
  registrations: unknown[] = []
  readonly #cluster: FakeCluster

  /** With the one pod that tests know, on its node. */
  constructor(cluster: FakeCluster) {
    this.#cluster = cluster
    this.addPod(POD.namespace, POD.pod)
    this.nodes.set(POD.node.name, {
      metadata: { name: POD.node.name, uid: POD.node.uid, labels: { zone: 'a', rack: '7' } },
    })
  }

  addPod(namespace: string, { name, uid }: { name: string; uid: string }, nodeName: string = POD.node.name): void {
    this.pods.set(`${namespace}/${name}`, {
      metadata: { namespace, name, uid, labels: { app: 'checkout', team: 'payments', secret: 'hidden' } },
      spec: { nodeName },
      status: { hostIP: NODE_IP },
    })
  }

  /** The last parts of what was asked for, oldest first. */
  get asked(): string[] {
    return this.calls.map(({ url }) => new URL(url).pathname.split('/').slice(-2).join('/'))
  }

  get reviews(): ApiCall[] {
    return this.calls.filter(({ url }) => url.endsWith('/tokenreviews'))
  }

  /** Bound, to be used as a binding. */
  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const request = new Request(url, init)
    request.signal.throwIfAborted()
    const body = request.body ? ((await request.json()) as Record<string, unknown>) : null
    const bearer = (request.headers.get('authorization') ?? '').replace(/^Bearer /, '')
    const accept = request.headers.get('accept') ?? ''
    const call = { accept, method: request.method, url, bearer, body }
    this.calls.push(call)
    return (await this.interfere(call, request.signal)) ?? this.#answer(call)
  }

  #answer({ accept, method, url, bearer, body }: ApiCall): Response {
    if (bearer === '') return Response.json({}, { status: 403 })
    if (this.bound && !this.bound.has(String(claimsOf(bearer)?.sub))) return Response.json({}, { status: 403 })
    const { pathname, searchParams } = new URL(url)
    if (method === 'POST' && pathname === '/apis/authentication.k8s.io/v1/tokenreviews')
      return Response.json({ status: this.lie(this.#review(body)) }, { status: 201 })
    if (method !== 'GET') return Response.json({}, { status: 405 })
    // The one path where the real one insists.
    if (pathname === '/openid/v1/jwks' && !accept.includes('application/jwk-set+json'))
      return new Response('', { status: 406 })
    if (pathname === '/openid/v1/jwks') return Response.json(this.#cluster.jwks())
    if (pathname === '/apis/kubespiffe.io/v1alpha1/workloadregistrations') return this.#list(searchParams)
    const pod = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)$/.exec(pathname)
    const node = /^\/api\/v1\/nodes\/([^/]+)$/.exec(pathname)
    const object = pod
      ? this.pods.get(`${pod[1]}/${pod[2]}`)
      : node
        ? this.nodes.get(node[1] as string)
        : this.objects.get(pathname)
    return object ? Response.json(object) : Response.json({ kind: 'Status', code: 404 }, { status: 404 })
  }

  #review(body: Record<string, unknown> | null): Record<string, unknown> {
    const { token, audiences } = (body?.spec ?? {}) as { token: string; audiences?: string[] }
    const claims = claimsOf(token)
    const { namespace, pod, serviceaccount } = claims?.['kubernetes.io'] ?? {}
    const known = this.pods.get(`${namespace}/${pod?.name}`)?.metadata as { uid?: string } | undefined
    const [aud] = (claims?.aud ?? []) as string[]
    if ((pod && known?.uid !== pod.uid) || (audiences && !audiences.includes(String(aud))))
      return { user: {}, error: '[invalid bearer token, service account token has been invalidated]' }
    return {
      authenticated: true,
      user: {
        username: claims?.sub,
        uid: serviceaccount.uid,
        groups: ['system:serviceaccounts'],
        ...(pod && {
          extra: {
            'authentication.kubernetes.io/pod-name': [pod.name],
            'authentication.kubernetes.io/pod-uid': [pod.uid],
          },
        }),
      },
      audiences: audiences ?? ['https://kubernetes.default.svc'],
    }
  }

  #list(query: URLSearchParams): Response {
    const start = Number(query.get('continue') ?? '0')
    const end = start + Number(query.get('limit'))
    const metadata = end < this.registrations.length ? { continue: String(end) } : {}
    return Response.json({ metadata, items: this.registrations.slice(start, end) })
  }
}

// biome-ignore lint/suspicious/noExplicitAny: claims of any shape
export function claimsOf(token: string): any {
  try {
    return JSON.parse(atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')))
  } catch {
    return null
  }
}
