/**
 * A role of Vault's identity tokens: a name that a token's holder asks for a JWT-SVID by, which selects its audience and
 * nothing else (T-23).
 *
 * @see [Identity tokens API](https://developer.hashicorp.com/vault/api-docs/secret/identity/tokens#create-or-update-a-role)
 */

import * as z from 'zod/mini'
import { Audience } from './cluster.ts'
import { ROLE_NAME } from './vault_role.ts'

/** The manifest's form of such a role. Every field is described in docs/vault.md. */
export const VaultOidcRoleManifest = z.strictObject({
  apiVersion: z.literal('spiffe-edge.io/v1alpha1'),
  kind: z.literal('VaultOIDCRole'),
  metadata: z.strictObject({ name: z.string().check(z.maxLength(128), z.regex(ROLE_NAME)) }),
  spec: z.strictObject({
    client_id: Audience,
  }),
})

export interface VaultOidcRole {
  readonly name: string
  /** The audience. */
  readonly clientId: string
}

export function compileVaultOidcRole({ metadata, spec }: z.infer<typeof VaultOidcRoleManifest>): VaultOidcRole {
  return { name: metadata.name, clientId: spec.client_id }
}
