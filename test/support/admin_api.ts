/**
 * The admin API as its contract has it, in this process. It is a fake: it keeps objects and compares them, and checks the
 * token's signature and claims, but it has no policy. What the worker refuses, a test puts into `answer`.
 */

import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import { importJWK, type JWTPayload, jwtVerify, type ProtectedHeaderParameters } from 'jose'
import { WorkerKeys } from './worker_keys.ts'

interface ManifestObject {
  apiVersion: string
  kind: string
  metadata: { name: string }
  spec: Record<string, unknown>
}

interface Stored {
  object: ManifestObject
  source: string
  status: string
  reason: string | null
}

interface ApplyRequest {
  objects: ManifestObject[]
  remove: { kind: string; name: string }[]
  dryRun: boolean
  ifVersion: number | null
}

interface ScriptedAnswer {
  status: number
  body?: unknown
  headers?: Record<string, string>
}

type Path =
  | 'objects'
  | 'apply'
  | 'revocations'
  | 'keys'
  | 'keys/rotate'
  | 'keys/revoke'
  | 'jwks'
  | 'bundle'
  | 'discovery'
  | FederationPath

/** Of other trust domains it knows what a test says. */
type FederationPath = 'federation' | 'federation/bundle' | 'federation/refresh'

export interface AdminApi {
  readonly issuer: string
  objects: Stored[]
  version: number
  warnings: string[]
  /** Its signing keys. The issuer's discovery document and JWKS are here too, for everybody. */
  readonly keys: WorkerKeys
  /** Answers the next requests for this path before they are looked at. */
  answer(path: Path, ...answers: ScriptedAnswer[]): void
  /** Every request to apply, oldest first. */
  readonly applied: ApplyRequest[]
  readonly paths: string[]
  readonly tokens: string[]
  /** What the token of the last request said. Undefined if it was none of the administrator's. */
  lastToken: { header: ProtectedHeaderParameters; claims: JWTPayload } | undefined
  /** Public JWK of the administrator; a request signed by another gets 401. Null takes any bearer. */
  admin: Record<string, unknown> | null
  stop(): Promise<void>
}

export function stored(kind: string, name: string, spec: Record<string, unknown> = {}, source = 'applied'): Stored {
  const apiVersion = kind === 'WorkloadRegistration' ? 'kubespiffe.io/v1alpha1' : 'spiffe-edge.io/v1alpha1'
  return { object: { apiVersion, kind, metadata: { name }, spec }, source, status: 'accepted', reason: null }
}

const NO_FEDERATION = { now: 1_795_000_000, trustDomains: [] }

export async function startAdminApi(): Promise<AdminApi> {
  const scripts: Partial<Record<Path, ScriptedAnswer[]>> = {}
  const server = createServer(async (request, response) => {
    const { status, body, headers = {} } = await respond(request)
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body ?? {}))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const api: AdminApi = {
    issuer,
    objects: [],
    version: 7,
    warnings: [],
    keys: new WorkerKeys(
      () => issuer,
      () => {
        const clusters = api.objects.map(({ object }) => object).filter(({ kind }) => kind === 'Cluster')
        return [...new Set(clusters.map(({ metadata }) => metadata.name))]
      },
    ),
    applied: [],
    paths: [],
    tokens: [],
    lastToken: undefined,
    admin: null,
    answer: (path, ...answers) => {
      scripts[path] = [...(scripts[path] ?? []), ...answers]
    },
    stop: () =>
      new Promise((stopped) => {
        server.close(() => stopped())
        server.closeAllConnections()
      }),
  }

  async function respond(request: IncomingMessage): Promise<ScriptedAnswer> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const path = `${request.method} ${request.url}`
    api.paths.push(path)
    if (path === 'GET /.well-known/openid-configuration')
      return scripts.discovery?.shift() ?? { status: 200, body: { issuer, jwks_uri: `${issuer}/keys` } }
    if (path === 'GET /keys') return scripts.jwks?.shift() ?? { status: 200, body: api.keys.stale() ?? api.keys.jwks() }
    if (path === 'GET /bundle') return scripts.bundle?.shift() ?? { status: 200, body: api.keys.bundle() }
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1]
    if (!token) return { status: 401, body: { error: 'invalid_token' } }
    api.tokens.push(token)
    if (api.admin) {
      try {
        const key = await importJWK({ ...api.admin }, 'ES256')
        const options = { audience: `${issuer}/admin`, maxTokenAge: 600, typ: 'JWT' }
        const { payload, protectedHeader } = await jwtVerify(token, key, options)
        api.lastToken = { header: protectedHeader, claims: payload }
      } catch {
        return { status: 401, body: { error: 'invalid_token' } }
      }
    }
    const question = () => JSON.parse(Buffer.concat(chunks).toString())
    switch (path) {
      case 'GET /admin/v1/objects':
        return scripts.objects?.shift() ?? { status: 200, body: { version: api.version, objects: api.objects } }
      case 'POST /admin/v1/apply':
        api.applied.push(question())
        return scripts.apply?.shift() ?? apply(question())
      case 'GET /admin/v1/keys':
        return scripts.keys?.shift() ?? { status: 200, body: api.keys.document() }
      case 'POST /admin/v1/keys/rotate':
        return scripts['keys/rotate']?.shift() ?? api.keys.rotate(question())
      case 'POST /admin/v1/keys/revoke':
        return scripts['keys/revoke']?.shift() ?? api.keys.revoke(question())
    }
    const [, federation] = /^(?:GET|POST) \/admin\/v1\/(federation(?:\/bundle|\/refresh)?)$/.exec(path) ?? []
    if (federation) return scripts[federation as FederationPath]?.shift() ?? { status: 200, body: NO_FEDERATION }
    const [, cluster] = /^\/admin\/v1\/clusters\/([a-z0-9-]+)\/revocations$/.exec(request.url ?? '') ?? []
    if (request.method === 'GET' && cluster) return scripts.revocations?.shift() ?? revocations(cluster)
    return { status: 404, body: { error: 'not_found' } }
  }

  function revocations(cluster: string): ScriptedAnswer {
    const specs = (wanted: string) =>
      api.objects.filter(({ object }) => object.kind === wanted).map(({ object }) => object.spec)
    const tokens = specs('Revocation').map(({ jti }) => jti)
    const subjects = specs('Ban').flatMap(({ spiffeID }) => (spiffeID === undefined ? [] : [spiffeID]))
    return { status: 200, body: { cluster, version: api.version, tokens, subjects } }
  }

  function apply({ objects, remove, dryRun, ifVersion }: ApplyRequest): ScriptedAnswer {
    if (ifVersion !== null && ifVersion !== api.version) return { status: 409, body: { error: 'version_conflict' } }
    const find = (kind: string, name: string) =>
      api.objects.find(
        ({ object, source }) => source === 'applied' && object.kind === kind && object.metadata.name === name,
      )
    const changes = [
      ...objects.map(({ kind, metadata: { name }, spec }) => {
        const before = find(kind, name)?.object.spec ?? null
        const action = before === null ? 'create' : isDeepStrictEqual(before, spec) ? 'unchanged' : 'update'
        return { kind, name, action, before, after: spec }
      }),
      ...remove.flatMap(({ kind, name }) => {
        const found = find(kind, name)
        return found ? [{ kind, name, action: 'delete', before: found.object.spec, after: null }] : []
      }),
    ]
    if (!dryRun) {
      const touched = [...objects.map((o) => [o.kind, o.metadata.name]), ...remove.map((r) => [r.kind, r.name])]
      api.objects = [
        ...api.objects.filter(
          ({ object, source }) =>
            source !== 'applied' || !touched.some(([k, n]) => object.kind === k && object.metadata.name === n),
        ),
        ...objects.map((object) => ({ object, source: 'applied', status: 'accepted', reason: null })),
      ]
      api.version++
    }
    return { status: 200, body: { version: api.version, dryRun, changes, warnings: api.warnings } }
  }
  return api
}
