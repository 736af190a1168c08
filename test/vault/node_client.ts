/**
 * node-vault as a client of a Vault-compatible API: takes steps from standard input as `vault-peers client` does.
 *
 *     node_client.ts --address URL [--ca FILE]
 *
 * README.md describes what goes in and what comes out.
 */

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import createClient, { type ApiResponseError } from 'node-vault'

interface Asked {
  readonly step: string
  readonly mount: string
  readonly role: string
  readonly jwtFile: string
  readonly token: string
  readonly accessor: string
  readonly increment?: number
  readonly path: string
  readonly data?: object
}

const { values } = parseArgs({ options: { address: { type: 'string' }, ca: { type: 'string' } } })
const { address, ca } = values
if (address === undefined) throw new TypeError('--address is required')

const client = createClient({ endpoint: address, ...(ca && { requestOptions: { ca: readFileSync(ca) } }) })
let status = 0
// node-vault keeps the status to itself unless it is an error.
const handle = client.handleVaultResponse
client.handleVaultResponse = (response) => {
  status = response?.statusCode ?? 0
  return handle(response)
}

const STEPS: Readonly<Record<string, (asked: Asked) => Promise<unknown>>> = {
  login: ({ role, mount, jwtFile }) =>
    client.kubernetesLogin({ role, mount_point: mount, jwt: readFileSync(jwtFile, 'utf8') }),
  'set-token': async ({ token }) => {
    client.token = token
  },
  'lookup-self': () => client.tokenLookupSelf(),
  'renew-self': ({ increment }) => client.tokenRenewSelf(increment === undefined ? {} : { increment }),
  'revoke-self': () => client.tokenRevokeSelf(),
  lookup: ({ token }) => client.tokenLookup({ token }),
  'lookup-accessor': ({ accessor }) => client.tokenLookupAccessor({ accessor }),
  'revoke-accessor': ({ accessor }) => client.tokenRevokeAccessor({ accessor }),
  read: ({ path }) => client.read(path),
  write: ({ path, data }) => client.write(path, data),
  list: ({ path }) => client.list(path),
  delete: ({ path }) => client.delete(path),
  enable: ({ mount }) => client.enableAuth({ mount_point: mount, type: 'kubernetes' }),
  disable: ({ mount }) => client.disableAuth({ mount_point: mount }),
  mounts: () => client.auths(),
  health: () => client.health(),
  'seal-status': () => client.status(),
  leader: () => client.leader(),
}

const print = (line: object) => console.log(JSON.stringify(line))

const { version } = createRequire(import.meta.url)('node-vault/package.json')
print({ ready: true, version: `node-vault ${version}` })
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line) as Asked
  const { step } = asked
  const take = STEPS[step]
  if (!take) throw new TypeError(`no step ${step}`)
  status = 0
  try {
    // An empty body is an empty text to node-vault.
    const data = (await take(asked)) || null
    print({ step, ok: true, status, data })
  } catch (error) {
    print({ step, ok: false, status, error: (error as ApiResponseError).message, data: null })
  }
}
