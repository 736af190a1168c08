/** The worker's only outbound HTTP besides KMS: one bounded request, and an answer of bounded size. */

import { parseJsonObject } from './strict_json.ts'

/** Long enough for an API server on another continent, short enough not to hold a pod's request for long. */
export const FETCH_TIMEOUT_MS = 5000
/** A JWK Set of a hundred RSA-4096 keys with certificates is smaller. */
const MAX_RESPONSE_BYTES = 1024 * 1024

/** JSON, and a JWK Set by its own name: kube-apiserver answers 406 for its keys to who does not name that (SA-9). */
const ACCEPT = 'application/json, application/jwk-set+json'

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export type FetchErrorCode = 'unreachable' | 'timeout' | 'redirected' | 'status' | 'too_large' | 'not_json'

/** What requests can be sent through: a binding of the platform that reaches one service. */
export interface HttpService {
  fetch(url: string, init: RequestInit): Promise<Response>
}

export function isHttpService(value: unknown): value is HttpService {
  return typeof value === 'object' && value !== null && typeof (value as { fetch?: unknown }).fetch === 'function'
}

export interface FetchOptions {
  /** When to give up; the usual time from now if this is the only request there is to make. */
  readonly signal?: AbortSignal | undefined
  /** What reaches the host; null is the public internet. */
  readonly through?: HttpService | null | undefined
  readonly bearer?: string | undefined
  /** What to POST, as JSON. Without it the request is a GET. */
  readonly post?: object | undefined
}

/** Thrown by {@link fetchJson}. Never holds any of the request or answer. */
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
 * @returns the object that a 200 answer holds, or the 201 to a POST
 * @throws FetchError: no redirect is followed, and an answer must be complete in time and within 1 MiB
 */
export async function fetchJson(url: string, options: FetchOptions = {}): Promise<Record<string, unknown>> {
  const text = await fetchText(url, options)
  try {
    return parseJsonObject(text)
  } catch {
    throw new FetchError('not_json', 200)
  }
}

/**
 * @returns the same as text, whatever it is
 * @throws FetchError, as {@link fetchJson} does; `not_json` is text that is no UTF-8
 */
export async function fetchText(url: string, options: FetchOptions = {}): Promise<string> {
  const answer = await request(url, options)
  if (typeof answer !== 'string') throw new FetchError('redirected', answer.status)
  return answer
}

/** A chain that is longer leads nowhere. */
const MAX_REDIRECTS = 3

/**
 * The same for a document that anybody may read, whose host may send us on. No other request is ever sent on.
 *
 * @param isAllowed whether a redirect may lead to that URL
 * @throws FetchError; `redirected` for one that leads to nowhere allowed, and for one too many
 */
export async function fetchPublicText(url: string, isAllowed: (url: string) => boolean): Promise<string> {
  const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS)
  let at = url
  for (let redirects = 0; ; redirects++) {
    const answer = await request(at, { signal })
    if (typeof answer === 'string') return answer
    const next = URL.parse(answer.location ?? '', at)
    if (redirects === MAX_REDIRECTS || answer.location === null || !next || !isAllowed(next.href))
      throw new FetchError('redirected', answer.status)
    at = next.href
  }
}

/** Where an answer sends us. */
interface Redirect {
  readonly status: number
  readonly location: string | null
}

async function request(url: string, options: FetchOptions): Promise<string | Redirect> {
  const { signal = AbortSignal.timeout(FETCH_TIMEOUT_MS), through, bearer, post } = options
  const init: RequestInit = {
    headers: {
      accept: ACCEPT,
      ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
      ...(post && { 'content-type': 'application/json' }),
    },
    ...(post && { method: 'POST', body: JSON.stringify(post) }),
    redirect: 'manual',
    signal,
  }
  try {
    const response = await (through ? through.fetch(url, init) : fetch(url, init))
    const { status } = response
    if (status === 200 || (post && status === 201)) return await readText(response)
    await response.body?.cancel()
    if (status >= 300 && status < 400) return { status, location: response.headers.get('location') }
    throw new FetchError('status', status)
  } catch (error) {
    if (error instanceof FetchError) throw error
    throw new FetchError(signal.aborted ? 'timeout' : 'unreachable')
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
