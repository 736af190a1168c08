/**
 * A worker's doors for workloads, from the outside: a subject token in, an SVID out.
 *
 * @see [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)
 */

import { Failure } from './failure.ts'
import { isMadeOutTo, readJwtSvid } from './jwt_svid.ts'
import { NotYet } from './patience.ts'
import { type Answer, type RequestOptions, requestJson, Unreachable } from './request.ts'
import { printable } from './terminal.ts'

const TOKEN_EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'
const JWT_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:jwt'
const MAX_SAID_CHARACTERS = 300
/** Many times what a token takes. */
const MAX_TOKEN_ANSWER_BYTES = 256 * 1024
/** A reason, or the id of a decision: nothing that a token could be. */
const NAME = /^[\w-]{1,64}$/

/** The issuer has decided: to ask again is of no use until somebody has changed something. */
export class Refused extends Failure {
  /** `reason` of the answer, as in the worker's log; null if it has none. */
  readonly reason: string | null

  constructor(message: string, reason: string | null) {
    super(message)
    this.reason = reason
  }
}

/** How long to wait for the answer, and what else ends that. */
export type Patience = Pick<RequestOptions, 'timeoutMs' | 'signal'>

export interface Exchange extends Patience {
  readonly issuer: string
  readonly subjectToken: string
  readonly audience: readonly string[]
  /** Which identity; null leaves it to the issuer. */
  readonly spiffeId: string | null
}

export interface JwtSvid {
  readonly spiffeId: string
  /** JWS Compact Serialization. */
  readonly svid: string
  /** Its `exp`, in seconds since the epoch. */
  readonly expiresAt: number
  readonly hint: string | null
}

export interface Certification extends Patience {
  readonly issuer: string
  readonly subjectToken: string
  /** PKCS #10, PEM. */
  readonly csr: string
  readonly spiffeId: string | null
}

/** Certificates are DER. Nothing of them has been checked. */
export interface X509Svid {
  readonly spiffeId: string
  /** The leaf first. */
  readonly chain: readonly Uint8Array[]
  readonly bundle: readonly Uint8Array[]
  /** By the name of their trust domain. */
  readonly federatedBundles: ReadonlyMap<string, readonly Uint8Array[]>
  /** Seconds since the epoch. */
  readonly expiresAt: number
  readonly hint: string | null
}

/**
 * `POST /token`.
 *
 * @throws NotYet, Refused, Failure
 */
export async function exchangeToken(exchange: Exchange): Promise<JwtSvid> {
  const { issuer, subjectToken, audience, spiffeId, ...patience } = exchange
  const body = new URLSearchParams([
    ['grant_type', TOKEN_EXCHANGE_GRANT],
    ['subject_token_type', JWT_TOKEN_TYPE],
    ['subject_token', subjectToken],
    ...audience.map((one) => ['audience', one]),
    ...(spiffeId === null ? [] : [['spiffe_id', spiffeId]]),
  ])
  const { access_token: svid, hint } = await ask(issuer, 'token', {
    ...{ method: 'POST', body, maxBytes: MAX_TOKEN_ANSWER_BYTES },
    ...patience,
  })
  const claims = typeof svid === 'string' ? readJwtSvid(svid) : null
  if (!claims || !isMadeOutTo(claims.audience, audience) || (spiffeId !== null && claims.spiffeId !== spiffeId))
    throw new Failure(`${issuer} answers with something that is not the JWT-SVID that was asked for`)
  const { expiresAt } = claims
  return { spiffeId: claims.spiffeId, svid: svid as string, expiresAt, hint: typeof hint === 'string' ? hint : null }
}

/**
 * `POST /svid/x509`.
 *
 * @throws NotYet, Refused, Failure
 */
export async function certify(certification: Certification): Promise<X509Svid> {
  const { issuer, subjectToken, csr, spiffeId, ...patience } = certification
  const answer = await ask(issuer, 'svid/x509', {
    method: 'POST',
    bearer: subjectToken,
    body: { csr, ...(spiffeId !== null && { spiffe_id: spiffeId }) },
    ...patience,
  })
  const { spiffe_id: certified, x509_svid: chain, bundle, federated_bundles: federated = {}, hint } = answer
  const expiresAt = answer.expires_at
  if (
    typeof certified !== 'string' ||
    typeof chain !== 'string' ||
    typeof bundle !== 'string' ||
    !isTexts(federated) ||
    !Number.isSafeInteger(expiresAt)
  )
    throw new Failure(`${issuer} answers with something that is not an X.509-SVID`)
  return {
    spiffeId: certified,
    chain: certificates(chain),
    bundle: certificates(bundle),
    federatedBundles: new Map(Object.entries(federated).map(([name, text]) => [name, certificates(text)])),
    expiresAt: expiresAt as number,
    hint: typeof hint === 'string' ? hint : null,
  }
}

/** What a workload may verify SVIDs with. Nothing of it has been checked. */
export interface BundleMap {
  /** The name of our own trust domain. */
  readonly trustDomain: string
  /** SPIFFE bundles, JSON text each, by the name of their trust domain. */
  readonly bundles: ReadonlyMap<string, string>
  /** The same text as long as the SVIDs that the workload can have are the same; null if the issuer does not say. */
  readonly terms: string | null
}

/**
 * `GET /bundles`.
 *
 * @throws NotYet, Refused, Failure
 */
export async function fetchBundleMap(
  issuer: string,
  subjectToken: string,
  patience: Patience = {},
): Promise<BundleMap> {
  const answer = await ask(issuer, 'bundles', { bearer: subjectToken, ...patience })
  const { trust_domain: trustDomain, trust_domains: bundles, terms } = answer
  if (typeof trustDomain !== 'string' || typeof bundles !== 'object' || bundles === null || Array.isArray(bundles))
    throw new Failure(`${issuer} answers with something that is not a bundle map`)
  const texts = Object.entries(bundles).map(([name, bundle]) => [name, JSON.stringify(bundle)] as const)
  return { trustDomain, bundles: new Map(texts), terms: typeof terms === 'string' ? terms : null }
}

async function ask(issuer: string, path: string, options: RequestOptions): Promise<NonNullable<Answer['body']>> {
  let answer: Answer
  try {
    answer = await requestJson(`${issuer}/${path}`, issuer, options)
  } catch (error) {
    if (error instanceof Unreachable) throw new NotYet(error.message)
    throw error
  }
  const { status, headers, body } = answer
  if (status === 200 && body) return body
  if (status === 200) throw new Failure(`${issuer} answers with something that is not JSON`)
  const { error_description: description, reason, id } = body ?? {}
  const said = typeof description === 'string' ? `: ${quote(description)}` : ''
  const reference = typeof id === 'string' && NAME.test(id) ? ` (${id})` : ''
  if (status >= 500 || status === 429)
    throw new NotYet(`${issuer} cannot do it at the moment (${status})${said}${reference}`, retryAfterMs(headers))
  throw new Refused(
    `${issuer} refuses (${status})${said}${reference}`,
    typeof reason === 'string' && NAME.test(reason) ? reason : null,
  )
}

/** Whoever answers has our token, and may repeat it: what is shown has no word as long as a token. */
function quote(description: string): string {
  return printable(description.replace(/[\w.-]{64,}/g, '…').slice(0, MAX_SAID_CHARACTERS))
}

/** @see [RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3), of which the worker uses the seconds */
function retryAfterMs({ 'retry-after': value }: Answer['headers']): number {
  return typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) * 1000 : 0
}

function isTexts(value: unknown): value is Record<string, string> {
  return typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string')
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----/g

function certificates(pem: string): Uint8Array[] {
  return [...pem.matchAll(CERTIFICATE)].map(([, base64 = '']) => new Uint8Array(Buffer.from(base64, 'base64')))
}
