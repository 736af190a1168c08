import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { SigningError, type SigningErrorCode } from '../../keys/signer.ts'
import { Decision } from '../../worker/audit.ts'
import { type IssueDeps, issue } from '../../worker/issue.ts'
import type { Registration } from '../../worker/policy/registration.ts'
import { RegistrationIndex } from '../../worker/policy/registration_index.ts'
import { Refusal } from '../../worker/refusal.ts'
import type { SpiffeId } from '../../worker/spiffe/id.ts'
import { verifyJwtSvid } from '../../worker/spiffe/jwt_svid.ts'
import type { KeyRing } from '../../worker/state/key_ring.ts'
import type { PolicyRing } from '../../worker/state/policy_ring.ts'
import { NOW } from '../support/clock.ts'
import { FakeCluster, POD } from '../support/cluster.ts'
import { KmsStub, kmsError } from '../support/kms_stub.ts'
import { attestation, ISSUER, registration, TRUST_DOMAIN } from '../support/policy.ts'
import { findPieceOf } from '../support/tokens.ts'
import { TestIssuer } from './issuer.ts'

let east: FakeCluster
beforeAll(async () => {
  east = await FakeCluster.create('east')
})

/** @param spec of the one registration */
const issuer = (spec: object = {}, variables: object = {}, deps: Partial<IssueDeps> = {}) =>
  new TestIssuer([east.record(), registration('web', spec)], variables, deps)

async function run(by: TestIssuer, subjectToken: string, audience: readonly string[] = []) {
  const decision = new Decision('token', by.clock.now())
  const issued = await issue({ door: 'token', subjectToken, audience, spiffeId: null }, by.deps, decision)
  return { ...issued, decision, header: JSON.parse(atob(issued.svid.split('.')[0] ?? '')) }
}

/** @returns why nothing was issued */
async function refusal(by: TestIssuer, subjectToken: string, audience: readonly string[] = []): Promise<Refusal> {
  try {
    await run(by, subjectToken, audience)
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
  throw new TypeError('something was issued')
}

/** Keys that fail as KMS may. */
const failing = (code: SigningErrorCode) => {
  const sign = () => Promise.reject(new SigningError(code))
  return { signer: async () => ({ publicJwk: { alg: 'ES256', kid: 'a' }, sign }) } as unknown as KeyRing
}

describe('attest → authorize → mint → sign', () => {
  test('JS-3, JS-6, JS-15, JS-16: makes an SVID with just these claims and this header', async () => {
    const by = issuer()
    const { svid, claims, decision, header } = await run(by, await east.token())
    expect(claims).toEqual({
      iss: ISSUER,
      sub: `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`,
      aud: 'k8s',
      exp: NOW + 300,
      iat: NOW,
      jti: decision.id,
    })
    expect(await by.read(svid)).toMatchObject({ claims })
    expect(header).toEqual({ alg: 'ES256', kid: (await by.deps.keyRing.signer(null)).publicJwk.kid, typ: 'JWT' })
  })

  test('JS-17: the SVID passes the checks of a relying party', async () => {
    const by = issuer()
    const { svid } = await run(by, await east.token())
    const { alg, kid, ...members } = (await by.deps.keyRing.signer(null)).publicJwk
    const curve = { name: 'ECDSA', namedCurve: 'P-256' }
    const key = await crypto.subtle.importKey('jwk', members as JsonWebKey, curve, false, ['verify'])
    const expected = {
      trustDomain: TRUST_DOMAIN,
      issuer: ISSUER,
      audience: 'k8s',
      keys: new Map([[kid, { alg, key }]]),
    }
    expect(await verifyJwtSvid(svid, expected, NOW)).toMatchObject({ audience: ['k8s'], expiresAt: NOW + 300 })
    await expect(verifyJwtSvid(svid, expected, NOW + 300)).rejects.toMatchObject({ code: 'expired' })
  })

  test('JS-7: several audiences are a list, and one is a text', async () => {
    const by = issuer({ audiences: ['a', 'b'], audienceCombinations: [['a', 'b']] })
    expect((await run(by, await east.token(), ['a', 'b'])).claims.aud).toEqual(['a', 'b'])
    expect((await run(by, await east.token(), ['a', 'a'])).claims.aud).toBe('a')
  })

  test('D11: is signed with the algorithm of the registration', async () => {
    const by = issuer({ alg: 'RS256' }, { SIGNING_KEY: 'local:a local:b?alg=RS256' })
    expect((await run(by, await east.token())).header.alg).toBe('RS256')
  })

  test('D11: is not signed at all where no key makes that', async () => {
    expect(await refusal(issuer({ alg: 'PS512' }), await east.token())).toMatchObject({ reason: 'signing_unavailable' })
  })
})

describe('T-8, 12.7: nothing outlives the subject token', () => {
  test.each([
    [3607, 300, 300],
    [3607, 3600, 3600],
    [600, 3600, 600],
    [300, 300, 300],
    [299, 300, 299],
    [1, 300, 1],
  ])('%i s of token and a TTL of %i s make %i s', async (left, ttlSeconds, seconds) => {
    const token = await east.token({ claims: { exp: NOW + left } })
    const { claims } = await run(issuer({ ttlSeconds }), token)
    expect(claims.exp - claims.iat).toBe(seconds)
  })

  test('also when the token is nearly over', async () => {
    const by = issuer({ ttlSeconds: 3600 })
    const token = await east.token()
    by.clock.advance(3606)
    expect((await run(by, token)).claims.exp).toBe(NOW + 3607)
    by.clock.advance(1)
    expect(await refusal(by, token)).toMatchObject({ reason: 'token_expired' })
  })
})

describe('a refusal', () => {
  test('at any step is the end: nothing behind it happens', async () => {
    const signer = vi.fn()
    const by = issuer({}, {}, { keyRing: { signer } as unknown as KeyRing })
    expect(await refusal(by, await east.token({ header: { kid: 'x' } }))).toMatchObject({ reason: 'token_key' })
    expect(await refusal(by, await east.tokenOf('other', 'other'))).toMatchObject({ reason: 'registration_none' })
    expect(await refusal(by, await east.token(), ['other'])).toMatchObject({ reason: 'target_not_allowed' })
    expect(signer).not.toHaveBeenCalled()
  })

  test.each<SigningErrorCode>([
    'throttled',
    'unavailable',
    'denied',
    'key_unusable',
    'key_mismatch',
    'wrong_signature',
  ])('12.11: signing that is %s is signing_unavailable, to be tried again in a moment', async (code) => {
    const by = issuer({}, {}, { keyRing: failing(code) })
    expect(await refusal(by, await east.token())).toMatchObject({
      reason: 'signing_unavailable',
      detail: code,
      retryAfterSeconds: 2,
    })
  })

  test('holds nothing of the token', async () => {
    const token = await east.tokenOf('secret-namespace', 'secret-account')
    const { message, detail } = await refusal(issuer(), token)
    expect(findPieceOf(token, message + detail)).toBeNull()
    expect(message + detail).not.toContain('secret-')
  })
})

describe('T-5: minting itself refuses', () => {
  test.each(['/spire/server', '/spire/agent/x', '/spiffe-edge/reviewer/east', ''])(
    'spiffe://example.org%s, even if it was granted',
    async (path) => {
      // An ID that is another one once it has been authorized: what only a mistake in authorizing could give us.
      let granted = false
      const spiffeId = {
        trustDomain: TRUST_DOMAIN,
        get path() {
          return granted ? path : '/web'
        },
        toString: () => `${TRUST_DOMAIN}${path}`,
      } as SpiffeId
      const attest = async () => ({
        ...attestation(),
        get expiresAt() {
          granted = true
          return NOW + 3607
        },
      })
      const { policy } = issuer().deps.config
      const registrations = policy.registrations.all.map((one) => ({ ...one, template: { expand: () => spiffeId } }))
      const by = issuer(
        {},
        {},
        {
          policyRing: {
            current: async () => ({
              attestors: { attest },
              policy: { ...policy, registrations: new RegistrationIndex(registrations as unknown as Registration[]) },
            }),
          } as unknown as PolicyRing,
        },
      )
      expect(await refusal(by, 'any')).toMatchObject({ reason: 'spiffe_id_reserved' })
      expect(granted).toBe(true)
    },
  )
})

test('T-14: minting itself lets no claim of a registration take the place of its own, even if it was granted', async () => {
  const evil = { iss: 'e', sub: 'e', aud: 'e', exp: 'e', iat: 'e', jti: 'e', tier: 'gold' }
  const { policy, ...config } = issuer().deps.config
  const registrations = policy.registrations.all.map((one) => ({ ...one, claims: evil }))
  const by = issuer(
    {},
    {},
    {
      policyRing: {
        current: async () => ({
          attestors: { attest: async () => attestation() },
          policy: { ...policy, registrations: new RegistrationIndex(registrations) },
        }),
      } as unknown as PolicyRing,
    },
  )
  const { claims, decision } = await run(by, 'any')
  expect(claims).toEqual({
    tier: 'gold',
    iss: config.issuer,
    sub: `spiffe://example.org/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`,
    aud: 'k8s',
    exp: NOW + 300,
    iat: NOW,
    jti: decision.id,
  })
})

describe('T-6, 12.7: an SVID of ours is never a subject token', () => {
  test('not to get another audience, and not to get a longer life', async () => {
    const by = issuer({ audiences: ['a', 'b', 'spiffe-edge-2'] })
    const { svid } = await run(by, await east.token(), ['a'])
    for (const audience of ['a', 'b', 'spiffe-edge-2'])
      expect(await refusal(by, svid, [audience])).toMatchObject({ reason: 'token_issuer' })
  })
})

describe('KM-9: identical requests that are under way at the same time', () => {
  let kms: KmsStub
  beforeEach(() => {
    kms = new KmsStub()
    vi.stubGlobal('fetch', kms.fetch)
  })
  afterEach(() => {
    vi.unstubAllGlobals()
  })

  /** An issuer whose key is in KMS, ready to sign. */
  async function signingInKms(spec: object = {}): Promise<TestIssuer> {
    const arn = await kms.createKey('ECC_NIST_P256')
    const { accessKeyId, secretAccessKey } = kms.access.credentials
    const by = issuer(spec, {
      SIGNING_KEY: `awskms:${arn}`,
      AWS_REGION: kms.access.region,
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
      AWS_ENDPOINT_URL_KMS: kms.access.endpoint ?? '',
    })
    await by.publishedJwks()
    kms.requests.length = 0
    return by
  }

  test('share one signature, one token and its one id, and each has a line of its own', async () => {
    const by = await signingInKms()
    const token = await east.token()
    const answers = await Promise.all(Array.from({ length: 5 }, () => by.exchange(token)))
    const bodies = (await Promise.all(answers.map((answer) => answer.json()))) as { access_token: string }[]
    expect(new Set(bodies.map(({ access_token }) => access_token)).size).toBe(1)
    expect(kms.requests.map(({ operation }) => operation)).toEqual(['Sign'])
    const { claims } = await by.read(bodies[0]?.access_token ?? '')
    const lines = by.book.decisions
    expect([lines.length, new Set(lines.map(({ id }) => id)).size]).toEqual([5, 5])
    expect(lines.map(({ id, jti }) => jti ?? id)).toEqual(Array(5).fill(claims.jti))
  })

  test('are those of one token under the same terms, and no others', async () => {
    const by = await signingInKms({ audiences: ['k8s', 'vault'] })
    const [one, other] = await Promise.all([east.token(), east.token({ claims: { jti: 'another' } })])
    const requests = [
      by.exchange(one, { audience: 'k8s' }),
      by.exchange(one, { audience: 'vault' }),
      by.exchange(other, { audience: 'k8s' }),
    ]
    const bodies = await Promise.all((await Promise.all(requests)).map((answer) => answer.json()))
    expect(new Set(bodies.map((body) => (body as { access_token: string }).access_token)).size).toBe(3)
    expect(kms.requests).toHaveLength(3)
  })

  test('share a failure too, and the next request is a new one', async () => {
    const by = await signingInKms()
    const token = await east.token()
    kms.trouble = async () => kmsError('AccessDeniedException')
    const statuses = await Promise.all(Array.from({ length: 3 }, async () => (await by.exchange(token)).status))
    expect([statuses, kms.requests.length]).toEqual([[503, 503, 503], 1])
    kms.trouble = null
    expect((await by.exchange(token)).status).toBe(200)
    const again = await by.exchange(token)
    expect([again.status, kms.requests.length]).toEqual([200, 3])
  })
})
