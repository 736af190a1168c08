/** A client of Vault's as it is on the wire, with an issuer that has a cluster, its API server and an administrator. */

import type { FakeCluster } from '../support/cluster.ts'
import { FakeApiServer } from '../support/kube_api.ts'
import { Administrator } from './administrator.ts'
import { TestIssuer } from './issuer.ts'

/** 32 octets, in base64. */
export const VAULT_TOKEN_KEY = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='
export const KUBERNETES_HOST = 'https://10.0.0.1:6443'

export function vaultObject(kind: 'VaultMount' | 'VaultRole' | 'VaultOIDCRole', name: string, spec: object): object {
  return { apiVersion: 'spiffe-edge.io/v1alpha1', kind, metadata: { name }, spec }
}

export interface VaultResponse {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: whatever Vault's clients read
  readonly body: any
}

export interface VaultRequest {
  readonly token?: string | null
  readonly headers?: Readonly<Record<string, string>>
  readonly address?: string
}

export class VaultWorld {
  readonly api: FakeApiServer
  readonly issuer: TestIssuer
  readonly admin: Administrator

  private constructor(api: FakeApiServer, issuer: TestIssuer, admin: Administrator) {
    this.api = api
    this.issuer = issuer
    this.admin = admin
  }

  /** @param spec laid over the cluster's record, which has a connection */
  static async create(
    cluster: FakeCluster,
    spec: object = {},
    objects: readonly object[] = [],
    variables: object = {},
  ): Promise<VaultWorld> {
    const api = new FakeApiServer(cluster)
    const admin = await Administrator.create()
    const record = cluster.record({ connection: { url: KUBERNETES_HOST, binding: 'CLUSTER_EAST' }, ...spec })
    const issuer = new TestIssuer([record, admin.object, ...objects], {
      CLUSTER_EAST: api,
      VAULT_TOKEN_KEY,
      ...variables,
    })
    return new VaultWorld(api, issuer, admin)
  }

  /** @param body an object for JSON, or a text as it is */
  async ask(method: string, path: string, body?: unknown, request: VaultRequest = {}): Promise<VaultResponse> {
    const { token = null, headers = {}, address = '192.0.2.7' } = request
    const init = {
      method,
      headers: { ...(token !== null && { 'x-vault-token': token }), ...headers },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      cf: { clientIp: `${address}:4711` },
    }
    const response = await this.issuer.app.fetch(new Request(`${this.issuer.deps.issuer}/v1/${path}`, init))
    const text = new TextDecoder().decode(await response.arrayBuffer())
    const { status, headers: answered } = response
    return { status, headers: answered, body: text.startsWith('{') ? JSON.parse(text) : text }
  }

  /** The same as the administrator. */
  async manage(method: string, path: string, body?: unknown): Promise<VaultResponse> {
    return this.ask(method, path, body, { token: await this.admin.token(this.issuer) })
  }

  /** @param role laid over one that everybody may log in with */
  async setUp(role: object = {}, config: object = {}): Promise<void> {
    await this.manage('POST', 'sys/auth/kubernetes', { type: 'kubernetes' })
    await this.manage('PUT', 'auth/kubernetes/config', { kubernetes_host: KUBERNETES_HOST, ...config })
    const everybody = { bound_service_account_names: '*', bound_service_account_namespaces: '*', token_ttl: '1h' }
    const written = await this.manage('PUT', 'auth/kubernetes/role/demo', { ...everybody, ...role })
    if (written.status >= 300) throw new TypeError(JSON.stringify(written.body))
  }

  async login(jwt: string, role = 'demo', request: VaultRequest = {}): Promise<VaultResponse> {
    return this.ask('POST', 'auth/kubernetes/login', { role, jwt }, request)
  }

  /** @returns the token of a login that must not fail */
  async logIn(jwt: string, role = 'demo'): Promise<string> {
    const { status, body } = await this.login(jwt, role)
    if (status !== 200) throw new TypeError(JSON.stringify(body))
    return body.auth.client_token
  }
}
