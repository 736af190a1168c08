import { evictDurableObject, runInDurableObject } from 'cloudflare:test'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { KEY_TIMES, rotationTimes } from '../../../worker/key_times.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { SpiffeId } from '../../../worker/spiffe/id.ts'
import { signX509Svid } from '../../../worker/spiffe/x509_svid.ts'
import { KeyRing } from '../../../worker/state/key_ring.ts'
import type { OurReading } from '../../../worker/state/key_state.ts'
import { KmsStub, troubles } from '../../support/kms_stub.ts'
import { Background, LogBook } from '../issuer.ts'
import { KeyWorld, STAMP } from '../key_world.ts'

const DAY = 86_400
const SECRET = { keeper: 'secret', secret: `${'A'.repeat(42)}E` } as const
const { replaceAfter, publishBefore, publishAfter } = rotationTimes(KEY_TIMES, 'x509-svid')

let kms: KmsStub
beforeEach(() => {
  kms = new KmsStub()
  vi.stubGlobal('fetch', kms.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

const world = (...authorities: readonly string[]) =>
  new KeyWorld(['local:a'], { authorities, wrapping: [SECRET], kms: kms.access })

const authoritiesOf = ({ keys }: OurReading) => keys.filter(({ use }) => use === 'x509-svid')
const kids = (reading: OurReading) => authoritiesOf(reading).map(({ publicJwk }) => publicJwk.kid)
const signing = (reading: OurReading) => authoritiesOf(reading).find(({ phase }) => phase === 'active')?.publicJwk.kid

function ring({ settings, stub, clock }: KeyWorld): KeyRing {
  if (!settings) throw new TypeError('not configured')
  const { waitUntil } = new Background()
  return new KeyRing({ settings, keyState: () => stub, now: clock.now, waitUntil, log: new LogBook().log })
}

async function documents(keys: KeyWorld) {
  const { jwks, bundle } = await ring(keys).published()
  const read = ({ body }: { body: Uint8Array }) => JSON.parse(new TextDecoder().decode(body))
  return { jwks: read(jwks), bundle: read(bundle) }
}

const refusal = async (answer: Promise<unknown>) => {
  const error = await answer.then(
    () => null,
    (reason: unknown) => reason,
  )
  return error instanceof Refusal ? [error.reason, error.detail] : error
}

async function sign(keys: KeyWorld, isolate = ring(keys)): Promise<void> {
  const authority = await isolate.x509Authority()
  const pair = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
    'sign',
  ])) as CryptoKeyPair
  await signX509Svid(
    {
      spiffeId: SpiffeId.parse('spiffe://example.org/web'),
      dnsNames: [],
      publicKey: (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer,
      notBefore: keys.clock.now() - 10,
      notAfter: keys.clock.now() + 3600,
    },
    authority,
  )
}

describe('what signs certificates', () => {
  test.each(['local:ca', 'wrapped', 'awskms', 'local:ca?alg=ES384', 'local:ca?alg=RS256'])(
    '%s signs one for itself, is in the bundle, and signs SVIDs',
    async (reference) => {
      const keys = world(reference)
      await keys.read()
      await keys.pass(30)
      await sign(keys)
      const [authority] = authoritiesOf(await keys.read())
      const { bundle } = await documents(keys)
      expect(bundle.keys.filter(({ use }: { use: string }) => use === 'x509-svid')[0].x5c).toEqual([
        authority?.certificate,
      ])
    },
  )

  test('BU-9, D2: is none of what signs tokens, and is not in the JWKS', async () => {
    const keys = new KeyWorld(['local:a'], { authorities: ['local:a'] })
    const reading = await keys.read()
    const [kid = ''] = kids(reading)
    expect(reading.keys).toHaveLength(2)
    const { jwks, bundle } = await documents(keys)
    expect(jwks.keys.map((key: { kid: string }) => key.kid)).not.toContain(kid)
    expect(jwks.keys).toHaveLength(1)
    expect(bundle.keys).toHaveLength(2)
  })

  test('T-15, BU-9: one key of KMS that both lists name signs tokens only', async () => {
    kms.setAlias('alias/both', await kms.createKey('ECC_NIST_P256'))
    const keys = new KeyWorld(['awskms:alias/both'], { authorities: ['awskms:alias/both'], kms: kms.access })
    const reading = await keys.read()
    expect(reading.keys.map(({ use }) => use)).toEqual(['jwt-svid'])
    expect(reading.problems).toEqual([{ use: 'x509-svid', entry: 1, reason: 'key_mismatch' }])
    expect(await refusal(ring(keys).x509Authority())).toEqual(['signing_unavailable', 'key_mismatch'])
  })

  test('nothing, where none is listed: tokens and documents are as ever', async () => {
    const keys = world()
    await keys.read()
    expect(await refusal(ring(keys).x509Authority())).toEqual(['x509_not_configured', 'no CA_KEY'])
    expect((await documents(keys)).bundle.keys).toHaveLength(1)
  })

  test('KM-9: one in KMS is asked once for a certificate', async () => {
    kms.setAlias('alias/ca', await kms.createKey('ECC_NIST_P256'))
    const keys = world('awskms:alias/ca')
    await keys.read()
    const isolate = ring(keys)
    await sign(keys, isolate)
    const signatures = () => kms.requests.filter(({ operation }) => operation === 'Sign').length
    const before = signatures()
    for (let count = 0; count < 5; count++) await sign(keys, isolate)
    expect(signatures() - before).toBe(5)
  })

  test('waits for its certificate while its key can not sign', async () => {
    kms.setAlias('alias/ca', await kms.createKey('ECC_NIST_P256'))
    kms.trouble = troubles.failsInside
    const keys = world('awskms:alias/ca')
    const reading = await keys.read()
    expect(kids(reading)).toEqual([])
    expect(reading.problems).toEqual([{ use: 'x509-svid', entry: 1, reason: 'unavailable' }])
    expect(await refusal(ring(keys).x509Authority())).toEqual(['signing_unavailable', 'unavailable'])
    kms.trouble = null
    await keys.pass(60)
    await sign(keys)
  })
})

describe('FE-10: what takes the place of another', () => {
  test('is in the bundle before it signs, and the other as long as it has signed something', async () => {
    const keys = world('wrapped')
    await keys.read()
    await keys.pass(30)
    const first = signing(await keys.read())
    const began = keys.clock.now()
    const [second] = kids(await keys.read()).filter((kid) => kid !== first)
    expect(second).toBeDefined()
    await keys.pass(replaceAfter - 60)
    expect(signing(await keys.read())).toBe(first)
    await keys.pass(120)
    expect(signing(await keys.read())).toBe(second)
    await keys.pass(publishAfter - 300)
    expect(kids(await keys.read())).toContain(first)
    await keys.pass(600)
    expect(kids(await keys.read())).not.toContain(first)
    expect(publishAfter).toBeGreaterThan(DAY)
    expect(keys.clock.now() - began).toBeGreaterThan(publishBefore)
  })

  test('T-8: its certificate outlives everything that it signs, also where its successor is late', async () => {
    const keys = world('wrapped')
    await keys.read()
    for (let turn = 0; turn < 4; turn++) {
      await keys.pass(replaceAfter)
      const { notAfter } = await ring(keys).x509Authority()
      expect(notAfter - keys.clock.now()).toBeGreaterThan(replaceAfter)
    }
  })

  test('a certificate that is over signs nothing', async () => {
    kms.setAlias('alias/ca', await kms.createKey('ECC_NIST_P256'))
    const keys = world('awskms:alias/ca')
    await keys.read()
    expect((await ring(keys).x509Authority()).notAfter).toBe(keys.clock.now() + 3650 * DAY)
    await keys.pass(3650 * DAY)
    expect(await refusal(ring(keys).x509Authority())).toEqual(['signing_unavailable', 'key_unusable'])
  })

  test('by hand: when it is safe, and only what is asked for', async () => {
    const keys = new KeyWorld(['wrapped'], { authorities: ['wrapped'], wrapping: [SECRET] })
    await keys.read()
    await keys.pass(30)
    const before = await keys.read()
    const token = before.keys.find(({ use, phase }) => use === 'jwt-svid' && phase === 'active')?.publicJwk.kid
    expect(await keys.stub.rotate(STAMP, 'x509-svid', null)).toMatchObject({ outcome: 'not_safe_yet' })
    await keys.pass(publishBefore)
    expect(await keys.stub.rotate(STAMP, 'x509-svid', null)).toEqual({ outcome: 'rotated' })
    const after = await keys.read()
    expect(signing(after)).not.toBe(signing(before))
    expect(after.keys.find(({ use, phase }) => use === 'jwt-svid' && phase === 'active')?.publicJwk.kid).toBe(token)
  })

  test('one that is revoked is out of the bundle at once, its successor signs at once, and tokens do not notice', async () => {
    const keys = world('wrapped')
    await keys.read()
    await keys.pass(30)
    const first = signing(await keys.read()) ?? ''
    const { sequence } = await keys.read()
    expect(await keys.stub.revoke(STAMP, first)).toMatchObject({ kid: first, use: 'x509-svid' })
    const reading = await keys.read()
    expect(kids(reading)).not.toContain(first)
    expect(signing(reading)).toBeDefined()
    expect(reading.sequence).toBeGreaterThan(sequence)
    expect(reading.problems).toEqual([])
  })

  test('a list that is taken away ends it, when its last SVID is over', async () => {
    const keys = world('local:ca')
    const [kid] = kids(await keys.read())
    keys.deployAuthorities()
    const reading = await keys.read()
    expect([kids(reading), signing(reading)]).toEqual([[kid], undefined])
    await keys.pass(publishAfter - 1)
    expect(kids(await keys.read())).toEqual([kid])
    await keys.pass(1)
    expect(kids(await keys.read())).toEqual([])
  })
})

describe('BU-2: spiffe_sequence', () => {
  test('rises with every change and stays with every other, across restarts', async () => {
    const keys = world('local:ca')
    const { sequence } = await keys.read()
    expect(sequence).toBe(keys.clock.now())
    await keys.pass(1000)
    expect((await keys.read()).sequence).toBe(sequence)
    await evictDurableObject(keys.stub)
    expect((await keys.read()).sequence).toBe(sequence)
    keys.deployAuthorities('local:ca', 'local:ca?alg=ES384')
    await keys.read()
    await keys.pass(30)
    const next = (await keys.read()).sequence
    expect(next).toBeGreaterThan(sequence)
    expect((await documents(keys)).bundle).toMatchObject({ spiffe_sequence: next, spiffe_refresh_hint: 300 })
  })

  test('rises by one where the clock has been set back', async () => {
    const keys = world('local:ca')
    const { sequence } = await keys.read()
    keys.clock.advance(-5000)
    keys.deploy('local:a', 'local:b?alg=RS256')
    await keys.read()
    await keys.pass(30)
    expect((await keys.read()).sequence).toBe(sequence + 1)
  })
})

test('a storage from before there were authorities goes on with its keys', async () => {
  const keys = world()
  const [before] = (await keys.read()).keys
  await runInDurableObject(keys.stub, (_, { storage }) => {
    storage.sql.exec(`
      drop index one_active;
      alter table signing_keys drop column use;
      alter table signing_keys drop column certificate;
      alter table revoked_keys drop column use;
      drop table bundle;
      create unique index one_active on signing_keys (alg) where phase = 'active';`)
  })
  await evictDurableObject(keys.stub)
  keys.deployAuthorities('local:ca')
  const reading = await keys.read()
  expect(reading.keys.find(({ use }) => use === 'jwt-svid')).toEqual(before)
  await keys.pass(30)
  expect(signing(await keys.read())).toBeDefined()
})

test('T-15: a certificate that is another key’s signs nothing, and tokens go on', async () => {
  const keys = world('local:ca')
  await keys.read()
  await runInDurableObject(keys.stub, (_, { storage }) => {
    storage.sql.exec("update signing_keys set certificate = 'MAA=' where use = 'x509-svid'")
  })
  expect(await refusal(ring(keys).x509Authority())).toEqual(['signing_unavailable', 'key_mismatch'])
  expect((await ring(keys).signer(null)).publicJwk.alg).toBe('ES256')
})
