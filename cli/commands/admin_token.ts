/** `spiffe-edge admin token`: a token for a client that speaks to the worker by itself, such as Vault's (T-11). */

import type { Command } from 'commander'
import { keyFile, keyring, readAdminKey, signAdminToken } from '../admin_key.ts'
import { group } from '../group.ts'
import { issuerOf } from '../issuer.ts'
import type { Terminal } from '../terminal.ts'

interface Options {
  readonly issuer?: string
  readonly keyFile?: string
}

export function addAdminToken(program: Command, terminal: Terminal): void {
  group(program, 'admin', 'who may change what the worker decides by')
    .command('token')
    .description('print a token that makes its holder you for five minutes, for VAULT_TOKEN and the like')
    .option('--issuer <url>', 'the worker, by its issuer URL (or SPIFFE_EDGE_ISSUER)')
    .option('--key-file <file>', 'the private key, if it is not in the keyring (or SPIFFE_EDGE_ADMIN_KEY_FILE)')
    .action(async (options: Options) => {
      const issuer = issuerOf(options, terminal)
      const path = options.keyFile ?? terminal.env.SPIFFE_EDGE_ADMIN_KEY_FILE
      const key = await readAdminKey(path ? keyFile(path) : keyring(issuer), issuer)
      terminal.print(`${await signAdminToken(key, Math.floor(Date.now() / 1000))}\n`)
    })
}
