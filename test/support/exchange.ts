/** The client's side of RFC 8693, over any trust anchors. */

import { type Agent, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const JWT_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:jwt'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/**
 * One request.
 *
 * @param options `ca` is the PEM certificate that the server's must chain to; without an `agent` the connection is the
 *   request's own
 */
export function send(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; ca?: string; agent?: Agent } = {},
): Promise<Answer> {
  const { body, ...rest } = options
  const request = url.startsWith('https:') ? httpsRequest : httpRequest
  return new Promise((done, failed) => {
    request(url, { agent: false, ...rest }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => done({ status: response.statusCode ?? 0, headers: response.headers, text }))
      response.on('error', failed)
    })
      .on('error', failed)
      .end(body)
  })
}

/** @returns the answer of the token endpoint, its body parsed */
export async function exchange(
  issuer: string,
  subjectToken: string,
  { ca, ...fields }: { ca?: string; audience?: string } = {},
): Promise<Answer & { readonly body: Record<string, string> }> {
  const form = new URLSearchParams({
    grant_type: TOKEN_EXCHANGE,
    subject_token_type: JWT_TOKEN_TYPE,
    subject_token: subjectToken,
    ...fields,
  })
  const answer = await send(`${issuer}/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: form.toString(),
    ...(ca !== undefined && { ca }),
  })
  return { ...answer, body: JSON.parse(answer.text) }
}
