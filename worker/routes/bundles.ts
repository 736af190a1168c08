/**
 * `GET /bundles`: a subject token in, the bundles out that its workload may verify SVIDs with. Our own can be had by anybody; which other
 * trust domains we believe, and which of them this workload is to, is not said to strangers (T-24).
 *
 * @see [SPIFFE Trust Domain and Bundle §5](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md)
 */

import { Decision, type Log } from '../audit.ts'
import { renderForeignBundle } from '../federation/rendered_bundle.ts'
import { type IssueDeps, type TrustedBundles, trustedBundles } from '../issue.ts'
import { Refusal } from '../refusal.ts'
import { readBearer } from './read_bearer.ts'
import { jsonText, oauthError } from './respond.ts'

const decoder = new TextDecoder()
const encoder = new TextEncoder()

/**
 * @returns 200 with a bundle map, or an error of the same form as the token endpoint's. Either way one line is in the log.
 */
export async function giveBundles(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('bundles', deps.now())
  try {
    if (request.url.includes('?')) throw new Refusal('request_malformed', 'has a query')
    const subjectToken = readBearer(request)
    if (subjectToken === null) throw new Refusal('bearer_missing', 'no bearer token')
    return jsonText(await renderMap(await trustedBundles({ door: 'bundles', subjectToken }, deps, decision)))
  } catch (error) {
    return oauthError(decision.refused(error), decision.id)
  } finally {
    await decision.write(deps.log)
  }
}

/**
 * A bundle map (BU-11), and beside it which of them is our own, and something that is another when the workload can have other SVIDs: so who
 * looks at the bundles notices, and needs no signature for it.
 */
async function renderMap({ trustDomain, own, federated, terms }: TrustedBundles): Promise<string> {
  const bundles = [`${JSON.stringify(trustDomain.name)}:${decoder.decode(own.body)}`]
  for (const [name, bundle] of federated) bundles.push(`${JSON.stringify(name)}:${await renderForeignBundle(bundle)}`)
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', encoder.encode(terms)))
  const members = [
    `"trust_domain":${JSON.stringify(trustDomain.name)}`,
    `"terms":"${digest.toHex()}"`,
    `"trust_domains":{${bundles.join(',')}}`,
  ]
  return `{${members.join(',')}}`
}
