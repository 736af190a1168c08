/**
 * `/v1/…`: what clients of Vault, OpenBao and Stronghold ask for, by their paths, in their envelope, with their errors. The
 * caller sees what Vault would say; the whole reason is in the log, under the answer's `x-request-id`.
 *
 * @see [HTTP API](https://developer.hashicorp.com/vault/api-docs)
 */

import { Decision } from '../audit.ts'
import { Refusal, type RefusalReason } from '../refusal.ts'
import { VaultError, wrapped } from '../vault/vault_error.ts'
import { clientAddress } from './client_address.ts'
import { readVaultBody } from './read_body.ts'
import { errorHeaders } from './respond.ts'
import { auth, config, listMounts, listOidcRoles, listRoles, oidcRole, role, tune } from './vault_admin.ts'
import {
  noRoute,
  type Operation,
  type VaultAnswer,
  type VaultCall,
  type VaultDeps,
  type VaultHandler,
} from './vault_call.ts'
import { findUiMount, getHealth, getInit, getLeader, getSealStatus, listUiMounts } from './vault_status.ts'
import { getDiscovery, getIdentityToken, getKeys, signCsr } from './vault_svid.ts'
import {
  listAccessors,
  lookupAccessor,
  lookupSelf,
  lookupToken,
  postLogin,
  renewAccessor,
  renewSelf,
  renewToken,
  revokeAccessor,
  revokeSelf,
  revokeToken,
} from './vault_token.ts'

const MOUNT = '([\\w.-]+(?:/[\\w.-]+)*?)'
const NAME = '(\\w(?:[\\w.-]*\\w)?)'

type Handlers = Partial<Record<Operation, VaultHandler>>

/** For who has no token. */
const OPEN = [
  ['sys/health', { read: getHealth }],
  ['sys/seal-status', { read: getSealStatus }],
  ['sys/init', { read: getInit }],
  ['sys/leader', { read: getLeader }],
  ['sys/internal/ui/mounts/?', { read: listUiMounts }],
  [`auth/${MOUNT}/login`, { update: postLogin }],
  ['identity/oidc/\\.well-known/openid-configuration', { read: getDiscovery }],
  ['identity/oidc/\\.well-known/keys', { read: getKeys }],
] as const

/** The first that fits is meant, so `token` is never a mount. */
const PATHS: readonly { readonly pattern: RegExp; readonly handlers: Handlers; readonly isOpen: boolean }[] = (
  [
    ...OPEN,
    ['sys/internal/ui/mounts/(.+?)/?', { read: findUiMount }],
    ['sys/auth/?', { read: listMounts }],
    [`sys/auth/${MOUNT}/tune`, { read: tune, update: tune }],
    [`sys/auth/${MOUNT}/?`, { read: auth, update: auth, delete: auth }],
    ['auth/token/lookup-self', { read: lookupSelf, update: lookupSelf }],
    ['auth/token/renew-self', { update: renewSelf }],
    ['auth/token/revoke-self', { update: revokeSelf }],
    ['auth/token/lookup', { update: lookupToken }],
    ['auth/token/lookup-accessor', { update: lookupAccessor }],
    ['auth/token/renew', { update: renewToken }],
    ['auth/token/renew-accessor', { update: renewAccessor }],
    ['auth/token/revoke', { update: revokeToken }],
    ['auth/token/revoke-accessor', { update: revokeAccessor }],
    ['auth/token/accessors/?', { list: listAccessors }],
    [`auth/${MOUNT}/config`, { read: config, update: config }],
    [`auth/${MOUNT}/role/?`, { list: listRoles }],
    [`auth/${MOUNT}/role/${NAME}`, { read: role, update: role, delete: role }],
    [`identity/oidc/token/${NAME}`, { read: getIdentityToken }],
    ['identity/oidc/role/?', { list: listOidcRoles }],
    [`identity/oidc/role/${NAME}`, { read: oidcRole, update: oidcRole, delete: oidcRole }],
    [`pki/sign/${NAME}`, { update: signCsr }],
  ] as const
).map(([pattern, handlers], index) => ({
  pattern: new RegExp(`^${pattern}$`),
  handlers,
  isOpen: index < OPEN.length,
}))

/** @param path behind `/v1/` */
export async function serveVault(request: Request, path: string, deps: VaultDeps): Promise<Response> {
  const decision = new Decision('vault', deps.now())
  let quiet = false
  try {
    const { search } = new URL(request.url)
    const query = new URLSearchParams(search)
    const operation = operationOf(request.method, query)
    const token = tokenOf(request.headers)
    const { handler, names } = await route(path, operation, token, deps)
    decision.asked(operation, path)
    checkHeaders(request.headers)
    quiet = QUIET.has(handler)
    const call: VaultCall = {
      request,
      operation,
      path,
      query,
      names,
      body: memoized(() => readVaultBody(request)),
      token,
      address: clientAddress(request),
      decision,
      deps,
    }
    return shape(await handler(call), path, decision)
  } catch (error) {
    quiet = false
    return refuse(error, decision)
  } finally {
    if (!quiet) await decision.write(deps.log)
  }
}

/** They decide nothing, and clients ask for them all the time. */
const QUIET: ReadonlySet<VaultHandler> = new Set([
  getHealth,
  getSealStatus,
  getInit,
  getLeader,
  listUiMounts,
  getDiscovery,
  getKeys,
])

function operationOf(method: string, query: URLSearchParams): Operation {
  switch (method) {
    case 'GET':
    case 'HEAD':
      return /^(?:1|t|true)$/i.test(query.get('list') ?? '') ? 'list' : 'read'
    case 'LIST':
      return 'list'
    case 'POST':
    case 'PUT':
      return 'update'
    case 'DELETE':
      return 'delete'
    default:
      throw new VaultError(405, 'unsupported operation')
  }
}

/** Without a token nobody learns what there is. */
async function route(
  path: string,
  operation: Operation,
  token: string | null,
  { policyRing }: VaultDeps,
): Promise<{ handler: VaultHandler; names: readonly string[] }> {
  if (path.includes('..')) throw new VaultError(400, 'relative paths not supported')
  for (const { pattern, handlers, isOpen } of PATHS) {
    const found = pattern.exec(path)
    if (!found) continue
    if (!isOpen && token === null) throw new Refusal('vault_token', 'no token')
    const handler = handlers[operation]
    if (handler) return { handler, names: found.slice(1) }
    throw new VaultError(405, isOpen ? 'unsupported operation' : wrapped('unsupported operation'))
  }
  if (token === null) throw new Refusal('vault_token', 'no token')
  const { policy } = await policyRing.current()
  const isMounted = policy.vault.mounts.keys().some((mount) => path.startsWith(`auth/${mount}/`))
  throw new VaultError(404, isMounted ? wrapped('unsupported path') : noRoute(path))
}

/** T-23: what would be answered otherwise than the client relies on. */
function checkHeaders(headers: Headers): void {
  if (!['', '0'].includes(headers.get('x-vault-wrap-ttl') ?? ''))
    throw new VaultError(400, 'response wrapping is not supported')
  if (headers.get('x-vault-namespace')) throw new VaultError(400, 'namespaces are not supported')
}

function tokenOf(headers: Headers): string | null {
  const bearer = /^Bearer (\S+)$/i.exec(headers.get('authorization') ?? '')?.[1]
  return headers.get('x-vault-token') || bearer || null
}

function shape(
  { status, data = null, auth: given = null, warnings = [], raw }: VaultAnswer,
  path: string,
  decision: Decision,
): Response {
  if (raw instanceof Response) return raw
  const headers = headersOf(decision)
  if (raw) return Response.json(raw, { headers })
  if (status === 404) return Response.json({ errors: [] }, { status, headers })
  if (!data && !given && warnings.length === 0) return new Response(null, { status: 204, headers })
  return Response.json(
    {
      request_id: decision.id,
      lease_id: '',
      renewable: false,
      lease_duration: 0,
      data,
      wrap_info: null,
      warnings: warnings.length > 0 ? warnings : null,
      auth: given,
      mount_type: mountTypeOf(path),
    },
    { headers },
  )
}

/** What Vault calls the kind of mount that has answered. A login has none. */
function mountTypeOf(path: string): string {
  const [first = '', second = ''] = path.split('/')
  if (path.startsWith('sys/internal/')) return ''
  if (first !== 'auth') return first === 'sys' ? 'system' : first
  if (second === 'token') return second
  return path.endsWith('/login') ? '' : 'kubernetes'
}

/** What Vault says otherwise than `permission denied`. Whatever else is refused, the caller is not told why. */
const SAID: Partial<Readonly<Record<RefusalReason, readonly [400 | 403 | 413 | 500 | 503, string]>>> = {
  mount_not_configured: [500, 'could not load backend configuration'],
  token_issuer_mismatch: [403, 'invalid issuer (iss) claim'],
  token_audience: [403, 'invalid audience (aud) claim: audience claim does not match any expected audience'],
  token_expired: [403, 'invalid expiration time (exp) claim: token is expired'],
  token_not_yet_valid: [403, 'invalid not before (nbf) claim: token not yet valid'],
  token_issued_in_future: [403, 'invalid issued at (iat) claim: token issued in the future'],
  token_uid_missing: [500, 'could not parse UID from claims'],
  service_account_not_bound: [403, 'service account name not authorized'],
  namespace_not_bound: [403, 'namespace not authorized'],
  namespace_unknown: [403, 'namespace not authorized err=the labels of the namespace cannot be had'],
  json_malformed: [400, 'error parsing JSON: failed to parse JSON input'],
  request_too_large: [413, 'http: request body too large'],
  csr_missing: [400, 'no csr given'],
  csr_invalid: [400, 'certificate request could not be parsed'],
  svid_type_not_allowed: [400, 'the role gives no SVID of this kind'],
  target_not_allowed: [400, 'the role is not for this audience'],
  x509_not_configured: [500, 'there is no certificate authority'],
  policy_unavailable: [503, 'the policy cannot be had at the moment'],
  keys_unavailable: [503, 'there are no keys at the moment'],
  signing_unavailable: [503, 'signing is not possible at the moment'],
  tokens_unavailable: [503, 'tokens cannot be had at the moment'],
  federation_unavailable: [503, 'bundles cannot be had at the moment'],
  internal: [500, 'internal error'],
}

function refuse(error: unknown, decision: Decision): Response {
  const refusal = decision.refused(error instanceof VaultError ? new Refusal('vault_request', error.detail) : error)
  const [status, text] =
    error instanceof VaultError ? [error.status, error.message] : (SAID[refusal.reason] ?? [403, 'permission denied'])
  return Response.json({ errors: [text] }, { status, headers: { ...errorHeaders(refusal), ...headersOf(decision) } })
}

function headersOf(decision: Decision): Record<string, string> {
  return { 'cache-control': 'no-store', 'x-request-id': decision.id }
}

function memoized<T>(call: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null
  return () => {
    made ??= call()
    return made
  }
}
