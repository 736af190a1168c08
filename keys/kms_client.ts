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
import { sendOnce } from './send_once.ts'
import { SigningError, type SigningErrorCode } from './signer.ts'
import { distrustSession, sessionCredentials, type WebIdentity } from './web_identity.ts'

/** The second attempt is for a lost packet or a throttled moment. A third would only add to the load that throttles. */
const MAX_ATTEMPTS = 2
/**
 * Both attempts and the pause between them. The SDK draws that at random, from nothing to 50 ms, or to 1 s where KMS
 * throttles, and up to 5 s longer if KMS asks for that. What it takes to get credentials, once an hour, is part of it.
 */
const CALL_TIMEOUT_MS = 5_000

/** What a key is called by nobody else and for good. */
export const KEY_ARN = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[A-Za-z0-9-]+$/

/** Where KMS is and who we are there. One object stands for one connection: keep it, and make another to change it. */
export interface KmsAccess {
  readonly region: string
  /** Null is the endpoint of AWS for the region. */
  readonly endpoint: string | null
  /** The Resource Groups Tagging API. Without it, `endpoint` is asked if there is one, else AWS in the region. */
  readonly taggingEndpoint?: string | null
  readonly credentials: Credentials | WebIdentity
}

/** What a request is signed with. */
export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
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
 * Names of errors that KMS or STS, or the AWS front door before them, answers with. Whatever is not here is `unavailable`:
 * timeouts, the network, `DependencyTimeoutException`, `KeyUnavailableException`, `KMSInternalException`,
 * `IDPCommunicationError`, answers that can't be read.
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
    'IDPRejectedClaim',
    'IncompleteSignature',
    'IncompleteSignatureException',
    'InvalidClientTokenId',
    'InvalidGrantTokenException',
    'InvalidIdentityToken',
    'InvalidSignatureException',
    'MissingAuthenticationToken',
    'MissingAuthenticationTokenException',
    'NotAuthorized',
    'OptInRequired',
    'RegionDisabledException',
    'RequestExpired',
    'RequestTimeTooSkewed',
    'SignatureDoesNotMatch',
    'UnrecognizedClientException',
    // Of STS: what may be ill-formed there is the name of the role or the token.
    'ValidationError',
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
  /** What the client signs with. */
  readonly credentials: Credentials
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
  const { KMSClient } = await import('@aws-sdk/client-kms')
  const started = Date.now()
  let failed = 0
  try {
    const options = { abortSignal: AbortSignal.timeout(CALL_TIMEOUT_MS) }
    const credentials = await credentialsOf(access, KMSClient, options.abortSignal)
    const client = clientFor(access, credentials, attempts, KMSClient)
    return await send({ client, credentials, options })
  } catch (error) {
    failed = 1
    const code = codeOf(error)
    if (code === 'denied' && 'roleArn' in access.credentials) distrustSession(access.credentials)
    throw new SigningError(code)
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

async function credentialsOf(
  access: KmsAccess,
  Client: typeof KMSClient,
  abortSignal: AbortSignal,
): Promise<Credentials> {
  const { credentials } = access
  if (!('roleArn' in credentials)) return credentials
  const { region } = access
  return await sessionCredentials(
    credentials,
    async () => endpointOf(new Client({ region }), 'sts', region),
    abortSignal,
  )
}

/** AWS names the endpoints of its services alike, whatever the partition calls its domain. */
export function endpointOf({ config }: KMSClient, service: 'sts' | 'tagging', region: string): string {
  return config.endpointProvider({ Region: region }).url.href.replace('//kms.', `//${service}.`)
}

interface Connection {
  readonly client: KMSClient
  readonly credentials: Credentials
}

/**
 * The clients themselves and no promises of one: in workerd a promise that one request made is not safe to await in
 * another. For that reason none of them gets a provider of credentials either, of which it would share the promise.
 */
const connections = { once: new WeakMap<KmsAccess, Connection>(), twice: new WeakMap<KmsAccess, Connection>() }

/** Other credentials have another client. */
function clientFor(
  access: KmsAccess,
  credentials: Credentials,
  attempts: 'twice' | 'once',
  Client: typeof KMSClient,
): KMSClient {
  const connection = connections[attempts].get(access)
  if (connection?.credentials === credentials) return connection.client
  const { region, endpoint } = access
  const client = new Client({
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
  connections[attempts].set(access, { client, credentials })
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
