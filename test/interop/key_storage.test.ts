/**
 * What a copy of the storage gives away. The deployed build with wrapped keys is taken through the whole life of its keys,
 * and its folder is copied all the while, as a thief or a backup would.
 */

import {
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
} from 'node:crypto'
import { serialize } from 'node:v8'
import { decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { askAsAdmin } from '../support/admin_request.ts'
import { cli, Folder } from '../support/cli.ts'
import { exchange, send } from '../support/exchange.ts'
import { dumpStorage, letTimePass, type StoredRow, storedKeys, storedPhases } from '../support/key_storage.ts'
import { createServiceAccountKey } from '../support/kube_apiserver.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { clusterRecord, podTokenBy, webRegistration } from '../support/pod_token.ts'
import { manifest } from '../support/policy.ts'
import { isIn, privateKeysIn } from '../support/private_keys.ts'

const TRUST_DOMAIN = 'example.org'
const MONTH_SECONDS = 31 * 86_400
/** Twice as long as a key is published for tokens that it has signed. */
const AFTERWARDS_SECONDS = 2 * 3900

test.each([
  ['P-256', generateKeyPairSync('ec', { namedCurve: 'P-256' })],
  ['P-384', generateKeyPairSync('ec', { namedCurve: 'P-384' })],
  ['P-521', generateKeyPairSync('ec', { namedCurve: 'P-521' })],
  ['RSA', generateKeyPairSync('rsa', { modulusLength: 2048 })],
])('the scan finds a key of %s in whatever encoding, and no public one', (kind, { privateKey, publicKey }) => {
  const jwk = privateKey.export({ format: 'jwk' })
  const secret = Buffer.from(jwk.d ?? '', 'base64url')
  const json = JSON.stringify(jwk)
  const forms = [
    ...[
      privateKey.export({ format: 'der', type: 'pkcs8' }),
      privateKey.export({ format: 'der', type: kind === 'RSA' ? 'pkcs1' : 'sec1' }),
    ].flatMap((der) => [
      der,
      ...(['base64', 'base64url', 'hex'] as const).flatMap((encoding) => [
        Buffer.from(der.toString(encoding)),
        Buffer.from(`x${Buffer.concat([Buffer.from('!'), der]).toString(encoding)}`),
        Buffer.from(der.toString(encoding), 'utf16le'),
      ]),
    ]),
    Buffer.from(json),
    Buffer.from(JSON.stringify({ json })),
    Buffer.from(json, 'utf16le'),
    serialize(jwk),
  ]
  const around = (form: Buffer) => Buffer.concat([randomBytes(101), form, randomBytes(100)])
  for (const form of forms)
    expect([privateKeysIn(around(form)).length > 0, isIn(around(form), secret)]).toEqual([true, true])
  expect(privateKeysIn(around(Buffer.from(privateKey.export({ format: 'pem', type: 'pkcs8' }))))).toContain('PEM')

  for (const form of [
    publicKey.export({ format: 'der', type: 'spki' }),
    Buffer.from(JSON.stringify(publicKey.export({ format: 'jwk' }))),
  ])
    for (const text of [form, Buffer.from(form.toString('base64'))])
      expect([privateKeysIn(around(text)), isIn(around(text), secret)]).toEqual([[], false])
})

describe('the storage of a worker', () => {
  const folder = new Folder()
  const clusterKey = createServiceAccountKey('ES256')
  const secret = randomBytes(32)
  let ca: TestCa
  let url: string
  let start: (entry: 'production' | 'development', env: Record<string, string>, state: string) => Promise<PlainWorkerd>

  beforeAll(async () => {
    ca = await createCa()
    const tls = await ca.issue('localhost')
    const port = await freePort()
    url = `https://localhost:${port}`
    const admin = await cli([
      'admin',
      'create',
      '--name',
      'alice',
      '--issuer',
      url,
      '--key-file',
      `${folder.path}/alice.key`,
    ])
    start = (entry, env, state) =>
      startPlainWorkerd({
        entry,
        env: { ISSUER: url, TRUST_DOMAIN, ...env },
        manifest: `${manifest(clusterRecord(clusterKey), webRegistration())}---\n${admin.stdout}`,
        tls,
        port,
        state,
      })
  })
  afterAll(() => folder.remove())

  /** @returns the key that has signed an SVID just now */
  async function signingKid(): Promise<string> {
    const { body } = await exchange(url, podTokenBy(clusterKey), { ca: ca.certificate, audience: 'k8s' })
    return decodeProtectedHeader(body.access_token ?? '').kid ?? ''
  }
  async function published(): Promise<string[]> {
    const { keys } = JSON.parse((await send(`${url}/keys`, { ca: ca.certificate })).text)
    return keys.map(({ kid }: { kid: string }) => kid)
  }

  test('T-12: in development a local key is in it, and the scan finds it', async () => {
    const state = `${folder.path}/development`
    const worker = await start('development', { MODE: 'development', SIGNING_KEY: 'local:one' }, state)
    await signingKid()
    const running = [...dumpStorage(state).values()].flatMap(privateKeysIn)
    await worker.stop()
    const stopped = [...dumpStorage(state).values()].flatMap(privateKeysIn)
    expect([running.length > 0, stopped.length > 0]).toEqual([true, true])
  })

  test('T-16: in production wrapped keys are in it wrapped and never otherwise, through rotation, crash and revocation', async () => {
    const state = `${folder.path}/production`
    const env = { SIGNING_KEY: 'wrapped', WRAPPING_KEY: `aes:${secret.toString('base64')}` }
    const dumps = new Map<string, Buffer>()
    const rows = new Map<string, StoredRow>()
    const dump = () => {
      for (const octets of dumpStorage(state).values())
        dumps.set(createHash('sha256').update(octets).digest('hex'), octets)
    }
    const copying = setInterval(dump, 20)
    const waiting = async () => {
      const next = () => Object.entries(storedPhases(state) ?? {}).find(([, phase]) => phase === 'published')?.[0]
      await expect.poll(next).toBeDefined()
      for (const row of storedKeys(state)) rows.set(row.publicJwk.kid, row)
      return next() ?? ''
    }

    let worker = await start('production', env, state)
    const first = await signingKid()
    const second = await waiting()
    await worker.stop()
    letTimePass(state, MONTH_SECONDS)

    worker = await start('production', env, state)
    expect(await signingKid()).toBe(second)
    const third = await waiting()
    expect(storedPhases(state)).toEqual({ [first]: 'retiring', [second]: 'active', [third]: 'published' })
    await worker.stop('SIGKILL')
    dump()
    letTimePass(state, AFTERWARDS_SECONDS)

    worker = await start('production', env, state)
    expect((await published()).sort()).toEqual([second, third].sort())
    const { status } = await askAsAdmin(url, `${folder.path}/alice.key`, 'keys/revoke', { kid: second }, ca.certificate)
    expect([status, await signingKid()]).toEqual([200, third])
    const fourth = await waiting()
    await worker.stop()
    dump()
    clearInterval(copying)

    // Whoever has the wrapping key as well has the keys: so these are what is looked for.
    const keys = [first, second, third, fourth].map((kid) => unwrap(rows.get(kid) as StoredRow, secret))
    console.log(`${dumps.size} different files in copies of the storage, ${keys.length} keys`)
    for (const octets of dumps.values()) {
      expect(privateKeysIn(octets)).toEqual([])
      expect([secret, ...keys].filter((key) => isIn(octets, key))).toEqual([])
    }
    // The same look finds what is there to be found.
    for (const { wrapped, publicJwk } of rows.values()) {
      const found = [...dumps.values()].filter((octets) => octets.includes(wrapped ?? ''))
      expect([publicJwk.kid, found.length > 0]).toEqual([publicJwk.kid, true])
    }
  })
})

/** @returns the private scalar of a key, which is the one that was published */
function unwrap({ publicJwk, wrapped }: StoredRow, secret: Buffer): Buffer {
  const [, , iv = '', sealed = ''] = wrapped?.split('.') ?? []
  const octets = Buffer.from(sealed, 'base64url')
  const decipher = createDecipheriv('aes-256-gcm', secret, Buffer.from(iv, 'base64url'))
  decipher.setAAD(Buffer.from(JSON.stringify(['spiffe-edge key v1', TRUST_DOMAIN, publicJwk.kid, 'jwt-svid'])))
  decipher.setAuthTag(octets.subarray(-16))
  const der = Buffer.concat([decipher.update(octets.subarray(0, -16)), decipher.final()])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  expect(createPublicKey(key).export({ format: 'jwk' }).x).toBe((publicJwk as unknown as { x: string }).x)
  return Buffer.from(key.export({ format: 'jwk' }).d ?? '', 'base64url')
}
