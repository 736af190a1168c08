/** `spiffe-edge revoke token`: API servers are told to refuse one token, by its id. */

import { createHash } from 'node:crypto'
import type { Command } from 'commander'
import { KUBERNETES_NAME } from '../../worker/policy/cluster.ts'
import { TokenId } from '../../worker/policy/revocation.ts'
import { MAX_JWT_SVID_TTL_SECONDS } from '../../worker/spiffe/jwt_svid.ts'
import { type AdminOptions, adminOptions, openAdminClient } from '../admin_client.ts'
import { Failure, UsageError } from '../failure.ts'
import { group } from '../group.ts'
import { refuseFromNowOn } from '../objects/banning.ts'
import { REVOKE } from '../objects/revocation.ts'
import type { Terminal } from '../terminal.ts'

/** How far this clock, the worker's and an API server's may be apart. A worker takes no administrator whose is further off. */
const CLOCK_SKEW_SECONDS = 600
/** What lasts longer was given in milliseconds, and would take the place of others for ever. */
const MAX_AHEAD_SECONDS = 86_400

interface Options extends AdminOptions {
  readonly expiresAt?: string
  readonly reason?: string
}

export function addRevokeToken(program: Command, terminal: Terminal): void {
  adminOptions(
    group(program, ...REVOKE)
      .command('token')
      .description('have API servers refuse one token')
      .argument('<jti>', "`jti` in the worker's log, or else `id`; the credential id in an API server's audit log")
      .option('--expires-at <seconds>', "the token's `exp`, if it is known; else as long as any token lives")
      .option('--reason <text>', 'for those who look at it later'),
  ).action(async (jti: string, options: Options) => {
    // Not to be repeated in a message: it may be the token itself.
    if (!TokenId.safeParse(jti).success) throw new UsageError('<jti>: not the id of a token')
    const now = Math.floor(Date.now() / 1000)
    const given = options.expiresAt === undefined ? null : parseTime(options.expiresAt, now)
    const usual = now + MAX_JWT_SVID_TTL_SECONDS + CLOCK_SKEW_SECONDS
    const client = await openAdminClient(options, terminal)
    await refuseFromNowOn(client, { kind: 'Revocation', name: nameOf(jti) }, terminal, (present) => {
      if (present && present.spec.jti !== jti)
        throw new Failure(`there is a Revocation/${nameOf(jti)} already, of another token`)
      // Whoever revokes it once more does not mean to have it back sooner, unless they say so.
      const before = present?.spec.expiresAt
      const expiresAt = given ?? Math.max(usual, typeof before === 'number' ? before : 0)
      return { jti, expiresAt, ...(options.reason !== undefined && { reason: options.reason }) }
    })
    terminal.say('An API server refuses it once its file is synced. Elsewhere it is good until it ends.')
  })
}

function nameOf(jti: string): string {
  return KUBERNETES_NAME.test(jti) ? jti : `token-${createHash('sha256').update(jti).digest('hex').slice(0, 12)}`
}

function parseTime(text: string, now: number): number {
  const seconds = Number(text)
  if (!/^\d{1,16}$/.test(text)) throw new UsageError('--expires-at: not seconds since the epoch')
  if (seconds <= now) throw new UsageError('--expires-at: is over')
  if (seconds > now + MAX_AHEAD_SECONDS) throw new UsageError('--expires-at: no token lives so long. Write seconds')
  return seconds
}
