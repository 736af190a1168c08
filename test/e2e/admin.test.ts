/** An administrator with the command line, and the built worker in plain workerd: nothing between them is made up. */

import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cli, Folder, type Outcome } from '../support/cli.ts'
import { FakeCluster } from '../support/cluster.ts'
import { exchange } from '../support/exchange.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest, registration } from '../support/policy.ts'

const now = () => Math.floor(Date.now() / 1000)

describe('T-11: an administrator', () => {
  const folder = new Folder()
  const keyFile = `${folder.path}/alice.key`
  let east: FakeCluster
  let port: number
  let issuer: string
  let deployed: string
  let worker: PlainWorkerd

  const start = (text: string) =>
    startPlainWorkerd({
      entry: 'development',
      env: { MODE: 'development', ISSUER: issuer, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
      manifest: text,
      state: `${folder.path}/state`,
      port,
    })
  const run = (argv: readonly string[], stdin?: string): Promise<Outcome> =>
    cli([...argv, '--issuer', issuer, '--key-file', keyFile], stdin === undefined ? {} : { stdin })
  const apply = (...objects: readonly object[]) => run(['apply', '-f', '-'], manifest(...objects))

  /** @returns why a pod gets nothing, or null */
  async function outcome(): Promise<unknown> {
    const { body } = await exchange(issuer, await east.token({ now: now() }))
    return body.reason ?? null
  }

  beforeAll(async () => {
    east = await FakeCluster.create('east')
    port = await freePort()
    issuer = `http://127.0.0.1:${port}`
    const { code, stdout } = await run(['admin', 'create', '--name', 'alice'])
    expect(code).toBe(0)
    deployed = stdout
    worker = await start(deployed)
  })
  afterAll(async () => {
    await worker.stop()
    rmSync(folder.path, { recursive: true })
  })

  test('registers a cluster and a workload while the worker runs', async () => {
    expect(await outcome()).toBe('token_issuer')
    expect(await apply(east.record(), registration('web'))).toMatchObject({
      code: 0,
      stdout: 'Cluster/east created\nWorkloadRegistration/web created\n',
    })
    expect(await outcome()).toBeNull()
    await expect
      .poll(() => worker.log)
      .toContainEqual(
        expect.objectContaining({
          event: 'policy_changed',
          admin: 'alice',
          changes: ['create Cluster east', 'create WorkloadRegistration web'],
        }),
      )
  })

  test('sees what there is, and where it came from', async () => {
    const { code, stdout } = await run(['get', 'all', '--output', 'json'])
    expect(code).toBe(0)
    const seen = JSON.parse(stdout).map(
      ({
        object,
        source,
        status,
      }: {
        object: { kind: string; metadata: { name: string } }
        source: string
        status: string
      }) => [object.kind, object.metadata.name, source, status].join(' '),
    )
    expect(seen.toSorted()).toEqual([
      'Admin alice manifest accepted',
      'Cluster demo manifest accepted',
      'Cluster east applied accepted',
      'WorkloadRegistration demo manifest accepted',
      'WorkloadRegistration web applied accepted',
    ])
  })

  test('is told what is wrong, and then nothing has changed', async () => {
    const refused = await apply(registration('web', { clusters: ['north'] }), registration('more', { ttlSeconds: 7 }))
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('spec.clusters: there is no Cluster north')
    expect(refused.stderr).toContain('spec.ttlSeconds')
    expect(await outcome()).toBeNull()
  })

  test('T-10: gives no host at run time that would be shown a token', async () => {
    const refused = await apply(east.record({ connection: { url: 'https://evil.example' } }))
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('needs a binding')])
  })

  test('makes no administrators', async () => {
    const [object] = deployed.split('---').filter((text) => text.trim() !== '')
    const { code, stderr } = await run(['apply', '-f', '-'], object?.replace('alice', 'mallory'))
    expect([code, stderr]).toEqual([1, expect.stringContaining('is for the deployed manifest alone')])
  })

  test('T-26: bans, and takes it back', async () => {
    const who = ['--cluster', 'east', '--service-account', 'payments-namespace:checkout-account', '--name', 'thief']
    expect((await run(['ban', ...who])).code).toBe(0)
    expect(await outcome()).toBe('banned')
    expect((await run(['unban', 'thief'])).code).toBe(0)
    expect(await outcome()).toBeNull()
  })

  test('finds everything again after a power cut', async () => {
    await worker.stop('SIGKILL')
    worker = await start(deployed)
    expect(await outcome()).toBeNull()
  })

  test('with another key is nobody', async () => {
    const other = `${folder.path}/other.key`
    await cli(['admin', 'create', '--issuer', issuer, '--name', 'alice', '--key-file', other])
    const { code, stderr } = await cli(['get', 'all', '--issuer', issuer, '--key-file', other])
    expect([code, stderr]).toEqual([1, expect.stringContaining('invalid_token')])
  })

  test('without a token is nobody either, and an SVID is none', async () => {
    const { body } = await exchange(issuer, await east.token({ now: now() }))
    for (const authorization of [
      '',
      'Bearer x',
      `Bearer ${body.access_token}`,
      `Bearer ${await east.token({ now: now() })}`,
    ]) {
      const answer = await fetch(`${issuer}/admin/v1/objects`, { headers: { authorization } })
      expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([401, 'Bearer error="invalid_token"'])
    }
  })

  test('that no manifest names may not do anything: 403', async () => {
    await worker.stop()
    worker = await start('')
    const { code, stderr } = await run(['get', 'all'])
    expect([code, stderr]).toEqual([1, expect.stringContaining('forbidden')])
    // What has been applied goes on being good.
    expect(await outcome()).toBeNull()
  })
})
