/**
 * Real kubectl runs the credential plugins against a real kube-apiserver. It trusts two issuers: one of the test's own, whose key a Workload API
 * signs with, and the worker, which exchanges the tokens of pods and of a CI system.
 */

import { randomUUID } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { Folder } from '../support/cli.ts'
import {
  type Ended,
  type ExecConfig,
  installCommands,
  KUBECTL,
  type RunOptions,
  run,
  SEED_PLUGIN,
  startExecClient,
  startWorkloadApi,
  V1,
  V1BETA1,
  type WorkloadApi,
  writeKubeconfig,
} from '../support/exec_plugin.ts'
import { forge } from '../support/jwt_forge.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { createCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { startTestIssuer, type TestIssuer } from '../support/test_issuer.ts'
import { missing } from '../support/tools.ts'

const ID = 'spiffe://example.org/host/one'
const POD_ID = 'spiffe://example.org/ns/shop/sa/web'
const CI_ID = 'spiffe://example.org/ci/shop'
const INSTALL_HINT = 'npm install --global spiffe-edge'
const skipped = missing('go')

const folder = new Folder()
const PATH = installCommands(folder)
let workloads: TestIssuer
let ci: TestIssuer
let worker: PlainWorkerd
let workerUrl: string
let workerCa: string
let apiserver: KubeApiserver
let api: WorkloadApi

beforeAll(async () => {
  if (skipped) return
  workloads = await startTestIssuer(['ES256'])
  ci = await startTestIssuer(['ES256'])
  const { privateKey, kid } = keyOf(workloads)
  api = await startWorkloadApi(folder, { privateKey, kid, issuer: workloads.url })
  const key = createServiceAccountKey('ES256')
  const ca = await createCa()
  const port = await freePort()
  workerUrl = `https://localhost:${port}`
  workerCa = folder.write(ca.certificate)
  worker = await startPlainWorkerd({
    entry: 'development',
    env: { MODE: 'development', ISSUER: workerUrl, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
    manifest: objects(key.jwk),
    tls: await ca.issue('localhost', '127.0.0.1'),
    trusted: ci.ca,
    port,
  })
  const jwt = [
    { url: workloads.url, certificateAuthority: workloads.ca },
    { url: workerUrl, certificateAuthority: ca.certificate },
  ].map((issuer) => ({
    issuer: { ...issuer, audiences: ['k8s', 'k8s-one'], audienceMatchPolicy: 'MatchAny' },
    claimMappings: { username: { claim: 'sub', prefix: '' } },
  }))
  apiserver = await startKubeApiserver(
    JSON.stringify({ apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AuthenticationConfiguration', jwt }),
    key,
  )
  await apiserver.createPod('shop', 'web', 'web-0')
})
afterAll(async () => {
  await apiserver?.stop()
  await worker?.stop()
  await api?.stop()
  workloads?.stop()
  ci?.stop()
  folder.remove()
})

function keyOf(issuer: TestIssuer) {
  const { es256: key } = issuer.keys
  if (!key) throw new TypeError('the issuer has no key')
  return key
}

function objects(jwk: object): string {
  const registration = (name: string, spec: object) => ({
    apiVersion: 'kubespiffe.io/v1alpha1',
    kind: 'WorkloadRegistration',
    metadata: { name },
    spec: { audiences: ['k8s', 'k8s-one'], ...spec },
  })
  return manifest(
    {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'real' },
      spec: { issuer: SERVICE_ACCOUNT_ISSUER, jwks: { inline: { keys: [jwk] } } },
    },
    {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'OIDCAttestor',
      metadata: { name: 'ci' },
      spec: { issuer: ci.url, audience: workerUrl },
    },
    registration('web', { clusters: ['real'], selector: { namespace: 'shop', serviceAccountName: 'web' } }),
    registration('ci', { oidc: { attestor: 'ci', subject: 'repo:shop' }, spiffeID: CI_ID }),
  )
}

const BY_WORKLOAD_API: ExecConfig = {
  apiVersion: V1,
  command: 'spiffe-edge',
  args: ['credential', 'workload-api'],
  interactiveMode: 'Never',
}

async function kubectl(
  exec: Partial<ExecConfig>,
  args: readonly string[],
  { extension, env, ...options }: Partial<RunOptions> & { extension?: object } = {},
): Promise<Ended> {
  const { server, ca } = apiserver
  const kubeconfig = writeKubeconfig(folder, { server, ca }, { ...BY_WORKLOAD_API, ...exec }, extension)
  return run(folder, KUBECTL, ['--kubeconfig', kubeconfig, ...args], {
    // What kubectl keeps of the cluster goes into a home of its own.
    env: { PATH, HOME: folder.path, SPIFFE_ENDPOINT_SOCKET: api.address, ...env },
    ...options,
  })
}

/** Whom the API server takes it for, or what kubectl said. */
async function whoami(exec: Partial<ExecConfig>, options: Parameters<typeof kubectl>[2] = {}): Promise<string> {
  const { code, stdout, stderr } = await kubectl(exec, ['auth', 'whoami', '-o', 'json'], options)
  return code === 0 ? JSON.parse(stdout).status.userInfo.username : stderr
}

describe.skipIf(skipped)('credential workload-api', () => {
  beforeEach(async () => {
    await api.behave({
      identities: [
        { spiffeId: ID, hint: 'host' },
        { spiffeId: `${ID}-more`, hint: 'more' },
      ],
    })
  })

  test.each([V1, V1BETA1])('the username is the SPIFFE ID: %s', async (apiVersion) => {
    expect(await whoami({ apiVersion })).toBe(ID)
    expect(await whoami({ apiVersion, args: ['credential', 'workload-api', '--hint', 'more'] })).toBe(`${ID}-more`)
  })

  // Word for word from the seed, but for the socket's path.
  const seed = (command: string) => `
apiVersion: "client.authentication.k8s.io/v1"
command: "${command}"
interactiveMode: Never
# To customize, uncomment and change the settings below
env:
  - name: SPIFFE_ENDPOINT_SOCKET
    value: "${api.address}"
  - name: SPIFFE_JWT_AUDIENCE
    value: "k8s-one"
`
  test("the seed's kubeconfig with command and args changed", async () => {
    const block = parse(`${seed('spiffe-edge')}args: ["credential", "workload-api"]\n`)
    expect(await whoami(block, { env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///not/here' } })).toBe(ID)
    expect(await api.behave({})).toMatchObject([{ audience: ['k8s-one'] }])
  })

  test("the seed's kubeconfig as it is, by the alias of its command", async () => {
    expect(
      await whoami({ args: [], ...parse(seed(SEED_PLUGIN)) }, { env: { SPIFFE_ENDPOINT_SOCKET: 'unix:///not/here' } }),
    ).toBe(ID)
    expect(await api.behave({})).toMatchObject([{ audience: ['k8s-one'] }])
  })

  test("the seed's EXEC_CREDENTIAL_VERSION beside the version of the kubeconfig", async () => {
    const env = [{ name: 'EXEC_CREDENTIAL_VERSION', value: 'v1beta1' }]
    expect(await whoami({ apiVersion: V1BETA1, env })).toBe(ID)
  })

  test('EX-2: the audience from the exec extension of the cluster', async () => {
    expect(await whoami({ provideClusterInfo: true }, { extension: { audience: 'k8s-one' } })).toBe(ID)
    expect(await api.behave({})).toMatchObject([{ audience: ['k8s-one'] }])
  })

  test('an audience that the API server does not know is refused there, and kubectl runs the plugin once more', async () => {
    expect(await whoami({ args: ['credential', 'workload-api', '--audience', 'other'] })).toContain('must be logged in')
    expect((await api.behave({})).length).toBeGreaterThanOrEqual(2)
  })

  test('EX-6: a token that has expired is a 401, the plugin is run again, and the next request is served', async () => {
    await api.behave({ identities: [{ spiffeId: ID, lifetimeSeconds: 6 }] })
    const { server, ca } = apiserver
    const kubeconfig = writeKubeconfig(folder, { server, ca }, BY_WORKLOAD_API)
    const client = await startExecClient(kubeconfig, { PATH, SPIFFE_ENDPOINT_SOCKET: api.address })
    // A clock that is an hour slow: it takes the token for good whatever its expiry.
    expect(await client.get('/api', -3600)).toMatchObject({ runs: [0] })
    await expect.poll(() => client.get('/api')).toMatchObject({ status: 401, runs: [0] })
    expect(apiserver.log()).toContain('token is expired')
    await api.behave({ identities: [{ spiffeId: ID }] })
    // The one before had six seconds as well, of which this machine may have taken all.
    await expect.poll(() => client.get('/api')).toMatchObject({ status: 200, runs: [] })
    await client.stop()
  })

  test('the kubelet starts before the agent: a socket that comes up late', async () => {
    await api.behave({ identities: [{ spiffeId: ID }], listenAfterMilliseconds: 2000 })
    const { code, stdout, stderr } = await kubectl({}, ['auth', 'whoami', '-o', 'name'])
    expect(code, stderr).toBe(0)
    expect(stderr).toContain('is not there; trying for 30 s')
    expect(stdout).not.toContain('trying')
  })

  test('a token of few seconds: it is accepted while it lives, and kubectl starts afresh each time', async () => {
    await api.behave({ identities: [{ spiffeId: ID, lifetimeSeconds: 20 }] })
    for (let command = 0; command < 2; command++) expect(await whoami({})).toBe(ID)
    expect(await api.behave({})).toHaveLength(2)
  })

  test('what goes wrong is told by kubectl: the line of the plugin, and its exit code', async () => {
    await api.behave({ refuse: { code: 3, message: 'no such thing' } })
    const said = await whoami({})
    expect(said).toContain(`the Workload API at ${api.address}: no such thing`)
    expect(said).toContain('executable spiffe-edge failed with exit code 1')
    const misunderstood = await whoami({}, { env: { SPIFFE_ENDPOINT_SOCKET: '/bare/path' } })
    expect(misunderstood).toContain('SPIFFE_ENDPOINT_SOCKET: /bare/path is neither')
    expect(misunderstood).toContain('exit code 2')
  })

  test('EX-7: a command that is not installed, with its hint', async () => {
    const said = await whoami({ command: 'spiffe-edge-is-not-here', installHint: INSTALL_HINT })
    expect(said).toContain('executable spiffe-edge-is-not-here not found')
    expect(said).toContain(INSTALL_HINT)
  })

  test('EX-8: a kuberc that allows the command by its name, and one that does not', async () => {
    const kuberc = (policy: object) =>
      folder.write({ apiVersion: 'kubectl.config.k8s.io/v1beta1', kind: 'Preference', ...policy })
    const asked = async (policy: object) => {
      const { code, stdout, stderr } = await kubectl({}, [`--kuberc=${kuberc(policy)}`, 'auth', 'whoami', '-o', 'json'])
      return code === 0 ? JSON.parse(stdout).status.userInfo.username : stderr
    }
    const allow = (command: string) => ({
      credentialPluginPolicy: 'Allowlist',
      credentialPluginAllowlist: [{ command }],
    })
    expect(await asked(allow('spiffe-edge'))).toBe(ID)
    expect(await asked(allow('kubelogin'))).toContain('not permitted')
    expect(await asked({ credentialPluginPolicy: 'DenyAll' })).toContain('not allowed')
  })
})

describe.skipIf(skipped)('what spiffe-edge kubeconfig writes', () => {
  async function written(kind: string, ...options: string[]): Promise<string> {
    const { server, ca } = apiserver
    // A user who is somebody else, and a context that has it.
    const kubeconfig = writeKubeconfig(
      folder,
      { server, ca },
      { ...BY_WORKLOAD_API, command: 'other' },
      { audience: 'k8s-one' },
    )
    const args = ['kubeconfig', kind, '--user', 'me', '--kubeconfig', kubeconfig, '--context', 'it', ...options]
    const { code, stderr } = await run(folder, 'spiffe-edge', args, { env: { PATH } })
    expect(code, stderr).toBe(0)
    return kubeconfig
  }
  async function whoamiBy(kubeconfig: string, env: Record<string, string> = {}): Promise<string> {
    const { code, stdout, stderr } = await run(
      folder,
      KUBECTL,
      ['--kubeconfig', kubeconfig, 'auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}'],
      { env: { PATH, HOME: folder.path, ...env } },
    )
    return code === 0 ? stdout : stderr
  }

  test.each(['v1', 'v1beta1'])(
    'workload-api, %s: kubectl takes it, and hands over the audience of the cluster',
    async (version) => {
      await api.behave({ identities: [{ spiffeId: ID }] })
      const kubeconfig = await written('workload-api', '--socket', api.address, '--api-version', version)
      expect(await whoamiBy(kubeconfig)).toBe(ID)
      expect(await api.behave({})).toMatchObject([{ audience: ['k8s-one'] }])
    },
  )

  test('workload-api with an audience of its own', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    expect(await whoamiBy(await written('workload-api', '--socket', api.address, '--audience', 'k8s'))).toBe(ID)
    expect(await api.behave({})).toMatchObject([{ audience: ['k8s'] }])
  })

  test('psat', async () => {
    const file = folder.write(await apiserver.podToken('shop', 'web', 'web-0', 'spiffe-edge'))
    const kubeconfig = await written('psat', '--issuer', workerUrl, '--token-file', file)
    expect(await whoamiBy(kubeconfig, { NODE_EXTRA_CA_CERTS: workerCa })).toBe(POD_ID)
  })

  test('EX-7: where the command is missing, its hint', async () => {
    const kubeconfig = await written('workload-api', '--command', 'spiffe-edge-is-not-here')
    expect(await whoamiBy(kubeconfig)).toContain('spiffe-edge is not on the PATH of this program')
  })
})

describe.skipIf(skipped || missing('python'))('EX-5: interactiveMode and the terminal', () => {
  /** Writes down what the plugin is told and what it answers. */
  function spy(): { command: string; told(): { spec: { interactive: boolean } }[]; answered(): typeof told } {
    const [info, answer] = [join(folder.path, `${randomUUID()}.info`), join(folder.path, `${randomUUID()}.answer`)]
    const command = folder.write(
      `#!/bin/sh\nprintf '%s\\n' "$KUBERNETES_EXEC_INFO" >>${info}\nspiffe-edge "$@" >${answer}.new || exit\ncat ${answer}.new >>${answer}\ncat ${answer}.new\n`,
    )
    chmodSync(command, 0o755)
    const lines = (file: string) =>
      existsSync(file)
        ? readFileSync(file, 'utf8')
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line))
        : []
    const told = () => lines(info)
    return { command, told, answered: (() => lines(answer)) as unknown as () => typeof told }
  }

  test.each([
    ['Never', true, false],
    ['Never', false, false],
    ['IfAvailable', true, true],
    ['IfAvailable', false, false],
    ['Always', true, true],
  ])(
    '%s, terminal %j: it is told %j, answers with the same, and never reads or asks',
    async (interactiveMode, terminal, interactive) => {
      await api.behave({ identities: [{ spiffeId: ID }] })
      const { command, told, answered } = spy()
      expect(await whoami({ command, interactiveMode }, { terminal })).toBe(ID)
      expect(told()).toMatchObject([{ spec: { interactive } }])
      expect(answered()).toMatchObject([{ spec: { interactive } }])
    },
  )

  test('Always without a terminal: kubectl does not run it', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const { command, told } = spy()
    const said = await whoami({ command, interactiveMode: 'Always' })
    expect(said).toContain('standard input is not a terminal')
    expect([told(), await api.behave({})]).toEqual([[], []])
  })

  test('standard input that kubectl reads itself is left to it', async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x', namespace: 'shop' } })
    const review = await kubectl(
      { interactiveMode: 'IfAvailable' },
      ['create', '--dry-run=client', '-o', 'name', '-f', '-'],
      { input },
    )
    expect([review.code, review.stdout, review.stderr]).toEqual([0, 'configmap/x\n', ''])
  })

  test('a credential that fails says so in a terminal as it does without, and asks nothing', async () => {
    await api.behave({})
    const args = ['credential', 'workload-api', '--timeout', '1']
    for (const terminal of [true, false]) {
      const said = await whoami({ args, interactiveMode: 'IfAvailable' }, { terminal })
      expect(said).toContain('is this workload registered?')
    }
  })
})

describe.skipIf(skipped)('credential psat and oidc-file', () => {
  const exchanged = (kind: 'psat' | 'oidc-file', file: string, ...more: string[]): Partial<ExecConfig> => ({
    args: ['credential', kind, '--issuer', workerUrl, '--token-file', file, ...more],
    env: [{ name: 'NODE_EXTRA_CA_CERTS', value: workerCa }],
  })
  const podToken = (audience = 'spiffe-edge') => apiserver.podToken('shop', 'web', 'web-0', audience)
  function ciToken(claims: object = {}): string {
    const now = Math.floor(Date.now() / 1000)
    const usual = {
      iss: ci.url,
      aud: workerUrl,
      sub: 'repo:shop',
      iat: now,
      nbf: now,
      exp: now + 600,
      jti: randomUUID(),
    }
    return forge(keyOf(ci), { alg: 'ES256', kid: keyOf(ci).kid, typ: 'JWT' }, { ...usual, ...claims })
  }

  test.each([V1, V1BETA1])('psat: a pod is known by the SPIFFE ID of its service account: %s', async (apiVersion) => {
    expect(await whoami({ ...exchanged('psat', folder.write(await podToken())), apiVersion })).toBe(POD_ID)
  })

  test('psat: the variables, and the audience of the cluster', async () => {
    const env = { SPIFFE_EDGE_ISSUER: workerUrl, SPIFFE_EDGE_TOKEN_FILE: folder.write(await podToken()) }
    const exec = { args: ['credential', 'psat'], provideClusterInfo: true }
    const options = { env: { ...env, NODE_EXTRA_CA_CERTS: workerCa }, extension: { audience: 'k8s-one' } }
    expect(await whoami(exec, options)).toBe(POD_ID)
    expect(worker.log).toContainEqual(
      expect.objectContaining({ event: 'decision', decision: 'issued', spiffe_id: POD_ID }),
    )
  })

  test('psat: the kubelet has put another token into the file: the next command uses that', async () => {
    const file = folder.write('not yet a token')
    expect(await whoami(exchanged('psat', file))).toContain(`${file} does not hold a token`)
    writeFileSync(file, await podToken())
    expect(await whoami(exchanged('psat', file))).toBe(POD_ID)
  })

  test('oidc-file: a job of a CI system', async () => {
    expect(await whoami(exchanged('oidc-file', folder.write(`${ciToken()}\n`)))).toBe(CI_ID)
  })

  test.each([
    ['a token for another audience', async () => podToken('vault'), /refuses \(400\)/],
    ["the API server's own token", async () => podToken(SERVICE_ACCOUNT_ISSUER), /refuses \(400\)/],
    ['a token of nobody', async () => ciToken({ sub: 'repo:other' }), /refuses \(400\)/],
    [
      'an expired token',
      async () => ciToken({ exp: 1_700_000_600, iat: 1_700_000_000, nbf: 1_700_000_000 }),
      /refuses \(400\)/,
    ],
  ] as [string, () => Promise<string>, RegExp][])(
    '%s is refused at once, and nothing of it is said',
    async (_, make, message) => {
      const token = await make()
      const said = await whoami(exchanged('psat', folder.write(token), '--timeout', '3600'))
      expect(said).toMatch(message)
      for (const part of token.split('.')) expect(said).not.toContain(part)
    },
  )

  test('an audience that the registration does not have', async () => {
    const said = await whoami(exchanged('psat', folder.write(await podToken()), '--audience', 'vault'))
    expect(said).toMatch(/refuses \(400\)/)
  })

  test('an issuer whose certificate nobody has vouched for gets no token', async () => {
    const before = worker.log.length
    const said = await whoami({ ...exchanged('psat', folder.write(await podToken()), '--timeout', '1'), env: null })
    expect(said).toMatch(/exit code 1/)
    expect(worker.log.slice(before).filter((line) => line.event === 'decision')).toEqual([])
  })

  test('EX-5: the token is not read from standard input, which is not ours', async () => {
    expect(await whoami(exchanged('psat', '-'))).toContain('--token-file: must be a file')
  })
})

describe.skipIf(skipped)('docs/kubectl.md', () => {
  const text = readFileSync('docs/kubectl.md', 'utf8')
  const commands = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block]) => (block ?? '').trim().split('\n'))
  const results = new Map<string, Ended>()

  beforeAll(async () => {
    await api.behave({ identities: [{ spiffeId: ID }] })
    const { server, ca } = apiserver
    const kubeconfig = readFileSync(
      writeKubeconfig(folder, { server, ca }, { ...BY_WORKLOAD_API, command: 'x' }),
      'utf8',
    )
    folder.write(
      {
        ...JSON.parse(kubeconfig),
        contexts: [{ name: 'shop', context: { cluster: 'it', user: 'it' } }],
        'current-context': 'shop',
      },
      'kubeconfig',
    )
    folder.write(await apiserver.podToken('shop', 'web', 'web-0', 'spiffe-edge'), 'token')
    for (const command of commands) {
      const here = command.replace('https://issuer.example.org', workerUrl)
      const script = `cd ${folder.path}; kubectl() { ${KUBECTL} "$@"; }\n${here}`
      const env = { PATH, HOME: folder.path, SPIFFE_ENDPOINT_SOCKET: api.address, NODE_EXTRA_CA_CERTS: workerCa }
      results.set(command, await run(folder, 'bash', ['-euc', script], { env }))
    }
  })

  test('every command does what is written there', () => {
    expect(commands).toHaveLength(6)
    for (const [command, { code, stderr }] of results)
      expect([command, code, stderr]).toEqual([command, 0, expect.any(String)])
    const stdout = (command: RegExp) => results.get(commands.find((one) => command.test(one)) ?? '')?.stdout ?? ''
    expect(stdout(/whoami/)).toMatch(new RegExp(`^Username +${ID}$`, 'm'))
    for (const command of [/workload-api$/, /psat/, /oidc-file/])
      expect(JSON.parse(stdout(command)).kind).toBe('ExecCredential')
  })

  test('what it says of the cluster in the kubeconfig', async () => {
    const [, block = ''] = /```yaml\n(clusters:[\s\S]*?)```/.exec(text) ?? []
    const [{ cluster }] = parse(block).clusters
    const [{ name, extension }] = cluster.extensions
    expect([name, extension]).toEqual(['client.authentication.k8s.io/exec', { audience: 'k8s-shop' }])
  })
})
