/**
 * node bench/vault_login.ts [--rounds 10] [--seconds 1] [--tokens 2000] [--json]
 *
 * A login here beside the same login at a whole Vault, with one API server that both ask about each token. Vault is that of
 * `node scripts/build_go.mjs`: its core, its HTTP server and its Kubernetes auth plugin, with storage in memory.
 */

import { execFileSync, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { FakeCluster } from '../test/support/cluster.ts'
import { FakeApiServer } from '../test/support/kube_api.ts'
import { serveOverTls } from '../test/support/tls_service.ts'
import { post, startWith } from './comparisons.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import { writeConfiguration } from './policies.ts'

const CONNECTIONS = 16
const WARM_UP_ROUNDS = 2
const AUDIENCE = 'spiffe-edge'
const ROLE = {
  bound_service_account_names: ['*'],
  bound_service_account_namespaces: ['*'],
  audience: AUDIENCE,
  token_ttl: 600,
}

process.chdir(resolve(import.meta.dirname, '..'))
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '1' },
    tokens: { type: 'string', default: '2000' },
    json: { type: 'boolean' },
  },
})
const [rounds, seconds, count] = [values.rounds, values.seconds, values.tokens].map(Number) as [number, number, number]
if (!(rounds > 0 && seconds > 0 && count > 0)) throw new Error('all options must be numbers above 0')
const scratch = mkdtempSync(join(tmpdir(), 'spiffe-edge-bench-'))
const load = fork(join(import.meta.dirname, 'load.ts'))
const vault = spawn('build/go/vault-core', ['server'], { stdio: ['pipe', 'pipe', 'ignore'] })
process.on('exit', () => {
  load.kill('SIGKILL')
  vault.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1))

const { address, token: root } = JSON.parse(String((await once(vault.stdout, 'data'))[0]))
execFileSync('node', ['scripts/build.mjs', 'development'], { stdio: ['ignore', 'ignore', 'inherit'] })
const cluster = await FakeCluster.create('bench', { alg: 'RS256', audience: AUDIENCE })
const api = await serveOverTls(new FakeApiServer(cluster))
// Far more than are used within the ten seconds that a yes of the API server is kept here.
const now = Math.floor(Date.now() / 1000)
const logins = await Promise.all(
  Array.from({ length: count }, async (_, index) => {
    const jwt = await cluster.token({ now, claims: { jti: `bench-${index}` } })
    return post('/v1/auth/kubernetes/login', JSON.stringify({ role: 'demo', jwt }), 'application/json')
  }),
)

await write('sys/auth/kubernetes', { type: 'kubernetes' })
await write('auth/kubernetes/config', {
  kubernetes_host: api.url,
  kubernetes_ca_cert: api.ca,
  disable_local_ca_jwt: true,
})
await write('auth/kubernetes/role/demo', ROLE)
const ours = await startProduct()

const sides = {
  ours: { port: ours.port, cpu: ours.cpuMicroseconds },
  vault: { port: Number(new URL(address).port), cpu: () => cpuOf(vault.pid as number) },
}
type Side = keyof typeof sides
interface Sample {
  readonly cpu: number
  readonly rps: number
}
const samples: Record<Side, Sample[]> = { ours: [], vault: [] }
for (let round = -WARM_UP_ROUNDS; round < rounds; round++)
  for (const side of round % 2 === 0 ? (['ours', 'vault'] as const) : (['vault', 'ours'] as const)) {
    const { port, cpu } = sides[side]
    const before = cpu()
    load.send({ port, requests: logins, connections: CONNECTIONS, seconds } satisfies LoadOrder)
    const [report] = (await once(load, 'message')) as [LoadReport]
    if (report.failed > 0) throw new Error(`${side}: ${report.failed} logins failed`)
    if (round >= 0)
      samples[side].push({ cpu: (cpu() - before) / report.answered, rps: report.answered / report.seconds })
  }

if (values.json) console.log(JSON.stringify(samples))
else
  for (const figure of ['cpu', 'rps'] as const) {
    const [left, right] = [samples.ours, samples.vault].map((side) => median(side.map((one) => one[figure]))) as [
      number,
      number,
    ]
    const name = figure === 'cpu' ? 'CPU µs' : 'a second'
    console.log(`${name} ours ${left.toFixed(0)}, Vault ${right.toFixed(0)}, ratio ${(left / right).toFixed(2)}`)
  }
process.exit(0)

async function startProduct() {
  const object = (kind: string, name: string, spec: object) => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind,
    metadata: { name },
    spec,
  })
  const connection = { url: 'https://api.internal', binding: 'CLUSTER_BENCH' }
  const file = writeConfiguration('vault-login', [
    cluster.record({ connection, reviewer: 'client' }),
    object('VaultMount', 'kubernetes', { config: { kubernetes_host: connection.url, cluster: 'bench' } }),
    object('VaultRole', 'kubernetes/demo', ROLE),
  ])
  const tls = `tlsOptions = (trustedCertificates = [${JSON.stringify(api.ca)}])`
  const service = `(name = "CLUSTER_BENCH", external = (address = "${new URL(api.url).host}", https = (options = (), certificateHost = "localhost", ${tls})))`
  const text = readFileSync(file, 'utf8')
    .replace('(name = "state", disk', () => `${service},\n    (name = "state", disk`)
    .replace('(name = "MODE"', '(name = "CLUSTER_BENCH", service = "CLUSTER_BENCH"),\n    (name = "MODE"')
  writeFileSync(file, text)
  const env = { VAULT_TOKEN_KEY: Buffer.alloc(32, 7).toString('base64') }
  return startWith(file, join(scratch, 'ours'), join(scratch, 'ours.log'), env)
}

async function write(path: string, body: object): Promise<void> {
  const headers = { 'x-vault-token': root }
  const { status } = await fetch(`${address}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
  if (status >= 300) throw new Error(`${path}: ${status}`)
}

/** CPU time of all threads, µs. */
function cpuOf(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  const times = threads.map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
  )
  return times.reduce((sum, time) => sum + time, 0) / 1000
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}
