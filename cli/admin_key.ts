/**
 * An administrator's key pair and the tokens that are signed with it (T-11). The public half goes into the deployed
 * manifest; the private half stays in the keyring of the operating system, or in a file if that is asked for.
 */

import { randomUUID } from 'node:crypto'
import { rename, rm, writeFile } from 'node:fs/promises'
import { calculateJwkThumbprint } from 'jose'
import { signCompact } from '../keys/jws.ts'
import { generateLocalKey, localSigner } from '../keys/local.ts'
import { parseJsonObject } from '../worker/strict_json.ts'
import { Failure } from './failure.ts'
import { describe, readSecretFile } from './input_file.ts'
import { KeyringFailure, systemKeyring } from './keyring.ts'
import { printable } from './terminal.ts'

/** Half of what the server allows (T-11): a token is made for each command. */
const TOKEN_LIFETIME_SECONDS = 300

/** As it is stored. It signs for one issuer and under one name only. */
export interface AdminKey {
  readonly issuer: string
  readonly name: string
  /** The private JWK. */
  readonly key: JsonWebKey
}

/** What an Admin object of the manifest holds. */
export interface AdminPublicKey {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly x: string
  readonly y: string
}

/** Where a private key is kept. */
export interface KeyStore {
  /** For messages. */
  readonly place: string
  /**
   * @returns null if there is nothing
   * @throws Failure
   */
  read(): Promise<string | null>
  /**
   * @param replace whether something that is there may be lost
   * @throws Failure
   */
  write(secret: string, replace: boolean): Promise<void>
}

export async function makeAdminKey(
  issuer: string,
  name: string,
): Promise<{ stored: AdminKey; publicKey: AdminPublicKey }> {
  const { privateJwk } = await generateLocalKey('ES256')
  const { kty, crv, x, y, d } = privateJwk
  return { stored: { issuer, name, key: { kty, crv, x, y, d } as JsonWebKey }, publicKey: publicHalf(privateJwk) }
}

/**
 * @param now seconds since the epoch
 * @returns a token that is good at the issuer's admin API and nowhere else, for five minutes
 * @throws Failure if the key is not one
 */
export async function signAdminToken({ issuer, name, key }: AdminKey, now: number): Promise<string> {
  const publicKey = publicHalf(key)
  const kid = await calculateJwkThumbprint(publicKey)
  const claims = {
    iss: name,
    sub: name,
    aud: `${issuer}/admin`,
    iat: now,
    exp: now + TOKEN_LIFETIME_SECONDS,
    jti: randomUUID(),
  }
  try {
    const signer = await localSigner({ ...publicKey, use: 'sig', alg: 'ES256', kid }, key)
    return await signCompact({ alg: 'ES256', kid, typ: 'JWT' }, claims, signer)
  } catch {
    throw new Failure('the administrator key is damaged: its two halves do not belong together')
  }
}

/**
 * @returns the stored key of this issuer
 * @throws Failure if there is none, or it is another issuer's
 */
export async function readAdminKey(store: KeyStore, issuer: string): Promise<AdminKey> {
  const secret = await store.read()
  if (secret === null)
    throw new Failure(
      `there is no administrator key in ${store.place}. Do: spiffe-edge admin create --issuer ${issuer} --name <you>`,
    )
  let stored: Record<string, unknown>
  try {
    stored = parseJsonObject(secret)
  } catch {
    // The parser's own message would repeat some of the text.
    throw new Failure(`${store.place} does not hold an administrator key`)
  }
  const { name, key } = stored
  if (typeof name !== 'string' || typeof key !== 'object' || key === null)
    throw new Failure(`${store.place} does not hold an administrator key`)
  if (stored.issuer !== issuer) throw new Failure(`the administrator key in ${store.place} is for another issuer`)
  return { issuer, name, key }
}

function publicHalf({ kty, crv, x, y }: JsonWebKey): AdminPublicKey {
  if (kty !== 'EC' || crv !== 'P-256' || typeof x !== 'string' || typeof y !== 'string')
    throw new Failure('the administrator key is damaged: it is no P-256 key')
  return { kty, crv, x, y }
}

/** A file that only its owner can read. */
export function keyFile(path: string): KeyStore {
  const place = printable(path)
  return {
    place,
    read: () => readSecretFile(path),
    async write(secret, replace) {
      // `wx` is O_EXCL: neither a file nor a link that somebody has put there is written to.
      const target = replace ? `${path}.${randomUUID()}` : path
      try {
        await writeFile(target, `${secret}\n`, { flag: 'wx', mode: 0o600 })
        if (replace) await rename(target, path)
      } catch (error) {
        const taken = (error as NodeJS.ErrnoException).code === 'EEXIST'
        if (replace) await rm(target, { force: true })
        throw new Failure(
          taken
            ? `${place} is there already. With --replace it is overwritten, and the key in it is lost`
            : `${place}: ${describe(error)}`,
        )
      }
    },
  }
}

/** In the keyring of whoever is logged in. */
export function keyring(issuer: string): KeyStore {
  const account = `admin@${issuer}`
  const place = `the keyring (spiffe-edge, ${account})`
  async function use<T>(action: Promise<T>): Promise<T> {
    try {
      return await action
    } catch (error) {
      if (!(error instanceof KeyringFailure)) throw error
      throw new Failure(
        `${place} cannot be used: there is none in this session, or it is locked.\n` +
          `Unlock it, or keep the key in a file with --key-file, or use an identity provider's token with --token-file.`,
      )
    }
  }
  return {
    place,
    read: () => use(systemKeyring.read(account)),
    async write(secret, replace) {
      if (!replace && (await this.read()) !== null)
        throw new Failure(`there is a key in ${place} already. With --replace it is overwritten, and lost`)
      await use(systemKeyring.write(account, secret))
    },
  }
}
