/**
 * The deployed build, signing with keys in KMS: what a real kube-apiserver, go-spiffe and go-oidc make of the SVIDs, and
 * what is left of the service when KMS is not itself.
 */

import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { exchange, send } from '../support/exchange.ts'
import { startFederationJudge, startOidcJudge, startSpiffeJudge } from '../support/judge.ts'
import { forge } from '../support/jwt_forge.ts'
import { type KmsEmulator, startKmsEmulator } from '../support/kms_emulator.ts'
import { type KmsProxy, type KmsProxyMode, startKmsProxy } from '../support/kms_proxy.ts'
import {
  createServiceAccountKey,
  type KubeApiserver,
  SERVICE_ACCOUNT_ISSUER,
  startKubeApiserver,
} from '../support/kube_apiserver.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { type StsProxy, type StsProxyMode, startStsProxy } from '../support/sts_proxy.ts'
import { missing } from '../support/tools.ts'
import { certify } from '../support/workload.ts'

const SPIFFE_ID = 'spiffe://example.org/ns/shop/sa/web'

describe.skipIf(missing('go') || missing('python'))('signing with KMS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-kms-'))
  const clusterKey = createServiceAccountKey('RS256')
  let ca: TestCa
  let kms: KmsEmulator
  let proxy: KmsProxy
  let sts: StsProxy
  let ecKey: string
  let rsaKey: string

  beforeAll(async () => {
    ca = await createCa()
    writeFileSync(join(folder, 'ca.crt'), ca.certificate)
    kms = await startKmsEmulator()
    proxy = await startKmsProxy(kms.endpoint, await ca.issue('127.0.0.1'))
    sts = await startStsProxy(kms.endpoint, await ca.issue('127.0.0.1'))
    ecKey = await kms.createKey('ECC_NIST_P256')
    rsaKey = await kms.createKey('RSA_2048')
    await kms.setAlias('alias/spiffe-edge-jwt', ecKey)
  })
  afterAll(async () => {
    await proxy?.stop()
    await sts?.stop()
    await kms?.stop()
    rmSync(folder, { recursive: true })
  })
  beforeEach(() => {
    proxy.mode = 'pass'
    sts.mode = 'pass'
  })

  function manifest(): string {
    const registration = (name: string, alg: string) => ({
      apiVersion: 'kubespiffe.io/v1alpha1',
      kind: 'WorkloadRegistration',
      metadata: { name },
      spec: {
        clusters: ['real'],
        selector: { namespace: 'shop', serviceAccountName: name },
        spiffeID: SPIFFE_ID.replace('web', '{serviceAccountName}'),
        audiences: ['k8s'],
        alg,
      },
    })
    const cluster = {
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'real' },
      spec: {
        issuer: SERVICE_ACCOUNT_ISSUER,
        jwks: { inline: { keys: [clusterKey.jwk] } },
        apiServer: { certificateAuthority: ca.certificate },
      },
    }
    return [cluster, registration('web', 'ES256'), registration('legacy', 'RS256')]
      .map((object) => `---\n${JSON.stringify(object)}\n`)
      .join('')
  }

  interface Issuer {
    readonly url: string
    readonly worker: PlainWorkerd
    /** A pod's token, made with the cluster's key as the cluster makes it. */
    trade(serviceAccount: string): ReturnType<typeof exchange>
    read(path: string): ReturnType<typeof send>
  }

  /** @param identity folder with the web identity that is used instead of an access key */
  async function during(
    signingKey: string,
    run: (issuer: Issuer) => Promise<void>,
    state?: string,
    identity?: string,
    more: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const port = await freePort()
    const url = state === undefined ? `https://localhost:${port}` : 'https://issuer.example.org'
    const worker = await startPlainWorkerd({
      entry: 'production',
      env: {
        ISSUER: url,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: signingKey,
        ...more,
        AWS_REGION: kms.region,
        AWS_ENDPOINT_URL_KMS: proxy.endpoint,
        ...(identity === undefined
          ? {
              AWS_ACCESS_KEY_ID: kms.credentials.accessKeyId,
              AWS_SECRET_ACCESS_KEY: kms.credentials.secretAccessKey,
            }
          : {
              // Of the account that the keys are in: the emulator keeps accounts apart.
              AWS_ROLE_ARN: `arn:aws:iam::${ecKey.split(':')[4]}:role/issuer`,
              AWS_WEB_IDENTITY_TOKEN_FILE: 'token',
              AWS_ENDPOINT_URL_STS: sts.endpoint,
            }),
      },
      disks: identity === undefined ? {} : { AWS_WEB_IDENTITY: identity },
      manifest: manifest(),
      tls: await ca.issue('localhost', '127.0.0.1'),
      trusted: ca.certificate,
      port,
      ...(state !== undefined && { state }),
    })
    const local = `https://localhost:${port}`
    try {
      await run({
        url,
        worker,
        trade: (serviceAccount) => exchange(local, podToken(serviceAccount), { ca: ca.certificate, audience: 'k8s' }),
        read: (path) => send(local + path, { ca: ca.certificate }),
      })
    } finally {
      await worker.stop()
    }
    // T-15: whatever happened, neither an ARN nor a key id nor a credential has been written down.
    for (const secret of ['arn:aws', ecKey.split('/')[1], rsaKey.split('/')[1], 'alias/'])
      expect(JSON.stringify(worker.log)).not.toContain(secret)
  }

  function podToken(serviceAccount: string): string {
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: SERVICE_ACCOUNT_ISSUER,
      sub: `system:serviceaccount:shop:${serviceAccount}`,
      aud: ['spiffe-edge'],
      exp: now + 600,
      iat: now,
      nbf: now,
      'kubernetes.io': {
        namespace: 'shop',
        serviceaccount: { name: serviceAccount, uid: '1' },
        pod: { name: 'p', uid: '2' },
      },
    }
    const key = { alg: 'RS256', kid: String(clusterKey.jwk.kid), privateKey: clusterKey.privateKey }
    return forge(key, { alg: 'RS256', kid: key.kid }, claims)
  }
  const header = (svid: string) => JSON.parse(Buffer.from(svid.split('.')[0] ?? '', 'base64url').toString())

  test('ES256 and RS256 SVIDs are accepted by kube-apiserver, go-spiffe and go-oidc', async () => {
    await during(`awskms:alias/spiffe-edge-jwt awskms:${rsaKey}`, async ({ url, trade, read }) => {
      const svids: string[] = []
      for (const [name, alg] of [
        ['web', 'ES256'],
        ['legacy', 'RS256'],
      ] as const) {
        const { status, body } = await trade(name)
        expect([status, body.reason, header(body.access_token as string).alg]).toEqual([200, undefined, alg])
        svids.push(body.access_token as string)
      }
      const discovery = JSON.parse((await read('/.well-known/openid-configuration')).text)
      expect(discovery.id_token_signing_alg_values_supported).toEqual(['ES256', 'RS256'])

      const party = { url, caFile: join(folder, 'ca.crt') }
      const spiffe = await startSpiffeJudge(party, 'example.org', 'k8s')
      const oidc = await startOidcJudge(party, 'k8s')
      const ids = svids.map((_, index) => SPIFFE_ID.replace('web', ['web', 'legacy'][index] as string))
      expect(await spiffe.ask(svids)).toMatchObject(ids.map((id) => ({ ok: true, id })))
      expect(await oidc.ask(svids)).toMatchObject(ids.map((subject) => ({ ok: true, subject })))
      await spiffe.stop()
      await oidc.stop()

      const file = await read('/structured-auth.yaml')
      const apiserver: KubeApiserver = await startKubeApiserver(file.text, clusterKey)
      try {
        for (const [index, svid] of svids.entries()) {
          const review = JSON.parse(await apiserver.kubectlAs(svid, ['auth', 'whoami', '-o', 'json']))
          expect(review.status.userInfo).toMatchObject({ username: ids[index], groups: ['system:authenticated'] })
        }
      } finally {
        await apiserver.stop()
      }
    })
  })

  test.each([
    ['ECC_NIST_P384', '', 'ES384'],
    ['ECC_NIST_P521', '', 'ES512'],
    ['RSA_2048', '?alg=PS256', 'PS256'],
    ['RSA_3072', '?alg=RS384', 'RS384'],
    ['RSA_4096', '?alg=PS512', 'PS512'],
  ])('KM-3: a %s key%s signs %s', async (spec, suffix, alg) => {
    const key = await kms.createKey(spec)
    await during(`awskms:${key}${suffix}`, async ({ read, worker }) => {
      const { keys } = JSON.parse((await read('/keys')).text)
      expect(keys).toMatchObject([{ alg, use: 'sig' }])
      expect((await read('/readyz')).status).toBe(200)
      expect(worker.log).toEqual([])
    })
  })

  test.each(['ECC_NIST_P256', 'ECC_NIST_P384', 'RSA_2048'])(
    'T-22: a CA key in KMS, of %s, signs X.509-SVIDs that go-spiffe takes, by the bundle that is served',
    async (spec) => {
      const variables = { CA_KEY: `awskms:${await kms.createKey(spec)}` }
      await during(
        'awskms:alias/spiffe-edge-jwt',
        async ({ url }) => {
          const { answer } = await certify(url, podToken('web'), { ca: ca.certificate })
          const party = { url: `${url}/bundle`, caFile: join(folder, 'ca.crt') }
          const spiffe = await startFederationJudge(party, 'example.org', 'k8s')
          expect(await spiffe.ask([answer.x509_svid])).toEqual([{ ok: true, spiffe_id: SPIFFE_ID }])
          await spiffe.stop()
        },
        undefined,
        undefined,
        variables,
      )
    },
  )

  const TROUBLES: readonly [string, KmsProxyMode, string][] = [
    ['throttles', 'throttle', 'throttled'],
    ['fails inside', 'fail', 'unavailable'],
    ['hangs', 'hang', 'unavailable'],
    ['hangs in the middle of its answer', 'hang_body', 'unavailable'],
    ['hangs up', 'close', 'unavailable'],
    ['says that another key has signed', 'lie_about_key', 'wrong_signature'],
  ]
  test.each(TROUBLES)(
    '12.11: while KMS %s, tokens are 503, documents are served, and it recovers by itself',
    async (_, mode, detail) => {
      await during('awskms:alias/spiffe-edge-jwt', async ({ trade, read, worker }) => {
        expect((await trade('web')).status).toBe(200)
        const jwks = (await read('/keys')).text
        proxy.mode = mode
        const { status, headers, body, text } = await trade('web')
        expect([status, body.error, body.reason]).toEqual([503, 'temporarily_unavailable', 'signing_unavailable'])
        expect(headers['retry-after']).toMatch(/^[1-9]\d*$/)
        expect(text).not.toMatch(/arn|alias|kms/i)
        await expect
          .poll(() => worker.log.at(-1))
          .toMatchObject({ decision: 'refused', reason: 'signing_unavailable', detail })
        expect((await read('/keys')).text).toBe(jwks)
        expect((await read('/.well-known/openid-configuration')).status).toBe(200)
        proxy.mode = 'pass'
        expect((await trade('web')).status).toBe(200)
      })
    },
  )

  test('T-15, 12.11: a signature by another key than the pinned one never leaves', async () => {
    const other = await kms.createKey('ECC_NIST_P256')
    await during('awskms:alias/spiffe-edge-jwt', async ({ trade, worker }) => {
      expect((await trade('web')).status).toBe(200)
      proxy.mode = { signWith: other }
      expect(await trade('web')).toMatchObject({ status: 503 })
      await expect.poll(() => worker.log.at(-1)).toMatchObject({ detail: 'wrong_signature' })
    })
  })

  test('12.11: a key that is disabled or pending deletion signs no more, no other takes its place, and it stays published', async () => {
    const state = join(folder, 'disabled')
    const key = await kms.createKey('ECC_NIST_P256')
    const list = `awskms:${key} awskms:alias/spiffe-edge-jwt`
    const stopped = async ({ trade, read, worker }: Issuer) => {
      expect(await trade('web')).toMatchObject({ status: 503, body: { reason: 'signing_unavailable' } })
      await expect.poll(() => worker.log.at(-1)).toMatchObject({ detail: 'key_unusable' })
      expect(JSON.parse((await read('/keys')).text).keys).toHaveLength(2)
    }
    await during(
      list,
      async (issuer) => {
        expect((await issuer.trade('web')).status).toBe(200)
        await kms.disableKey(key)
        await stopped(issuer)
      },
      state,
    )
    // Documents are made of what was pinned, so a restart without the key changes nothing.
    await during(list, stopped, state)
    await kms.scheduleDeletion(key)
    await during(list, stopped, state)
  })

  test('KMS is gone when the worker starts anew: documents are served from state', async () => {
    const state = join(folder, 'gone')
    let jwks = ''
    await during(
      'awskms:alias/spiffe-edge-jwt',
      async ({ read }) => {
        jwks = (await read('/keys')).text
      },
      state,
    )
    proxy.mode = 'close'
    await during(
      'awskms:alias/spiffe-edge-jwt',
      async ({ trade, read }) => {
        expect(await read('/keys')).toMatchObject({ status: 200, text: jwks })
        expect((await trade('web')).status).toBe(503)
        proxy.mode = 'pass'
        expect((await trade('web')).status).toBe(200)
      },
      state,
    )
  })

  test('KMS is gone when the worker starts for the first time: 503 until it is back', async () => {
    proxy.mode = 'close'
    await during('awskms:alias/spiffe-edge-jwt', async ({ read }) => {
      const { status, headers } = await read('/keys')
      expect([status, headers['retry-after']]).toEqual([503, '5'])
      expect((await read('/readyz')).status).toBe(503)
      proxy.mode = 'pass'
      await expect.poll(async () => (await read('/keys')).status).toBe(200)
    })
  })

  test('12.11: an alias that has been moved stops signing, and what is published stays', async () => {
    const state = join(folder, 'alias')
    await kms.setAlias('alias/moving', ecKey)
    let jwks = ''
    await during(
      'awskms:alias/moving',
      async ({ read, trade }) => {
        jwks = (await read('/keys')).text
        expect((await trade('web')).status).toBe(200)
      },
      state,
    )
    await kms.setAlias('alias/moving', await kms.createKey('ECC_NIST_P256'))
    // KMS is asked in the background, so that nothing waits for it. What it said is remembered.
    const asked = () => proxy.operations.filter((operation) => operation === 'GetPublicKey').length
    const before = asked()
    await during(
      'awskms:alias/moving',
      async ({ read, trade }) => {
        expect((await read('/keys')).text).toBe(jwks)
        await expect.poll(asked).toBeGreaterThan(before)
        // A signature of the pinned key, or none any more: by then the answer to the question before has arrived.
        await trade('web')
      },
      state,
    )
    await during(
      'awskms:alias/moving',
      async ({ read, trade, worker }) => {
        expect((await trade('web')).status).toBe(503)
        expect((await read('/keys')).text).toBe(jwks)
        await expect
          .poll(() => worker.log)
          .toContainEqual(expect.objectContaining({ event: 'signing_key_failed', reason: 'key_mismatch' }))
      },
      state,
    )
  })

  test.each([
    ['of usage ENCRYPT_DECRYPT', 'RSA_2048', 'ENCRYPT_DECRYPT', ''],
    ['on a curve that is not NIST’s', 'ECC_SECG_P256K1', 'SIGN_VERIFY', ''],
    ['that does not make the configured algorithm', 'ECC_NIST_P384', 'SIGN_VERIFY', '?alg=ES256'],
    ['of the other kind', 'RSA_2048', 'SIGN_VERIFY', '?alg=ES256'],
  ])('12.11: a key %s is never published', async (_, spec, usage, suffix) => {
    const key = await kms.createKey(spec, usage)
    await during(`awskms:${key}${suffix}`, async ({ read, worker }) => {
      expect((await read('/keys')).status).toBe(503)
      await expect
        .poll(() => worker.log)
        .toContainEqual({
          event: 'signing_key_failed',
          variable: 'SIGNING_KEY',
          entry: 1,
          reason: 'key_mismatch',
        })
    })
  })

  /** As a kubelet does it: the file is a link into a folder that is replaced as a whole. */
  function project(identity: string, token: string): void {
    sts.token = token
    const version = `..${token.length}-${Date.now()}`
    mkdirSync(join(identity, version), { recursive: true })
    writeFileSync(join(identity, version, 'token'), token)
    symlinkSync(version, join(identity, '..data_tmp'))
    renameSync(join(identity, '..data_tmp'), join(identity, '..data'))
    rmSync(join(identity, 'token'), { force: true })
    symlinkSync('..data/token', join(identity, 'token'))
  }
  const TOKENS = ['e30.e30.first', 'e30.e30.the-second'] as const

  test('T-16: a web identity is read from its disk whenever there is need of a session, and all of KMS is asked with that', async () => {
    const identity = join(folder, 'rotating')
    project(identity, TOKENS[0])
    const [before, given] = [proxy.callers.length, sts.accessKeyIds.length]
    await during(
      'awskms:alias/spiffe-edge-jwt',
      async ({ trade, worker }) => {
        expect((await trade('web')).status).toBe(200)
        project(identity, TOKENS[1])
        const first = sts.accessKeyIds.slice(given)
        proxy.mode = 'deny'
        expect((await trade('web')).status).toBe(503)
        await expect.poll(() => worker.log.at(-1)).toMatchObject({ reason: 'signing_unavailable', detail: 'denied' })
        proxy.mode = 'pass'
        // AWS has refused the session there is. Another one is asked for soon, with the token of now.
        await expect
          .poll(async () => {
            expect((await trade('web')).status).toBe(200)
            return first.includes(proxy.callers.at(-1) as string)
          })
          .toBe(false)
        expect(sts.accessKeyIds).toContain(proxy.callers.at(-1))
        expect(new Set(proxy.callers.slice(before)).isSubsetOf(new Set(sts.accessKeyIds.slice(given)))).toBe(true)
        for (const secret of [...TOKENS, ...sts.accessKeyIds]) expect(JSON.stringify(worker.log)).not.toContain(secret)
      },
      undefined,
      identity,
    )
  })

  const STS_TROUBLES: readonly [string, StsProxyMode | 'other token' | 'no token', string][] = [
    ['STS fails inside', 'fail', 'unavailable'],
    ['STS hangs', 'hang', 'unavailable'],
    ['STS says something else', 'lie', 'unavailable'],
    ['STS does not believe the token', 'other token', 'denied'],
    ['there is no token', 'no token', 'unavailable'],
  ]
  test.each(STS_TROUBLES)(
    'T-16, 12.11: while %s, tokens are 503, documents are served, and it recovers by itself',
    async (_, trouble, detail) => {
      const identity = join(folder, `identity-${trouble}`)
      const state = join(folder, `state-${trouble}`)
      project(identity, TOKENS[0])
      let jwks = ''
      await during(
        'awskms:alias/spiffe-edge-jwt',
        async ({ read }) => {
          jwks = (await read('/keys')).text
        },
        state,
        identity,
      )
      // The next process has no session yet.
      if (trouble === 'no token') rmSync(join(identity, 'token'))
      else if (trouble === 'other token') sts.token = TOKENS[1]
      else sts.mode = trouble
      await during(
        'awskms:alias/spiffe-edge-jwt',
        async ({ trade, read, worker }) => {
          const { status, text } = await trade('web')
          expect(status).toBe(503)
          expect(text).not.toMatch(/arn:|alias|sts|eyJ/i)
          await expect.poll(() => worker.log.at(-1)).toMatchObject({ reason: 'signing_unavailable', detail })
          expect(await read('/keys')).toMatchObject({ status: 200, text: jwks })
          expect((await read('/.well-known/openid-configuration')).status).toBe(200)
          sts.mode = 'pass'
          project(identity, TOKENS[1])
          await expect.poll(async () => (await trade('web')).status).toBe(200)
          for (const secret of TOKENS) expect(JSON.stringify(worker.log)).not.toContain(secret)
        },
        state,
        identity,
      )
    },
  )

  test('T-15: one key under two names is one key, and the second name is refused', async () => {
    await during(`awskms:${ecKey} awskms:alias/spiffe-edge-jwt`, async ({ read, trade, worker }) => {
      expect(JSON.parse((await read('/keys')).text).keys).toHaveLength(1)
      expect((await trade('web')).status).toBe(200)
      await expect
        .poll(() => worker.log)
        .toContainEqual({
          event: 'signing_key_failed',
          variable: 'SIGNING_KEY',
          entry: 2,
          reason: 'key_mismatch',
        })
    })
  })
})
