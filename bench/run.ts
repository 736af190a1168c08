/**
 * node bench/run.ts [--rounds 20] [--seconds 1] [--connections 32] [--starts 15] [--json]
 *
 * The worker next to the least that it could cost, in the same run and in alternating rounds. README.md has the method
 * and what came out.
 */

import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, release, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import {
  ask,
  type Comparison,
  constantLike,
  get,
  prepareComparisons,
  productLog,
  type Side,
  startProduct,
} from './comparisons.ts'
import type { LoadOrder, LoadReport } from './load.ts'
import type { Server } from './server.ts'

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly connections: number
  readonly starts: number
}

interface Sample {
  readonly answered: number
  readonly rps: number
  /** CPU time of the server's process for each request, in µs. */
  readonly cpu: number
  /** The same of the load's process: where it comes near the time that a request takes, the load is what is measured. */
  readonly loadCpu: number
}

interface Round {
  readonly product: Sample
  readonly baseline: Sample
}

/** Until the runtime has compiled what it will compile. */
const WARM_UP_ROUNDS = 4

process.chdir(resolve(import.meta.dirname, '..'))
const scratch = mkdtempSync(join(tmpdir(), 'spiffe-edge-bench-'))
const load = fork(join(import.meta.dirname, 'load.ts'))
process.on('exit', () => {
  load.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1))
await main()
process.exit(0)

async function main(): Promise<void> {
  const { json, ...options } = readOptions()
  say('building')
  const bundles = build()

  const product = await startProduct(scratch)
  const comparisons = await prepareComparisons(product, scratch)
  const startConstant = await constantLike(product, '/keys', scratch)
  const auditLinesBefore = countAuditLines()
  let exchanges = 0
  const measured: Round[][] = comparisons.map(() => [])
  const before = machineTime()
  for (let round = -WARM_UP_ROUNDS; round < options.rounds; round++) {
    say(round < 0 ? 'warming up' : `round ${round + 1} of ${options.rounds}`)
    for (const [index, comparison] of comparisons.entries()) {
      const sample = await compare(comparison, round % 2 === 0, options)
      if (comparison.name === 'exchange') exchanges += sample.product.answered
      if (round >= 0) measured[index]?.push(sample)
    }
  }
  const after = machineTime()
  const auditLines = countAuditLines() - auditLinesBefore
  if (auditLines !== exchanges) throw new Error(`${exchanges} exchanges have left ${auditLines} audit lines`)
  await product.stop()

  say('starting')
  const startUp = await measureStarts(startConstant, options.starts)
  const report = {
    machine: `${cpus().length} × ${cpus()[0]?.model}, Linux ${release()}`,
    workerd: (createRequire(import.meta.url)('workerd/package.json') as { version: string }).version,
    options,
    stolen: (after.stolen - before.stolen) / (after.all - before.all),
    comparisons: comparisons.map(({ name, goal, baseline }, index) => {
      const rounds = measured[index] ?? []
      return { name, goal, baseline: baseline.name, ...summarize(rounds), rounds }
    }),
    exchanges: { answered: exchanges, auditLines },
    startUp,
    bundles,
  }
  if (json) console.log(JSON.stringify(report, null, 2))
  else print(report)
}

function readOptions(): Options & { json: boolean } {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '20' },
      seconds: { type: 'string', default: '1' },
      connections: { type: 'string', default: '32' },
      starts: { type: 'string', default: '15' },
      json: { type: 'boolean', default: false },
    },
  })
  const { json, ...texts } = values
  const positive = (name: keyof Options): number => {
    const value = Number(texts[name])
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0`)
    return value
  }
  return {
    rounds: positive('rounds'),
    seconds: positive('seconds'),
    connections: positive('connections'),
    starts: positive('starts'),
    json,
  }
}

/** Progress goes to stderr: stdout is the report's. */
function say(text: string): void {
  console.error(text)
}

/** @returns the sizes of the worker's bundles, as wrangler prints them */
function build(): string[] {
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  for (const entry of ['constant', 'bare']) {
    const source = `bench/workers/${entry}.ts`
    run('wrangler', 'deploy', source, '--config=bench/workers/wrangler.toml', '--dry-run', '--outdir=dist/bench')
  }
  return run('node', 'scripts/build.mjs', 'production', 'development').trim().split('\n')
}

async function compare({ product, baseline }: Comparison, productFirst: boolean, options: Options): Promise<Round> {
  if (productFirst) return { product: await measure(product, options), baseline: await measure(baseline, options) }
  const first = await measure(baseline, options)
  return { product: await measure(product, options), baseline: first }
}

async function measure({ name, server, requests }: Side, { connections, seconds }: Options): Promise<Sample> {
  const before = server.cpuMicroseconds()
  load.send({ port: server.port, requests, connections, seconds } satisfies LoadOrder)
  const [report] = (await once(load, 'message')) as [LoadReport]
  const spent = server.cpuMicroseconds() - before
  const { answered, failed } = report
  if (failed > 0) throw new Error(`${name}: ${failed} of ${answered + failed} requests failed`)
  return {
    answered,
    rps: answered / report.seconds,
    cpu: spent / answered,
    loadCpu: (report.cpuSeconds * 1e6) / answered,
  }
}

/** Time of all cores, in ticks, and how much of it the host gave to others: a run with more than a few percent is noise. */
function machineTime(): { all: number; stolen: number } {
  const [, ...ticks] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]?.split(/\s+/).map(Number) ?? []
  // user, nice, system, idle, iowait, irq, softirq, steal; what guests got is in the first two already.
  return { all: ticks.slice(0, 8).reduce((sum, value) => sum + value, 0), stolen: ticks[7] ?? 0 }
}

/** Every exchange is written down, or the bench measures something else than the product. */
function countAuditLines(): number {
  return readFileSync(productLog(scratch), 'utf8').split('"event":"decision"').length - 1
}

/** CPU time from spawning to the first 200 on `/keys`, in ms. The product finds its storage as it left it. */
async function measureStarts(startConstant: () => Promise<Server>, starts: number) {
  const one = async (start: () => Promise<Server>) => {
    const server = await start()
    await ask(server, get('/keys'))
    const spent = server.cpuMicroseconds() / 1000
    await server.stop()
    return spent
  }
  const product: number[] = []
  const constant: number[] = []
  for (let i = 0; i < starts; i++) {
    product.push(await one(() => startProduct(scratch)))
    constant.push(await one(startConstant))
  }
  return { product, constant }
}

function summarize(rounds: readonly Round[]) {
  const medians = (side: keyof Round): Omit<Sample, 'answered'> => ({
    rps: median(rounds.map((round) => round[side].rps)),
    cpu: median(rounds.map((round) => round[side].cpu)),
    loadCpu: median(rounds.map((round) => round[side].loadCpu)),
  })
  return {
    product: medians('product'),
    baselineMedians: medians('baseline'),
    /** Of the two halves of each round, which had the same neighbours on the machine; 1 is as fast as the baseline. */
    ratio: {
      rps: median(rounds.map(({ product, baseline }) => product.rps / baseline.rps)),
      cpu: median(rounds.map(({ product, baseline }) => baseline.cpu / product.cpu)),
    },
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
}

function print(report: {
  machine: string
  workerd: string
  options: Options
  stolen: number
  comparisons: readonly (ReturnType<typeof summarize> & {
    name: string
    goal: number
    baseline: string
    rounds: readonly Round[]
  })[]
  exchanges: { answered: number; auditLines: number }
  startUp: { product: readonly number[]; constant: readonly number[] }
  bundles: readonly string[]
}): void {
  const { machine, workerd, options, stolen, comparisons, exchanges, startUp, bundles } = report
  const { rounds, seconds, connections } = options
  console.log(`${machine}; workerd ${workerd}; ${rounds} rounds of ${seconds} s, ${connections} connections`)
  console.log(`${(100 * stolen).toFixed(1)} % of the machine's time was stolen`)
  for (const { name, goal, baseline, product, baselineMedians, ratio, rounds: raw } of comparisons) {
    const rows = raw.map(({ product: ours, baseline: theirs }) => [ours, theirs] as const)
    console.log(`\n${name.padEnd(10)} product: rps  CPU µs   ${baseline}: rps  CPU µs   ratio: rps    CPU`)
    for (const [index, [ours, theirs]] of rows.entries())
      console.log(row(`round ${index + 1}`, ours, theirs, ours.rps / theirs.rps, theirs.cpu / ours.cpu, baseline))
    console.log(row('median', product, baselineMedians, ratio.rps, ratio.cpu, baseline))
    const reached = ratio.rps >= goal ? 'reached' : 'missed'
    const loads = `${product.loadCpu.toFixed(0)} and ${baselineMedians.loadCpu.toFixed(0)}`
    console.log(`goal ${goal} ${reached}; the load itself used ${loads} µs for each request`)
  }
  console.log(`\n${exchanges.answered} exchanges left ${exchanges.auditLines} audit lines`)
  console.log('\nstart-up, CPU ms to the first 200 on /keys')
  for (const [name, values] of Object.entries(startUp))
    console.log(
      `${name.padEnd(10)} median ${median(values).toFixed(1)}  of ${values.map((ms) => ms.toFixed(1)).join(' ')}`,
    )
  console.log(`\nbundles\n${bundles.join('\n')}`)
}

function row(
  title: string,
  ours: Omit<Sample, 'answered'>,
  theirs: Omit<Sample, 'answered'>,
  rps: number,
  cpu: number,
  baseline: string,
): string {
  const numbers = (sample: Omit<Sample, 'answered'>, width: number) =>
    `${sample.rps.toFixed(0).padStart(width)}${sample.cpu.toFixed(1).padStart(8)}`
  const theirWidth = baseline.length + 8
  return `${title.padEnd(10)}${numbers(ours, 13)}${numbers(theirs, theirWidth)}${rps.toFixed(3).padStart(13)}${cpu.toFixed(3).padStart(7)}`
}
