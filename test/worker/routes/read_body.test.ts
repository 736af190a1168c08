import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Refusal, type RefusalReason } from '../../../worker/refusal.ts'
import { readForm, readJson } from '../../../worker/routes/read_body.ts'

const FORM = 'application/x-www-form-urlencoded'
const KIB = 1024

function request(
  body: BodyInit | null,
  contentType: string | null = FORM,
  url = 'https://issuer.example.org/token',
  more: object = {},
) {
  return new Request(url, {
    method: 'POST',
    body,
    headers: { ...(contentType !== null && { 'content-type': contentType }), ...more },
  })
}

/** @returns the parameters as an object, or why there are none */
async function read(from: Request, repeatable: readonly string[] = []): Promise<object | RefusalReason> {
  try {
    return Object.fromEntries(await readForm(from, repeatable))
  } catch (error) {
    if (error instanceof Refusal) return error.reason
    throw error
  }
}

/** A body that comes in pieces, and without a length. */
function streamed(...chunks: readonly (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(typeof chunk === 'string' ? encoder.encode(chunk) : chunk)
      controller.close()
    },
  })
}

describe('TX-1: a form', () => {
  test.each([
    FORM,
    FORM.toUpperCase(),
    `${FORM};charset=UTF-8`,
    `${FORM}; charset="utf-8"`,
    `${FORM} ; charset=utf-8 `,
  ])('may call itself %s', async (type) => {
    expect(await read(request('a=1', type))).toEqual({ a: ['1'] })
  })

  test.each([
    null,
    '',
    'application/json',
    'multipart/form-data; boundary=x',
    'text/plain',
    `${FORM}+json`,
    `x${FORM}`,
    `${FORM}; charset=iso-8859-1`,
    `${FORM}; charset=utf-8; x=1`,
    `application/json, ${FORM}`,
  ])('12.7: and may not call itself %j', async (type) => {
    expect(await read(request(new TextEncoder().encode('a=1'), type))).toBe('request_malformed')
  })

  test('is decoded once', async () => {
    expect(await read(request('a=%2525&b=x+y%2Bz&c%5B%5D=%C3%A4&d=%26%3D'))).toEqual({
      a: ['%25'],
      b: ['x y+z'],
      'c[]': ['ä'],
      d: ['&='],
    })
  })

  test('a question mark at its beginning is part of the first name, as for every other reader of forms', async () => {
    expect(await read(request('?subject_token=1'))).toEqual({ '?subject_token': ['1'] })
  })

  test('may come in pieces that cut a letter in two', async () => {
    expect(await read(request(streamed('a=', Uint8Array.of(0xc3), Uint8Array.of(0xa4))))).toEqual({ a: ['ä'] })
  })

  test('may have names that every object has', async () => {
    expect(await read(request('constructor=1&toString=2'))).toEqual({ constructor: ['1'], toString: ['2'] })
  })

  test.each(['', '&', '&&', 'a=', 'a', '=x&a=&a='])('TX-7: %j says nothing', async (body) => {
    const form = await read(request(body))
    expect(form).toEqual(body.startsWith('=x') ? { '': ['x'] } : {})
  })

  test('TX-7: a parameter without a value counts as absent, also beside one that has one', async () => {
    expect(await read(request('a=&a=1&b='))).toEqual({ a: ['1'] })
  })
})

describe('TX-7, 12.7: a parameter that is repeated', () => {
  test.each(['grant_type', 'subject_token', 'client_assertion', 'unknown', 'constructor', '__proto__'])(
    '%s is refused',
    async (name) => {
      expect(await read(request(`${name}=1&x=2&${name}=1`))).toBe('parameter_repeated')
    },
  )

  test('also in another spelling', async () => {
    expect(await read(request('grant_type=1&grant%5Ftype=2'))).toBe('parameter_repeated')
  })

  test('is taken where it may be', async () => {
    expect(await read(request('audience=1&audience=2&audience=1'), ['audience'])).toEqual({ audience: ['1', '2', '1'] })
  })

  test('style 4.9: is not repeated in the log, for who sends a token for a name does not mean it to be seen', async () => {
    const token = 'eyJhbGciOiJFUzI1NiIsImtpZCI6ImFiY2RlZiJ9'
    const refusal = await readForm(request(`${token}=1&${token}=2`), []).catch((error: Refusal) => error)
    expect((refusal as Refusal).detail).not.toContain(token.slice(0, 16))
  })
})

describe('12.7: parameters in the query', () => {
  test.each(['?', '?grant_type=x', '?a#b'])('%s is refused', async (query) => {
    expect(await read(request('a=1', FORM, `https://issuer.example.org/token${query}`))).toBe('request_malformed')
  })
})

describe('the bounds', () => {
  test('64 KiB are taken', async () => {
    expect(await read(request(`a=${'x'.repeat(64 * KIB - 2)}`))).toEqual({ a: ['x'.repeat(64 * KIB - 2)] })
  })

  test('a byte more is too large, by its length or by its body', async () => {
    const body = `a=${'x'.repeat(64 * KIB - 1)}`
    expect(await read(request(body))).toBe('request_too_large')
    expect(await read(request(streamed(body)))).toBe('request_too_large')
    expect(await read(request('a=1', FORM, undefined, { 'content-length': String(64 * KIB + 1) }))).toBe(
      'request_too_large',
    )
  })

  test('a body without end is read no further than that', async () => {
    let sent = 0
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 8 * KIB
        controller.enqueue(new Uint8Array(8 * KIB).fill(0x61))
      },
    })
    expect(await read(request(endless))).toBe('request_too_large')
    expect(sent).toBeLessThanOrEqual(96 * KIB)
  })

  test.each([
    ['is no UTF-8', Uint8Array.of(0x61, 0x3d, 0xff)],
    ['stops in the middle of a letter', Uint8Array.of(0x61, 0x3d, 0xc3)],
  ])('a body that %s is refused', async (_, body) => {
    expect(await read(request(body))).toBe('request_malformed')
    expect(await read(request(streamed(body)))).toBe('request_malformed')
  })

  test('a body that breaks off is refused', async () => {
    const broken = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('a=1&'))
        controller.error(new TypeError('gone'))
      },
    })
    expect(await read(request(broken))).toBe('request_malformed')
  })

  test('no body at all is an empty form', async () => {
    expect(await read(request(null))).toEqual({})
  })
})

test('whatever comes, the answer is a form or a refusal', async () => {
  const piece = fc.oneof(
    fc.constantFrom('a', 'b', '=', '&', '%', '%2', '%00', '%C3', '+', '?', '#', ';', '[]'),
    fc.string({ maxLength: 4 }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 20 }), async (pieces) => {
      const form = await read(request(streamed(pieces.join(''))))
      if (typeof form === 'string') expect(form).toBe('parameter_repeated')
      else for (const values of Object.values(form)) expect(values).toEqual([expect.stringMatching(/^.+$/su)])
    }),
    { numRuns: 200 },
  )
})

describe('one JSON object', () => {
  const JSON_TYPE = 'application/json'
  const readObject = async (body: BodyInit | null, maxBytes = 100, more: object = {}): Promise<unknown> => {
    try {
      return await readJson(request(body, JSON_TYPE, undefined, more), maxBytes)
    } catch (error) {
      if (error instanceof Refusal) return error.reason
      throw error
    }
  }

  test('may come in pieces that cut a letter in two', async () => {
    const pieces = streamed('{"a":"', Uint8Array.of(0xc3), Uint8Array.of(0xa4), '"}')
    expect(await readObject(pieces)).toEqual({ a: 'ä' })
  })

  test('has as many bytes as the caller allows, and none more, declared or not', async () => {
    const text = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`
    for (const send of [text, (bytes: number) => streamed(text(bytes))]) {
      expect(await readObject(send(100))).toEqual({ a: 'x'.repeat(92) })
      expect(await readObject(send(101))).toBe('request_too_large')
    }
    expect(await readObject('{}', 100, { 'content-length': '101' })).toBe('request_too_large')
  })

  test.each([null, '', '[]', '{', '{"a":1,"a":1}', '{"a":{"b":1,"b":1}}', '{} {}'])('is not %j', async (body) => {
    expect(await readObject(body)).toBe('json_malformed')
  })

  test('has names that every object has, and no other prototype', async () => {
    const value = (await readObject('{"__proto__":{"a":1},"constructor":2}')) as object
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
  })
})
