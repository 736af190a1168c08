/** Putting a new file into the place of an old one, for readers that may come at any moment: they find one of the two, whole. */

import { randomUUID } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { lstat, open, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure } from './failure.ts'
import { describe } from './input_file.ts'
import { printable } from './terminal.ts'

/** Of a file that there was none of. */
const NEW_MODE = 0o600

/**
 * Leaves a file alone that has this content already. Otherwise the new one has the mode and the owner of the old one, and is
 * on the disk before it takes its name.
 *
 * @returns whether it was written
 * @throws Failure, and then the old file is there as it was; but where it says that the new one is
 */
export async function replaceFile(path: string, content: string): Promise<boolean> {
  try {
    const old = await lstat(path).catch(ifAbsent)
    // A rename would take the place of the link, and leave alone the file that somebody reads.
    if (old && !old.isFile()) throw new Failure(`${printable(path)}: is no plain file`)
    if (old && (await readFile(path, 'utf8')) === content) return false
    const folder = dirname(path)
    const made = join(folder, `.${basename(path)}.${randomUUID()}`)
    try {
      await write(made, content, old)
      await rename(made, path)
    } catch (error) {
      await rm(made, { force: true }).catch(() => {})
      throw error
    }
    await sync(folder).catch((error: unknown) => {
      throw new Failure(`${printable(path)}: is written, and may not survive a power cut (${describe(error)})`)
    })
    return true
  } catch (error) {
    if (error instanceof Failure) throw error
    throw new Failure(`${printable(path)}: cannot be written (${describe(error)})`)
  }
}

async function write(path: string, content: string, old: Stats | null): Promise<void> {
  // `wx` is O_EXCL: neither a file nor a link that somebody has put there is written to.
  const file = await open(path, 'wx', NEW_MODE)
  try {
    await file.writeFile(content)
    const { uid, gid } = await file.stat()
    if (old && (old.uid !== uid || old.gid !== gid)) await file.chown(old.uid, old.gid)
    // After chown, which may take bits away; and what umask has taken from a new one is nothing.
    if (old) await file.chmod(old.mode & 0o777)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** What file systems say that have no such thing as a folder that is written to the disk. */
const NO_SYNC: ReadonlySet<unknown> = new Set(['EINVAL', 'ENOTSUP', 'EPERM'])

/** The new name is in the folder, and has to survive a power cut too. */
async function sync(folder: string): Promise<void> {
  // Windows opens no folders.
  if (process.platform === 'win32') return
  const handle = await open(folder, constants.O_RDONLY)
  try {
    await handle.sync().catch((error: NodeJS.ErrnoException) => {
      if (!NO_SYNC.has(error.code)) throw error
    })
  } finally {
    await handle.close()
  }
}

function ifAbsent(error: unknown): null {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
  throw error
}
