/** X.509-SVIDs from outside: plain workerd with a CA of its own, pods of a cluster, and TLS between them. */

import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FakeCluster, POD } from '../support/cluster.ts'
import { base64, makeCsr } from '../support/csr.ts'
import { type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest, registration } from '../support/policy.ts'

/** kubespiffe's demo, word for word. */
const DEMO = ['workload', 'another']
  .map(
    (name) => `---
apiVersion: kubespiffe.io/v1alpha1
kind: WorkloadRegistration
metadata:
  name: ${name}
spec:
  spiffeID: spiffe://example.org/ns/default/sa/default
  svidType: X509
  selector:
    namespace: default
    serviceAccountName: default
    podName: ${name}
`,
  )
  .join('')
const DEMO_ID = 'spiffe://example.org/ns/default/sa/default'

/** What its script does in a pod, whose token and whose server are variables. */
const SCRIPT = `
curl -sf -H "Authorization: Bearer $TOKEN" "$SERVER/v1/svid" > answer.json
jq -r .x509_svid answer.json | base64 -d > svid.pem
jq -r .x509_svid_key answer.json | base64 -d > svid.key
jq -r .bundle answer.json | base64 -d > bundle.pem
openssl verify -CAfile bundle.pem svid.pem
openssl x509 -in svid.pem -noout -ext subjectAltName
openssl pkey -in svid.key -pubout > key.pub
openssl x509 -in svid.pem -noout -pubkey | cmp - key.pub
`
const hasTools = ['curl', 'jq', 'openssl'].every((tool) => spawnSync(tool, ['version']).error === undefined)

const DEVELOPMENT = {
  MODE: 'development',
  ISSUER: 'http://127.0.0.1:{port}',
  TRUST_DOMAIN: 'example.org',
  SIGNING_KEY: 'local:one',
  CA_KEY: 'local:ca',
}

const now = () => Math.floor(Date.now() / 1000)

interface Svid {
  readonly cert: string
  readonly key: string
  readonly ca: string
}

let east: FakeCluster
let worker: PlainWorkerd
let folder: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-x509-'))
  east = await FakeCluster.create('east')
  worker = await startPlainWorkerd({
    entry: 'development',
    env: DEVELOPMENT,
    manifest: manifest(east.record({ kubespiffe: true }), registration('web', { dnsNames: ['web.example'] })) + DEMO,
  })
})
afterAll(async () => {
  await worker.stop()
  rmSync(folder, { recursive: true })
})

async function demoToken(pod: string): Promise<string> {
  return east.token({
    now: now(),
    claims: { aud: ['kubespiffed'], sub: 'system:serviceaccount:default:default' },
    kubernetes: {
      namespace: 'default',
      serviceaccount: { name: 'default', uid: 'uid-1' },
      pod: { name: pod, uid: 'uid-2' },
    },
  })
}

async function kubespiffe(pod: string): Promise<Svid> {
  const headers = { authorization: `Bearer ${await demoToken(pod)}` }
  const answer = (await (await fetch(`${worker.origin}/v1/svid`, { headers })).json()) as Record<string, string>
  const [cert = '', key = '', ca = ''] = Object.values(answer).map((value) => Buffer.from(value, 'base64').toString())
  return { cert, key, ca }
}

/** @returns the SPIFFE IDs that client and server see of each other */
async function shakeHands(client: Partial<Svid>, server: Svid): Promise<readonly string[]> {
  const listener = createServer({ ...server, requestCert: true, rejectUnauthorized: true })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  try {
    const accepted = once(listener, 'secureConnection') as Promise<[TLSSocket]>
    const refused = once(listener, 'tlsClientError').then(([error]) => Promise.reject(error))
    refused.catch(() => undefined)
    const { port } = listener.address() as AddressInfo
    // Whose SPIFFE ID it is, is for the caller to look at; there is no host name to compare.
    const socket = connect({ ...client, port, host: '127.0.0.1', checkServerIdentity: () => undefined })
    socket.on('error', () => undefined)
    const [incoming] = await Promise.race([accepted, refused])
    const seen = [incoming, socket].map((side) => side.getPeerX509Certificate()?.subjectAltName ?? '')
    socket.destroy()
    incoming.destroy()
    return seen
  } finally {
    listener.close()
  }
}

describe('kubespiffe’s demo', () => {
  test.skipIf(!hasTools)('runs by its own script', async () => {
    const env = { ...process.env, TOKEN: await demoToken('workload-67c559dbb7-r5d5s'), SERVER: worker.origin }
    const printed = execFileSync('sh', ['-e', '-c', SCRIPT], { cwd: folder, env, encoding: 'utf8' })
    expect(printed).toContain('svid.pem: OK')
    expect(printed).toContain(`URI:${DEMO_ID}`)
  })

  test('two of its workloads speak mTLS', async () => {
    const [workload, another] = await Promise.all([
      kubespiffe('workload-67c559dbb7-r5d5s'),
      kubespiffe('another-5b77f9d8fc-7r5m7'),
    ])
    expect(await shakeHands(workload, another)).toEqual([`URI:${DEMO_ID}`, `URI:${DEMO_ID}`])
    const { ca } = workload
    await expect(shakeHands({ ca }, another)).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_SSL_/) })
  })

  test('its third is refused with a 403, and not with nothing', async () => {
    const headers = { authorization: `Bearer ${await demoToken('unattested-5b77f9d8fc-7r5m7')}` }
    const answer = await fetch(`${worker.origin}/v1/svid`, { headers })
    expect([answer.status, await answer.json()]).toMatchObject([403, { reason: 'registration_none' }])
  })
})

describe('a workload with a CSR', () => {
  test('gets a certificate that OpenSSL takes, from a CA that the bundle has', async () => {
    const { der, spki } = await makeCsr()
    const answer = await fetch(`${worker.origin}/svid/x509`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${await east.token({ now: now() })}` },
      body: JSON.stringify({ csr: base64(der) }),
    })
    expect(answer.status).toBe(200)
    const body = (await answer.json()) as Record<string, string>
    const [leaf, ca] = [new X509Certificate(body.x509_svid ?? ''), new X509Certificate(body.bundle ?? '')]
    expect(leaf.checkIssued(ca) && leaf.verify(ca.publicKey)).toBe(true)
    expect(leaf.ca).toBe(false)
    expect(leaf.subjectAltName).toBe(
      `URI:spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}, DNS:web.example`,
    )
    expect(leaf.publicKey.export({ format: 'der', type: 'spki' })).toEqual(Buffer.from(spki))
    const published = (await (await fetch(`${worker.origin}/bundle`)).json()) as { keys: { x5c?: string[] }[] }
    expect(published.keys.flatMap(({ x5c }) => x5c ?? [])).toEqual([ca.raw.toString('base64')])
    const serial_number = leaf.serialNumber.toLowerCase()
    await expect.poll(() => worker.log.at(-1)).toMatchObject({ door: 'svid_x509', serial_number })
  })

  test('T-22: of whose private keys and tokens nothing is in the log', async () => {
    const { key } = await kubespiffe('workload-67c559dbb7-r5d5s')
    const { d = '' } = createPrivateKey(key).export({ format: 'jwk' })
    await expect.poll(() => worker.log.at(-1)).toMatchObject({ door: 'kubespiffe' })
    const log = JSON.stringify(worker.log)
    for (const line of key.split('\n').slice(1, -2)) expect(log).not.toContain(line)
    expect(log).not.toContain(d)
  })
})

test('12.3: an SVID of another CA is no peer', async () => {
  const server = await kubespiffe('workload-67c559dbb7-r5d5s')
  const other = await startPlainWorkerd({
    entry: 'development',
    env: DEVELOPMENT,
    manifest: manifest(east.record({ kubespiffe: true })) + DEMO,
  })
  try {
    const headers = { authorization: `Bearer ${await demoToken('another-5b77f9d8fc-7r5m7')}` }
    const answer = (await (await fetch(`${other.origin}/v1/svid`, { headers })).json()) as Record<string, string>
    const [cert = '', key = ''] = Object.values(answer).map((value) => Buffer.from(value, 'base64').toString())
    await expect(shakeHands({ cert, key, ca: server.ca }, server)).rejects.toThrow()
  } finally {
    await other.stop()
  }
})
