/**
 * One bounded HTTP request with one answer, over a connection of its own and over the trust anchors that it is told of. `fetch` takes no CA and no
 * client certificate, and a bearer must not follow a redirect; hence `node:https`.
 */

import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'
import { parseJsonObject } from '../worker/strict_json.ts'
import { Failure } from './failure.ts'

/** An API server on another continent under load answers sooner. */
const TIMEOUT_MS = 30_000
/** All objects of a large deployment, with the keys of a hundred clusters, are smaller. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

/** How the server is known, and how we are known to it. */
export interface Tls {
  /** PEM. Absent: the roots of this Node, and NODE_EXTRA_CA_CERTS. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  /** Where the certificate has another name than the URL. */
  readonly servername?: string
  readonly minVersion?: 'TLSv1.2'
  /** Whether each certificate of `ca` is trusted by itself, also one that another has signed. */
  readonly allowPartialTrustChain?: boolean
  /** In the place of comparing names. What it does not look at, its caller has to. */
  readonly checkServerIdentity?: () => undefined
}

interface Head {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

export interface Answer extends Head {
  /** null if it is no JSON object. */
  readonly body: Readonly<Record<string, unknown>> | null
}

export interface RawAnswer extends Head {
  /** As they came. */
  readonly bytes: Buffer
  /** Of the server, DER, its own first; none without TLS. */
  readonly certificates: readonly Uint8Array<ArrayBuffer>[]
}

/** No whole answer in time. It may be otherwise a moment later, unlike where a certificate is not trusted. */
export class Unreachable extends Failure {}

export interface RequestOptions {
  readonly method?: string
  readonly bearer?: string
  /** They go before those that follow from the rest. */
  readonly headers?: Readonly<Record<string, string>>
  /** A form, or what becomes JSON. */
  readonly body?: URLSearchParams | object
  readonly tls?: Tls
  readonly timeoutMs?: number
  /** More than this is an error. */
  readonly maxBytes?: number
  /** Breaks it off. */
  readonly signal?: AbortSignal
}

/**
 * @param who is named in messages
 * @returns the answer, whatever its status. No redirect is followed
 * @throws Unreachable, Failure
 */
export async function requestJson(url: string, who: string, options: RequestOptions = {}): Promise<Answer> {
  const { bytes, status, headers } = await requestBytes(url, who, options)
  return { status, headers, body: parse(bytes.toString('utf8')) }
}

/**
 * The same, for what is no JSON, or must be looked at octet for octet.
 *
 * @param accept what kind of answer is asked for
 * @throws Unreachable, Failure
 */
export function requestBytes(
  url: string,
  who: string,
  options: RequestOptions = {},
  // kube-apiserver answers 406 for its JWKS to somebody who takes only application/json.
  accept = 'application/json, application/jwk-set+json',
): Promise<RawAnswer> {
  const { method = 'GET', bearer, headers: given = {}, body, tls = {}, timeoutMs = TIMEOUT_MS } = options
  const { maxBytes = MAX_ANSWER_BYTES } = options
  const form = body instanceof URLSearchParams
  const content = body === undefined ? undefined : form ? body.toString() : JSON.stringify(body)
  const headers = {
    accept,
    ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
    ...(content !== undefined && {
      'content-type': form ? 'application/x-www-form-urlencoded' : 'application/json',
      'content-length': Buffer.byteLength(content),
    }),
    ...given,
  }
  const late = AbortSignal.timeout(timeoutMs)
  const signal = options.signal ? AbortSignal.any([late, options.signal]) : late
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(failureOf(error, who, late.aborted ? timeoutMs : null))
    try {
      const secure = url.startsWith('https:')
      // Said outright, so that NODE_TLS_REJECT_UNAUTHORIZED cannot say otherwise.
      const settings = { method, headers, signal, agent: false, ...(secure && { ...tls, rejectUnauthorized: true }) }
      const request = (secure ? httpsRequest : httpRequest)(url, settings, (response) => {
        const chunks: Buffer[] = []
        let length = 0
        const certificates = secure ? chainOf(response.socket as TLSSocket) : []
        response.on('data', (chunk: Buffer) => {
          length += chunk.length
          if (length > maxBytes) request.destroy(new RangeError())
          else chunks.push(chunk)
        })
        response.on('error', fail)
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            bytes: Buffer.concat(chunks),
            certificates,
          }),
        )
      })
      request.on('error', fail).end(content)
    } catch (error) {
      // A key or certificate that OpenSSL cannot read.
      fail(error)
    }
  })
}

/** @returns the path that was built: a root stands for its own issuer */
function chainOf(socket: TLSSocket): Uint8Array<ArrayBuffer>[] {
  const chain: Uint8Array<ArrayBuffer>[] = []
  const seen = new Set<string>()
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (certificate?.raw && !seen.has(certificate.fingerprint256)) {
    seen.add(certificate.fingerprint256)
    chain.push(new Uint8Array(certificate.raw))
    certificate = certificate.issuerCertificate
  }
  return chain
}

function parse(text: string): Record<string, unknown> | null {
  try {
    return parseJsonObject(text)
  } catch {
    return null
  }
}

/**
 * By the code alone: messages may repeat what was sent.
 *
 * @param timedOutMs null if the time was not up
 */
function failureOf(error: unknown, who: string, timedOutMs: number | null): Failure {
  if (timedOutMs !== null) return new Unreachable(`${who}: no answer within ${timedOutMs / 1000} s`)
  if (error instanceof RangeError) return new Failure(`${who}: the answer is too large`)
  const { code } = error as NodeJS.ErrnoException
  if (typeof code !== 'string') return new Unreachable(`${who}: cannot be reached`)
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return new Failure(`${who}: its certificate is for another name`)
  if (/CERT|SIGNATURE|ISSUER/.test(code)) return new Failure(`${who}: its certificate is not trusted (${code})`)
  return new Unreachable(`${who}: cannot be reached (${code})`)
}
