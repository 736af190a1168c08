/**
 * The other end of discovery: how we find the keys of an issuer that we have been told to trust.
 *
 * @see [OpenID Connect Discovery §4](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig)
 */

import { KeySetError } from '../../keys/key_set.ts'
import { endpointUrlProblem } from '../endpoint_url.ts'
import { fetchJson } from '../fetch_json.ts'

/**
 * @param issuer a URL from configuration, never one that a token brought
 * @param allowLoopbackHttp in development only
 * @param signal when to give up
 * @returns the issuer's `jwks_uri`
 * @throws FetchError, KeySetError
 */
export async function discoverJwksUri(
  issuer: string,
  allowLoopbackHttp: boolean,
  signal?: AbortSignal,
): Promise<string> {
  const document = await fetchJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, { signal })
  if (document.issuer !== issuer) throw new KeySetError('the discovery document is of another issuer')
  const { jwks_uri: url } = document
  if (typeof url !== 'string' || endpointUrlProblem(url, allowLoopbackHttp) !== null)
    throw new KeySetError('the discovery document has no acceptable jwks_uri')
  if (new URL(url).origin !== new URL(issuer).origin)
    throw new KeySetError('jwks_uri is on another host than the issuer')
  return url
}

/**
 * @returns the `keys` of the JWK Set at `url`, not looked into yet
 * @throws FetchError, KeySetError
 */
export async function fetchJwks(url: string, signal?: AbortSignal): Promise<readonly unknown[]> {
  const { keys } = await fetchJson(url, { signal })
  if (!Array.isArray(keys)) throw new KeySetError('the JWKS has no keys member')
  return keys
}
