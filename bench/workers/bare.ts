/**
 * The least that an exchange can do for the same answer: read the form, verify one signature, make another. There is no
 * check but the signature, no limit and no log. Keys are kept, base64url is the runtime's own.
 */

import { env } from 'cloudflare:workers'

const { ISSUER, SUBJECT_KEY, SIGNING_KEY } = env as unknown as {
  readonly ISSUER: string
  /** JWK, public */
  readonly SUBJECT_KEY: string
  /** JWK, private */
  readonly SIGNING_KEY: string
}
const RS256 = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
const ES256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const BASE64URL = { alphabet: 'base64url', omitPadding: true } as const

const encoder = new TextEncoder()
const decoder = new TextDecoder()
const headers = new Headers({ 'content-type': 'application/json', 'cache-control': 'no-store', pragma: 'no-cache' })
const { kid, ...signingJwk } = JSON.parse(SIGNING_KEY)
const svidHeader = encode({ alg: 'ES256', kid, typ: 'JWT' })

let keys: { readonly subject: CryptoKey; readonly signing: CryptoKey } | null = null

export default {
  async fetch(request) {
    keys ??= {
      subject: await crypto.subtle.importKey('jwk', JSON.parse(SUBJECT_KEY), RS256, false, ['verify']),
      signing: await crypto.subtle.importKey('jwk', signingJwk, ES256, false, ['sign']),
    }
    const form = new URLSearchParams(await request.text())
    const token = form.get('subject_token') ?? ''
    const [header, payload, signature] = token.split('.') as [string, string, string]
    const signed = encoder.encode(`${header}.${payload}`)
    if (!(await crypto.subtle.verify(RS256, keys.subject, decode(signature), signed)))
      return new Response(null, { status: 400 })

    const { namespace, serviceaccount } = JSON.parse(decoder.decode(decode(payload)))['kubernetes.io']
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: ISSUER,
      sub: `spiffe://example.org/ns/${namespace}/sa/${serviceaccount.name}`,
      aud: form.get('audience'),
      exp: now + 300,
      iat: now,
      jti: crypto.randomUUID(),
    }
    const signingInput = `${svidHeader}.${encode(claims)}`
    const made = await crypto.subtle.sign(ES256, keys.signing, encoder.encode(signingInput))
    const answer = {
      access_token: `${signingInput}.${new Uint8Array(made).toBase64(BASE64URL)}`,
      issued_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_type: 'Bearer',
      expires_in: 300,
    }
    return new Response(JSON.stringify(answer), { headers })
  },
} satisfies ExportedHandler

function encode(value: object): string {
  return encoder.encode(JSON.stringify(value)).toBase64(BASE64URL)
}

function decode(part: string): Uint8Array {
  return Uint8Array.fromBase64(part, { alphabet: 'base64url' })
}
