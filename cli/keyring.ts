/** The keyring of whoever is logged in: Secret Service, Keychain or Credential Manager. */

import { Failure } from './failure.ts'

const SERVICE = 'spiffe-edge'
/** One that asks for a password waits for a person. */
const PERSON_TIMEOUT_MS = 60_000
/** One that works answers within milliseconds; this long, and it has none of it been a person's doing. */
const OPENING_TIMEOUT_MS = 1000

/** By name. Each method throws KeyringFailure. */
export interface Keyring {
  /** @returns null if there is nothing */
  read(account: string): Promise<string | null>
  write(account: string, secret: string): Promise<void>
  /** @returns whether there was something */
  remove(account: string): Promise<boolean>
}

export class KeyringFailure extends Failure {
  /** `refused`: it may take something smaller. `silent`: it was asked, and may still do it. */
  readonly kind: 'absent' | 'refused' | 'silent'

  constructor(message: string, kind: KeyringFailure['kind']) {
    super(message)
    this.kind = kind
  }
}

export const systemKeyring: Keyring = {
  read: (account) => use(account, async (entry, signal) => (await entry.getPassword(signal)) ?? null),
  write: (account, secret) => use(account, (entry, signal) => entry.setPassword(secret, signal)),
  remove: (account) => use(account, (entry, signal) => entry.deletePassword(signal)),
}

type Entry = import('@napi-rs/keyring').AsyncEntry

async function use<T>(account: string, action: (entry: Entry, signal: AbortSignal) => Promise<T>): Promise<T> {
  const unusable = (why: string, kind: KeyringFailure['kind']) => new KeyringFailure(`the keyring ${why}`, kind)
  let entry: Entry
  const started = Date.now()
  try {
    const { AsyncEntry } = await import('./keyring_addon.ts')
    // Said outright: without a Secret Service the library would use the kernel's keyring, which forgets.
    entry = new AsyncEntry(SERVICE, account, { linux: { store: 'secret-service' } })
  } catch {
    const hangs = Date.now() - started > OPENING_TIMEOUT_MS
    throw unusable(
      hangs ? 'does not answer' : 'cannot be used: there is none in this session, or it is locked',
      'absent',
    )
  }
  if (Date.now() - started > OPENING_TIMEOUT_MS) throw unusable('does not answer', 'absent')
  const timeout = new AbortController()
  let timer: NodeJS.Timeout | undefined
  try {
    return await Promise.race([
      action(entry, timeout.signal),
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(unusable('does not answer', 'silent')), PERSON_TIMEOUT_MS)
      }),
    ])
  } catch (error) {
    if (error instanceof KeyringFailure) throw error
    throw unusable('cannot be used: it is locked, or refuses', 'refused')
  } finally {
    clearTimeout(timer)
    timeout.abort()
  }
}
