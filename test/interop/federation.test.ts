/**
 * kubespiffe's aim, whole: two clusters with a trust domain each, federated with each other by nothing but the worker, and a pod of
 * the one that talks to a pod of the other by mTLS. The API servers, the workers in plain workerd and both ends of the
 * connection (go-spiffe) are real.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { askAsAdmin } from '../support/admin_request.ts'
import { cli, cliProcess } from '../support/cli.ts'
import { exchange, send } from '../support/exchange.ts'
import { startMtlsWorkload } from '../support/judge.ts'
import { createServiceAccountKey, type KubeApiserver, startKubeApiserver } from '../support/kube_apiserver.ts'
import type { LineProgram } from '../support/lines.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { clusterRecord, webRegistration } from '../support/pod_token.ts'
import { missing } from '../support/tools.ts'
import { certify, WorkloadFiles } from '../support/workload.ts'

type Name = 'a' | 'b'
const WEB = '/ns/shop/sa/web'
const OTHER = { a: 'b', b: 'a' } as const
/** A change of the policy holds for every request that begins later than this. */
const LEASE = { timeout: 90_000, interval: 1000 }

/** A cluster, its issuer, and the one workload in it. */
interface Domain {
  readonly trustDomain: string
  readonly url: string
  /** Of its administrator. */
  readonly keyFile: string
  readonly worker: PlainWorkerd
  readonly apiserver: KubeApiserver
  readonly files: WorkloadFiles
  readonly workload: LineProgram
  podToken(): Promise<string>
  /** @throws what the command says if it fails */
  admin(...argv: readonly string[]): Promise<string>
  apply(...objects: readonly object[]): Promise<string>
}

describe.skipIf(missing('go'))('two clusters and two trust domains', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-federation-'))
  const caFile = join(folder, 'ca.crt')
  let ca: TestCa
  let domains: Readonly<Record<Name, Domain>>

  beforeAll(async () => {
    ca = await createCa()
    writeFileSync(caFile, ca.certificate)
    const [a, b] = await Promise.all([startDomain('a'), startDomain('b')])
    domains = { a, b }
  })
  afterAll(async () => {
    for (const { workload, worker, apiserver, files } of Object.values(domains ?? {})) {
      await workload?.stop()
      await worker.stop()
      await apiserver.stop()
      files.remove()
    }
    rmSync(folder, { recursive: true })
  })

  async function startDomain(name: Name): Promise<Domain> {
    const trustDomain = `${name}.example`
    const port = await freePort()
    const url = `https://localhost:${port}`
    const keyFile = join(folder, `${name}.key`)
    const { stdout } = await cli(['admin', 'create', '--name', 'alice', '--issuer', url, '--key-file', keyFile])
    const key = createServiceAccountKey('RS256')
    const record = clusterRecord(key, { apiServer: { certificateAuthority: ca.certificate } })
    const worker = await startPlainWorkerd({
      entry: 'production',
      env: {
        ...{ ISSUER: url, TRUST_DOMAIN: trustDomain, SIGNING_KEY: 'wrapped', CA_KEY: 'wrapped' },
        WRAPPING_KEY: `aes:${'A'.repeat(42)}E=`,
      },
      manifest: `${JSON.stringify(record)}\n---\n${stdout}`,
      tls: await ca.issue('localhost'),
      trusted: ca.certificate,
      port,
    })
    const { text } = await send(`${url}/structured-auth.yaml`, { ca: ca.certificate })
    const apiserver = await startKubeApiserver(text, key)
    await apiserver.createPod('shop', 'web', 'web-0')
    const files = new WorkloadFiles()
    const run = async (argv: readonly string[]) => {
      const { code, stdout, stderr } = await cliProcess([...argv, '--issuer', url, '--key-file', keyFile], caFile)
      if (code !== 0) throw new Error(stderr)
      return stdout
    }
    return {
      ...{ trustDomain, url, keyFile, worker, apiserver, files },
      workload: await startMtlsWorkload(files.folder),
      podToken: () => apiserver.podToken('shop', 'web', 'web-0', 'spiffe-edge'),
      admin: (...argv) => run(argv),
      apply: (...objects) => {
        const file = join(folder, `${name}.yaml`)
        writeFileSync(file, objects.map((object) => JSON.stringify(object)).join('\n---\n'))
        return run(['apply', '-f', file])
      },
    }
  }

  const peer = (name: Name) => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'FederatedTrustDomain',
    metadata: { name: domains[name].trustDomain },
    spec: {
      trustDomain: domains[name].trustDomain,
      bundleEndpointURL: `${domains[name].url}/bundle`,
      bundleEndpointProfile: { type: 'https_web' },
    },
  })
  const web = (name: Name, federatesWith: readonly string[]) =>
    webRegistration({ audiences: ['k8s', domains[OTHER[name]].url], federatesWith })
  /** What a workload of the other trust domain is here. */
  const guest = (name: Name) => ({
    apiVersion: 'kubespiffe.io/v1alpha1',
    kind: 'WorkloadRegistration',
    metadata: { name: 'guest' },
    spec: {
      federated: { spiffeID: `spiffe://${domains[OTHER[name]].trustDomain}${WEB}` },
      spiffeID: `spiffe://${domains[name].trustDomain}/guest/web`,
      audiences: ['db'],
    },
  })
  const idOf = (name: Name) => `spiffe://${domains[name].trustDomain}${WEB}`

  /** Gets an SVID and what comes with it, as a workload does again and again. */
  async function refresh(name: Name): Promise<void> {
    const { url, files, podToken } = domains[name]
    files.write(await certify(url, await podToken(), { ca: ca.certificate }))
  }

  /** @returns whom the workload of the other trust domain takes this one for, or why they don't talk */
  async function call(name: Name, id = idOf(OTHER[name])): Promise<unknown> {
    const [{ address } = {}] = await domains[OTHER[name]].workload.ask(['address'])
    const [answer = {}] = await domains[name].workload.ask([`call ${address} ${id}`])
    return answer.ok ? answer.caller : answer.error
  }

  /** @returns the SPIFFE ID that the workload gets in the other trust domain, or the reason why none */
  async function visit(name: Name): Promise<unknown> {
    const [home, away] = [domains[name], domains[OTHER[name]]]
    const own = await exchange(home.url, await home.podToken(), { ca: ca.certificate, audience: away.url })
    const { body } = await exchange(away.url, own.body.access_token ?? '', { ca: ca.certificate, audience: 'db' })
    return body.reason ?? JSON.parse(Buffer.from(body.access_token?.split('.')[1] ?? '', 'base64url').toString()).sub
  }

  test('FE-12: without federation neither believes the other, by certificate or by token', async () => {
    for (const name of ['a', 'b'] as const) {
      await domains[name].apply(web(name, []))
      await expect.poll(() => refresh(name).then(() => 'done', String), LEASE).toBe('done')
    }
    for (const name of ['a', 'b'] as const)
      expect(await call(name)).toMatch(/no bundle|unknown authority|bad certificate/)
    expect(await visit('a')).toBe('token_issuer')
  })

  test('FE-1: each applies the other, fetches its bundle, and says so', async () => {
    for (const name of ['a', 'b'] as const) {
      const other = domains[OTHER[name]].trustDomain
      await domains[name].apply(peer(OTHER[name]), web(name, [other]), guest(name))
      await expect
        .poll(async () => JSON.parse(await domains[name].admin('federation', 'status', '--output', 'json')), LEASE)
        .toMatchObject({ trustDomains: [{ trustDomain: other, failure: null, sequence: expect.any(Number) }] })
    }
  })

  test('a pod of either cluster calls the one of the other by mTLS, and both know who it is', async () => {
    for (const name of ['a', 'b'] as const)
      await expect
        .poll(async () => {
          await refresh('a')
          await refresh('b')
          return call(name)
        }, LEASE)
        .toBe(idOf(name))
    expect(await call('a', 'spiffe://b.example/ns/shop/sa/db')).toMatch(/unexpected ID/)
  })

  test('T-6: and its token is good for what a registration says, and for nothing else', async () => {
    for (const name of ['a', 'b'] as const)
      await expect.poll(() => visit(name), LEASE).toBe(`spiffe://${domains[OTHER[name]].trustDomain}/guest/web`)
  })

  test('FE-11: a CA that is ended at home is ended abroad, with the next bundle', async () => {
    const status = async (name: Name) => JSON.parse(await domains[name].admin('status', '--output', 'json'))
    const [{ kid }] = (await status('a')).authorities.filter(({ phase }: { phase: string }) => phase === 'active')
    await expect.poll(async () => (await status('a')).authorities.length, LEASE).toBe(2)
    // `spiffe-edge revoke key` begins with this, and then waits for the leases of isolates, which takes four minutes.
    const { url, keyFile } = domains.a
    expect(await askAsAdmin(url, keyFile, 'keys/revoke', { kid }, ca.certificate)).toMatchObject({ status: 200 })
    await domains.b.admin('federation', 'refresh', '--trust-domain', domains.a.trustDomain)
    await expect
      .poll(async () => {
        await refresh('b')
        return call('a')
      }, LEASE)
      .toMatch(/bad certificate|unknown authority/)
    await expect
      .poll(async () => {
        await refresh('a')
        return call('a')
      }, LEASE)
      .toBe(idOf('a'))
  })

  test('FE-13: when one ends the federation, neither way works any more', async () => {
    const { a, b } = domains
    await b.apply(web('b', []))
    await b.admin('delete', 'registration', 'guest')
    await b.admin('delete', 'FederatedTrustDomain', a.trustDomain)
    await expect
      .poll(async () => {
        await refresh('b')
        return [await call('a'), await call('b'), await visit('a')]
      }, LEASE)
      .toEqual([
        expect.stringMatching(/bad certificate|unknown authority/),
        expect.stringMatching(/no bundle/),
        'token_issuer',
      ])
    // What A believes is A's own affair.
    expect(await visit('b')).toBe('spiffe://a.example/guest/web')
  })
})
