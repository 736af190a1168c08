// node scripts/build.mjs [production|development]: bundles the worker as `wrangler deploy` would, into dist/<name>.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const ENTRIES = { production: 'worker/index.ts', development: 'worker/development.ts' }

/** Throws if wrangler fails; returns what it printed. A worker that is starting up sees the old build or the new one whole. */
export function build(name) {
  mkdirSync('dist', { recursive: true })
  const made = mkdtempSync('dist/.making-')
  try {
    const printed = execFileSync('wrangler', ['deploy', ENTRIES[name], '--dry-run', '--outdir', made], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    mkdirSync(`dist/${name}`, { recursive: true })
    for (const file of readdirSync(made)) renameSync(`${made}/${file}`, `dist/${name}/${file}`)
    return printed
  } finally {
    rmSync(made, { recursive: true })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(ENTRIES)
  for (const name of names) console.log(`${name}: ${build(name).match(/Total Upload: .*/)?.[0] ?? 'built'}`)
}
