/** The commands of the README, run as they stand there, in a folder that has what a fresh clone has after its first start. */

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort } from '../support/plain_workerd.ts'

/** The text of every block that is fenced as shell. */
const commands = [...readFileSync('README.md', 'utf8').matchAll(/```sh\n([\s\S]*?)```/g)].map(([, text]) =>
  (text ?? '').trim(),
)

let port: number
let start: ChildProcess
let output = ''
const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-readme-'))

beforeAll(async () => {
  port = await freePort()
  start = spawn('npm', ['start'], { env: { ...process.env, PORT: String(port), STATE: state }, detached: true })
  await new Promise<void>((ready, failed) => {
    start.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.includes('Try, in another terminal')) ready()
    })
    start.once('close', () => failed(new Error(`npm start ended: ${output}`)))
  })
}, 60_000)
afterAll(async () => {
  process.kill(-(start.pid as number), 'SIGTERM')
  await new Promise((ended) => start.once('close', ended))
  rmSync('answer.json', { force: true })
  rmSync(state, { recursive: true })
})

/** Runs commands in one shell, on the port of this test. */
function shell(script: string): Promise<string> {
  return new Promise((done, failed) =>
    execFile('bash', ['-euc', script.replaceAll('127.0.0.1:8787', `127.0.0.1:${port}`)], (error, stdout, stderr) =>
      error ? failed(new Error(`${error.message}\n${stderr}`)) : done(stdout),
    ),
  )
}

test('T-20: a second one on the same state is refused, and the first goes on', async () => {
  const environment = { ...process.env, PORT: String(await freePort()), STATE: state }
  const second = spawn('npm', ['start'], { env: environment })
  let said = ''
  second.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const code = await new Promise((ended) => second.once('close', ended))
  expect([code, said]).toEqual([1, expect.stringContaining('is in use by another process')])
  expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200)
})

test('the README has the commands that are tested here, and no others', () => {
  expect(
    commands.map((command) =>
      command
        .split(/[\s\\]+/)
        .slice(0, 4)
        .join(' '),
    ),
  ).toEqual([
    'npm start',
    'POD_TOKEN=$(curl -s http://127.0.0.1:8787/demo/token)',
    'curl -s http://127.0.0.1:8787/token --data-urlencode',
    'npm run --silent verify',
    'curl -s http://127.0.0.1:8787/structured-auth.yaml',
    'npm run wrangler --',
  ])
})

test('the first SVID: a demo token, the exchange, and its verification through discovery', async () => {
  const [, token, exchange, verify] = commands
  const printed = await shell(`${token}\n${exchange}\n${verify}`)
  expect(JSON.parse(printed)).toMatchObject({ spiffe_id: 'spiffe://example.org/ns/default/sa/web', audience: ['k8s'] })
  expect(output).toContain('"decision":"issued"')
})

test('npm start prints the same commands', () => {
  for (const command of commands.slice(1, 4))
    for (const line of command.split('\n')) expect(output).toContain(line.trim().replaceAll(':8787', `:${port}`))
})

test('the file for an apiserver', async () => {
  expect(await shell(commands[4] ?? '')).toContain('kind: "AuthenticationConfiguration"')
})

test('deploying, as far as it goes without an account', async () => {
  expect(await shell(`${commands[5]} --dry-run`)).toContain('env.KEY_STATE (KeyState)')
}, 60_000)
