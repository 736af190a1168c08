/** One request to AWS, bounded in time and size, for whatever sends one: the SDK does neither. */

/** One attempt, answer read to its end: KMS takes tens of milliseconds, the rest is for a far region and a new connection. */
const ATTEMPT_TIMEOUT_MS = 2_000
/**
 * The longest answer of KMS is the public key of RSA_4096, below 2 KiB, that of the tagging API a page of 100 keys, that of
 * STS a session token of a few KiB.
 */
const MAX_ANSWER_BYTES = 64 * 1024

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
