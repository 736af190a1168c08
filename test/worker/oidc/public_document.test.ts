import { describe, expect, test } from 'vitest'
import { preflight, publicDocument, servePublicDocument } from '../../../worker/oidc/public_document.ts'

const TEXT = '{"keys":[]}'
/** Of the text above, by another program: `printf %s … | sha256sum`. */
const ETAG = '"sha256:9638d11914735d0072002dd4d67c734a94ee7a0cd845e6dcbc984ee7581860a7"'

async function get(headers: Record<string, string> = {}): Promise<Response> {
  return servePublicDocument(new Request('https://issuer.example.org/keys', { headers }), await publicDocument(TEXT))
}

describe('a public document', () => {
  test('OD-2, OD-7: is JSON, word for word', async () => {
    const answer = await get()
    expect([answer.status, await answer.text(), answer.headers.get('content-type')]).toEqual([
      200,
      TEXT,
      'application/json',
    ])
  })

  test('D3: may be kept for 30 s by anybody, and no longer by shared caches', async () => {
    const { headers } = await get()
    expect(headers.get('cache-control')).toBe('public, max-age=30')
    expect(headers.get('cache-control')).not.toContain('s-maxage')
    for (const name of ['expires', 'vary', 'set-cookie', 'cdn-cache-control', 'surrogate-control'])
      expect(headers.has(name)).toBe(false)
  })

  test('OD-9: may be read by pages of other origins, and is not guessed at', async () => {
    const { headers } = await get()
    expect([headers.get('access-control-allow-origin'), headers.get('x-content-type-options')]).toEqual([
      '*',
      'nosniff',
    ])
  })

  test('D3: is named by the SHA-256 of its bytes, which an API server exports too', async () => {
    expect((await get()).headers.get('etag')).toBe(ETAG)
    expect((await publicDocument(TEXT)).etag).toBe(ETAG)
    expect((await publicDocument(`${TEXT} `)).etag).not.toBe(ETAG)
  })

  test('can be served more than once', async () => {
    const document = await publicDocument(TEXT)
    const request = new Request('https://issuer.example.org/keys')
    for (let times = 0; times < 3; times++) expect(await servePublicDocument(request, document).text()).toBe(TEXT)
  })
})

describe('RFC 9110 §13.1.2: a client that has it already', () => {
  test.each([ETAG, `W/${ETAG}`, '*', `"other", ${ETAG}`, `"other",W/${ETAG} , "more"`])(
    'with %s gets 304 and no body',
    async (condition) => {
      const answer = await get({ 'if-none-match': condition })
      expect([answer.status, await answer.text()]).toEqual([304, ''])
      expect([answer.headers.get('etag'), answer.headers.get('cache-control')]).toEqual([ETAG, 'public, max-age=30'])
    },
  )

  test.each(['"other"', ETAG.slice(1, -1), ETAG.toUpperCase(), '', `${ETAG}x`, 'W/*'])(
    'with %j gets it again',
    async (condition) => {
      expect((await get({ 'if-none-match': condition })).status).toBe(200)
    },
  )
})

test('Fetch §3.2.2: a browser that asks beforehand is told that anybody may read', () => {
  const { status, headers } = preflight()
  expect([status, headers.get('access-control-allow-origin'), headers.get('access-control-allow-methods')]).toEqual([
    204,
    '*',
    'GET, HEAD, OPTIONS',
  ])
  // T-11: no cookies anywhere.
  expect(headers.has('access-control-allow-credentials')).toBe(false)
})
