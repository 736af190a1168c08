/** The commands of docs/cli.md, run as they stand there, in their order, with fakes for the worker and the cluster. */

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type AdminApi, startAdminApi } from '../support/admin_api.ts'
import { Folder } from '../support/cli.ts'
import { type KeyCacheApiserver, startKeyCacheApiserver } from '../support/key_cache_apiserver.ts'
import { makeTokenKey, signToken, type TokenKey } from '../support/tokens.ts'

const text = readFileSync('docs/cli.md', 'utf8')
const commands = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block]) => (block ?? '').trim().split('\n'))

const folder = new Folder()
let api: AdminApi
let key: TokenKey
let cluster: KeyCacheApiserver
/** Of the signing key that is revoked. */
let kid: string
let ticking: NodeJS.Timeout
/** What each command printed. */
const outputs = new Map<string, string>()

beforeAll(async () => {
  api = await startAdminApi()
  key = await makeTokenKey('ES256')
  api.keys.signingLeaseSeconds = 0
  kid = (await api.keys.add('active')).kid
  // One for each rotation.
  await api.keys.add('published')
  await api.keys.add('published')
  cluster = await startKeyCacheApiserver(api.issuer, api.keys.clock, {
    otherwise: ({ url }, response) => {
      const review = url?.includes('/authorization.k8s.io/')
      const { publicJwk } = key
      const body = review ? { status: { allowed: true } } : { issuer: 'https://shop-eu.example.org', keys: [publicJwk] }
      response.end(JSON.stringify(body))
    },
  })
  cluster.audience = 'k8s-shop-eu'
  await cluster.warm()
  // Twenty times as fast as the commands, so that an API server has forgotten what it accepted by the time it is asked again.
  ticking = setInterval(() => api.keys.clock.advance(1), 50)
  folder.write(
    {
      'current-context': 'admin@shop',
      contexts: [{ name: 'admin@shop', context: { cluster: 'shop', user: 'admin' } }],
      clusters: [
        {
          name: 'shop',
          cluster: {
            server: cluster.server,
            'certificate-authority-data': Buffer.from(cluster.ca).toString('base64'),
          },
        },
      ],
      users: [{ name: 'admin', user: { token: cluster.token } }],
    },
    'shop-eu.kubeconfig',
  )
  folder.write(
    `NodeAttestor "k8s_psat" { plugin_data { clusters = { "MyCluster" = { service_account_allow_list = ["spire:agent"] } } } }`,
    'server.conf',
  )
  const spec = {
    clusters: ['shop-eu'],
    selector: { namespace: 'shop', serviceAccountName: 'web' },
    audiences: ['k8s'],
  }
  const web = { apiVersion: 'kubespiffe.io/v1alpha1', kind: 'WorkloadRegistration', metadata: { name: 'web' }, spec }
  folder.write(web, 'registrations.yaml')
  folder.write(
    {
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthenticationConfiguration',
      jwt: [
        { issuer: { url: api.issuer, audiences: ['k8s'] }, claimMappings: { username: { claim: 'sub', prefix: '' } } },
      ],
    },
    'template.yaml',
  )
  const shop = { issuer: 'https://shop-eu.example.org', jwks: { discovery: true } }
  const object = { apiVersion: 'spiffe-edge.io/v1alpha1', kind: 'Cluster', metadata: { name: 'shop-eu' }, spec: shop }
  api.objects = [{ object, source: 'manifest', status: 'accepted', reason: null }]
  const line = {
    ...{
      event: 'decision',
      door: 'token',
      decision: 'issued',
      cluster: 'shop-eu',
      namespace: 'shop',
      service_account: 'web',
    },
    ...{ pod: 'web-0', spiffe_id: 'spiffe://example.org/ns/shop/sa/web', audience: ['k8s'] },
  }
  folder.write(`${JSON.stringify(line)}\n`, 'audit.log')
  folder.write('{"keys":[]}', 'partner.json')
  // `verify` is run against a worker by test/e2e/readme.test.ts; here only that it is understood and refuses.
  folder.write(await signToken({ alg: 'ES256', kid: 'x' }, {}, key), 'answer.json')
})
afterAll(async () => {
  clearInterval(ticking)
  cluster.stop()
  await api.stop()
  folder.remove()
})

async function run(command: string): Promise<string> {
  const env = {
    PATH: process.env.PATH,
    // Each command is a process of its own, and would read the whole program anew.
    NODE_COMPILE_CACHE: `${folder.path}/compiled`,
    HOME: folder.path,
    SPIFFE_EDGE_ISSUER: api.issuer,
    // A keyring is in test/interop/cli_keyring.test.ts.
    SPIFFE_EDGE_ADMIN_KEY_FILE: `${folder.path}/alice.key`,
  }
  const here = command.replace('http://127.0.0.1:8787', api.issuer).replace(/(?<=revoke key )\S+/, kid)
  const script = `spiffe-edge() { node ${resolve('cli/main.ts')} "$@"; }\n${here}`
  const { stdout } = await promisify(execFile)('bash', ['-euc', script], { cwd: folder.path, env })
  outputs.set(command, stdout)
  return stdout
}

test('there are commands, and each is one of spiffe-edge', () => {
  expect(commands).toHaveLength(31)
  for (const command of commands) expect(command).toMatch(/^spiffe-edge /)
})

test.each(commands.filter((command) => !command.startsWith('spiffe-edge verify')))('%s', async (command) => {
  const stdout = await run(command)
  if (!command.includes(' > ')) expect(stdout).not.toBe('')
})

test('spiffe-edge verify refuses a token of an issuer that has no discovery document', async () => {
  const verify = commands.find((command) => command.startsWith('spiffe-edge verify')) ?? ''
  await expect(run(verify)).rejects.toMatchObject({ code: 1 })
})

test('the printed object has the form that is shown', () => {
  const [, shown = ''] = /```yaml\n([\s\S]*?)```/.exec(text) ?? []
  const printed = parse(outputs.get('spiffe-edge admin create --name alice') ?? '')
  const { x, y } = printed.spec.publicKey
  const wanted = parse(shown)
  expect(printed).toEqual({ ...wanted, spec: { publicKey: { ...wanted.spec.publicKey, x, y } } })
})

test('what was run has done what is written there', () => {
  expect(outputs.get('spiffe-edge apply -f registrations.yaml')).toBe('WorkloadRegistration/web created\n')
  expect(outputs.get('spiffe-edge unban web-is-out')).toBe('Ban/web-is-out deleted\n')
  const { jwt } = parse(readFileSync(`${folder.path}/authentication.yaml`, 'utf8'))
  const { expression } = jwt[0].claimValidationRules[0]
  expect(expression).toContain("'8a6f7a0c-0c5e-4d6b-9d3c-2f1f0a0f9b11'")
  expect(expression).toContain("'spiffe://example.org/ns/shop/sa/batch'")
  expect(expression).toContain("'spiffe://example.org/ns/shop/sa/web'")
  expect(outputs.get('spiffe-edge apply -f shop-eu.yaml')).toBe('Cluster/shop-eu created\n')
  expect(outputs.get('spiffe-edge apply -f registrations.yaml --dry-run --audit-log audit.log')).toContain(
    '1 of 1 pods and audiences in the audit log would change',
  )
  const revoked = commands.find((command) => command.startsWith('spiffe-edge revoke key')) ?? ''
  expect(outputs.get(revoked)).toMatch(/^shop-eu +proven +3 of 3 +its tokens are refused$/m)
})
