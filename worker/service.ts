/** From an environment to a service: the configuration, then what it takes, then the routes. Once per isolate. */

import { waitUntil } from 'cloudflare:workers'
import { type App, createApp } from './app.ts'
import { Administrators } from './attest/administrators.ts'
import { KeyClaims } from './attest/cluster_keys.ts'
import { KubernetesApi } from './cluster/kubernetes_api.ts'
import { type Config, ConfigError } from './config.ts'
import { Refusal } from './refusal.ts'
import { plainError } from './routes/respond.ts'
import { KeyRing } from './state/key_ring.ts'
import { PolicyRing } from './state/policy_ring.ts'

/** The name of the one Durable Object that holds an issuer's signing keys. */
const KEY_STATE_NAME = 'keys'
/** The same for what administrators have applied. */
const POLICY_STATE_NAME = 'policy'

/**
 * @param configure reads the environment
 * @returns a handler that serves what is configured. Where something is wrong it answers 503, and the log says what.
 */
export function createService(
  configure: (env: Env) => Config | Promise<Config>,
): Required<Pick<ExportedHandler<Env>, 'fetch'>> {
  let app: App | null = null
  let refused = false
  const start = async (env: Env): Promise<App | null> => {
    if (!app && !refused)
      try {
        app = createApp(createDeps(await configure(env), env))
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
        // An isolate's environment never changes, so neither does the verdict.
        refused = true
        log({ event: 'configuration_refused', problems: error.problems })
      }
    return app
  }
  return {
    fetch(request, env) {
      if (app) return app.fetch(request)
      return start(env).then((started) => started?.fetch(request) ?? plainError(new Refusal('not_configured', '')))
    },
  }
}

function createDeps(config: Config, env: Env) {
  const { mode, issuer, trustDomain, manifest, context, signingKeys, kms, clusterBindings: bindings } = config
  const outside = { now, waitUntil, log, allowLoopbackHttp: context.allowLoopbackHttp }
  const stamp = { mode, issuer, trustDomain: trustDomain.name }
  const keyRing = new KeyRing({
    ...outside,
    stamp,
    references: signingKeys,
    kms,
    keyState: () => env.KEY_STATE.getByName(KEY_STATE_NAME),
  })
  const policyState = () => env.POLICY_STATE.getByName(POLICY_STATE_NAME)
  return {
    ...outside,
    config,
    issuer,
    context,
    administrators: new Administrators(config.policy.admins, issuer, outside),
    policyState,
    policyRing: new PolicyRing({
      ...outside,
      stamp,
      manifest,
      context,
      claims: new KeyClaims(),
      api: (cluster) =>
        cluster.connection &&
        new KubernetesApi(cluster, cluster.connection, { ...outside, issuer, trustDomain, keyRing, bindings }),
      policyState,
    }),
    keyRing,
  }
}

/** Seconds since the epoch. */
function now(): number {
  return Math.floor(Date.now() / 1000)
}

function log(event: object): void {
  console.log(JSON.stringify(event))
}
