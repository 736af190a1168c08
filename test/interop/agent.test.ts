/**
 * `spiffe-edge agent` before those whom it is for: programs with go-spiffe, unmodified. Two trust domains, each with a worker in plain workerd,
 * federated with each other, and in each a pod with an agent beside it.
 */

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import {
  type AgentProcess,
  startAgentProcess,
  startPythonWorkloadProgram,
  startWorkloadProgram,
} from '../support/agent_process.ts'
import { cli } from '../support/cli.ts'
import { FakeCluster } from '../support/cluster.ts'
import { createServiceAccountKey, startKubeApiserver } from '../support/kube_apiserver.ts'
import type { LineProgram } from '../support/lines.ts'
import { type LyingProxy, startLyingProxy } from '../support/lying_proxy.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { clusterRecord, webRegistration } from '../support/pod_token.ts'
import { manifest, registration } from '../support/policy.ts'
import { missing } from '../support/tools.ts'
import { askForX509Svid } from '../support/workload.ts'

/** What the program answers. */
type Answer = Record<string, unknown> & {
  readonly ok: boolean
  readonly code?: string
  readonly svids?: readonly Record<string, string>[]
}

const now = () => Math.floor(Date.now() / 1000)
const NAMESPACE = 'shop'
const idOf = (trustDomain: string, name: string) => `spiffe://${trustDomain}/ns/${NAMESPACE}/sa/${name}`

const options = (issuer: string, tokenFile: string, socket: string, args: readonly string[] = []) => ({
  args: ['--issuer', issuer, '--token-file', tokenFile, '--socket', socket, ...args],
})

describe.skipIf(missing('go'))('the agent', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-agent-'))
  const keyFile = join(folder, 'alice.key')
  const stops: (() => unknown)[] = []
  let east: FakeCluster
  let count = 0

  beforeAll(async () => {
    east = await FakeCluster.create('east')
  })
  afterEach(async () => {
    for (const stop of stops.splice(0).reverse()) await stop()
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** @param seconds how long it lives */
  const podToken = (name = 'web', seconds = 3600) =>
    east.token({
      now: now(),
      claims: { exp: now() + seconds, sub: `system:serviceaccount:${NAMESPACE}:${name}` },
      kubernetes: {
        namespace: NAMESPACE,
        serviceaccount: { name, uid: 'uid-1' },
        pod: { name: `${name}-0`, uid: 'uid-2' },
      },
    })

  async function writeToken(token: string | Promise<string>): Promise<string> {
    const file = join(folder, `token-${count++}`)
    writeFileSync(file, await token)
    return file
  }

  const workload = (name: string, spec: object = {}) =>
    registration(name, {
      selector: { namespace: NAMESPACE, serviceAccountName: name },
      audiences: ['k8s', 'db'],
      ...spec,
    })

  async function startWorker(
    trustDomain: string,
    objects: readonly object[],
    options: { port?: number; issuer?: string; more?: string; state?: string } = {},
  ): Promise<PlainWorkerd> {
    const { port = await freePort(), issuer = `http://127.0.0.1:${port}`, more = '', state } = options
    return startPlainWorkerd({
      ...{ entry: 'development', port, ...(state && { state }) },
      env: {
        MODE: 'development',
        ISSUER: issuer,
        TRUST_DOMAIN: trustDomain,
        SIGNING_KEY: 'local:one',
        CA_KEY: 'local:ca',
      },
      manifest: manifest(east.record(), ...objects) + more,
    })
  }

  async function startAgent(issuer: string, tokenFile: string, args: readonly string[] = []): Promise<AgentProcess> {
    const agent = await startAgentProcess(options(issuer, tokenFile, join(folder, `agent-${count++}.sock`), args))
    stops.push(() => agent.stop('SIGKILL'))
    return agent
  }

  async function startProgram({ socket }: Pick<AgentProcess, 'socket'>): Promise<LineProgram> {
    const program = await startWorkloadProgram(socket)
    stops.push(() => program.stop())
    return program
  }

  async function ask(program: LineProgram, ...words: readonly string[]): Promise<Answer> {
    const [answer] = await program.ask([words])
    return answer as Answer
  }

  describe('of a pod', () => {
    let worker: PlainWorkerd
    let tokenFile: string
    beforeAll(async () => {
      worker = await startWorker('example.org', [
        workload('web', { hint: 'web' }),
        workload('db'),
        workload('many', { spiffeID: 'spiffe://example.org/first', audiences: ['k8s'] }),
        registration('many-too', {
          selector: { namespace: NAMESPACE, serviceAccountName: 'many' },
          ...{ spiffeID: 'spiffe://example.org/second', audiences: ['k8s'] },
        }),
      ])
      tokenFile = await writeToken(podToken())
    })
    afterAll(() => worker?.stop())

    test('gives go-spiffe’s X509Source, BundleSource and JWTSource what they want', async () => {
      const program = await startProgram(await startAgent(worker.origin, tokenFile))
      const id = idOf('example.org', 'web')
      expect(program.ready.version).toBe('github.com/spiffe/go-spiffe/v2 v2.9.0')
      expect(await ask(program, 'source')).toMatchObject({ ok: true, id, hint: 'web' })
      expect(await ask(program, 'bundles', 'example.org')).toEqual({ ok: true, x509: 1, jwt: 1 })
      expect(await ask(program, 'source-jwt', 'k8s')).toEqual({
        ...{ ok: true, id },
        refused: expect.stringContaining('expected audience in ["somebody else"]'),
      })
    })

    test.skipIf(missing('python'))('gives the Python package spiffe what it wants', async () => {
      const agent = await startAgent(worker.origin, tokenFile)
      const program = await startPythonWorkloadProgram(agent.socket)
      stops.push(() => program.stop())
      const id = idOf('example.org', 'web')
      expect(program.ready.version).toBe('0.3.2')
      expect(await ask(program, 'source')).toMatchObject({ ok: true, id })
      expect(await ask(program, 'bundles', 'example.org')).toEqual({ ok: true, x509: 1, jwt: 1 })
      const { token, ...rest } = await ask(program, 'jwt', 'k8s')
      expect(rest).toEqual({ ok: true, id })
      expect(await ask(program, 'validate', String(token), 'k8s')).toEqual({ ok: true, id })
      expect((await ask(program, 'validate', String(token), 'db')).error).toMatch(/audience/i)
      expect((await ask(program, 'jwt', 'vault')).error).toMatch(/no identity issued/)
    })

    test('two programs beside two agents speak mTLS, and both know who the other is', async () => {
      const [web, db] = await Promise.all([
        startAgent(worker.origin, tokenFile).then(startProgram),
        startAgent(worker.origin, await writeToken(podToken('db'))).then(startProgram),
      ])
      const { address } = await ask(db, 'listen')
      const [webId, dbId] = [idOf('example.org', 'web'), idOf('example.org', 'db')]
      expect(await ask(web, 'call', String(address), dbId)).toEqual({ ok: true, caller: webId })
      expect((await ask(web, 'call', String(address), webId)).error).toMatch(/unexpected ID/)
    })

    test('ValidateJWTSVID takes what was made out to the audience, and InvalidArgument is for all else', async () => {
      const program = await startProgram(await startAgent(worker.origin, tokenFile))
      const [{ token = '', id } = {}] = (await ask(program, 'jwt', 'k8s')).svids ?? []
      expect(await ask(program, 'validate', token, 'k8s')).toMatchObject({
        ok: true,
        id,
        claims: { aud: 'k8s', sub: id },
      })
      for (const [svid, audience] of [
        [token, 'db'],
        [`${token.slice(0, -4)}AAAA`, 'k8s'],
        ['x.y.z', 'k8s'],
      ] as const)
        expect(await ask(program, 'validate', svid, audience)).toMatchObject({ ok: false, code: 'InvalidArgument' })
    })

    test.each<[string, readonly string[], string]>([
      ['no security header', ['FetchX509SVID', '', '', ''], 'InvalidArgument'],
      ['no security header', ['FetchJWTBundles', '', '', ''], 'InvalidArgument'],
      ['another value in it', ['FetchJWTSVID', 'True', 'k8s', ''], 'InvalidArgument'],
      ['it twice', ['FetchX509Bundles', 'true,true', '', ''], 'InvalidArgument'],
      ['no audience', ['FetchJWTSVID', 'true', '', ''], 'InvalidArgument'],
      ['a SPIFFE ID that is none', ['FetchJWTSVID', 'true', 'k8s', 'web'], 'InvalidArgument'],
      ['a SPIFFE ID of others', ['FetchJWTSVID', 'true', 'k8s', 'spiffe://peer.example/x'], 'PermissionDenied'],
      ['another’s SPIFFE ID', ['FetchJWTSVID', 'true', 'k8s', idOf('example.org', 'db')], 'PermissionDenied'],
      ['an audience of others', ['FetchJWTSVID', 'true', 'vault', ''], 'PermissionDenied'],
      ['no token to validate', ['ValidateJWTSVID', 'true', 'k8s', ''], 'InvalidArgument'],
      ['nobody to validate it for', ['ValidateJWTSVID', 'true', '', 'x.y.z'], 'InvalidArgument'],
      ['the wish for a WIT-SVID', ['FetchWITSVID', 'true', '', ''], 'Unimplemented'],
      ['the wish for WIT bundles', ['FetchWITBundles', 'true', '', ''], 'Unimplemented'],
    ])('12.5: grpc-go with %s (%j) is told %s', async (_, words, code) => {
      const program = await startProgram(await startAgent(worker.origin, tokenFile))
      expect(await ask(program, 'raw', ...words)).toMatchObject({ ok: false, code })
    })

    test('the same calls with nothing wrong are answered', async () => {
      const program = await startProgram(await startAgent(worker.origin, tokenFile))
      for (const method of ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'])
        expect(await ask(program, 'raw', method, 'true', '', '')).toEqual({ ok: true })
      expect(await ask(program, 'raw', 'FetchJWTSVID', 'true', 'k8s', idOf('example.org', 'web'))).toEqual({ ok: true })
    })

    test('WA-8, T-4: that could have several identities has those of --spiffe-id, and none without', async () => {
      const file = await writeToken(podToken('many'))
      const [first, second] = ['spiffe://example.org/first', 'spiffe://example.org/second']
      const undecided = await startProgram(await startAgent(worker.origin, file))
      expect(await ask(undecided, 'x509')).toMatchObject({ ok: false, code: 'PermissionDenied' })
      const program = await startProgram(
        await startAgent(worker.origin, file, ['--spiffe-id', String(second), String(first)]),
      )
      for (const kind of [['x509'], ['jwt', 'k8s']])
        expect((await ask(program, ...kind)).svids?.map(({ id }) => id)).toEqual([second, first])
      expect((await ask(program, 'jwt', 'k8s', String(first))).svids?.map(({ id }) => id)).toEqual([first])
    })

    test('a hundred clients at the same time are served with one certificate and one token', async () => {
      const program = await startProgram(await startAgent(worker.origin, tokenFile))
      const before = worker.log.length
      expect(await ask(program, 'burst', '100', 'k8s')).toEqual({ ok: true, codes: { OK: 100 }, serials: 1, tokens: 1 })
      const doors = worker.log.slice(before).filter(({ event }) => event === 'decision')
      expect(doors.map(({ door }) => door).filter((door) => door === 'token')).toHaveLength(1)
    })

    test('the next SVID is pushed to who watches, and comes of the token that the kubelet has put there meanwhile', async () => {
      const file = await writeToken(podToken('web', 20))
      const program = await startProgram(await startAgent(worker.origin, file))
      await ask(program, 'watch')
      const x509 = async () => ((await ask(program, 'updates')).x509 ?? {}) as Record<string, number>
      await expect.poll(async () => (await x509()).updates).toBe(1)
      const first = await x509()
      expect(Number(first.expires)).toBeLessThanOrEqual(now() + 20)
      writeFileSync(file, await podToken('web', 3600))
      await expect.poll(async () => (await x509()).updates).toBe(2)
      const second = await x509()
      expect(second.serial).not.toBe(first.serial)
      expect(Number(second.expires)).toBeGreaterThan(now() + 3000)
      const updates = await ask(program, 'updates')
      expect(updates).toMatchObject({ jwt_bundles: { updates: 1 }, x509_bundles: { updates: 1 } })
      expect(updates).not.toHaveProperty('errors')
    })

    test('without a token, or with one that is none, it says Unavailable; and goes on when there is one', async () => {
      const file = join(folder, 'late-token')
      const program = await startProgram(await startAgent(worker.origin, file))
      expect(await ask(program, 'raw', 'FetchX509SVID', 'true', '', '')).toMatchObject({ code: 'Unavailable' })
      for (const garbage of ['', 'not a token', 'a'.repeat(100_000)]) {
        writeFileSync(file, garbage)
        expect(await ask(program, 'raw', 'FetchJWTSVID', 'true', 'k8s', '')).toMatchObject({ code: 'Unavailable' })
      }
      writeFileSync(file, await podToken())
      await expect.poll(async () => (await ask(program, 'raw', 'FetchX509SVID', 'true', '', '')).ok).toBe(true)
    })

    test('a token of nobody’s is PermissionDenied', async () => {
      const program = await startProgram(await startAgent(worker.origin, await writeToken(podToken('stranger'))))
      for (const method of ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles', 'FetchJWTSVID'])
        expect(await ask(program, 'raw', method, 'true', 'k8s', '')).toMatchObject({ code: 'PermissionDenied' })
    })

    test('what is secret is in no argument, variable, line of its log or file', async () => {
      const own = mkdtempSync(join(folder, 'own-'))
      const token = await podToken()
      writeFileSync(join(own, 'token'), token)
      const agent = await startAgentProcess(options(worker.origin, join(own, 'token'), join(own, 'agent.sock')))
      stops.push(() => agent.stop('SIGKILL'))
      const program = await startProgram(agent)
      const { svids } = await ask(program, 'jwt', 'k8s')
      await ask(program, 'source')
      const seen = ['cmdline', 'environ'].map((file) => readFileSync(`/proc/${agent.pid}/${file}`, 'utf8')).join('')
      for (const secret of [token, String(svids?.[0]?.token)])
        for (const part of secret.split('.').slice(1)) expect(seen + agent.output()).not.toContain(part)
      expect(agent.output()).not.toMatch(/PRIVATE KEY/)
      expect(readdirSync(own).sort()).toEqual(['agent.sock', 'token'])
      const open = readdirSync(`/proc/${agent.pid}/fd`).length
      expect(open).toBeLessThan(40)
    })

    test('SIGTERM ends it at once, with 0; streams end with Unavailable, and the socket is gone', async () => {
      for (const signal of ['SIGTERM', 'SIGINT'] as const) {
        const agent = await startAgent(worker.origin, tokenFile)
        const program = await startProgram(agent)
        await ask(program, 'watch')
        await expect.poll(async () => (await ask(program, 'updates')).x509).toBeDefined()
        expect(await agent.stop(signal)).toBe(0)
        expect(existsSync(agent.socket)).toBe(false)
        await expect
          .poll(async () => (await ask(program, 'updates')).errors)
          .toEqual({ x509: 'Unavailable', x509_bundles: 'Unavailable', jwt_bundles: 'Unavailable' })
        expect(agent.log.at(-1)).toMatchObject({ event: 'stopping' })
      }
    })

    test('after kill -9 the next one takes its socket, and who watches is there again by itself', async () => {
      const agent = await startAgent(worker.origin, tokenFile)
      const program = await startProgram(agent)
      await ask(program, 'watch')
      await expect.poll(async () => (await ask(program, 'updates')).x509).toMatchObject({ updates: 1 })
      expect(await agent.stop('SIGKILL')).toBeNull()
      expect(statSync(agent.socket).isSocket()).toBe(true)
      const next = await startAgentProcess(options(worker.origin, tokenFile, agent.socket))
      stops.push(() => next.stop('SIGKILL'))
      await expect.poll(async () => (await ask(program, 'updates')).x509).toMatchObject({ updates: 2 })
    })

    test('a second one on the same socket is told so, with 1', async () => {
      const agent = await startAgent(worker.origin, tokenFile)
      const second = startAgentProcess(options(worker.origin, tokenFile, agent.socket))
      await expect(second).rejects.toThrow(/ended with 1: .*somebody listens there already/)
      expect((await ask(await startProgram(agent), 'x509')).ok).toBe(true)
    })

    test('clients that stand still cost it little, and others nothing', async () => {
      const file = await writeToken(podToken('web', 24))
      const agent = await startAgent(worker.origin, file)
      const memory = () => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))?.[1])
      const live = await startProgram(agent)
      expect((await ask(live, 'burst', '50', 'k8s')).codes).toEqual({ OK: 50 })
      const before = memory()
      const still = await Promise.all(Array.from({ length: 20 }, () => startProgram(agent)))
      // Else they would not even end.
      stops.push(async () => {
        for (const program of still) program.signal('SIGCONT')
      })
      for (const program of still) {
        await ask(program, 'watch')
        await expect.poll(async () => (await ask(program, 'updates')).x509).toBeDefined()
        program.signal('SIGSTOP')
      }
      await ask(live, 'watch')
      // Several SVIDs that nobody of them takes.
      for (let round = 1; round <= 3; round++) {
        writeFileSync(file, await podToken('web', 24))
        await expect.poll(async () => (await ask(live, 'updates')).x509).toMatchObject({ updates: 1 + round })
        writeFileSync(file, await podToken('web', 24))
        expect((await ask(live, 'burst', '20', 'k8s')).codes).toEqual({ OK: 20 })
      }
      expect(memory() - before).toBeLessThan(100_000)
    })
  })

  test('serves from memory while the worker is gone, and is well again when it is back', async () => {
    const [port, state] = [await freePort(), join(folder, 'state')]
    let worker = await startWorker('example.org', [workload('web')], { port, state })
    stops.push(() => worker.stop())
    const program = await startProgram(await startAgent(worker.origin, await writeToken(podToken())))
    await ask(program, 'watch')
    const [before] = (await ask(program, 'x509')).svids ?? []
    const [token] = (await ask(program, 'jwt', 'k8s')).svids ?? []
    await worker.stop('SIGKILL')
    expect((await ask(program, 'x509')).svids).toEqual([before])
    expect((await ask(program, 'jwt', 'k8s')).svids).toEqual([token])
    expect(await ask(program, 'validate', String(token?.token), 'k8s')).toMatchObject({ ok: true })
    expect(await ask(program, 'jwt', 'db')).toMatchObject({ ok: false, code: 'Unavailable' })
    worker = await startWorker('example.org', [workload('web')], { port, state })
    await expect.poll(async () => (await ask(program, 'jwt', 'db')).ok).toBe(true)
    expect(await ask(program, 'updates')).not.toHaveProperty('errors')
  })

  describe('beside an issuer that', () => {
    let proxy: LyingProxy
    let worker: PlainWorkerd
    let other: PlainWorkerd
    beforeAll(async () => {
      proxy = await startLyingProxy()
      worker = await startWorker('example.org', [workload('web')], { issuer: proxy.url })
      other = await startWorker('other.example', [workload('web')])
      proxy.origin = worker.origin
    })
    afterAll(async () => {
      proxy.stop()
      await worker.stop()
      await other.stop()
    })
    afterEach(() => {
      proxy.lie = async () => null
    })

    const start = async () => startProgram(await startAgent(proxy.url, await writeToken(podToken())))

    test('tells the truth, all is well', async () => {
      expect(await ask(await start(), 'source-jwt', 'k8s')).toMatchObject({ ok: true })
    })

    const lies: readonly [string, LyingProxy['lie']][] = [
      ['hangs', async () => 'hang'],
      ['answers with 20 MB', async () => ({ status: 200, text: `{"x":"${'a'.repeat(20_000_000)}"}` })],
      ['answers with no JSON', async () => ({ status: 200, text: '<html>' })],
      ['is in trouble', async () => ({ status: 503, text: '{}', headers: { 'retry-after': '1' } })],
      ['sends it on to somebody else', async () => ({ status: 307, text: '', headers: { location: other.origin } })],
      [
        'gives a certificate for another key',
        async ({ path, headers }, truth) => {
          if (path !== '/svid/x509') return truth()
          const token = headers.authorization?.replace('Bearer ', '') ?? ''
          const { status, text } = await askForX509Svid(worker.origin, token)
          return { status, text }
        },
      ],
      [
        'gives a certificate of another trust domain',
        async ({ path, headers, body }, truth) => {
          if (path !== '/svid/x509') return truth()
          const answer = await fetch(`${other.origin}${path}`, { method: 'POST', headers, body })
          return { status: answer.status, text: await answer.text() }
        },
      ],
      [
        'leaves its own bundle out',
        async ({ path }, truth) => {
          const said = await truth()
          return path === '/bundles' ? { ...said, text: '{"trust_domain":"example.org","trust_domains":{}}' } : said
        },
      ],
    ]
    test.each(lies)('%s: X.509-SVIDs are Unavailable', async (_, lie) => {
      proxy.lie = lie
      const program = await start()
      // Whether or not the first attempt is over: with an answer that hangs, one is told so after 5 s.
      await expect
        .poll(async () => (await ask(program, 'raw', 'FetchX509SVID', 'true', '', '')).code)
        .toMatch(/^(Unavailable|PermissionDenied)$/)
      proxy.lie = async () => null
      await expect.poll(async () => (await ask(program, 'raw', 'FetchX509SVID', 'true', '', '')).ok).toBe(true)
    })

    test('gives a token of another trust domain: JWT-SVIDs are Unavailable', async () => {
      const program = await start()
      proxy.lie = async ({ path, headers, body }) => {
        if (path !== '/token') return null
        const answer = await fetch(`${other.origin}${path}`, { method: 'POST', headers, body })
        return { status: answer.status, text: await answer.text() }
      }
      expect(await ask(program, 'jwt', 'k8s')).toMatchObject({ ok: false, code: 'Unavailable' })
    })
  })

  test('agent.yaml is taken by a real API server, and what stands in it works with a token of that', async () => {
    const key = createServiceAccountKey('ES256')
    const apiserver = await startKubeApiserver(
      'apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n',
      key,
    )
    stops.push(() => apiserver.stop())
    await apiserver.createPod('shop', 'web', 'web-0')
    const file = 'deploy/kubernetes/agent.yaml'
    const applied = await apiserver.kubectl(['apply', '--dry-run=server', '--validate=strict', '-f', file])
    expect(applied).toMatch(/serviceaccount\/web \w+ \(server dry run\)\npod\/web created \(server dry run\)/)

    const [, { spec }] = parseAllDocuments(readFileSync(file, 'utf8')).map((document) => document.toJS())
    const [sidecar] = spec.initContainers
    const [{ projected }] = spec.volumes
    const { audience, path } = projected.sources[0].serviceAccountToken
    const port = await freePort()
    const worker = await startPlainWorkerd({
      ...{ entry: 'development', port, manifest: manifest(clusterRecord(key), webRegistration()) },
      env: {
        ...{ MODE: 'development', ISSUER: `http://127.0.0.1:${port}`, TRUST_DOMAIN: 'example.org' },
        ...{ SIGNING_KEY: 'local:one', CA_KEY: 'local:ca' },
      },
    })
    stops.push(() => worker.stop())
    const tokenFile = join(folder, path)
    writeFileSync(tokenFile, await apiserver.podToken('shop', 'web', 'web-0', audience))
    const given: Record<string, string> = {
      SPIFFE_EDGE_ISSUER: worker.origin,
      SPIFFE_EDGE_TOKEN_FILE: tokenFile,
      SPIFFE_ENDPOINT_SOCKET: `unix://${join(folder, 'yaml.sock')}`,
    }
    expect(sidecar.env.map(({ name }: { name: string }) => name)).toEqual(Object.keys(given))
    expect(sidecar.command).toEqual(['spiffe-edge', 'agent'])
    const agent = await startAgentProcess({ args: sidecar.command.slice(2), env: given })
    stops.push(() => agent.stop('SIGKILL'))
    const program = await startProgram(agent)
    expect(await ask(program, 'source')).toMatchObject({ ok: true, id: 'spiffe://example.org/ns/shop/sa/web' })
  })

  test('the command of docs/agent.md is one', async () => {
    const [, command = ''] = /```sh\nspiffe-edge agent (.*)\n```/.exec(readFileSync('docs/agent.md', 'utf8')) ?? []
    const socket = join(folder, 'docs.sock')
    const args = command.split(' ').map((word) => word.replace('/spiffe/agent.sock', socket))
    expect(args).toContain(`unix://${socket}`)
    const agent = await startAgentProcess({ args })
    expect(agent.log[0]).toMatchObject({ event: 'listening', socket, issuer: 'https://issuer.example.org' })
    expect(await agent.stop()).toBe(0)
  })

  test('WA-6, FE-13: federation comes and goes while all watch: mTLS and ValidateJWTSVID follow', {
    timeout: 400_000,
  }, async () => {
    const LEASE = { timeout: 200_000, interval: 1000 }
    const ports = [await freePort(), await freePort()] as const
    const issuers = ports.map((port) => `http://127.0.0.1:${port}`)
    const { stdout } = await cli([
      'admin',
      'create',
      '--name',
      'alice',
      '--issuer',
      String(issuers[0]),
      '--key-file',
      keyFile,
    ])
    const peer = (name: string, issuer: string | undefined) => ({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'FederatedTrustDomain',
      metadata: { name },
      spec: { trustDomain: name, bundleEndpointURL: `${issuer}/bundle`, bundleEndpointProfile: { type: 'https_web' } },
    })
    const a = await startWorker('a.example', [], { port: ports[0], more: `---\n${stdout}` })
    stops.push(() => a.stop())
    const b = await startWorker(
      'b.example',
      [peer('a.example', issuers[0]), workload('web', { federatesWith: ['a.example'] })],
      {
        port: ports[1],
      },
    )
    stops.push(() => b.stop())
    const apply = async (...objects: readonly object[]) => {
      const options = ['--issuer', String(issuers[0]), '--key-file', keyFile]
      const { code, stderr } = await cli(['apply', '-f', '-', ...options], { stdin: manifest(...objects) })
      expect([code, stderr]).toEqual([0, ''])
    }
    await apply(workload('web'))
    const tokenFile = await writeToken(podToken())
    const [inA, inB] = await Promise.all(
      [a, b].map(async ({ origin }) => startProgram(await startAgent(origin, tokenFile))),
    )
    const [programA, programB] = [inA as LineProgram, inB as LineProgram]
    await ask(programA, 'watch')
    const seen = async () => {
      const { x509, x509_bundles, jwt_bundles } = (await ask(programA, 'updates')) as unknown as Record<
        string,
        Record<string, unknown>
      >
      return [x509?.trust_domains, x509_bundles?.trust_domains, Object.keys((jwt_bundles?.keys as object) ?? {}).sort()]
    }
    await expect.poll(seen, LEASE).toEqual(Array(3).fill(['a.example']))
    await expect.poll(async () => (await ask(programB, 'bundles', 'a.example')).ok, LEASE).toBe(true)
    const [{ token = '' } = {}] = (await ask(programB, 'jwt', 'k8s')).svids ?? []
    const [idA, idB] = [idOf('a.example', 'web'), idOf('b.example', 'web')]
    const { address } = await ask(programB, 'listen')
    const call = () => ask(programA, 'call', String(address), idB)
    expect((await call()).ok).toBe(false)
    expect(await ask(programA, 'validate', token, 'k8s')).toMatchObject({ code: 'InvalidArgument' })

    await apply(peer('b.example', issuers[1]), workload('web', { federatesWith: ['b.example'] }))
    await expect.poll(seen, LEASE).toEqual(Array(3).fill(['a.example', 'b.example']))
    expect(await call()).toEqual({ ok: true, caller: idA })
    const [{ token: fresh = '' } = {}] = (await ask(programB, 'jwt', 'k8s')).svids ?? []
    expect(await ask(programA, 'validate', fresh, 'k8s')).toMatchObject({ ok: true, id: idB })

    await apply(workload('web'))
    await expect.poll(seen, LEASE).toEqual(Array(3).fill(['a.example']))
    expect((await call()).ok).toBe(false)
    const [{ token: last = '' } = {}] = (await ask(programB, 'jwt', 'k8s')).svids ?? []
    expect(await ask(programA, 'validate', last, 'k8s')).toMatchObject({ code: 'InvalidArgument' })
  })
})
