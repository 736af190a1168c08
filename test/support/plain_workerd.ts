/** The built worker in plain workerd, started as an operator would start it and seen from outside only. */

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'

const { default: workerd } = createRequire(import.meta.url)('workerd') as { default: string }

/** A certificate with its key, both PEM, and the CA that it chains to. */
export interface TlsPair {
  readonly certificate: string
  readonly key: string
}

export interface PlainWorkerdOptions {
  /** Which build: `index.ts` or `development.ts`. */
  readonly entry: 'production' | 'development'
  /** Text bindings. `{port}` in a value becomes the port that was chosen. */
  readonly env: Readonly<Record<string, string>>
  readonly manifest?: string
  /** Serve https with this pair instead of http. */
  readonly tls?: TlsPair
  /** PEM certificates that outbound TLS trusts besides the usual ones. */
  readonly trusted?: string
  /** API servers by the name of their binding, each with the one CA that it is reached by. */
  readonly clusters?: Readonly<Record<string, { readonly address: string; readonly ca: string }>>
  /** Folders by the name of their binding. */
  readonly disks?: Readonly<Record<string, string>>
  /** A folder that outlives the process. A new one is made, and removed at the end, where none is given. */
  readonly state?: string
  readonly port?: number
}

export interface PlainWorkerd {
  readonly port: number
  readonly origin: string
  /** What the worker has logged, parsed; lines that are no JSON are workerd's own. */
  readonly log: Record<string, unknown>[]
  /** Ends the process: by default as a supervisor does, with SIGKILL as a power cut does. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

/** @returns when it listens */
export async function startPlainWorkerd(options: PlainWorkerdOptions): Promise<PlainWorkerd> {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-workerd-'))
  const state = options.state ?? join(folder, 'state')
  mkdirSync(state, { recursive: true })
  const port = options.port ?? (await freePort())
  writeFileSync(join(folder, 'config.capnp'), configFor(options, folder, state, port))

  const child = spawn(workerd, ['serve', join(folder, 'config.capnp'), '--control-fd=3'], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const log: Record<string, unknown>[] = []
  collectLines(child, log)
  await new Promise<void>((listening, failed) => {
    child.stdio[3]?.once('data', () => listening())
    child.once('exit', (code) => failed(new Error(`workerd ended with ${code}: ${JSON.stringify(log)}`)))
  })
  return {
    port,
    origin: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    log,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal)
        await new Promise((ended) => child.once('exit', ended))
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** A port that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const { createServer } = await import('node:net')
  return new Promise((found, failed) => {
    const server = createServer().once('error', failed)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => found(port))
    })
  })
}

function collectLines(child: ChildProcess, log: Record<string, unknown>[]): void {
  for (const stream of [child.stdout, child.stderr]) {
    let rest = ''
    stream?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        try {
          log.push(JSON.parse(line))
        } catch {
          log.push({ workerd: line })
        }
      }
    })
  }
}

/** The services of `deploy/workerd`, with this test's port, state and secrets. `test/deployment.test.ts` holds them together. */
function configFor(options: PlainWorkerdOptions, folder: string, state: string, port: number): string {
  const text = (value: string) => JSON.stringify(value)
  // A path that begins with a slash would be looked up among workerd's own schemas.
  const embed = (path: string) => `embed ${text(relative(folder, resolve(path)))}`
  const module = options.entry === 'production' ? 'index.js' : 'development.js'
  const deployed = ['KeyState', 'PolicyState', 'FederationState', 'TokenState']
  const objects = options.entry === 'production' ? deployed : [...deployed, 'DemoCluster']
  const bindings = objects.map((name) => {
    const binding = name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()
    return `(name = "${binding}", durableObjectNamespace = "${name}")`
  })
  for (const [name, value] of Object.entries(options.env))
    bindings.push(`(name = ${text(name)}, text = ${text(value.replaceAll('{port}', String(port)))})`)
  const clusters = Object.entries(options.clusters ?? {})
  for (const [name] of clusters) bindings.push(`(name = "${name}", service = "${name}")`)
  const externals = clusters.map(
    ([name, { address, ca }]) =>
      `    (name = "${name}", external = (address = ${text(address)}, https = (options = (), certificateHost = "localhost", tlsOptions = (trustedCertificates = [${text(ca)}])))),\n`,
  )
  for (const [name, path] of Object.entries(options.disks ?? {})) {
    bindings.push(`(name = "${name}", service = "${name}")`)
    externals.push(`    (name = "${name}", disk = (path = ${text(path)})),\n`)
  }
  writeFileSync(join(folder, 'manifest.yaml'), options.manifest ?? '')
  const socket = options.tls
    ? `https = (options = (), tlsOptions = (keypair = (privateKey = ${text(options.tls.key)}, certificateChain = ${text(options.tls.certificate)})))`
    : 'http = ()'
  const trusted = options.trusted === undefined ? '' : `, trustedCertificates = [${text(options.trusted)}]`
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "state", disk = (path = ${text(state)}, writable = true)),
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true${trusted}))),
${externals.join('')}  ],
  sockets = [(name = "main", address = "127.0.0.1:${port}", service = "main", ${socket})],
);
const main :Workerd.Worker = (
  modules = [
    (name = "${module}", esModule = ${embed(`dist/${options.entry}/${module}`)}),
    (name = "manifest.yaml", text = ${embed(join(folder, 'manifest.yaml'))}),
  ],
  compatibilityDate = "2026-11-01",
  compatibilityFlags = ["no_nodejs_compat"],
  durableObjectNamespaces = [${objects.map((name) => `(className = "${name}", uniqueKey = "spiffe-edge-${name}", enableSql = true)`).join(', ')}],
  durableObjectStorage = (localDisk = "state"),
  bindings = [${bindings.join(', ')}],
);
`
}
