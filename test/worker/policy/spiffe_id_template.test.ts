import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  agreesWithFacts,
  SpiffeIdTemplate,
  TEMPLATE_VARIABLES,
  type TemplateFacts,
} from '../../../worker/policy/spiffe_id_template.ts'
import { SpiffeId, SpiffeIdError, TrustDomain } from '../../../worker/spiffe/id.ts'

const TD = TrustDomain.parse('example.org')

const FACTS: TemplateFacts = {
  cluster: 'east',
  namespace: 'payments',
  serviceAccountName: 'checkout',
  podName: 'checkout-0',
  podUID: '79261129-6b60-41e9-9054-0800277ac80f',
}

/** @returns the expansion as a text, or null if there is none */
function expand(text: string, facts: Partial<TemplateFacts> = {}): string | null {
  return (
    SpiffeIdTemplate.parse(text, TD)
      .expand(TD, { ...FACTS, ...facts })
      ?.toString() ?? null
  )
}

describe('T-4: a template', () => {
  test.each([
    ['spiffe://example.org/web', 'spiffe://example.org/web'],
    ['spiffe://example.org/{cluster}', 'spiffe://example.org/east'],
    ['spiffe://example.org/ns/{namespace}/sa/{serviceAccountName}', 'spiffe://example.org/ns/payments/sa/checkout'],
    ['spiffe://example.org/{podName}/{podUID}/{podName}', `spiffe://example.org/checkout-0/${FACTS.podUID}/checkout-0`],
  ])('%s expands to %s', (text, id) => {
    expect(expand(text)).toBe(id)
  })

  test('knows which variables it uses', () => {
    const template = SpiffeIdTemplate.parse('spiffe://example.org/cluster/{namespace}', TD)
    expect(TEMPLATE_VARIABLES.filter((variable) => template.uses(variable))).toEqual(['namespace'])
  })

  test.each([
    ['', 'wrong_scheme'],
    ['/web', 'wrong_scheme'],
    ['https://example.org/web', 'wrong_scheme'],
    ['spiffe://example.org', 'missing_trust_domain'],
    ['spiffe://example.orgs/web', 'missing_trust_domain'],
    ['spiffe://other.example/web', 'missing_trust_domain'],
    ['spiffe://{cluster}/web', 'missing_trust_domain'],
    ['spiffe://EXAMPLE.org/web', 'missing_trust_domain'],
    ['spiffe://example.org/', 'trailing_slash'],
    ['spiffe://example.org/a//b', 'empty_segment'],
    ['spiffe://example.org/a/..', 'dot_segment'],
    ['spiffe://example.org/{namespace}/..', 'dot_segment'],
    ['spiffe://example.org/{unknown}', 'bad_path_character'],
    ['spiffe://example.org/{constructor}', 'bad_path_character'],
    ['spiffe://example.org/{Namespace}', 'bad_path_character'],
    ['spiffe://example.org/{ namespace }', 'bad_path_character'],
    ['spiffe://example.org/{}', 'bad_path_character'],
    ['spiffe://example.org/{namespace', 'bad_path_character'],
    // A variable is a whole segment, or two facts could meet in one.
    ['spiffe://example.org/{namespace}-{podName}', 'bad_path_character'],
    ['spiffe://example.org/x{namespace}', 'bad_path_character'],
    ['spiffe://example.org/{{namespace}}', 'bad_path_character'],
    ['spiffe://example.org/$namespace', 'bad_path_character'],
    ['spiffe://example.org/a b', 'bad_path_character'],
    [`spiffe://example.org/${'a'.repeat(2048)}`, 'too_long'],
  ])('%.60j is none: %s', (text, code) => {
    expect(() => SpiffeIdTemplate.parse(text, TD)).toThrow(new SpiffeIdError(code as never))
  })
})

describe('T-4: a variable expands to exactly one segment, else to nothing', () => {
  test.each([null, '', '.', '..', 'a/b', '/a', 'a/', '../x', 'a b', 'a%2fb', 'ä', '{cluster}', 'a\n', 'a:b'])(
    '%j',
    (fact) => {
      expect(expand('spiffe://example.org/x/{podName}/y', { podName: fact })).toBeNull()
      expect(expand('spiffe://example.org/x/{namespace}', { podName: fact })).toBe('spiffe://example.org/x/payments')
    },
  )

  test('ID-7: an expansion that is too long is none', () => {
    expect(expand('spiffe://example.org/{podName}', { podName: 'a'.repeat(2048) })).toBeNull()
  })
})

test('T-4: whatever the facts, an expansion stays in the trust domain and has as many segments as the template', () => {
  const segment = fc.oneof(
    fc.constantFrom(...TEMPLATE_VARIABLES.map((variable) => `{${variable}}`)),
    fc.constantFrom('ns', 'sa', 'cluster', 'web', 'x.y'),
  )
  const piece = fc.constantFrom(
    '/',
    '..',
    '.',
    '',
    'a',
    '{cluster}',
    '%2f',
    '?',
    '#',
    'spiffe://',
    '\n',
    '\\',
    '@',
    ':',
    'ä',
  )
  const fact = fc.oneof(
    fc.constant(null),
    fc.constantFrom('a', 'payments', 'x-1', '...'),
    fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join('')),
    fc.string(),
  )
  const facts = fc.record({ cluster: fact, namespace: fact, serviceAccountName: fact, podName: fact, podUID: fact })
  fc.assert(
    fc.property(fc.array(segment, { minLength: 1, maxLength: 6 }), facts, (segments, values) => {
      const id = SpiffeIdTemplate.parse(`spiffe://example.org/${segments.join('/')}`, TD).expand(TD, values)
      if (!id) return
      expect(id.trustDomain.name).toBe('example.org')
      const expanded = id.path.slice(1).split('/')
      expect(expanded).toHaveLength(segments.length)
      for (const [index, literal] of segments.entries())
        if (!literal.startsWith('{')) expect(expanded[index]).toBe(literal)
      expect(SpiffeId.parse(id.toString()).toString()).toBe(id.toString())
    }),
    { numRuns: 500 },
  )
})

describe('T-2: an ID of a mapped shape says the truth', () => {
  test.each([
    '/ns/payments/sa/checkout',
    '/cluster/east/ns/payments/sa/checkout',
    // Of no mapped shape: these say nothing.
    '/web',
    '/ns/other',
    '/ns/other/sa',
    '/ns/other/sa/other/more',
    '/sa/other/ns/other',
    '/x/ns/other/sa/other',
    '/cluster/west',
    '/cluster/west/ns/other/sa/other/more',
    '/cluster/ns/other/sa/other',
    '/Cluster/west/ns/other/sa/other',
  ])('%s does', (path) => {
    expect(agreesWithFacts(SpiffeId.of(TD, path), FACTS)).toBe(true)
  })

  test.each([
    '/ns/other/sa/checkout',
    '/ns/payments/sa/other',
    '/ns/Payments/sa/checkout',
    '/ns/checkout/sa/payments',
    '/cluster/west/ns/payments/sa/checkout',
    '/cluster/east/ns/other/sa/checkout',
    '/cluster/east/ns/payments/sa/other',
    '/cluster/payments/ns/payments/sa/checkout',
  ])('%s does not', (path) => {
    expect(agreesWithFacts(SpiffeId.of(TD, path), FACTS)).toBe(false)
  })
})
