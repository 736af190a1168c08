/** The trust domain's bundle as the whole world gets it: which authorities for X.509-SVIDs are in it. */

import { calculateJwkThumbprint, type JWK } from 'jose'
import { parseJsonObject } from '../../worker/strict_json.ts'
import { isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { requestBytes } from '../request.ts'

export interface PublishedBundle {
  readonly url: string
  /** RFC 7638 thumbprints of the keys of the authorities: what the worker calls them by. */
  readonly authorities: ReadonlySet<string>
  /** How long readers are told to keep it, in seconds; null if they are not told. */
  readonly refreshHint: number | null
}

/**
 * @throws Failure
 * @see [SPIFFE bundle §4](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#4-spiffe-bundle-format)
 */
export async function fetchPublishedBundle(issuer: string): Promise<PublishedBundle> {
  const url = `${issuer}/bundle`
  const { status, bytes } = await requestBytes(url, url)
  if (status !== 200) throw new Failure(`${url}: answers ${status}`)
  try {
    const { keys, spiffe_refresh_hint: hint } = parseJsonObject(bytes.toString('utf8'))
    if (!Array.isArray(keys)) throw new TypeError('no keys')
    const authorities = keys.filter((key) => isRecord(key) && key.use === 'x509-svid') as JWK[]
    const thumbprints = await Promise.all(authorities.map((key) => calculateJwkThumbprint(key)))
    return { url, authorities: new Set(thumbprints), refreshHint: Number.isSafeInteger(hint) ? (hint as number) : null }
  } catch {
    throw new Failure(`${url}: the answer is no bundle`)
  }
}
