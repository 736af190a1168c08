/** X.509-SVIDs and bundles by the Workload API: what is served, what is pushed, and what never is. */

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { Code } from '@connectrpc/connect'
import { describe, expect, test } from 'vitest'
import { Refused } from '../../../cli/exchange.ts'
import { Failure } from '../../../cli/failure.ts'
import { NotYet } from '../../../cli/patience.ts'
import type { X509SVIDResponse } from '../../../cli/workload_api/workloadapi_pb.ts'
import { NOW } from '../../support/clock.ts'
import { anotherKey, FakeTrustDomain, WEB } from '../../support/fake_issuer.ts'
import { testAgents } from '../../support/test_agent.ts'
import { HEADERS } from '../../support/workload_api_client.ts'

const current = testAgents()
const down = () => new NotYet('https://issuer.example.org: cannot be reached (ECONNREFUSED)')
const banned = () => new Refused('https://issuer.example.org refuses (400): this workload is banned', 'banned')
const HALF_LIFE_MS = 1_800_000

const watchX509 = () => current().hold<X509SVIDResponse>((options) => current().client.fetchX509SVID({}, options))
const watchBundles = () => current().hold((options) => current().client.fetchX509Bundles({}, options))
const watchJwtBundles = () => current().hold((options) => current().client.fetchJWTBundles({}, options))

/** @returns the code by which the first message is refused */
async function refusedBy(): Promise<Code | null> {
  const held = watchX509()
  await expect.poll(() => held.code !== null || held.messages.length > 0).toBe(true)
  return held.code
}

const leafOf = (message: X509SVIDResponse | undefined) =>
  new X509Certificate(message?.svids[0]?.x509Svid ?? new Uint8Array())

describe('FetchX509SVID', () => {
  test('WA-11, WA-12: gives the SVID, its key and the bundle in DER, the SPIFFE ID as text', async () => {
    const { issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    const [svid] = held.latest?.svids ?? []
    const leaf = leafOf(held.latest)
    expect(svid?.spiffeId).toBe(WEB)
    expect(leaf.subjectAltName).toBe(`URI:${WEB}`)
    expect(
      leaf.checkPrivateKey(
        createPrivateKey({ key: Buffer.from(svid?.x509SvidKey ?? []), format: 'der', type: 'pkcs8' }),
      ),
    ).toBe(true)
    expect(Buffer.from(svid?.bundle ?? [])).toEqual(Buffer.from(issuer.own.x509.certificate))
    expect(leaf.verify(new X509Certificate(svid?.bundle ?? new Uint8Array()).publicKey)).toBe(true)
    expect(held.latest?.federatedBundles).toEqual({})
  })

  test('WA-6: half way to its end comes the next one by itself, with a key of its own', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    clock.advance(HALF_LIFE_MS - 1)
    expect(issuer.count('x509')).toBe(1)
    clock.advance(1)
    await expect.poll(() => held.messages.length).toBe(2)
    const [first, second] = held.messages
    expect(leafOf(first).serialNumber).not.toBe(leafOf(second).serialNumber)
    expect(first?.svids[0]?.x509SvidKey).not.toEqual(second?.svids[0]?.x509SvidKey)
    expect(leafOf(second).validToDate.getTime()).toBe((NOW + 1800 + 3600) * 1000)
  })

  test('is served from memory while the issuer cannot be reached, to the end and no further; then the stream ends with Unavailable', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.interfere = down
    await current().until(() => clock.now() > (NOW + 3570) * 1000, 10_000)
    expect(await refusedBy()).toBeNull()
    expect(held.code).toBeNull()
    await current().until(() => held.code !== null, 5000)
    expect(held.code).toBe(Code.Unavailable)
    expect(await refusedBy()).toBe(Code.Unavailable)
    issuer.interfere = () => undefined
    await current().until(() => issuer.calls.at(-1) === 'x509' && current().events.at(-1)?.event === 'x509_svid_issued')
    expect(await refusedBy()).toBeNull()
  })

  test('what has expired while the machine slept is not served', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.interfere = down
    clock.leap(3600_000)
    const late = watchX509()
    await current().until(() => late.code !== null)
    expect([late.code, late.messages.length]).toEqual([Code.Unavailable, 0])
    await current().until(() => held.code !== null)
    expect(held.code).toBe(Code.Unavailable)
  })

  test('T-26: who is banned is served no more, and is told PermissionDenied', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.interfere = banned
    clock.advance(HALF_LIFE_MS)
    await expect.poll(() => held.code).toBe(Code.PermissionDenied)
    expect(await refusedBy()).toBe(Code.PermissionDenied)
  })

  test('a token that the kubelet is late to replace takes nothing back that is good', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.interfere = () => new Refused('refuses (400): the subject token has expired', 'token_expired')
    clock.advance(HALF_LIFE_MS)
    await expect.poll(() => current().events.at(-1)).toMatchObject({ still_served: true })
    expect(held.code).toBeNull()
    expect(await refusedBy()).toBeNull()
  })

  test('an authority that is taken back takes its SVIDs along: the bundle comes at once, and then another SVID', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    await issuer.own.replaceAuthorities()
    clock.advance(75_000)
    const authority = issuer.own.x509.certificate
    await expect.poll(() => Buffer.from(held.latest?.svids[0]?.bundle ?? []).equals(Buffer.from(authority))).toBe(true)
    await expect.poll(() => leafOf(held.latest).verify(new X509Certificate(authority).publicKey)).toBe(true)
    expect(issuer.count('x509')).toBe(2)
  })

  test('an SVID of an authority that is newer than the bundle brings the bundle forward', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    const asked = issuer.count('bundles')
    issuer.interfere = async (call) => {
      if (call === 'x509') await issuer.own.replaceAuthorities()
    }
    // Not in step with the looks that are made anyway.
    clock.advance(HALF_LIFE_MS)
    await expect.poll(() => issuer.count('x509')).toBe(2)
    await expect
      .poll(() => leafOf(held.latest).verify(new X509Certificate(issuer.own.x509.certificate).publicKey))
      .toBe(true)
    expect(issuer.count('bundles')).toBeGreaterThan(asked)
  })

  test('WA-8: several identities come in the order of --spiffe-id, each hint once and none that is too long', async () => {
    const ids = ['a', 'b', 'c', 'd'].map((name) => `spiffe://example.org/${name}`)
    const hints = ['one', 'one', 'x'.repeat(1025), 'two']
    const { issuer } = current()
    issuer.lieAboutX509 = (svid) => ({ ...svid, hint: hints[ids.indexOf(svid.spiffeId)] ?? null })
    await current().start(...ids)
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    expect(held.latest?.svids.map(({ spiffeId, hint }) => [spiffeId, hint])).toEqual([
      [ids[0], 'one'],
      [ids[1], ''],
      [ids[2], ''],
      [ids[3], 'two'],
    ])
  })

  test('WA-8: one of several that cannot be had now is not left out: the next one would be the default', async () => {
    const [a, b] = ['spiffe://example.org/a', 'spiffe://example.org/b'] as const
    const { issuer, clock } = current()
    let up = false
    issuer.lieAboutX509 = (svid) => {
      if (svid.spiffeId === a && !up) throw down()
      return svid
    }
    await current().start(a, b)
    expect(await refusedBy()).toBe(Code.Unavailable)
    up = true
    await current().until(() => current().events.filter(({ event }) => event === 'x509_svid_issued').length === 2)
    const held = watchX509()
    await expect.poll(() => held.latest?.svids.map(({ spiffeId }) => spiffeId)).toEqual([a, b])
    // Nor when it is over, and the issuer is away for it alone.
    up = false
    await current().until(() => clock.now() >= (NOW + 3700) * 1000, 15_000)
    await expect.poll(() => held.code).toBe(Code.Unavailable)
    expect(held.latest?.svids.map(({ spiffeId }) => spiffeId)).toEqual([a, b])
  })

  test('what the workload can have is otherwise: the next SVID comes at the next look', async () => {
    const { clock, issuer } = await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.terms = 'two'
    clock.advance(75_000)
    await expect.poll(() => held.messages.length).toBe(2)
    expect(issuer.count('x509')).toBe(2)
  })

  test('one that begins within 30 s by this clock is taken, since others may be ahead of it', async () => {
    const { issuer, clock } = current()
    let aheadSeconds = 31
    issuer.lieAboutX509 = async (svid, publicKey) => {
      const begin = Math.floor(clock.now() / 1000) + aheadSeconds
      return { ...svid, chain: [await issuer.own.certificate(WEB, publicKey, begin, begin + 3600)] }
    }
    await current().start()
    expect(await refusedBy()).toBe(Code.Unavailable)
    aheadSeconds = 30
    await current().until(() => current().events.some(({ event }) => event === 'x509_svid_issued'))
    expect(await refusedBy()).toBeNull()
  })

  test('one of several that is refused keeps nobody from the others', async () => {
    const [a, b] = ['spiffe://example.org/a', 'spiffe://example.org/b'] as const
    const { issuer } = current()
    issuer.lieAboutX509 = (svid) => {
      if (svid.spiffeId === a) throw new Refused('refuses (400)', 'spiffe_id_not_allowed')
      return svid
    }
    await current().start(a, b)
    const held = watchX509()
    await expect.poll(() => held.latest?.svids.map(({ spiffeId }) => spiffeId)).toEqual([b])
  })
})

describe('at the start', () => {
  test('who calls before the issuer has answered waits for that', async () => {
    const { issuer, clock } = current()
    let answer = () => {}
    issuer.interfere = () =>
      new Promise<void>((resolve) => {
        answer = resolve
      })
    await current().start()
    const held = watchX509()
    await expect.poll(() => issuer.count('bundles')).toBe(1)
    clock.advance(4000)
    expect(held.code).toBeNull()
    issuer.interfere = () => undefined
    answer()
    await expect.poll(() => held.messages.length).toBe(1)
  })

  test('WA-5: but not longer than 5 s, and is then told Unavailable', async () => {
    const { issuer, clock } = current()
    issuer.interfere = () => new Promise(() => {})
    await current().start()
    const [x509, bundles, jwtBundles] = [watchX509(), watchBundles(), watchJwtBundles()]
    await current().until(() => x509.code !== null && bundles.code !== null && jwtBundles.code !== null)
    expect([x509.code, bundles.code, jwtBundles.code]).toEqual(Array(3).fill(Code.Unavailable))
    expect(clock.now()).toBeGreaterThanOrEqual(NOW * 1000 + 5000)
  })

  test.each([
    ['Unavailable where the issuer cannot be reached', down, Code.Unavailable],
    [
      'Unavailable where there is no token',
      () => new Failure('/var/run/token: there is no such file'),
      Code.Unavailable,
    ],
    ['PermissionDenied where the issuer refuses', banned, Code.PermissionDenied],
  ] as const)('WA-5: %s, also for bundles', async (_, problem, code) => {
    current().issuer.interfere = problem
    await current().start()
    expect(await refusedBy()).toBe(code)
    for (const held of [watchBundles(), watchJwtBundles()]) await expect.poll(() => held.code).toBe(code)
  })

  test('a back-off of up to 30 s, and the issuer is there: all is well, without anybody doing anything', async () => {
    const { issuer, clock } = current()
    issuer.interfere = down
    await current().start()
    await expect.poll(() => issuer.count('bundles')).toBe(1)
    await current().until(() => clock.now() > (NOW + 600) * 1000)
    // Not a storm, and not for ever.
    expect(issuer.count('bundles')).toBeGreaterThan(15)
    expect(issuer.count('bundles')).toBeLessThan(45)
    expect(issuer.count('x509')).toBe(0)
    issuer.interfere = () => undefined
    await current().until(() => current().events.some(({ event }) => event === 'x509_svid_issued'))
    expect(await refusedBy()).toBeNull()
  })

  test('Retry-After is heeded, and does not switch anything off', async () => {
    const { issuer, clock } = current()
    issuer.interfere = () => new NotYet('busy', 86_400_000)
    await current().start()
    await expect.poll(() => issuer.count('bundles')).toBe(1)
    clock.advance(299_000)
    expect(issuer.count('bundles')).toBe(1)
    await current().until(() => issuer.count('bundles') === 2)
    expect(clock.now()).toBeLessThan((NOW + 330) * 1000)
  })
})

describe('12.3: an issuer that lies gets nothing served: a certificate', () => {
  test.each<[string, (agent: ReturnType<typeof current>) => void, RegExp]>([
    [
      'for another key',
      ({ issuer }) => {
        issuer.lieAboutX509 = async (svid) => ({
          ...svid,
          chain: [await issuer.own.certificate(WEB, await anotherKey(), NOW - 10, NOW + 3600)],
        })
      },
      /another key/,
    ],
    [
      'of another trust domain',
      ({ issuer }) => {
        issuer.lieAboutX509 = async (svid, publicKey) => {
          const peer = await FakeTrustDomain.create('peer.example')
          issuer.federated.set('peer.example', peer)
          const spiffeId = 'spiffe://peer.example/web'
          return { ...svid, spiffeId, chain: [await peer.certificate(spiffeId, publicKey, NOW - 10, NOW + 3600)] }
        }
      },
      /trust domain unknown/,
    ],
    [
      'of an authority that is not in the bundle',
      ({ issuer }) => {
        issuer.lieAboutX509 = async (svid, publicKey) => {
          const impostor = await FakeTrustDomain.create('example.org')
          return { ...svid, chain: [await impostor.certificate(WEB, publicKey, NOW - 10, NOW + 3600)] }
        }
      },
      /issuer unknown/,
    ],
    [
      'that has expired',
      ({ issuer }) => {
        issuer.lieAboutX509 = async (svid, publicKey) => ({
          ...svid,
          chain: [await issuer.own.certificate(WEB, publicKey, NOW - 3600, NOW - 1)],
        })
      },
      /expired/,
    ],
    [
      'for another SPIFFE ID than it says',
      ({ issuer }) => {
        issuer.lieAboutX509 = (svid) => ({ ...svid, spiffeId: 'spiffe://example.org/other' })
      },
      /another SPIFFE ID/,
    ],
    [
      'that is none',
      ({ issuer }) => {
        issuer.lieAboutX509 = (svid) => ({ ...svid, chain: [Uint8Array.of(1, 2, 3)] })
      },
      /malformed/,
    ],
    [
      'that is not there',
      ({ issuer }) => {
        issuer.lieAboutX509 = (svid) => ({ ...svid, chain: [] })
      },
      /chain empty/,
    ],
  ])('%s', async (_, lie, detail) => {
    lie(current())
    await current().start()
    expect(await refusedBy()).toBe(Code.Unavailable)
    expect(current().events.find(({ event }) => event === 'x509_svid_failed')?.detail).toMatch(detail)
  })

  test('for another SPIFFE ID than the one that was asked for', async () => {
    const { issuer } = current()
    issuer.lieAboutX509 = async (svid, publicKey) => ({
      ...svid,
      spiffeId: WEB,
      chain: [await issuer.own.certificate(WEB, publicKey, NOW - 10, NOW + 3600)],
    })
    await current().start('spiffe://example.org/other')
    expect(await refusedBy()).toBe(Code.Unavailable)
  })
})

describe('bundles', () => {
  const namesOf = (message: unknown) => Object.keys((message as { bundles: object })?.bundles ?? {}).sort()

  test('12.5, WA-6: of other trust domains come and go, each where it is wanted, and nothing is kept that is gone', async () => {
    const { clock, issuer } = await current().start()
    const [x509, bundles, jwtBundles] = [watchX509(), watchBundles(), watchJwtBundles()]
    await expect.poll(() => [x509, bundles, jwtBundles].map(({ messages }) => messages.length)).toEqual([1, 1, 1])
    const peer = await FakeTrustDomain.create('peer.example')
    issuer.federated.set('peer.example', peer)
    clock.advance(75_000)
    await expect
      .poll(() => [namesOf(bundles.latest), namesOf(jwtBundles.latest)])
      .toEqual(Array(2).fill(['spiffe://example.org', 'spiffe://peer.example']))
    await expect
      .poll(() => Buffer.from(x509.latest?.federatedBundles['spiffe://peer.example'] ?? []))
      .toEqual(Buffer.from(peer.x509.certificate))
    issuer.federated.clear()
    clock.advance(75_000)
    await expect.poll(() => x509.latest?.federatedBundles).toEqual({})
    await expect
      .poll(() => [namesOf(bundles.latest), namesOf(jwtBundles.latest)])
      .toEqual(Array(2).fill(['spiffe://example.org']))
    expect(x509.messages).toHaveLength(3)
    expect(issuer.count('x509')).toBe(1)
  })

  test('nothing is pushed where nothing has changed', async () => {
    const { clock, issuer } = await current().start()
    const held = [watchX509(), watchBundles(), watchJwtBundles()]
    await expect.poll(() => held.map(({ messages }) => messages.length)).toEqual([1, 1, 1])
    await current().until(() => issuer.count('bundles') === 5)
    expect(clock.now()).toBeGreaterThanOrEqual((NOW + 300) * 1000)
    expect(held.map(({ messages }) => messages.length)).toEqual([1, 1, 1])
  })

  test('WA-10: of JWTs have JWT authorities alone, each with its kid and use', async () => {
    const { issuer } = await current().start()
    const held = watchJwtBundles()
    await expect.poll(() => held.messages.length).toBe(1)
    const [jwks] = Object.values((held.latest as { bundles: Record<string, Uint8Array> }).bundles)
    const { kty, crv, x, y, kid } = issuer.own.jwt.publicJwk as Record<string, string>
    expect(JSON.parse(Buffer.from(jwks ?? []).toString())).toEqual({ keys: [{ kty, crv, x, y, kid, use: 'jwt-svid' }] })
  })

  test('FE-9: are looked for four times within their refresh hint, within bounds', async () => {
    const { clock, issuer } = current()
    issuer.own.hint = 1
    await current().start()
    await expect.poll(() => issuer.count('bundles')).toBe(1)
    clock.advance(29_000)
    expect(issuer.count('bundles')).toBe(1)
    issuer.own.hint = 86_400
    await current().until(() => issuer.count('bundles') === 2)
    clock.advance(299_000)
    expect(issuer.count('bundles')).toBe(2)
    await current().until(() => issuer.count('bundles') === 3)
  })

  test('FE-11: that are older than what is known change nothing', async () => {
    const { clock, issuer } = current()
    issuer.own.sequence = 7
    await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    await issuer.own.replaceAuthorities()
    issuer.own.sequence = 6
    clock.advance(75_000)
    await expect.poll(() => issuer.count('bundles')).toBe(2)
    await expect
      .poll(() => current().events.at(-1))
      .toMatchObject({ event: 'bundle_held_back', spiffe_sequence: 6, newest: 7 })
    expect(held.messages).toHaveLength(1)
  })

  test('FE-11: of another trust domain are what the issuer says, also where the sequence falls: an operator may have set them', async () => {
    const { clock, issuer } = current()
    const peer = await FakeTrustDomain.create('peer.example')
    peer.sequence = 50
    issuer.federated.set('peer.example', peer)
    await current().start()
    const held = watchX509()
    await expect.poll(() => held.messages.length).toBe(1)
    await peer.replaceAuthorities()
    peer.sequence = 3
    clock.advance(75_000)
    await expect
      .poll(() => Buffer.from(held.latest?.federatedBundles['spiffe://peer.example'] ?? []))
      .toEqual(Buffer.from(peer.x509.certificate))
  })

  test.each<[string, (map: Parameters<ReturnType<typeof current>['issuer']['lieAboutBundles']>[0]) => typeof map]>([
    ['that leave out our own', (map) => ({ ...map, bundles: new Map() })],
    ['of a trust domain that is none', (map) => ({ ...map, trustDomain: 'Example.ORG' })],
    ['whose own is broken', (map) => ({ ...map, bundles: new Map([['example.org', '{}']]) })],
  ])('%s are refused, and what was known stays', async (_, lie) => {
    const { clock, issuer } = await current().start()
    const held = watchBundles()
    await expect.poll(() => held.messages.length).toBe(1)
    issuer.lieAboutBundles = lie
    clock.advance(75_000)
    await expect.poll(() => current().events.at(-1)?.event).toBe('bundles_failed')
    expect(held.messages).toHaveLength(1)
    expect(held.code).toBeNull()
  })

  test('T-1: the trust domain that was ours stays ours, or is that of --spiffe-id', async () => {
    const { issuer } = current()
    await current().start('spiffe://other.example/web')
    expect(await refusedBy()).toBe(Code.Unavailable)
    expect(current().events.find(({ event }) => event === 'bundles_failed')?.detail).toMatch(/another trust domain/)
    expect(issuer.count('x509')).toBe(0)
  })

  test('one of another trust domain that cannot be read is left out, and the rest is served', async () => {
    const { issuer } = current()
    issuer.lieAboutBundles = (map) => ({ ...map, bundles: new Map([...map.bundles, ['peer.example', '{"keys":1}']]) })
    await current().start()
    const held = watchBundles()
    await expect.poll(() => namesOf(held.latest)).toEqual(['spiffe://example.org'])
    expect(current().events).toContainEqual(expect.objectContaining({ event: 'bundle_refused' }))
  })
})

test('nothing secret is in the log', async () => {
  const { clock } = await current().start()
  const held = watchX509()
  await expect.poll(() => held.messages.length).toBe(1)
  const { svids } = await current().client.fetchJWTSVID({ audience: ['k8s'] }, { headers: HEADERS })
  clock.advance(HALF_LIFE_MS)
  await expect.poll(() => held.messages.length).toBe(2)
  const log = current().lines.join('\n')
  for (const { svids } of held.messages) {
    const key = Buffer.from(svids[0]?.x509SvidKey ?? [])
    expect(log).not.toContain(key.toString('base64').slice(0, 40))
    expect(log).not.toContain(key.toString('hex').slice(0, 40))
  }
  for (const part of svids[0]?.svid.split('.') ?? []) expect(log).not.toContain(part)
})
