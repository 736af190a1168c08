/**
 * Signing keys that stay in AWS KMS.
 *
 * The only importer of the AWS SDK, and only when there is a key to ask for: it costs about 20 ms of start-up.
 *
 * Nothing of what KMS says gets out of here but signatures, a public key and the ARN to pin: an error is reduced to its
 * {@link SigningErrorCode}, because messages of AWS name accounts, keys and users.
 *
 * @see [Sign](https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html)
 * @see [GetPublicKey](https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html)
 */

import type { KMSClient, KMSClientResolvedConfig, SigningAlgorithmSpec } from '@aws-sdk/client-kms'
import { ALGORITHMS, type AlgorithmName } from './algorithms.ts'
import { joseSignature } from './ecdsa.ts'
import { importSpki, publicJwk as toPublicJwk } from './jwks.ts'
import { type PublicJwk, type Signer, SigningError, type SigningErrorCode } from './signer.ts'

/** One attempt, answer read to its end: KMS takes tens of milliseconds, the rest is for a far region and a new connection. */
const ATTEMPT_TIMEOUT_MS = 2_000
/** The second attempt is for a lost packet or a throttled moment. A third would only add to the load that throttles. */
const MAX_ATTEMPTS = 2
/** Both attempts and the pause between them, which the SDK jitters up to 1 s, or 5 s more if KMS asks for that. */
const CALL_TIMEOUT_MS = 5_000
/** The longest answer is the public key of RSA_4096, below 2 KiB. */
const MAX_ANSWER_BYTES = 64 * 1024

const KEY_ARN = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[A-Za-z0-9-]+$/

/** Where KMS is and who we are there. One object stands for one connection: keep it, and make another to change it. */
export interface KmsAccess {
  readonly region: string
  /** Null is the endpoint of AWS for the region. */
  readonly endpoint: string | null
  readonly credentials: {
    readonly accessKeyId: string
    readonly secretAccessKey: string
    readonly sessionToken?: string
  }
}

/**
 * Names of errors that KMS, or the AWS front door before it, answers with. Whatever is not here is `unavailable`:
 * timeouts, the network, `DependencyTimeoutException`, `KeyUnavailableException`, `KMSInternalException`, answers that
 * can't be read.
 *
 * @see [Common errors](https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html)
 */
const ERROR_NAMES: Readonly<Record<Exclude<SigningErrorCode, 'unavailable' | 'wrong_signature'>, readonly string[]>> = {
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
  // A symmetric key has no public key to give, and says so with the second one.
  key_mismatch: ['InvalidKeyUsageException', 'UnsupportedOperationException'],
}

const CODE_BY_NAME = new Map<unknown, SigningErrorCode>(
  Object.entries(ERROR_NAMES).flatMap(([code, names]) => names.map((name) => [name, code as SigningErrorCode])),
)

/**
 * Reads a key's public half, for it to be pinned and published before anything is signed.
 *
 * @param key key id, key ARN, alias name or alias ARN
 * @param alg null for the usual one of the key's KeySpec: the algorithm of its curve, or RS256
 * @returns what to pin: an alias can be moved to another key, the ARN can't
 * @throws SigningError
 */
export async function announceKmsKey(
  access: KmsAccess,
  key: string,
  alg: AlgorithmName | null,
): Promise<{ arn: string; publicJwk: PublicJwk }> {
  const { GetPublicKeyCommand } = await import('@aws-sdk/client-kms')
  const client = await clientFor(access)
  const answer = await ask((options) => client.send(new GetPublicKeyCommand({ KeyId: key }), options))
  const { KeyId: arn = '', KeyUsage, KeySpec = '', SigningAlgorithms = [], PublicKey } = answer
  const name = alg ?? usualAlgorithm(KeySpec)
  if (KeyUsage !== 'SIGN_VERIFY' || !name || !PublicKey || !KEY_ARN.test(arn)) throw new SigningError('key_mismatch')
  const { kms, kmsKeySpecs } = ALGORITHMS[name]
  if (!kmsKeySpecs.includes(KeySpec) || !(SigningAlgorithms as string[]).includes(kms)) {
    throw new SigningError('key_mismatch')
  }
  return { arn, publicJwk: await toPublicJwk(await importSpki(PublicKey, name), name) }
}

/**
 * @param arn the key that was announced, by its ARN: never an alias
 * @param publicJwk what {@link announceKmsKey} gave for it; its `alg` is the only algorithm the signer will use
 * @returns a signer that hands out no signature before it has verified it with the pinned public key, so that a key
 *   which was swapped, or a KMS that lies, stops the signing instead of breaking every verifier
 * @throws SigningError `key_mismatch` if `publicJwk` is not a key for its `alg`
 */
export async function kmsSigner(access: KmsAccess, arn: string, publicJwk: PublicJwk): Promise<Signer> {
  const algorithm = ALGORITHMS[publicJwk.alg]
  let publicKey: CryptoKey
  try {
    publicKey = await crypto.subtle.importKey('jwk', publicJwk as JsonWebKey, algorithm.key, false, ['verify'])
  } catch {
    throw new SigningError('key_mismatch')
  }
  const { SignCommand } = await import('@aws-sdk/client-kms')
  const client = await clientFor(access)
  return {
    publicJwk,
    async sign(signingInput) {
      const message = signingInput as BufferSource
      // KMS takes messages of up to 4096 bytes only, and needs to see no more than a digest.
      const command = new SignCommand({
        KeyId: arn,
        Message: new Uint8Array(await crypto.subtle.digest(algorithm.hash, message)),
        MessageType: 'DIGEST',
        SigningAlgorithm: algorithm.kms as SigningAlgorithmSpec,
      })
      const { KeyId, Signature } = await ask((options) => client.send(command, options))
      if (KeyId !== arn || !Signature) throw new SigningError('wrong_signature')
      const signature = algorithm.kty === 'EC' ? joseSignature(Signature, algorithm.scalarBytes) : Signature
      if (!(await crypto.subtle.verify(algorithm.signature, publicKey, signature as BufferSource, message))) {
        throw new SigningError('wrong_signature')
      }
      return signature
    },
  }
}

/**
 * The clients themselves and no promises of one: in workerd a promise that one request made is not safe to await in
 * another.
 */
const clients = new WeakMap<KmsAccess, KMSClient>()

async function clientFor(access: KmsAccess): Promise<KMSClient> {
  const { KMSClient } = await import('@aws-sdk/client-kms')
  let client = clients.get(access)
  if (!client) {
    const { region, endpoint, credentials } = access
    client = new KMSClient({
      region,
      credentials,
      ...(endpoint !== null && { endpoint }),
      maxAttempts: MAX_ATTEMPTS,
      retryMode: 'standard',
      requestHandler,
    })
    clients.set(access, client)
  }
  return client
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
    const signals = [AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)]
    if (abortSignal) signals.push(abortSignal as AbortSignal)
    try {
      const response = await fetch(`${protocol}//${hostname}${port ? `:${port}` : ''}${path}`, {
        method,
        headers,
        body,
        redirect: 'manual',
        signal: AbortSignal.any(signals),
      })
      return {
        response: {
          statusCode: response.status,
          headers: Object.fromEntries(response.headers),
          body: await readBody(response),
        },
      }
    } catch {
      // The name by which the SDK knows a failure on the way that is worth a second attempt.
      throw Object.assign(new Error('no answer'), { name: 'TimeoutError' })
    }
  },
  updateHttpClientConfig() {},
  httpHandlerConfigs: () => ({}),
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

/** @throws SigningError that holds nothing of the error it stands for */
async function ask<T>(send: (options: { abortSignal: AbortSignal }) => Promise<T>): Promise<T> {
  try {
    return await send({ abortSignal: AbortSignal.timeout(CALL_TIMEOUT_MS) })
  } catch (error) {
    const { name, $metadata } = error as { name?: unknown; $metadata?: { httpStatusCode?: number } }
    const code = CODE_BY_NAME.get(name) ?? ($metadata?.httpStatusCode === 429 ? 'throttled' : 'unavailable')
    throw new SigningError(code)
  }
}

/** The first one of the table that the key can make. */
function usualAlgorithm(keySpec: string): AlgorithmName | undefined {
  return (Object.keys(ALGORITHMS) as AlgorithmName[]).find((name) => ALGORITHMS[name].kmsKeySpecs.includes(keySpec))
}
