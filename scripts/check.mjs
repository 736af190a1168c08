// node scripts/check.mjs: lint, format, types, and that the generated bindings are those of wrangler.toml.
import { spawnSync } from 'node:child_process'

const CHECKS = [
  ['biome', ['ci', '--reporter=summary', '.']],
  ['tsc', ['--project', '.']],
  ['tsc', ['--project', 'test']],
  ['wrangler', ['types', '--include-runtime=false', '--check']],
]

let failed = 0
for (const [command, args] of CHECKS) {
  const { status } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (status === 0) continue
  failed++
  console.error(`failed: ${command} ${args.join(' ')}`)
}
process.exit(failed === 0 ? 0 : 1)
