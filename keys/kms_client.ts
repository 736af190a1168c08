/**
 * How AWS KMS is asked: one client for one access, every call bounded in time, size and attempts, every error reduced to
 * its {@link SigningErrorCode}, because messages of AWS name accounts, keys and users.
 *
 * The files `keys/kms*.ts` are the only importers of the AWS SDK, and only when there is a key to ask for: it costs about
 * 20 ms of start-up.
 *
 * @see [AWS KMS API](https://docs.aws.amazon.com/kms/latest/APIReference/)
 */

import type { KMSClient, KMSClientResolvedConfig } from '@aws-sdk/client-kms'
import { SigningError, type SigningErrorCode } from './signer.ts'

/** One attempt, answer read to its end: KMS takes tens of milliseconds, the rest is for a far region and a new connection. */
const ATTEMPT_TIMEOUT_MS = 2_000
/** The second attempt is for a lost packet or a throttled moment. A third would only add to the load that throttles. */
const MAX_ATTEMPTS = 2
/**
 * Both attempts and the pause between them. The SDK draws that at random, from nothing to 50 ms, or to 1 s where KMS
 * throttles, and up to 5 s longer if KMS asks for that.
 */
const CALL_TIMEOUT_MS = 5_000
/** The longest answer of KMS is the public key of RSA_4096, below 2 KiB, that of the tagging API a page of 100 keys. */
const MAX_ANSWER_BYTES = 64 * 1024

/** What a key is called by nobody else and for good. */
export const KEY_ARN = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[A-Za-z0-9-]+$/

/** Where KMS is and who we are there. One object stands for one connection: keep it, and make another to change it. */
export interface KmsAccess {
  readonly region: string
  /** Null is the endpoint of AWS for the region. */
  readonly endpoint: string | null
  /** The Resource Groups Tagging API. Without it, `endpoint` is asked if there is one, else AWS in the region. */
  readonly taggingEndpoint?: string | null
  readonly credentials: {
    readonly accessKeyId: string
    readonly secretAccessKey: string
    readonly sessionToken?: string
  }
}

/** What one access has cost since it was last asked, in this isolate. */
export interface KmsUsage {
  /** Operations, however many attempts each took. */
  readonly calls: number
  /** Attempts that AWS throttled, those among them that the second attempt made good. */
  readonly throttled: number
  /** Operations that came to nothing, for whatever reason. */
  readonly failed: number
  /** All operations together, with the pauses between attempts. */
  readonly milliseconds: number
  readonly slowestMilliseconds: number
}

const NO_USAGE: KmsUsage = { calls: 0, throttled: 0, failed: 0, milliseconds: 0, slowestMilliseconds: 0 }

/**
 * Names of errors that KMS, or the AWS front door before it, answers with. Whatever is not here is `unavailable`:
 * timeouts, the network, `DependencyTimeoutException`, `KeyUnavailableException`, `KMSInternalException`, answers that
 * can't be read.
 *
 * @see [Common errors](https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html)
 */
const ERROR_NAMES: Readonly<Record<'throttled' | 'denied' | 'key_unusable' | 'key_mismatch', readonly string[]>> = {
  throttled: [
    'LimitExceededException',
    'RequestLimitExceeded',
    'RequestThrottled',
    'RequestThrottledException',
    'SlowDown',
    'ThrottledException',
    'Throttling',
    'ThrottlingException',
    'TooManyRequestsException',
  ],
  denied: [
    'AccessDenied',
    'AccessDeniedException',
    'ExpiredToken',
    'ExpiredTokenException',
    'IncompleteSignature',
    'IncompleteSignatureException',
    'InvalidClientTokenId',
    'InvalidGrantTokenException',
    'InvalidSignatureException',
    'MissingAuthenticationToken',
    'MissingAuthenticationTokenException',
    'NotAuthorized',
    'OptInRequired',
    'RequestExpired',
    'RequestTimeTooSkewed',
    'SignatureDoesNotMatch',
    'UnrecognizedClientException',
  ],
  key_unusable: [
    'DisabledException',
    'InvalidArnException',
    'KMSInvalidStateException',
    'NotFoundException',
    // The only part of our requests that may be ill-formed is the name of the key.
    'ValidationException',
  ],
  key_mismatch: [
    // Ciphertext of another key, and ciphertext that is none or has another context.
    'IncorrectKeyException',
    'InvalidCiphertextException',
    // A symmetric key has no public key to give, and says so with the second one.
    'InvalidKeyUsageException',
    'UnsupportedOperationException',
  ],
}

const CODE_BY_NAME = new Map<unknown, SigningErrorCode>(
  Object.entries(ERROR_NAMES).flatMap(([code, names]) => names.map((name) => [name, code as SigningErrorCode])),
)

/** An operation that is under way, and what to hand to whatever makes a request for it. */
export interface Call {
  readonly client: KMSClient
  readonly options: { readonly abortSignal: AbortSignal }
}

/**
 * @param send makes the one operation
 * @param attempts `once` for an operation that does harm when it is done twice: an attempt without an answer may have
 *   been carried out
 * @throws SigningError that holds nothing of the error it stands for
 */
export async function ask<T>(
  access: KmsAccess,
  send: (call: Call) => Promise<T>,
  attempts: 'twice' | 'once' = 'twice',
): Promise<T> {
  const client = await clientFor(access, attempts)
  const started = Date.now()
  let failed = 0
  try {
    return await send({ client, options: { abortSignal: AbortSignal.timeout(CALL_TIMEOUT_MS) } })
  } catch (error) {
    failed = 1
    throw new SigningError(codeOf(error))
  } finally {
    const milliseconds = Math.max(0, Date.now() - started)
    count(access, { calls: 1, failed, milliseconds, slowestMilliseconds: milliseconds })
  }
}

/** @returns what {@link ask} has counted since the last time, and starts anew */
export function takeKmsUsage(access: KmsAccess): KmsUsage {
  const usage = usages.get(access) ?? NO_USAGE
  usages.delete(access)
  return usage
}

const usages = new WeakMap<KmsAccess, KmsUsage>()

function count(access: KmsAccess, more: Partial<KmsUsage>): void {
  const { calls, throttled, failed, milliseconds, slowestMilliseconds } = usages.get(access) ?? NO_USAGE
  usages.set(access, {
    calls: calls + (more.calls ?? 0),
    throttled: throttled + (more.throttled ?? 0),
    failed: failed + (more.failed ?? 0),
    milliseconds: milliseconds + (more.milliseconds ?? 0),
    slowestMilliseconds: Math.max(slowestMilliseconds, more.slowestMilliseconds ?? 0),
  })
}

/** @param error with the name that AWS gave it, or the status where it gave none */
function codeOf(error: unknown): SigningErrorCode {
  const { name, $metadata } = error as { name?: unknown; $metadata?: { httpStatusCode?: number } }
  return CODE_BY_NAME.get(name) ?? ($metadata?.httpStatusCode === 429 ? 'throttled' : 'unavailable')
}

/**
 * The clients themselves and no promises of one: in workerd a promise that one request made is not safe to await in
 * another.
 */
const clients = { once: new WeakMap<KmsAccess, KMSClient>(), twice: new WeakMap<KmsAccess, KMSClient>() }

async function clientFor(access: KmsAccess, attempts: 'twice' | 'once'): Promise<KMSClient> {
  const { KMSClient } = await import('@aws-sdk/client-kms')
  let client = clients[attempts].get(access)
  if (!client) {
    const { region, endpoint, credentials } = access
    client = new KMSClient({
      region,
      credentials,
      ...(endpoint !== null && { endpoint }),
      maxAttempts: attempts === 'once' ? 1 : MAX_ATTEMPTS,
      retryMode: 'standard',
      requestHandler,
    })
    // Inside of what retries, so that each attempt passes here, and outside of what makes errors of answers.
    client.middlewareStack.add((next) => async (args) => await countThrottled(access, next(args)), {
      name: 'countThrottled',
      step: 'deserialize',
      priority: 'high',
    })
    clients[attempts].set(access, client)
  }
  return client
}

/** @returns what `attempt` gives; whether AWS throttled it is counted on the way */
export async function countThrottled<T>(access: KmsAccess, attempt: Promise<T>): Promise<T> {
  try {
    return await attempt
  } catch (error) {
    if (codeOf(error) === 'throttled') count(access, { throttled: 1 })
    throw error
  }
}

/**
 * The SDK's own handler for `fetch` stops its timeout when the headers are there, follows redirects and reads answers
 * of any length.
 */
const requestHandler: KMSClientResolvedConfig['requestHandler'] = {
  async handle(
    { protocol, hostname, port, path, method, headers, body },
    { abortSignal }: { abortSignal?: unknown } = {},
  ) {
    const url = `${protocol}//${hostname}${port ? `:${port}` : ''}${path}`
    return { response: await sendOnce(url, { method, headers, body }, abortSignal as AbortSignal | undefined) }
  },
  updateHttpClientConfig() {},
  httpHandlerConfigs: () => ({}),
}

export interface Answer {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: Uint8Array
}

/** @throws Error by the name that the SDK knows for a failure on the way that is worth a second attempt */
export async function sendOnce(
  url: string,
  { method, headers, body }: { method: string; headers: HeadersInit; body: BodyInit },
  abortSignal?: AbortSignal,
): Promise<Answer> {
  const signals = [AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)]
  if (abortSignal) signals.push(abortSignal)
  try {
    const signal = AbortSignal.any(signals)
    const response = await fetch(url, { method, headers, body, redirect: 'manual', signal })
    return {
      statusCode: response.status,
      headers: Object.fromEntries(response.headers),
      body: await readBody(response),
    }
  } catch {
    throw Object.assign(new Error('no answer'), { name: 'TimeoutError' })
  }
}

async function readBody({ body }: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of body ?? []) {
    length += chunk.length
    if (length > MAX_ANSWER_BYTES) throw new RangeError('answer too long')
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
