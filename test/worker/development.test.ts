import { createExecutionContext, reset, runInDurableObject, waitOnExecutionContext } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { DemoCluster } from '../../worker/demo/demo_cluster.ts'
import { parseKeySettings } from '../../worker/key_settings.ts'
import { exchangeRequest, newPolicyState } from './issuer.ts'
import { KeyWorld } from './key_world.ts'

const ISSUER = 'http://localhost:8787'
const VARIABLES = { MODE: 'development', ISSUER, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:dev' }

beforeEach(() => {
  const keys = new KeyWorld([], {}, env.KEY_STATE.idFromName('keys'))
  keys.settings = parseKeySettings(VARIABLES)
  vi.spyOn(console, 'log').mockImplementation(() => {})
})
afterEach(async () => {
  vi.restoreAllMocks()
  await reset()
})

/** The worker as `npm start` runs it, in an isolate of its own. */
async function development(variables: object) {
  vi.resetModules()
  const { default: worker } = await import('../../worker/development.ts')
  const object = newPolicyState()
  const inDemoCluster = <T>(run: (cluster: DemoCluster) => Promise<T>) =>
    runInDurableObject(object, (_, state) => run(new DemoCluster(state, env)))
  const demo = {
    manifest: () => inDemoCluster((cluster) => cluster.manifest()),
    token: () => inDemoCluster((cluster) => cluster.token()),
  }
  const bindings = { ...env, ...variables, DEMO_CLUSTER: { getByName: () => demo } } as unknown as Env
  return async (request: Request): Promise<Response> => {
    const context = createExecutionContext()
    const answer = await worker.fetch(request as never, bindings, context)
    await waitOnExecutionContext(context)
    return answer
  }
}

describe('T-12: the worker for development', () => {
  test('exchanges the token of its demo cluster', async () => {
    const send = await development(VARIABLES)
    const token = await (await send(new Request(`${ISSUER}/demo/token`))).text()
    const answer = await send(exchangeRequest(`${ISSUER}/token`, token))
    expect([answer.status, await answer.json()]).toEqual([
      200,
      expect.objectContaining({ token_type: 'Bearer', expires_in: 300 }),
    ])
  })

  test.each([{}, { MODE: 'production' }, { MODE: '' }])(
    'is 503 where %j does not ask for it',
    async ({ MODE }: { MODE?: string }) => {
      const { MODE: _, ...rest } = VARIABLES
      const send = await development(MODE === undefined ? rest : { ...rest, MODE })
      expect((await send(new Request(`${ISSUER}/keys`))).status).toBe(503)
    },
  )
})
