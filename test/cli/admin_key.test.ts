/** T-11: an administrator's key pair, where its private half is kept, and the tokens that it signs. */

import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { calculateJwkThumbprint } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type AdminApi, startAdminApi } from '../support/admin_api.ts'
import { cli, Folder } from '../support/cli.ts'
import { findPieceOf } from '../support/tokens.ts'

const folder = new Folder()
let api: AdminApi
let count = 0
let file: string

beforeAll(async () => {
  api = await startAdminApi()
})
afterAll(async () => {
  await api.stop()
  folder.remove()
})
beforeEach(() => {
  file = join(folder.path, `key-${count++}`)
})

const create = (...more: string[]) =>
  cli(['admin', 'create', '--issuer', api.issuer, '--name', 'alice', '--key-file', file, ...more])
const get = (...more: string[]) => cli(['get', '--issuer', api.issuer, '--key-file', file, ...more])

describe('admin create', () => {
  test('prints the Admin object for the manifest on stdout, and nothing of the private key anywhere', async () => {
    const { code, stdout, stderr } = await create()
    expect(code).toBe(0)
    const { key } = JSON.parse(readFileSync(file, 'utf8'))
    const { kty, crv, x, y, d } = key
    expect(parse(stdout)).toEqual({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Admin',
      metadata: { name: 'alice' },
      spec: { publicKey: { kty, crv, x, y } },
    })
    expect([kty, crv, d]).toEqual(['EC', 'P-256', expect.stringMatching(/^[\w-]{43}$/)])
    expect(findPieceOf(d, stdout + stderr)).toBeNull()
    expect(stderr).toContain(file)
  })

  test('--output json prints the same as JSON', async () => {
    expect(JSON.parse((await create('--output', 'json')).stdout)).toMatchObject({ kind: 'Admin' })
  })

  test('the file is for its owner alone, whatever the umask', async () => {
    const before = process.umask(0)
    await create()
    process.umask(before)
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  test('a key that is there is not overwritten, unless --replace is given', async () => {
    await create()
    const first = readFileSync(file, 'utf8')
    const second = await create()
    expect([second.code, second.stdout]).toEqual([1, ''])
    expect(second.stderr).toContain('--replace')
    expect(readFileSync(file, 'utf8')).toBe(first)
    expect((await create('--replace')).code).toBe(0)
    expect(readFileSync(file, 'utf8')).not.toBe(first)
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  test('a link in the place of the file is not followed', async () => {
    const target = join(folder.path, 'target')
    symlinkSync(target, file)
    expect((await create()).code).toBe(1)
    expect(() => statSync(target)).toThrow()
  })

  test('a folder that is not there', async () => {
    file = join(folder.path, 'nowhere', 'key')
    const { code, stdout } = await create()
    expect([code, stdout]).toEqual([1, ''])
  })

  test.each([
    ['no name', ['--issuer', 'https://issuer.example.org']],
    ['no issuer', ['--name', 'alice']],
    ['an issuer with a slash at its end', ['--issuer', 'https://issuer.example.org/', '--name', 'alice']],
    ['an issuer that is not https', ['--issuer', 'http://issuer.example.org', '--name', 'alice']],
    ['a name that is none', ['--issuer', 'https://issuer.example.org', '--name', 'Alice Smith']],
    ['another format', ['--issuer', 'https://issuer.example.org', '--name', 'alice', '--output', 'xml']],
    ['an unknown option', ['--issuer', 'https://issuer.example.org', '--name', 'alice', '--force']],
  ])('%s is wrong usage', async (_, argv) => {
    const { code, stdout, stderr } = await cli(['admin', 'create', '--key-file', file, ...argv])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).not.toBe('')
  })

  test('without a keyring it says what to do, and prints no object', () => {
    // A process of its own: the library would find the session of whoever runs the tests.
    const argv = ['cli/main.ts', 'admin', 'create', '--issuer', 'https://issuer.example.org', '--name', 'alice']
    const home = join(folder.path, 'home')
    mkdirSync(home)
    const env = { PATH: process.env.PATH, HOME: home, DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nonexistent' }
    const { status, stdout, stderr } = spawnSync('node', argv, { env, encoding: 'utf8' })
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/keyring .* cannot be used[\s\S]*--key-file/)
  })
})

describe('the admin token', () => {
  test('T-11: is made out to <issuer>/admin, for five minutes, and is another one for each request', async () => {
    const { publicKey } = parse((await create()).stdout).spec
    api.admin = publicKey
    const before = Math.floor(Date.now() / 1000)
    expect((await get()).code).toBe(0)
    const { header, claims } = api.lastToken as NonNullable<typeof api.lastToken>
    expect(header).toEqual({ alg: 'ES256', kid: await calculateJwkThumbprint(publicKey), typ: 'JWT' })
    const { iat = 0, exp, jti, ...rest } = claims
    expect(rest).toEqual({ iss: 'alice', sub: 'alice', aud: `${api.issuer}/admin` })
    expect(iat - before).toBeGreaterThanOrEqual(0)
    expect(exp).toBe(iat + 300)
    expect(jti).toMatch(/^[0-9a-f-]{36}$/)
    await get()
    expect(api.lastToken?.claims.jti).not.toBe(jti)
    api.admin = null
  })

  test('another key is refused, and the message says where to look', async () => {
    api.admin = parse((await create()).stdout).spec.publicKey
    await create('--replace')
    const { code, stderr } = await get()
    expect(code).toBe(1)
    expect(stderr).toContain('invalid_token')
    api.admin = null
  })

  test('the key of one issuer signs for no other', async () => {
    await cli(['admin', 'create', '--issuer', 'https://other.example.org', '--name', 'alice', '--key-file', file])
    const asked = api.paths.length
    const { code, stderr } = await get()
    expect([code, stderr]).toEqual([1, expect.stringContaining('another issuer')])
    expect(api.paths.length).toBe(asked)
  })

  test('a key file that others may read is not used', async () => {
    await create()
    chmodSync(file, 0o640)
    expect(await get()).toMatchObject({ code: 1, stderr: expect.stringContaining('chmod 600') })
  })

  const SECRET = 'c2VjcmV0LXByaXZhdGUta2V5LW9mLWFsaWNlLTAxMjM0'
  test.each([
    ['no JSON', `${SECRET}`],
    ['cut off', `{"issuer":"ISSUER","name":"alice","key":{"kty":"EC","d":"${SECRET}`],
    ['with a member twice', `{"issuer":"ISSUER","name":"a","name":"b","key":{"d":"${SECRET}"}}`],
    ['without a key', `{"issuer":"ISSUER","name":"alice","secret":"${SECRET}"}`],
    [
      'of another kind of key',
      `{"issuer":"ISSUER","name":"alice","key":{"kty":"OKP","crv":"Ed25519","d":"${SECRET}"}}`,
    ],
    [
      'with halves that are strangers',
      `{"issuer":"ISSUER","name":"alice","key":{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"${SECRET}"}}`,
    ],
    ['of an administrator without name', `{"issuer":"ISSUER","key":{"kty":"EC","crv":"P-256","d":"${SECRET}"}}`],
  ])('a stored key %s is an error that repeats nothing of it', async (_, text) => {
    writeFileSync(file, text.replace('ISSUER', api.issuer), { mode: 0o600 })
    const { code, stdout, stderr } = await get()
    expect([code, stdout]).toEqual([1, ''])
    expect(findPieceOf(SECRET, stderr)).toBeNull()
    expect(stderr).not.toContain('internal error')
  })

  test('no key yet', async () => {
    expect(await get()).toMatchObject({ code: 1, stderr: expect.stringContaining('admin create') })
  })
})

describe("an identity provider's token", () => {
  const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'

  test.each([
    ['--token-file', (path: string) => cli(['get', '--issuer', api.issuer, '--token-file', path])],
    [
      'SPIFFE_EDGE_ADMIN_TOKEN_FILE',
      (path: string) => cli(['get'], { env: { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: path } }),
    ],
  ])('comes from %s', async (_, run) => {
    expect((await run(folder.write(`${TOKEN}\n`))).code).toBe(0)
    expect(api.tokens.at(-1)).toBe(TOKEN)
  })

  test('a file that holds something else is not sent to anybody', async () => {
    const asked = api.paths.length
    const secret = 'the-password-of-something-else'
    const { code, stderr } = await cli(['get', '--issuer', api.issuer, '--token-file', folder.write(secret)])
    expect([code, api.paths.length]).toEqual([1, asked])
    expect(findPieceOf(secret, stderr)).toBeNull()
  })

  test('a file that is not there', async () => {
    expect((await cli(['get', '--issuer', api.issuer, '--token-file', file])).code).toBe(1)
  })

  test('both at once is wrong usage; --key-file goes before the variable', async () => {
    const both = ['get', '--issuer', api.issuer, '--token-file', file, '--key-file', file]
    expect((await cli(both)).code).toBe(2)
    await create()
    const env = { SPIFFE_EDGE_ADMIN_TOKEN_FILE: folder.write(TOKEN) }
    expect((await cli(['get', '--issuer', api.issuer, '--key-file', file], { env })).code).toBe(0)
    expect(api.tokens.at(-1)).not.toBe(TOKEN)
  })
})
