/**
 * Requirements 12.8, configuration, as far as we write one: one authenticator, with no discoveryURL, no extra, no
 * egress selector and no anonymous access. That real API servers take it and map as they should is for `test/e2e`.
 */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import {
  API_VERSIONS,
  type ApiVersion,
  MAPPINGS,
  type Mapping,
  renderAuthenticationConfiguration,
} from '../../../worker/cluster/authentication_configuration.ts'
import type { Cluster } from '../../../worker/policy/cluster.ts'
import { TrustDomain } from '../../../worker/spiffe/id.ts'
import { cluster, ISSUER, policyOf, TRUST_DOMAIN } from '../../support/policy.ts'

const PEM = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUfY==\n-----END CERTIFICATE-----\n'

const CLUSTER = policyOf(cluster('east')).clusters.get('east') as Cluster

const TRUST_DOMAIN_RULE = {
  expression: `user.username.startsWith('${TRUST_DOMAIN}/')`,
  message: `the username must be a SPIFFE ID of ${TRUST_DOMAIN.name}`,
}
const RULES = [
  { expression: "!user.username.startsWith('system:')", message: 'the username must not begin with system:' },
  { expression: "user.groups.all(group, !group.startsWith('system:'))", message: 'no group may begin with system:' },
]

function render(
  change: Partial<Cluster> = {},
  mapping: Mapping = 'sub',
  version: ApiVersion = 'v1',
  trustDomain = TRUST_DOMAIN,
) {
  return renderAuthenticationConfiguration(ISSUER, trustDomain, { ...CLUSTER, ...change }, version, mapping)
}

/** The one authenticator. */
const authenticator = (...args: Parameters<typeof render>) => parse(render(...args)).jwt[0]

describe('AC-2: the configuration', () => {
  test('is one authenticator for this issuer and this cluster', () => {
    expect(parse(render())).toEqual({
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthenticationConfiguration',
      jwt: [
        {
          issuer: { url: ISSUER, audiences: ['k8s'] },
          claimMappings: { username: { claim: 'sub', prefix: '' } },
          userValidationRules: [TRUST_DOMAIN_RULE, ...RULES],
        },
      ],
    })
  })

  test.each(API_VERSIONS)('AC-1: comes as %s', (version) => {
    expect(parse(render({}, 'sub', version)).apiVersion).toBe(`apiserver.config.k8s.io/${version}`)
  })

  test("has the cluster's CA inline, where it has one", () => {
    expect(authenticator({ certificateAuthority: PEM }).issuer.certificateAuthority).toBe(PEM)
    expect(authenticator().issuer).not.toHaveProperty('certificateAuthority')
  })

  test('12.8: says MatchAny where there are several audiences, and nothing where there is one', () => {
    expect(authenticator({ apiServerAudiences: ['a', 'b'] }).issuer).toMatchObject({
      audiences: ['a', 'b'],
      audienceMatchPolicy: 'MatchAny',
    })
    expect(authenticator().issuer).not.toHaveProperty('audienceMatchPolicy')
  })

  test.each(MAPPINGS)('AC-4: lets no system: name or group through, with the mapping %s', (mapping) => {
    expect(authenticator({}, mapping).userValidationRules).toEqual(
      mapping === 'sub' ? [TRUST_DOMAIN_RULE, ...RULES] : RULES,
    )
  })

  test('12.8: maps the username by claim with a prefix, or by expression, never both', () => {
    expect(Object.keys(authenticator({}, 'sub').claimMappings.username)).toEqual(['claim', 'prefix'])
    expect(Object.keys(authenticator({}, 'service-account').claimMappings.username)).toEqual(['expression'])
    expect(Object.keys(authenticator({}, 'service-account').claimMappings)).toEqual(['username', 'groups'])
  })

  test.each([
    'http://',
    'discoveryURL',
    'MatchAll',
    'email',
    'extra',
    'egressSelectorType',
    'anonymous',
    'conditions',
    'uid:',
  ])('12.8: has nothing with %s in it, which API servers refuse in some form', (text) => {
    for (const mapping of MAPPINGS)
      for (const version of API_VERSIONS)
        expect(render({ apiServerAudiences: ['a', 'b'], certificateAuthority: PEM }, mapping, version)).not.toContain(
          text,
        )
  })
})

describe('T-9: the worker as a user of its own', () => {
  const connection = { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_EAST' }
  const REVIEWER = `claims.sub == 'spiffe://example.org/spiffe-edge/reviewer/east' ? 'spiffe:spiffe-edge:reviewer:east' : `

  test('is let in by an audience of its own, beside the cluster’s', () => {
    expect(authenticator({ connection }).issuer).toEqual({
      url: ISSUER,
      audiences: ['k8s', `${ISSUER}/reviewer/east`],
      audienceMatchPolicy: 'MatchAny',
    })
  })

  test('has a name with the mapping for service accounts too, and is in no group', () => {
    const { username, groups } = authenticator({ connection }, 'service-account').claimMappings
    const usual = authenticator({}, 'service-account').claimMappings
    expect(username.expression).toBe(REVIEWER + usual.username.expression)
    expect(groups).toEqual(usual.groups)
  })

  test.each<[string, Partial<Cluster>]>([
    ['has no connection', {}],
    ['is asked with the client’s token', { connection, reviewer: { by: 'client' } }],
    ['is asked with a token from a file', { connection, reviewer: { by: 'file', binding: 'CLUSTER_A', path: 'a' } }],
    ['is asked with a secret', { connection, reviewer: { by: 'secret', binding: 'CLUSTER_A' } }],
  ])('a cluster that %s has nothing of this', (_, change) => {
    for (const mapping of MAPPINGS) expect(render(change, mapping)).toBe(render({}, mapping))
  })
})

describe('T-13: every scalar is a JSON string', () => {
  test('in double quotes, and on one line', () => {
    const text = render({ certificateAuthority: PEM, apiServerAudiences: ['yes', '1.0', 'null', '0x1f', '~'] })
    for (const line of text.trimEnd().split('\n'))
      expect(line).toMatch(/^ *(?:- )*(?:[A-Za-z]+:|(?:[A-Za-z]+: )?"(?:[^"\\]|\\.)*")$/)
    expect(parse(text).jwt[0].issuer.audiences).toEqual(['yes', '1.0', 'null', '0x1f', '~'])
  })

  test('so no audience becomes structure, whatever is in it', () => {
    const printable = fc.string({
      unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
      minLength: 1,
      maxLength: 30,
    })
    const sly = fc.constantFrom(
      '"',
      "'",
      '\\',
      '#',
      ': ',
      '- ',
      '{',
      '[',
      '&a',
      '*a',
      '!!str',
      '|',
      '>',
      '%',
      '@',
      '`',
      '\\n',
      '\\"',
      '---',
      '...',
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(printable, sly), { minLength: 1, maxLength: 4 }), (audiences) => {
        const { issuer } = authenticator({ apiServerAudiences: audiences })
        expect(issuer.audiences).toEqual(audiences)
      }),
      { numRuns: 300 },
    )
  })

  test('nor two equal ones an alias', () => {
    expect(render({ apiServerAudiences: ['a', 'a'] }, 'service-account')).not.toMatch(/[&*]a\d/)
  })
})

describe('T-2: the mapping for service accounts', () => {
  /** The patterns that an ID is compared with, which mean the same in RE2 and here. */
  function patterns(trustDomain = TRUST_DOMAIN) {
    const { username, groups } = authenticator({}, 'service-account', 'v1', trustDomain).claimMappings
    const found = [...username.expression.matchAll(/matches\('([^']+)'\)/g)].map(([, pattern]) => pattern)
    expect(found).toEqual([...groups.expression.matchAll(/matches\('([^']+)'\)/g)].map(([, pattern]) => pattern))
    expect(found).toHaveLength(2)
    return found.map((pattern) => new RegExp(pattern))
  }

  /** @returns which of the two shapes an ID has, or null */
  function shape(id: string, trustDomain = TRUST_DOMAIN): 'plain' | 'clustered' | null {
    const [plain, clustered] = patterns(trustDomain).map((pattern) => pattern.test(id))
    expect(plain && clustered).toBe(false)
    return plain ? 'plain' : clustered ? 'clustered' : null
  }

  test.each([
    ['spiffe://example.org/ns/default/sa/web', 'plain'],
    ['spiffe://example.org/ns/kube-system/sa/a.b-c', 'plain'],
    ['spiffe://example.org/cluster/east-1/ns/default/sa/web', 'clustered'],
  ])('%s is %s', (id, expected) => {
    expect(shape(id)).toBe(expected)
  })

  test.each([
    'spiffe://example.org',
    'spiffe://example.org/web',
    'spiffe://example.org/ns/default',
    'spiffe://example.org/ns/default/sa/',
    'spiffe://example.org/ns/default/sa/web/more',
    'spiffe://example.org/ns/default/sa/web\n',
    'spiffe://example.org/ns/a/b/sa/web',
    'spiffe://example.org/ns/Default/sa/web',
    'spiffe://example.org/x/ns/default/sa/web',
    'spiffe://example.org/cluster/east/ns/default/sa/web/more',
    'spiffe://example.org/cluster/a.b/ns/default/sa/web',
    'spiffe://example.org/cluster/a/b/ns/default/sa/web',
    'spiffe://exampleXorg/ns/default/sa/web',
    'spiffe://sub.example.org/ns/default/sa/web',
    'spiffe://example.org.evil.example/ns/default/sa/web',
    'https://example.org/ns/default/sa/web',
    'x spiffe://example.org/ns/default/sa/web',
  ])('%j is neither, and so gets the empty name that an API server refuses', (id) => {
    expect(shape(id)).toBeNull()
  })

  test('ends in the empty name and no groups for all other shapes', () => {
    const { username, groups } = authenticator({}, 'service-account').claimMappings
    expect(username.expression).toMatch(/ : ''$/)
    expect(groups.expression).toMatch(/ : \[\]$/)
  })

  test('gives no name that could be of Kubernetes itself', () => {
    const { username, groups } = authenticator({}, 'service-account').claimMappings
    for (const { expression } of [username, groups])
      for (const [, name] of expression.matchAll(/[[ ?:]'([a-z][^']*)'/g)) expect(name).toMatch(/^(?:spiffe:|\^)/)
  })

  test.each(['a', 'a.b.c', 'a_b-c.1', '-.-', '...'])(
    'takes the trust domain %s for itself and for nothing else',
    (name) => {
      const trustDomain = TrustDomain.parse(name)
      expect(shape(`spiffe://${name}/ns/a/sa/b`, trustDomain)).toBe('plain')
      expect(shape(`spiffe://${name.replaceAll(/[._-]/g, 'x')}x/ns/a/sa/b`, trustDomain)).toBeNull()
    },
  )
})
