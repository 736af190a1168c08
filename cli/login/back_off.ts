/**
 * Prompts that nobody has answered make the next one of the same provider wait, longer each time: a program that runs kubectl
 * every few seconds overnight shall open a handful of tabs, not hundreds.
 */

import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { replaceFile } from '../replace_file.ts'
import { formatTime, printable, type Terminal } from '../terminal.ts'
import type { Account } from './account.ts'
import { idOfProvider } from './account_id.ts'
import { privateFolder, stateFolder } from './folders.ts'

/** After the first prompt that came to nothing, the second, and so on. The last holds for all that follow. */
const PAUSES_SECONDS = [15, 60, 5 * 60, 30 * 60, 2 * 60 * 60, 8 * 60 * 60] as const

interface Attempts {
  /** Since the last one that went well. */
  readonly count: number
  /** Seconds since the epoch. */
  readonly notBefore: number
}

export class BackOff {
  readonly #account: Account
  readonly #folder: string
  readonly #path: string

  constructor(account: Account, env: Terminal['env']) {
    this.#account = account
    this.#folder = join(stateFolder(env), 'attempts')
    this.#path = join(this.#folder, `${idOfProvider(account)}.json`)
  }

  /**
   * @param now seconds since the epoch
   * @throws Failure if it is too early for another prompt
   */
  check(now: number): void {
    const { count, notBefore } = this.#read()
    // A clock that has been put back does not make it longer than it can be.
    if (now >= notBefore || notBefore - now > (PAUSES_SECONDS.at(-1) ?? 0)) return
    const times = count === 1 ? 'the last prompt was' : `the last ${count} prompts were`
    throw new Failure(
      `${times} not answered: no new one before ${formatTime(Math.ceil(notBefore))}.\n` +
        `Log in now with: ${loginCommand(this.#account)}`,
    )
  }

  /**
   * To be called before a prompt as well as when it has come to nothing: the process may be killed in between.
   *
   * @param first whether it is the beginning
   * @throws Failure if it cannot be written down: there would be no end of prompts
   */
  async count(now: number, first: boolean): Promise<void> {
    const count = this.#read().count + (first ? 1 : 0)
    const pause = PAUSES_SECONDS[Math.min(count, PAUSES_SECONDS.length) - 1] ?? 0
    const attempts: Attempts = { count, notBefore: now + pause }
    privateFolder(this.#folder)
    await replaceFile(this.#path, JSON.stringify(attempts))
  }

  clear(): void {
    rmSync(this.#path, { force: true })
  }

  #read(): Attempts {
    try {
      const { count, notBefore } = JSON.parse(readFileSync(this.#path, 'utf8'))
      if (Number.isSafeInteger(count) && count > 0 && Number.isFinite(notBefore)) return { count, notBefore }
    } catch {
      // There is none, or nobody can say any more what it was.
    }
    return { count: 0, notBefore: 0 }
  }
}

/** @returns what somebody has to type to log in to just this */
function loginCommand({ issuer, clientId, token, scope, parameters }: Account): string {
  const words = [
    ...['spiffe-edge', 'login', '--issuer-url', issuer, '--client-id', clientId],
    ...(token === 'id' ? [] : ['--token', token]),
    ...(scope ?? []).flatMap((one) => ['--scope', one]),
    ...parameters.flatMap(([name, value]) => ['--authorization-parameter', `${name}=${value}`]),
  ]
  const quoted = words.map((word) => (/^[\w./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
  return printable(quoted.join(' '))
}
