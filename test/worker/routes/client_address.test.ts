import { expect, test } from 'vitest'
import { clientAddress } from '../../../worker/routes/client_address.ts'

const of = (cf: object | undefined, headers: Record<string, string> = {}) =>
  clientAddress(new Request('https://issuer.example.org/', { headers, ...(cf && { cf }) } as RequestInit))

test.each<[object | undefined, string | null]>([
  [{ clientIp: '192.0.2.7:4711' }, '192.0.2.7'],
  [{ clientIp: '[2001:db8::1]:4711' }, '2001:db8::1'],
  [{ clientIp: 'unix:/tmp/x' }, null],
  [{ clientIp: 7 }, null],
  [{}, null],
  [undefined, null],
])('T-23: plain workerd says %j', (cf, address) => {
  expect(of(cf, { 'cf-connecting-ip': '203.0.113.1' })).toBe(address)
})

test('T-23: at the edge it is the platform’s header, which nobody else can set there', () => {
  expect(of({ colo: 'VIE' }, { 'cf-connecting-ip': '203.0.113.1', 'x-forwarded-for': '192.0.2.1' })).toBe('203.0.113.1')
  expect(of({ colo: 'VIE' })).toBeNull()
})
