/**
 * `spiffe-edge credential oidc`: a person's login at an identity provider, for kubectl. Where a good credential is kept, it is
 * printed, and nothing is loaded but what reads it.
 */

import { audienceOf, credentialCommand, type OptionValues } from '../credential.ts'
import { type ExecInfo, execCredential, readExecInfo } from '../exec_credential.ts'
import { UsageError } from '../failure.ts'
import { issuerOf } from '../issuer.ts'
import { freshCredential, nameOf, type WantedSvid } from '../login/session.ts'
import { SessionStore } from '../login/session_store.ts'
import { LOGIN_OPTIONS, loginSettings } from '../login/settings.ts'
import type { Terminal } from '../terminal.ts'

const OPTIONS = {
  ...LOGIN_OPTIONS,
  exchange: {
    type: 'boolean',
    description: "take the token to a worker, for an SVID, which is then kubectl's credential",
  },
  issuer: { type: 'string', value: 'url', description: 'the worker, by its issuer URL (or SPIFFE_EDGE_ISSUER)' },
  audience: {
    type: 'string',
    multiple: true,
    value: 'audience',
    description: 'who the SVID is to be made out to; may be repeated (or SPIFFE_JWT_AUDIENCE; k8s if nobody says)',
  },
  'spiffe-id': { type: 'string', value: 'id', description: 'which identity, where there are several' },
} as const

export const oidc = {
  interactive: true,
  ...credentialCommand(
    "from a person's login at an identity provider, in the browser",
    OPTIONS,
    async (values, terminal) => {
      const info = readExecInfo(terminal)
      const settings = loginSettings(values, terminal)
      const svid = wantedSvid(values, info, terminal)
      const store = new SessionStore(terminal.env)
      const { session } = await store.read(settings.account, settings.keyringOnly)
      const kept = freshCredential(session, nameOf(svid), terminal.now() / 1000)
      if (kept) return terminal.print(execCredential(info, kept, terminal.now() / 1000))
      const { obtainCredential } = await import('../login/obtain.ts')
      const asked = { settings, svid, interactive: info.interactive, anew: false }
      const credential = await obtainCredential(asked, store, terminal)
      terminal.print(execCredential(info, credential, terminal.now() / 1000))
    },
  ),
}

/** @throws UsageError */
function wantedSvid(values: OptionValues<typeof OPTIONS>, info: ExecInfo, terminal: Terminal): WantedSvid | null {
  const { exchange, issuer: option, audience, 'spiffe-id': spiffeId = null } = values
  if (exchange)
    return { issuer: issuerOf({ issuer: option }, terminal), audience: audienceOf(audience, info, terminal), spiffeId }
  if (option ?? audience ?? spiffeId) throw new UsageError('--issuer, --audience and --spiffe-id are for --exchange')
  return null
}
