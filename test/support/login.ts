/** A home of its own for the logins of one test, and programs that log in there as a person would have them do. */

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { cli, type Outcome } from './cli.ts'
import { CLIENT_ID, type IdentityProvider } from './identity_provider.ts'

/** In the process of the test no keyring is to be found, whoever runs it. */
process.env.DBUS_SESSION_BUS_ADDRESS = 'unix:path=/nonexistent'

export class LoginHome {
  readonly path = mkdtempSync(join(tmpdir(), 'spiffe-edge-login-'))
  readonly personLog = join(this.path, 'person.log')
  /** Of the session; without it there is none. */
  readonly runtime: string

  constructor() {
    this.runtime = join(this.path, 'runtime')
    mkdirSync(this.runtime, { mode: 0o700 })
  }

  /** @param name who sits at the browser, `nobody` for somebody who does nothing */
  env(name = 'alice'): Record<string, string> {
    return {
      PATH: process.env.PATH ?? '',
      HOME: this.path,
      XDG_RUNTIME_DIR: this.runtime,
      DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nonexistent',
      BROWSER: `${process.execPath} ${resolve('test/support/person.ts')}`,
      PERSON: name,
      PERSON_LOG: this.personLog,
    }
  }

  /** In this process. */
  run(argv: readonly string[], env: Record<string, string> = {}, stdin = ''): Promise<Outcome> {
    return cli(argv, { env: { ...this.env(), ...env }, stdin })
  }

  credential(idp: Pick<IdentityProvider, 'issuer'>, more: readonly string[] = [], env: Record<string, string> = {}) {
    return this.run(credentialArgv(idp, more), env)
  }

  /** How often a browser was opened. */
  opened(): string[] {
    return this.#log().filter((line) => line.startsWith('opened '))
  }

  /** The pages that the person has seen, and failures to. */
  seen(): string[] {
    return this.#log().filter((line) => !line.startsWith('opened '))
  }

  /** Every file below, with its mode and what it holds. */
  files(): { readonly path: string; readonly mode: number; readonly text: string }[] {
    const entries = readdirSync(this.path, { recursive: true, withFileTypes: true })
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => path !== this.personLog)
      .map((path) => ({ path, mode: statSync(path).mode & 0o777, text: readFileSync(path, 'utf8') }))
  }

  remove(): void {
    // A browser that is behind still writes.
    rmSync(this.path, { recursive: true, force: true, maxRetries: 10 })
  }

  #log(): string[] {
    try {
      return readFileSync(this.personLog, 'utf8').trim().split('\n')
    } catch {
      return []
    }
  }
}

export function credentialArgv({ issuer }: Pick<IdentityProvider, 'issuer'>, more: readonly string[] = []): string[] {
  return ['credential', 'oidc', '--issuer-url', issuer, '--client-id', CLIENT_ID, ...more]
}

/** `spiffe-edge` as a process of its own. */
export function cliOf(argv: readonly string[], env: Record<string, string>) {
  const child = spawn(process.execPath, ['cli/main.ts', ...argv], { stdio: ['ignore', 'pipe', 'pipe'], env })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const outcome = new Promise<Outcome>((ended) =>
    child.once('close', (code, signal) => ended({ code: code ?? (signal ? 128 : -1), stdout, stderr })),
  )
  return { child, outcome, said: () => stderr }
}

/** @returns the status of the ExecCredential, and the claims of its token */
export function credentialIn({ stdout }: Outcome) {
  const { apiVersion, kind, status } = JSON.parse(stdout)
  const claims = JSON.parse(Buffer.from(status.token.split('.')[1], 'base64url').toString())
  return {
    apiVersion,
    kind,
    token: status.token as string,
    until: Date.parse(status.expirationTimestamp) / 1000,
    claims,
  }
}
