/**
 * The bundle endpoint of another trust domain, as an administrator's machine reads it. Here both profiles can be done, because
 * Node shows the certificate of a server (T-22).
 *
 * @see [SPIFFE Federation §5](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md)
 */

import { endpointUrlProblem } from '../../worker/endpoint_url.ts'
import { type ForeignBundle, ForeignBundleError, parseForeignBundle } from '../../worker/federation/foreign_bundle.ts'
import type { SpiffeId } from '../../worker/spiffe/id.ts'
import { validateX509Svid, X509SvidError } from '../../worker/spiffe/x509_validation.ts'
import { Failure } from '../failure.ts'
import { type RawAnswer, requestBytes, type Tls } from '../request.ts'
import { printable } from '../terminal.ts'

/** As the worker has it. */
const MAX_BUNDLE_BYTES = 1024 * 1024
const MAX_REDIRECTS = 3

/** Who an endpoint must be, where it is known by its SPIFFE ID. */
export interface EndpointIdentity {
  readonly spiffeId: SpiffeId
  /** Of the trust domain of that SPIFFE ID, which may be another than the one whose bundle is fetched. */
  readonly bundle: ForeignBundle
}

export interface FetchedBundle {
  /** As it came. */
  readonly text: string
  readonly bundle: ForeignBundle
}

/**
 * @param identity null for a server that is known by its name and a public CA: profile https_web
 * @throws Failure
 * @see FE-6 to FE-8
 */
export async function fetchBundle(url: string, identity: EndpointIdentity | null): Promise<FetchedBundle> {
  let at = url
  for (let redirects = 0; ; redirects++) {
    const answer = await request(at, identity)
    if (answer.status === 200) return judge(answer)
    const { location } = answer.headers
    const isRedirect = answer.status >= 300 && answer.status < 400 && typeof location === 'string'
    if (!isRedirect) throw new Failure(`the bundle endpoint answers ${answer.status}`)
    const next = URL.parse(location, at)?.href ?? ''
    // Each target is judged as the endpoint was, and must be the same SPIFFE ID.
    if (redirects === MAX_REDIRECTS || endpointUrlProblem(next, false, true) !== null)
      throw new Failure('the bundle endpoint sends us on to where nobody may be sent, or too often')
    at = next
  }
}

/**
 * @param what names the text in messages
 * @throws Failure
 */
export async function readBundle(text: string, what: string): Promise<ForeignBundle> {
  try {
    return await parseForeignBundle(text)
  } catch (error) {
    if (error instanceof ForeignBundleError) throw new Failure(`${printable(what)}: ${error.message}`)
    throw error
  }
}

async function judge({ bytes }: RawAnswer): Promise<FetchedBundle> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new Failure('the bundle endpoint: the answer is no UTF-8')
  }
  return { text, bundle: await readBundle(text, 'the bundle endpoint') }
}

async function request(url: string, identity: EndpointIdentity | null): Promise<RawAnswer> {
  const tls = identity ? spiffeTls(identity) : {}
  const answer = await requestBytes(url, 'the bundle endpoint', { tls, maxBytes: MAX_BUNDLE_BYTES }, 'application/json')
  if (identity) await checkServer(answer.certificates, identity)
  return answer
}

/** OpenSSL builds the path to one of these authorities and no others. Who the server is, its name does not say. */
function spiffeTls({ bundle }: EndpointIdentity): Tls {
  return {
    ca: bundle.x509Authorities.map(({ der }) => pem(der)).join(''),
    minVersion: 'TLSv1.2',
    allowPartialTrustChain: true,
    checkServerIdentity: () => undefined,
  }
}

/**
 * FE-7: the server must be an X509-SVID of just that SPIFFE ID. Nothing of its answer is looked at before.
 *
 * @throws Failure
 */
async function checkServer(
  certificates: readonly Uint8Array<ArrayBuffer>[],
  { spiffeId, bundle }: EndpointIdentity,
): Promise<void> {
  const bundles = new Map([[spiffeId.trustDomain.name, bundle.x509Authorities.map(({ der }) => der)]])
  try {
    const svid = await validateX509Svid(certificates, bundles, Math.floor(Date.now() / 1000))
    if (svid.spiffeId.toString() !== spiffeId.toString())
      throw new Failure(`the bundle endpoint is ${svid.spiffeId}, and not ${spiffeId}`)
  } catch (error) {
    if (error instanceof X509SvidError) throw new Failure(`the bundle endpoint: ${error.message}`)
    throw error
  }
}

function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`
}
