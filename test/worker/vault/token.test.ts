import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseTokenSecret, SHARDS, TokenSecret } from '../../../worker/vault/token.ts'

const octets = (byte: number) => new Uint8Array(32).fill(byte)

let secret: TokenSecret
let other: TokenSecret
beforeAll(async () => {
  ;[secret, other] = await Promise.all([TokenSecret.import([octets(1)]), TokenSecret.import([octets(2)])])
})

describe('T-23: a service token', () => {
  test('is found where it was put, and by nobody else’s secret', async () => {
    const { token, place } = await secret.make()
    expect(await secret.read(token)).toEqual({ type: 'service', place })
    expect(await other.read(token)).toBeNull()
  })

  test('says nothing of the hash that it is stored under', async () => {
    const { token, accessor, place } = await secret.make()
    for (const text of [token, accessor]) expect(text).not.toContain(place.hash.slice(0, 12))
    const behind = await TokenSecret.import([octets(2), octets(1)])
    expect(await behind.read(token)).toEqual({ type: 'service', place })
  })

  test('its accessor is found in the same part', async () => {
    for (let count = 0; count < 20; count++) {
      const { accessor, place } = await secret.make()
      expect(TokenSecret.placeOf(accessor)).toEqual({ shard: place.shard, accessor })
    }
  })

  test('goes to every part, and no two are alike', async () => {
    const made = await Promise.all(Array.from({ length: 2000 }, () => secret.make()))
    expect(new Set(made.map(({ place }) => place.shard)).size).toBe(SHARDS)
    expect(new Set(made.map(({ token }) => token)).size).toBe(2000)
    expect(new Set(made.map(({ accessor }) => accessor)).size).toBe(2000)
  })

  test('in no other spelling, and nothing else is one', async () => {
    const { token } = await secret.make()
    for (const text of [
      `${token}=`,
      ` ${token}`,
      token.toUpperCase(),
      token.replace('hvs.', 's.'),
      token.replace('.', '..'),
    ])
      expect(await secret.read(text)).toBeNull()
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        expect(await secret.read(text)).toBeNull()
        expect(await secret.read(`hvs.${text}`)).toBeNull()
        expect(await secret.read(`hvb.${text}`)).toBeNull()
      }),
    )
  })
})

test.each(['', 'x', 'AQ', `${'A'.repeat(24)}`, `Az${'A'.repeat(22)}`, 'AQpHWrWjadb1jg1HV1cI5Fx='])(
  '%j is no accessor',
  (text) => {
    expect(TokenSecret.placeOf(text)).toBeNull()
  },
)

describe('what is sealed', () => {
  test('opens for its purpose and no other', async () => {
    const sealed = await secret.seal('reviewer', 'of kubernetes')
    expect(await secret.open(sealed, 'of kubernetes')).toBe('reviewer')
    expect(await secret.open(sealed, 'of other')).toBeNull()
    expect(await other.open(sealed, 'of kubernetes')).toBeNull()
    expect(await secret.seal('reviewer', 'of kubernetes')).not.toBe(sealed)
  })

  test('a sealed secret is no batch token, and a batch token no secret', async () => {
    const sealed = await secret.seal('{"expiresAt":9999999999}', 'x')
    expect(await secret.read(`hvb.${sealed.slice(3)}`)).toBeNull()
    expect(await secret.open(`v1.${(await secret.makeBatch({})).slice(4)}`, 'x')).toBeNull()
  })

  test('any other octet opens nothing', async () => {
    const token = await secret.makeBatch({ mount: 'kubernetes' })
    const bytes = Uint8Array.fromBase64(token.slice(4), { alphabet: 'base64url' })
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, by) => {
        const forged = bytes.slice()
        forged[at] = (forged[at] ?? 0) ^ by
        expect(await secret.read(`hvb.${forged.toBase64({ alphabet: 'base64url', omitPadding: true })}`)).toBeNull()
      }),
    )
  })
})

test('an entity is one for an alias of a mount, and another for every other', async () => {
  const id = await secret.entityId('auth_kubernetes_1', 'a/b')
  expect(await secret.entityId('auth_kubernetes_1', 'a/b')).toBe(id)
  const others = [
    await secret.entityId('auth_kubernetes_2', 'a/b'),
    await secret.entityId('auth_kubernetes_1', 'a/c'),
    await secret.entityId('auth_kubernetes_1a', '/b'),
    await other.entityId('auth_kubernetes_1', 'a/b'),
  ]
  expect(new Set([id, ...others]).size).toBe(5)
})

test.each<[string, boolean]>([
  [octets(1).toBase64(), true],
  [octets(250).toBase64({ alphabet: 'base64url', omitPadding: true }), true],
  [octets(250).toBase64(), true],
  [new Uint8Array(31).toBase64(), false],
  [new Uint8Array(33).toBase64(), false],
  [`${octets(1).toBase64()}=`, false],
  ['', false],
  [`${'A'.repeat(42)}B`, false],
])('a secret: %s is one: %s', (text, is) => {
  expect(parseTokenSecret(text) !== null).toBe(is)
})
