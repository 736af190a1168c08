// A Secret Service for the tests of the command line: gnome-keyring-daemon, the machine's own or, on Debian and its like, one
// that is unpacked into build/keyring. Nothing is installed, and the keyring of whoever runs the tests is not touched.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const FOLDER = 'build/keyring'
const PACKAGES = ['gnome-keyring', 'libgck-1-0', 'libgcr-base-3-1']

/** Returns whether there is one, and a session bus to put it on. */
export function getKeyring() {
  if (!runs('dbus-run-session', ['--version'])) return false
  if (runs('gnome-keyring-daemon', ['--version']) || existsSync(FOLDER)) return true
  mkdirSync('build', { recursive: true })
  const folder = mkdtempSync('build/keyring-')
  const unpacked = join(folder, 'root')
  const got =
    runs('apt-get', ['download', ...PACKAGES], folder) &&
    readdirSync(folder).every((name) => !name.endsWith('.deb') || runs('dpkg', ['-x', join(folder, name), unpacked]))
  // Whole or not at all: the next run takes what is there.
  if (got) renameSync(unpacked, FOLDER)
  rmSync(folder, { recursive: true })
  return got
}

function runs(command, args, cwd = '.') {
  return spawnSync(command, args, { cwd, stdio: 'ignore' }).status === 0
}

if (import.meta.url === pathToFileURL(process.argv[1]).href && !getKeyring()) process.exit(1)
