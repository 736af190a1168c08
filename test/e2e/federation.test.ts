/** Another trust domain, and the built worker in plain workerd, which fetches its bundle by itself. */

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cli, Folder, type Outcome } from '../support/cli.ts'
import { exchange } from '../support/exchange.ts'
import {
  jwtEntry,
  makeAuthority,
  makeCertificate,
  signJwtSvid,
  spireBundle,
  type TestAuthority,
  x509Entry,
} from '../support/foreign_bundle.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { manifest, registration } from '../support/policy.ts'

const folder = new Folder()
const keyFile = `${folder.path}/alice.key`
let authority: TestAuthority
let bundle: string
let endpoint: Server
let issuer: string
let worker: PlainWorkerd

const run = (argv: readonly string[], stdin?: string): Promise<Outcome> =>
  cli([...argv, '--issuer', issuer, '--key-file', keyFile], stdin === undefined ? {} : { stdin })

/** @returns why a workload of the other trust domain gets nothing, or its SPIFFE ID here */
async function outcome(): Promise<unknown> {
  const now = Math.floor(Date.now() / 1000)
  const claims = { sub: 'spiffe://peer.example/ns/shop/sa/web', aud: issuer, iat: now, exp: now + 300 }
  const { body } = await exchange(issuer, await signJwtSvid(authority, claims))
  return body.reason ?? JSON.parse(atob(String(body.access_token?.split('.')[1]))).sub
}

beforeAll(async () => {
  authority = await makeAuthority('one')
  bundle = spireBundle([x509Entry(authority, await makeCertificate(authority)), jwtEntry(authority)], 7)
  endpoint = createServer((_, response) => response.end(bundle)).listen(0, '127.0.0.1')
  await once(endpoint, 'listening')
  const port = await freePort()
  issuer = `http://127.0.0.1:${port}`
  const { stdout } = await run(['admin', 'create', '--name', 'alice'])
  worker = await startPlainWorkerd({
    ...{ entry: 'development', port, manifest: stdout },
    env: { MODE: 'development', ISSUER: issuer, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:one' },
  })
})
afterAll(async () => {
  await worker.stop()
  endpoint.close()
  folder.remove()
})

test('T-6: a workload of a trust domain that has been applied gets its SVID, once the bundle has been fetched', async () => {
  const peer = {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'FederatedTrustDomain',
    metadata: { name: 'peer' },
    spec: {
      trustDomain: 'peer.example',
      bundleEndpointURL: `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/`,
      bundleEndpointProfile: { type: 'https_web' },
    },
  }
  const web = registration('web', {
    clusters: undefined,
    selector: undefined,
    federated: { spiffeID: 'spiffe://peer.example/ns/*/sa/web' },
    spiffeID: 'spiffe://example.org/peer/web',
  })
  expect(await outcome()).toBe('token_issuer')
  expect(await run(['apply', '-f', '-'], manifest(peer, web))).toMatchObject({ code: 0, stderr: '' })
  await expect.poll(outcome).toBe('spiffe://example.org/peer/web')
  await expect
    .poll(() => worker.log)
    .toContainEqual({
      ...{ event: 'federation_bundle_fetched', trust_domain: 'peer.example', failure: null, sequence: 7 },
    })
})

test('its status shows what is known, and BU-4: an empty bundle that is fetched now ends it', async () => {
  expect((await run(['federation', 'status'])).stdout).toMatch(/^peer\.example +1 JWT, 1 X\.509 +7 /m)
  bundle = spireBundle([], 8)
  expect(await run(['federation', 'refresh', '--trust-domain', 'peer.example'])).toMatchObject({ code: 0 })
  expect(await outcome()).toBe('token_key')
  bundle = spireBundle([jwtEntry(authority)], 6)
  expect(await run(['federation', 'refresh', '--trust-domain', 'peer.example'])).toMatchObject({
    ...{ code: 1, stderr: 'not fetched: sequence_fell. What was known stays\n' },
  })
  const brought = ['federation', 'set', '--trust-domain', 'peer.example', '--bundle', folder.write(bundle)]
  expect(await run(brought)).toMatchObject({ code: 0 })
  expect(await outcome()).toBe('spiffe://example.org/peer/web')
})

test('FE-13: who is deleted is believed no more', async () => {
  expect(await run(['delete', 'registration', 'web'])).toMatchObject({ code: 0 })
  expect(await run(['delete', 'federatedtrustdomain', 'peer'])).toMatchObject({ code: 0 })
  expect(await outcome()).toBe('token_issuer')
  expect((await run(['federation', 'status'])).stdout).toBe('no other trust domain is believed\n')
})
