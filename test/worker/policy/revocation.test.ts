import { describe, expect, test } from 'vitest'
import { compilePolicy } from '../../../worker/policy/manifest.ts'
import { MAX_REVOKED_TOKENS, revocationsProblem } from '../../../worker/policy/revocation.ts'
import { NOW } from '../../support/clock.ts'
import { FakeCluster } from '../../support/cluster.ts'
import { CONTEXT, cluster, from, policyOf, problemsOf, registration } from '../../support/policy.ts'
import { TestIssuer } from '../issuer.ts'

const JTI = '8a6f7a0c-0c5e-4d6b-9d3c-2f1f0a0f9b11'

const revocation = (spec: object, name = 'stolen') => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Revocation',
  metadata: { name },
  spec: { jti: JTI, expiresAt: NOW + 1, ...spec },
})
const tokensOf = (...objects: readonly object[]) => policyOf(cluster('east'), ...objects).revocations.tokens(NOW)

describe('D4: a revocation', () => {
  test('names a token until it expires, and not at that second', () => {
    const policy = policyOf(cluster('east'), revocation({ expiresAt: NOW + 60 }))
    expect([NOW, NOW + 59, NOW + 60, NOW + 61].map((now) => policy.revocations.tokens(now))).toEqual([
      [JTI],
      [JTI],
      [],
      [],
    ])
  })

  test('is one of several, and names the same token once', () => {
    expect(
      tokensOf(
        revocation({ jti: 'b' }, 'one'),
        revocation({ jti: 'a', reason: 'incident 7' }, 'two'),
        revocation({ jti: 'b', expiresAt: NOW + 9 }, 'three'),
        revocation({ jti: 'c', expiresAt: NOW }, 'four'),
      ),
    ).toEqual(['a', 'b'])
  })

  test.each(['a', 'A-Z_0-9', 'x'.repeat(128), JTI])('may be of %s', (jti) => {
    expect(tokensOf(revocation({ jti }))).toEqual([jti])
  })

  test.each<[string, object]>([
    ['no token', { jti: undefined }],
    ['an empty id', { jti: '' }],
    ['an id that is too long', { jti: 'x'.repeat(129) }],
    ['a whole token', { jti: 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln' }],
    ['a credential id', { jti: `JTI=${JTI}` }],
    ['an id that would end a text of CEL', { jti: "a']) || true || (claims.jti in ['" }],
    ['an id with a backslash', { jti: 'a\\' }],
    ['an id with a line break at its end', { jti: 'a\n' }],
    ['several ids', { jti: ['a', 'b'] }],
    ['no end', { expiresAt: undefined }],
    ['an end that is a text', { expiresAt: String(NOW) }],
    ['an end with a fraction', { expiresAt: NOW + 0.5 }],
    ['an end before all time', { expiresAt: -1 }],
    ['a reason without end', { reason: 'x'.repeat(1025) }],
    ['more than is known', { subject: 'x' }],
  ])('may not be of %s', (_, spec) => {
    const problems = problemsOf(cluster('east'), revocation(spec))
    expect(problems).toEqual([expect.stringMatching(/^Revocation stolen: spec/)])
  })

  test('D4: keeps nobody from getting another token: for that there is a ban', async () => {
    const east = await FakeCluster.create('east')
    const issuer = new TestIssuer([east.record(), registration('web'), revocation({ expiresAt: NOW + 3600 })])
    expect((await issuer.exchange(await east.token())).status).toBe(200)
  })

  test('T-1: is nothing for a cluster to say', () => {
    const { policy, rejected } = compilePolicy(
      [...from('manifest', cluster('east')), ...from({ cluster: 'east' }, revocation({}))],
      CONTEXT,
    )
    expect([...rejected.keys()]).toEqual(['east/stolen'])
    expect(policy.revocations.tokens(NOW)).toEqual([])
  })

  test('the id of a token of ours is one', async () => {
    const east = await FakeCluster.create('east')
    const issuer = new TestIssuer([east.record(), registration('web')])
    const { access_token: svid } = (await (await issuer.exchange(await east.token())).json()) as {
      access_token: string
    }
    const { jti } = (await issuer.read(svid)).claims
    expect(tokensOf(revocation({ jti }))).toEqual([jti])
  })
})

describe('T-13: what the one rule of an API server can hold', () => {
  const ids = (count: number, length: number) =>
    Array.from({ length: count }, (_, index) => String(index).padStart(length, 'x'))

  test.each<[number, number, number, boolean]>([
    [0, 0, 0, true],
    [MAX_REVOKED_TOKENS, 36, 0, true],
    [MAX_REVOKED_TOKENS, 36, 500, true],
    [MAX_REVOKED_TOKENS + 1, 36, 0, false],
    [MAX_REVOKED_TOKENS, 96, 0, true],
    [MAX_REVOKED_TOKENS, 97, 0, false],
    [0, 0, 924, true],
    [0, 0, 926, false],
  ])('%i tokens of %i characters and %i subjects of 104', (tokens, length, subjects, fits) => {
    const problem = revocationsProblem(ids(tokens, length), ids(subjects, 104))
    expect(problem).toEqual(fits ? null : expect.stringMatching(/^more /))
  })
})
