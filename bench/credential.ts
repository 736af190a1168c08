/**
 * node bench/credential.ts [--rounds 60] [--also 'NAME=COMMAND …']… [--json]
 *
 * What somebody waits for at each kubectl: a credential plugin from its start to its end, beside Node that does nothing and beside thirty lines of
 * go-spiffe. Commands that are given with --also get the same environment, so that another form of the program can be one of them.
 */

import { existsSync } from 'node:fs'
import { delimiter, dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { SessionStore } from '../cli/login/session_store.ts'
import { Folder } from '../test/support/cli.ts'
import { FakeCluster, POD } from '../test/support/cluster.ts'
import { createSigner, startWorkloadApi } from '../test/support/exec_plugin.ts'
import { makeHome, openSession } from '../test/support/keyring.ts'
import { startLineProgram } from '../test/support/lines.ts'
import { createCa } from '../test/support/pki.ts'
import { freePort, startPlainWorkerd } from '../test/support/plain_workerd.ts'
import { manifest } from '../test/support/policy.ts'

const WARM_UP_ROUNDS = 5
const BASELINE = 'node -e 0'
/** What `node scripts/build_cli.mjs` makes. */
const PACKAGED = 'dist/npm/main.cjs'
const SINGLE_FILE = 'dist/single-file/spiffe-edge'

process.chdir(resolve(import.meta.dirname, '..'))
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '60' },
    also: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean' },
  },
})
const rounds = Number(values.rounds)
if (!(rounds > 0)) throw new Error('--rounds must be a number above 0')
const folder = new Folder()
process.on('exit', () => folder.remove())

const api = await startWorkloadApi(folder, createSigner())
await api.behave({ identities: [{ spiffeId: 'spiffe://example.org/host/one' }] })
const issuer = await startIssuer()
const stopwatch = await startLineProgram('build/go/exec-plugin', ['stopwatch'])

/** As npm installs it: a file that names its interpreter. */
const program = resolve(existsSync(PACKAGED) ? PACKAGED : 'cli/main.ts')
const home = makeHome()
const session = await openSession('unlocked', home.path)
const env = {
  PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
  ...session.env,
  SPIFFE_ENDPOINT_SOCKET: api.address,
  SPIFFE_EDGE_ISSUER: issuer.url,
  SPIFFE_EDGE_TOKEN_FILE: issuer.tokenFile,
  KUBERNETES_EXEC_INFO: JSON.stringify({
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    spec: { interactive: false },
  }),
}

interface Measured {
  readonly command: readonly string[]
  readonly env: Readonly<Record<string, string>>
}
const commands = new Map<string, Measured>([
  [BASELINE, { command: [process.execPath, '-e', '0'], env }],
  ['go-spiffe', { command: [resolve('build/go/go-spiffe-plugin')], env }],
])
const forms = existsSync(SINGLE_FILE) ? [program, resolve(SINGLE_FILE)] : [program]
for (const form of forms) {
  const name = form === program ? 'credential' : 'single file: credential'
  commands.set(`${name} workload-api`, { command: [form, 'credential', 'workload-api'], env })
  // The roots are read with it, so the others have none.
  const trusting = { ...env, NODE_EXTRA_CA_CERTS: issuer.caFile }
  commands.set(`${name} oidc`, { command: [form, 'credential', 'oidc', ...(await keepLogin())], env })
  commands.set(`${name} psat`, { command: [form, 'credential', 'psat'], env: trusting })
}
for (const one of values.also) {
  const [, name, command] = /^([^=]+)=(.+)$/s.exec(one) ?? []
  if (!name || !command) throw new Error('--also NAME=COMMAND …')
  commands.set(name, { command: command.split(' '), env })
}

interface Sample {
  readonly wall: number
  readonly cpu: number
}
const samples = new Map([...commands.keys()].map((name) => [name, [] as Sample[]]))
const names = [...commands.keys()]
for (let round = -WARM_UP_ROUNDS; round < rounds; round++)
  for (const name of round % 2 === 0 ? names : names.toReversed()) {
    const sample = await measure(name)
    if (round >= 0) samples.get(name)?.push(sample)
  }

if (values.json) console.log(JSON.stringify({ program, samples: Object.fromEntries(samples) }))
else {
  console.log(`${program}, Node ${process.version}, medians of ${rounds} rounds`)
  for (const [name, own] of samples) {
    const figure = (kind: keyof Sample) => {
      const ratios = own.map((one, round) => one[kind] / (samples.get(BASELINE)?.[round]?.[kind] as number))
      return `${(median(own.map((one) => one[kind])) / 1000).toFixed(1).padStart(7)} ms ${median(ratios).toFixed(2).padStart(5)}`
    }
    console.log(`${name.padEnd(36)} wall ${figure('wall')}   CPU ${figure('cpu')}`)
  }
}
await Promise.all([stopwatch.stop(), api.stop(), issuer.stop(), session.stop()])
home.remove()
process.exit(0)

/** @returns the options of a login that is in the keyring */
async function keepLogin(): Promise<string[]> {
  const [issuer, clientId] = ['https://login.example.org', 'kubernetes']
  const claims = Buffer.from(JSON.stringify({ sub: 'alice', groups: Array(20).fill('a-group-of-usual-length') }))
  const kept = {
    token: `eyJhbGciOiJSUzI1NiJ9.${claims.toString('base64url')}.${'s'.repeat(342)}`,
    expiresAt: Math.floor(Date.now() / 1000) + 86_400,
    subject: 'alice',
    refreshToken: 'r'.repeat(64),
    svids: [],
  }
  Object.assign(process.env, session.env)
  await new SessionStore(env).write({ issuer, clientId, token: 'id', scope: null, parameters: [] }, kept, true)
  return ['--issuer-url', issuer, '--client-id', clientId]
}

/** @returns µs */
async function measure(name: string): Promise<Sample> {
  const [answer = {}] = await stopwatch.ask([commands.get(name)])
  const { exitCode, stdout, stderr, wallMicroseconds, cpuMicroseconds } = answer
  if (exitCode !== 0 || (name !== BASELINE && !String(stdout).includes('ExecCredential')))
    throw new Error(`${name}: ${exitCode}\n${stderr}`)
  return { wall: Number(wallMicroseconds), cpu: Number(cpuMicroseconds) }
}

/** The worker over TLS, with a cluster whose pod has a token in a file. */
async function startIssuer() {
  const cluster = await FakeCluster.create('bench', { alg: 'RS256' })
  const ca = await createCa()
  const port = await freePort()
  const url = `https://localhost:${port}`
  const worker = await startPlainWorkerd({
    entry: 'development',
    env: { MODE: 'development', ISSUER: url, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
    manifest: manifest(cluster.record(), {
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name: 'pod' },
      spec: {
        clusters: ['bench'],
        selector: { namespace: POD.namespace, serviceAccountName: POD.serviceAccount.name },
        audiences: ['k8s'],
      },
    }),
    tls: await ca.issue('localhost', '127.0.0.1'),
    port,
  })
  return {
    url,
    caFile: folder.write(ca.certificate),
    tokenFile: folder.write(await cluster.token({ now: Math.floor(Date.now() / 1000) }), 'token', 0o600),
    stop: () => worker.stop(),
  }
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}
