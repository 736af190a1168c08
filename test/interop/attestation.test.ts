/**
 * Two real kube-apiservers, and one worker that asks both: with tokens that it signs for itself, and nothing stored
 * anywhere (D5). East has the usernames as they are and liveness at every exchange, west the mapping for service accounts
 * and offline verification.
 */

import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { createServer, request as httpsRequest, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { base64, makeCsr } from '../support/csr.ts'
import { exchange, send } from '../support/exchange.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd, type TlsPair } from '../support/plain_workerd.ts'
import { manifest } from '../support/policy.ts'
import { missing } from '../support/tools.ts'

type Name = 'east' | 'west'

/** The username that each apiserver knows the worker by. */
const REVIEWER = {
  east: 'spiffe://example.org/spiffe-edge/reviewer/east',
  west: 'spiffe:spiffe-edge:reviewer:west',
}

function records(ca: TestCa, west: object = {}): object[] {
  const cluster = (name: Name, spec: object) => ({
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name },
    spec: {
      issuer: SERVICE_ACCOUNT_ISSUER,
      audiences: [`edge-${name}`],
      jwks: { connection: true },
      connection: { url: `https://${name}.internal`, binding: `CLUSTER_${name.toUpperCase()}` },
      serviceAccountAllowList: ['spire:spire-agent'],
      allowedNodeLabelKeys: ['topology.kubernetes.io/zone'],
      allowedPodLabelKeys: ['app'],
      apiServer: { certificateAuthority: ca.certificate },
      ...spec,
    },
  })
  return [
    cluster('east', { liveness: 'tokenReview' }),
    cluster('west', west),
    ...(['east', 'west'] as const).map((name) => ({
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name: `web-${name}` },
      spec: {
        clusters: [name],
        selector: { namespace: 'shop', serviceAccountName: 'web' },
        audiences: [`k8s-${name}`],
      },
    })),
  ]
}

/** Hands everything on to an apiserver, and writes down who asked for what. */
class Recorder {
  readonly calls: { readonly path: string; readonly bearer: string }[] = []
  readonly #server: Server

  constructor(pair: TlsPair, target: KubeApiserver) {
    this.#server = createServer({ key: pair.key, cert: pair.certificate }, (incoming, answer) => {
      const { url = '', method, headers } = incoming
      this.calls.push({ path: url, bearer: (headers.authorization ?? '').replace(/^Bearer /, '') })
      const { hostname, port } = new URL(target.server)
      // Node would look in the certificate for the host that the worker has named.
      const onward = { hostname, port, path: url, method, headers, ca: target.ca, servername: 'localhost' }
      incoming.pipe(
        httpsRequest(onward as object, (response: IncomingMessage) => {
          answer.writeHead(response.statusCode ?? 500, response.headers)
          response.pipe(answer)
        }).on('error', () => answer.destroy()),
      )
    })
  }

  async listen(): Promise<string> {
    await new Promise<void>((listening) => this.#server.listen(0, '127.0.0.1', listening))
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

describe.skipIf(missing('go'))('two kube-apiservers, asked by the worker as itself', () => {
  const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-state-'))
  const disk = mkdtempSync(join(tmpdir(), 'spiffe-edge-disk-'))
  const apiservers = {} as Record<Name, KubeApiserver>
  let ca: TestCa
  let tls: TlsPair
  let issuer: string
  let port: number
  let worker: PlainWorkerd | undefined
  /** Of the workers before. */
  const logs: object[] = []
  let recorder: Recorder
  let eastAddress: string
  let csr: string

  async function startWorker(
    addresses: Record<Name, string>,
    cas: Record<Name, string>,
    objects: readonly object[] = records(ca),
  ): Promise<void> {
    logs.push(...(worker?.log ?? []))
    await worker?.stop()
    worker = await startPlainWorkerd({
      entry: 'development',
      env: { MODE: 'development', ISSUER: issuer, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
      manifest: manifest(...objects),
      clusters: {
        CLUSTER_EAST: { address: addresses.east, ca: cas.east },
        CLUSTER_WEST: { address: addresses.west, ca: cas.west },
      },
      disks: { CLUSTER_DISK: disk },
      tls,
      port,
      state,
    })
  }

  /** With west as a test wants it, and east as it is. */
  const startWorkerWith = (west: object, objects = records(ca, west)) =>
    startWorker(
      { east: eastAddress, west: new URL(apiservers.west.server).host },
      { east: ca.certificate, west: apiservers.west.ca },
      objects,
    )

  async function bindReviewer(name: Name): Promise<void> {
    const role = readFileSync('deploy/kubernetes/reviewer.yaml', 'utf8').replace(
      'spiffe://TRUST_DOMAIN/spiffe-edge/reviewer/CLUSTER',
      REVIEWER[name],
    )
    await apiservers[name].kubectl(['apply', '-f', '-'], role)
  }

  beforeAll(async () => {
    ca = await createCa()
    tls = await ca.issue('localhost', '127.0.0.1')
    port = await freePort()
    issuer = `https://localhost:${port}`
    csr = base64((await makeCsr()).der)
    // The first worker only writes the files that the apiservers start with.
    await startWorker({ east: '127.0.0.1:1', west: '127.0.0.1:1' }, { east: ca.certificate, west: ca.certificate })
    for (const [name, mapping] of [
      ['east', 'sub'],
      ['west', 'service-account'],
    ] as const) {
      const query = `cluster=${name}&mapping=${mapping}`
      const file = await send(`${issuer}/structured-auth.yaml?${query}`, { ca: ca.certificate })
      apiservers[name] = await startKubeApiserver(file.text, createServiceAccountKey('ES256'))
    }
    recorder = new Recorder(tls, apiservers.east)
    eastAddress = await recorder.listen()
    await startWorkerWith({})
    for (const name of ['east', 'west'] as const) {
      await bindReviewer(name)
      await apiservers[name].createPod('shop', 'web', 'web-0')
      await apiservers[name].createPod('spire', 'spire-agent', 'agent-0')
      await apiservers[name].createPod('spire', 'other', 'other-0')
      await label(name)
    }
    // The issuer has to have been found before a token of it is taken.
    for (const name of ['east', 'west'] as const)
      await vi.waitFor(async () => expect(await attest(name, 'agent-0')).toMatchObject({ status: 200 }), {
        timeout: 60_000,
        interval: 1000,
      })
  })
  afterAll(async () => {
    recorder?.close()
    await Promise.all(Object.values(apiservers).map((apiserver) => apiserver.stop()))
    await worker?.stop()
    for (const folder of [state, disk]) rmSync(folder, { recursive: true })
  })

  /** What a kubelet would have written. */
  async function label(name: Name): Promise<void> {
    const { kubectl } = apiservers[name]
    await kubectl(['label', 'node', 'node-of-agent-0', 'topology.kubernetes.io/zone=a', 'hidden=yes'])
    await kubectl(['-n', 'spire', 'label', 'pod', 'agent-0', 'app=agent', 'hidden=yes'])
    const status = JSON.stringify({ status: { hostIP: '172.16.10.1', hostIPs: [{ ip: '172.16.10.1' }] } })
    await kubectl(['-n', 'spire', 'patch', 'pod', 'agent-0', '--subresource=status', '--type=merge', '-p', status])
  }

  interface Outcome {
    readonly status: number
    readonly body: Record<string, unknown>
  }

  async function attestWith(cluster: Name, token: string): Promise<Outcome> {
    const { status, text } = await send(`${issuer}/attest/k8s_psat`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ payload: { cluster, token }, csr }),
      ca: ca.certificate,
    })
    return { status, body: JSON.parse(text) }
  }

  const tokenOf = (name: Name, pod: string, serviceAccount = 'spire-agent', namespace = 'spire') =>
    apiservers[name].podToken(namespace, serviceAccount, pod, `edge-${name}`)
  const attest = async (name: Name, pod: string, serviceAccount?: string) =>
    attestWith(name, await tokenOf(name, pod, serviceAccount))
  const trade = async (token: string) => {
    const { status, body } = await exchange(issuer, token, { ca: ca.certificate })
    return { status, body }
  }
  const uid = (name: Name, ...args: string[]) =>
    apiservers[name].kubectl(['get', ...args, '-o', 'jsonpath={.metadata.uid}'])
  const remove = (name: Name, namespace: string, pod: string) =>
    apiservers[name].kubectl(['-n', namespace, 'delete', 'pod', pod, '--grace-period=0', '--force'])

  /** Another pod of a service account that is there already, on the same node. */
  const addPod = (name: Name, namespace: string, serviceAccountName: string, pod: string, node: string) =>
    apiservers[name].kubectl(
      ['create', '-f', '-'],
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: pod, namespace },
        spec: { serviceAccountName, nodeName: node, containers: [{ name: 'main', image: 'none' }] },
      }),
    )

  test.each(['east', 'west'] as const)('PS-7, PS-8: a node of %s, with every selector', async (name) => {
    const { status, body } = await attest(name, 'agent-0')
    const nodeUid = await uid(name, 'node', 'node-of-agent-0')
    const podUid = await uid(name, '-n', 'spire', 'pod', 'agent-0')
    expect([status, body]).toEqual([
      200,
      {
        agent_id: `spiffe://example.org/spire/agent/k8s_psat/${name}/${nodeUid}`,
        selectors: [
          `k8s_psat:cluster:${name}`,
          'k8s_psat:agent_ns:spire',
          'k8s_psat:agent_sa:spire-agent',
          'k8s_psat:agent_pod_name:agent-0',
          `k8s_psat:agent_pod_uid:${podUid}`,
          'k8s_psat:agent_node_ip:172.16.10.1',
          'k8s_psat:agent_node_name:node-of-agent-0',
          `k8s_psat:agent_node_uid:${nodeUid}`,
          'k8s_psat:agent_node_label:topology.kubernetes.io/zone:a',
          'k8s_psat:agent_pod_label:app:agent',
        ],
        reattestable: true,
      },
    ])
  })

  test('T-10: the keys of both are read through their connections, by the same issuer string', async () => {
    expect(recorder.calls.map(({ path }) => path)).toContain('/openid/v1/jwks')
    for (const name of ['east', 'west'] as const)
      expect(await trade(await tokenOf(name, 'web-0', 'web', 'shop'))).toMatchObject({ status: 200 })
  })

  test('an exchange with liveness costs two calls, an attestation three, and the same again within 10 s none and one', async () => {
    const token = await tokenOf('east', 'web-0', 'web', 'shop')
    const psat = await tokenOf('east', 'agent-0')
    const costs: number[] = []
    for (const call of [
      () => trade(token),
      () => trade(token),
      () => attestWith('east', psat),
      () => attestWith('east', psat),
    ]) {
      const before = recorder.calls.length
      expect((await call()).status).toBe(200)
      costs.push(recorder.calls.length - before)
    }
    expect(costs).toEqual([2, 0, 3, 1])
  })

  test('T-6: the token of one cluster never attests as another', async () => {
    const token = await tokenOf('east', 'agent-0')
    expect(await attestWith('west', token)).toMatchObject({ status: 400, body: { reason: 'token_audience' } })
    const forWest = await apiservers.east.podToken('spire', 'spire-agent', 'agent-0', 'edge-west')
    for (const name of ['east', 'west'] as const)
      expect(await attestWith(name, forWest)).toMatchObject({
        status: 400,
        body: { reason: name === 'east' ? 'token_audience' : 'token_key' },
      })
  })

  test('12.9: a service account outside of the allow list is no node', async () => {
    expect(await attest('east', 'other-0', 'other')).toMatchObject({
      status: 403,
      body: { reason: 'service_account_not_allowed' },
    })
    await expect
      .poll(() => worker?.log)
      .toContainEqual(
        expect.objectContaining({ detail: '"spire:other" is not an allowed service account for cluster "east"' }),
      )
  })

  test('D6: a deleted pod is refused online and taken offline', async () => {
    const tokens = {} as Record<Name, string>
    for (const name of ['east', 'west'] as const) {
      await addPod(name, 'shop', 'web', 'brief', 'node-of-web-0')
      tokens[name] = await tokenOf(name, 'brief', 'web', 'shop')
      await remove(name, 'shop', 'brief')
    }
    expect(await trade(tokens.east)).toMatchObject({ status: 400, body: { reason: 'token_not_live' } })
    expect(await trade(tokens.west)).toMatchObject({ status: 200 })
  })

  test('D6: a pod that was alive a moment ago is refused when our 10 s are over, whatever the apiserver remembers', async () => {
    await addPod('east', 'shop', 'web', 'known', 'node-of-web-0')
    const token = await tokenOf('east', 'known', 'web', 'shop')
    expect((await trade(token)).status).toBe(200)
    await remove('east', 'shop', 'known')
    const deletedAt = Date.now()
    await expect.poll(() => trade(token).then(({ status }) => status)).toBe(400)
    const lag = (Date.now() - deletedAt) / 1000
    console.log(`a deleted pod was refused after ${lag.toFixed(1)} s`)
    expect(lag).toBeLessThan(30)
    expect((await trade(token)).body.reason).toMatch(/^(?:pod_gone|token_not_live)$/)
  })

  test('12.9: a pod of the same name is not the one that the token was made for', async () => {
    await addPod('west', 'spire', 'spire-agent', 'again', 'node-of-agent-0')
    const token = await tokenOf('west', 'again')
    await remove('west', 'spire', 'again')
    await addPod('west', 'spire', 'spire-agent', 'again', 'node-of-agent-0')
    expect(await attestWith('west', token)).toMatchObject({ status: 403, body: { reason: 'token_not_live' } })
    expect((await attest('west', 'again')).status).toBe(200)
  })

  test('12.9: a node that is gone', async () => {
    await addPod('west', 'spire', 'spire-agent', 'homeless', 'node-of-other-0')
    const token = await tokenOf('west', 'homeless')
    await apiservers.west.kubectl(['delete', 'node', 'node-of-other-0'])
    expect(await attestWith('west', token)).toMatchObject({ status: 400, body: { reason: 'node_unknown' } })
  })

  test('T-9: a reviewer’s token is that user at its own apiserver, may do little there, and is nobody at the other', async () => {
    await attest('east', 'agent-0')
    const token = recorder.calls.at(-1)?.bearer ?? ''
    const whoami = JSON.parse(await apiservers.east.kubectlAs(token, ['auth', 'whoami', '-o', 'json']))
    expect(whoami.status.userInfo.username).toBe(REVIEWER.east)
    for (const args of [
      ['get', 'secrets', '-A'],
      ['-n', 'shop', 'delete', 'pod', 'web-0'],
      ['get', 'pods', '-A'],
    ])
      await expect(apiservers.east.kubectlAs(token, args)).rejects.toThrow('Forbidden')
    await expect(apiservers.west.kubectlAs(token, ['auth', 'whoami'])).rejects.toThrow(/logged in|Unauthorized/)
    expect(await trade(token)).toMatchObject({ status: 400, body: { reason: 'token_issuer' } })
    expect(await attestWith('east', token)).toMatchObject({ status: 400, body: { reason: 'token_issuer' } })
    expect(JSON.stringify(worker?.log)).not.toContain(token.split('.')[2])
  })

  test('a ClusterRoleBinding that is gone: 503, and the log says which one', async () => {
    await apiservers.west.kubectl(['delete', 'clusterrolebinding', 'spiffe-edge-reviewer'])
    await expect.poll(async () => (await attest('west', 'agent-0')).body.reason).toBe('cluster_api_unavailable')
    await expect
      .poll(() => worker?.log)
      .toContainEqual(
        expect.objectContaining({
          event: 'decision',
          door: 'k8s_psat',
          detail:
            'cluster west: 403 on create tokenreviews: bind the ClusterRole of deploy/kubernetes to ' +
            `spiffe://example.org/spiffe-edge/reviewer/west (${REVIEWER.west} with the mapping service-account)`,
        }),
      )
    await bindReviewer('west')
    await expect.poll(async () => (await attest('west', 'agent-0')).status).toBe(200)
  })

  test('file: the token of a service account is read anew each time', async () => {
    const { kubectl } = apiservers.west
    await kubectl(['create', 'namespace', 'edge'])
    await kubectl(['-n', 'edge', 'create', 'serviceaccount', 'reviewer'])
    const user = '--user=system:serviceaccount:edge:reviewer'
    await kubectl(['create', 'clusterrolebinding', 'by-file', '--clusterrole=spiffe-edge-reviewer', user])
    await startWorkerWith({ reviewer: { file: { binding: 'CLUSTER_DISK', path: 'token' } } })
    const token = await kubectl(['-n', 'edge', 'create', 'token', 'reviewer'])
    for (const [text, status] of [
      [token, 200],
      ['', 503],
      ['no.such.token', 503],
      [token, 200],
    ] as const) {
      writeFileSync(join(disk, 'token'), text)
      await vi.waitFor(async () => expect((await attest('west', 'agent-0')).status).toBe(status), 60_000)
    }
    await expect
      .poll(() => worker?.log)
      .toContainEqual(
        expect.objectContaining({ detail: 'cluster west: 401 on create tokenreviews: the token is not valid there' }),
      )
  })

  test('T-6, client: the API server’s own audience, by the token itself, for nodes only', async () => {
    const { kubectl } = apiservers.west
    const jwks = JSON.parse(await kubectl(['get', '--raw', '/openid/v1/jwks']))
    await startWorkerWith({ audiences: [], reviewer: 'client', jwks: { inline: jwks } })
    const token = () => apiservers.west.podToken('spire', 'spire-agent', 'agent-0', SERVICE_ACCOUNT_ISSUER)
    expect((await attestWith('west', await token())).body.reason).toBe('cluster_api_unavailable')
    const user = '--user=system:serviceaccount:spire:spire-agent'
    await kubectl(['create', 'clusterrolebinding', 'by-client', '--clusterrole=spiffe-edge-reviewer', user])
    await vi.waitFor(async () => expect((await attestWith('west', await token())).status).toBe(200), 60_000)
    expect((await attest('west', 'agent-0')).body.reason).toBe('token_not_live')
    expect((await trade(await token())).body).toMatchObject({ reason: 'token_audience' })
  })

  test('nothing that was presented is in the log', () => {
    const text = JSON.stringify([...logs, ...(worker?.log ?? [])])
    expect(text).toContain('reviewer_issued')
    for (const { bearer } of recorder.calls) expect(text).not.toContain(bearer.split('.')[2])
  })
  test('D7: kubespiffe’s own objects, as they stand in the cluster: its workload is known, and what has no object is not', async () => {
    const { kubectl, createPod, podToken } = apiservers.east
    await kubectl(['apply', '-f', 'deploy/kubernetes/workloadregistrations.yaml'])
    await kubectl(['wait', '--for=condition=established', 'crd/workloadregistrations.kubespiffe.io', '--timeout=30s'])
    const objects = ['workload', 'another'].map((name) => ({
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name },
      spec: {
        spiffeID: 'spiffe://example.org/ns/default/sa/default',
        svidType: 'X509',
        selector: { namespace: 'default', serviceAccountName: 'default', podName: name },
      },
    }))
    await kubectl(['create', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }))
    const [registered, unregistered] = ['workload-67c559dbb7-r5d5s', 'unattested-5b77f9d8fc-7r5m7'] as const
    await createPod('default', 'default', registered)
    const spec = {
      serviceAccountName: 'default',
      nodeName: `node-of-${registered}`,
      containers: [{ name: 'main', image: 'none' }],
    }
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: unregistered, namespace: 'default' }, spec }
    await kubectl(['create', '-f', '-'], JSON.stringify(pod))
    const [east] = records(ca) as [{ spec: object }]
    const ceiling = { spiffeIDPrefixes: ['/ns/default'], audiences: ['https://vault.example.org'] }
    await startWorkerWith({}, [{ ...east, spec: { ...east.spec, ceiling } }])

    const outcome = async (name: string) => (await trade(await podToken('default', 'default', name, 'edge-east'))).body
    // They are for X.509-SVIDs, which this door does not give. That the pod is known shows in why.
    expect(await outcome(registered)).toMatchObject({ reason: 'svid_type_not_allowed' })
    expect(await outcome(unregistered)).toMatchObject({ reason: 'registration_none' })

    const patch = JSON.stringify({ spec: { svidType: 'JWT', audiences: ['https://vault.example.org'] } })
    for (const { metadata } of objects) await kubectl(['patch', 'wreg', metadata.name, '--type=merge', '-p', patch])
    await expect
      .poll(async () => 'access_token' in (await outcome(registered)), { timeout: 90_000, interval: 2000 })
      .toBe(true)
    expect(await outcome(unregistered)).toMatchObject({ reason: 'registration_none' })
    await expect
      .poll(() => worker?.log)
      .toContainEqual(
        expect.objectContaining({
          message: 'pod attested',
          pod: registered,
          namespace: 'default',
          registration: 'east/workload',
          spiffe_id: 'spiffe://example.org/ns/default/sa/default',
        }),
      )
    await expect
      .poll(() => worker?.log)
      .toContainEqual(
        expect.objectContaining({ message: 'pod rejected', pod: unregistered, reason: 'registration_none' }),
      )
  })

  test('D5: nothing that the worker has stored is a secret of a cluster, or anything that could be one', async () => {
    await attest('west', 'agent-0')
    const tokens = recorder.calls.flatMap(({ bearer }) => bearer.split('.')[2] ?? [])
    expect(tokens.length).toBeGreaterThan(0)
    const stored = globSync(`${state}/**/*`, { withFileTypes: true }).filter((entry) => entry.isFile())
    expect(stored.map(({ name }) => name)).toContainEqual(expect.stringContaining('.sqlite'))
    for (const { parentPath, name } of stored) {
      const content = readFileSync(join(parentPath, name), 'latin1')
      for (const token of tokens) expect(content.includes(token)).toBe(false)
      // A service account token, a kubeconfig, a certificate's key.
      expect(content).not.toMatch(/eyJ[A-Za-z0-9_-]+\.eyJ|client-key-data|PRIVATE KEY/)
    }
  })
})
