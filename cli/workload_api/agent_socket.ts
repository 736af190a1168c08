/**
 * The socket of the agent. It is there with its final mode from the first moment, and takes the place of nobody's.
 *
 * Anybody may use it who can get to it. A file's mode says nothing useful in a pod, whose containers have users of their own: who gets the folder
 * mounted is who may have the pod's identities (T-25).
 */

import { randomUUID } from 'node:crypto'
import { link, lstat, rename, rm, stat } from 'node:fs/promises'
import { connect, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { Failure } from '../failure.ts'
import { describe } from '../input_file.ts'
import { printable } from '../terminal.ts'

/** What is taken away from 0777: to connect, one must be allowed to write, and nobody runs a socket. */
const UMASK = 0o111
/** One that listens takes connections at once, or has too many waiting. */
const PROBE_MS = 2000
/** `sun_path` of Linux, without the zero at its end. */
const MAX_PATH_BYTES = 107

/**
 * @returns when it listens
 * @throws Failure
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (Math.max(Buffer.byteLength(path), Buffer.byteLength(asideOf(path))) > MAX_PATH_BYTES)
    throw new Failure(`${printable(path)}: is longer than the path of a socket may be`)
  try {
    await clear(path)
    await listen(server, path)
  } catch (error) {
    if (error instanceof Failure) throw error
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') throw taken(path)
    throw new Failure(`${printable(path)}: ${describe(error)}`)
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // It is made before this returns, and only it.
    const before = process.umask(UMASK)
    try {
      server.listen(path, () => {
        server.off('error', reject)
        resolve()
      })
    } finally {
      process.umask(before)
    }
  })
}

/** Takes away what an agent has left behind that did not end as it should. */
async function clear(path: string): Promise<void> {
  // Where there is none, what Node says is that it may not be opened.
  await stat(dirname(path))
  const found = await lstat(path).catch(ifAbsent)
  if (!found) return
  if (!found.isSocket()) throw new Failure(`${printable(path)}: is there already, and is no socket`)
  if (await isAlive(path)) throw taken(path)
  // Aside first: another agent may have found out the same, and listen there by now.
  const aside = asideOf(path)
  await rename(path, aside)
  if (await isAlive(aside)) {
    await link(aside, path).catch(() => {})
    await rm(aside)
    throw taken(path)
  }
  await rm(aside)
}

/** In the same folder, and asked in the same way, so no longer than a socket's path may be either. */
function asideOf(path: string): string {
  return join(dirname(path), randomUUID().slice(0, 8))
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const answer = (alive: boolean) => {
      socket.destroy()
      resolve(alive)
    }
    socket.setTimeout(PROBE_MS, () => answer(true))
    socket.once('connect', () => answer(true))
    // Only this says that nobody listens. What we may not connect to, for example, may be alive.
    socket.once('error', ({ code }: NodeJS.ErrnoException) => answer(code !== 'ECONNREFUSED'))
  })
}

function taken(path: string): Failure {
  return new Failure(`${printable(path)}: somebody listens there already`)
}

function ifAbsent(error: unknown): null {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
  throw error
}
