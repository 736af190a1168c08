/**
 * `spiffe-edge credential psat` and `credential oidc-file`: a token that stands in a file, exchanged at the issuer. One is what a kubelet puts into a
 * pod, the other what a CI system or a cloud puts onto its machines. The issuer knows which of its attestors is to judge it.
 */

import { audienceOf, credentialCommand, DEFAULT_TIMEOUT_SECONDS, SVID_OPTIONS } from '../credential.ts'
import { exchangeToken } from '../exchange.ts'
import { execCredential, readExecInfo } from '../exec_credential.ts'
import { UsageError } from '../failure.ts'
import { readToken } from '../input_file.ts'
import { issuerOf } from '../issuer.ts'
import { parseTimeout, patiently } from '../patience.ts'
import type { Terminal } from '../terminal.ts'

const OPTIONS = {
  issuer: { type: 'string', value: 'url', description: 'who exchanges it, by its issuer URL (or SPIFFE_EDGE_ISSUER)' },
  'token-file': { type: 'string', value: 'file', description: 'where the token is (or SPIFFE_EDGE_TOKEN_FILE)' },
  ...SVID_OPTIONS,
} as const

type Values = Parameters<Parameters<typeof credentialCommand<typeof OPTIONS>>[2]>[0]

export const psat = credentialCommand('from the projected service account token of a pod', OPTIONS, exchangeFile)

export const oidcFile = credentialCommand(
  'from a token file of a CI system, a cloud, or whoever else the issuer has as attestor',
  OPTIONS,
  exchangeFile,
)

async function exchangeFile(values: Values, terminal: Terminal): Promise<void> {
  const info = readExecInfo(terminal)
  const issuer = issuerOf(values, terminal)
  const file = values['token-file'] ?? terminal.env.SPIFFE_EDGE_TOKEN_FILE
  if (!file) throw new UsageError('which token? Give --token-file, or set SPIFFE_EDGE_TOKEN_FILE')
  // Standard input is not ours (EX-5).
  if (file === '-') throw new UsageError('--token-file: must be a file')
  const audience = audienceOf(values.audience, info, terminal)
  const spiffeId = values['spiffe-id'] ?? null
  const timeoutSeconds = parseTimeout(values.timeout ?? DEFAULT_TIMEOUT_SECONDS)
  const exchange = async (timeoutMs: number) =>
    // Read anew each time: it is replaced while we wait.
    exchangeToken({ issuer, subjectToken: await readToken(file, terminal), audience, spiffeId, timeoutMs })
  const { svid, expiresAt } = await patiently(exchange, timeoutSeconds, terminal)
  terminal.print(execCredential(info, { token: svid, expiresAt }, terminal.now() / 1000))
}
