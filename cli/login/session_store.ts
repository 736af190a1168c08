/**
 * Where sessions are kept. A list without secrets says where each is, so that a command which has a good credential asks one
 * place alone. To read loads nothing but what the place needs: people wait for it on each kubectl command.
 */

import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { type Keyring, KeyringFailure, systemKeyring } from '../keyring.ts'
import { printable, type Terminal } from '../terminal.ts'
import { type Account, keyringAccount, textOf } from './account.ts'
import { privateFolder, runtimeFolder, stateFolder } from './folders.ts'
import { formatSession, parseSession, type Session } from './session.ts'

export const PLACES = {
  keyring: 'the keyring',
  'sealed:keyring': 'an encrypted file, its key in the keyring',
  'sealed:session': 'an encrypted file, its key in memory until you log out of this machine',
  'sealed:file': 'an encrypted file, its key in a file too',
} as const
export type Place = keyof typeof PLACES
const IN_KEYRING: ReadonlySet<Place> = new Set(['keyring', 'sealed:keyring'])

/** What stands in the file of a login. */
interface Line {
  readonly account: Account
  readonly place: Place
  /** Whether the keyring may hold something of it: also what was there before and could not be taken away. */
  readonly inKeyring: boolean
  /** Of the token, in seconds since the epoch. */
  readonly expiresAt: number
  readonly refreshable: boolean
}

export interface Kept extends Line {
  /** The file's name, and what is in the names of all else that belongs to it. */
  readonly id: string
}

export interface Found {
  readonly session: Session | null
  /** Why what is kept cannot be had; null if nothing is in the way. */
  readonly problem: string | null
}

/** A Credential Manager's entry has 2560 octets of UTF-16. Others write all that they hold anew for each change. */
const MAX_KEYRING_CHARACTERS = process.platform === 'win32' ? 1280 : 16 * 1024

export class SessionStore {
  readonly #env: Terminal['env']
  readonly #keyring: Keyring

  constructor(env: Terminal['env'], keyring: Keyring = systemKeyring) {
    this.#env = env
    this.#keyring = keyring
  }

  /**
   * @param keyringOnly whether what is kept elsewhere is not to be used
   * @returns what was last written, if it can be had
   */
  async read(account: Account, keyringOnly = false): Promise<Found> {
    // For the error, if there is no such place.
    this.#folder()
    // By what it says and not by its name: to compute that takes longer than to read some lines.
    const wanted = textOf(account)
    const kept = this.list().find((one) => textOf(one.account) === wanted)
    if (!kept) return { session: null, problem: null }
    if (keyringOnly && !IN_KEYRING.has(kept.place))
      return { session: null, problem: `it is in ${PLACES[kept.place]}, and --keyring-only is given` }
    try {
      const text = await this.#text(kept)
      const session = text === null ? null : parseSession(text)
      const lost = `what was kept in ${PLACES[kept.place]} is not there any more`
      return { session, problem: session ? null : lost }
    } catch (error) {
      if (error instanceof KeyringFailure) return { session: null, problem: error.message }
      throw error
    }
  }

  /**
   * In the keyring, or what comes nearest to it.
   *
   * @param keyringOnly whether to keep it nowhere else
   * @returns the place, and why it is no better one
   * @throws Failure
   */
  async write(
    account: Account,
    session: Session,
    keyringOnly: boolean,
  ): Promise<{ readonly place: Place; readonly problem: string | null }> {
    const { idOf } = await import('./account_id.ts')
    const id = idOf(account)
    const path = this.#path(id, 'json')
    const before = this.#kept(id)
    const text = formatSession(session)
    const { expiresAt, refreshToken } = session
    const line = { account, expiresAt, refreshable: refreshToken !== null }
    const note = (line: Line) => this.#replace(path, JSON.stringify(line))
    // First: whoever is killed in between leaves nothing in the keyring that nobody knows of.
    if (!before?.inKeyring) await note({ ...(before ?? { ...line, place: 'keyring' }), inKeyring: true })
    let place: Place
    let inKeyring = true
    let problem: string | null = null
    try {
      place = await this.#writeWithKeyring(account, id, text)
    } catch (error) {
      if (!(error instanceof KeyringFailure)) throw error
      inKeyring = before?.inKeyring === true || error.kind === 'silent'
      if (keyringOnly) {
        if (before) await note({ ...before, inKeyring })
        else if (!inKeyring) rmSync(path, { force: true })
        throw new Failure(`${error.message}, and --keyring-only is given`)
      }
      problem = error.message
      place = await this.#writeWithoutKeyring(id, text)
    }
    if (place === 'keyring') this.#removeFiles(id)
    await note({ ...line, place, inKeyring })
    return { place, problem }
  }

  /**
   * Takes it away from everywhere.
   *
   * @returns why something may be left; null if nothing is
   */
  async remove({ id, account, inKeyring }: Kept): Promise<string | null> {
    this.#removeFiles(id)
    // As it stands there now: it may have moved since the list was made.
    if (this.#kept(id)?.inKeyring ?? inKeyring)
      try {
        await this.#keyring.remove(keyringAccount(account, id))
        await this.#keyring.remove(keyOf(account, id))
      } catch (error) {
        if (error instanceof KeyringFailure) return error.message
        throw error
      }
    rmSync(this.#path(id, 'json'), { force: true })
    return null
  }

  /** @returns null if something can be kept in the keyring, or why it cannot */
  async keyringProblem(account: Account): Promise<string | null> {
    try {
      const { idOf } = await import('./account_id.ts')
      const trial = `${keyringAccount(account, idOf(account))} trial`
      // One that is locked still says of what is not there that it is not there.
      await this.#keyring.write(trial, 'trial')
      await this.#keyring.remove(trial)
      return null
    } catch (error) {
      if (error instanceof KeyringFailure) return error.message
      throw error
    }
  }

  list(): Kept[] {
    let names: string[]
    try {
      names = readdirSync(this.#folder())
    } catch {
      return []
    }
    const ids = names.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length))
    const all = ids.map((id) => this.#kept(id)).filter((kept) => kept !== null)
    return all.sort((a, b) => keyringAccount(a.account, a.id).localeCompare(keyringAccount(b.account, b.id)))
  }

  async #text({ id, account, place }: Kept): Promise<string | null> {
    if (place === 'keyring') return await this.#keyring.read(keyringAccount(account, id))
    const sealed = readOrNull(this.#path(id, 'sealed'))
    const keyPath = place === 'sealed:keyring' ? null : this.#keyPath(id, place)
    const key =
      place === 'sealed:keyring' ? await this.#keyring.read(keyOf(account, id)) : keyPath ? readOrNull(keyPath) : null
    if (sealed === null || key === null) return null
    const { open } = await import('./sealed_file.ts')
    return open(sealed, key, id)
  }

  async #writeWithKeyring(account: Account, id: string, text: string): Promise<Place> {
    if (text.length <= MAX_KEYRING_CHARACTERS)
      try {
        await this.#keyring.write(keyringAccount(account, id), text)
        return 'keyring'
      } catch (error) {
        // It does not say whether it is locked, or this is too much for it.
        if (!(error instanceof KeyringFailure && error.kind === 'refused')) throw error
      }
    const { makeSealingKey } = await import('./sealed_file.ts')
    const key = (await this.#keyring.read(keyOf(account, id))) ?? makeSealingKey()
    await this.#keyring.write(keyOf(account, id), key)
    await this.#writeSealed(id, text, key)
    await this.#keyring.remove(keyringAccount(account, id))
    return 'sealed:keyring'
  }

  async #writeWithoutKeyring(id: string, text: string): Promise<Place> {
    const { makeSealingKey } = await import('./sealed_file.ts')
    const place = runtimeFolder(this.#env) ? 'sealed:session' : 'sealed:file'
    const path = this.#keyPath(id, place) as string
    const key = readOrNull(path) ?? makeSealingKey()
    await this.#replace(path, key)
    await this.#writeSealed(id, text, key)
    return place
  }

  async #writeSealed(id: string, text: string, key: string): Promise<void> {
    const { seal } = await import('./sealed_file.ts')
    await this.#replace(this.#path(id, 'sealed'), seal(text, key, id))
  }

  async #replace(path: string, content: string): Promise<void> {
    const [{ replaceFile }, { dirname }] = await Promise.all([import('../replace_file.ts'), import('node:path')])
    privateFolder(dirname(path))
    await replaceFile(path, content)
  }

  #removeFiles(id: string): void {
    const paths = [this.#path(id, 'sealed'), this.#keyPath(id, 'sealed:session'), this.#keyPath(id, 'sealed:file')]
    for (const path of paths) if (path) rmSync(path, { force: true })
  }

  #kept(id: string): Kept | null {
    const text = readOrNull(this.#path(id, 'json'))
    if (text === null) return null
    try {
      const line: Line = JSON.parse(text)
      return Object.hasOwn(PLACES, line.place) && textOf(line.account) ? { ...line, id } : null
    } catch {
      return null
    }
  }

  #folder(): string {
    return join(stateFolder(this.#env), 'credentials')
  }

  #path(id: string, extension: 'json' | 'sealed'): string {
    return join(this.#folder(), `${id}.${extension}`)
  }

  #keyPath(id: string, place: 'sealed:session' | 'sealed:file'): string | null {
    const folder = place === 'sealed:file' ? join(stateFolder(this.#env), 'keys') : runtimeFolder(this.#env)
    return folder && join(folder, `${id}.key`)
  }
}

function keyOf(account: Account, id: string): string {
  return `${keyringAccount(account, id)} key`
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw new Failure(`${printable(path)}: cannot be read (${code ?? 'error'})`)
  }
}
