/** `sys/auth/…`, `auth/<mount>/config`, `auth/<mount>/role/…` and `identity/oidc/role/…`: for administrators alone (T-11). */

import type { VaultMount } from '../policy/vault_mount.ts'
import {
  configureMount,
  deleteOidcRole,
  deleteRole,
  disableMount,
  enableMount,
  putOidcRole,
  putRole,
  tuneMount,
  type Written,
} from '../vault/administer_vault.ts'
import { readConfig } from '../vault/mount_config.ts'
import { readRole } from '../vault/role.ts'
import { VaultError } from '../vault/vault_error.ts'
import { NOTHING, noRoute, type VaultAnswer, type VaultCall, type VaultHandler } from './vault_call.ts'

/**
 * @returns the administrator's name
 * @throws Refusal where the token is no administrator's
 */
export async function authenticate({ token, decision, deps }: VaultCall): Promise<string> {
  const admin = await deps.administrators.authenticate(token, deps.now())
  decision.administered(admin)
  return admin
}

/** `GET sys/auth` */
export const listMounts: VaultHandler = async (call) => {
  await authenticate(call)
  const { policy } = await call.deps.policyRing.renew()
  const mounts = Object.fromEntries(policy.vault.mounts.values().map((mount) => [`${mount.path}/`, mountOf(mount)]))
  const data = { ...mounts, 'token/': TOKEN_MOUNT }
  // Old clients read the members beside the envelope.
  return { raw: { ...envelope(call), data, ...data } }
}

/** `sys/auth/<mount>` */
export const auth: VaultHandler = async (call) => {
  const admin = await authenticate(call)
  const path = call.names[0] ?? ''
  if (call.operation === 'update') return written(call, admin, await enableMount(path, await call.body(), call.deps))
  if (call.operation === 'delete') return written(call, admin, await disableMount(path, call.deps))
  const mount = await findMount(call, 400)
  return { raw: { ...envelope(call), data: mountOf(mount), ...mountOf(mount) } }
}

/** `sys/auth/<mount>/tune` */
export const tune: VaultHandler = async (call) => {
  const admin = await authenticate(call)
  const mount = await findMount(call, 400)
  if (call.operation === 'update')
    return written(call, admin, await tuneMount(mount.path, await call.body(), call.deps))
  const times = { default_lease_ttl: mount.defaultLeaseTtl, max_lease_ttl: mount.maxLeaseTtl }
  const data = { ...mountOf(mount).config, ...times, description: mount.description }
  return { raw: { ...envelope(call), data, ...data } }
}

/** `auth/<mount>/config` */
export const config: VaultHandler = async (call) => {
  const admin = await authenticate(call)
  const mount = await findMount(call)
  const { deps } = call
  if (call.operation === 'update') {
    const secret = await deps.tokenSecret
    if (!secret) throw new TypeError('there are no mounts without a secret')
    return written(call, admin, await configureMount(mount, await call.body(), secret, deps))
  }
  return mount.config ? { data: readConfig(mount.config) } : { status: 404 }
}

/** `auth/<mount>/role/<name>` */
export const role: VaultHandler = async (call) => {
  const admin = await authenticate(call)
  const mount = await findMount(call)
  const name = call.names[1] ?? ''
  const { deps } = call
  if (call.operation === 'update') return written(call, admin, await putRole(mount, name, await call.body(), deps))
  if (call.operation === 'delete') return written(call, admin, await deleteRole(mount, name, deps))
  const { policy } = await deps.policyRing.renew()
  const found = policy.vault.roles.get(`${mount.path}/${name.toLowerCase()}`)
  return found ? { data: readRole(found.spec) } : { status: 404 }
}

/** `LIST auth/<mount>/role`, of which OpenBao's clients may ask for a part */
export const listRoles: VaultHandler = async (call) => {
  await authenticate(call)
  const mount = await findMount(call)
  const { policy } = await call.deps.policyRing.renew()
  const names = policy.vault.roles.values().filter((one) => one.mount === mount.path)
  return page(call, [...names.map(({ name }) => name)].sort())
}

/** `identity/oidc/role/<name>` */
export const oidcRole: VaultHandler = async (call) => {
  const admin = await authenticate(call)
  const name = call.names[0] ?? ''
  const { deps } = call
  if (call.operation === 'update') return written(call, admin, await putOidcRole(name, await call.body(), deps))
  if (call.operation === 'delete') return written(call, admin, await deleteOidcRole(name, deps))
  const { policy } = await deps.policyRing.renew()
  const found = policy.vault.oidcRoles.get(name)
  return found ? { data: { client_id: found.clientId, key: 'default', template: '', ttl: 0 } } : { status: 404 }
}

/** `LIST identity/oidc/role` */
export const listOidcRoles: VaultHandler = async (call) => {
  await authenticate(call)
  const { policy } = await call.deps.policyRing.renew()
  return page(call, [...policy.vault.oidcRoles.keys()].sort())
}

function page({ query }: VaultCall, names: readonly string[]): VaultAnswer {
  const after = query.get('after') ?? ''
  const limit = Number(query.get('limit') ?? '-1')
  if (!Number.isSafeInteger(limit)) throw new VaultError(400, 'limit is not a number')
  const rest = names.filter((name) => name > after)
  const keys = limit > 0 ? rest.slice(0, limit) : rest
  return keys.length > 0 ? { data: { keys } } : { status: 404 }
}

/** What holds at this moment. Where there is no such mount, Vault has no route. */
async function findMount(call: VaultCall, missing: 400 | 404 = 404): Promise<VaultMount> {
  const { policy } = await call.deps.policyRing.renew()
  const path = call.names[0] ?? ''
  const mount = policy.vault.mounts.get(path)
  if (mount) return mount
  throw new VaultError(missing, missing === 400 ? `No auth engine at ${path}/` : noRoute(call.path))
}

function written({ deps }: VaultCall, admin: string, { version, changes, warnings }: Written): VaultAnswer {
  const changed = changes.filter(({ action }) => action !== 'unchanged')
  if (changed.length > 0)
    deps.log({
      event: 'policy_changed',
      admin,
      version,
      changes: changed.map(({ action, kind, name }) => `${action} ${kind} ${name}`),
    })
  return warnings.length > 0 ? { warnings } : NOTHING
}

function envelope({ decision }: VaultCall): object {
  return {
    request_id: decision.id,
    lease_id: '',
    renewable: false,
    lease_duration: 0,
    wrap_info: null,
    warnings: null,
    auth: null,
  }
}

const MOUNT = {
  external_entropy_access: false,
  local: false,
  options: null,
  plugin_version: '',
  running_plugin_version: '',
  running_sha256: '',
  seal_wrap: false,
}

const TOKEN_MOUNT = {
  ...MOUNT,
  type: 'token',
  accessor: 'auth_token',
  uuid: 'auth_token',
  description: 'token based credentials',
  config: { default_lease_ttl: 0, max_lease_ttl: 0, force_no_cache: false, token_type: 'default-service' },
}

function mountOf({ accessor, description, tuned }: VaultMount) {
  return {
    ...MOUNT,
    type: 'kubernetes',
    accessor,
    uuid: accessor,
    description,
    config: {
      default_lease_ttl: tuned.defaultLeaseTtl,
      max_lease_ttl: tuned.maxLeaseTtl,
      force_no_cache: false,
      token_type: 'default-service',
    },
  }
}
