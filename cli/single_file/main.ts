/**
 * The single executable: `scripts/build_cli.mjs` has put the chunks of the npm form into it, and the keyring's addon. They are loaded one by one, when
 * they are asked for, as Node loads files; as one script, all of what Node has built in would be loaded each time.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { getAsset, getRawAsset } from 'node:sea'
import { compileFunction } from 'node:vm'
import { isOwnAlone } from '../own_folder.ts'

const ADDON = '@napi-rs/keyring'

type Module = { exports: object }
type Wrapper = (exports: object, require: (name: string) => unknown, module: Module) => void

const builtIn = createRequire(process.execPath)
const modules = new Map<string, Module>()

/** @param name of an asset, a module that is built in, or the addon */
function load(name: string): unknown {
  const known = modules.get(name)
  if (known) return known.exports
  if (!name.endsWith('.cjs') && name !== ADDON) return builtIn(name)
  const module: Module = { exports: {} }
  if (name === ADDON) loadAddon(module)
  modules.set(name, module)
  if (name !== ADDON) {
    const wrapper = compileFunction(getAsset(name, 'utf8'), ['exports', 'require', 'module'], { filename: name })
    // All chunks are in one folder, and main.cjs beside it.
    ;(wrapper as Wrapper)(module.exports, (other) => load(other.replace(/^.*\/(?=[^/]+\.cjs$)/, '')), module)
  }
  return module.exports
}

/** The system loads addons from files only; so it is one for a moment, in a folder that nobody else can look into or move. */
function loadAddon(module: Module): void {
  const runtime = process.env.XDG_RUNTIME_DIR ?? ''
  // In memory, mostly. Under sudo it may be somebody else's.
  if (isAbsolute(runtime) && isOwnAlone(runtime))
    try {
      loadAddonFrom(runtime, module)
      return
    } catch {
      // It may be full, or nothing may be run there.
    }
  loadAddonFrom(tmpdir(), module)
}

function loadAddonFrom(parent: string, module: Module): void {
  const folder = mkdtempSync(join(parent, 'spiffe-edge-'))
  try {
    const path = join(folder, 'keyring.node')
    writeFileSync(path, new Uint8Array(getRawAsset('keyring.node')), { mode: 0o600, flag: 'wx' })
    process.dlopen(module, path)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

load('main.cjs')
