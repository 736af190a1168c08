/**
 * Tokens as Vault's clients carry them. A service token says nothing but where its entry is, and proves that it was made
 * here, so a forged one costs no look-up; a batch token is its own entry, sealed (T-23).
 *
 * Everything is made of one secret of the platform. With another in its place all tokens are void.
 */

import type { TokenPlace } from '../state/token_store.ts'
import { parseJsonObject } from '../strict_json.ts'

/** How many objects the entries are spread over. It is in every token, so it never changes. */
export const SHARDS = 64

const VERSION = 1
const NONCE_BYTES = 35
const MAC_BYTES = 32
/** Version, shard, nonce and MAC: 92 characters, which scanners for leaked secrets know by their length. */
const SERVICE_BYTES = 2 + NONCE_BYTES + MAC_BYTES
const IV_BYTES = 12
/** Of a sealed entry. */
const MAX_BATCH_LENGTH = 12_288
const SECRET_BYTES = 32
const ACCESSOR_BYTES = 18

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Where the entry of a token is, and the keyed hash that it is stored under: whoever reads the storage has no token. */
type PlaceOfToken = TokenPlace & { readonly hash: string }

export type ReadToken =
  | { readonly type: 'service'; readonly place: PlaceOfToken }
  | { readonly type: 'batch'; readonly entry: Readonly<Record<string, unknown>> }

interface Keys {
  readonly mac: CryptoKey
  readonly hash: CryptoKey
  readonly entity: CryptoKey
  readonly seal: CryptoKey
}

export class TokenSecret {
  readonly #keys: readonly Keys[]

  private constructor(keys: readonly Keys[]) {
    this.#keys = keys
  }

  /** @param secrets of 32 octets each: the first makes tokens, all read them */
  static async import(secrets: readonly Uint8Array<ArrayBuffer>[]): Promise<TokenSecret> {
    return new TokenSecret(await Promise.all(secrets.map(derive)))
  }

  /** @returns a new service token, and where its entry is to be stored */
  async make(): Promise<{ token: string; accessor: string; place: PlaceOfToken }> {
    const keys = this.#current
    const body = crypto.getRandomValues(new Uint8Array(2 + NONCE_BYTES))
    const shard = (body[1] ?? 0) % SHARDS
    body.set([VERSION, shard])
    const mac = new Uint8Array(await crypto.subtle.sign('HMAC', keys.mac, body))
    const octets = new Uint8Array(SERVICE_BYTES)
    octets.set(body)
    octets.set(mac, body.length)
    const accessor = crypto.getRandomValues(new Uint8Array(ACCESSOR_BYTES))
    accessor.set([VERSION, shard])
    return {
      token: `hvs.${encode(octets)}`,
      accessor: encode(accessor),
      place: { shard, hash: await hashOf(body, keys) },
    }
  }

  /** @returns a batch token that is `entry` */
  async makeBatch(entry: object): Promise<string> {
    return `hvb.${await sealed(JSON.stringify(entry), 'batch', this.#current)}`
  }

  /** @returns what a token is, if it was made here; null for anything else */
  async read(token: string): Promise<ReadToken | null> {
    const [, type, text = ''] = /^(hvs|hvb)\.([\w-]+)$/.exec(token) ?? []
    if (type === 'hvs') return this.#readService(text)
    if (type !== 'hvb' || text.length > MAX_BATCH_LENGTH) return null
    const entry = await this.#open(text, 'batch')
    return entry === null ? null : { type: 'batch', entry: parseJsonObject(entry) }
  }

  /** @returns where the entry with such an accessor is, if there is one; null for what is no accessor of ours */
  static placeOf(accessor: string): TokenPlace | null {
    const octets = decode(accessor)
    const [version, shard = SHARDS] = octets ?? []
    return octets?.length === ACCESSOR_BYTES && version === VERSION && shard < SHARDS ? { shard, accessor } : null
  }

  /** @returns a UUID that is the same for the same alias and no other */
  async entityId(mountAccessor: string, aliasName: string): Promise<string> {
    const text = encoder.encode(JSON.stringify([mountAccessor, aliasName]))
    const octets = new Uint8Array(await crypto.subtle.sign('HMAC', this.#current.entity, text)).slice(0, 16)
    // RFC 9562 §5.8: version 8 is for whoever makes them in a way of their own.
    octets[6] = ((octets[6] ?? 0) & 0x0f) | 0x80
    octets[8] = ((octets[8] ?? 0) & 0x3f) | 0x80
    return octets.toHex().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  }

  /** Seals a secret that is configured at run time, for the one purpose. */
  async seal(text: string, purpose: string): Promise<string> {
    return `v1.${await sealed(text, purpose, this.#current)}`
  }

  /** @returns null for what was not sealed here for that purpose */
  async open(text: string, purpose: string): Promise<string | null> {
    return text.startsWith('v1.') ? this.#open(text.slice(3), purpose) : null
  }

  get #current(): Keys {
    const [current] = this.#keys
    if (!current) throw new TypeError('there is at least one secret')
    return current
  }

  async #readService(text: string): Promise<ReadToken | null> {
    const octets = decode(text)
    const [version, shard = SHARDS] = octets ?? []
    if (octets?.length !== SERVICE_BYTES || version !== VERSION || shard >= SHARDS) return null
    const body = octets.slice(0, -MAC_BYTES)
    const mac = octets.slice(-MAC_BYTES)
    for (const keys of this.#keys)
      if (await crypto.subtle.verify('HMAC', keys.mac, mac, body))
        return { type: 'service', place: { shard, hash: await hashOf(body, keys) } }
    return null
  }

  async #open(text: string, purpose: string): Promise<string | null> {
    const octets = decode(text)
    if (!octets || octets.length <= IV_BYTES) return null
    const algorithm = {
      name: 'AES-GCM',
      iv: octets.slice(0, IV_BYTES),
      additionalData: encoder.encode(purpose),
    }
    for (const { seal } of this.#keys)
      try {
        return decoder.decode(await crypto.subtle.decrypt(algorithm, seal, octets.slice(IV_BYTES)))
      } catch {}
    return null
  }
}

/** @returns the 32 octets that a text in base64 or base64url is; null for anything else */
export function parseTokenSecret(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^[A-Za-z0-9+/]{43}=?$|^[\w-]{43}=?$/.test(text)) return null
  const octets = decode(text.replace(/=$/, '').replaceAll('+', '-').replaceAll('/', '_'))
  return octets?.length === SECRET_BYTES ? octets : null
}

async function derive(secret: Uint8Array<ArrayBuffer>): Promise<Keys> {
  const root = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits'])
  const bits = async (purpose: string) => {
    const info = encoder.encode(`spiffe-edge vault token ${purpose}`)
    return crypto.subtle.deriveBits({ name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info }, root, 256)
  }
  const hmac = async (purpose: string) =>
    crypto.subtle.importKey('raw', await bits(purpose), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign', 'verify'])
  const [mac, hash, entity, seal] = await Promise.all([
    hmac('mac'),
    hmac('hash'),
    hmac('entity'),
    crypto.subtle.importKey('raw', await bits('seal'), 'AES-GCM', false, ['encrypt', 'decrypt']),
  ])
  return { mac, hash, entity, seal }
}

async function hashOf(body: Uint8Array<ArrayBuffer>, { hash }: Keys): Promise<string> {
  return encode(new Uint8Array(await crypto.subtle.sign('HMAC', hash, body)))
}

async function sealed(text: string, purpose: string, { seal }: Keys): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
  const algorithm = { name: 'AES-GCM', iv, additionalData: encoder.encode(purpose) }
  const ciphertext = new Uint8Array(await crypto.subtle.encrypt(algorithm, seal, encoder.encode(text)))
  const octets = new Uint8Array(IV_BYTES + ciphertext.length)
  octets.set(iv)
  octets.set(ciphertext, IV_BYTES)
  return encode(octets)
}

function encode(octets: Uint8Array): string {
  return octets.toBase64({ alphabet: 'base64url', omitPadding: true })
}

/** @returns null for what is not base64url in the one form that it has */
function decode(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    const octets = Uint8Array.fromBase64(text, { alphabet: 'base64url', lastChunkHandling: 'loose' })
    return encode(octets) === text ? octets : null
  } catch {
    return null
  }
}
