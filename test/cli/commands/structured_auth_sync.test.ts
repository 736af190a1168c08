/** `structured-auth sync` against an API that speaks the contract: a fake, see test/support/admin_api.ts. */

import { spawn } from 'node:child_process'
import { chmodSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type AdminApi, startAdminApi, stored } from '../../support/admin_api.ts'
import { cli, Folder, type Outcome } from '../../support/cli.ts'
import { findPieceOf } from '../../support/tokens.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const ID = 'spiffe://example.org/ns/shop/sa/web'
const folder = new Folder()
const tokenFile = folder.write(TOKEN)
const file = `${folder.path}/authentication.yaml`
let api: AdminApi
let template: string
let last: Outcome

beforeEach(async () => {
  api = await startAdminApi()
  template = folder.write(configuration())
  rmSync(file, { force: true })
})
afterEach(async () => {
  await api.stop()
  expect(findPieceOf(TOKEN, last.stdout + last.stderr)).toBeNull()
  expect(last.stderr).not.toContain('internal error')
})
afterAll(() => folder.remove())

const configuration = () => ({
  apiVersion: 'apiserver.config.k8s.io/v1',
  kind: 'AuthenticationConfiguration',
  jwt: [
    {
      issuer: { url: api.issuer, audiences: ['k8s'] },
      claimMappings: { username: { claim: 'sub', prefix: '' } },
      userValidationRules: [{ expression: "!user.username.startsWith('system:')" }],
    },
  ],
})
const arguments_ = () => [
  ...['structured-auth', 'sync', '--issuer', api.issuer, '--token-file', tokenFile],
  ...['--cluster', 'east', '--template', template, '--file', file],
]
async function sync(...more: readonly string[]): Promise<Outcome> {
  last = await cli([...arguments_(), ...more])
  return last
}
const written = () => parse(readFileSync(file, 'utf8'))
const ruleOf = () => written().jwt[0].claimValidationRules?.map(({ expression }: { expression: string }) => expression)

describe('T-13: structured-auth sync', () => {
  test('writes the template, then with what is revoked, and then without', async () => {
    expect(await sync()).toMatchObject({
      code: 0,
      stdout: `${file} written; revoked: 0 tokens, 0 subjects\n`,
      stderr: '',
    })
    expect(written()).toEqual(configuration())
    api.objects = [
      stored('Revocation', 'a', { jti: 'a', expiresAt: 1 }),
      stored('Ban', 'thief', { spiffeID: ID }),
      stored('Ban', 'other', { cluster: 'east', nodeUID: 'x' }),
    ]
    expect(await sync()).toMatchObject({ code: 0, stdout: `${file} written; revoked: 1 tokens, 1 subjects\n` })
    expect(ruleOf()).toEqual([`!(has(claims.jti) && claims.jti in ['a']) && !(claims.sub in ['${ID}'])`])
    api.objects = []
    await sync()
    expect(written()).toEqual(configuration())
    expect(api.paths).toEqual(Array(3).fill('GET /admin/v1/clusters/east/revocations'))
  })

  test('writes nothing where nothing has changed, and its mode stays', async () => {
    await sync()
    chmodSync(file, 0o644)
    const { ino, mtimeMs } = statSync(file)
    api.version++
    expect(await sync()).toMatchObject({ code: 0, stdout: `${file} unchanged; revoked: 0 tokens, 0 subjects\n` })
    expect(statSync(file)).toMatchObject({ ino, mtimeMs })
    api.objects = [stored('Ban', 'thief', { spiffeID: ID })]
    await sync()
    expect(statSync(file).mode & 0o777).toBe(0o644)
  })

  test('takes a change of the template over', async () => {
    await sync()
    const changed = configuration()
    changed.jwt[0]?.issuer.audiences.push('more')
    template = folder.write(changed)
    await sync()
    expect(written()).toEqual(changed)
  })

  test.each<[string, number, unknown, RegExp]>([
    ['no answer', 503, {}, /not ready/],
    ['a refusal', 401, { error: 'invalid_token' }, /invalid_token/],
    ['another cluster’s administrator', 403, { error: 'access_denied', reason: 'admin_limited' }, /of one cluster/],
    ['a cluster that there is not', 404, { error: 'cluster_unknown' }, /knows no such cluster/],
    ['an older worker', 404, 'not found', /no admin API/],
    ['no JSON', 200, 'x', /not what is revoked/],
    ['the answer for another', 200, { cluster: 'west', version: 1, tokens: [], subjects: [] }, /not what is revoked/],
    ['a rule', 200, { cluster: 'east', version: 1, tokens: ["'"], subjects: [] }, /not what is revoked/],
    ['a member twice', 200, '{"cluster":"east","version":1,"tokens":[],"tokens":[],"subjects":[]}', /not what/],
  ])('%s: exit code 1, and the file stays', async (_, status, body, message) => {
    api.objects = [stored('Ban', 'thief', { spiffeID: ID })]
    await sync()
    const before = [readFileSync(file, 'utf8'), statSync(file).ino]
    api.answer('revocations', { status, body })
    expect(await sync()).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(message) })
    expect([readFileSync(file, 'utf8'), statSync(file).ino]).toEqual(before)
  })

  test.each<[string, () => void]>([
    ['a template that is not there', () => rmSync(template)],
    ['a template that is none', () => writeFileSync(template, '{}')],
  ])('%s: exit code 1, and the file stays', async (_, spoil) => {
    await sync()
    const before = readFileSync(file, 'utf8')
    spoil()
    expect((await sync()).code).toBe(1)
    expect(readFileSync(file, 'utf8')).toBe(before)
  })

  test('a file that is a link is not replaced', async () => {
    symlinkSync(`${folder.path}/elsewhere.yaml`, file)
    expect(await sync()).toMatchObject({ code: 1, stderr: expect.stringContaining('no plain file') })
  })

  test('nothing of what else is sent gets into the file', async () => {
    const evil = { issuer: 'https://evil.example', certificateAuthority: 'evil', rules: ['true'], groups: 'evil' }
    api.answer('revocations', { status: 200, body: { cluster: 'east', version: 1, tokens: [], subjects: [], ...evil } })
    await sync()
    expect(written()).toEqual(configuration())
  })

  test.each([
    [['--cluster', 'EAST']],
    [['--cluster', '../objects']],
    [['--interval', '0']],
    [['--interval', '3601']],
    [['--interval', '1.5']],
    [['--interval', 'x']],
    [['--template', '-']],
  ])('%j is wrong usage', async (argv) => {
    expect((await sync(...argv)).code).toBe(2)
    expect(api.paths).toEqual([])
  })

  test('the template is not written over', async () => {
    const before = readFileSync(template, 'utf8')
    const link = `${folder.path}/link.yaml`
    symlinkSync(template, link)
    for (const one of [template, link]) expect((await sync('--file', one)).code).toBe(2)
    expect(readFileSync(template, 'utf8')).toBe(before)
  })

  test('with --interval it goes on, says what fails, and takes it up again', async () => {
    const child = spawn('node', ['cli/main.ts', ...arguments_(), '--interval', '1'])
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => {
        output[name] += text
      })
    const ended = new Promise((done) => child.once('exit', done))
    try {
      await expect.poll(() => output.stdout).toContain('written; revoked: 0 tokens, 0 subjects')
      api.objects = [stored('Ban', 'thief', { spiffeID: ID })]
      await expect.poll(ruleOf).toEqual([`!(claims.sub in ['${ID}'])`])
      api.answer('revocations', { status: 503 }, { status: 200, body: 'x' })
      await expect.poll(() => output.stderr).toMatch(/not ready[\s\S]*not what is revoked/)
      expect(ruleOf()).toEqual([`!(claims.sub in ['${ID}'])`])
      api.version = 1
      await expect.poll(() => output.stderr).toContain('fewer changes than before')
      api.objects = []
      await expect.poll(ruleOf).toBeUndefined()
      expect(child.exitCode).toBeNull()
    } finally {
      child.kill()
      await ended
      last = { code: 0, ...output }
    }
  })
})
