/** T-11: the administrator's private key in a real Secret Service. The admin API behind it is a fake. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type AdminApi, startAdminApi } from '../support/admin_api.ts'
import { inSession, makeHome } from '../support/keyring.ts'
import { missing } from '../support/tools.ts'

describe.skipIf(missing('keyring'))('spiffe-edge and the keyring', () => {
  let api: AdminApi
  let create: string[]
  const home = makeHome()
  beforeAll(async () => {
    api = await startAdminApi()
    create = ['admin', 'create', '--issuer', api.issuer, '--name', 'alice']
  })
  afterAll(async () => {
    await api.stop()
    home.remove()
  })

  test('the key is made, kept, used, not overwritten, and replaced', async () => {
    const get = ['get', '--issuer', api.issuer]
    const [first, used, again, replaced, usedAgain, other] = await inSession(
      'unlocked',
      [create, get, create, [...create, '--replace'], get, ['get', '--issuer', 'http://127.0.0.1:1']],
      home.path,
    )
    expect([first, used, again, replaced, usedAgain, other].map((outcome) => outcome?.code)).toEqual([0, 0, 1, 0, 0, 1])
    expect(again?.stderr).toContain('--replace')
    expect(other?.stderr).toContain(
      'there is no administrator key in the keyring (spiffe-edge, admin@http://127.0.0.1:1)',
    )
    const [one, two] = [first, replaced].map((outcome) => parse(outcome?.stdout ?? '').spec.publicKey)
    expect(one).not.toEqual(two)
  })

  test('a token that the printed public key verifies', async () => {
    // The API takes any bearer until it has been told the key, so the token is judged afterwards.
    const [made] = await inSession(
      'unlocked',
      [
        [...create, '--replace'],
        ['get', '--issuer', api.issuer],
      ],
      home.path,
    )
    const { importJWK, jwtVerify } = await import('jose')
    const key = await importJWK({ ...parse(made?.stdout ?? '').spec.publicKey }, 'ES256')
    const { payload } = await jwtVerify(api.tokens.at(-1) ?? '', key, { audience: `${api.issuer}/admin` })
    expect(payload).toMatchObject({ iss: 'alice', sub: 'alice' })
  })

  test.each(['locked', 'none'] as const)(
    'a keyring that is there, %s: it says what to do, and falls back on nothing',
    async (keyring) => {
      const outcomes = await inSession(
        keyring,
        [create, [...create, '--replace'], ['get', '--issuer', api.issuer]],
        home.path,
      )
      expect(outcomes).toHaveLength(3)
      for (const outcome of outcomes) {
        expect([outcome.code, outcome.stdout]).toEqual([1, ''])
        expect(outcome.stderr).toMatch(/cannot be used[\s\S]*Unlock it[\s\S]*--key-file/)
      }
    },
  )
})
