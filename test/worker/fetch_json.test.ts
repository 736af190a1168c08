import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { FetchError, type FetchErrorCode, fetchJson, fetchPublicText } from '../../worker/fetch_json.ts'
import {
  breakOff,
  endless,
  hang,
  hangInBody,
  json,
  Network,
  Patience,
  redirect,
  text,
} from '../support/cluster_network.ts'

const URL = 'https://east.example.org/keys'
const MIB = 1024 * 1024

let network: Network
let patience: Patience
beforeEach(() => {
  network = new Network()
  patience = new Patience()
  vi.stubGlobal('fetch', network.fetch)
  vi.spyOn(AbortSignal, 'timeout').mockImplementation(patience.timeout)
})
afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

/** @returns why there was no object, and the HTTP status if there was one; or null if all was well */
async function verdict(): Promise<[FetchErrorCode, number | null] | null> {
  try {
    await fetchJson(URL)
    return null
  } catch (error) {
    if (error instanceof FetchError) return [error.code, error.status]
    throw error
  }
}

describe('an answer that is good', () => {
  test('gives its object', async () => {
    network.serve(URL, json({ keys: [{ kid: 'ä' }] }))
    expect(await fetchJson(URL)).toEqual({ keys: [{ kid: 'ä' }] })
  })

  test.each(['application/json', 'application/jwk-set+json', 'text/plain', ''])(
    'SA-9: may call itself %j',
    async (type) => {
      network.serve(URL, text('{"a":1}', type))
      expect(await fetchJson(URL)).toEqual({ a: 1 })
    },
  )

  test('may be 1 MiB long', async () => {
    network.serve(URL, text(`{"a":"${'x'.repeat(MIB - 8)}"}`))
    expect(await verdict()).toBeNull()
  })

  test('is asked for with GET, and with no credentials', async () => {
    let asked: Request | null = null
    network.serve(URL, (request) => {
      asked = request
      return Response.json({})
    })
    await fetchJson(URL)
    const { method, headers, redirect: mode } = asked as unknown as Request
    expect([method, mode, [...headers]]).toEqual([
      'GET',
      'manual',
      [['accept', 'application/json, application/jwk-set+json']],
    ])
  })
})

describe('a request with more to it', () => {
  test('is a POST of JSON, as somebody, through a binding', async () => {
    const asked: Request[] = []
    const through = {
      async fetch(url: string, init: RequestInit) {
        asked.push(new Request(url, init))
        return Response.json({ ok: true }, { status: 201 })
      },
    }
    expect(await fetchJson(URL, { through, bearer: 'a.b.c', post: { ä: 1 } })).toEqual({ ok: true })
    expect(network.requests).toEqual([])
    const [request] = asked
    expect([request?.method, request?.redirect, Object.fromEntries(request?.headers ?? [])]).toEqual([
      'POST',
      'manual',
      {
        accept: 'application/json, application/jwk-set+json',
        authorization: 'Bearer a.b.c',
        'content-type': 'application/json',
      },
    ])
    expect(await request?.json()).toEqual({ ä: 1 })
  })

  test('which cannot be made is unreachable, and repeats nothing', async () => {
    const error = await fetchJson(URL, { bearer: 'two\nlines' }).catch((thrown: Error) => thrown)
    expect(error).toEqual(new FetchError('unreachable'))
  })
})

describe('12.6: an answer that is not', () => {
  test.each([301, 302, 303, 307, 308, 304])('%i is followed to no place', async (status) => {
    network.serve(URL, redirect(status, 'https://east.example.org/other'))
    network.serve('https://east.example.org/other', json({}))
    expect(await verdict()).toEqual(['redirected', status])
    expect(network.requests).toEqual([URL])
  })

  test.each([201, 204, 400, 401, 403, 404, 500, 503])('%i is no answer', async (status) => {
    network.serve(URL, () => new Response(status === 204 ? null : '{"keys":[]}', { status }))
    expect(await verdict()).toEqual(['status', status])
  })

  test.each<[string, string | Uint8Array<ArrayBuffer>]>([
    ['HTML', '<!doctype html><title>Sign in</title>'],
    ['nothing', ''],
    ['a list', '[]'],
    ['a text', '"keys"'],
    ['null', 'null'],
    ['half an object', '{"keys":['],
    ['an object with a name twice', '{"keys":[],"keys":[{}]}'],
    ['UTF-8 that is none', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)],
    ['UTF-8 that stops in the middle of a letter', Uint8Array.of(0x7b, 0x7d, 0xc3)],
    ['UTF-16', Uint8Array.of(0xff, 0xfe, 0x7b, 0, 0x7d, 0)],
    ['a byte order mark', '\ufeff{}'],
  ])('%s is no object', async (_, body) => {
    network.serve(URL, text(body))
    expect(await verdict()).toEqual(['not_json', 200])
  })

  test('one byte more than 1 MiB is too much', async () => {
    network.serve(URL, text(`{"a":"${'x'.repeat(MIB - 7)}"}`))
    expect(await verdict()).toEqual(['too_large', 200])
  })

  test('an answer without end is read no further than that', async () => {
    const { answer, taken } = endless()
    network.serve(URL, answer)
    expect(await verdict()).toEqual(['too_large', 200])
    expect(taken()).toBeLessThan(MIB + 4 * 65_536)
  })

  test('an answer that breaks off is none', async () => {
    network.serve(URL, breakOff)
    expect(await verdict()).toEqual(['unreachable', null])
  })

  test('nobody there', async () => {
    expect(await verdict()).toEqual(['unreachable', null])
  })
})

describe('a source that hangs', () => {
  test.each([
    ['before it answers', hang],
    ['in the middle of its answer', hangInBody],
  ])('%s is given up after 5 s', async (_, answer) => {
    network.serve(URL, answer)
    const waiting = verdict()
    await vi.waitFor(() => expect(network.requests).toHaveLength(1), 15_000)
    expect(patience.asked).toEqual([5000])
    patience.end()
    expect(await waiting).toEqual(['timeout', null])
  })
})

test('an error says what went wrong, and repeats nothing of the answer or the address', async () => {
  network.serve(URL, text('<title>SECRET</title>', 'text/html', 403))
  const error = await fetchJson(URL).catch((thrown: Error) => thrown)
  expect(error).toBeInstanceOf(FetchError)
  expect((error as Error).message).toBe('fetch failed: status 403')
})

describe('FE-8: a document that anybody may read', () => {
  const isAllowed = (url: string) => url.startsWith('https://')
  const refused = async (isAllowedTo = isAllowed) =>
    fetchPublicText(URL, isAllowedTo).then(
      () => null,
      (error: FetchError) => error.code,
    )

  test('is read where its host sends us, three times over, within the time of one', async () => {
    network.serve(URL, redirect(301, '/a'))
    network.serve('https://east.example.org/a', redirect(307, 'https://west.example.org/b'))
    network.serve('https://west.example.org/b', redirect(302, 'c'))
    network.serve('https://west.example.org/c', text('[1]'))
    expect(await fetchPublicText(URL, isAllowed)).toBe('[1]')
    expect(patience.asked).toEqual([5000])
  })

  test.each([
    ['to where nobody may be sent', 'http://east.example.org/a'],
    ['to what is no URL', 'https://['],
    ['in a circle', URL],
  ])('is not, where it sends us %s', async (_, location) => {
    network.serve(URL, redirect(302, location))
    expect(await refused()).toBe('redirected')
  })

  test('and nothing else is ever sent on', async () => {
    network.serve(URL, redirect(302, '/a'))
    network.serve('https://east.example.org/a', json({}))
    expect(await verdict()).toEqual(['redirected', 302])
    expect(await refused(() => false)).toBe('redirected')
    expect(network.requests).not.toContain('https://east.example.org/a')
  })
})
