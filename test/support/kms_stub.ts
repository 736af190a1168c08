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
import { signDigest } from './sign_digest.ts'

const REGION = 'eu-central-1'
const ACCOUNT = '111122223333'
/** KM-1. */
const MAX_MESSAGE_BYTES = 4096

export interface KmsRequest {
  /** `Sign`, `GetPublicKey`. */
  readonly operation: string
  readonly input: Readonly<Record<string, unknown>>
  readonly headers: Headers
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
  state: 'Enabled' | 'Disabled' | 'PendingDeletion'
}

export class KmsStub {
  readonly access: KmsAccess = {
    region: REGION,
    endpoint: 'https://kms.test',
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  }
  /** Everything that has been asked, oldest first, refused or not. */
  readonly requests: KmsRequest[] = []
  trouble: Trouble | null = null

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

  /** Takes the place of the global `fetch`. Requests for other hosts go where they would have gone. */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, init)
    if (new URL(request.url).origin !== this.access.endpoint) return await this.#otherFetch(request)
    const { signal } = request
    signal.throwIfAborted()
    const [service = '', operation = ''] = (request.headers.get('x-amz-target') ?? '').split('.')
    const text = await request.text()
    const asked = { operation, input: JSON.parse(text) as Record<string, unknown>, headers: request.headers }
    this.requests.push(asked)
    const answer = async () => {
      if (request.method !== 'POST' || service !== 'TrentService') return kmsError('UnknownOperationException')
      if (request.headers.get('content-type') !== 'application/x-amz-json-1.1')
        return kmsError('SerializationException')
      if (!isSigned(request.headers)) return kmsError('MissingAuthenticationTokenException')
      return await this.answer(asked)
    }
    const response = await (this.trouble ? this.trouble(asked, answer, signal) : answer())
    const location = response.headers.get('location')
    return location !== null && request.redirect === 'follow' ? await this.fetch(location, { signal }) : response
  }

  /** What KMS says to a request that is well-formed and signed. */
  async answer({ operation, input }: Pick<KmsRequest, 'operation' | 'input'>): Promise<Response> {
    const key = this.#find(String(input.KeyId))
    if (!key) return kmsError('NotFoundException', `Key '${input.KeyId}' does not exist`)
    if (key.state === 'Disabled') return kmsError('DisabledException', `${key.arn} is disabled.`)
    if (key.state !== 'Enabled') return kmsError('KMSInvalidStateException', `${key.arn} is pending deletion.`)
    if (operation === 'GetPublicKey') return describe(key)
    if (operation === 'Sign') return await sign(key, input)
    return kmsError('UnknownOperationException')
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

function isSigned(headers: Headers): boolean {
  const authorization = headers.get('authorization') ?? ''
  const scope = new RegExp(`^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\\d{8}/${REGION}/kms/aws4_request, `)
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

async function sign(key: StoredKey, input: KmsRequest['input']): Promise<Response> {
  const { Message, MessageType = 'RAW', SigningAlgorithm } = input
  const alg = (Object.keys(ALGORITHMS) as AlgorithmName[]).find((name) => ALGORITHMS[name].kms === SigningAlgorithm)
  if (!alg || !key.privateKey || key.usage !== 'SIGN_VERIFY' || !key.algorithms.includes(ALGORITHMS[alg].kms)) {
    return kmsError('InvalidKeyUsageException')
  }
  const { hash } = ALGORITHMS[alg]
  let digest = Uint8Array.from(atob(String(Message)), (character) => character.charCodeAt(0))
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

async function untilAborted<T>(signal: AbortSignal): Promise<T> {
  return await new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}
