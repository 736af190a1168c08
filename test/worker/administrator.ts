/** An administrator with a key of their own, and what their command line does with it. */

import { thumbprint } from '../../keys/jwks.ts'
import type { ApplyRequest } from '../../worker/administer.ts'
import { makeTokenKey, signToken, type TokenKey } from '../support/tokens.ts'
import type { TestIssuer } from './issuer.ts'

export class Administrator {
  readonly #key: TokenKey
  readonly #name: string

  private constructor(name: string, key: TokenKey) {
    this.#name = name
    this.#key = key
  }

  static async create(name = 'alice'): Promise<Administrator> {
    return new Administrator(name, await makeTokenKey('ES256'))
  }

  /** As the manifest names them. */
  get object(): object {
    const { kty, crv, x, y } = this.#key.publicJwk
    return {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Admin',
      metadata: { name: this.#name },
      spec: { publicKey: { kty, crv, x, y } },
    }
  }

  async token({ deps: { issuer, now } }: TestIssuer): Promise<string> {
    const claims = { iss: this.#name, sub: this.#name, aud: `${issuer}/admin`, iat: now(), exp: now() + 300 }
    return signToken({ alg: 'ES256', kid: await thumbprint(this.#key.publicJwk) }, claims, this.#key)
  }

  async list(issuer: TestIssuer): Promise<Listed> {
    const headers = { authorization: `Bearer ${await this.token(issuer)}` }
    return (await issuer.fetch('/admin/v1/objects', { headers })).json()
  }

  async get(issuer: TestIssuer, path: string): Promise<Response> {
    return issuer.fetch(path, { headers: { authorization: `Bearer ${await this.token(issuer)}` } })
  }

  /** @param body an object to be sent as JSON, or anything as it is */
  async send(
    issuer: TestIssuer,
    body: BodyInit | object,
    headers: Record<string, string> = {},
    path = '/admin/v1/apply',
  ): Promise<Response> {
    const asIs = typeof body === 'string' || body instanceof Uint8Array || body instanceof ReadableStream
    return issuer.fetch(path, {
      method: 'POST',
      body: asIs ? (body as BodyInit) : JSON.stringify(body),
      headers: {
        authorization: `Bearer ${await this.token(issuer)}`,
        'content-type': 'application/json',
        ...headers,
      },
    })
  }

  /** @returns the status and the answer */
  async apply(issuer: TestIssuer, request: Partial<ApplyRequest>): Promise<[number, Applied]> {
    const answer = await this.send(issuer, request)
    return [answer.status, await answer.json()]
  }
}

export interface Listed {
  readonly version: number
  readonly objects: readonly {
    readonly object: { kind: string; metadata: { name: string } }
    readonly source: string
    readonly status: string
    readonly reason: string | null
  }[]
}

export interface Applied {
  readonly version?: number
  readonly dryRun?: boolean
  readonly changes?: readonly { kind: string; name: string; action: string; before: object; after: object }[]
  readonly warnings?: readonly string[]
  readonly error?: string
  readonly problems?: readonly string[]
}
