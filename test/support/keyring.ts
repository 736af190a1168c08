/** The command line in a login session of its own, with a real Secret Service in it, or one that is locked, or none. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Outcome } from './cli.ts'

/** `scripts/get_keyring.mjs` has put it there where the machine has none. */
const UNPACKED = 'build/keyring/usr/bin/gnome-keyring-daemon'

const START = {
  unlocked: 'printf test-only | "$DAEMON" --unlock --components=secrets --daemonize > /dev/null 2>&1 &&',
  locked: '"$DAEMON" --start --components=secrets --daemonize > /dev/null 2>&1 &&',
  none: '',
} as const

/** Runs commands one after another, and prints how each ended. */
const DRIVER = `
const { spawnSync } = require('node:child_process')
const commands = JSON.parse(require('node:fs').readFileSync(0, 'utf8'))
const run = (argv) => spawnSync(process.execPath, ['cli/main.ts', ...argv], { encoding: 'utf8' })
console.log(JSON.stringify(commands.map(run).map(({ status, stdout, stderr }) => ({ code: status, stdout, stderr }))))
`

/** A home folder, which is where a keyring outlives its session. */
export function makeHome(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'spiffe-edge-keyring-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export interface KeyringSession {
  /** What a program needs to be in it. */
  readonly env: Readonly<Record<string, string>>
  /** From now on it does not answer. */
  freeze(): void
  thaw(): void
  stop(): Promise<void>
}

/** A session that lasts, for programs that run side by side. */
export async function openSession(keyring: keyof typeof START, home: string): Promise<KeyringSession> {
  const runtime = join(home, 'runtime')
  mkdirSync(runtime, { recursive: true, mode: 0o700 })
  const child = spawn(
    'dbus-run-session',
    ['--', 'sh', '-c', `${START[keyring]} echo "$DBUS_SESSION_BUS_ADDRESS" && exec cat`],
    {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: {
        PATH: process.env.PATH,
        HOME: home,
        XDG_RUNTIME_DIR: runtime,
        DAEMON: existsSync(UNPACKED) ? resolve(UNPACKED) : 'gnome-keyring-daemon',
        LD_LIBRARY_PATH: globSync(resolve('build/keyring/usr/lib/*-linux-*')).join(':'),
      },
    },
  )
  const [line] = await once(child.stdout.setEncoding('utf8'), 'data')
  const address = String(line).trim()
  const signal = (name: NodeJS.Signals) => {
    for (const pid of daemonsOf(address)) process.kill(pid, name)
  }
  return {
    env: { HOME: home, XDG_RUNTIME_DIR: runtime, DBUS_SESSION_BUS_ADDRESS: address },
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    async stop() {
      signal('SIGCONT')
      child.stdin.end()
      await once(child, 'close')
    },
  }
}

/** Those of this very session: the machine may have others. */
function daemonsOf(address: string): number[] {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      return ''
    }
  }
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && read(`/proc/${pid}/comm`).startsWith('gnome-keyring'))
    .filter((pid) => read(`/proc/${pid}/environ`).split('\0').includes(`DBUS_SESSION_BUS_ADDRESS=${address}`))
    .map(Number)
}

/**
 * @param commands each an argv of `spiffe-edge`
 * @returns how they ended
 */
export async function inSession(
  keyring: keyof typeof START,
  commands: readonly (readonly string[])[],
  home: string,
): Promise<Outcome[]> {
  const runtime = mkdtempSync(join(home, 'run-'))
  const daemon = existsSync(UNPACKED) ? resolve(UNPACKED) : 'gnome-keyring-daemon'
  const child = spawn(
    'dbus-run-session',
    ['--', 'sh', '-c', `${START[keyring]} unset LD_LIBRARY_PATH && exec "$NODE" -e "$DRIVER"`],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: home,
        XDG_RUNTIME_DIR: runtime,
        DAEMON: daemon,
        NODE: process.execPath,
        DRIVER,
        LD_LIBRARY_PATH: globSync(resolve('build/keyring/usr/lib/*-linux-*')).join(':'),
      },
    },
  )
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  child.stdin.on('error', () => {}).end(JSON.stringify(commands))
  await new Promise((ended) => child.once('close', ended))
  try {
    return JSON.parse(stdout) as Outcome[]
  } catch {
    throw new Error(`the session ended without an answer: ${stderr}`)
  }
}
