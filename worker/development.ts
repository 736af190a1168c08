/** The worker as `npm start` runs it: the deployed one, with a demo cluster where the manifest has none (T-12). */

import { parseConfig } from './config.ts'
import type { DemoCluster } from './demo/demo_cluster.ts'
import manifest from './manifest.yaml'
import { createService } from './service.ts'

export { DemoCluster } from './demo/demo_cluster.ts'
export { FederationState } from './state/federation_state.ts'
export { KeyState } from './state/key_state.ts'
export { PolicyState } from './state/policy_state.ts'
export { TokenState } from './state/token_state.ts'

type DevelopmentEnv = Env & {
  readonly DEMO_CLUSTER: DurableObjectNamespace<DemoCluster>
  readonly ISSUER?: string
}

const demoCluster = (env: Env) => (env as DevelopmentEnv).DEMO_CLUSTER.getByName('demo')

const service = createService(async (env) => {
  const config = parseConfig(env, manifest, 'development')
  // Who has clusters of their own wants to see those, under the names that they have in production.
  // And an issuer that others can reach is no place for a cluster that gives its tokens to everybody.
  if (config.policy.clusters.size > 0 || !config.issuer.startsWith('http:')) return config
  return parseConfig(env, `${manifest}\n${await demoCluster(env).manifest()}`, 'development')
})

export default {
  async fetch(request, env, ctx) {
    const url = URL.parse(request.url)
    // Under the issuer's own name only: a page in this machine's browser could give us a name of its own (DNS rebinding).
    const ours = url?.hostname === URL.parse((env as DevelopmentEnv).ISSUER ?? '')?.hostname
    if (ours && url?.pathname === '/demo/token') return new Response(await demoCluster(env).token())
    return service.fetch(request, env, ctx)
  },
} satisfies ExportedHandler<Env>
