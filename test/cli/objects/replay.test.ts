/** apply --dry-run --audit-log: the worker's policy code, over what the worker's audit log says was issued. */

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type AdminApi, startAdminApi, stored } from '../../support/admin_api.ts'
import { cli, Folder } from '../../support/cli.ts'

const folder = new Folder()
const tokenFile = folder.write('a.b.c')
let api: AdminApi
beforeAll(async () => {
  api = await startAdminApi()
})
afterAll(async () => {
  await api.stop()
  folder.remove()
})

const EU = { issuer: 'https://eu.example.net', jwks: { discovery: true } }
const spec = (name: string, more: object = {}) => ({
  clusters: ['eu'],
  selector: { namespace: 'shop', serviceAccountName: name },
  audiences: ['k8s', 'vault'],
  ...more,
})
const registration = (name: string, more: object = {}) => ({
  apiVersion: 'kubespiffe.io/v1alpha1',
  kind: 'WorkloadRegistration',
  metadata: { name },
  spec: spec(name, more),
})

beforeEach(() => {
  api.objects = [
    stored('Cluster', 'eu', EU, 'manifest'),
    stored('WorkloadRegistration', 'web', spec('web')),
    stored('WorkloadRegistration', 'api', spec('api')),
    { ...stored('WorkloadRegistration', 'bad', { nonsense: true }), status: 'rejected', reason: 'nonsense' },
  ]
})

/** As worker/audit.ts writes it. */
const issued = (name: string, pod: string, audience: string[] = ['k8s'], more: object = {}) => ({
  event: 'decision',
  time: '2026-11-17T08:00:00.000Z',
  id: '0a1b2c3d',
  door: 'token',
  decision: 'issued',
  subject_token_sha256: '00',
  cluster: 'eu',
  namespace: 'shop',
  service_account: name,
  service_account_uid: 'uid-1',
  pod,
  pod_uid: 'uid-2',
  registration: name,
  spiffe_id: `spiffe://example.org/ns/shop/sa/${name}`,
  audience,
  expires: 1_795_353_765,
  kid: 'kid',
  alg: 'ES256',
  ...more,
})
const log = (...lines: (object | string)[]) =>
  folder.write(lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))

async function dryRun(path: string, objects: object[], ...more: string[]) {
  const argv = ['apply', '--dry-run', '--audit-log', path, '-f', '-', '--token-file', tokenFile, ...more]
  const stdin = objects.map((object) => `---\n${JSON.stringify(object)}\n`).join('')
  return cli([...argv, '--issuer', api.issuer], { stdin })
}
const replayOf = async (...parameters: Parameters<typeof dryRun>) => {
  const { code, stdout, stderr } = await dryRun(...parameters, '--output', 'json')
  expect([code, stderr]).toEqual([0, ''])
  return JSON.parse(stdout).replay
}

describe('what would change', () => {
  test('nothing, for a registration that stays as it is', async () => {
    const path = log(issued('web', 'web-1'), issued('web', 'web-1'), issued('api', 'api-1', ['vault']))
    expect(await replayOf(path, [registration('web')])).toEqual({ subjects: 2, unread: 0, changed: [] })
  })

  test('another SPIFFE ID, for each pod and audience once', async () => {
    const path = log(
      issued('web', 'web-1'),
      issued('web', 'web-1', ['vault']),
      issued('web', 'web-1'),
      issued('api', 'api-1'),
    )
    const { subjects, changed } = await replayOf(path, [
      registration('web', { spiffeID: 'spiffe://example.org/front' }),
    ])
    expect(subjects).toBe(3)
    expect(changed).toEqual(
      [['k8s'], ['vault']].map((audience) => ({
        cluster: 'eu',
        namespace: 'shop',
        serviceAccount: 'web',
        pod: 'web-1',
        podUID: 'uid-2',
        audience,
        before: { spiffeID: 'spiffe://example.org/ns/shop/sa/web', ttlSeconds: 300 },
        after: { spiffeID: 'spiffe://example.org/front', ttlSeconds: 300 },
      })),
    )
  })

  test('in words', async () => {
    const { stdout } = await dryRun(log(issued('web', 'web-1')), [registration('web', { audiences: ['vault'] })])
    expect(stdout.split('\n')).toEqual([
      'WorkloadRegistration/web updated (dry run)',
      '  spec.audiences: ["k8s","vault"] → ["vault"]',
      '1 of 1 pods and audiences in the audit log would change',
      '  eu shop:web web-1 for k8s: spiffe://example.org/ns/shop/sa/web for 300 s → refused (target_not_allowed)',
      '',
    ])
    expect(api.objects.map(({ object }) => object.spec.audiences)).not.toContainEqual(['vault'])
  })

  test('a pod that --prune would leave without a registration', async () => {
    const [change] = (await replayOf(log(issued('api', 'api-1')), [registration('web')], '--prune')).changed
    expect(change).toMatchObject({ serviceAccount: 'api', after: { refused: 'registration_none' } })
  })

  test('a second registration that makes the choice unclear', async () => {
    const other = registration('other', { selector: { namespace: 'shop', serviceAccountName: 'web' } })
    const [change] = (await replayOf(log(issued('web', 'web-1')), [other])).changed
    expect(change.after).toEqual({ refused: 'registration_ambiguous' })
  })

  test('a pod that no registration selects even now, and a token bound to no pod', async () => {
    const path = log(issued('gone', 'gone-1'), issued('web', '', ['k8s'], { pod: undefined, pod_uid: undefined }))
    expect(await replayOf(path, [registration('web')])).toMatchObject({ subjects: 2, changed: [] })
  })

  test('T-26: a service account that is banned', async () => {
    const spec = { cluster: 'eu', serviceAccount: 'shop:web' }
    const ban = { apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'Ban', metadata: { name: 'thief' }, spec }
    const [change] = (await replayOf(log(issued('web', 'web-1')), [registration('web'), ban])).changed
    expect(change.after).toEqual({ refused: 'banned' })
  })

  test('nodes, and workloads that are no pods, are not what is looked at', async () => {
    const node = { ...issued('agent', 'agent-1'), door: 'k8s_psat' }
    const job = { ...issued('web', 'web-1'), cluster: undefined, attestor: 'ci', subject: 'x' }
    expect(await replayOf(log(node, job), [registration('web')])).toMatchObject({ subjects: 0, unread: 0 })
  })
})

describe('the log', () => {
  test('refusals and other events are passed over, what is not understood is counted', async () => {
    const path = log(
      '',
      { event: 'start' },
      { ...issued('web', 'web-1'), decision: 'refused' },
      'not JSON',
      '{"event":"decision","event":"decision"}',
      issued('web', 'web-1', ['k8s'], { cluster: 7 }),
      issued('web', 'web-1', ['k8s'], { spiffe_id: 'https://example.org' }),
      issued('web', 'web-1', ['k8s'], { audience: { a: 1 } }),
      `"${'x'.repeat(70_000)}"`,
    )
    expect(await replayOf(path, [registration('web')])).toMatchObject({ subjects: 0, unread: 6 })
  })

  test('control characters in it do not reach the terminal', async () => {
    const path = log(issued('web', 'web-1\u001b[2J'))
    const { stdout } = await dryRun(path, [registration('web', { ttlSeconds: 60 })])
    expect(stdout).toContain('web-1\\u{1b}[2J')
  })

  test('of two trust domains is refused', async () => {
    const path = log(issued('web', 'web-1'), issued('api', 'api-1', ['k8s'], { spiffe_id: 'spiffe://example.net/x' }))
    expect(await dryRun(path, [registration('web')])).toMatchObject({ code: 1, stdout: '' })
  })

  test('that is not there', async () => {
    expect(await dryRun(`${folder.path}/nowhere`, [registration('web')])).toMatchObject({ code: 1, stdout: '' })
  })
})

test('a change that this policy code refuses is an error, whatever the worker said', async () => {
  const { code, stderr } = await dryRun(log(issued('web', 'web-1')), [registration('web', { clusters: ['nowhere'] })])
  expect(code).toBe(1)
  expect(stderr).toContain('there is no Cluster nowhere')
})
