/** Every rendering, before kube-apiserver's own loader and validation, at three minors. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  API_VERSIONS,
  MAPPINGS,
  renderAuthenticationConfiguration,
} from '../../worker/cluster/authentication_configuration.ts'
import type { Cluster } from '../../worker/policy/cluster.ts'
import { TrustDomain } from '../../worker/spiffe/id.ts'
import { KUBERNETES_MINORS, startKubeJudge, validateAuthenticationConfigurations } from '../support/judge.ts'
import { forge } from '../support/jwt_forge.ts'
import { createCa } from '../support/pki.ts'
import { cluster as policyCluster, policyOf } from '../support/policy.ts'
import { startTestIssuer, type TestIssuer } from '../support/test_issuer.ts'
import { missing } from '../support/tools.ts'

/** @param audiences may be such as no manifest has, so that the rendering alone is judged */
function cluster(audiences: readonly string[], certificateAuthority: string | null, connected = false): Cluster {
  const connection = connected ? { url: 'https://10.0.0.1', binding: null } : null
  const record = policyOf(policyCluster('real')).clusters.get('real') as Cluster
  return { ...record, apiServerAudiences: audiences, certificateAuthority, connection }
}

describe.skipIf(missing('go'))('AuthenticationConfiguration', () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-authentication-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  test('T-13, AC-2: the validation of kube-apiserver accepts every rendering', async () => {
    const { certificate } = await createCa()
    const files: string[] = []
    for (const version of API_VERSIONS)
      for (const mapping of MAPPINGS)
        for (const audiences of [['k8s'], ['k8s', 'k8s-too'], ['needs: "quoting" \\ #', "'"]])
          for (const [ca, connected] of [
            [null, false],
            [certificate, false],
            [null, true],
          ] as const)
            for (const [issuer, trustDomain] of [
              ['https://issuer.example.org', 'example.org'],
              ['https://issuer.example.org:8443/a/b', 'a.b-c_d.example.org'],
            ] as const) {
              const file = join(folder, `${files.length}.yaml`)
              const record = cluster(audiences, ca, connected)
              writeFileSync(
                file,
                renderAuthenticationConfiguration(issuer, TrustDomain.parse(trustDomain), record, version, mapping),
              )
              files.push(file)
            }
    expect(files).toHaveLength(72)
    for (const minor of KUBERNETES_MINORS)
      for (const { file, ok, error } of validateAuthenticationConfigurations(minor, files))
        expect([minor, file, ok, error]).toEqual([minor, file, true, undefined])
  })

  test('12.8: the same validation refuses what is wrong, so that its yes means something', () => {
    const jwt = {
      issuer: { url: 'https://a.example', audiences: ['k8s'] },
      claimMappings: { username: { claim: 'sub', prefix: '' } },
    }
    const wrong: Record<string, object> = {
      'http issuer': { jwt: [{ ...jwt, issuer: { ...jwt.issuer, url: 'http://a.example' } }] },
      'duplicate issuer': { jwt: [jwt, jwt] },
      'discoveryURL equal to url': { jwt: [{ ...jwt, issuer: { ...jwt.issuer, discoveryURL: 'https://a.example/' } }] },
      '65 authenticators': {
        jwt: Array.from({ length: 65 }, (_, n) => ({
          ...jwt,
          issuer: { ...jwt.issuer, url: `https://a${n}.example` },
        })),
      },
      'empty audiences': { jwt: [{ ...jwt, issuer: { ...jwt.issuer, audiences: [] } }] },
      'two audiences without MatchAny': { jwt: [{ ...jwt, issuer: { ...jwt.issuer, audiences: ['a', 'b'] } }] },
      'claim without prefix': { jwt: [{ ...jwt, claimMappings: { username: { claim: 'sub' } } }] },
      'claim and expression': {
        jwt: [{ ...jwt, claimMappings: { username: { claim: 'sub', prefix: '', expression: 'claims.sub' } } }],
      },
      'an unknown field': { jwt: [{ ...jwt, audience: 'k8s' }] },
    }
    const files = Object.entries(wrong).map(([name, rest]) => {
      const file = join(folder, `${name}.json`)
      writeFileSync(
        file,
        JSON.stringify({ apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AuthenticationConfiguration', ...rest }),
      )
      return file
    })
    for (const minor of KUBERNETES_MINORS)
      for (const { file, ok } of validateAuthenticationConfigurations(minor, files))
        expect([minor, file, ok]).toEqual([minor, file, false])
  })

  describe('what the rules and mappings do with a token', () => {
    let issuer: TestIssuer
    beforeAll(async () => {
      issuer = await startTestIssuer(['ES256'])
    })
    afterAll(() => issuer.stop())

    /** @returns the user that each subject becomes, or that it is refused, at every minor alike */
    async function usersOf(mapping: (typeof MAPPINGS)[number], claims: readonly object[]): Promise<unknown[]> {
      const now = Math.floor(Date.now() / 1000)
      const tokens = claims.map((claim) =>
        forge(
          issuer.keys.es256 as never,
          { alg: 'ES256', kid: 'es256' },
          { iss: issuer.url, aud: 'k8s', exp: now + 300, iat: now, ...claim },
        ),
      )
      const yaml = renderAuthenticationConfiguration(
        issuer.url,
        TrustDomain.parse('example.org'),
        cluster(['k8s'], issuer.ca),
        'v1',
        mapping,
      )
      const answers = await Promise.all(
        KUBERNETES_MINORS.map(async (minor) => {
          const judge = await startKubeJudge(minor, yaml, issuer.folder)
          const verdicts = await judge.ask(tokens)
          await judge.stop()
          return verdicts.map(({ ok, username, groups }) => (ok ? { username, groups: groups ?? [] } : 'refused'))
        }),
      )
      expect(answers[1]).toEqual(answers[0])
      expect(answers[2]).toEqual(answers[0])
      return answers[0] as unknown[]
    }

    test('T-13: a stolen issuer gets nobody a name or group that begins with system:', async () => {
      expect(
        await usersOf('sub', [
          { sub: 'spiffe://example.org/ns/shop/sa/web', groups: ['system:masters'] },
          { sub: 'system:admin' },
          { sub: 'system:serviceaccount:kube-system:default' },
          { sub: '' },
        ]),
      ).toEqual([
        { username: 'spiffe://example.org/ns/shop/sa/web', groups: [] },
        'refused',
        'refused',
        expect.anything(),
      ])
    })

    test('T-2: only the mapped shapes get a name of their own, and no other falls through', async () => {
      const subjects = [
        'spiffe://example.org/ns/shop/sa/web',
        'spiffe://example.org/cluster/eu/ns/shop/sa/web',
        'spiffe://example.org/ns/shop/sa/web/extra',
        'spiffe://example.org/x/ns/shop/sa/web',
        'spiffe://example.org/ns/shop/sa/',
        'spiffe://exampleXorg/ns/shop/sa/web',
        'spiffe://example.org.evil/ns/shop/sa/web',
        'spiffe://other.org/ns/shop/sa/web',
        'spiffe://example.org/batch',
        'system:masters',
        'xspiffe://example.org/ns/shop/sa/web',
        'spiffe://example.org/ns/sh:op/sa/web',
        'spiffe://example.org/ns/shop/sa/web\n',
        '',
      ]
      const [plain, clustered, ...rest] = await usersOf(
        'service-account',
        subjects.map((sub) => ({ sub })),
      )
      expect(plain).toEqual({
        username: 'spiffe:serviceaccount:shop:web',
        groups: ['spiffe:serviceaccounts', 'spiffe:serviceaccounts:shop'],
      })
      expect(clustered).toEqual({
        username: 'spiffe:cluster:eu:serviceaccount:shop:web',
        groups: ['spiffe:cluster:eu:serviceaccounts', 'spiffe:cluster:eu:serviceaccounts:shop'],
      })
      expect(rest).toEqual(rest.map(() => 'refused'))
    })
  })
})
