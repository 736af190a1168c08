/**
 * A real kube-apiserver that trusts several workers, each with keys, a state and an administrator of its own: what a test
 * does to the keys of one is nothing to the others.
 */

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import type { KeyReport } from '../../cli/keys/key_report.ts'
import type { KeyTimes } from '../../worker/key_times.ts'
import { askAsAdmin } from './admin_request.ts'
import { cli, cliProcess, type Outcome } from './cli.ts'
import { type Answer, exchange, send } from './exchange.ts'
import { forge } from './jwt_forge.ts'
import { createServiceAccountKey, type KubeApiserver, startKubeApiserver } from './kube_apiserver.ts'
import { createCa } from './pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from './plain_workerd.ts'
import { CLUSTER, clusterRecord, webRegistration } from './pod_token.ts'
import { manifest } from './policy.ts'

/** Who gets SVIDs. */
export const SPIFFE_ID = 'spiffe://example.org/ns/shop/sa/web'

export interface IssuerSettings {
  readonly signingKey: string
  readonly times: KeyTimes
  /** Of a token, in seconds. */
  readonly ttl: number
  /** More variables. */
  readonly env?: Readonly<Record<string, string>>
}

export interface TrustedIssuer {
  readonly url: string
  /** The folder of its Durable Objects. */
  readonly state: string
  readonly worker: PlainWorkerd
  /** @returns an SVID that has just been signed. Rejects with whatever else the worker answers. */
  fresh(): Promise<string>
  read(path: string): Promise<Answer>
  /** The real command line, as the administrator, in a process of its own. */
  run(...argv: readonly string[]): Promise<Outcome>
  /** What `spiffe-edge status` says. */
  status(): Promise<KeyReport>
  /** The admin API itself, as the administrator. */
  askAsAdmin(path: string, body: object): Promise<Answer>
  /** As after a power cut. */
  kill(): Promise<void>
  /** @returns when it listens; nobody has asked it for anything by then */
  start(): Promise<void>
}

export interface TrustedIssuers<Name extends string> {
  readonly issuers: Readonly<Record<Name, TrustedIssuer>>
  readonly apiserver: KubeApiserver
  /** What a command needs to find the API server. */
  readonly gate: readonly string[]
  /** Makes the API server look at the keys of this issuer: it is shown a token of a key that nobody has published (D4). */
  nudge(issuer: TrustedIssuer): Promise<void>
  /** @returns the username that the API server takes the bearer of this token for; null if it refuses */
  whoami(svid: string): Promise<string | null>
  stop(): Promise<void>
}

/** @returns when the API server accepts SVIDs of each issuer, so that a refusal from then on is one too many */
export async function startTrustedIssuers<Name extends string>(
  settings: Readonly<Record<Name, IssuerSettings>>,
): Promise<TrustedIssuers<Name>> {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-trusted-'))
  const ca = await createCa()
  const caFile = join(folder, 'ca.crt')
  writeFileSync(caFile, ca.certificate)
  const key = createServiceAccountKey('RS256')
  const record = clusterRecord(key, { apiServer: { certificateAuthority: ca.certificate } })
  let subjectToken = ''

  async function startIssuer(name: string, { signingKey, times, ttl, env }: IssuerSettings) {
    const tls = await ca.issue('localhost', '127.0.0.1')
    const port = await freePort()
    const url = `https://localhost:${port}`
    const state = join(folder, name)
    const keyFile = join(folder, `${name}.key`)
    const admin = await cli(['admin', 'create', '--name', 'alice', '--issuer', url, '--key-file', keyFile])
    const workload = webRegistration({ ttlSeconds: ttl })
    const start = () =>
      startPlainWorkerd({
        entry: 'development',
        env: {
          MODE: 'development',
          ISSUER: url,
          TRUST_DOMAIN: 'example.org',
          SIGNING_KEY: signingKey,
          KEY_TIMES: JSON.stringify(times),
          ...env,
        },
        manifest: `${manifest(record, workload)}---\n${admin.stdout}`,
        tls,
        port,
        state,
      })
    let worker = await start()
    const run = (...argv: readonly string[]) => cliProcess([...argv, '--issuer', url, '--key-file', keyFile], caFile)
    return {
      url,
      state,
      get worker() {
        return worker
      },
      async fresh() {
        const { status, text, body } = await exchange(url, subjectToken, { ca: ca.certificate, audience: 'k8s' })
        if (status !== 200 || !body.access_token) throw new Error(`${name}: ${status} ${text}`)
        return body.access_token
      },
      read: (path: string) => send(url + path, { ca: ca.certificate }),
      run,
      async status() {
        const { code, stdout, stderr } = await run('status', '--output', 'json')
        if (code !== 0) throw new Error(stderr)
        return JSON.parse(stdout) as KeyReport
      },
      askAsAdmin: (path: string, body: object) => askAsAdmin(url, keyFile, path, body, ca.certificate),
      kill: () => worker.stop('SIGKILL'),
      async start() {
        worker = await start()
      },
    } satisfies TrustedIssuer
  }

  const issuers = {} as Record<Name, TrustedIssuer>
  for (const name of Object.keys(settings) as Name[]) issuers[name] = await startIssuer(name, settings[name])
  const all = Object.values<TrustedIssuer>(issuers)
  const files = await Promise.all(all.map(async ({ read }) => parse((await read('/structured-auth.yaml')).text)))
  const apiserver = await startKubeApiserver(
    JSON.stringify({ ...files[0], jwt: files.flatMap(({ jwt }) => jwt as unknown[]) }),
    key,
  )
  await apiserver.createPod('shop', 'web', 'web-0')
  subjectToken = await apiserver.podToken('shop', 'web', 'web-0', 'spiffe-edge')

  const stranger = { alg: 'ES256', privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }
  // Idle connections are given up by us first: otherwise a request could meet one that is just being closed.
  const agent = new Agent({ keepAlive: true, timeout: 4000 })
  async function whoami(svid: string): Promise<string | null> {
    const { status, text } = await send(`${apiserver.server}/apis/authentication.k8s.io/v1/selfsubjectreviews`, {
      method: 'POST',
      headers: { authorization: `Bearer ${svid}`, 'content-type': 'application/json' },
      body: JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' }),
      ca: apiserver.ca,
      agent,
    })
    if (status === 401) return null
    if (status !== 201) throw new Error(`the API server answers ${status}: ${text}`)
    return JSON.parse(text).status.userInfo.username
  }
  await Promise.all(all.map((issuer) => accepted(issuer, whoami)))
  return {
    issuers,
    apiserver,
    gate: [
      ...['--kubeconfig', apiserver.kubeconfig, '--apiserver', `${CLUSTER}=test`],
      ...['--apiservers', `${CLUSTER}=1`],
    ],
    whoami,
    async nudge({ url }) {
      const kid = randomUUID()
      const now = Math.floor(Date.now() / 1000)
      const claims = { iss: url, aud: 'k8s', sub: SPIFFE_ID, iat: now, exp: now + 60 }
      if ((await whoami(forge({ ...stranger, kid }, { alg: 'ES256', kid }, claims))) !== null)
        throw new Error('the API server believes anybody')
    },
    async stop() {
      agent.destroy()
      await apiserver.stop()
      for (const { worker } of all) await worker.stop()
      rmSync(folder, { recursive: true })
    },
  }
}

/** An API server begins to look for its issuers when it is ready already. */
async function accepted({ fresh }: TrustedIssuer, whoami: (svid: string) => Promise<string | null>): Promise<void> {
  for (let tries = 0; (await whoami(await fresh())) === null; tries++) {
    if (tries === 600) throw new Error('the API server never accepts an SVID')
    await new Promise((later) => setTimeout(later, 100))
  }
}
