/** The commands of docs/login.md, run in their order, with a provider of the test's own in the place of the one that is named there. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { CLIENT_ID, type IdentityProvider, startIdentityProvider } from '../../support/identity_provider.ts'
import { LoginHome } from '../../support/login.ts'

const text = readFileSync('docs/login.md', 'utf8')
const commands = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block]) => (block ?? '').trim().split('\n'))

const home = new LoginHome()
let idp: IdentityProvider

beforeAll(async () => {
  idp = await startIdentityProvider()
})
afterAll(async () => {
  await idp.stop()
  home.remove()
})

test('there are commands, and each is one of spiffe-edge', () => {
  expect(commands).toHaveLength(6)
  for (const command of commands) expect(command).toMatch(/^spiffe-edge /)
})

test.each(commands)('%s', async (command) => {
  const file = join(home.path, 'kubeconfig')
  const argv = command
    .split(' ')
    .slice(1)
    .map((word) => (word === 'kubernetes' ? CLIENT_ID : word.replace('https://login.example.org', idp.issuer)))
    .map((word, at, all) => (all[at - 1] === '--kubeconfig' ? file : word))
  if (argv.includes('--kubeconfig') && !argv.includes('--replace')) {
    const { writeFileSync } = await import('node:fs')
    const contexts = [{ name: 'shop', context: { cluster: 'shop', user: 'nobody' } }]
    writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'Config', contexts }))
  }
  expect(await home.run(argv)).toMatchObject({ code: 0, stderr: expect.not.stringContaining('internal error') })
  if (argv.includes('--kubeconfig')) {
    const { exec } = parse(readFileSync(file, 'utf8')).users[0].user
    expect(exec.args.slice(0, 2)).toEqual(['credential', 'oidc'])
    expect(exec.interactiveMode).toBe('IfAvailable')
  }
})

test('every option of the command is in the table, or in the part about SVIDs', async () => {
  const { oidc } = await import('../../../cli/commands/credential_oidc.ts')
  for (const name of Object.keys(oidc.options)) if (name !== 'spiffe-id') expect(text).toContain(`--${name}`)
})

test('the pauses and the places are those of the program', async () => {
  const { PLACES } = await import('../../../cli/login/session_store.ts')
  expect(Object.keys(PLACES)).toHaveLength(4)
  expect(text).toContain('15 s, then 1 min, 5 min, 30 min, 2 h, 8 h')
})
