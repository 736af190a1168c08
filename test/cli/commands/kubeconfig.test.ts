/** `spiffe-edge kubeconfig`. That kubectl takes what it writes is in test/interop/credential_*.test.ts. */

import { existsSync, lstatSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { cli, Folder } from '../../support/cli.ts'

const folder = new Folder()
afterAll(() => folder.remove())

const HAND_WRITTEN = `# of the shop
apiVersion: v1
kind: Config
current-context: shop # the usual one
contexts:
- name: shop
  context: {cluster: shop, user: admin}
clusters: null
users:
- name: admin
  user:
    client-key-data: c2VjcmV0
`

const kubeconfig = (...argv: readonly string[]) => cli(['kubeconfig', ...argv])

test('EX-4: the user of the SPIFFE Workload API, as it is printed', async () => {
  const { code, stdout } = await kubeconfig('workload-api')
  expect(code).toBe(0)
  expect(parse(stdout)).toEqual({
    users: [
      {
        name: 'spiffe-edge',
        user: {
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            command: 'spiffe-edge',
            args: ['credential', 'workload-api'],
            interactiveMode: 'Never',
            provideClusterInfo: true,
            installHint: expect.stringContaining('spiffe-edge is not on the PATH'),
          },
        },
      },
    ],
  })
  const json = await kubeconfig('workload-api', '--output', 'json')
  expect(JSON.parse(json.stdout)).toEqual(parse(stdout))
})

test('options of the plugin become arguments, and files are found from everywhere', async () => {
  const options = [
    '--issuer',
    'https://issuer.example.org',
    '--token-file',
    'a/token',
    '--audience',
    'x',
    '--audience',
    'y',
  ]
  const { stdout } = await kubeconfig(
    'psat',
    '--user',
    'job',
    '--command',
    '/opt/spiffe-edge',
    '--api-version',
    'v1beta1',
    ...options,
  )
  const [{ name, user }] = parse(stdout).users
  expect([name, user.exec.command, user.exec.apiVersion]).toEqual([
    'job',
    '/opt/spiffe-edge',
    'client.authentication.k8s.io/v1beta1',
  ])
  options[options.indexOf('a/token')] = resolve('a/token')
  expect(user.exec.args).toEqual(['credential', 'psat', ...options])
  expect(user.exec.provideClusterInfo).toBe(false)
})

describe('into a file', () => {
  test('one that is not there', async () => {
    const file = `${folder.path}/new`
    expect(await kubeconfig('workload-api', '--kubeconfig', file)).toMatchObject({ code: 0, stdout: '' })
    expect(parse(readFileSync(file, 'utf8'))).toMatchObject({
      apiVersion: 'v1',
      kind: 'Config',
      users: [{ name: 'spiffe-edge' }],
    })
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect((await kubeconfig('workload-api', '--kubeconfig', file)).stderr).toBe(`${file}: unchanged\n`)
  })

  test('one that somebody has written: what they have written stays, comments too', async () => {
    const file = folder.write(HAND_WRITTEN, undefined, 0o640)
    expect((await kubeconfig('workload-api', '--kubeconfig', file, '--context', 'shop')).code).toBe(0)
    const text = readFileSync(file, 'utf8')
    expect(text).toContain('# of the shop')
    expect(text).toContain('# the usual one')
    const before = parse(HAND_WRITTEN)
    expect(parse(text)).toEqual({
      ...before,
      contexts: [{ name: 'shop', context: { cluster: 'shop', user: 'spiffe-edge' } }],
      users: [...before.users, expect.objectContaining({ name: 'spiffe-edge' })],
    })
    expect(statSync(file).mode & 0o777).toBe(0o640)
    expect(existsSync(`${file}.lock`)).toBe(false)
    // The same user in another way is a change of what is ours.
    await kubeconfig('psat', '--kubeconfig', file)
    const { users } = parse(readFileSync(file, 'utf8'))
    expect(users.map(({ name }: { name: string }) => name)).toEqual(['admin', 'spiffe-edge'])
    expect(users[1].user.exec.args).toEqual(['credential', 'psat'])
  })

  test('one in JSON stays in JSON', async () => {
    const file = folder.write(JSON.stringify({ apiVersion: 'v1', kind: 'Config', users: [] }))
    expect((await kubeconfig('workload-api', '--kubeconfig', file)).code).toBe(0)
    expect(JSON.parse(readFileSync(file, 'utf8')).users[0].name).toBe('spiffe-edge')
  })

  test('somebody who was something else is only lost with --replace', async () => {
    const file = folder.write(HAND_WRITTEN)
    const refused = await kubeconfig('workload-api', '--kubeconfig', file, '--user', 'admin')
    expect([refused.code, readFileSync(file, 'utf8')]).toEqual([1, HAND_WRITTEN])
    expect(refused.stderr).not.toContain('c2VjcmV0')
    const replaced = await kubeconfig('workload-api', '--kubeconfig', file, '--user', 'admin', '--replace')
    expect(replaced.code).toBe(0)
    expect(parse(readFileSync(file, 'utf8')).users).toEqual([
      { name: 'admin', user: { exec: expect.objectContaining({ args: ['credential', 'workload-api'] }) } },
    ])
  })

  test.each([
    ['is of another kind', 'kind: Pod\n'],
    ['is a list', '- a\n'],
    ['is no YAML', 'a: [\n'],
    ['has users that are no list', 'kind: Config\nusers: {}\n'],
    ['has the user twice', 'kind: Config\nusers: [{name: spiffe-edge, user: {}}, {name: spiffe-edge, user: {}}]\n'],
    ['has no such context', 'kind: Config\ncontexts: [{name: other, context: {}}]\n'],
  ])('one that %s stays as it is', async (_, text) => {
    const file = folder.write(text)
    const { code, stdout } = await kubeconfig('workload-api', '--kubeconfig', file, '--context', 'shop', '--replace')
    expect([code, stdout, readFileSync(file, 'utf8')]).toEqual([1, '', text])
  })

  test('one that kubectl is changing at the moment is left alone, and so is its lock', async () => {
    const file = folder.write(HAND_WRITTEN)
    writeFileSync(`${file}.lock`, '')
    const { code, stderr } = await kubeconfig('workload-api', '--kubeconfig', file)
    expect([code, readFileSync(file, 'utf8')]).toEqual([1, HAND_WRITTEN])
    expect(stderr).toContain('.lock')
    expect(existsSync(`${file}.lock`)).toBe(true)
  })

  test('where a link is, it stays, and what it leads to is changed', async () => {
    const file = folder.write(HAND_WRITTEN)
    const link = `${folder.path}/link`
    symlinkSync(file, link)
    expect((await kubeconfig('workload-api', '--kubeconfig', link)).code).toBe(0)
    expect(lstatSync(link).isSymbolicLink()).toBe(true)
    expect(readFileSync(file, 'utf8')).toContain('spiffe-edge')
  })
})

test.each([
  [['--context', 'shop']],
  [['--replace']],
  [['--api-version', 'v1alpha1']],
  [['--token', 'x']],
  [['--output', 'xml']],
])('%j is not understood', async (argv) => {
  expect(await kubeconfig('workload-api', ...argv)).toMatchObject({ code: 2, stdout: '' })
})
