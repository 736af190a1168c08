/** The JWKS as the whole world gets it: found through discovery, and named by its SHA-256 (D3). */

import { createHash } from 'node:crypto'
import { endpointUrlProblem } from '../../worker/endpoint_url.ts'
import { parseJsonObject } from '../../worker/strict_json.ts'
import { isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { requestBytes, requestJson } from '../request.ts'

export interface PublishedKeys {
  readonly url: string
  /** Of the octets as they came. */
  readonly sha256: string
  readonly kids: ReadonlySet<string>
}

/**
 * @throws Failure
 * @see [OpenID Connect Discovery §4](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig)
 */
export async function fetchPublishedKeys(issuer: string): Promise<PublishedKeys> {
  const discovery = `${issuer}/.well-known/openid-configuration`
  const { status, body } = await requestJson(discovery, discovery)
  if (status !== 200 || !body) throw new Failure(`${discovery}: answers ${status}, or with something that is not JSON`)
  if (body.issuer !== issuer) throw new Failure(`${discovery}: is of another issuer`)
  const { jwks_uri: url } = body
  if (
    typeof url !== 'string' ||
    endpointUrlProblem(url, true) !== null ||
    new URL(url).origin !== new URL(issuer).origin
  )
    throw new Failure(`${discovery}: has no jwks_uri at this issuer`)
  const answer = await requestBytes(url, url)
  if (answer.status !== 200) throw new Failure(`${url}: answers ${answer.status}`)
  const kids = kidsIn(answer.bytes.toString('utf8'))
  if (!kids) throw new Failure(`${url}: the answer is no JWK Set`)
  return { url, sha256: createHash('sha256').update(answer.bytes).digest('hex'), kids }
}

function kidsIn(text: string): Set<string> | null {
  try {
    const { keys } = parseJsonObject(text)
    if (!Array.isArray(keys)) return null
    const kids = keys.map((key) => (isRecord(key) ? key.kid : undefined))
    // A key without a name could be the one that is looked for.
    return kids.every((kid) => typeof kid === 'string') ? new Set(kids) : null
  } catch {
    return null
  }
}
