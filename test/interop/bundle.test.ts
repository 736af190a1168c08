/**
 * Our bundle before its readers: go-spiffe, which fetches and watches it while keys of both kinds are replaced, and the
 * rules that SPIRE reads by, who refuses all of a bundle for one key that it does not know.
 */

import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { importJWK } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exchange, send } from '../support/exchange.ts'
import { startFederationJudge } from '../support/judge.ts'
import { createServiceAccountKey } from '../support/kube_apiserver.ts'
import type { LineProgram } from '../support/lines.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { clusterRecord, podTokenBy, webRegistration } from '../support/pod_token.ts'
import { missing } from '../support/tools.ts'
import { certify } from '../support/workload.ts'

const SPIFFE_ID = 'spiffe://example.org/ns/shop/sa/web'
/** The shortest lives that a registration can give. */
const [TTL, X509_TTL] = [30, 60]
/** A key waits 73 s until it signs, and is there for 41 s after that, or 71 s where it signs certificates. */
const TIMES = {
  ...{ renew: 1, signingLease: 10, longestTtl: TTL, longestX509Ttl: X509_TTL, refreshHint: 5, skew: 1 },
  replaceAfter: 15,
}
/** How long an SVID is shown again and again: less than it lives, by as long as a busy machine may stand still. */
const SHOWN_SECONDS = 20

interface BundleFacts {
  readonly sequence: number
  readonly errors: number
}

describe.skipIf(missing('go'))('the bundle', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-bundle-'))
  const clusterKey = createServiceAccountKey('RS256')
  let ca: TestCa
  let worker: PlainWorkerd
  let url: string
  let judge: LineProgram

  beforeAll(async () => {
    ca = await createCa()
    const caFile = join(folder, 'ca.crt')
    writeFileSync(caFile, ca.certificate)
    const port = await freePort()
    url = `https://localhost:${port}`
    const registration = webRegistration({ ttlSeconds: TTL, x509TtlSeconds: X509_TTL })
    worker = await startPlainWorkerd({
      entry: 'development',
      env: {
        MODE: 'development',
        ISSUER: url,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'wrapped wrapped?alg=RS256',
        CA_KEY: 'wrapped',
        WRAPPING_KEY: `aes:${'A'.repeat(42)}E=`,
        KEY_TIMES: JSON.stringify(TIMES),
      },
      manifest: [clusterRecord(clusterKey), registration].map((object) => JSON.stringify(object)).join('\n---\n'),
      tls: await ca.issue('localhost'),
      port,
    })
    // Whoever asks first waits until the first keys are there.
    await send(`${url}/readyz`, { ca: ca.certificate })
    judge = await startFederationJudge({ url: `${url}/bundle`, caFile }, 'example.org', 'k8s')
  })
  afterAll(async () => {
    await judge?.stop()
    await worker?.stop()
    rmSync(folder, { recursive: true })
  })

  const token = async () => {
    const { status, text, body } = await exchange(url, podTokenBy(clusterKey), { ca: ca.certificate, audience: 'k8s' })
    if (status !== 200) throw new Error(text)
    return body.access_token ?? ''
  }
  const facts = async () => (await judge.ask(['bundle']))[0] as unknown as BundleFacts

  test('FE-4, FE-9: go-spiffe fetches it, and knows its sequence and when to come again', async () => {
    expect(judge.ready.version).toMatch(/^github\.com\/spiffe\/go-spiffe\/v2 v2\./)
    await expect.poll(facts).toMatchObject({ ok: true, refreshHint: 5, watchedHint: 5, x509: expect.any(Number) })
    const { headers } = await send(`${url}/bundle`, { ca: ca.certificate })
    expect(headers['content-type']).toBe('application/json')
  })

  test('what SPIRE reads by: each key has a use that it knows, a kid or exactly one certificate, and nothing is left over', async () => {
    const { text } = await send(`${url}/bundle`, { ca: ca.certificate })
    const bundle = JSON.parse(text)
    expect(Object.keys(bundle)).toEqual(['keys', 'spiffe_sequence', 'spiffe_refresh_hint'])
    expect(bundle.keys.length).toBeGreaterThanOrEqual(3)
    for (const { use, kid, x5c, ...key } of bundle.keys) {
      const members = key.kty === 'EC' ? ['kty', 'crv', 'x', 'y'] : ['kty', 'n', 'e']
      expect(Object.keys(key)).toEqual(members)
      // No padding and nothing but the alphabet of base64url: SPIRE's library decodes strictly.
      for (const member of members.slice(key.kty === 'EC' ? 2 : 1)) expect(key[member]).toMatch(/^[A-Za-z0-9_-]+$/)
      if (use === 'jwt-svid') {
        expect([kid, x5c]).toEqual([expect.stringMatching(/^[A-Za-z0-9_-]{43}$/), undefined])
        await importJWK(key, key.kty === 'EC' ? 'ES256' : 'RS256')
        continue
      }
      expect([use, kid, x5c.length]).toEqual(['x509-svid', undefined, 1])
      const certificate = new X509Certificate(Buffer.from(x5c[0], 'base64'))
      expect(certificate.publicKey.export({ format: 'jwk' })).toEqual(key)
      expect(certificate.verify(certificate.publicKey)).toBe(true)
    }
  })

  test('go-spiffe refuses what another authority has signed', async () => {
    const { certificate } = await (await createCa()).issue('localhost')
    expect(await judge.ask([certificate, (await token()).replace(/[^.]+$/, 'AAAA')])).toMatchObject([
      { ok: false },
      { ok: false },
    ])
  })

  test('FE-10: go-spiffe refuses no SVID while keys of both kinds are replaced, and sees the sequence rise alone', {
    timeout: 400_000,
  }, async () => {
    const shown: { readonly svid: string; readonly from: number }[] = []
    const sequences: number[] = []
    const authorities = new Set<string>()
    const kids = new Set<string>()
    let judged = 0
    const end = Date.now() + 360_000
    // Two keys of each kind have signed, so one has taken the place of another.
    while ((authorities.size < 2 || kids.size < 2) && Date.now() < end) {
      const now = Date.now()
      const [jwt, { answer }] = await Promise.all([
        token(),
        certify(url, podTokenBy(clusterKey), { ca: ca.certificate }),
      ])
      kids.add(JSON.parse(Buffer.from(jwt.split('.')[0] ?? '', 'base64url').toString()).kid)
      authorities.add(new X509Certificate(answer.x509_svid).issuer)
      shown.push({ svid: jwt, from: now }, { svid: answer.x509_svid, from: now })
      while ((shown[0]?.from ?? now) < now - SHOWN_SECONDS * 1000) shown.shift()
      for (const verdict of await judge.ask(shown.map(({ svid }) => svid)))
        expect(verdict).toEqual({ ok: true, spiffe_id: SPIFFE_ID })
      judged += shown.length
      const { sequence, errors } = await facts()
      expect([sequence >= (sequences.at(-1) ?? 0), errors]).toEqual([true, 0])
      sequences.push(sequence)
      await pause(500)
    }
    expect([authorities.size, kids.size]).toEqual([2, 2])
    console.log(`go-spiffe: ${judged} verdicts over ${new Set(sequences).size} bundles, none refused`)
  })
})
