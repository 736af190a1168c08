/** From an environment to a service: the configuration, then what it takes, then the routes. Once per isolate. */

import { waitUntil } from 'cloudflare:workers'
import { type App, createApp } from './app.ts'
import { Administrators } from './attest/administrators.ts'
import { KeyClaims } from './attest/cluster_keys.ts'
import type { Log } from './audit.ts'
import { KubernetesApi } from './cluster/kubernetes_api.ts'
import { type Config, ConfigError } from './config.ts'
import type { SignedSvid } from './issue.ts'
import { Refusal } from './refusal.ts'
import { plainError } from './routes/respond.ts'
import { SharedCalls } from './shared_call.ts'
import { FederationRing } from './state/federation_ring.ts'
import type { FederationState } from './state/federation_state.ts'
import { KeyRing } from './state/key_ring.ts'
import type { KeyState } from './state/key_state.ts'
import { PolicyRing } from './state/policy_ring.ts'
import type { PolicyState } from './state/policy_state.ts'
import type { TokenState } from './state/token_state.ts'
import { TokenStore } from './state/token_store.ts'
import { SHARDS, TokenSecret } from './vault/token.ts'

/** The name of the one Durable Object that holds an issuer's signing keys. */
const KEY_STATE_NAME = 'keys'
/** The same for what administrators have applied. */
const POLICY_STATE_NAME = 'policy'
/** The same for the bundles of other trust domains. */
const FEDERATION_STATE_NAME = 'federation'
/** The same for each part of the tokens of Vault's clients. */
const TOKEN_STATE_NAME = 'tokens'

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
        app = createApp(
          createDeps(await configure(env), {
            now,
            waitUntil,
            log,
            keyState: () => env.KEY_STATE.getByName(KEY_STATE_NAME),
            policyState: () => env.POLICY_STATE.getByName(POLICY_STATE_NAME),
            federationState: () => env.FEDERATION_STATE.getByName(FEDERATION_STATE_NAME),
            tokenState: (shard) => env.TOKEN_STATE.getByName(`${TOKEN_STATE_NAME}-${shard}`),
          }),
        )
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

/** What the outside world is to a service. */
export interface Outside {
  /** Seconds since the epoch. */
  now(): number
  waitUntil(promise: Promise<unknown>): void
  log: Log
  keyState(): DurableObjectStub<KeyState>
  policyState(): DurableObjectStub<PolicyState>
  federationState(): DurableObjectStub<FederationState>
  /** @param shard from 0 to {@link SHARDS} - 1 */
  tokenState(shard: number): DurableObjectStub<TokenState>
}

/** @returns everything that the routes need, put together in the one way there is */
export function createDeps(config: Config, { keyState, policyState, federationState, tokenState, ...world }: Outside) {
  const { issuer, trustDomain, manifest, context, keys, clusterBindings: bindings } = config
  const outside = { ...world, allowLoopbackHttp: context.allowLoopbackHttp }
  const keyRing = new KeyRing({
    ...outside,
    settings: keys,
    keyState,
  })
  const tokenSecret = config.vaultTokenKeys.length > 0 ? TokenSecret.import(config.vaultTokenKeys) : null
  const unseal = async (sealed: string, purpose: string) => (await tokenSecret)?.open(sealed, purpose) ?? null
  const federationRing = new FederationRing({ ...outside, stamp: keys.stamp, federationState })
  return {
    ...outside,
    config,
    issuer,
    context,
    administrators: new Administrators(config.policy.admins, issuer, outside),
    keyState,
    signing: new SharedCalls<SignedSvid>(),
    tokenSecret,
    tokens: new TokenStore({ stamp: keys.stamp, shards: SHARDS, tokenState }),
    policyState,
    federationState,
    federationRing,
    policyRing: new PolicyRing({
      ...outside,
      stamp: keys.stamp,
      manifest,
      context,
      claims: new KeyClaims(),
      api: (cluster) =>
        cluster.connection &&
        new KubernetesApi(cluster, cluster.connection, { ...outside, issuer, trustDomain, keyRing, bindings, unseal }),
      foreignBundles: (named) => federationRing.bundles(named),
      heed: (named) => federationRing.heed(named),
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
