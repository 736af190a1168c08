import { lstatSync } from 'node:fs'

/** @returns whether it is a folder of this person's in which nobody else may do anything */
export function isOwnAlone(path: string): boolean {
  try {
    const stat = lstatSync(path)
    if (process.platform === 'win32') return stat.isDirectory()
    return stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o077) === 0
  } catch {
    return false
  }
}
