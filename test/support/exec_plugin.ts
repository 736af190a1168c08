/** Exec plugins as kubectl and client-go run them, and the Workload API that they ask. test/exec_plugin/README.md has the programs. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import type { Folder } from './cli.ts'
import { startLineProgram } from './lines.ts'

export const KUBECTL = resolve('build/go/kubectl')
export const SEED_PLUGIN = 'k8s-spiffe-workload-jwt-exec-auth'

export interface Identity {
  readonly spiffeId: string
  readonly hint?: string
  /** 300 if absent. */
  readonly lifetimeSeconds?: number
  /** Laid over the usual ones; null removes one. */
  readonly claims?: Readonly<Record<string, unknown>>
  /** Sent in place of a token. */
  readonly svid?: string
}

export interface Behaviour {
  readonly identities?: readonly Identity[]
  readonly refuse?: { readonly code: number; readonly message?: string; readonly times?: number }
  readonly fault?: 'hang' | 'mute' | 'no-http2' | 'hang-up' | 'break-off' | 'garbage' | 'huge' | 'empty'
  readonly listenAfterMilliseconds?: number
  readonly stale?: boolean
}

export interface Call {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly audience: readonly string[] | null
  readonly spiffeId: string
  readonly securityHeader: readonly string[] | null
  /** Of gRPC. */
  readonly code: number
}

export interface WorkloadApi {
  /** As in `SPIFFE_ENDPOINT_SOCKET`. */
  readonly address: string
  /** @returns the calls since the last time */
  behave(behaviour: Behaviour): Promise<readonly Call[]>
  stop(): Promise<void>
}

/**
 * Nothing listens until it is told how to behave.
 *
 * @param signer an ES256 key with its `kid`, and the issuer that publishes it
 */
export async function startWorkloadApi(
  folder: Folder,
  signer: { readonly privateKey: KeyObject; readonly kid: string; readonly issuer: string },
  address = `unix://${join(folder.path, 'workload-api.sock')}`,
): Promise<WorkloadApi> {
  const pem = signer.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  const key = folder.write(pem, 'workload-api.pem', 0o600)
  const args = ['--address', address, '--key', key, '--key-id', signer.kid, '--issuer', signer.issuer]
  const program = await startLineProgram(resolve('build/go/exec-plugin'), ['server', ...args])
  return {
    address,
    async behave(behaviour) {
      const [answer] = await program.ask([behaviour])
      return answer?.calls as Call[]
    },
    stop: () => program.stop(),
  }
}

/** @returns what signs where nobody verifies */
export function createSigner(): { privateKey: KeyObject; publicKey: KeyObject; kid: string; issuer: string } {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { privateKey, publicKey: createPublicKey(privateKey), kid: 'one', issuer: 'https://issuer.example.org' }
}

/**
 * The commands of this package, as npm puts them onto the PATH, and the link that somebody makes who comes from the seed's.
 *
 * @returns a PATH that has nothing else of ours
 */
export function installCommands(folder: Folder): string {
  const bin = join(folder.path, 'bin')
  mkdirSync(bin)
  const commands: Record<string, string> = JSON.parse(readFileSync('package.json', 'utf8')).bin
  for (const [name, file] of Object.entries(commands)) {
    chmodSync(file, 0o755)
    symlinkSync(resolve(file), join(bin, name))
  }
  symlinkSync('spiffe-edge', join(bin, SEED_PLUGIN))
  return [bin, dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter)
}

/** `exec` of a kubeconfig's user. */
export interface ExecConfig {
  readonly apiVersion: string
  readonly command: string
  readonly args?: readonly string[]
  readonly env?: readonly { readonly name: string; readonly value: string }[] | null
  readonly interactiveMode?: string
  readonly provideClusterInfo?: boolean
  readonly installHint?: string
}

export const V1 = 'client.authentication.k8s.io/v1'
export const V1BETA1 = 'client.authentication.k8s.io/v1beta1'

/**
 * @param extension what the cluster has for exec plugins
 * @returns a file
 */
export function writeKubeconfig(
  folder: Folder,
  { server, ca }: { readonly server: string; readonly ca: string },
  exec: ExecConfig,
  extension?: object,
): string {
  const extensions = extension && [{ name: 'client.authentication.k8s.io/exec', extension }]
  return folder.write({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'it',
        cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64'), extensions },
      },
    ],
    users: [{ name: 'it', user: { exec } }],
    contexts: [{ name: 'it', context: { cluster: 'it', user: 'it' } }],
    'current-context': 'it',
  })
}

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** The whole of it. */
  readonly env: Readonly<Record<string, string>>
  /** What is on standard input, which is then closed; without it there is none. */
  readonly input?: string
  /** Whether standard input is a terminal. */
  readonly terminal?: boolean
  readonly timeoutMs?: number
}

/** A pseudo terminal whose other end types nothing. Results go to files: a terminal would mix them. */
const IN_TERMINAL = `
import os, pty, sys
out, err, *command = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    for fd, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), fd)
    os.execvpe(command[0], command, os.environ)
try:
    while os.read(terminal, 1024): pass
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

/** Runs a program to its end; one that takes longer than `timeoutMs` is killed, and has no exit code. */
export async function run(
  folder: Folder,
  command: string,
  args: readonly string[],
  { env, input, terminal = false, timeoutMs = 90_000 }: RunOptions,
): Promise<Ended> {
  if (!terminal) return ended(start(command, args, { env, ...(input !== undefined && { input }) }), timeoutMs)
  const [out, err] = [folder.write(''), folder.write('')]
  const { code, stderr } = await ended(
    start('python3', ['-c', IN_TERMINAL, out, err, command, ...args], {
      // The one that these tests run with may be none of those on the PATH that they give.
      env: { ...env, PATH: `${env.PATH}${delimiter}${process.env.PATH}` },
    }),
    timeoutMs,
  )
  return { code, stdout: readFileSync(out, 'utf8'), stderr: stderr + readFileSync(err, 'utf8') }
}

export function start(
  command: string,
  args: readonly string[],
  { env, input }: { readonly env: Readonly<Record<string, string>>; readonly input?: string },
): ChildProcess {
  const child = spawn(command, args, { env, stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] })
  child.stdin?.on('error', () => {}).end(input)
  return child
}

export async function ended(child: ChildProcess, timeoutMs: number): Promise<Ended> {
  let [stdout, stderr] = ['', '']
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  const code = await new Promise<number | null>((done, failed) => {
    child.once('error', failed).once('close', done)
  })
  clearTimeout(timer)
  return { code, stdout, stderr }
}

export interface ExecClient {
  /** One request by client-go, whose cache believes that so much more time has passed since the last one. */
  get(path: string, advanceSeconds?: number): Promise<ExecResult>
  stop(): Promise<void>
}

export interface ExecResult {
  readonly status: number
  readonly body: string
  readonly error: string
  /** Exit codes of the plugin, one for each time that it ran. */
  readonly runs: readonly number[]
  readonly stderr: string
}

/** A program that has its credential from an exec plugin by client-go, and runs for as long as the test wants. */
export async function startExecClient(kubeconfig: string, env: Readonly<Record<string, string>>): Promise<ExecClient> {
  const program = await startLineProgram(resolve('build/go/exec-plugin'), ['client', '--kubeconfig', kubeconfig], env)
  return {
    async get(path, advanceSeconds = 0) {
      const [answer] = await program.ask([{ get: path, advanceSeconds }])
      return answer as unknown as ExecResult
    },
    stop: () => program.stop(),
  }
}
