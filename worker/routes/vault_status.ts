/** `sys/…`, as far as clients probe it before they log in. */

import { findHolder } from '../vault/holder.ts'
import { VaultError } from '../vault/vault_error.ts'
import { authenticate } from './vault_admin.ts'
import type { VaultHandler } from './vault_call.ts'

/**
 * The version of Vault whose API this follows. Clients compare it to know what they may ask for; what it is of stands behind
 * the plus sign, where versions are not compared (Semantic Versioning §10).
 */
const VERSION = '1.21.4+spiffe-edge'

/** `GET sys/health`: as long as this answers, it is unsealed and active. Whether it is ready, `/readyz` says. */
export const getHealth: VaultHandler = async ({ deps }) => ({
  raw: {
    initialized: true,
    sealed: false,
    standby: false,
    performance_standby: false,
    replication_performance_mode: 'disabled',
    replication_dr_mode: 'disabled',
    server_time_utc: deps.now(),
    version: VERSION,
    enterprise: false,
    cluster_name: deps.context.trustDomain.name,
    cluster_id: '',
    echo_duration_ms: 0,
    clock_skew_ms: 0,
  },
})

/** `GET sys/seal-status` */
export const getSealStatus: VaultHandler = async ({ deps }) => ({
  raw: {
    type: 'none',
    initialized: true,
    sealed: false,
    t: 0,
    n: 0,
    progress: 0,
    nonce: '',
    version: VERSION,
    build_date: '',
    migration: false,
    cluster_name: deps.context.trustDomain.name,
    cluster_id: '',
    recovery_seal: false,
    storage_type: 'durable_object',
  },
})

/** `GET sys/init` */
export const getInit: VaultHandler = async () => ({ raw: { initialized: true } })

/** `GET sys/leader` */
export const getLeader: VaultHandler = async ({ deps }) => ({
  raw: {
    ha_enabled: false,
    is_self: true,
    leader_address: deps.context.issuer,
    leader_cluster_address: '',
    performance_standby: false,
    performance_standby_last_remote_wal: 0,
  },
})

/** `GET sys/internal/ui/mounts`: none is listed for who has no token. */
export const listUiMounts: VaultHandler = async () => ({ data: { auth: {}, secret: {} } })

/** `GET sys/internal/ui/mounts/<path>`: which mount a path is at, for who has a token of any kind. */
export const findUiMount: VaultHandler = async (call) => {
  const { token, address, deps } = call
  if (token?.startsWith('eyJ')) await authenticate(call)
  else await findHolder(token ?? '', address, deps)
  const { policy } = await deps.policyRing.current()
  const path = `${call.names[0]}/`
  const mount = [...policy.vault.mounts.values()].find((one) => path.startsWith(`auth/${one.path}/`))
  if (!mount)
    throw new VaultError(
      403,
      `preflight capability check returned 403, please ensure client's policies grant access to path "${path}"`,
    )
  return {
    data: {
      type: 'kubernetes',
      path: `${mount.path}/`,
      accessor: mount.accessor,
      description: mount.description,
      local: false,
      options: null,
      config: { default_lease_ttl: mount.defaultLeaseTtl, max_lease_ttl: mount.maxLeaseTtl },
    },
  }
}
