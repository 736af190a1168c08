import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { Failure } from '../../../cli/failure.ts'
import { parseRevoked, type Revoked } from '../../../cli/objects/revocation.ts'
import { renderWithRevocations } from '../../../cli/objects/revocation_rule.ts'
import {
  API_VERSIONS,
  MAPPINGS,
  renderAuthenticationConfiguration,
} from '../../../worker/cluster/authentication_configuration.ts'
import type { Cluster } from '../../../worker/policy/cluster.ts'
import { cluster, ISSUER, policyOf, TRUST_DOMAIN } from '../../support/policy.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'
const NOTHING: Revoked = { version: 1, tokens: [], subjects: [] }
const SOME: Revoked = { version: 1, tokens: ['a', 'b'], subjects: [ID] }
const RULE = {
  expression: `!(has(claims.jti) && claims.jti in ['a','b']) && !(claims.sub in ['${ID}'])`,
  message: 'the token or its subject is revoked',
}

const entry = (change: object = {}) => ({
  issuer: { url: ISSUER, audiences: ['k8s'] },
  claimMappings: { username: { claim: 'sub', prefix: '' } },
  ...change,
})
const configuration = (...jwt: readonly unknown[]) => ({
  apiVersion: 'apiserver.config.k8s.io/v1',
  kind: 'AuthenticationConfiguration',
  jwt,
})
const render = (template: object | string, revoked = SOME) =>
  renderWithRevocations(typeof template === 'string' ? template : JSON.stringify(template), ISSUER, revoked)

describe('T-13: the result is the template', () => {
  const foreign = entry({
    issuer: { url: 'https://idp.example.com', audiences: ['x'] },
    claimValidationRules: [{ claim: 'hd' }],
  })
  const own = { claim: 'tier', requiredValue: 'gold' }

  test('and one rule behind those of the entry of our issuer', () => {
    expect(parse(render(configuration(foreign, entry(), foreign)))).toEqual(
      configuration(foreign, entry({ claimValidationRules: [RULE] }), foreign),
    )
    expect(parse(render(configuration(entry({ claimValidationRules: [own] }))))).toEqual(
      configuration(entry({ claimValidationRules: [own, RULE] })),
    )
    expect(parse(render(configuration(entry({ claimValidationRules: [] }))))).toEqual(
      configuration(entry({ claimValidationRules: [RULE] })),
    )
  })

  test('and nothing where nothing is revoked', () => {
    for (const change of [{}, { claimValidationRules: [] }, { claimValidationRules: [own] }])
      expect(parse(render(configuration(entry(change)), NOTHING))).toEqual(configuration(entry(change)))
  })

  test.each<[string, Partial<Revoked>, string]>([
    ['tokens', { tokens: ['a'] }, "!(has(claims.jti) && claims.jti in ['a'])"],
    ['subjects', { subjects: [ID] }, `!(claims.sub in ['${ID}'])`],
  ])('the rule is about %s alone where there are no others', (_, revoked, expression) => {
    const { jwt } = parse(render(configuration(entry()), { ...NOTHING, ...revoked }))
    expect(jwt[0].claimValidationRules).toEqual([{ ...RULE, expression }])
  })

  test('whatever GET /structured-auth.yaml gives', () => {
    const record = policyOf(cluster('east')).clusters.get('east') as Cluster
    for (const version of API_VERSIONS)
      for (const mapping of MAPPINGS) {
        const template = renderAuthenticationConfiguration(ISSUER, TRUST_DOMAIN, record, version, mapping)
        expect(parse(render(template, NOTHING))).toEqual(parse(template))
        const { jwt } = parse(render(template))
        expect(jwt[0].claimValidationRules).toEqual([RULE])
      }
  })

  test('in the same bytes for the same content, so that nothing is written for nothing', () => {
    const template = configuration(entry())
    expect(render(`# comment\n${stringify(template)}`)).toBe(render(template))
  })

  test.each<[string, string | object]>([
    ['nothing', ''],
    ['no YAML', '{'],
    ['a list', '[]'],
    ['two documents', `${JSON.stringify(configuration(entry()))}\n---\n{}`],
    ['of another kind', { ...configuration(entry()), kind: 'EncryptionConfiguration' }],
    ['without jwt', { ...configuration(), jwt: undefined }],
    ['with a jwt that is no list', { ...configuration(), jwt: entry() }],
    ['that does not know our issuer', configuration(foreign)],
    ['that knows our issuer with a slash', configuration(entry({ issuer: { url: `${ISSUER}/` } }))],
    ['that knows our issuer twice', configuration(entry(), entry())],
    ['with rules that are no list', configuration(entry({ claimValidationRules: {} }))],
    ['with rules that are null', configuration(entry({ claimValidationRules: null }))],
    ['that is a file that was written', configuration(entry({ claimValidationRules: [RULE] }))],
    ['with a member twice', JSON.stringify(configuration(entry())).replace('{', '{"kind":"x",')],
    ['with an alias', `${JSON.stringify(configuration(entry())).slice(0, -1)}, "a": &a 1, "b": *a}`],
    ['with a tag', stringify(configuration(entry())).replace('- k8s', '- !!binary k8s')],
    // These are a boolean, a number and a time to kube-apiserver, whose YAML is 1.1.
    ['with a bare yes', stringify(configuration(entry())).replace('- k8s', '- yes')],
    ['with a bare number in 1.1', stringify(configuration(entry())).replace('- k8s', '- 1_000')],
    ['with a bare octal in 1.1', stringify(configuration(entry())).replace('- k8s', '- 017')],
    ['with a bare time in 1.1', stringify(configuration(entry())).replace('- k8s', '- 2026-11-22')],
    ['with a line break of 1.1', configuration(entry({ claimValidationRules: [{ claim: 'a\u2028b' }] }))],
    ['with a control character', configuration(entry({ claimValidationRules: [{ claim: 'a\u007fb' }] }))],
  ])('T-13: a template %s is refused', (_, template) => {
    for (const revoked of [SOME, NOTHING]) expect(() => render(template, revoked)).toThrow(Failure)
  })

  test('what is wrong with it is not repeated', () => {
    expect(() => render('password: "hunter2')).toThrow(expect.not.objectContaining({ message: /hunter2/ }))
  })
})

const jti = fc.stringMatching(/^[A-Za-z0-9_-]{1,128}$/)
const segment = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,40}$/)
const spiffeId = fc
  .tuple(fc.stringMatching(/^[a-z0-9._-]{1,60}$/), fc.array(segment, { minLength: 1, maxLength: 5 }))
  .map(([trustDomain, path]) => `spiffe://${trustDomain}/${path.join('/')}`)
const wire = (change: object = {}) => ({ cluster: 'east', version: 7, tokens: ['a'], subjects: [ID], ...change })

describe('T-13: what comes over the wire', () => {
  test('is ids, SPIFFE IDs and a number, each once and in their order', () => {
    expect(parseRevoked(wire({ tokens: ['b', 'a', 'b'], subjects: [`${ID}2`, ID] }), 'east')).toEqual({
      version: 7,
      tokens: ['a', 'b'],
      subjects: [ID, `${ID}2`],
    })
    expect(parseRevoked(wire({ tokens: [], subjects: [] }), 'east')).toEqual({ ...NOTHING, version: 7 })
  })

  test('is nothing else, whatever else is sent', () => {
    const more = { issuer: 'https://evil.example', rules: ['true'], audiences: ['x'], jwt: [] }
    expect(parseRevoked(wire(more), 'east')).toEqual(parseRevoked(wire(), 'east'))
  })

  test('may be of another trust domain: it is the template that says whose tokens the rule is about', () => {
    expect(parseRevoked(wire({ subjects: ['spiffe://other.example/x'] }), 'east')).not.toBeNull()
  })

  test.each<[string, object | null]>([
    ['nothing', null],
    ['for another cluster', wire({ cluster: 'west' })],
    ['without tokens', wire({ tokens: undefined })],
    ['without subjects', wire({ subjects: undefined })],
    ['with tokens that are no list', wire({ tokens: { 0: 'a', length: 1 } })],
    ['with a token that is no text', wire({ tokens: ['a', 7] })],
    ['with a token that is a list', wire({ tokens: [['a']] })],
    ['with an empty token', wire({ tokens: [''] })],
    ['with an id that is too long', wire({ tokens: ['x'.repeat(129)] })],
    ['with an id that ends a text of CEL', wire({ tokens: ["a'] || true || ''in['"] })],
    ['with an id that ends a text of YAML', wire({ tokens: ['a"\n- x'] })],
    ['with an id that escapes', wire({ tokens: ['a\\'] })],
    ['with a whole trust domain', wire({ subjects: ['spiffe://example.org'] })],
    ['with a subject that is no SPIFFE ID', wire({ subjects: ['system:admin'] })],
    ['with a SPIFFE ID that ends a text of CEL', wire({ subjects: [`${ID}'`] })],
    ['with a pattern', wire({ subjects: ['spiffe://example.org/*'] })],
    ['with a version that is a text', wire({ version: '7' })],
    ['without a version', wire({ version: undefined })],
    ['with more tokens than there can be', wire({ tokens: Array.from({ length: 1001 }, (_, index) => `t${index}`) })],
    [
      'with more text than the rule can hold',
      wire({ subjects: Array.from({ length: 60 }, (_, index) => `spiffe://example.org/${'x'.repeat(2000)}/${index}`) }),
    ],
  ])('and refused as a whole where it is %s', (_, body) => {
    expect(parseRevoked(body as never, 'east')).toBeNull()
  })

  test('whatever it holds, a rule has only texts of the two grammars in it', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(jti, fc.string(), fc.string({ unit: 'binary' })), { maxLength: 4 }),
        fc.array(fc.oneof(spiffeId, fc.string(), fc.string({ unit: 'binary' })), { maxLength: 4 }),
        (tokens, subjects) => {
          const revoked = parseRevoked(wire({ tokens, subjects }), 'east')
          if (!revoked) return
          const { jwt } = parse(render(configuration(entry()), revoked))
          const { expression = '' } = jwt[0].claimValidationRules?.[0] ?? {}
          expect(expression).toMatch(
            /^(?:!\(has\(claims\.jti\) && claims\.jti in \[(?:'[\w-]+',?)+\]\))?(?: && )?(?:!\(claims\.sub in \[(?:'spiffe:\/\/[\w./-]+',?)+\]\))?$/,
          )
        },
      ),
      { numRuns: 1000 },
    )
  })

  test('whatever is revoked, the file reads back as the template and one rule that lists just that', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(jti, { maxLength: 20 }),
        fc.uniqueArray(spiffeId, { maxLength: 20 }),
        fc.constantFrom<object[]>({}, { claimValidationRules: [] }, { claimValidationRules: [{ claim: 'x' }] }),
        fc.array(fc.string(), { maxLength: 2 }),
        (tokens, subjects, change, texts) => {
          const template = configuration(
            entry(change),
            entry({ issuer: { url: 'https://other.example', audiences: texts } }),
          )
          const revoked = parseRevoked(wire({ tokens, subjects }), 'east') as Revoked
          let text: string
          try {
            text = render(template, revoked)
          } catch (error) {
            // A text that YAML may not hold.
            if (error instanceof Failure && texts.some((one) => /[^\x20-\x7e]/.test(one))) return
            throw error
          }
          const [ours, other] = parse(text, { version: '1.1' }).jwt
          expect(other).toEqual(template.jwt[1])
          const { claimValidationRules = [], ...rest } = ours
          const { claimValidationRules: before = [], ...was } = entry(change) as { claimValidationRules?: unknown[] }
          expect([rest, claimValidationRules.slice(0, before.length)]).toEqual([was, before])
          const [rule, ...more] = claimValidationRules.slice(before.length)
          expect(more).toEqual([])
          const listed = [...(rule?.expression ?? '').matchAll(/'([^']*)'/g)].map(([, one]) => one)
          expect(listed).toEqual([...revoked.tokens, ...revoked.subjects])
        },
      ),
      { numRuns: 300 },
    )
  })
})
