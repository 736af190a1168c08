/**
 * D3, against kube-apiserver's own authenticator: with our cache headers a key that is published, then used, is never
 * refused. With the headers that a content network would suggest it is.
 */

import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { bareAuthenticationConfiguration, KUBERNETES_MINORS, startKubeJudge } from '../support/judge.ts'
import { type ForgeKey, forge } from '../support/jwt_forge.ts'
import type { LineProgram } from '../support/lines.ts'
import { publicJwk, startTestIssuer, type TestIssuer } from '../support/test_issuer.ts'
import { missing } from '../support/tools.ts'

/** What `worker/oidc/public_document.ts` sends. */
const OURS = 'public, max-age=30'

describe.skipIf(missing('go')).each(KUBERNETES_MINORS)('the key cache of kube-apiserver %s', (minor) => {
  let issuer: TestIssuer
  let judge: LineProgram
  beforeEach(async () => {
    issuer = await startTestIssuer(['ES256'])
  })
  afterEach(async () => {
    await judge.stop()
    issuer.stop()
  })

  async function start(cacheControl: string): Promise<void> {
    issuer.cacheControl = cacheControl
    judge = await startKubeJudge(minor, bareAuthenticationConfiguration(issuer, 'k8s'), issuer.folder)
  }
  async function accepts(key: ForgeKey): Promise<boolean> {
    const now = Math.floor(Date.now() / 1000)
    const claims = { iss: issuer.url, aud: 'k8s', sub: 'spiffe://example.org/web', exp: now + 300, iat: now }
    const [verdict] = await judge.ask([forge(key, { alg: 'ES256', kid: key.kid }, claims)])
    return verdict?.ok === true
  }
  const oldKey = () => issuer.keys.es256 as ForgeKey
  function publishNewKey(): ForgeKey {
    const key = { alg: 'ES256', kid: 'new', privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }
    issuer.jwks = [...issuer.jwks, publicJwk(key)]
    return key
  }

  test.each([
    [OURS, true],
    ['public, max-age=30, s-maxage=3600', false],
    ['public, max-age=3600', false],
  ])('with "%s" a key that has just been published is accepted: %s', async (cacheControl, accepted) => {
    await start(cacheControl)
    expect(await accepts(oldKey())).toBe(true)
    const key = publishNewKey()
    expect(await accepts(key)).toBe(accepted)
    expect(await accepts(oldKey())).toBe(true)
  })

  test('D4: a key that is published no more stays accepted until an unknown kid makes it look again', async () => {
    await start(OURS)
    expect(await accepts(oldKey())).toBe(true)
    const old = oldKey()
    const key = publishNewKey()
    issuer.jwks = [publicJwk(key)]
    expect(await accepts(old)).toBe(true)
    expect(await accepts(key)).toBe(true)
    expect(await accepts(old)).toBe(false)
  })
})
