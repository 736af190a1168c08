/**
 * The API servers of a cluster as somebody sees them who asks about their key caches. A fake, over real TLS: several of
 * them stand behind one address, which takes turns by connection. Each verifies tokens as kube-apiserver does (OK-5): by
 * any key of the set that it fetched last, and it fetches again only for a token that none of them verifies. What it has
 * accepted it accepts for ten seconds more.
 */

import { createHash, randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { compactVerify, decodeJwt, decodeProtectedHeader, importJWK, type JWK } from 'jose'
import type { Clock } from './clock.ts'
import { createCa } from './pki.ts'
import type { TlsPair } from './plain_workerd.ts'

const SUCCESS_CACHE_SECONDS = 10
const METRIC = 'apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info'

export class ApiserverInstance {
  readonly idHash = hashOf(randomUUID())
  keys: JWK[] = []
  keySetHash: string | null = null
  fetches = 0
  /** Whether an unknown `kid` makes it look. */
  looks = true
  /** Tokens that were good, and until when they are so without another look. */
  readonly accepted = new Map<string, number>()
}

export interface KeyCacheApiserver {
  readonly server: string
  readonly instances: readonly ApiserverInstance[]
  /** What instances are behind the address, by the number of the connection. */
  choose: (connection: number) => number
  /** What the address answers before anybody looks at the request. */
  answer: (request: IncomingMessage) => { status: number; body: string } | null
  /** What is made of the metrics. */
  metrics: (text: string) => string
  audience: string
  readonly ca: string
  /** A certificate that makes whoever has it the administrator, whatever token comes with it. */
  readonly clientCertificate: TlsPair
  /** The administrator's. */
  readonly token: string
  /** Every bearer, oldest first. */
  readonly bearers: string[]
  /** Has every instance fetch the keys. */
  warm(): Promise<void>
  stop(): void
}

export function hashOf(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}

/** @param otherwise what answers where the API server does not */
export async function startKeyCacheApiserver(
  issuer: string,
  clock: Clock,
  { count = 3, otherwise }: { count?: number; otherwise?: RequestListener } = {},
): Promise<KeyCacheApiserver> {
  const ca = await createCa()
  const tls = await ca.issue('127.0.0.1')
  const instances = Array.from({ length: count }, () => new ApiserverInstance())
  const behind = new WeakMap<Socket, ApiserverInstance>()
  let connections = 0

  async function fetchKeys(instance: ApiserverInstance): Promise<void> {
    instance.fetches++
    const text = await (await fetch(`${issuer}/keys`)).text()
    instance.keys = JSON.parse(text).keys
    instance.keySetHash = hashOf(text)
  }
  async function isSigned(token: string, keys: readonly JWK[]): Promise<boolean> {
    const { kid, alg } = decodeProtectedHeader(token)
    for (const jwk of keys.filter((key) => key.kid === kid)) {
      try {
        await compactVerify(token, await importJWK(jwk, alg))
        return true
      } catch {
        // Another key of the same name may still verify it.
      }
    }
    return false
  }
  async function usernameOf(token: string, instance: ApiserverInstance): Promise<string | null> {
    if (token === api.token) return 'admin'
    try {
      const { iss, aud, exp = 0, sub = '' } = decodeJwt(token)
      if (iss !== issuer) return null
      if ((instance.accepted.get(token) ?? 0) > clock.seconds) return sub
      if (!(await isSigned(token, instance.keys))) {
        if (!instance.looks) return null
        await fetchKeys(instance)
        if (!(await isSigned(token, instance.keys))) return null
      }
      // In this order: a key is looked for before anything else of the token is.
      if (![aud].flat().includes(api.audience) || exp < clock.seconds) return null
      instance.accepted.set(token, clock.seconds + SUCCESS_CACHE_SECONDS)
      return sub
    } catch {
      return null
    }
  }

  const server = createServer(
    { key: tls.key, cert: tls.certificate, ca: ca.certificate, requestCert: true, rejectUnauthorized: false },
    async (request, response) => {
      const instance = behind.get(request.socket)
      const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
      if (token !== '') api.bearers.push(token)
      const send = (status: number, body: string | object) => {
        response.writeHead(status, { date: new Date(clock.seconds * 1000).toUTCString() })
        response.end(typeof body === 'string' ? body : JSON.stringify(body))
      }
      const scripted = api.answer(request)
      if (scripted) return send(scripted.status, scripted.body)
      if (!instance) return send(500, {})
      const certified = Object.keys((request.socket as TLSSocket).getPeerCertificate()).length > 0
      const username = certified ? 'admin' : await usernameOf(token, instance)
      if (username === null) return send(401, { kind: 'Status', code: 401 })
      if (request.url === '/apis/authentication.k8s.io/v1/selfsubjectreviews')
        return send(201, { kind: 'SelfSubjectReview', status: { userInfo: { username } } })
      if (request.url === '/metrics')
        return username === 'admin' ? send(200, api.metrics(metricsOf(instance, issuer))) : send(403, { code: 403 })
      return otherwise ? otherwise(request, response) : send(404, {})
    },
  )
  server.on('secureConnection', (socket: Socket) => {
    const chosen = instances[api.choose(connections++)]
    if (chosen) behind.set(socket, chosen)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const api: KeyCacheApiserver = {
    server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    instances,
    choose: (connection) => connection % count,
    answer: () => null,
    metrics: (text) => text,
    audience: 'k8s',
    ca: ca.certificate,
    clientCertificate: await ca.issue('administrator'),
    token: `administrator-${randomUUID()}`,
    bearers: [],
    warm: async () => void (await Promise.all(instances.map(fetchKeys))),
    stop() {
      server.close()
      server.closeAllConnections()
    },
  }
  return api
}

/** As kube-apiserver has it: the labels in alphabetical order, and much else around it. */
function metricsOf({ idHash, keySetHash }: ApiserverInstance, issuer: string): string {
  const line = (jwtIssuer: string, hash: string) =>
    `${METRIC}{apiserver_id_hash="${idHash}",hash="${hash}",jwt_issuer_hash="${hashOf(jwtIssuer)}"} 1`
  return [
    '# HELP aggregator_unavailable_apiservice [ALPHA] Gauge of APIServices which are marked as unavailable.',
    '# TYPE aggregator_unavailable_apiservice gauge',
    'aggregator_unavailable_apiservice{name="v1."} 0',
    `# HELP ${METRIC} [ALPHA] Information about the last JWKS fetched by the JWT authenticator.`,
    `# TYPE ${METRIC} gauge`,
    line('https://login.example.org', hashOf('another key set')),
    ...(keySetHash === null ? [] : [line(issuer, keySetHash)]),
    '# TYPE apiserver_request_total counter',
    'apiserver_request_total{code="200",verb="GET"} 17',
    '',
  ].join('\n')
}

/** A kubeconfig with a context for each API server. */
export function kubeconfigOf(
  apis: Readonly<Record<string, KeyCacheApiserver>>,
  user: (api: KeyCacheApiserver) => object = ({ token }) => ({ token }),
): object {
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  const entries = Object.entries(apis)
  return {
    'current-context': entries[0]?.[0],
    contexts: entries.map(([name]) => ({ name, context: { cluster: name, user: name } })),
    clusters: entries.map(([name, { server, ca }]) => ({
      name,
      cluster: { server, 'certificate-authority-data': base64(ca) },
    })),
    users: entries.map(([name, api]) => ({ name, user: user(api) })),
  }
}
