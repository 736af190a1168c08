import { PemConverter } from '@peculiar/x509'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { certificatesPem, pem, pemContents } from '../../keys/pem.ts'

const octets = fc.uint8Array({ minLength: 1, maxLength: 300 })

test('RFC 7468 §2: what is written is what a library reads and writes', () => {
  fc.assert(
    fc.property(octets, (der) => {
      const text = pem('CERTIFICATE', der)
      expect(text).toBe(`${PemConverter.encode(der, 'CERTIFICATE')}\n`)
      expect(new Uint8Array(PemConverter.decodeFirst(text))).toEqual(der)
    }),
  )
})

test('several certificates stand one behind another', () => {
  fc.assert(
    fc.property(fc.array(octets, { maxLength: 3 }), (certificates) => {
      expect(PemConverter.decode(certificatesPem(certificates)).map((der) => new Uint8Array(der))).toEqual(certificates)
    }),
  )
})

describe('what is read', () => {
  const read = (text: string) => {
    const contents = pemContents(text, 'CERTIFICATE REQUEST')
    return contents === null ? null : Uint8Array.fromBase64(contents)
  }
  const good = pem('CERTIFICATE REQUEST', Uint8Array.of(1, 2, 3))

  test('is what was written, with any newlines', () => {
    fc.assert(
      fc.property(octets, fc.constantFrom('\n', '\r\n', '\r'), (der, newline) => {
        expect(read(pem('CERTIFICATE REQUEST', der).replaceAll('\n', newline))).toEqual(der)
      }),
    )
    expect(read(good.trimEnd())).toEqual(Uint8Array.of(1, 2, 3))
  })

  test.each<[string, string]>([
    ['nothing', ''],
    ['a block of something else', pem('CERTIFICATE', Uint8Array.of(1))],
    ['two blocks', good + good],
    ['something before it', `x${good}`],
    ['something behind it', `${good}x`],
    ['a header in it', good.replace('-----\n', '-----\nProc-Type: 4,ENCRYPTED\n')],
    ['another end', good.replace('END CERTIFICATE REQUEST', 'END CERTIFICATE')],
    ['no end', good.slice(0, -20)],
    ['nothing in it', '-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n'],
  ])('is no block where there is %s', (_, text) => {
    expect(pemContents(text, 'CERTIFICATE REQUEST')).toBeNull()
  })
})
