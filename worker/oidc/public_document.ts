/** Documents that anybody may read and every cache may keep for a moment. */

/**
 * Longer, and a verifier that has just fetched the JWKS refuses a new key until its copy is nearly that old.
 * kube-apiserver's counts itself a shared cache, so `s-maxage` would do the same and is never sent (D3).
 */
const MAX_AGE_SECONDS = 30

const encoder = new TextEncoder()

/** A document with everything about it that does not depend on who asks. Made once for each new content. */
export interface PublicDocument {
  readonly body: Uint8Array
  readonly headers: Headers
  readonly etag: string
  /** Of the body, in hexadecimal. */
  readonly sha256: string
}

/** @param text JSON; its SHA-256 becomes the ETag, so equal documents have equal ones everywhere */
export async function publicDocument(text: string): Promise<PublicDocument> {
  const body = encoder.encode(text)
  const sha256 = new Uint8Array(await crypto.subtle.digest('SHA-256', body)).toHex()
  const etag = `"sha256:${sha256}"`
  const headers = new Headers({
    // The JWKS too: not every relying party knows application/jwk-set+json.
    'content-type': 'application/json',
    'cache-control': `public, max-age=${MAX_AGE_SECONDS}`,
    etag,
    'access-control-allow-origin': '*',
    'x-content-type-options': 'nosniff',
  })
  return { body, headers, etag, sha256 }
}

/**
 * @returns 200 or 304; the body of a HEAD is left out by the router
 * @see [RFC 9110 §13.1.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2)
 */
export function servePublicDocument(request: Request, { body, headers, etag }: PublicDocument): Response {
  const condition = request.headers.get('if-none-match')
  if (condition !== null && matches(condition, etag)) return new Response(null, { status: 304, headers })
  return new Response(body, { headers })
}

/** Answer to a browser that asks beforehand whether a page of another origin may read the document. */
export function preflight(): Response {
  return new Response(null, {
    status: 204,
    headers: {
      allow: 'GET, HEAD, OPTIONS',
      'access-control-allow-origin': '*',
      'access-control-allow-methods': 'GET, HEAD, OPTIONS',
      'access-control-max-age': '86400',
    },
  })
}

function matches(condition: string, etag: string): boolean {
  return condition.split(',').some((entry) => {
    const candidate = entry.trim()
    return candidate === '*' || candidate === etag || candidate === `W/${etag}`
  })
}
