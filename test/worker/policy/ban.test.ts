import { describe, expect, test } from 'vitest'
import { FakeCluster, POD } from '../../support/cluster.ts'
import { from, problemsOf, registration } from '../../support/policy.ts'
import { TestIssuer } from '../issuer.ts'

const [east, west] = await Promise.all([FakeCluster.create('east'), FakeCluster.create('west')])

const ban = (name: string, spec: object) => ({
  apiVersion: 'spiffe-edge.io/v1alpha1',
  kind: 'Ban',
  metadata: { name },
  spec,
})
const SERVICE_ACCOUNT = `${POD.namespace}:${POD.serviceAccount.name}`
const ID = `spiffe://example.org/cluster/east/ns/${POD.namespace}/sa/${POD.serviceAccount.name}`

const OBJECTS = [
  east.record(),
  west.record(),
  registration('web', { clusters: ['east', 'west'], audiences: ['a'] }),
  registration('other', {
    clusters: ['east', 'west'],
    audiences: ['b'],
    spiffeID: 'spiffe://example.org/{cluster}/other',
  }),
]

/** What `/token` says to the pod that tests know, of the clusters east and west. */
async function said(issuer: TestIssuer, form: Record<string, string> = { spiffe_id: ID }): Promise<unknown[]> {
  return Promise.all(
    [east, west].map(async (cluster) => {
      const spiffeId = form.spiffe_id?.replace('/east/', `/${cluster.name}/`)
      const answer = await issuer.exchange(await cluster.token(), { ...form, ...(spiffeId && { spiffe_id: spiffeId }) })
      const body = (await answer.json()) as { reason?: string; error?: string; error_description?: string }
      if (answer.status === 200) return 'issued'
      return [answer.status, body.error, body.reason]
    }),
  )
}
const BANNED = [400, 'invalid_request', 'banned']

/** Applied by hand: what an administrator may do has tests of its own. */
async function apply(issuer: TestIssuer, put: readonly object[], remove: readonly string[] = []) {
  const state = issuer.deps.policyState()
  const { version } = await issuer.deps.policyRing.renew()
  const rows = from('applied', ...put).map(({ object }) => ({ kind: 'Ban', name: object.metadata.name, object }))
  await state.apply(
    rows,
    remove.map((name) => ({ kind: 'Ban', name })),
    version,
  )
  await issuer.deps.policyRing.renew()
}

describe.each<[string, object]>([
  ['a SPIFFE ID', { spiffeID: ID, reason: 'incident 7' }],
  ['a service account', { cluster: 'east', serviceAccount: SERVICE_ACCOUNT }],
  ['a node', { cluster: 'east', nodeUID: POD.node.uid }],
])('T-26: %s that is banned', (_, spec) => {
  test('in the manifest gets nothing, and its like in another cluster what it got', async () => {
    const issuer = new TestIssuer([...OBJECTS, ban('incident', spec)])
    expect(await said(issuer)).toEqual([BANNED, 'issued'])
    expect(issuer.book.decisions[0]).toMatchObject({ reason: 'banned', detail: 'by Ban incident' })
  })

  test('at run time gets nothing from then on, until it is unbanned', async () => {
    const issuer = new TestIssuer(OBJECTS)
    expect(await said(issuer)).toEqual(['issued', 'issued'])
    await apply(issuer, [ban('incident', spec)])
    expect(await said(issuer)).toEqual([BANNED, 'issued'])
    await apply(issuer, [], ['incident'])
    expect(await said(issuer)).toEqual(['issued', 'issued'])
  })
})

describe('T-26: a ban', () => {
  test('of a service account or node holds for every ID it could ask for, one of an ID for that one', async () => {
    const other = { spiffe_id: 'spiffe://example.org/east/other' }
    for (const [spec, outcome] of [
      [{ cluster: 'east', serviceAccount: SERVICE_ACCOUNT }, BANNED],
      [{ cluster: 'east', nodeUID: POD.node.uid }, BANNED],
      [{ spiffeID: ID }, 'issued'],
      [{ spiffeID: other.spiffe_id }, BANNED],
    ] as const)
      expect((await said(new TestIssuer([...OBJECTS, ban('incident', spec)]), other))[0]).toEqual(outcome)
  })

  test.each<[string, object]>([
    ['another service account of the namespace', { cluster: 'east', serviceAccount: `${POD.namespace}:checkout` }],
    [
      'the service account of another namespace',
      { cluster: 'east', serviceAccount: `other:${POD.serviceAccount.name}` },
    ],
    ['a cluster that there is not', { cluster: 'north', serviceAccount: SERVICE_ACCOUNT }],
    ['a node by its name', { cluster: 'east', nodeUID: POD.node.name }],
    ['an ID below', { spiffeID: `${ID}/x` }],
    ['a beginning of the ID', { spiffeID: ID.slice(0, -1) }],
  ])('of %s is none of this pod', async (_, spec) => {
    expect(await said(new TestIssuer([...OBJECTS, ban('incident', spec)]))).toEqual(['issued', 'issued'])
  })

  test('is one of several, any of which is enough', async () => {
    const issuer = new TestIssuer([
      ...OBJECTS,
      ban('one', { spiffeID: ID }),
      ban('two', { cluster: 'east', serviceAccount: SERVICE_ACCOUNT }),
    ])
    await apply(issuer, [ban('three', { spiffeID: ID })])
    expect(await said(issuer)).toEqual([BANNED, 'issued'])
  })

  test.each<[string, object, string]>([
    ['nothing', {}, ''],
    ['an ID that is none', { spiffeID: 'web' }, 'not a SPIFFE ID'],
    ['the trust domain itself', { spiffeID: 'spiffe://example.org' }, 'not a SPIFFE ID'],
    ['a pattern', { spiffeID: 'spiffe://example.org/*' }, 'not a SPIFFE ID'],
    [
      'an ID of another trust domain, which nobody has here',
      { spiffeID: 'spiffe://other.example/web' },
      'spec.spiffeID: is of another trust domain',
    ],
    ['a service account without its cluster', { serviceAccount: SERVICE_ACCOUNT }, ''],
    ['a service account without its namespace', { cluster: 'east', serviceAccount: 'web' }, ''],
    ['a node without its cluster', { nodeUID: POD.node.uid }, ''],
    ['two things at once', { spiffeID: ID, cluster: 'east', nodeUID: POD.node.uid }, ''],
    ['a node with a blank', { cluster: 'east', nodeUID: 'a b' }, ''],
    ['a reason without end', { spiffeID: ID, reason: 'x'.repeat(1025) }, ''],
  ])('of %s is refused', (_, spec, problem) => {
    const problems = problemsOf(...OBJECTS, ban('incident', spec))
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(/^Ban incident: spec/)
    expect(problems[0]).toContain(problem)
  })
})
