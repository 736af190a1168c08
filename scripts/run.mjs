// node scripts/run.mjs <command> [argument…]: installs what is missing, then runs a command on the locked Node.
//
// Runs on the machine's own Node (>= 20), so it uses nothing but built-in modules. It does not rely on
// node_modules/.bin/node: several versions of npm leave that link out.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { delimiter, resolve } from 'node:path'

const installed = 'node_modules/.package-lock.json' // npm writes it last, so an interrupted install is repeated
if (!existsSync(installed) || statSync(installed).mtimeMs < statSync('package-lock.json').mtimeMs)
  // npm's own report belongs to stderr: stdout is the command's.
  execFileSync('npm', ['ci', '--no-progress'], { stdio: ['ignore', 2, 'inherit'] })

const locked = resolve(`node_modules/node-${process.platform}-${process.arch}/bin`)
const [major, minor] = process.versions.node.split('.').map(Number)
if (!existsSync(locked) && (major < 22 || (major === 22 && minor < 13))) {
  console.error(`No locked Node for ${process.platform}-${process.arch}: please use Node 22.13 or newer.`)
  process.exit(1)
}

const [command, ...args] = process.argv.slice(2)
const child = spawn(command, args, {
  stdio: 'inherit',
  env: {
    ...process.env,
    PATH: [...(existsSync(locked) ? [locked] : []), resolve('node_modules/.bin'), process.env.PATH].join(delimiter),
    WRANGLER_SEND_METRICS: 'false',
    CLOUDFLARE_CF_FETCH_ENABLED: 'false',
  },
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('error', (error) => {
  console.error(error.message)
  process.exit(127)
})
child.on('exit', (code, signal) => process.exit(signal ? 1 : code))
