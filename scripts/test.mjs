// node scripts/test.mjs <tier>…: every test of the tiers, and one line that sums them up.
//
//   quick    lint, types, unit tests inside workerd, the built worker in plain workerd: needs Node and npm alone
//   interop  the real consumers: needs Go, Python, a keyring, a browser and shells; where one is missing, its tests are skipped and named
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from './build.mjs'
import { buildCli } from './build_cli.mjs'
import { buildGo } from './build_go.mjs'
import { getBrowser } from './get_browser.mjs'
import { getKeyring } from './get_keyring.mjs'

const PROJECTS = { quick: ['workerd', 'node'], interop: ['interop'] }
const NEEDED = {
  go: ['go', ['version']],
  openssl: ['openssl', ['version']],
  python: ['python3', ['-c', 'import venv']],
  zsh: ['zsh', ['--version']],
  fish: ['fish', ['--version']],
  // It may be there and not be allowed to look at anything.
  strace: ['strace', ['-o', '/dev/null', 'true']],
}

const tiers = process.argv.slice(2)
const started = Date.now()
const count = { passed: 0, failed: 0, skipped: 0 }
const missing = []

for (const name of ['production', 'development']) build(name)
if (tiers.includes('quick'))
  // Lint and types count as one test, so that a run with an error in them is not all green.
  count[
    spawnSync('node', ['scripts/check.mjs'], { stdio: ['ignore', 'inherit', 'inherit'] }).status === 0
      ? 'passed'
      : 'failed'
  ]++
if (tiers.includes('interop')) {
  for (const [name, [command, args]] of Object.entries(NEEDED))
    if (spawnSync(command, args, { stdio: 'ignore' }).status !== 0) missing.push(name)
  if (!missing.includes('go')) buildGo()
  for (const form of ['package', 'single-file']) await buildCli(form)
  if (!getKeyring()) missing.push('keyring')
  if (!getBrowser()) missing.push('browser')
}
runVitest(tiers.flatMap((tier) => PROJECTS[tier]))

if (missing.length > 0) console.log(`not on this machine: ${missing.join(', ')}`)
console.log(`${tiers.join(', ')}: ${Math.round((Date.now() - started) / 1000)} s`)
console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ''}`)
process.exit(count.failed === 0 ? 0 : 1)

function runVitest(projects) {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-test-'))
  const report = join(folder, 'report.json')
  const args = [
    ...projects.flatMap((name) => ['--project', name]),
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ]
  const { status } = spawnSync('vitest', ['run', ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, MISSING_TOOLS: missing.join(',') },
  })
  const failedBefore = count.failed
  try {
    for (const file of JSON.parse(readFileSync(report, 'utf8')).testResults) {
      // A file that could not even be read has no tests to count.
      if (file.status === 'failed' && file.assertionResults.length === 0) count.failed++
      for (const { status, fullName } of file.assertionResults) {
        if (status === 'passed' || status === 'failed') count[status]++
        else {
          count.skipped++
          console.log(`skipped: ${fullName}`)
        }
      }
    }
  } catch {
    count.failed++
  }
  if (status !== 0 && count.failed === failedBefore) count.failed++
  rmSync(folder, { recursive: true })
}
