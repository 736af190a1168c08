import { describe, expect, test } from 'vitest'
import { endpointUrlProblem } from '../../worker/endpoint_url.ts'

describe('OD-4: an endpoint', () => {
  test.each([
    'https://issuer.example.org',
    'https://issuer.example.org/',
    'https://issuer.example.org/tenant/one',
    'https://issuer.example.org/tenant/',
    'https://issuer.example.org:8443',
    'https://10.0.0.1:6443/openid/v1/jwks',
    'https://[2001:db8::1]/keys',
    'https://kubernetes.default.svc.cluster.local',
    'https://xn--bcher-kva.example',
  ])('%s is one', (text) => {
    expect(endpointUrlProblem(text, false)).toBeNull()
    expect(endpointUrlProblem(text, true)).toBeNull()
  })

  test('FE-3: of a bundle may have a query, and nothing else more', () => {
    expect(endpointUrlProblem('https://host/bundle?format=spiffe', false, true)).toBeNull()
    for (const text of ['https://host/?a=1#b', 'https://a@host/?b', 'http://host/?a', 'https://HOST/?a'])
      expect(endpointUrlProblem(text, true, true)).not.toBeNull()
  })

  test.each([
    ['', 'not a URL'],
    ['issuer.example.org', 'not a URL'],
    ['/keys', 'not a URL'],
    ['https://', 'not a URL'],
    ['https://a b', 'not a URL'],
    ['https://host:99999', 'not a URL'],
    ['http://issuer.example.org', 'not https'],
    ['ftp://issuer.example.org', 'not https'],
    ['file:///etc/passwd', 'not https'],
    ['data:application/json,{}', 'not https'],
    ['javascript:alert(1)', 'not https'],
    ['https://user@host', 'has user information'],
    ['https://user:secret@host', 'has user information'],
    ['https://@host', 'has user information'],
    ['https://good.example@evil.example', 'has user information'],
    ['https://host/a@b', 'has user information'],
    ['https://host?', 'has a query'],
    ['https://host/?a=1', 'has a query'],
    ['https://host#', 'has a fragment'],
    ['https://host/a#b', 'has a fragment'],
    ['https://HOST', 'not in its normal form'],
    ['HTTPS://host', 'not in its normal form'],
    ['https://host:443', 'not in its normal form'],
    ['https://host/a/../b', 'not in its normal form'],
    ['https://host/./a', 'not in its normal form'],
    ['https://host/%2e%2e/a', 'not in its normal form'],
    ['https://host\\a', 'not in its normal form'],
    ['https:/host', 'not in its normal form'],
    ['https:host', 'not in its normal form'],
    [' https://host', 'not in its normal form'],
    ['https://host ', 'not in its normal form'],
    ['https://ho\nst', 'not in its normal form'],
    ['https://host/ä', 'not in its normal form'],
    ['https://bücher.example', 'not in its normal form'],
    ['https://0x7f.1', 'not in its normal form'],
  ])('%j is none: %s', (text, problem) => {
    expect(endpointUrlProblem(text, false)).toBe(problem)
    expect(endpointUrlProblem(text, true)).toBe(problem)
  })
})

describe("T-12: http is for this machine's own addresses, and only in development", () => {
  test.each(['http://localhost:8080', 'http://127.0.0.1', 'http://127.255.3.4:1/a', 'http://[::1]:8080/keys'])(
    '%s',
    (text) => {
      expect(endpointUrlProblem(text, true)).toBeNull()
      expect(endpointUrlProblem(text, false)).toBe('not https')
    },
  )

  test.each([
    'http://localhost.evil.example',
    'http://127.0.0.1.evil.example',
    'http://0.0.0.0',
    'http://10.0.0.1',
    'http://169.254.169.254',
    'http://[::ffff:7f00:1]',
    'http://evil.example/localhost',
  ])('%s never', (text) => {
    expect(endpointUrlProblem(text, true)).toBe('not https')
  })
})
