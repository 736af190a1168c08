import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { describe, expect, test } from 'vitest'
import { DemoCluster } from '../../../worker/demo/demo_cluster.ts'
import { parsePolicy } from '../../support/policy.ts'
import { newPolicyState, TestIssuer } from '../issuer.ts'

/** Its class is in no deployed worker, so it is given the storage of an object whose class is. */
async function inDemoCluster<T>(run: (cluster: DemoCluster) => Promise<T>, object = newPolicyState()): Promise<T> {
  return runInDurableObject(object, (_, state) => run(new DemoCluster(state, env)))
}

describe('T-12: the demo cluster', () => {
  test('is a good manifest by itself', async () => {
    const { clusters, registrations } = parsePolicy(await inDemoCluster((cluster) => cluster.manifest()))
    expect([...clusters.keys()]).toEqual(['demo'])
    expect(registrations.all.map(({ name, audiences }) => [name, audiences])).toEqual([['demo', ['k8s']]])
  })

  test('has a token that the issuer takes', async () => {
    const [manifest, token] = await inDemoCluster(async (cluster) => [await cluster.manifest(), await cluster.token()])
    const objects = (manifest ?? '')
      .split('---\n')
      .filter(Boolean)
      .map((text) => JSON.parse(text) as object)
    const issuer = new TestIssuer(objects)
    issuer.clock.seconds = Math.floor(Date.now() / 1000)
    const answer = await issuer.exchange(token ?? '')
    const { access_token } = (await answer.json()) as { access_token: string }
    expect((await issuer.read(access_token)).claims.sub).toBe('spiffe://example.org/ns/default/sa/web')
  })

  test('makes its key when it is first asked, keeps it, and shows only the public half', async () => {
    const object = newPolicyState()
    const first = await inDemoCluster((cluster) => cluster.manifest(), object)
    expect(await inDemoCluster((cluster) => cluster.manifest(), object)).toBe(first)
    expect(await inDemoCluster((cluster) => cluster.manifest())).not.toBe(first)
    expect(first).not.toMatch(/"(?:d|p|q|dp|dq|qi)":/)
  })
})
