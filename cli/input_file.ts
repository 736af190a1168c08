/** Files that a command is told to read. */

import { constants, createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Failure } from './failure.ts'
import { MAX_INPUT_BYTES, printable, readStream, type Terminal } from './terminal.ts'

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
