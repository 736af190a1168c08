/**
 * A person's identity provider: npm's oidc-provider, an OpenID Connect server that is certified, with a page to log in at and no more. A person
 * is whoever types a name into it.
 */

import { generateKeyPairSync } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import Provider, { type Configuration } from 'oidc-provider'

export const CLIENT_ID = 'kubectl'

export interface IdentityProviderOptions {
  readonly tls?: { readonly cert: string; readonly key: string }
  readonly idTokenSeconds?: number
  readonly accessTokenSeconds?: number
  /** Of the client; without one it is public. */
  readonly clientSecret?: string
  /** Laid over the configuration. */
  readonly configuration?: Configuration
  /** Claims of everybody. */
  readonly claims?: object
  readonly port?: number
}

export interface IdentityProvider {
  readonly issuer: string
  /** `METHOD /path` of what was asked, without queries. */
  readonly requests: string[]
  /** Whole URLs of authorization requests. */
  readonly authorizations: URL[]
  /** The forms that came to the token endpoint. */
  readonly grants: URLSearchParams[]
  /** Answers in its place; true if it has. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>) | null
  count(request: string): number
  stop(): Promise<void>
}

const JWK = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })
const EC_JWK = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })

export async function startIdentityProvider(options: IdentityProviderOptions = {}): Promise<IdentityProvider> {
  const { tls, clientSecret, claims = {} } = options
  let handle: (request: IncomingMessage, response: ServerResponse) => void = () => {}
  const listener = (request: IncomingMessage, response: ServerResponse) => handle(request, response)
  const server = tls ? createTlsServer(tls, listener) : createServer(listener)
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const issuer = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        application_type: 'native',
        redirect_uris: ['http://127.0.0.1/callback'],
        response_types: ['code'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        ...(clientSecret
          ? { client_secret: clientSecret, token_endpoint_auth_method: 'client_secret_basic' }
          : { token_endpoint_auth_method: 'none' }),
      },
    ],
    jwks: { keys: [{ ...JWK, use: 'sig', kid: 'rsa' } as never, { ...EC_JWK, use: 'sig', kid: 'ec' } as never] },
    cookies: { keys: ['for tests only'] },
    // So that the name is in the ID token, as with most providers.
    conformIdTokenClaims: false,
    claims: { profile: ['name', 'picture'], email: ['email', 'groups'] },
    scopes: ['openid', 'profile', 'email', 'offline_access'],
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: false },
    },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    findAccount: (_, accountId) => ({
      accountId,
      claims: () => ({
        sub: accountId,
        name: accountId,
        email: `${accountId}@example.org`,
        picture: 'https://pictures.example.org/1.png',
        ...claims,
      }),
    }),
    issueRefreshToken: async (_, client) => client.grantTypeAllowed('refresh_token'),
    loadExistingGrant: async (context) => {
      const { client, session, params } = context.oidc
      const grant = new provider.Grant({ clientId: client?.clientId ?? '', accountId: session?.accountId ?? '' })
      grant.addOIDCScope(String(params?.scope ?? 'openid'))
      await grant.save()
      return grant
    },
    ttl: {
      IdToken: options.idTokenSeconds ?? 3600,
      AccessToken: options.accessTokenSeconds ?? 3600,
      RefreshToken: 24 * 3600,
      DeviceCode: 600,
      Interaction: 3600,
      Session: 24 * 3600,
      Grant: 24 * 3600,
    },
    ...options.configuration,
  })
  const app = provider.callback()
  const idp: IdentityProvider = {
    issuer,
    requests: [],
    authorizations: [],
    grants: [],
    intercept: null,
    count: (request) => idp.requests.filter((one) => one === request).length,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  handle = async (request, response) => {
    const url = new URL(request.url ?? '', issuer)
    idp.requests.push(`${request.method} ${url.pathname}`)
    if (url.pathname === '/auth') idp.authorizations.push(url)
    if (await idp.intercept?.(request, response)) return
    if (url.pathname === '/token') request.on('data', (chunk) => idp.grants.push(new URLSearchParams(String(chunk))))
    if (url.pathname.startsWith('/interaction/')) return await interact(provider, request, response)
    app(request, response)
  }
  return idp
}

/** A page with one field. `refuse` is a name too. */
async function interact(provider: Provider, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html')
    response.end('<form method="post"><input name="login" autofocus><button type="submit">Log in</button></form>')
    return
  }
  let text = ''
  for await (const chunk of request) text += chunk
  const login = new URLSearchParams(text).get('login') ?? ''
  const result =
    login === 'refuse'
      ? { error: 'access_denied', error_description: 'not today' }
      : { login: { accountId: login }, consent: {} }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false })
}
