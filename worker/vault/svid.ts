/** SVIDs for who holds a token of Vault's kind (T-23). */

import type { Decision } from '../audit.ts'
import {
  type IssueDeps,
  type IssuedSvid,
  type IssuedX509Svid,
  issueForLogin,
  issueX509ForLogin,
  type LoginSvidRequest,
  type PublicKeySource,
} from '../issue.ts'
import type { Holder } from './holder.ts'
import { confirmIfLonger } from './renewal.ts'
import { VaultError } from './vault_error.ts'

/**
 * @param audience what the name that was asked by stands for
 * @throws VaultError where the role gives none, Refusal
 */
export async function giveJwtSvid(
  holder: Holder,
  audience: string,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedSvid> {
  return issueForLogin(await request(holder), audience, deps, decision)
}

/** The same for a certificate, and whatever `publicKey` throws. */
export async function giveX509Svid(
  holder: Holder,
  publicKey: PublicKeySource,
  deps: IssueDeps,
  decision: Decision,
): Promise<IssuedX509Svid> {
  return issueX509ForLogin(await request(holder), publicKey, deps, decision)
}

/** What was attested at the login is held against the role as it stands now, and against the cluster where that could see more. */
async function request({ entry, role, attestation, snapshot }: Holder): Promise<LoginSvidRequest> {
  const registration = role?.registration
  if (!registration) throw new VaultError(400, `role ${entry.role} gives no SVID: it has no spiffe_id`)
  const { logins } = snapshot.attestors
  await logins.checkBinding(role, attestation)
  await confirmIfLonger(entry, entry.expiresAt, logins)
  return { attestation, registration, snapshot }
}
