// A Chromium for the tests of the browser login: the machine's own or, on Debian and its like, one that is unpacked into
// build/browser with those of its libraries that the machine lacks. Nothing is installed, and no profile of anybody is touched.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const FOLDER = 'build/browser'

/** Returns whether there is one. */
export function getBrowser() {
  if (runs('chromium', ['--version']) || existsSync(FOLDER)) return true
  const packages = missingPackages()
  if (packages.length === 0) return false
  mkdirSync('build', { recursive: true })
  const folder = mkdtempSync('build/browser-')
  const unpacked = join(folder, 'root')
  const got =
    runs('apt-get', ['download', ...packages], folder) &&
    readdirSync(folder).every((name) => !name.endsWith('.deb') || runs('dpkg', ['-x', join(folder, name), unpacked]))
  // Whole or not at all: the next run takes what is there.
  if (got) renameSync(unpacked, FOLDER)
  rmSync(folder, { recursive: true })
  return got
}

/** Chromium, and what an installation of it would bring along: it needs more libraries than can be named here. */
function missingPackages() {
  const { stdout, status } = spawnSync('apt-get', ['--simulate', '--no-install-recommends', 'install', 'chromium'], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  })
  return status === 0 ? [...stdout.matchAll(/^Inst (\S+)/gm)].map(([, name]) => name) : []
}

function runs(command, args, cwd = '.') {
  return spawnSync(command, args, { cwd, stdio: 'ignore' }).status === 0
}

if (import.meta.url === pathToFileURL(process.argv[1]).href && !getBrowser()) process.exit(1)
