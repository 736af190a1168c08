/**
 * The main job, whole: a real kube-apiserver started with the file that the worker serves, a pod-bound token of that
 * apiserver, an exchange, and `kubectl auth whoami` with the SVID.
 */

import { createPrivateKey, createSign } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exchange, send } from '../support/exchange.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  type ServiceAccountKey,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd, type TlsPair } from '../support/plain_workerd.ts'
import { missing } from '../support/tools.ts'

const SPIFFE_ID = 'spiffe://example.org/ns/shop/sa/web'

function manifest(jwk: object, ca: TestCa): string {
  const registration = (name: string, spec: object) => ({
    apiVersion: 'kubespiffe.io/v1alpha1',
    kind: 'WorkloadRegistration',
    metadata: { name },
    spec: { clusters: ['real'], selector: { namespace: 'shop', serviceAccountName: name }, ...spec },
  })
  return [
    {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'real' },
      spec: {
        issuer: SERVICE_ACCOUNT_ISSUER,
        jwks: { inline: { keys: [jwk] } },
        apiServer: { certificateAuthority: ca.certificate },
      },
    },
    registration('web', { audiences: ['k8s', 'other-api'] }),
    registration('brief', { audiences: ['k8s'], ttlSeconds: 30 }),
    registration('batch', { audiences: ['k8s'], spiffeID: 'spiffe://example.org/batch' }),
  ]
    .map((object) => `---\n${JSON.stringify(object)}\n`)
    .join('')
}

const CASES = [
  { rendering: 'version=v1&mapping=sub', key: 'RS256', username: SPIFFE_ID, groups: ['system:authenticated'] },
  {
    rendering: 'version=v1beta1&mapping=service-account',
    key: 'ES256',
    username: 'spiffe:serviceaccount:shop:web',
    groups: ['spiffe:serviceaccounts', 'spiffe:serviceaccounts:shop', 'system:authenticated'],
  },
] as const

describe.skipIf(missing('go')).each(CASES)(
  'a kube-apiserver with $rendering, cluster key $key',
  ({ rendering, key: kind, username, groups }) => {
    const state = mkdtempSync(join(tmpdir(), 'spiffe-edge-state-'))
    let ca: TestCa
    let tls: TlsPair
    let port: number
    let key: ServiceAccountKey
    let worker: PlainWorkerd | undefined
    let issuer: string
    let apiserver: KubeApiserver

    async function startWorker(signingKey: string): Promise<void> {
      await worker?.stop()
      const env = { MODE: 'development', ISSUER: issuer, TRUST_DOMAIN: 'example.org', SIGNING_KEY: signingKey }
      worker = await startPlainWorkerd({ entry: 'development', env, manifest: manifest(key.jwk, ca), tls, port, state })
    }

    beforeAll(async () => {
      ca = await createCa()
      tls = await ca.issue('localhost', '127.0.0.1')
      key = createServiceAccountKey(kind)
      port = await freePort()
      issuer = `https://localhost:${port}`
      await startWorker('local:one')
      const file = await send(`${issuer}/structured-auth.yaml?cluster=real&${rendering}`, { ca: ca.certificate })
      expect(file.status).toBe(200)
      apiserver = await startKubeApiserver(file.text, key)
      for (const name of ['web', 'brief', 'batch', 'nobody']) await apiserver.createPod('shop', name, `${name}-0`)
    })
    afterAll(async () => {
      await apiserver?.stop()
      await worker?.stop()
      rmSync(state, { recursive: true })
    })

    const podToken = (name: string, audience = 'spiffe-edge') => apiserver.podToken('shop', name, `${name}-0`, audience)
    const trade = (token: string, audience = 'k8s') => exchange(issuer, token, { ca: ca.certificate, audience })
    async function svidOf(name: string, audience?: string): Promise<string> {
      const { status, body } = await trade(await podToken(name), audience)
      expect([status, body.reason]).toEqual([200, undefined])
      return body.access_token as string
    }
    async function whoami(token: string): Promise<Record<string, unknown>> {
      const review = JSON.parse(await apiserver.kubectlAs(token, ['auth', 'whoami', '-o', 'json']))
      return review.status.userInfo
    }
    async function refusedBecause(token: string): Promise<string> {
      const before = apiserver.log().length
      await expect(whoami(token)).rejects.toThrow(/must be logged in|Unauthorized/)
      return apiserver.log().slice(before)
    }

    test('the cluster signs with the key that the manifest holds', async () => {
      const jwks = JSON.parse(await apiserver.kubectl(['get', '--raw', '/openid/v1/jwks']))
      expect(jwks.keys).toEqual([expect.objectContaining({ kid: key.jwk.kid, alg: kind })])
    })

    test('kubectl auth whoami with the SVID of a pod prints its username and groups', async () => {
      const userInfo = await whoami(await svidOf('web'))
      expect(userInfo).toMatchObject({ username, groups })
    })

    test('AC-7: the token id reaches the audit log of the cluster as its credential id', async () => {
      const svid = await svidOf('web')
      const { jti } = JSON.parse(Buffer.from(svid.split('.')[1] ?? '', 'base64url').toString())
      const { extra } = await whoami(svid)
      expect(extra).toMatchObject({ 'authentication.kubernetes.io/credential-id': [`JTI=${jti}`] })
      await expect
        .poll(() => worker?.log)
        .toContainEqual(expect.objectContaining({ event: 'decision', id: jti, decision: 'issued' }))
    })

    test('what RBAC gives to the username, the SVID may do, and nothing else', async () => {
      const rule = ['--verb=get,list', '--resource=pods']
      await apiserver.kubectl(['create', 'clusterrole', 'pod-reader', ...rule])
      await apiserver.kubectl(['create', 'clusterrolebinding', 'web', '--clusterrole=pod-reader', `--user=${username}`])
      const svid = await svidOf('web')
      // The authorizer hears of a new binding a moment later.
      await expect
        .poll(() => apiserver.kubectlAs(svid, ['-n', 'shop', 'get', 'pod', 'web-0', '-o', 'name']).catch(String))
        .toBe('pod/web-0\n')
      await expect(apiserver.kubectlAs(svid, ['get', 'nodes'])).rejects.toThrow('Forbidden')
    })

    test('D3: a list of keys that changes: the old one signs until that is safe, and no token is ever refused', async () => {
      const kid = (svid: string) => JSON.parse(Buffer.from(svid.split('.')[0] ?? '', 'base64url').toString()).kid
      const first = await svidOf('web')
      const seen = [first]
      await whoami(first)
      for (const signingKey of ['local:one local:two', 'local:two local:one', 'local:two']) {
        await startWorker(signingKey)
        seen.push(await svidOf('web'))
        for (const svid of seen) expect(await whoami(svid)).toMatchObject({ username })
      }
      expect(seen.map(kid)).toEqual(Array(4).fill(kid(first)))
    })

    test('tokens that the issuer refuses, each with its code', async () => {
      const good = await podToken('web')
      const parts = good.split('.')
      const tampered = [
        parts[0],
        Buffer.from(
          Buffer.from(parts[1] ?? '', 'base64url')
            .toString()
            .replaceAll('web', 'wob'),
        ).toString('base64url'),
        parts[2],
      ].join('.')
      const unbound = (
        await apiserver.kubectl(['-n', 'shop', 'create', 'token', 'web', '--audience', 'spiffe-edge'])
      ).trim()
      const forTheApiserver = (await apiserver.kubectl(['-n', 'shop', 'create', 'token', 'web'])).trim()
      const cases: [string, string, string][] = [
        [await podToken('web', 'vault'), 'invalid_request', 'token_audience'],
        [forTheApiserver, 'invalid_request', 'token_audience'],
        [unbound, 'invalid_request', 'token_unbound'],
        [tampered, 'invalid_request', 'token_signature'],
        [
          resign(good, key, { exp: 1_700_000_000, iat: 1_699_999_000, nbf: 1_699_999_000 }),
          'invalid_request',
          'token_expired',
        ],
        [resign(good, key, { iss: 'https://other.example.org' }), 'invalid_request', 'token_issuer'],
        [resign(good, createServiceAccountKey(kind), {}), 'invalid_request', 'token_signature'],
        [await podToken('nobody'), 'invalid_request', 'registration_none'],
        [await svidOf('web'), 'invalid_request', 'token_issuer'],
      ]
      for (const [token, error, reason] of cases) {
        const { status, body } = await trade(token)
        expect([status, body.error, body.reason]).toEqual([400, error, reason])
      }
      expect((await trade(good, 'unknown')).body).toMatchObject({
        error: 'invalid_target',
        reason: 'target_not_allowed',
      })
      expect(JSON.stringify(worker?.log)).not.toContain(parts[1])
    })

    test('SVIDs that the apiserver refuses, each for its reason', async () => {
      const brief = await svidOf('brief')
      expect(await refusedBecause(await svidOf('web', 'other-api'))).toContain('audience')
      const svid = await svidOf('web')
      const [header, payload = '', signature = ''] = svid.split('.')
      const claims = JSON.parse(Buffer.from(payload, 'base64url').toString())
      const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
      expect(await refusedBecause([header, encode({ ...claims, sub: 'system:admin' }), signature].join('.'))).toContain(
        'signature',
      )
      expect(
        await refusedBecause([header, encode({ ...claims, iss: 'https://other.example.org' }), signature].join('.')),
      ).not.toBe('')
      if (rendering.includes('service-account'))
        expect(await refusedBecause(await svidOf('batch'))).toContain('username')
      else expect(await whoami(await svidOf('batch'))).toMatchObject({ username: 'spiffe://example.org/batch' })
      // Thirty seconds is the shortest life there is, and kube-apiserver grants no more.
      await expect.poll(() => whoami(brief).catch(() => 'refused'), { timeout: 60_000, interval: 2000 }).toBe('refused')
      expect(apiserver.log()).toContain('token is expired')
    })
  },
)

/** A token with other claims or another key, signed as the cluster would sign it. */
function resign(token: string, key: ServiceAccountKey, changes: object): string {
  const [header = '', payload = ''] = token.split('.')
  const claims = { ...JSON.parse(Buffer.from(payload, 'base64url').toString()), ...changes }
  const input = `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  const signature = createSign('sha256')
    .update(input)
    .sign({ key: createPrivateKey(key.pem), dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}
