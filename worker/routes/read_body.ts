/** Reads a form, with every bound and every strictness that RFC 6749 asks for; and JSON, with the same bounds. */

import { Refusal } from '../refusal.ts'
import { parseJsonObject } from '../strict_json.ts'

/** Four times the largest token, with room for everything else a request can say. */
const MAX_BODY_BYTES = 64 * 1024

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const FORM = /^application\/x-www-form-urlencoded(?:\s*;\s*charset="?utf-8"?)?\s*$/i

/**
 * @param repeatable names that may be given more than once
 * @returns all values by name. A parameter without a value counts as absent.
 * @throws Refusal
 * @see [RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2)
 */
export async function readForm(
  request: Request,
  repeatable: readonly string[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  if (!FORM.test(request.headers.get('content-type') ?? '')) throw new Refusal('request_malformed', 'not a form')
  if (request.url.includes('?')) throw new Refusal('request_malformed', 'has a query')
  const form = new Map<string, string[]>()
  // The `&` keeps a question mark at the beginning, which would otherwise be taken off as that of a URL.
  for (const [name, value] of new URLSearchParams(`&${await readText(request, MAX_BODY_BYTES, 'request_malformed')}`)) {
    if (value === '') continue
    const values = form.get(name)
    if (!values) form.set(name, [value])
    else if (repeatable.includes(name)) values.push(value)
    else throw new Refusal('parameter_repeated', /^[a-z_]{1,32}$/.test(name) ? name : 'a name that is none of ours')
  }
  return form
}

const JSON_TYPE = /^application\/json(?:\s*;\s*charset="?utf-8"?)?\s*$/i

/**
 * @param maxBytes of the body
 * @returns the object that the body is
 * @throws Refusal
 */
export async function readJson(
  request: Request,
  maxBytes: number = MAX_BODY_BYTES,
): Promise<Readonly<Record<string, unknown>>> {
  if (!JSON_TYPE.test(request.headers.get('content-type') ?? '')) throw new Refusal('json_malformed', 'not JSON')
  if (request.url.includes('?')) throw new Refusal('json_malformed', 'has a query')
  const text = await readText(request, maxBytes, 'json_malformed')
  try {
    return parseJsonObject(text)
  } catch {
    throw new Refusal('json_malformed', 'not one JSON object')
  }
}

/**
 * As Vault's clients send it: JSON whatever the type is said to be, a form, or nothing. `curl --data` says of JSON that it is a
 * form, so what begins like JSON is none.
 *
 * @returns the parameters
 * @throws Refusal
 */
export async function readVaultBody(request: Request): Promise<Readonly<Record<string, unknown>>> {
  const text = await readText(request, MAX_BODY_BYTES, 'json_malformed')
  if (text.trim() === '') return {}
  const isForm = FORM.test(request.headers.get('content-type') ?? '') && !text.trimStart().startsWith('{')
  if (isForm) return Object.fromEntries(new URLSearchParams(text))
  try {
    return parseJsonObject(text)
  } catch {
    throw new Refusal('json_malformed', 'not one JSON object')
  }
}

async function readText(
  request: Request,
  maxBytes: number,
  malformed: 'request_malformed' | 'json_malformed',
): Promise<string> {
  const declared = request.headers.get('content-length')
  if (declared !== null && Number(declared) > maxBytes) throw new Refusal('request_too_large', 'by its content-length')
  try {
    // A body is never longer than it was declared to be, and reading it in one piece costs a fraction.
    return decoder.decode(declared === null ? await readBounded(request.body, maxBytes) : await request.arrayBuffer())
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal(malformed, 'not UTF-8, or broken off')
  }
}

async function readBounded(body: ReadableStream<Uint8Array> | null, maxBytes: number): Promise<ArrayBuffer> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of body ?? []) {
    length += chunk.byteLength
    if (length > maxBytes) throw new Refusal('request_too_large', 'by its body')
    chunks.push(chunk)
  }
  return new Blob(chunks).arrayBuffer()
}
