/**
 * node bench/x509.ts [--rounds 10] [--json]
 *
 * What an X.509-SVID costs inside workerd, next to the cryptography in it and to the library that could write it. No HTTP
 * is in these figures: each request asks for many.
 */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type Server, startServer } from './server.ts'

const WORKS = ['bare', 'request', 'product', 'library'] as const
type Work = (typeof WORKS)[number]
/** So many that the request that asks for them is below 1 % of what is measured. */
const TIMES = 250
const WARM_UP_ROUNDS = 4
/** SPIRE's MintX509SVID with P-256, by 16 clients on two cores: 3,313 a second. To reach is one and a half times that. */
const GOAL_PER_CORE = (1.5 * 3313) / 2

process.chdir(resolve(import.meta.dirname, '..'))
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '10' }, json: { type: 'boolean' } } })
const rounds = Number(values.rounds)
if (!(rounds > 0)) throw new Error('--rounds must be a number above 0')
const scratch = mkdtempSync(join(tmpdir(), 'spiffe-edge-bench-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))

const toml = '--config=bench/workers/wrangler.toml'
execFileSync('wrangler', ['deploy', 'bench/workers/x509.ts', toml, '--dry-run', '--outdir=dist/bench'], {
  stdio: ['ignore', 'ignore', 'inherit'],
})
const server = await startServer(['bench/workers/x509.capnp', 'x509'], {}, join(scratch, 'x509.log'))
const samples: Record<Work, number[]> = { bare: [], request: [], product: [], library: [] }
for (let round = -WARM_UP_ROUNDS; round < rounds; round++)
  for (const work of round % 2 === 0 ? WORKS : WORKS.toReversed()) {
    const cpu = await measure(server, work)
    if (round >= 0) samples[work].push(cpu)
  }
await server.stop()

const cpu = (work: Work) => median(samples[work])
const ratio = (other: Work) => median(samples.product.map((ours, round) => (samples[other][round] as number) / ours))
if (values.json) console.log(JSON.stringify(samples))
else {
  for (const work of WORKS)
    console.log(
      `${work.padEnd(8)} ${cpu(work).toFixed(1).padStart(8)} CPU µs  ${(1e6 / cpu(work)).toFixed(0).padStart(7)} /s and core`,
    )
  console.log(`product by bare ${ratio('bare').toFixed(2)}, by library ${ratio('library').toFixed(2)}`)
  console.log(
    `goal ${GOAL_PER_CORE.toFixed(0)} /s and core ${1e6 / cpu('product') >= GOAL_PER_CORE ? 'reached' : 'missed'}`,
  )
}
process.exit(0)

/** @returns CPU time of workerd, of all its threads, for each time; µs */
async function measure({ port, cpuMicroseconds }: Server, work: Work): Promise<number> {
  const before = cpuMicroseconds()
  const response = await fetch(`http://127.0.0.1:${port}/${work}?times=${TIMES}`)
  const spent = cpuMicroseconds() - before
  if ((await response.text()) !== String(TIMES)) throw new Error(`${work}: ${response.status}`)
  return spent / TIMES
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}
