/** Where secrets are kept, with a keyring that can be made to fail in every way that real ones do. */

import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Keyring, KeyringFailure } from '../../../cli/keyring.ts'
import { type Account, keyringAccount } from '../../../cli/login/account.ts'
import { idOf } from '../../../cli/login/account_id.ts'
import type { Session } from '../../../cli/login/session.ts'
import { type Kept, SessionStore } from '../../../cli/login/session_store.ts'
import { LoginHome } from '../../support/login.ts'
import { findPieceOf } from '../../support/tokens.ts'

const ACCOUNT: Account = {
  issuer: 'https://idp.example.org',
  clientId: 'kubectl',
  token: 'id',
  scope: null,
  parameters: [],
}
const SECRET = 'c2VjcmV0LXRva2VuLW9mLWFsaWNlLTAxMjM0NTY3ODk'
const SESSION: Session = { token: SECRET, expiresAt: 2_000_000_000, subject: 'alice', refreshToken: 'r-1', svids: [] }

/** As a person's is: it keeps, and sometimes does not. */
class FakeKeyring implements Keyring {
  readonly entries = new Map<string, string>()
  /** null works; otherwise how it fails. */
  broken: KeyringFailure['kind'] | null = null
  limit = Number.POSITIVE_INFINITY
  used = 0

  async read(account: string) {
    this.#use()
    return this.entries.get(account) ?? null
  }
  async write(account: string, secret: string) {
    this.#use()
    if (secret.length > this.limit) throw new KeyringFailure('the keyring refuses', 'refused')
    this.entries.set(account, secret)
  }
  async remove(account: string) {
    this.#use()
    return this.entries.delete(account)
  }
  #use() {
    this.used++
    if (this.broken) throw new KeyringFailure('the keyring is locked', this.broken)
  }
}

let home: LoginHome
let keyring: FakeKeyring
const store = (env: Record<string, string | undefined> = home.env()) => new SessionStore(env, keyring)

beforeEach(() => {
  home = new LoginHome()
  keyring = new FakeKeyring()
})
afterEach(() => home.remove())

function onDisk(): string {
  return home
    .files()
    .map(({ text }) => text)
    .join('\n')
}

describe('pains 58 and 59: a login is kept, wherever that can be', () => {
  test('in the keyring, and then nothing secret is on the disk', async () => {
    expect(await store().write(ACCOUNT, SESSION, false)).toEqual({ place: 'keyring', problem: null })
    expect(await store().read(ACCOUNT)).toEqual({ session: SESSION, problem: null })
    expect([...keyring.entries.keys()]).toEqual([keyringAccount(ACCOUNT, idOf(ACCOUNT))])
    expect(findPieceOf(SECRET, onDisk())).toBeNull()
  })

  test.each([
    ['too large for it', 17 * 1024, Number.POSITIVE_INFINITY],
    ['refused by it, which takes a little', 100, 60],
  ])('%s: encrypted in a file, and the key is in the keyring', async (_, length, limit) => {
    keyring.limit = limit
    const large = { ...SESSION, token: `${SECRET}${'x'.repeat(length)}` }
    expect(await store().write(ACCOUNT, large, false)).toEqual({ place: 'sealed:keyring', problem: null })
    expect(await store().read(ACCOUNT)).toEqual({ session: large, problem: null })
    expect(findPieceOf(SECRET, onDisk() + [...keyring.entries.values()])).toBeNull()
    // Small again: nothing of it stays behind.
    keyring.limit = Number.POSITIVE_INFINITY
    expect((await store().write(ACCOUNT, SESSION, false)).place).toBe('keyring')
    expect(home.files().filter(({ path }) => path.endsWith('.sealed'))).toEqual([])
  })

  test.each([
    ['is locked', 'refused'],
    ['is absent', 'absent'],
    ['does not answer', 'silent'],
  ] as const)('the keyring %s: encrypted in a file, and the key ends with the session', async (_, kind) => {
    keyring.broken = kind
    const { place, problem } = await store().write(ACCOUNT, SESSION, false)
    expect([place, problem]).toEqual(['sealed:session', 'the keyring is locked'])
    const used = keyring.used
    expect(await store().read(ACCOUNT)).toEqual({ session: SESSION, problem: null })
    // A keyring that hangs is not asked each time.
    expect(keyring.used).toBe(used)
    for (const { mode } of home.files()) expect(mode).toBe(0o600)
    expect(findPieceOf(SECRET, onDisk())).toBeNull()
    rmSync(join(home.runtime, 'spiffe-edge'), { recursive: true })
    expect((await store().read(ACCOUNT)).session).toBeNull()
  })

  test.each([
    ['there is none', ''],
    ['it is a relative path', 'runtime'],
    ['others may use it', 'OPEN'],
    ['it is a link', 'LINK'],
  ])('no folder of the session, for %s: the key is in a file too, and that is said', async (_, value) => {
    keyring.broken = 'absent'
    const open = join(home.path, 'open')
    mkdirSync(open)
    chmodSync(open, 0o755)
    const link = join(home.path, 'link')
    symlinkSync(home.runtime, link)
    const runtime = value === 'OPEN' ? open : value === 'LINK' ? link : value
    const env = { ...home.env(), XDG_RUNTIME_DIR: runtime }
    expect((await store(env).write(ACCOUNT, SESSION, false)).place).toBe('sealed:file')
    expect((await store(env).read(ACCOUNT)).session).toEqual(SESSION)
    for (const { mode } of home.files()) expect(mode).toBe(0o600)
  })

  test('--keyring-only: what is kept elsewhere is not used, and stays', async () => {
    keyring.broken = 'absent'
    await store().write(ACCOUNT, SESSION, false)
    expect(await store().read(ACCOUNT, true)).toEqual({
      session: null,
      problem: expect.stringContaining('--keyring-only'),
    })
    await expect(store().write(ACCOUNT, { ...SESSION, refreshToken: 'r-2' }, true)).rejects.toThrow(/keyring-only/)
    expect((await store().read(ACCOUNT)).session).toEqual(SESSION)
    keyring.broken = null
    await store().write(ACCOUNT, SESSION, true)
    expect((await store().read(ACCOUNT, true)).session).toEqual(SESSION)
  })

  test('a keyring that does not answer, and takes it all the same: that it may have something is kept in mind', async () => {
    keyring.broken = 'silent'
    await store().write(ACCOUNT, SESSION, false)
    keyring.broken = null
    // By now the person has typed the password that it had asked for.
    const name = keyringAccount(ACCOUNT, idOf(ACCOUNT))
    keyring.entries.set(name, SECRET)
    const [kept] = store().list()
    expect(await store().remove(kept as Kept)).toBeNull()
    expect([...keyring.entries.keys()]).toEqual([])
  })

  test('killed as soon as the keyring has it: it is on the list', async () => {
    const { promise: never } = Promise.withResolvers<void>()
    const written = Promise.withResolvers<void>()
    keyring.write = async (account, secret) => {
      keyring.entries.set(account, secret)
      written.resolve()
      await never
    }
    void store().write(ACCOUNT, SESSION, false)
    await written.promise
    expect(store().list()).toMatchObject([{ account: ACCOUNT, inKeyring: true }])
    expect((await store().read(ACCOUNT)).session).toEqual(SESSION)
  })

  test('a list that is older than the move into the keyring: all of it goes', async () => {
    keyring.broken = 'absent'
    await store().write(ACCOUNT, SESSION, false)
    const [kept] = store().list()
    keyring.broken = null
    await store().write(ACCOUNT, SESSION, false)
    expect(await store().remove(kept as Kept)).toBeNull()
    expect([...keyring.entries.keys()]).toEqual([])
  })

  test('--keyring-only: it fails, and nothing is written', async () => {
    keyring.broken = 'refused'
    await expect(store().write(ACCOUNT, SESSION, true)).rejects.toThrow(/keyring-only/)
    expect(home.files()).toEqual([])
  })

  test('a keyring that was unlocked when it was written, and is locked now: it says so', async () => {
    await store().write(ACCOUNT, SESSION, false)
    keyring.broken = 'refused'
    expect(await store().read(ACCOUNT)).toEqual({ session: null, problem: 'the keyring is locked' })
  })

  test('a folder that others may use is not used', async () => {
    keyring.broken = 'refused'
    mkdirSync(join(home.path, '.local/state/spiffe-edge'), { recursive: true })
    mkdirSync(join(home.path, '.local/state/spiffe-edge/credentials'))
    chmodSync(join(home.path, '.local/state/spiffe-edge/credentials'), 0o755)
    await expect(store().write(ACCOUNT, SESSION, false)).rejects.toThrow(/others may use it/)
    expect(findPieceOf(SECRET, onDisk())).toBeNull()
  })

  test('nobody says where: an error that says what to set', async () => {
    await expect(store({}).read(ACCOUNT)).rejects.toThrow(/set HOME/)
    expect(store({}).list()).toEqual([])
  })
})

describe('what is read back is what was written', () => {
  const sealed = () => home.files().find(({ path }) => path.endsWith('.sealed'))?.path ?? ''

  beforeEach(async () => {
    keyring.broken = 'absent'
    await store().write(ACCOUNT, SESSION, false)
  })

  test.each([
    ['one bit', (bytes: Buffer) => bytes.with(40, (bytes[40] ?? 0) ^ 1)],
    ['the tag', (bytes: Buffer) => bytes.with(20, (bytes[20] ?? 0) ^ 1)],
    ['its end', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['almost all', (bytes: Buffer) => bytes.subarray(0, 10)],
    ['all', () => Buffer.alloc(0)],
  ])('an encrypted file that lacks or has changed %s is none', async (_, change) => {
    const bytes = Buffer.from(readFileSync(sealed(), 'utf8'), 'base64url')
    writeFileSync(sealed(), Buffer.from(change(bytes)).toString('base64url'))
    expect((await store().read(ACCOUNT)).session).toBeNull()
  })

  test('the file of one login does not open as that of another', async () => {
    const other = { ...ACCOUNT, clientId: 'other' }
    await store().write(other, { ...SESSION, token: 'other' }, false)
    const [one, two] = [ACCOUNT, other].map(idOf)
    for (const { path, text } of home.files())
      if (path.includes(one as string) && !path.endsWith('.json'))
        writeFileSync(path.replace(one as string, two as string), text)
    expect((await store().read(other)).session).toBeNull()
  })

  test.each([
    '',
    'null',
    '[]',
    '{"token":1}',
    '{"token":"x","expiresAt":"soon"}',
    '{"token":"x","expiresAt":1,"svids":{}}',
  ])('a keyring with %s in it holds no login', async (text) => {
    keyring.broken = null
    await store().write(ACCOUNT, SESSION, false)
    keyring.entries.set(keyringAccount(ACCOUNT, idOf(ACCOUNT)), text)
    expect(await store().read(ACCOUNT)).toMatchObject({ session: null, problem: expect.stringContaining('not there') })
  })

  test('a list that somebody has written into is as good as none', async () => {
    const path = home.files().find(({ path }) => path.endsWith('.json'))?.path ?? ''
    for (const text of [
      '',
      '{}',
      '{"place":"constructor"}',
      JSON.stringify({ place: 'keyring', account: { issuer: 1 } }),
    ]) {
      writeFileSync(path, text)
      expect(await store().read(ACCOUNT)).toEqual({ session: null, problem: null })
      expect(store().list()).toEqual([])
    }
  })

  test.each([
    ['the provider', { issuer: 'https://other.example.org' }],
    ['the client', { clientId: 'other' }],
    ['the kind of token', { token: 'access' as const }],
    ['the scopes', { scope: ['openid'] }],
    ['a parameter', { parameters: [['audience', 'x']] as const }],
  ])('another login by %s is another', async (_, change) => {
    expect((await store().read({ ...ACCOUNT, ...change })).session).toBeNull()
  })
})

describe('removing', () => {
  test('from everywhere, whatever it was', async () => {
    await store().write(ACCOUNT, { ...SESSION, token: 'x'.repeat(20_000) }, false)
    keyring.broken = 'absent'
    await store().write(ACCOUNT, SESSION, false)
    // The key that it had in the keyring is still there, and that is known.
    const [kept] = store().list()
    expect(kept).toMatchObject({
      place: 'sealed:session',
      inKeyring: true,
      refreshable: true,
      expiresAt: SESSION.expiresAt,
    })
    expect(await store().remove(kept as NonNullable<typeof kept>)).toBe('the keyring is locked')
    expect((await store().read(ACCOUNT)).session).toBeNull()
    // It is still listed, so that it can be tried again.
    keyring.broken = null
    const [again] = store().list()
    expect(await store().remove(again as NonNullable<typeof again>)).toBeNull()
    expect([...keyring.entries, ...home.files(), ...store().list()]).toEqual([])
  })
})
