/** Files that a command is told to read. */

import { constants, createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Failure } from './failure.ts'
import { MAX_INPUT_BYTES, printable, readStream, type Terminal } from './terminal.ts'

/** Four times what the worker takes. */
const MAX_TOKEN_FILE_BYTES = 64 * 1024

/**
 * @param path `-` is standard input
 * @throws Failure
 */
export async function readInput(path: string, terminal: Terminal, maxBytes = MAX_INPUT_BYTES): Promise<string> {
  try {
    return await readStream(path === '-' ? terminal.stdin : createReadStream(path), maxBytes)
  } catch (error) {
    throw new Failure(`${printable(path)}: ${describe(error)}`)
  }
}

/**
 * @param path `-` is standard input
 * @returns the JWT that it holds and nothing else but white space around it
 * @throws Failure
 */
export async function readToken(path: string, terminal: Terminal): Promise<string> {
  const token = (await readInput(path, terminal, MAX_TOKEN_FILE_BYTES)).trim()
  // What is not a JWT would otherwise be sent to somebody: perhaps it is another secret.
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) throw new Failure(`${printable(path)} does not hold a token`)
  return token
}

/**
 * A file with a secret in it. Like ssh, we do not use one that others may read.
 *
 * @returns null if there is none
 * @throws Failure
 */
export async function readSecretFile(path: string): Promise<string | null> {
  let file: FileHandle | undefined
  try {
    file = await open(path, constants.O_RDONLY)
    const { mode } = await file.stat()
    if ((mode & 0o077) !== 0)
      throw new Failure(`${printable(path)}: others than its owner may read or change it. Do: chmod 600`)
    return await readStream(file.createReadStream({ autoClose: false }), 64 * 1024)
  } catch (error) {
    if (error instanceof Failure) throw error
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw new Failure(`${printable(path)}: ${describe(error)}`)
  } finally {
    await file?.close()
  }
}

/** The code of the operating system says enough, and its message repeats what we know. */
export function describe(error: unknown): string {
  if (error instanceof RangeError) return 'is too large'
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be opened'
  if (code === 'EISDIR') return 'is a folder'
  if (code === 'EEXIST') return 'is there already'
  return typeof code === 'string' ? code : 'cannot be read'
}
