/** `cluster import` and `cluster check` against a real kube-apiserver. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { compilePolicy, parseManifest } from '../../worker/policy/manifest.ts'
import { cli } from '../support/cli.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  type ServiceAccountKey,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { CONTEXT } from '../support/policy.ts'
import { missing } from '../support/tools.ts'

const NO_AUTHENTICATORS = 'apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n'
const RBAC = 'deploy/kubernetes/reviewer.yaml'
const REVIEWER = 'spiffe://example.org/spiffe-edge/reviewer/shop-eu'

describe.skipIf(missing('go'))('spiffe-edge cluster and a kube-apiserver', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-cli-'))
  let key: ServiceAccountKey
  let apiserver: KubeApiserver
  beforeAll(async () => {
    key = createServiceAccountKey('RS256')
    apiserver = await startKubeApiserver(NO_AUTHENTICATORS, key)
  })
  afterAll(async () => {
    await apiserver?.stop()
    rmSync(folder, { recursive: true })
  })

  /** The administrator's kubeconfig with another user in it. */
  function kubeconfigOf(token: string): string {
    const config = parse(readFileSync(apiserver.kubeconfig, 'utf8'))
    config.users = [{ name: 'admin', user: { token } }]
    const path = join(folder, 'kubeconfig')
    writeFileSync(path, JSON.stringify(config))
    return path
  }
  const importAs = (file: string, ...more: string[]) =>
    cli(['cluster', 'import', '--kubeconfig', file, '--context', 'test', ...more])
  const check = (...more: string[]) => cli(['cluster', 'check', '--kubeconfig', apiserver.kubeconfig, ...more])

  test("the administrator's client certificate: a record that the worker accepts", async () => {
    const argv = ['--name', 'shop-eu', '--binding', 'CLUSTER_SHOP_EU', '--service-account-allow', 'spire:agent']
    const { code, stdout, stderr } = await importAs(apiserver.kubeconfig, ...argv, '--audience', 'spiffe-edge-eu')
    expect([code, stderr]).toEqual([0, ''])
    expect(parse(stdout).spec).toMatchObject({
      issuer: SERVICE_ACCOUNT_ISSUER,
      jwks: { inline: { keys: [key.jwk] } },
      connection: { url: apiserver.server, binding: 'CLUSTER_SHOP_EU' },
    })
    const objects = parseManifest(stdout).objects.map((object) => ({ object, source: 'manifest' as const }))
    expect(compilePolicy(objects, { ...CONTEXT, bindings: null }).policy.clusters.get('shop-eu')?.keySource.from).toBe(
      'inline',
    )
  })

  test('a service account, before and after it may read the keys', async () => {
    await apiserver.kubectl(['create', 'serviceaccount', 'importer'])
    const file = kubeconfigOf((await apiserver.kubectl(['create', 'token', 'importer'])).trim())
    // Any service account may read both; that is Kubernetes' own default.
    expect((await importAs(file)).code).toBe(0)
    await apiserver.kubectl(['delete', 'clusterrolebinding', 'system:service-account-issuer-discovery'])
    await expect.poll(async () => (await importAs(file)).code).toBe(1)
    expect((await importAs(file)).stderr).toContain('403')
    await apiserver.kubectl([
      ...['create', 'clusterrolebinding', 'importer', '--clusterrole', 'system:service-account-issuer-discovery'],
      ...['--serviceaccount', 'default:importer'],
    ])
    await expect.poll(async () => (await importAs(file)).code).toBe(0)
  })

  test('a token that the apiserver does not know', async () => {
    expect(await importAs(kubeconfigOf('not-a-token'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('401'),
    })
  })

  test('kubectl proxy, in the place of a credential', async () => {
    const proxy = spawn(resolve('build/go/kubectl'), ['--kubeconfig', apiserver.kubeconfig, 'proxy', '--port', '0'])
    const [line] = (await once(proxy.stdout, 'data')) as [Buffer]
    const server = `http://${/127\.0\.0\.1:\d+/.exec(line.toString())?.[0]}`
    const config = {
      'current-context': 'proxy',
      contexts: [{ name: 'proxy', context: { cluster: 'proxy' } }],
      clusters: [{ name: 'proxy', cluster: { server } }],
    }
    const path = join(folder, 'proxy')
    writeFileSync(path, JSON.stringify(config))
    const { code, stdout } = await cli(['cluster', 'import', '--kubeconfig', path])
    proxy.kill()
    expect([code, parse(stdout).spec]).toEqual([
      0,
      { issuer: SERVICE_ACCOUNT_ISSUER, jwks: { inline: { keys: [key.jwk] } } },
    ])
  })

  test('T-9: check names what the reviewer lacks, and deploy/kubernetes/reviewer.yaml grants just that', async () => {
    const before = await check('--user', REVIEWER)
    expect(before.code).toBe(1)
    expect(before.stderr).toContain(
      'create tokenreviews.authentication.k8s.io, get pods, get nodes, list workloadregistrations.kubespiffe.io, get /openid/v1/jwks',
    )
    expect(before.stderr).toContain(RBAC)
    const role = readFileSync(RBAC, 'utf8').replace('spiffe://TRUST_DOMAIN/spiffe-edge/reviewer/CLUSTER', REVIEWER)
    await apiserver.kubectl(['apply', '-f', '-'], role)
    await expect.poll(async () => (await check('--user', REVIEWER)).code).toBe(0)
    // The reviewer of another cluster has none of it.
    expect((await check('--user', REVIEWER.replace('shop-eu', 'shop-us'))).code).toBe(1)

    await apiserver.kubectl([
      ...['patch', 'clusterrole', 'spiffe-edge-reviewer', '--type', 'json'],
      ...['-p', '[{"op":"replace","path":"/rules/1/resources","value":["pods"]}]'],
    ])
    await expect
      .poll(async () => (await check('--user', REVIEWER)).stderr)
      .toContain(`missing for ${REVIEWER}: get nodes\n`)
  })

  test('check without --user: the administrator may everything', async () => {
    const { code, stdout } = await check()
    expect(code).toBe(0)
    expect(stdout.match(/ yes /g)).toHaveLength(5)
  })
})
