/** `spiffe-edge federation`: endpoints are real TLS servers, the worker is a fake. */

import '@abraham/reflection'
import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type AdminApi, startAdminApi } from '../../support/admin_api.ts'
import { cli, cliProcess, Folder, type Outcome } from '../../support/cli.ts'
import {
  jwtEntry,
  makeAuthority,
  makeCertificate,
  spireBundle,
  type TestAuthority,
  x509Entry,
} from '../../support/foreign_bundle.ts'
import { createCa } from '../../support/pki.ts'

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRoZS1pZHA'
const SERVER = 'spiffe://peer.example/spire/server'
const now = Math.floor(Date.now() / 1000)

const folder = new Folder()
const tokenFile = folder.write(TOKEN)
let ca: TestAuthority
let root: Uint8Array<ArrayBuffer>
let bundle: string
let bundleFile: string
let api: AdminApi
const servers: Server[] = []

beforeAll(async () => {
  ca = await makeAuthority('ca')
  root = await makeCertificate(ca, { notBefore: now - 3600, notAfter: now + 86_400 })
  bundle = spireBundle([x509Entry(ca, root), jwtEntry(ca)], 7)
  bundleFile = folder.write(bundle)
})
beforeEach(async () => {
  api = await startAdminApi()
})
afterEach(async () => {
  await api.stop()
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})
afterAll(() => folder.remove())

async function run(...argv: readonly string[]): Promise<Outcome> {
  const env = { SPIFFE_EDGE_ISSUER: api.issuer, SPIFFE_EDGE_ADMIN_TOKEN_FILE: tokenFile }
  const outcome = await cli(['federation', ...argv], { env })
  expect(outcome.stderr).not.toContain('internal error')
  return outcome
}

interface Leaf {
  readonly uris?: readonly string[]
  readonly by?: TestAuthority
  readonly certificate?: Uint8Array<ArrayBuffer>
  readonly usages?: number
  readonly critical?: boolean
  readonly isCa?: boolean
  readonly notAfter?: number
}

/** @returns where a server listens that is an X509-SVID, but for what is said */
async function serve(leaf: Leaf, answer: RequestListener = (_, response) => response.end(bundle)): Promise<string> {
  const { uris = [SERVER], by = ca, usages = KeyUsageFlags.digitalSignature, critical = true, isCa = false } = leaf
  const key = await makeAuthority('leaf')
  const certificate = await X509CertificateGenerator.create({
    subject: 'O=SPIRE',
    issuer: new X509Certificate(leaf.certificate ?? root).subject,
    publicKey: key.publicKey,
    signingKey: by.privateKey,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    notBefore: new Date((now - 60) * 1000),
    notAfter: new Date((leaf.notAfter ?? now + 3600) * 1000),
    extensions: [
      new BasicConstraintsExtension(isCa, undefined, true),
      new KeyUsagesExtension(usages, critical),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      ...(uris.length > 0
        ? [new SubjectAlternativeNameExtension(uris.map((value) => ({ type: 'url', value }) as const))]
        : []),
    ],
  })
  const pkcs8 = (await crypto.subtle.exportKey('pkcs8', key.privateKey)) as ArrayBuffer
  return listen(certificate.toString('pem'), PemConverter.encode(pkcs8, 'PRIVATE KEY'), answer)
}

async function listen(cert: string, key: string, answer: RequestListener): Promise<string> {
  const server = createServer({ cert, key }, answer).listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return `https://localhost:${(server.address() as AddressInfo).port}/`
}

const spiffe = (url: string, id = SERVER) =>
  run(
    'fetch',
    ...['--url', url, '--profile', 'https_spiffe', '--trust-domain', 'peer.example'],
    ...['--endpoint-spiffe-id', id, '--bundle', bundleFile],
  )

describe('FE-7: https_spiffe', () => {
  test('an endpoint that is the SPIFFE ID gives its bundle, whatever its name', async () => {
    expect(await spiffe(await serve({}))).toEqual({ code: 0, stdout: `${bundle}\n`, stderr: '' })
  })

  test('--set brings it to the worker', async () => {
    const url = await serve({})
    const { code, stdout, stderr } = await run(
      'fetch',
      ...['--url', url, '--profile', 'https_spiffe', '--trust-domain', 'peer.example', '--set'],
      ...['--endpoint-spiffe-id', SERVER, '--bundle', bundleFile],
    )
    expect([code, stdout, stderr, api.paths]).toEqual([0, '', 'set\n', ['POST /admin/v1/federation/bundle']])
  })

  test.each<[string, () => Promise<Leaf>, RegExp]>([
    [
      'another SPIFFE ID',
      async () => ({ uris: ['spiffe://peer.example/other'] }),
      /is spiffe:\/\/peer\.example\/other, and not/,
    ],
    ['another trust domain', async () => ({ uris: ['spiffe://other.example/spire/server'] }), /trust domain unknown/],
    ['XS-1: two URIs', async () => ({ uris: [SERVER, 'https://peer.example'] }), /several uri sans/],
    ['XS-1: none', async () => ({ uris: [] }), /no uri san/],
    ['XS-2: no path', async () => ({ uris: ['spiffe://peer.example'] }), /no path/],
    [
      'XS-4: a CA',
      async () => ({ isCa: true, usages: KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign }),
      /leaf is ca/,
    ],
    [
      'XS-5: that may sign certificates',
      async () => ({ usages: KeyUsageFlags.digitalSignature | KeyUsageFlags.cRLSign }),
      /leaf signs/,
    ],
    ['XS-5: a key usage that is not critical', async () => ({ critical: false }), /key usage not critical/],
    [
      'XS-9: an authority that is not in the bundle',
      async () => {
        const by = await makeAuthority('other')
        return { by, certificate: await makeCertificate(by, { notBefore: now - 60, notAfter: now + 3600 }) }
      },
      /its certificate is not trusted/,
    ],
    ['a certificate that has expired', async () => ({ notAfter: now - 1 }), /its certificate is not trusted/],
  ])('%s is refused', async (_, leaf, message) => {
    const { code, stdout, stderr } = await spiffe(await serve(await leaf()))
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(message)
  })

  test('FE-8: who is sent on must find the same SPIFFE ID', async () => {
    const other = await serve({ uris: ['spiffe://peer.example/other'] })
    const sent = await serve({}, (_, response) => response.writeHead(302, { location: other }).end())
    expect((await spiffe(sent)).stderr).toMatch(/and not/)
    const good = await serve({})
    const right = await serve({}, (_, response) => response.writeHead(302, { location: good }).end())
    expect((await spiffe(right)).code).toBe(0)
  })

  test('needs a bundle with X.509 authorities, and a SPIFFE ID', async () => {
    const empty = folder.write(spireBundle([jwtEntry(ca)]))
    const args = ['--url', 'https://localhost/', '--profile', 'https_spiffe', '--trust-domain', 'peer.example']
    const id = ['--endpoint-spiffe-id', SERVER]
    expect(await run('fetch', ...args, ...id, '--bundle', empty)).toMatchObject({ code: 1 })
    expect(await run('fetch', ...args, ...id)).toMatchObject({ code: 2 })
    expect(await run('fetch', ...args, '--bundle', bundleFile)).toMatchObject({ code: 2 })
    expect(await run('fetch', ...args, '--endpoint-spiffe-id', 'peer', '--bundle', empty)).toMatchObject({ code: 2 })
  })
})

describe('FE-6: https_web', () => {
  const web = (url: string) => ['federation', 'fetch', '--url', url, '--profile', 'https_web', '--trust-domain', 'p']

  test('an endpoint that is known by its name and a public CA', async () => {
    const pki = await createCa()
    const { certificate, key } = await pki.issue('localhost')
    const url = await listen(certificate, key, (_, response) => response.end(bundle))
    const trusted = await cliProcess(web(url), folder.write(pki.certificate))
    expect(trusted).toMatchObject({ code: 0, stdout: `${bundle}\n` })
    expect(await cli(web(url))).toMatchObject({ code: 1, stderr: expect.stringMatching(/certificate is not trusted/) })
  })

  test('an X509-SVID is no such certificate: there is no falling back', async () => {
    expect(await cli(web(await serve({})))).toMatchObject({ code: 1 })
  })

  test.each([
    ['http', web('http://localhost/')],
    ['userinfo', web('https://a:b@localhost/')],
    [
      'a misspelt profile',
      ['federation', 'fetch', '--url', 'https://localhost/', '--profile', 'web', '--trust-domain', 'p'],
    ],
    ['no profile', ['federation', 'fetch', '--url', 'https://localhost/', '--trust-domain', 'p']],
    ['a SPIFFE ID', [...web('https://localhost/'), '--endpoint-spiffe-id', SERVER]],
    ['no trust domain', ['federation', 'fetch', '--url', 'https://localhost/', '--profile', 'https_web']],
  ])('%s is wrong usage', async (_, argv) => {
    expect((await cli(argv)).code).toBe(2)
  })
})

describe('12.4: an endpoint is refused that', () => {
  test.each<[string, RequestListener, RegExp]>([
    ['answers 404', (_, response) => response.writeHead(404).end(), /answers 404/],
    ['gives HTML', (_, response) => response.end('<html>'), /not an acceptable bundle: not json/],
    ['gives no UTF-8', (_, response) => response.end(Buffer.of(0x22, 0xff)), /no UTF-8/],
    ['gives too much', (_, response) => response.end(Buffer.alloc(1024 * 1024 + 1)), /too large/],
    [
      'sends on to http',
      (_, response) => response.writeHead(302, { location: 'http://localhost/' }).end(),
      /sends us on/,
    ],
    ['sends on to itself', (_, response) => response.writeHead(302, { location: '/' }).end(), /sends us on/],
  ])('%s', async (_, answer, message) => {
    const { code, stderr } = await spiffe(await serve({}, answer))
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
  })
})

describe('the worker', () => {
  const known = {
    ...{ name: 'peer', trustDomain: 'peer.example', bundleEndpointURL: 'https://peer.example/' },
    ...{ bundleEndpointProfile: 'https_web', fetchedAt: 1_795_000_000, succeededAt: 1_794_999_000 },
    ...{ nextAt: 1_795_000_300, failure: 'timeout', keys: { jwt: 1, x509: 2 }, sequence: 7 },
    ...{ refreshHintSeconds: 300, changedAt: 1_794_990_000, breaksAt: 1_794_999_900 },
    change: { added: ['new-\u001b[31mkid'], removed: ['old'] },
  }
  const body = { now: 1_795_000_000, trustDomains: [known] }

  test('pain 37: status shows what is known, what changed, and from when on it may break', async () => {
    api.answer('federation', { status: 200, body })
    const { code, stdout } = await run('status')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^peer\.example +1 JWT, 2 X\.509 +7 +\S+Z +\S+Z +since \S+Z +timeout$/m)
    expect(stdout).toMatch(/^ {2}\+ new-/m)
    expect(stdout).not.toContain('\u001b')
    api.answer('federation', { status: 200, body })
    expect(JSON.parse((await run('status', '--output', 'json')).stdout)).toEqual(body)
    expect((await run('status')).stdout).toBe('no other trust domain is believed\n')
  })

  test('an answer that is none is an error', async () => {
    for (const change of [{ keys: 1 }, { change: {} }, { breaksAt: 'x' }, { sequence: -1 }, { failure: 1 }]) {
      api.answer('federation', { status: 200, body: { ...body, trustDomains: [{ ...known, ...change }] } })
      expect(await run('status')).toMatchObject({ code: 1, stdout: '' })
    }
  })

  test.each([
    [404, { error: 'no_such_trust_domain' }, /apply one first/],
    [409, { error: 'no_endpoint' }, /federation set/],
    [409, { error: 'bundle_not_fetched', code: 'timeout' }, /not fetched: timeout/],
    [422, { error: 'bundle_refused', code: 'private_key' }, /refuses the bundle: private_key/],
  ])('%i %j is said', async (status, answer, message) => {
    api.answer('federation/refresh', { status, body: answer })
    const { code, stderr } = await run('refresh', '--trust-domain', 'peer.example')
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
  })

  test('set judges the file before it is sent', async () => {
    const bad = folder.write('{"keys":[{"k":"x"}]}')
    const { code, stderr } = await run('set', '--trust-domain', 'peer.example', '--bundle', bad)
    expect([code, api.paths]).toEqual([1, []])
    expect(stderr).toMatch(/private key/)
    expect((await run('set', '--trust-domain', 'peer.example', '--bundle', bundleFile)).code).toBe(0)
    expect(api.paths).toEqual(['POST /admin/v1/federation/bundle'])
  })
})
