import { expect, test } from 'vitest'
import { formatKeyReference, parseKeyReference, parseWrappingReference } from '../../keys/key_reference.ts'

const ARN = 'arn:aws:kms:eu-central-1:111122223333'

test.each([
  ['local:dev', { keeper: 'local', key: 'dev', alg: 'ES256' }, 'local:dev?alg=ES256'],
  ['local:dev?alg=PS512', { keeper: 'local', key: 'dev', alg: 'PS512' }, 'local:dev?alg=PS512'],
  ['awskms:alias/issuer', { keeper: 'awskms', key: 'alias/issuer', alg: null }, 'awskms:alias/issuer'],
  [
    `awskms:${ARN}:key/mrk-0123?alg=RS384`,
    { keeper: 'awskms', key: `${ARN}:key/mrk-0123`, alg: 'RS384' },
    `awskms:${ARN}:key/mrk-0123?alg=RS384`,
  ],
  [`awskms:${ARN}:alias/a_b`, { keeper: 'awskms', key: `${ARN}:alias/a_b`, alg: null }, `awskms:${ARN}:alias/a_b`],
  ['awskms', { keeper: 'awskms', key: null, alg: 'ES256' }, 'awskms?alg=ES256'],
  ['wrapped?alg=RS256', { keeper: 'wrapped', key: null, alg: 'RS256' }, 'wrapped?alg=RS256'],
])('KM-1: %s names a key', (text, spec, name) => {
  const parsed = parseKeyReference(text)
  expect(parsed).toEqual(spec)
  expect(parsed && formatKeyReference(parsed)).toBe(name)
  expect(parseKeyReference(name)).toEqual(spec)
})

test.each([
  '',
  'local',
  'local:',
  'awskms:',
  'wrapped:',
  'wrapped:a',
  'awskms?alg=',
  'alias/issuer',
  ':dev',
  'gcpkms:projects/p',
  'LOCAL:dev',
  'constructor:dev',
  ' local:dev',
  'local:dev ',
  'local:dev\n',
  'local:de v',
  'local:dév',
  'local:a.b',
  'local:dev?',
  'local:dev?alg=',
  'local:dev?alg=none',
  'local:dev?alg=HS256',
  'local:dev?alg=EdDSA',
  'local:dev?alg=es256',
  'local:dev?ALG=ES256',
  'local:dev?alg=ES256&alg=RS256',
  'local:dev?alg=ES256#x',
  `local:${'a'.repeat(2049)}`,
])('%j names none', (text) => {
  expect(parseKeyReference(text)).toBeNull()
})

test.each([
  ['awskms:alias/wrap', { keeper: 'awskms', key: 'alias/wrap' }],
  [`aes:${'a'.repeat(43)}`, { keeper: 'secret', secret: 'a'.repeat(43) }],
])('T-16: %s wraps keys', (text, reference) => {
  expect(parseWrappingReference(text)).toEqual(reference)
})

test.each(['', 'awskms', 'wrapped', 'aes:', `aes:${'a'.repeat(42)}`, `aes:${'a'.repeat(44)}`, 'aes:a b'])(
  'T-16: %j wraps none',
  (text) => {
    expect(parseWrappingReference(text)).toBeNull()
  },
)
