/**
 * Where a person's programs keep what is theirs.
 *
 * @see [XDG Base Directory Specification](https://specifications.freedesktop.org/basedir-spec/latest/)
 */

import { mkdirSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { Failure } from '../failure.ts'
import { isOwnAlone } from '../own_folder.ts'
import { printable, type Terminal } from '../terminal.ts'

type Env = Terminal['env']

const OURS = 'spiffe-edge'
/**
 * @returns what outlives a login session; it may be on a disk that several machines share
 * @throws Failure if nobody says where
 */
export function stateFolder(env: Env): string {
  const { XDG_STATE_HOME: state, HOME: home } = env
  if (process.platform === 'win32' && env.LOCALAPPDATA) return join(env.LOCALAPPDATA, OURS)
  // A relative path is to be ignored, says the specification.
  if (state && isAbsolute(state)) return join(state, OURS)
  if (home) return join(home, '.local', 'state', OURS)
  throw new Failure('there is no place to keep a login in: set HOME, or XDG_STATE_HOME')
}

/** @returns what is gone when the person has logged out of this machine; null if there is no such place */
export function runtimeFolder({ XDG_RUNTIME_DIR: named }: Env): string | null {
  // cron and su do not say, and are to find what the person's terminals have.
  const folder = named ?? (process.platform === 'linux' ? `/run/user/${process.getuid?.()}` : '')
  // Under sudo the variable may still name somebody else's.
  return isAbsolute(folder) && isOwnAlone(folder) ? join(folder, OURS) : null
}

/**
 * Makes the folder if it is not there.
 *
 * @returns the path
 * @throws Failure if others than this person may use it
 */
export function privateFolder(path: string): string {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    if (isOwnAlone(path)) return path
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new Failure(
      `${printable(path)}: cannot be used (${code ?? 'error'}). Set XDG_STATE_HOME to a folder of yours`,
    )
  }
  throw new Failure(`${printable(path)}: belongs to somebody else, or others may use it. Do: chmod 700`)
}
