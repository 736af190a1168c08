/** The one form that a bearer token has in a header; what another scheme says is no token. */
const BEARER = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i

/**
 * @returns the token, which need not be any good; null if there is none
 * @see [RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)
 */
export function readBearer(request: Request): string | null {
  return BEARER.exec(request.headers.get('authorization') ?? '')?.[1] ?? null
}
