// node scripts/build.mjs [production|development]: bundles the worker as `wrangler deploy` would, into dist/<name>.
import { execFileSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'

const ENTRIES = { production: 'worker/index.ts', development: 'worker/development.ts' }

/** Throws if wrangler fails; returns what it printed. */
export function build(name) {
  return execFileSync('wrangler', ['deploy', ENTRIES[name], '--dry-run', '--outdir', `dist/${name}`], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(ENTRIES)
  for (const name of names) console.log(`${name}: ${build(name).match(/Total Upload: .*/)?.[0] ?? 'built'}`)
}
