/**
 * What administrators do by Vault's API: mounts, their config, roles. Each becomes an object of the policy, is judged together
 * with everything else that there is, and is told and removed by `spiffe-edge` like any other.
 */

import { type AdministerDeps, applyObjects, type Change } from '../administer.ts'
import type { ManifestObject } from '../policy/manifest.ts'
import { isNested, MountPath, type VaultMount } from '../policy/vault_mount.ts'
import { ROLE_NAME, type VaultRoleSpec } from '../policy/vault_role.ts'
import type { PolicySnapshot } from '../state/policy_ring.ts'
import type { ObjectName } from '../state/policy_state.ts'
import { type FieldSchema, ignoredWarning, readFields } from './fields.ts'
import { writeConfig } from './mount_config.ts'
import { writeRole } from './role.ts'
import type { TokenSecret } from './token.ts'
import { VaultError } from './vault_error.ts'

/** Somebody else may have changed something else in between. */
const ATTEMPTS = 5

const API_VERSION = 'spiffe-edge.io/v1alpha1'

/** What has changed, and what to warn of. */
export interface Written {
  readonly version: number
  readonly changes: readonly Change[]
  readonly warnings: readonly string[]
}

interface Edit {
  readonly put: readonly object[]
  readonly remove: readonly ObjectName[]
  readonly warnings: readonly string[]
}

/** @throws VaultError */
export async function enableMount(path: string, body: Body, deps: AdministerDeps): Promise<Written> {
  if (!MountPath.safeParse(path).success) throw new VaultError(400, 'not a path that a mount can have here')
  const { fields, ignored } = readFields(body, { ...UNUSED_BY_MOUNTS, type: 'text', description: 'text' })
  const { type = '' } = fields
  if (type === '') throw new VaultError(400, 'backend type must be specified as a string')
  if (type !== 'kubernetes') throw new VaultError(400, `plugin not found in the catalog: only kubernetes is there`)
  const tuned = readTuning((body.config ?? {}) as Body)
  return edit(deps, ({ policy }) => {
    const taken = policy.vault.mounts.keys().find((other) => isNested(path, other))
    if (taken !== undefined) throw new VaultError(400, `path is already in use at ${taken}/`)
    const accessor = `auth_kubernetes_${crypto.getRandomValues(new Uint8Array(4)).toHex()}`
    const spec = { accessor, description: fields.description ?? '', ...tuned.times }
    return {
      put: [object('VaultMount', path, spec)],
      remove: [],
      warnings: ignoredWarning([
        ...ignored.filter((name) => name !== 'config' && !isEmpty(body[name])),
        ...tuned.ignored,
      ]),
    }
  })
}

/** With its roles. Where there is none, nothing happens. */
export async function disableMount(path: string, deps: AdministerDeps): Promise<Written> {
  if (path === 'token') throw new VaultError(400, 'token credential backend cannot be disabled')
  return edit(deps, ({ policy: { vault } }) => ({
    put: [],
    remove: vault.mounts.has(path)
      ? [
          { kind: 'VaultMount', name: path },
          ...vault.roles
            .entries()
            .filter(([, { mount }]) => mount === path)
            .map(([name]) => ({ kind: 'VaultRole', name })),
        ]
      : [],
    warnings: [],
  }))
}

/** @throws VaultError */
export async function tuneMount(path: string, body: Body, deps: AdministerDeps): Promise<Written> {
  const { fields } = readFields(body, { description: 'text' })
  const { times, ignored } = readTuning(body)
  return edit(deps, (snapshot) => {
    const spec = { ...specOf<object>(snapshot, 'VaultMount', path), ...times }
    return {
      put: [object('VaultMount', path, { ...spec, ...fields })],
      remove: [],
      warnings: ignoredWarning(ignored.filter((name) => name !== 'description')),
    }
  })
}

/** @throws VaultError */
export async function configureMount(
  mount: VaultMount,
  body: Body,
  secret: TokenSecret,
  deps: AdministerDeps,
): Promise<Written> {
  return edit(deps, async (snapshot) => {
    const { config, warnings } = await writeConfig(mount, body, snapshot.policy.clusters, secret)
    const spec = { ...specOf<object>(snapshot, 'VaultMount', mount.path), config }
    return { put: [object('VaultMount', mount.path, spec)], remove: [], warnings }
  })
}

/** @throws VaultError */
export async function putRole(mount: VaultMount, name: string, body: Body, deps: AdministerDeps): Promise<Written> {
  const title = `${mount.path}/${name.toLowerCase()}`
  return edit(deps, (snapshot) => {
    const before = snapshot.policy.vault.roles.has(title) ? specOf<VaultRoleSpec>(snapshot, 'VaultRole', title) : null
    const { spec, warnings } = writeRole(name, body, before, mount)
    return { put: [object('VaultRole', title, spec)], remove: [], warnings }
  })
}

/** Where there is none, nothing happens. */
export async function deleteRole(mount: VaultMount, name: string, deps: AdministerDeps): Promise<Written> {
  const title = `${mount.path}/${name.toLowerCase()}`
  return edit(deps, ({ policy }) => ({
    put: [],
    remove: policy.vault.roles.has(title) ? [{ kind: 'VaultRole', name: title }] : [],
    warnings: [],
  }))
}

const OIDC_ROLE = { key: 'text', template: 'text', ttl: 'duration', client_id: 'text' } as const

/** @throws VaultError */
export async function putOidcRole(name: string, body: Body, deps: AdministerDeps): Promise<Written> {
  if (!ROLE_NAME.test(name)) throw new VaultError(404, 'unsupported path')
  const { fields, ignored } = readFields(body, OIDC_ROLE, '')
  const { key = '', template = '', ttl, client_id: clientId } = fields
  if (key === '') throw new VaultError(400, 'the key parameter is required')
  if (key !== 'default') throw new VaultError(400, 'cannot find key: there is one, which is called default')
  if (template !== '') throw new VaultError(400, 'template is not supported: claims are those of a JWT-SVID')
  return edit(deps, ({ policy }) => {
    const audience = clientId ?? policy.vault.oidcRoles.get(name)?.clientId
    if (!audience) throw new VaultError(400, 'client_id is required: it is the audience of the JWT-SVID')
    return {
      put: [object('VaultOIDCRole', name, { client_id: audience })],
      remove: [],
      warnings: [
        ...(ttl ? ['ttl is not used: a JWT-SVID lives as long as svid_ttl of the role that logged in says'] : []),
        ...ignoredWarning(ignored),
      ],
    }
  })
}

/** Where there is none, nothing happens. */
export async function deleteOidcRole(name: string, deps: AdministerDeps): Promise<Written> {
  return edit(deps, ({ policy }) => ({
    put: [],
    remove: policy.vault.oidcRoles.has(name) ? [{ kind: 'VaultOIDCRole', name }] : [],
    warnings: [],
  }))
}

type Body = Readonly<Record<string, unknown>>

/** What mounts of Vault's have, and is nothing here. It may be sent as long as nothing is asked for by it. */
const UNUSED_BY_MOUNTS = {
  local: 'bool',
  seal_wrap: 'bool',
  external_entropy_access: 'bool',
  plugin_name: 'text',
  plugin_version: 'text',
} as const satisfies FieldSchema

const TUNING = { default_lease_ttl: 'duration', max_lease_ttl: 'duration' } as const

function readTuning(config: Body) {
  if (typeof config !== 'object' || Array.isArray(config)) throw new VaultError(400, 'config is not an object')
  const { fields, ignored } = readFields(config, TUNING)
  // Clients send every option that they know, most of them empty.
  return { times: fields, ignored: ignored.filter((name) => !isEmpty(config[name])) }
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' ? Object.keys(value ?? {}).length === 0 : !value
}

async function edit(deps: AdministerDeps, make: (snapshot: PolicySnapshot) => Edit | Promise<Edit>): Promise<Written> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const snapshot = await deps.policyRing.renew()
    const { put: objects, remove, warnings } = await make(snapshot)
    if (objects.length + remove.length === 0) return { version: snapshot.version, changes: [], warnings }
    const request = { objects, remove, dryRun: false, ifVersion: snapshot.version }
    const outcome = await applyObjects(request, deps)
    if (outcome.outcome === 'refused') throw new VaultError(400, outcome.problems.join('; '))
    if (outcome.outcome === 'applied') {
      const { version, changes } = outcome
      return { version, changes, warnings: [...warnings, ...outcome.warnings] }
    }
  }
  throw new VaultError(409, 'others keep changing the policy: try again')
}

function object(kind: ManifestObject['kind'], name: string, spec: object): object {
  return { apiVersion: API_VERSION, kind, metadata: { name }, spec }
}

/** @throws VaultError where it is in the manifest, which nobody changes at run time */
function specOf<Spec>({ objects }: PolicySnapshot, kind: ManifestObject['kind'], name: string): Spec {
  const found = objects.find(({ object: { kind: one, metadata } }) => one === kind && metadata.name === name)
  if (found?.source !== 'applied') throw new VaultError(400, `${kind} ${name} is in the deployed manifest`)
  return found.object.spec as Spec
}
