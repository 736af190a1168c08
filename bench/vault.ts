/**
 * node bench/vault.ts [--tokens 100000] [--rounds 10] [--seconds 1] [--json]
 *
 * What a login and a look-up of Vault's cost where few tokens are alive, and where very many are. Both workers run at once
 * and are loaded in alternating rounds.
 */

import { execFileSync, fork } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ask, get, post, startWith } from './comparisons.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { cluster, subjectToken, writeConfiguration } from './policies.ts'
import type { Server } from './server.ts'

const FEW = 10
const CONNECTIONS = 32
const WARM_UP_ROUNDS = 3
/** Of the cost with few tokens. */
const GOAL = 1.3

process.chdir(resolve(import.meta.dirname, '..'))
const { values } = parseArgs({
  options: {
    tokens: { type: 'string', default: '100000' },
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '1' },
    json: { type: 'boolean' },
  },
})
const [tokens, rounds, seconds] = [values.tokens, values.rounds, values.seconds].map(Number) as [number, number, number]
if (!(tokens > 0 && rounds > 0 && seconds > 0)) throw new Error('all options must be numbers above 0')
const scratch = mkdtempSync(join(tmpdir(), 'spiffe-edge-bench-'))
const load = fork(join(import.meta.dirname, 'load.ts'))
process.on('exit', () => {
  load.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1))

execFileSync('node', ['scripts/build.mjs', 'development'], { stdio: ['ignore', 'ignore', 'inherit'] })
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const object = (kind: string, name: string, spec: object) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind,
  metadata: { name },
  spec,
})
const configuration = writeConfiguration('vault', [
  cluster(0, publicKey),
  object('VaultMount', 'kubernetes', { config: { kubernetes_host: 'https://elsewhere', cluster: 'cluster-0' } }),
  object('VaultRole', 'kubernetes/demo', {
    bound_service_account_names: ['*'],
    bound_service_account_namespaces: ['*'],
  }),
])
const env = { VAULT_TOKEN_KEY: Buffer.alloc(32, 7).toString('base64') }
const start = (name: string) => startWith(configuration, join(scratch, name), join(scratch, `${name}.log`), env)
const logins = Array.from({ length: 32 }, () =>
  post(
    '/v1/auth/kubernetes/login',
    JSON.stringify({ role: 'demo', jwt: subjectToken(privateKey) }),
    'application/json',
  ),
)

const servers = { few: await start('few'), many: await start('many') }
type Side = keyof typeof servers
const lookups = { few: await lookupsAt(servers.few), many: await lookupsAt(servers.many) }
let alive = FEW
while (alive < tokens) alive += (await drive(servers.many, logins, 5)).answered
const WORKS = ['lookup', 'login'] as const
type Work = (typeof WORKS)[number]
const samples = { lookup: [] as Sample[], login: [] as Sample[] }
interface Sample {
  readonly few: number
  readonly many: number
}
// Look-ups first: each login makes the few one more.
for (const work of WORKS)
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    const cpu = { few: 0, many: 0 }
    const sides: Side[] = round % 2 === 0 ? ['few', 'many'] : ['many', 'few']
    for (const side of sides) cpu[side] = await measure(side, work)
    if (round >= 0) samples[work].push(cpu)
  }
await Promise.all(Object.values(servers).map((server) => server.stop()))

if (values.json) console.log(JSON.stringify({ alive, samples }))
else {
  console.log(`${alive} tokens beside ${FEW}`)
  for (const work of WORKS) {
    const ratio = median(samples[work].map(({ few, many }) => many / few))
    const [few, many] = (['few', 'many'] as const).map((side) => median(samples[work].map((sample) => sample[side])))
    console.log(
      `${work.padEnd(6)} few ${few?.toFixed(0)} CPU µs, many ${many?.toFixed(0)} CPU µs, ratio ${ratio.toFixed(2)}: ${ratio <= GOAL ? 'within' : 'above'} ${GOAL}`,
    )
  }
}
process.exit(0)

/** @returns look-ups of a few tokens that the server has given */
async function lookupsAt(server: Server): Promise<string[]> {
  const requests: string[] = []
  for (const login of logins.slice(0, FEW)) {
    const { client_token: token } = JSON.parse((await ask(server, login)).body).auth
    requests.push(get('/v1/auth/token/lookup-self').replace('\r\n\r\n', `\r\nX-Vault-Token: ${token}\r\n\r\n`))
  }
  return requests
}

/** @returns CPU time of the server for each request, µs */
async function measure(side: Side, work: Work): Promise<number> {
  const server = servers[side]
  const before = server.cpuMicroseconds()
  const { answered } = await drive(server, work === 'login' ? logins : lookups[side], seconds)
  return (server.cpuMicroseconds() - before) / answered
}

async function drive({ port }: Server, requests: readonly string[], time: number): Promise<LoadReport> {
  load.send({ port, requests, connections: CONNECTIONS, seconds: time } satisfies LoadOrder)
  const [report] = (await once(load, 'message')) as [LoadReport]
  if (report.failed > 0) throw new Error(`${report.failed} requests failed`)
  return report
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}
