/** The keys of a worker as whoever has a copy of its folder sees them, while it runs or not, and without asking it. */

import { copyFileSync, existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Phase } from '../../keys/rotation.ts'
import type { PublicJwk } from '../../keys/signer.ts'

export interface StoredRow {
  readonly publicJwk: PublicJwk
  readonly phase: Phase
  readonly wrapped: string | null
}

/** @returns every file of the folder, SQLite's write-ahead logs among them, by its path */
export function dumpStorage(state: string): ReadonlyMap<string, Buffer> {
  const dump = new Map<string, Buffer>()
  for (const entry of globSync('**/*', { cwd: state, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    // One that SQLite has taken away in the meantime is in no dump.
    if (entry.isFile() && existsSync(path)) dump.set(path, readFileSync(path))
  }
  return dump
}

/** @returns the keys, by `kid` */
export function storedKeys(state: string): readonly StoredRow[] {
  const [path] = globSync(join(state, '*KeyState', '*.sqlite'))
  if (path === undefined) return []
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-copy-'))
  try {
    // A worker that runs has the file, and may have what is new in the log beside it alone.
    for (const end of ['', '-wal']) if (existsSync(path + end)) copyFileSync(path + end, join(folder, `keys${end}`))
    const database = new DatabaseSync(join(folder, 'keys'))
    const rows = database.prepare('select public_jwk, phase, wrapped from signing_keys order by kid').all()
    database.close()
    return rows.map((row) => ({
      publicJwk: JSON.parse(String(row.public_jwk)),
      phase: row.phase as Phase,
      wrapped: row.wrapped as string | null,
    }))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** @returns the phase of each key, by `kid`; null where the copy was made in the middle of a change, and is none */
export function storedPhases(state: string): Readonly<Record<string, Phase>> | null {
  try {
    return Object.fromEntries(storedKeys(state).map(({ publicJwk, phase }) => [publicJwk.kid, phase]))
  } catch {
    return null
  }
}

/** Moves all that has happened to the keys into the past. The worker must not be running. */
export function letTimePass(state: string, seconds: number): void {
  const [path = ''] = globSync(join(state, '*KeyState', '*.sqlite'))
  const database = new DatabaseSync(path)
  for (const column of ['announced_at', 'published_at', 'active_at', 'retiring_at'])
    database.prepare(`update signing_keys set ${column} = ${column} - ?`).run(seconds)
  database.close()
}
