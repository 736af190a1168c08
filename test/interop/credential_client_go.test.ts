/** EX-6: what client-go does with our plugins in a program that lives long. Its cache's clock is the test's. */

import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Folder } from '../support/cli.ts'
import {
  createSigner,
  type ExecClient,
  type ExecConfig,
  installCommands,
  startExecClient,
  startWorkloadApi,
  V1,
  V1BETA1,
  type WorkloadApi,
  writeKubeconfig,
} from '../support/exec_plugin.ts'
import { createCa } from '../support/pki.ts'
import { missing } from '../support/tools.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'

const folder = new Folder()
const PATH = installCommands(folder)
const skipped = missing('go')

/** Answers 200 to whom it does not refuse, and keeps their tokens. */
class FakeApiServer {
  tokens: string[] = []
  /** How many of the next requests are refused. */
  refusals = 0
  url = ''
  ca = ''
  #server: Server | undefined

  async start(): Promise<void> {
    const ca = await createCa()
    const { key, certificate } = await ca.issue('localhost', '127.0.0.1')
    this.#server = createServer({ key, cert: certificate }, ({ headers }, response) => {
      this.tokens.push(headers.authorization?.replace(/^Bearer /, '') ?? '')
      response.writeHead(this.refusals > 0 ? 401 : 200).end('{}')
      this.refusals = Math.max(0, this.refusals - 1)
    })
    await new Promise<void>((listening) => this.#server?.listen(0, '127.0.0.1', listening))
    this.url = `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
    this.ca = ca.certificate
  }

  stop(): void {
    this.#server?.close()
    this.#server?.closeAllConnections()
  }
}

describe.skipIf(skipped)("client-go's exec package", () => {
  const server = new FakeApiServer()
  let api: WorkloadApi
  let client: ExecClient | undefined
  beforeAll(async () => {
    await server.start()
    api = await startWorkloadApi(folder, createSigner())
  })
  afterEach(async () => {
    await client?.stop()
    server.tokens = []
    server.refusals = 0
  })
  afterAll(async () => {
    await api?.stop()
    server.stop()
    folder.remove()
  })

  async function startClient(
    exec: Partial<ExecConfig> = {},
    { extension, env }: { extension?: object; env?: Record<string, string> } = {},
  ): Promise<ExecClient> {
    const block = {
      apiVersion: V1,
      command: 'spiffe-edge',
      args: ['credential', 'workload-api'],
      interactiveMode: 'Never',
      ...exec,
    }
    const kubeconfig = writeKubeconfig(folder, { server: server.url, ca: server.ca }, block, extension)
    client = await startExecClient(kubeconfig, { PATH, SPIFFE_ENDPOINT_SOCKET: api.address, ...env })
    return client
  }
  const runsOf = async (started: ExecClient, advanceSeconds?: number) =>
    (await started.get('/api', advanceSeconds)).runs

  test('one run serves all requests until the expiry, which is before that of the token; then it is run again', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const started = await startClient()
    expect(await runsOf(started)).toEqual([0])
    for (let more = 0; more < 5; more++) expect(await runsOf(started)).toEqual([])
    // A token lives for 300 s; a minute is what a machine may stall here.
    expect(await runsOf(started, 230)).toEqual([])
    expect(new Set(server.tokens).size).toBe(1)
    expect(await runsOf(started, 61)).toEqual([0])
    // The new one is of the real time, to which the clock is put back.
    expect(await runsOf(started, -291)).toEqual([])
    expect(new Set(server.tokens).size).toBe(2)
    expect(await api.behave({})).toHaveLength(2)
  })

  test('EX-9: at no time is a token shown that is over by then', async () => {
    await api.behave({ identities: [{ spiffeId: ID, lifetimeSeconds: 60 }] })
    const started = await startClient()
    let ranAgain = false
    for (let offset = 0; !ranAgain; offset += 10) {
      const now = Date.now() / 1000 + offset
      const { runs } = await started.get('/api', offset === 0 ? 0 : 10)
      const [, payload = ''] = server.tokens.at(-1)?.split('.') ?? []
      ranAgain = offset > 0 && runs.length > 0
      if (!ranAgain) expect(JSON.parse(Buffer.from(payload, 'base64url').toString()).exp).toBeGreaterThan(now)
    }
  })

  test('a 401 has it run again, once; the caller gets the 401, and the next request the new token', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const started = await startClient()
    expect(await started.get('/api')).toMatchObject({ status: 200, runs: [0] })
    server.refusals = 1
    expect(await started.get('/api')).toMatchObject({ status: 401, runs: [0] })
    expect(await started.get('/api')).toMatchObject({ status: 200, runs: [] })
    const [first, refused, next] = server.tokens
    expect([refused === first, next === first]).toEqual([true, false])
  })

  test('a server that refuses all has it run once for each request, not more', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const started = await startClient()
    server.refusals = 3
    const results = [await started.get('/api'), await started.get('/api'), await started.get('/api')]
    expect(results.map(({ status, runs }) => [status, runs.length])).toEqual([
      [401, 2],
      [401, 1],
      [401, 1],
    ])
  })

  test('what goes wrong is on standard error, and the request fails with the exit code; the next one tries again', async () => {
    await api.behave({ refuse: { code: 3, message: 'no such thing' } })
    const started = await startClient()
    const failed = await started.get('/api')
    expect(failed).toMatchObject({ status: 0, runs: [1] })
    expect(failed.error).toContain('failed with exit code 1')
    expect(failed.stderr).toBe(`the Workload API at ${api.address}: no such thing\n`)
    await api.behave({ identities: [{ spiffeId: ID }] })
    expect(await started.get('/api')).toMatchObject({ status: 200, runs: [0], stderr: '' })
  })

  test('a credential that cannot be had again after a 401 stays the old one', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const started = await startClient()
    await started.get('/api')
    await api.behave({ refuse: { code: 3, message: 'no such thing' } })
    server.refusals = 1
    const refused = await started.get('/api')
    expect(refused).toMatchObject({ status: 401, runs: [1] })
    expect(refused.stderr).toContain('no such thing')
    expect(await started.get('/api')).toMatchObject({ status: 200, runs: [] })
    expect(new Set(server.tokens).size).toBe(1)
  })

  test('a command that is misunderstood exits with 2, and nothing is sent', async () => {
    const started = await startClient({ args: ['credential', 'workload-api', '--audience'] })
    const failed = await started.get('/api')
    expect([failed.runs, server.tokens]).toEqual([[2], []])
    expect(failed.stderr).toContain('--audience')
  })

  test.each([V1, V1BETA1])(
    'EX-1: the answer is %s if that is asked for, whatever EXEC_CREDENTIAL_VERSION says',
    async (apiVersion) => {
      await api.behave({ identities: [{ spiffeId: ID }] })
      const other = apiVersion === V1 ? 'v1beta1' : 'v1'
      const started = await startClient({ apiVersion, env: [{ name: 'EXEC_CREDENTIAL_VERSION', value: other }] })
      expect(await started.get('/api')).toMatchObject({ status: 200, runs: [0], error: '' })
    },
  )

  test.each([
    ['a text', { audience: 'k8s-one' }, true, ['k8s-one']],
    ['a list', { audience: ['k8s-one', 'k8s-two'] }, true, ['k8s-one', 'k8s-two']],
    ['not there', { other: true }, true, ['k8s-variable']],
    ['not handed over', { audience: 'k8s-one' }, false, ['k8s-variable']],
  ] as const)(
    "EX-2: the audience of the cluster's exec extension is %s",
    async (_, extension, provideClusterInfo, audience) => {
      await api.behave({ identities: [{ spiffeId: ID }] })
      const env = [{ name: 'SPIFFE_JWT_AUDIENCE', value: 'k8s-variable' }]
      const started = await startClient({ provideClusterInfo, env }, { extension })
      expect(await started.get('/api')).toMatchObject({ status: 200, runs: [0] })
      expect(await api.behave({})).toMatchObject([{ audience }])
    },
  )

  test.each([[{ audience: 7 }], [{ audience: ['k8s', null] }], [{ audience: '' }], [{ audience: [] }]])(
    "EX-2: the cluster's exec extension %j is refused",
    async (extension) => {
      const started = await startClient({ provideClusterInfo: true }, { extension })
      const failed = await started.get('/api')
      expect([failed.runs, failed.status]).toEqual([[2], 0])
      expect(failed.stderr).toContain('audience')
    },
  )

  test('EX-7: a command that is not installed: the hint says what to do, ten times an hour; of a path there is none', async () => {
    const installHint = 'npm install --global spiffe-edge'
    const started = await startClient({ command: 'spiffe-edge-is-not-here', installHint })
    const errors: string[] = []
    for (let request = 0; request < 12; request++) errors.push((await started.get('/api')).error)
    expect(errors.filter((error) => error.includes('executable spiffe-edge-is-not-here not found'))).toHaveLength(12)
    expect(errors.filter((error) => error.includes(installHint))).toHaveLength(10)
    await started.stop()
    const { error } = await (await startClient({ command: '/not/here/spiffe-edge', installHint })).get('/api')
    expect(error).toContain('/not/here/spiffe-edge')
    expect(error).not.toContain(installHint)
  })
})
