/** get, apply, delete, ban, unban and revoke against an API that speaks the contract: a fake, see test/support/admin_api.ts. */

import { spawnSync } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { parseObject } from '../../worker/policy/manifest.ts'
import { type AdminApi, startAdminApi, stored } from '../support/admin_api.ts'
import { cli, Folder, type Outcome } from '../support/cli.ts'
import { findPieceOf } from '../support/tokens.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const folder = new Folder()
const tokenFile = folder.write(TOKEN)
let api: AdminApi
let last: Outcome

beforeEach(async () => {
  api = await startAdminApi()
})
afterEach(async () => {
  await api.stop()
  // No command says anything of the token, however it ends.
  expect(findPieceOf(TOKEN, last.stdout + last.stderr)).toBeNull()
  expect(last.stderr).not.toContain('internal error')
})
afterAll(() => folder.remove())

async function run(argv: readonly string[], stdin?: string): Promise<Outcome> {
  const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
  last = await cli(argv, { env, ...(stdin !== undefined && { stdin }) })
  return last
}

const WEB = { clusters: ['eu'], selector: { namespace: 'shop', serviceAccountName: 'web' }, audiences: ['k8s'] }
const EU = { issuer: 'https://eu.example.org', jwks: { discovery: true } }
const registration = (name: string, spec: object = WEB) => ({
  apiVersion: 'kubespiffe.io/v1alpha1',
  kind: 'WorkloadRegistration',
  metadata: { name },
  spec,
})
const yaml = (...objects: object[]) => objects.map((object) => `---\n${JSON.stringify(object)}\n`).join('')

describe('get', () => {
  beforeEach(() => {
    api.objects = [
      stored('Cluster', 'eu', EU, 'manifest'),
      stored('WorkloadRegistration', 'web', WEB),
      { ...stored('WorkloadRegistration', 'far', WEB, 'cluster:eu'), status: 'rejected', reason: 'beyond the ceiling' },
    ]
  })

  test('a table with source, status and reason', async () => {
    const { code, stdout, stderr } = await run(['get'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.split('\n')).toEqual([
      'KIND                   NAME   SOURCE       STATUS     REASON',
      'Cluster                eu     manifest     accepted',
      'WorkloadRegistration   web    applied      accepted',
      'WorkloadRegistration   far    cluster:eu   rejected   beyond the ceiling',
      '',
    ])
  })

  test.each([
    ['clusters', ['eu']],
    ['registrations', ['web', 'far']],
    ['bans', []],
    ['attestors', []],
    ['all', ['eu', 'web', 'far']],
  ])('get %s, as JSON and YAML', async (kind, names) => {
    const json = JSON.parse((await run(['get', kind, '--output', 'json'])).stdout)
    expect(json.map((entry: { object: { metadata: { name: string } } }) => entry.object.metadata.name)).toEqual(names)
    expect(parse((await run(['get', kind, '-o', 'yaml'])).stdout)).toEqual(json)
  })

  test('nothing to list is said on stderr', async () => {
    expect(await run(['get', 'bans'])).toEqual({ code: 0, stdout: '', stderr: 'none\n' })
  })

  test('a kind that is none is wrong usage', async () => {
    expect((await run(['get', 'pods'])).code).toBe(2)
  })

  test('what would move the cursor is shown as what it is', async () => {
    api.objects = [stored('Cluster', 'eu\u001b[2J\u202e', EU)]
    expect((await run(['get'])).stdout).toContain('eu\\u{1b}[2J\\u{202e}')
  })
})

describe('how the worker may answer', () => {
  test.each([
    [401, { error: 'invalid_token' }, {}, /invalid_token/],
    [403, { error: 'forbidden' }, {}, /forbidden/],
    [404, { error: 'not_found' }, {}, /no admin API/],
    [503, {}, { 'retry-after': '17' }, /try again in 17 s/],
    [503, {}, { 'retry-after': '\u0001; echo' }, /is not ready$/m],
    [400, { error: 'invalid_request', error_description: 'no\u001b[2J' }, {}, /400 invalid_request: no\\u\{1b\}/],
    [500, 'no JSON', {}, /answers 500$/m],
    [302, {}, { location: 'http://127.0.0.1:9/' }, /answers 302$/m],
    [200, 'no JSON', {}, /not its list/],
    [200, { version: 1 }, {}, /not its list/],
    [200, { version: '1', objects: [] }, {}, /not its list/],
    [200, { version: 1, objects: [{ object: { kind: 'Cluster' } }] }, {}, /not its list/],
    [200, '{"version":1,"version":2,"objects":[]}', {}, /not its list/],
  ])('%i %j', async (status, body, headers, message) => {
    const clean = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name, value.replace('\u0001', '')]),
    )
    api.answer('objects', { status, body, headers: clean })
    const { code, stdout, stderr } = await run(['get'])
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(message)
  })

  test('a bearer follows no redirect', async () => {
    const other = await startAdminApi()
    api.answer('objects', { status: 307, headers: { location: `${other.issuer}/admin/v1/objects` } })
    await run(['get'])
    expect(other.paths).toEqual([])
    await other.stop()
  })

  test('nobody is there', async () => {
    const server = createServer()
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    const { port } = server.address() as AddressInfo
    await new Promise((closed) => server.close(closed))
    expect(await run(['get', '--issuer', `http://127.0.0.1:${port}`])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('ECONNREFUSED'),
    })
  })

  test('an answer without end is given up', async () => {
    const server = createServer((_, response) => {
      const more = () => {
        while (response.write('x'.repeat(65_536)));
      }
      response.on('drain', more).on('error', () => {})
      more()
    })
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
    const { port } = server.address() as AddressInfo
    expect(await run(['get', '--issuer', `http://127.0.0.1:${port}`])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('too large'),
    })
    server.closeAllConnections()
    server.close()
  })

  test.each([
    'http://worker.example.org',
    'ftp://worker.example.org',
    'https://a@worker.example.org',
    'worker',
    'https://worker.example.org/',
  ])('the issuer %s is wrong usage', async (issuer) => {
    expect((await run(['get', '--issuer', issuer])).code).toBe(2)
  })
})

describe('apply', () => {
  test('creates, with the version that was read', async () => {
    const { code, stdout } = await run(['apply', '-f', folder.write(yaml(registration('web'), registration('api')))])
    expect([code, stdout]).toEqual([0, 'WorkloadRegistration/web created\nWorkloadRegistration/api created\n'])
    expect(api.applied).toEqual([
      { objects: [registration('web'), registration('api')], remove: [], dryRun: false, ifVersion: 7 },
    ])
  })

  test('shows what an update changes, field by field', async () => {
    api.objects = [stored('WorkloadRegistration', 'web', { ...WEB, ttlSeconds: 300, alg: 'RS256' })]
    api.warnings = ['ttlSeconds is short']
    const changed = registration('web', { ...WEB, ttlSeconds: 60, audiences: ['k8s', 'vault'] })
    const { stdout, stderr } = await run(['apply', '-f', '-'], yaml(changed))
    expect(stdout.split('\n')).toEqual([
      'WorkloadRegistration/web updated',
      '  spec.audiences: ["k8s"] → ["k8s","vault"]',
      '  spec.ttlSeconds: 300 → 60',
      '  spec.alg: "RS256" → (none)',
      '',
    ])
    expect(stderr).toBe('warning: ttlSeconds is short\n')
    expect((await run(['apply', '-f', '-'], yaml(changed))).stdout).toBe('WorkloadRegistration/web unchanged\n')
  })

  test('--output json is the answer of the worker', async () => {
    const { stdout } = await run(['apply', '-f', '-', '--output', 'json'], yaml(registration('web')))
    expect(JSON.parse(stdout)).toMatchObject({ version: 8, dryRun: false, changes: [{ action: 'create', after: WEB }] })
  })

  test('several files, and JSON', async () => {
    const files = [folder.write(yaml(registration('web'))), folder.write(JSON.stringify(registration('api'), null, 2))]
    expect((await run(['apply', '-f', ...files])).code).toBe(0)
    expect(api.applied[0]?.objects.map(({ metadata }) => metadata.name)).toEqual(['web', 'api'])
  })

  test('--prune takes away what was applied and is gone from the files, and nothing of other sources', async () => {
    api.objects = [
      stored('WorkloadRegistration', 'web', WEB),
      stored('WorkloadRegistration', 'old', WEB),
      stored('Cluster', 'old', EU),
      stored('Cluster', 'eu', EU, 'manifest'),
      stored('WorkloadRegistration', 'far', WEB, 'cluster:eu'),
    ]
    const { stdout } = await run(['apply', '--prune', '-f', '-'], yaml(registration('web')))
    expect(stdout.split('\n').slice(0, -1)).toEqual([
      'WorkloadRegistration/web unchanged',
      'WorkloadRegistration/old deleted',
      'Cluster/old deleted',
    ])
  })

  test('T-26: --prune lifts no ban', async () => {
    api.objects = [stored('Ban', 'thief', { spiffeID: 'spiffe://example.org/thief' })]
    await run(['apply', '--prune', '-f', '-'], yaml(registration('web')))
    expect(api.applied[0]?.remove).toEqual([])
  })

  test('--prune takes away what Vault’s clients have written only where the files have some of its kind', async () => {
    api.objects = [
      stored('VaultMount', 'kubernetes'),
      stored('VaultRole', 'kubernetes/a'),
      stored('VaultRole', 'kubernetes/b'),
    ]
    await run(['apply', '--prune', '-f', '-'], yaml(registration('web')))
    const names = () => api.objects.map(({ object }) => object.metadata.name).sort()
    expect(names()).toEqual(['kubernetes', 'kubernetes/a', 'kubernetes/b', 'web'])
    const role = { bound_service_account_names: ['*'], bound_service_account_namespaces: ['*'] }
    const kept = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'VaultRole',
      metadata: { name: 'kubernetes/b' },
      spec: role,
    }
    await run(['apply', '--prune', '-f', '-'], yaml(registration('web'), kept))
    expect(names()).toEqual(['kubernetes', 'kubernetes/b', 'web'])
  })

  test('D4: --prune lifts no revocation that somebody could still need', async () => {
    const now = Math.floor(Date.now() / 1000)
    const revoked = (name: string, expiresAt: unknown) => stored('Revocation', name, { jti: name, expiresAt })
    api.objects = [
      revoked('good', now + 600),
      revoked('just-over', now - 60),
      revoked('long-over', now - 3700),
      revoked('odd', 'never'),
    ]
    await run(['apply', '--prune', '-f', '-'], yaml(registration('web')))
    expect(api.applied[0]?.remove).toEqual([{ kind: 'Revocation', name: 'long-over' }])
  })

  test('files without objects are refused, so that --prune cannot empty everything by accident', async () => {
    expect((await run(['apply', '--prune', '-f', folder.write('---\n# nothing\n')])).code).toBe(1)
    expect(api.paths).toEqual([])
  })

  test('--dry-run changes nothing', async () => {
    const { stdout } = await run(['apply', '--dry-run', '-f', '-'], yaml(registration('web')))
    expect(stdout).toBe('WorkloadRegistration/web created (dry run)\n')
    expect(api.objects).toEqual([])
  })

  test('an answer that says it did what was only asked about is not believed', async () => {
    api.answer('apply', { status: 200, body: { version: 8, dryRun: false, changes: [], warnings: [] } })
    expect((await run(['apply', '--dry-run', '-f', '-'], yaml(registration('web')))).code).toBe(1)
  })

  test('a version conflict: exit code 1, and nothing was changed', async () => {
    api.answer('apply', { status: 409, body: { error: 'version_conflict' } })
    const { code, stdout, stderr } = await run(['apply', '-f', '-'], yaml(registration('web')))
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toContain('try again')
    expect(api.applied).toHaveLength(1)
  })

  test('a refusal of the policy lists its problems', async () => {
    const problems = ['WorkloadRegistration web: spec.clusters: there is no Cluster eu', 'and another']
    api.answer('apply', { status: 422, body: { error: 'policy_refused', problems } })
    const { code, stderr } = await run(['apply', '-f', '-'], yaml(registration('web')))
    expect(code).toBe(1)
    for (const problem of problems) expect(stderr).toContain(problem)
  })

  test.each([
    ['a file that is not there', null, /no such file/],
    ['no YAML', '{"a"', /not YAML: \w+ at line/],
    ['a key twice', 'kind: Cluster\nkind: Ban\n', /DUPLICATE_KEY at line 2/],
    ['an alias', 'a: &a 1\nb: *a\n', /alias/],
    ['no object', '- 1\n', /is no object/],
    ['no name', 'apiVersion: v1\nkind: Cluster\nmetadata: {}\nspec: {}\n', /is no object/],
    ['another kind', yaml({ ...registration('x'), kind: 'Pod' }), /Pod is no kind/],
    ['an Admin', yaml({ ...registration('x'), kind: 'Admin' }), /deployed manifest alone/],
    ['one object twice', yaml(registration('web'), registration('web')), /twice/],
    ['deep nesting', `{"a":${'['.repeat(50_000)}`, /nested too deeply|not YAML/],
    ['too large', `# ${'x'.repeat(4 * 1024 * 1024)}`, /too large/],
  ])('%s: nothing is asked', async (_, text, message) => {
    const { code, stdout, stderr } = await run([
      'apply',
      '-f',
      text === null ? `${folder.path}/nowhere` : folder.write(text),
    ])
    expect([code, stdout, api.paths]).toEqual([1, '', []])
    expect(stderr).toMatch(message)
  })

  test('what is wrong in a file is not repeated, for it may be a secret', async () => {
    const secret = 'hunter2-hunter2-hunter2'
    const { code, stderr } = await run(['apply', '-f', '-'], `password: "${secret}\n`)
    expect(code).toBe(1)
    expect(findPieceOf(secret, stderr)).toBeNull()
  })

  test.each([
    ['no file', ['apply']],
    ['standard input twice', ['apply', '-f', '-', '-f', '-']],
    ['an audit log without --dry-run', ['apply', '-f', '-', '--audit-log', 'x']],
  ])('%s is wrong usage', async (_, argv) => {
    expect((await run(argv)).code).toBe(2)
  })
})

describe('delete', () => {
  beforeEach(() => {
    api.objects = [
      stored('WorkloadRegistration', 'web', WEB),
      stored('Cluster', 'eu', EU, 'manifest'),
      stored('WorkloadRegistration', 'far', WEB, 'cluster:eu'),
    ]
  })

  test('an applied object', async () => {
    expect(await run(['delete', 'registration', 'web'])).toMatchObject({
      code: 0,
      stdout: 'WorkloadRegistration/web deleted\n',
    })
    expect(api.applied).toEqual([
      { objects: [], remove: [{ kind: 'WorkloadRegistration', name: 'web' }], dryRun: false, ifVersion: 7 },
    ])
  })

  test.each([
    ['registration', 'nobody', /there is no/],
    ['cluster', 'eu', /deployed manifest/],
    ['registration', 'far', /comes from cluster:eu/],
  ])('%s %s is not deleted', async (kind, name, message) => {
    const { code, stderr } = await run(['delete', kind, name])
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
    expect(api.applied).toEqual([])
  })

  test('a worker that did not do it is not believed', async () => {
    api.answer('apply', { status: 200, body: { version: 8, dryRun: false, changes: [], warnings: [] } })
    expect((await run(['delete', 'registration', 'web'])).code).toBe(1)
  })

  test.each([[['delete', 'pod', 'x']], [['delete', 'admin', 'alice']], [['delete', 'ban']]])(
    '%j is wrong usage',
    async (argv) => {
      expect((await run(argv)).code).toBe(2)
    },
  )
})

describe('ban and unban', () => {
  const ID = 'spiffe://example.org/ns/shop/sa/web'

  test.each([
    [['--spiffe-id', ID], { spiffeID: ID }],
    [['--cluster', 'eu', '--service-account', 'shop:web'], { cluster: 'eu', serviceAccount: 'shop:web' }],
    [
      ['--cluster', 'eu', '--node', '5dbb7b21-65fe-41e9-b1b0-0800277ac80f'],
      { cluster: 'eu', nodeUID: '5dbb7b21-65fe-41e9-b1b0-0800277ac80f' },
    ],
  ])('T-26: ban %j, and unban it', async (argv, spec) => {
    const banned = await run(['ban', ...argv, '--name', 'thief', '--reason', 'stolen'])
    expect([banned.code, banned.stdout]).toEqual([0, 'Ban/thief created\n'])
    expect(api.objects.map(({ object }) => object)).toEqual([
      {
        apiVersion: 'spiffe-edge.io/v1alpha1',
        kind: 'Ban',
        metadata: { name: 'thief' },
        spec: { ...spec, reason: 'stolen' },
      },
    ])
    expect(await run(['unban', 'thief'])).toMatchObject({ code: 0, stdout: 'Ban/thief deleted\n' })
    expect(api.objects).toEqual([])
  })

  test('without a name, the same ban has the same one, and another has another', async () => {
    await run(['ban', '--spiffe-id', ID])
    expect((await run(['ban', '--spiffe-id', ID])).stdout).toMatch(/^Ban\/ban-[0-9a-f]{12} unchanged\n$/)
    await run(['ban', '--spiffe-id', `${ID}-2`])
    expect(api.objects).toHaveLength(2)
  })

  test('a ban of something else under the same name is not written over', async () => {
    await run(['ban', '--spiffe-id', ID, '--name', 'thief'])
    expect(await run(['ban', '--spiffe-id', `${ID}-2`, '--name', 'thief'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('of something else'),
    })
  })

  test('a ban does not fail because somebody else applied something in between', async () => {
    api.answer('apply', { status: 409, body: { error: 'version_conflict' } })
    expect((await run(['ban', '--spiffe-id', ID])).code).toBe(0)
    api.answer('apply', ...Array.from({ length: 5 }, () => ({ status: 409, body: { error: 'version_conflict' } })))
    expect((await run(['ban', '--spiffe-id', `${ID}-2`])).code).toBe(1)
  })

  test('unban knows bans only', async () => {
    api.objects = [stored('WorkloadRegistration', 'web', WEB)]
    expect((await run(['unban', 'web'])).code).toBe(1)
  })

  test.each([
    [[]],
    [['--spiffe-id', ID, '--node', 'x', '--cluster', 'eu']],
    [['--spiffe-id', ID, '--cluster', 'eu']],
    [['--service-account', 'shop:web']],
    [['--cluster', 'eu']],
    [['--cluster', 'EU', '--service-account', 'shop:web']],
    [['--cluster', 'eu', '--service-account', 'web']],
    [['--cluster', 'eu', '--node', 'a/b']],
    [['--spiffe-id', 'https://example.org/web']],
    [['--spiffe-id', 'spiffe://example.org']],
    [['--spiffe-id', ID, '--name', 'A B']],
  ])('%j is wrong usage', async (argv) => {
    expect((await run(['ban', ...argv])).code).toBe(2)
    expect(api.paths).toEqual([])
  })
})

describe('revoke', () => {
  const ID = 'spiffe://example.org/ns/shop/sa/web'
  const JTI = '8a6f7a0c-0c5e-4d6b-9d3c-2f1f0a0f9b11'
  const now = () => Math.floor(Date.now() / 1000)
  const specs = () => api.objects.map(({ object: { kind, spec } }) => ({ kind, ...spec }))

  test('D4: token: by its id, for as long as a token can live on whatever clock', async () => {
    const before = now()
    const { code, stdout } = await run(['revoke', 'token', JTI, '--reason', 'pasted into a chat'])
    expect([code, stdout]).toEqual([0, `Revocation/${JTI} created\n`])
    expect(specs()).toEqual([
      { kind: 'Revocation', jti: JTI, expiresAt: expect.any(Number), reason: 'pasted into a chat' },
    ])
    const expiresAt = Number(api.objects[0]?.object.spec.expiresAt)
    expect(expiresAt).toBeGreaterThanOrEqual(before + 4200)
    expect(expiresAt).toBeLessThanOrEqual(now() + 4200)
    expect(parseObject(api.objects[0]?.object)).toBeTruthy()
  })

  test('token: until a time that is known, and never sooner by accident', async () => {
    const late = now() + 80_000
    await run(['revoke', 'token', JTI, '--expires-at', String(late)])
    expect(specs()).toEqual([{ kind: 'Revocation', jti: JTI, expiresAt: late }])
    expect((await run(['revoke', 'token', JTI])).stdout).toBe(`Revocation/${JTI} unchanged\n`)
    await run(['revoke', 'token', JTI, '--expires-at', String(late - 1)])
    expect(specs()).toEqual([{ kind: 'Revocation', jti: JTI, expiresAt: late - 1 }])
  })

  test('token: an id that is no name of an object gets one that is', async () => {
    expect((await run(['revoke', 'token', 'A_b'])).stdout).toMatch(/^Revocation\/token-[0-9a-f]{12} created\n$/)
    expect(parseObject(api.objects[0]?.object)).toMatchObject({ spec: { jti: 'A_b' } })
  })

  test('token: that of another under the same name is not written over', async () => {
    api.objects = [stored('Revocation', JTI, { jti: 'other', expiresAt: now() + 60 })]
    expect(await run(['revoke', 'token', JTI])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('of another token'),
    })
  })

  test('T-26: subject: is the ban of it, and the same one', async () => {
    expect((await run(['revoke', 'subject', ID, '--reason', 'stolen'])).stdout).toMatch(/^Ban\/ban-\w{12} created\n$/)
    expect(specs()).toEqual([{ kind: 'Ban', spiffeID: ID, reason: 'stolen' }])
    expect((await run(['ban', '--spiffe-id', ID, '--reason', 'stolen'])).stdout).toMatch(/ unchanged\n$/)
  })

  test.each([[['token', JTI]], [['subject', ID]]])('%j does not fail because of what others apply', async (argv) => {
    api.answer('apply', { status: 409, body: { error: 'version_conflict' } })
    expect((await run(['revoke', ...argv])).code).toBe(0)
    expect(api.objects).toHaveLength(1)
  })

  test.each([
    [['token']],
    [['token', '']],
    [['token', TOKEN]],
    [['token', `JTI=${JTI}`]],
    [['token', JTI, '--expires-at', '2026-11-22']],
    [['token', JTI, '--expires-at', '-1']],
    [['token', JTI, '--expires-at', '1700000000']],
    [['token', JTI, '--expires-at', String(Date.now() + 60_000)]],
    [['subject', 'spiffe://example.org']],
    [['subject', 'web']],
    [['subject']],
    [['nothing', JTI]],
  ])('%j is wrong usage', async (argv) => {
    expect((await run(['revoke', ...argv])).code).toBe(2)
    expect(api.paths).toEqual([])
  })
})

test('as a program: exit codes, and a secret is in none of its output', () => {
  const node = (...argv: string[]) => {
    const { status, stdout, stderr } = spawnSync('node', ['cli/main.ts', ...argv], { encoding: 'utf8' })
    last = { code: status ?? -1, stdout, stderr }
    return status
  }
  expect(node('--help')).toBe(0)
  expect(last.stdout).toContain('apply')
  expect(node()).toBe(2)
  expect(node('nonsense')).toBe(2)
  expect(last.stdout).toBe('')
  expect(node('get', '--issuer', 'http://127.0.0.1:1', '--token-file', tokenFile)).toBe(1)
})
