/** The command line as others install it: from npm's package, and as one file. `scripts/build_cli.mjs` has built both. */

import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cli, Folder } from '../support/cli.ts'
import { missing } from '../support/tools.ts'

const folder = new Folder()
afterAll(() => folder.remove())

/** What is run, by its form. */
const programs = new Map<string, string>()

beforeAll(() => {
  const [packed] = JSON.parse(
    execFileSync('npm', ['pack', '--json', resolve('dist/npm')], { cwd: folder.path, encoding: 'utf8' }),
  )
  folder.write({ private: true }, 'package.json')
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', `./${packed.filename}`], {
    cwd: folder.path,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  programs.set('npm', join(folder.path, 'node_modules/.bin/spiffe-edge'))
  // Away from here, so that it finds none of our files.
  const alone = join(folder.path, 'alone')
  copyFileSync('dist/single-file/spiffe-edge', alone)
  programs.set('single-file', alone)
})

function run(form: string, argv: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(programs.get(form) ?? '', argv, {
    cwd: folder.path,
    encoding: 'utf8',
    // The npm form runs on the Node that it finds; the other has one.
    env: { ...(form === 'npm' && { PATH: process.env.PATH }), ...env },
  })
  return { code: status, stdout, stderr }
}

describe.each(['npm', 'single-file'])('the %s form', (form) => {
  test.each([
    [['--help']],
    [['--version']],
    [['credential', 'psat', '--help']],
    [['kubeconfig', 'workload-api', '--audience', 'k8s']],
    [['completion', 'bash']],
    [['get', 'pods']],
    [['credential', 'workload-api', '--socket', 'tcp://localhost:1']],
  ])('%j does what it does from source', async (argv) => {
    expect(run(form, argv)).toEqual(await cli(argv))
  })

  test('every command is in it, and can be loaded', async () => {
    const { stdout } = run(form, ['--help'])
    const names = [...stdout.matchAll(/^ {2}([a-z-]+) /gm)]
      .map(([, name]) => name ?? '')
      .filter((name) => name !== 'help')
    expect(names.length).toBeGreaterThan(15)
    for (const name of names) expect([name, run(form, [name, '--help']).code]).toEqual([name, 0])
  })

  test('the keyring has its addon: without a session it says so, and nothing else', () => {
    const { code, stderr } = run(form, ['get', '--issuer', 'http://127.0.0.1:1'])
    expect(code).toBe(1)
    expect(stderr).toContain('there is none in this session')
  })

  test('a link of the name that the seed has asks the Workload API', () => {
    const link = join(folder.path, `${form}/k8s-spiffe-workload-jwt-exec-auth`)
    folder.write('', `${form}/none`)
    symlinkSync(programs.get(form) ?? '', link)
    const env = { ...(form === 'npm' && { PATH: process.env.PATH ?? '' }), SPIFFE_ENDPOINT_SOCKET: 'unix:///none' }
    const { status, stderr } = spawnSync(link, ['--timeout', '1'], { encoding: 'utf8', env })
    expect([status, stderr]).toEqual([1, expect.stringContaining('the Workload API at unix:///none: is not there')])
  })
})

describe.skipIf(missing('strace'))(
  'the single file puts the keyring’s addon where nobody else can take its place',
  () => {
    const mine = join(folder.path, 'mine')
    const open = join(folder.path, 'open')
    mkdirSync(mine, { mode: 0o700 })
    mkdirSync(open)
    chmodSync(open, 0o777)

    test.each<[string, Record<string, string>, string]>([
      ['a folder of this person’s', { XDG_RUNTIME_DIR: mine }, mine],
      ['one that others may use', { XDG_RUNTIME_DIR: open }, tmpdir()],
      ['one that is not there', { XDG_RUNTIME_DIR: '/nonexistent' }, tmpdir()],
      ['a path that leads somewhere from here', { XDG_RUNTIME_DIR: '.' }, tmpdir()],
      ['nothing', { XDG_RUNTIME_DIR: '' }, tmpdir()],
      ['none', {}, tmpdir()],
    ])('XDG_RUNTIME_DIR: %s', (_, env, parent) => {
      const log = join(folder.path, 'strace.log')
      const program = [programs.get('single-file') ?? '', 'get', '--issuer', 'http://127.0.0.1:1']
      const strace = ['-f', '-qq', '-e', 'trace=openat', '-o', log, ...program]
      const { stderr } = spawnSync('strace', strace, { cwd: folder.path, encoding: 'utf8', env })
      expect(stderr).toContain('there is none in this session')
      const paths = [...readFileSync(log, 'latin1').matchAll(/"([^"]*)\/spiffe-edge-\w{6}\/keyring\.node"/g)]
      expect([...new Set(paths.map(([, path]) => path))]).toEqual([parent])
    })
  },
)

test.skipIf(missing('go'))('kubectl finds it as a plugin of its own', () => {
  const env = { PATH: `${join(folder.path, 'node_modules/.bin')}:${process.env.PATH}`, HOME: folder.path }
  const { stdout, status } = spawnSync(resolve('build/go/kubectl'), ['spiffe-edge', 'kubeconfig', 'psat'], {
    encoding: 'utf8',
    env,
  })
  expect([status, stdout]).toEqual([0, run('npm', ['kubeconfig', 'psat']).stdout])
})

test('the package holds what it says, and the licenses of what is in it', () => {
  const read = (path: string) => readFileSync(join(folder.path, 'node_modules/spiffe-edge', path), 'utf8')
  const { dependencies, bin, scripts } = JSON.parse(read('package.json'))
  expect(Object.keys(dependencies)).toEqual(['@napi-rs/keyring'])
  expect(Object.keys(bin)).toEqual(['spiffe-edge', 'kubectl-spiffe_edge'])
  expect(scripts).toBeUndefined()
  expect(read('LICENSE')).toContain('Apache License')
  const notices = read('THIRD_PARTY_LICENSES')
  for (const name of ['commander', 'jose', 'yaml', '@bufbuild/protobuf'])
    expect(notices).toMatch(new RegExp(`^${name} \\d`, 'm'))
  const single = readFileSync('dist/single-file/THIRD_PARTY_LICENSES', 'utf8')
  expect(single).toMatch(/^node-linux-\S+ \d/m)
  expect(single).toMatch(/^@napi-rs\/keyring-\S+ \d/m)
  // One that has them at the head of its files.
  expect(notices).toMatch(/^@bufbuild\/protobuf [\s\S]*Copyright 2008 Google Inc\.[\s\S]*Neither the name of Google/m)
})
