import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { KeySetError } from '../../../keys/key_set.ts'
import { FetchError } from '../../../worker/fetch_json.ts'
import { discoverJwksUri, fetchJwks } from '../../../worker/oidc/relying_party.ts'
import { json, Network, redirect, text } from '../../support/cluster_network.ts'

const ISSUER = 'https://east.example.org'
const DOCUMENT = `${ISSUER}/.well-known/openid-configuration`

let network: Network
beforeEach(() => {
  network = new Network()
  vi.stubGlobal('fetch', network.fetch)
})
afterEach(() => {
  vi.unstubAllGlobals()
})

/** Serves a discovery document of the issuer with these changes to it, and reads it. */
async function discover(change: object = {}, allowLoopbackHttp = false): Promise<string> {
  network.serve(DOCUMENT, json({ issuer: ISSUER, jwks_uri: `${ISSUER}/keys`, ...change }))
  return discoverJwksUri(ISSUER, allowLoopbackHttp)
}

describe('OD-1: discovery', () => {
  test.each([
    ['https://east.example.org', 'https://east.example.org/.well-known/openid-configuration'],
    ['https://east.example.org/', 'https://east.example.org/.well-known/openid-configuration'],
    ['https://east.example.org/a/b', 'https://east.example.org/a/b/.well-known/openid-configuration'],
    ['https://east.example.org:6443', 'https://east.example.org:6443/.well-known/openid-configuration'],
  ])('of %s is at %s', async (issuer, url) => {
    const keys = new URL('/openid/v1/jwks', issuer).href
    network.serve(url, json({ issuer, jwks_uri: keys }))
    expect(await discoverJwksUri(issuer, false)).toBe(keys)
    expect(network.requests).toEqual([url])
  })
})

describe("12.6: a document that is another issuer's", () => {
  test.each([
    'https://EAST.example.org',
    'https://east.example.org/',
    'https://east.example.org:443',
    'http://east.example.org',
    'https://west.example.org',
    '',
    null,
    undefined,
    ['https://east.example.org'],
  ])('%j is refused', async (issuer) => {
    await expect(discover({ issuer })).rejects.toThrow(new KeySetError('the discovery document is of another issuer'))
  })
})

describe('12.6: a jwks_uri', () => {
  test.each(['https://east.example.org/', 'https://east.example.org/a/b'])('%s is taken', async (jwks_uri) => {
    expect(await discover({ jwks_uri })).toBe(jwks_uri)
  })

  test.each([
    'http://east.example.org/keys',
    'http://localhost/keys',
    'https://user@east.example.org/keys',
    'https://east.example.org/keys?a=1',
    'https://east.example.org/keys#a',
    'https://east.example.org/a/../keys',
    'file:///keys',
    'data:application/json,{"keys":[]}',
    '/keys',
    '',
    1,
    null,
    undefined,
    ['https://east.example.org/keys'],
  ])('%j is not acceptable', async (jwks_uri) => {
    await expect(discover({ jwks_uri })).rejects.toThrow(
      new KeySetError('the discovery document has no acceptable jwks_uri'),
    )
  })

  test.each([
    'https://west.example.org/keys',
    'https://east.example.org.evil.example/keys',
    'https://evil.example/east.example.org',
    'https://east.example.org:8443/keys',
    'https://169.254.169.254/latest',
    'https://10.0.0.1/keys',
  ])('%s is on another host, and so refused', async (jwks_uri) => {
    await expect(discover({ jwks_uri })).rejects.toThrow(new KeySetError('jwks_uri is on another host than the issuer'))
    expect(network.requests).toEqual([DOCUMENT])
  })

  test('on this machine is for development, and for an issuer that is there too', async () => {
    const local = 'http://localhost:8080'
    network.serve(`${local}/.well-known/openid-configuration`, json({ issuer: local, jwks_uri: `${local}/keys` }))
    expect(await discoverJwksUri(local, true)).toBe(`${local}/keys`)
    await expect(discoverJwksUri(local, false)).rejects.toThrow(KeySetError)
    await expect(discover({ jwks_uri: `${local}/keys` }, true)).rejects.toThrow(KeySetError)
  })
})

test('12.6: neither document is followed to another host', async () => {
  network.serve(DOCUMENT, redirect(302, 'https://west.example.org/.well-known/openid-configuration'))
  await expect(discoverJwksUri(ISSUER, false)).rejects.toThrow(new FetchError('redirected', 302))
  network.serve(`${ISSUER}/keys`, redirect(307, 'https://west.example.org/keys'))
  await expect(fetchJwks(`${ISSUER}/keys`)).rejects.toThrow(new FetchError('redirected', 307))
})

describe('a JWK Set', () => {
  test('gives its keys as they are', async () => {
    network.serve(`${ISSUER}/keys`, json({ keys: [{ kty: 'new' }, 1] }))
    expect(await fetchJwks(`${ISSUER}/keys`)).toEqual([{ kty: 'new' }, 1])
  })

  test.each(['{}', '{"keys":{}}', '{"keys":null}', '{"keys":"a"}', '{"Keys":[]}'])('BU-4: %s is none', async (body) => {
    network.serve(`${ISSUER}/keys`, text(body))
    await expect(fetchJwks(`${ISSUER}/keys`)).rejects.toThrow(new KeySetError('the JWKS has no keys member'))
  })
})
