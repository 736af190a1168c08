import { describe, expect, test } from 'vitest'
import { ManifestError } from '../../../worker/policy/manifest.ts'
import { CONTEXT, cluster, manifest, parsePolicy, problemsOf, registration } from '../../support/policy.ts'

/** @returns what is wrong, nothing if it is good */
function problems(text: string): readonly string[] {
  try {
    parsePolicy(text)
    return []
  } catch (error) {
    if (error instanceof ManifestError) return error.problems
    throw error
  }
}

const GOOD = `
# A cluster and who may have what in it.
apiVersion: spiffe-edge.io/v1alpha1
kind: Cluster
metadata:
  name: east
spec:
  issuer: https://east.example.net
  jwks: {discovery: true}
---
apiVersion: kubespiffe.io/v1alpha1
kind: WorkloadRegistration
metadata:
  name: web
spec:
  clusters: [east]
  selector:
    namespace: default
    serviceAccountName: web
  audiences:
    - k8s
---
`

test('D7: YAML documents become a policy, in their order', () => {
  const policy = parsePolicy(GOOD)
  expect([...policy.clusters.keys()]).toEqual(['east'])
  expect(policy.registrations.all.map(({ name, audiences }) => [name, audiences])).toEqual([['web', ['k8s']]])
  expect(policy.trustDomain).toBe(CONTEXT.trustDomain)
})

test.each(['', '\n', '# nothing', '---\n---\n', 'null', '...'])(
  '%j is an empty policy, which refuses everybody',
  (text) => {
    const { clusters, registrations } = parsePolicy(text)
    expect([clusters.size, registrations.all]).toEqual([0, []])
  },
)

describe('what is no manifest', () => {
  test.each<[string, string, RegExp]>([
    ['a name twice in one object', 'kind: Cluster\nkind: Cluster', /^document 1: not YAML: DUPLICATE_KEY at line 2$/],
    ['a name twice deeper down', `${GOOD}kind: Cluster\nspec: {a: 1, "a": 2}`, /^document 3: not YAML: DUPLICATE_KEY/],
    ['broken YAML', 'a: [', /^document 1: not YAML: [A-Z_]+ at line \d+$/],
    ['a tab for a blank', 'a:\n\tb: 1', /^document 1: not YAML: [A-Z_]+ at line \d+$/],
    ['an alias', 'a: &a 1\nb: *a', /^document 1: uses an alias$/],
    ['an alias to nothing', 'a: *b', /^document 1: (?:uses an alias|not YAML: .*)$/],
    ['a text', 'hello', /^document 1: /],
    ['a number', '1', /^document 1: /],
    ['a list', '[]', /^document 1: /],
    ['an object of an unknown kind', 'kind: Secret\nmetadata: {name: a}', /^Secret a: kind: /],
    ['an object without a kind', 'metadata: {name: a}', /^document 1: kind: /],
    ['an object whose kind is a list', 'kind: [Cluster]', /^document 1: kind: /],
    ['another version', GOOD.replace('io/v1alpha1', 'io/v1'), /^Cluster east: apiVersion: /],
    [
      'the apiVersion of the other kind',
      GOOD.replace('kubespiffe.io', 'spiffe-edge.io'),
      /^WorkloadRegistration web: apiVersion: /,
    ],
    ['something beside spec', GOOD.replace('spec:', 'status: {}\nspec:'), /^Cluster east: status: unknown field$/],
    [
      'something beside name',
      GOOD.replace('name: east', 'name: east\n  labels: {}'),
      /^Cluster east: metadata.labels: unknown field$/,
    ],
    [
      'a member called __proto__',
      GOOD.replace('issuer:', '__proto__: {a: 1}\n  issuer:'),
      /^Cluster east: spec.__proto__: unknown field$/,
    ],
  ])('%s is refused', (_, text, problem) => {
    const found = problems(text)
    expect(found[0]).toMatch(problem)
  })

  test('an alias that multiplies is refused before it does', () => {
    const bomb = Array.from(
      { length: 30 },
      (_, level) => `a${level}: &a${level} [${level ? `*a${level - 1},*a${level - 1}` : 'x'}]`,
    )
    expect(problems(bomb.join('\n'))).toEqual(['document 1: uses an alias'])
  })
})

test('names are taken once per kind', () => {
  const found = problemsOf(cluster('east'), cluster('east'), registration('web'), registration('web'))
  expect(found).toContain('Cluster east: the name is taken')
  expect(found).toContain('WorkloadRegistration web: the name is taken')
  expect(problemsOf(cluster('east'), registration('east'))).toEqual([])
})

test('all problems are listed, each with the kind and name of its object, and none of the rest is used', () => {
  const found = problemsOf(
    cluster('east', { issuer: 'http://east.example.net' }),
    cluster('west', { audiences: [] }),
    registration('one', { ttlSeconds: 1 }),
    registration('two', { spiffeID: 'spiffe://other.example/x' }),
    registration('three', { clusters: ['north'] }),
  )
  expect(found.map((problem) => problem.split(': ').slice(0, 2).join(': ')).toSorted()).toEqual([
    'Cluster east: spec.issuer',
    'Cluster west: spec.audiences',
    'WorkloadRegistration one: spec.ttlSeconds',
    'WorkloadRegistration three: spec.clusters',
    'WorkloadRegistration two: spec.spiffeID',
  ])
})

test('an error repeats no key of a cluster', () => {
  const keys = [{ kty: 'EC', kid: 'k', d: 'SECRET-SCALAR', crv: 'P-256', x: 'A'.repeat(43), y: 'E'.repeat(43) }]
  const found = problems(manifest(cluster('east', { jwks: { inline: { keys } } })))
  expect(found).toEqual(['Cluster east: spec.jwks.inline: holds a private key'])
})
