import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cli, Folder } from '../../support/cli.ts'

const GOOD = {
  '--issuer': 'https://issuer.example.org',
  '--token-file': '/nowhere/token',
  '--socket': '/nowhere/agent.sock',
}

/** @param change laid over a command line that could be right; one that is null is left out */
async function run(change: Readonly<Record<string, string | null>>) {
  const options = Object.entries({ ...GOOD, ...change }).flatMap(([name, value]) =>
    value === null ? [] : [name, value],
  )
  return cli(['agent', ...options])
}

test.each<[string, Readonly<Record<string, string | null>>, RegExp]>([
  ['no issuer', { '--issuer': null }, /which worker/],
  ['an issuer over http', { '--issuer': 'http://issuer.example.org' }, /--issuer: not https/],
  ['no token file', { '--token-file': null }, /which token/],
  ['standard input for it', { '--token-file': '-' }, /which token/],
  ['no socket', { '--socket': null }, /where\?/],
  ['WA-4: a socket at a host', { '--socket': 'unix://host/agent.sock' }, /--socket/],
  ['WA-3: a TCP address', { '--socket': 'tcp://127.0.0.1:8081' }, /only a unix socket/],
  ['a SPIFFE ID that is none', { '--spiffe-id': 'example.org/web' }, /--spiffe-id: not a SPIFFE ID/],
])('%s is not understood: 2', async (_, change, message) => {
  const { code, stdout, stderr } = await run(change)
  expect([code, stdout]).toEqual([2, ''])
  expect(stderr).toMatch(message)
})

test('SPIFFE IDs of two trust domains are not understood: one pod is of one', async () => {
  const ids = ['spiffe://example.org/a', 'spiffe://example.net/b']
  const { code, stderr } = await cli(['agent', ...Object.entries(GOOD).flat(), '--spiffe-id', ...ids])
  expect([code, stderr]).toEqual([2, '--spiffe-id: not all of one trust domain\n'])
})

test.skipIf(process.platform !== 'linux')('a log that cannot be written does not end it', async () => {
  const folder = new Folder()
  const socket = join(folder.path, 'agent.sock')
  const argv = ['agent', '--issuer', 'https://localhost:1', '--token-file', '/nowhere/token', '--socket', socket]
  const stdio = ['ignore', 'ignore', openSync('/dev/full', 'w')] as const
  const child = spawn(process.execPath, ['cli/main.ts', ...argv], { stdio: [...stdio], env: {} })
  const ended = once(child, 'close')
  await expect.poll(() => existsSync(socket)).toBe(true)
  // By now it has said that it listens, and that there is no token.
  const { code } = await cli(['credential', 'workload-api', '--socket', `unix://${socket}`, '--timeout', '1'])
  expect(code).toBe(1)
  child.kill('SIGTERM')
  expect(await ended).toEqual([0, null])
  folder.remove()
})

test('where it cannot listen it ends with 1', async () => {
  const { code, stderr } = await run({})
  expect([code, stderr]).toEqual([1, '/nowhere/agent.sock: there is no such file\n'])
})
