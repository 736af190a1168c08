import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { printable, type Terminal } from '../terminal.ts'
import { privateFolder, runtimeFolder, stateFolder } from './folders.ts'

/** A socket's whole path has 104 octets on macOS, with the zero at its end. */
const MAX_SOCKET_PATH_BYTES = 103
/** What `turn.ts` puts behind the folder. */
const SOCKET_NAME_BYTES = 32

/** @returns where the sockets are by which processes of one person on one machine find each other */
export function socketFolder(env: Terminal['env']): string {
  // These have no files: see pipe names.
  if (process.platform === 'win32') return '\\\\.\\pipe'
  const runtime = runtimeFolder(env)
  // A home may be on several machines at once, and a socket is on one.
  const machine = createHash('sha256').update(hostname()).digest('hex').slice(0, 8)
  const folder = privateFolder(runtime ?? join(stateFolder(env), 'run', machine))
  if (Buffer.byteLength(folder) + SOCKET_NAME_BYTES > MAX_SOCKET_PATH_BYTES)
    throw new Failure(
      `${printable(folder)}: too long for a socket. Set XDG_RUNTIME_DIR to a folder of yours with a short name`,
    )
  return folder
}
