/**
 * A KMS that lives in `fetch`: real keys, the real wire protocol, and trouble on request.
 *
 * It answers as AWS does where that matters to us, and above all signs a digest as a digest, which the emulator of the
 * slow tests does only because we mended it.
 *
 * @example
 * const kms = new KmsStub()
 * vi.stubGlobal('fetch', kms.fetch)
 * const arn = await kms.createKey('ECC_NIST_P256')
 * kms.trouble = troubles.throttled
 */

import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import type { KmsAccess } from '../../keys/kms.ts'
import type { Credentials } from '../../keys/kms_client.ts'
import { signDigest } from './sign_digest.ts'

const REGION = 'eu-central-1'
const ACCOUNT = '111122223333'
/** KM-1; as much as Encrypt takes. */
const MAX_MESSAGE_BYTES = 4096
const MAX_CIPHERTEXT_BYTES = 6144
/** Where tags are looked up, by who does not ask the host of the stub for them too. */
const TAGGING = 'https://tagging.test'
/** Each has a host of its own: what an object of an earlier test still does must not reach the next. */
const HOST = /^https:\/\/kms-\d+\.test$/
let stubs = 0
/** The prefix of X-Amz-Target, with the name by which requests for it are signed. */
const SERVICES: Readonly<Record<string, string>> = {
  TrentService: 'kms',
  ResourceGroupsTaggingAPI_20170126: 'tagging',
}

export interface KmsRequest {
  /** `Sign`, `GetPublicKey`, `GetResources`. */
  readonly operation: string
  readonly input: Readonly<Record<string, unknown>>
  readonly headers: Headers
  readonly url: string
}

/**
 * @param answer what the stub would say without trouble
 * @param signal ends when the caller has lost patience
 */
export type Trouble = (request: KmsRequest, answer: () => Promise<Response>, signal: AbortSignal) => Promise<Response>

interface StoredKey {
  readonly arn: string
  readonly spec: string
  readonly usage: string
  readonly algorithms: readonly string[]
  readonly spki: Uint8Array
  readonly privateKey: JsonWebKey | null
  /** Of a symmetric key. */
  readonly secret?: CryptoKey
  readonly tags?: Readonly<Record<string, string>>
  state: 'Enabled' | 'Disabled' | 'PendingDeletion'
}

/** A key that somebody has made by CreateKey. */
export type CreatedKey = Required<Pick<StoredKey, 'arn' | 'spec' | 'tags' | 'state'>>

export class KmsStub {
  readonly access: KmsAccess & { readonly credentials: Credentials } = {
    region: REGION,
    endpoint: `https://kms-${++stubs}.test`,
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  }
  /** Everything that has been asked, oldest first, refused or not. */
  readonly requests: KmsRequest[] = []
  trouble: Trouble | null = null
  /** Whose requests it takes; any signature will do. */
  accessKeyIds: readonly string[] = ['AKIDEXAMPLE']

  readonly #keys = new Map<string, StoredKey>()
  readonly #aliases = new Map<string, string>()
  readonly #otherFetch = globalThis.fetch

  /**
   * @param spec a `KeySpec` with a key that WebCrypto can make
   * @param usage `SIGN_VERIFY` unless given
   * @param modulusBits to have an RSA key that is not as long as its KeySpec says
   * @returns the ARN
   */
  async createKey(spec: string, usage = 'SIGN_VERIFY', modulusBits = 2048): Promise<string> {
    if (spec === 'SYMMETRIC_DEFAULT') return await this.#createSymmetricKey()
    const usable = (Object.keys(ALGORITHMS) as AlgorithmName[]).filter((name) =>
      ALGORITHMS[name].kmsKeySpecs.includes(spec),
    )
    const [first] = usable
    if (!first) throw new TypeError(`not a key spec of ours: ${spec}`)
    const { key, kty } = ALGORITHMS[first]
    const parameters = kty === 'RSA' ? { ...key, modulusLength: modulusBits } : key
    const pair = (await crypto.subtle.generateKey(parameters, true, ['sign', 'verify'])) as CryptoKeyPair
    return this.addKey({
      spec,
      usage,
      algorithms: usable.map((name) => ALGORITHMS[name].kms),
      spki: new Uint8Array((await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer),
      privateKey: (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey,
    })
  }

  async #createSymmetricKey(): Promise<string> {
    const aes = { name: 'AES-GCM', length: 256 }
    const secret = (await crypto.subtle.generateKey(aes, false, ['encrypt', 'decrypt'])) as CryptoKey
    const nothing = { spki: new Uint8Array(), privateKey: null, algorithms: [] }
    return this.addKey({ ...nothing, spec: 'SYMMETRIC_DEFAULT', usage: 'ENCRYPT_DECRYPT', secret })
  }

  /** A key as it comes: of a kind that WebCrypto does not know, or one that contradicts itself. */
  addKey(key: Omit<StoredKey, 'arn' | 'state'>): string {
    const arn = `arn:aws:kms:${REGION}:${ACCOUNT}:key/${crypto.randomUUID()}`
    this.#keys.set(arn, { ...key, arn, state: 'Enabled' })
    return arn
  }

  /** @param name `alias/…`; one that exists is moved to the key */
  setAlias(name: string, arn: string): void {
    this.#aliases.set(name, arn)
  }

  setState(arn: string, state: StoredKey['state']): void {
    this.#key(arn).state = state
  }

  /** As when its waiting period is over. */
  removeKey(arn: string): void {
    this.#keys.delete(arn)
  }

  /** Keys that CreateKey has made and that are still there, oldest first. */
  createdKeys(): readonly CreatedKey[] {
    return [...this.#keys.values()].flatMap(({ arn, spec, tags, state }) => (tags ? [{ arn, spec, tags, state }] : []))
  }

  /** Takes the place of the global `fetch`. Requests for other hosts go where they would have gone. */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init)
    const { origin } = new URL(request.url)
    if (origin !== this.access.endpoint && origin !== TAGGING) {
      if (HOST.test(origin)) throw new TypeError('the test that this KMS was for is over')
      return await this.#otherFetch(request)
    }
    const { signal } = request
    signal.throwIfAborted()
    const [service = '', operation = ''] = (request.headers.get('x-amz-target') ?? '').split('.')
    const text = await request.text()
    const { headers, url } = request
    const asked = { operation, input: JSON.parse(text) as Record<string, unknown>, headers, url }
    this.requests.push(asked)
    const answer = async () => {
      const signedFor = SERVICES[service]
      if (request.method !== 'POST' || !signedFor) return kmsError('UnknownOperationException')
      if (request.headers.get('content-type') !== 'application/x-amz-json-1.1')
        return kmsError('SerializationException')
      if (!isSigned(headers, this.accessKeyIds, signedFor)) return kmsError('MissingAuthenticationTokenException')
      return await this.answer(asked)
    }
    const response = await (this.trouble ? this.trouble(asked, answer, signal) : answer())
    const location = response.headers.get('location')
    return location !== null && request.redirect === 'follow' ? await this.fetch(location, { signal }) : response
  }

  /** What KMS says to a request that is well-formed and signed. */
  async answer({ operation, input }: Pick<KmsRequest, 'operation' | 'input'>): Promise<Response> {
    if (operation === 'CreateKey') return await this.#create(input)
    if (operation === 'GetResources') return this.#findByTag(input)
    const key = this.#find(String(input.KeyId))
    if (!key) return kmsError('NotFoundException', `Key '${input.KeyId}' does not exist`)
    if (operation === 'DescribeKey') return kmsAnswer({ KeyMetadata: metadata(key) })
    if (operation === 'ScheduleKeyDeletion') return scheduleDeletion(key, input)
    if (key.state === 'Disabled') return kmsError('DisabledException', `${key.arn} is disabled.`)
    if (key.state !== 'Enabled') return kmsError('KMSInvalidStateException', `${key.arn} is pending deletion.`)
    if (operation === 'GetPublicKey') return describe(key)
    if (operation === 'Sign') return await sign(key, input)
    if (operation === 'Encrypt') return await encrypt(key, input)
    if (operation === 'Decrypt') return await decrypt(key, input)
    return kmsError('UnknownOperationException')
  }

  async #create({ KeySpec, KeyUsage, Tags = [] }: KmsRequest['input']): Promise<Response> {
    const tags = (Tags as { TagKey: string; TagValue: string }[]).map(({ TagKey, TagValue }) => [TagKey, TagValue])
    if (tags.some(([name]) => name?.startsWith('aws:'))) return kmsError('TagException')
    const arn = await this.createKey(String(KeySpec), String(KeyUsage))
    const key = { ...this.#key(arn), tags: Object.fromEntries(tags) }
    this.#keys.set(arn, key)
    return kmsAnswer({ KeyMetadata: metadata(key) })
  }

  #findByTag({ TagFilters, ResourceTypeFilters }: KmsRequest['input']): Response {
    const filters = TagFilters as { Key: string; Values: string[] }[]
    const types = ResourceTypeFilters as string[]
    const found = this.createdKeys().filter(
      ({ tags }) => types.includes('kms:key') && filters.every(({ Key, Values }) => Values.includes(tags[Key] ?? '')),
    )
    const list = found.map(({ arn, tags }) => ({
      ResourceARN: arn,
      Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
    }))
    return kmsAnswer({ PaginationToken: '', ResourceTagMappingList: list })
  }

  #find(id: string): StoredKey | undefined {
    const arn = id.startsWith('alias/') ? this.#aliases.get(id) : id
    return [...this.#keys.values()].find((key) => key.arn === arn || key.arn.endsWith(`/${arn}`))
  }

  #key(arn: string): StoredKey {
    const key = this.#keys.get(arn)
    if (!key) throw new TypeError('no such key')
    return key
  }
}

/** An error as KMS words it, with a message that tells what must not get out: who, and which key. */
export function kmsError(type: string, message?: string, status = 400): Response {
  const who = `arn:aws:iam::${ACCOUNT}:user/issuer`
  const text = message ?? `User: ${who} got ${type} on arn:aws:kms:${REGION}:${ACCOUNT}:key/11111111-secret`
  return kmsAnswer({ __type: type, message: text }, status)
}

export function kmsAnswer(body: object, status = 200): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/x-amz-json-1.1' } })
}

/** Ready-made {@link Trouble}. */
export const troubles = {
  throttled: async () => kmsError('ThrottlingException', 'Rate exceeded'),
  hangs: async (_request, _answer, signal) => await untilAborted<Response>(signal),
  hangsInBody: async (_request, _answer, signal) => {
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode('{"KeyId":'))
        await untilAborted(signal).catch((reason) => controller.error(reason))
      },
    })
    return new Response(body)
  },
  unreachable: async () => {
    throw new TypeError('Network connection lost.')
  },
  failsInside: async () => kmsError('KMSInternalException', undefined, 500),
  html: async () => new Response('<html><h1>502 Bad Gateway</h1>', { headers: { 'content-type': 'text/html' } }),
  htmlError: async () => new Response('<html><h1>502 Bad Gateway</h1>', { status: 502 }),
  /** Does what it is asked for, and nobody hears of it. */
  losesAnswer: async (_request, answer) => {
    await answer()
    throw new TypeError('Network connection lost.')
  },
  truncated: async (_request, answer) => {
    const text = await (await answer()).text()
    return new Response(text.slice(0, text.length / 2))
  },
  endless: async () =>
    new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(4096).fill(0x20)) })),
  redirected: async () => new Response(null, { status: 307, headers: { location: 'https://elsewhere.test/' } }),
} satisfies Record<string, Trouble>

/** Goes wrong `times` times and then answers. */
export function only(times: number, trouble: Trouble): Trouble {
  let left = times
  return async (request, answer, signal) => (left-- > 0 ? await trouble(request, answer, signal) : await answer())
}

/** Answers, with some members of the answer replaced. */
export function lies(changes: object): Trouble {
  return async (_request, answer) => kmsAnswer({ ...((await (await answer()).json()) as object), ...changes })
}

function isSigned(headers: Headers, accessKeyIds: readonly string[], service: string): boolean {
  const authorization = headers.get('authorization') ?? ''
  const scope = new RegExp(
    `^AWS4-HMAC-SHA256 Credential=(?:${accessKeyIds.join('|')})/\\d{8}/${REGION}/${service}/aws4_request, `,
  )
  const [, signed = ''] = /SignedHeaders=([^,]+), Signature=[0-9a-f]{64}$/.exec(authorization) ?? []
  const names = signed.split(';')
  return scope.test(authorization) && ['host', 'x-amz-date', 'x-amz-target'].every((name) => names.includes(name))
}

function describe({ arn, spec, usage, algorithms, spki }: StoredKey): Response {
  if (spec === 'SYMMETRIC_DEFAULT') return kmsError('UnsupportedOperationException')
  return kmsAnswer({
    KeyId: arn,
    KeySpec: spec,
    CustomerMasterKeySpec: spec,
    KeyUsage: usage,
    PublicKey: base64(spki),
    ...(usage === 'SIGN_VERIFY' && { SigningAlgorithms: algorithms }),
  })
}

function metadata({ arn, spec, usage, algorithms, state }: StoredKey): object {
  return {
    AWSAccountId: ACCOUNT,
    Arn: arn,
    KeyId: arn.split('/').at(-1),
    KeySpec: spec,
    KeyUsage: usage,
    KeyState: state,
    Enabled: state === 'Enabled',
    Origin: 'AWS_KMS',
    MultiRegion: false,
    ...(usage === 'SIGN_VERIFY' && { SigningAlgorithms: algorithms }),
  }
}

function scheduleDeletion(key: StoredKey, { PendingWindowInDays = 30 }: KmsRequest['input']): Response {
  const days = Number(PendingWindowInDays)
  if (!(days >= 7 && days <= 30)) return kmsError('ValidationException')
  if (key.state === 'PendingDeletion') return kmsError('KMSInvalidStateException', `${key.arn} is pending deletion.`)
  key.state = 'PendingDeletion'
  const DeletionDate = Date.now() / 1000 + days * 86_400
  return kmsAnswer({ KeyId: key.arn, KeyState: key.state, PendingWindowInDays: days, DeletionDate })
}

/** Ciphertext names its key in front, as that of AWS does. */
const KEY_ID_BYTES = 36
const IV_BYTES = 12

async function encrypt(key: StoredKey, input: KmsRequest['input']): Promise<Response> {
  const { EncryptionAlgorithm = 'SYMMETRIC_DEFAULT' } = input
  if (!key.secret || EncryptionAlgorithm !== 'SYMMETRIC_DEFAULT') return kmsError('InvalidKeyUsageException')
  const plaintext = unbase64(input.Plaintext)
  if (plaintext.length === 0 || plaintext.length > MAX_MESSAGE_BYTES) return kmsError('ValidationException')
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
  const ciphertext = new Uint8Array(await crypto.subtle.encrypt(aesGcm(iv, input), key.secret, plaintext))
  const id = new TextEncoder().encode(key.arn.split('/').at(-1))
  return kmsAnswer({
    KeyId: key.arn,
    CiphertextBlob: base64(Uint8Array.of(...id, ...iv, ...ciphertext)),
    EncryptionAlgorithm,
  })
}

async function decrypt(key: StoredKey, input: KmsRequest['input']): Promise<Response> {
  const { EncryptionAlgorithm = 'SYMMETRIC_DEFAULT' } = input
  if (!key.secret || EncryptionAlgorithm !== 'SYMMETRIC_DEFAULT') return kmsError('InvalidKeyUsageException')
  const blob = unbase64(input.CiphertextBlob)
  if (blob.length === 0 || blob.length > MAX_CIPHERTEXT_BYTES) return kmsError('ValidationException')
  const [id, rest] = [blob.subarray(0, KEY_ID_BYTES), blob.subarray(KEY_ID_BYTES)]
  const named = new TextDecoder().decode(id)
  if (/^[0-9a-f-]{36}$/.test(named) && !key.arn.endsWith(named)) return kmsError('IncorrectKeyException')
  const plaintext = await crypto.subtle
    .decrypt(aesGcm(rest.subarray(0, IV_BYTES), input), key.secret, rest.subarray(IV_BYTES))
    .catch(() => null)
  if (!key.arn.endsWith(named) || !plaintext) return kmsError('InvalidCiphertextException')
  return kmsAnswer({ KeyId: key.arn, Plaintext: base64(new Uint8Array(plaintext)), EncryptionAlgorithm })
}

/** The order of an encryption context's members means nothing. */
function aesGcm(iv: Uint8Array<ArrayBuffer>, { EncryptionContext = {} }: KmsRequest['input']) {
  const members = JSON.stringify(Object.entries(EncryptionContext as object).sort())
  return { name: 'AES-GCM', iv, additionalData: new TextEncoder().encode(members) }
}

async function sign(key: StoredKey, input: KmsRequest['input']): Promise<Response> {
  const { Message, MessageType = 'RAW', SigningAlgorithm } = input
  const alg = (Object.keys(ALGORITHMS) as AlgorithmName[]).find((name) => ALGORITHMS[name].kms === SigningAlgorithm)
  if (!alg || !key.privateKey || key.usage !== 'SIGN_VERIFY' || !key.algorithms.includes(ALGORITHMS[alg].kms)) {
    return kmsError('InvalidKeyUsageException')
  }
  const { hash } = ALGORITHMS[alg]
  let digest = unbase64(Message)
  if (MessageType === 'RAW') {
    if (digest.length === 0 || digest.length > MAX_MESSAGE_BYTES) return kmsError('ValidationException')
    digest = new Uint8Array(await crypto.subtle.digest(hash, digest))
  } else if (MessageType !== 'DIGEST' || digest.length !== Number(hash.slice(-3)) / 8) {
    return kmsError('ValidationException', `Digest is invalid length for algorithm ${SigningAlgorithm}.`)
  }
  const signature = await signDigest(key.privateKey, alg, digest)
  return kmsAnswer({ KeyId: key.arn, Signature: base64(signature), SigningAlgorithm })
}

export function base64(octets: Uint8Array): string {
  return btoa(String.fromCharCode(...octets))
}

function unbase64(text: unknown): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(String(text)), (character) => character.charCodeAt(0))
}

async function untilAborted<T>(signal: AbortSignal): Promise<T> {
  return await new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}
