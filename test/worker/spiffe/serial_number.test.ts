import '@abraham/reflection'
import { X509Certificate } from '@peculiar/x509'
import { expect, test } from 'vitest'
import { serialNumberOf } from '../../../worker/spiffe/serial_number.ts'
import { makeAuthority } from '../authority.ts'

test('XS-15: the serial number is the one that a library reads', async () => {
  for (let times = 0; times < 20; times++) {
    const { certificate } = await makeAuthority()
    expect(serialNumberOf(certificate)).toBe(new X509Certificate(certificate).serialNumber)
  }
})

test('what is no certificate has none', () => {
  expect(() => serialNumberOf(Uint8Array.of(0x30, 0))).toThrow(TypeError)
})
