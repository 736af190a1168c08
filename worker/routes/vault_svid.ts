/** `identity/oidc/…` and `pki/sign/<role>`: SVIDs for who has logged in (T-22, T-23). */

import { pem } from '../../keys/pem.ts'
import { servePublicDocument } from '../oidc/public_document.ts'
import { serialNumberOf } from '../spiffe/serial_number.ts'
import { readFields } from '../vault/fields.ts'
import { giveJwtSvid, giveX509Svid } from '../vault/svid.ts'
import { VaultError } from '../vault/vault_error.ts'
import { decodeCsr, readCsrKey } from './read_csr.ts'
import type { VaultHandler } from './vault_call.ts'
import { holderOf } from './vault_token.ts'

/** `GET identity/oidc/token/<name>` */
export const getIdentityToken: VaultHandler = async (call) => {
  const { names, deps, decision } = call
  const holder = await holderOf(call)
  const name = names[0] ?? ''
  const role = holder.snapshot.policy.vault.oidcRoles.get(name)
  if (!role) throw new VaultError(400, `role "${name}" not found`)
  const { svid, claims } = await giveJwtSvid(holder, role.clientId, deps, decision)
  return { data: { client_id: role.clientId, token: svid, ttl: claims.exp - deps.now() } }
}

/** `GET identity/oidc/.well-known/openid-configuration`: there is one issuer here, and this is it. */
export const getDiscovery: VaultHandler = async ({ request, deps }) => ({
  raw: servePublicDocument(request, (await deps.keyRing.published()).discovery),
})

/** `GET identity/oidc/.well-known/keys` */
export const getKeys: VaultHandler = async ({ request, deps }) => ({
  raw: servePublicDocument(request, (await deps.keyRing.published()).jwks),
})

const SIGN = {
  csr: 'text',
  format: 'text',
  common_name: 'text',
  alt_names: 'list',
  ip_sans: 'list',
  uri_sans: 'list',
  other_sans: 'list',
  exclude_cn_from_sans: 'bool',
  ttl: 'duration',
  remove_roots_from_chain: 'bool',
} as const

/**
 * `POST pki/sign/<role>`: the role that the token was given for, and no other.
 *
 * What a CSR and the parameters say of names is compared, and not taken (T-22): who asks for others than they get is refused.
 */
export const signCsr: VaultHandler = async (call) => {
  const { names, deps, decision } = call
  const holder = await holderOf(call)
  const { fields } = readFields(await call.body(), SIGN)
  if (names[0]?.toLowerCase() !== holder.entry.role.toLowerCase())
    throw new VaultError(400, `unknown role: ${names[0]}`)
  const { csr: text = '', format = 'pem', ttl = 0 } = fields
  if (text === '') throw new VaultError(400, 'no csr given')
  if (format !== '' && format !== 'pem') throw new VaultError(400, 'format must be pem')
  if (ttl > 0) throw new VaultError(400, 'ttl is not taken: the role says how long a certificate lives')
  const csr = decodeCsr(text)
  const { chain, bundle, expiresAt, grant } = await giveX509Svid(holder, () => readCsrKey(csr), deps, decision)
  checkNames(fields, grant.spiffeId.toString(), grant.dnsNames)
  const [leaf, ...between] = chain
  if (!leaf) throw new TypeError('a chain begins with its leaf')
  const authorities = [...between, ...bundle].map((der) => pem('CERTIFICATE', der).trimEnd())
  return {
    data: {
      certificate: pem('CERTIFICATE', leaf).trimEnd(),
      issuing_ca: authorities[0] ?? '',
      ca_chain: authorities,
      serial_number: serialNumberOf(leaf).replace(/(?!^)(?=(?:..)+$)/g, ':'),
      expiration: expiresAt,
    },
  }
}

function checkNames(
  fields: {
    common_name?: string
    alt_names?: readonly string[]
    ip_sans?: readonly string[]
    uri_sans?: readonly string[]
    other_sans?: readonly string[]
  },
  spiffeId: string,
  dnsNames: readonly string[],
): void {
  const isGiven = (names: readonly string[] = [], given: readonly string[]) =>
    names.every((name) => name === '' || given.includes(name))
  if (
    (fields.common_name ?? '') !== '' ||
    !isGiven(fields.alt_names, dnsNames) ||
    !isGiven(fields.uri_sans, [spiffeId]) ||
    !isGiven(fields.ip_sans, []) ||
    !isGiven(fields.other_sans, [])
  )
    throw new VaultError(400, 'names are those of the role: the SPIFFE ID and its dns_names, and no common_name')
}
