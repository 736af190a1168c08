/** The worker's only outbound HTTP besides KMS: one bounded GET of one JSON object. */

import { parseJsonObject } from './strict_json.ts'

/** Long enough for an API server on another continent, short enough not to hold a pod's request for long. */
export const FETCH_TIMEOUT_MS = 5000
/** A JWK Set of a hundred RSA-4096 keys with certificates is smaller. */
const MAX_RESPONSE_BYTES = 1024 * 1024

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export type FetchErrorCode = 'unreachable' | 'timeout' | 'redirected' | 'status' | 'too_large' | 'not_json'

/** Thrown by {@link fetchJson}. Never holds any of the answer. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  readonly code: FetchErrorCode
  /** HTTP status, where there was an answer. */
  readonly status: number | null

  constructor(code: FetchErrorCode, status: number | null = null) {
    super(`fetch failed: ${code}${status === null ? '' : ` ${status}`}`)
    this.code = code
    this.status = status
  }
}

/**
 * @param url an endpoint from configuration, or one that such an endpoint named and that has been checked
 * @param signal when to give up; the usual time from now if this is the only fetch there is to make
 * @returns the object that a 200 answer holds
 * @throws FetchError: no redirect is followed, and an answer must be complete in time and within 1 MiB
 */
export async function fetchJson(
  url: string,
  signal: AbortSignal = AbortSignal.timeout(FETCH_TIMEOUT_MS),
): Promise<Record<string, unknown>> {
  let response: Response
  let text: string
  try {
    response = await fetch(url, { headers: { accept: 'application/json' }, redirect: 'manual', signal })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new FetchError(response.status >= 300 && response.status < 400 ? 'redirected' : 'status', response.status)
    }
    text = await readText(response)
  } catch (error) {
    if (error instanceof FetchError) throw error
    throw new FetchError(signal.aborted ? 'timeout' : 'unreachable')
  }
  try {
    return parseJsonObject(text)
  } catch {
    throw new FetchError('not_json', 200)
  }
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength
    if (length > MAX_RESPONSE_BYTES) throw new FetchError('too_large', response.status)
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(length)
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.byteLength
  }
  try {
    return decoder.decode(bytes)
  } catch {
    throw new FetchError('not_json', response.status)
  }
}
