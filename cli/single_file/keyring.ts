/**
 * `@napi-rs/keyring` in the form of one file, where `scripts/build_cli.mjs` puts this in its place. The addon is in the executable, and the system
 * loads addons from files only; so it is one for a moment, in a folder that nobody else can look into.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getRawAsset } from 'node:sea'

type Addon = typeof import('@napi-rs/keyring')

function load(): Addon {
  const folder = mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'spiffe-edge-'))
  try {
    const path = join(folder, 'keyring.node')
    writeFileSync(path, new Uint8Array(getRawAsset('keyring.node')), { mode: 0o600, flag: 'wx' })
    const module: { exports: Partial<Addon> } = { exports: {} }
    process.dlopen(module, path)
    return module.exports as Addon
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export const { AsyncEntry, Entry } = load()
