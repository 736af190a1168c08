/** A whole issuer with everything real in it but the clock, the network and the log. */

import { env } from 'cloudflare:workers'
import { verifyCompact } from '../../keys/jws.ts'
import { readKeySet } from '../../keys/key_set.ts'
import { type App, type AppDeps, createApp } from '../../worker/app.ts'
import { parseConfig } from '../../worker/config.ts'
import { parseJwt } from '../../worker/jwt.ts'
import { createDeps } from '../../worker/service.ts'
import { Clock } from '../support/clock.ts'
import { ISSUER, manifest, TRUST_DOMAIN } from '../support/policy.ts'
import { FederationWorld } from './federation_world.ts'
import { KeyWorld } from './key_world.ts'
import { TokenWorld } from './token_world.ts'

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt'

/** The operator's log. */
export class LogBook {
  readonly events: Record<string, unknown>[] = []

  /** Bound, to be handed over as `log`. */
  readonly log = (event: object): void => {
    this.events.push(event as Record<string, unknown>)
  }

  /** As the operator reads it. */
  get text(): string {
    return this.events.map((event) => `${JSON.stringify(event)}\n`).join('')
  }

  get decisions(): Record<string, unknown>[] {
    return this.events.filter(({ event }) => event === 'decision')
  }
}

/** A `waitUntil` that can be waited for. */
export class Background {
  readonly #promises: Promise<unknown>[] = []

  /** Bound, to be handed over as `waitUntil`. */
  readonly waitUntil = (promise: Promise<unknown>): void => {
    this.#promises.push(promise)
  }

  async settled(): Promise<void> {
    while (this.#promises.length > 0) await Promise.allSettled(this.#promises.splice(0))
  }
}

/** A storage for what administrators apply that no other test has. */
export function newPolicyState() {
  return env.POLICY_STATE.getByName(`test-${crypto.randomUUID()}`)
}

/** What a client sends, as names and values; one that is null is left out. */
export type Form = Readonly<Record<string, string | readonly string[] | null>>

export class TestIssuer {
  readonly clock = new Clock()
  readonly book = new LogBook()
  readonly background = new Background()
  readonly deps: AppDeps
  readonly app: App
  readonly keys: KeyWorld
  readonly federation: FederationWorld
  readonly tokens: TokenWorld

  /** @param variables laid over those of an issuer in development with one local key */
  constructor(objects: readonly object[], variables: object = {}, deps: Partial<AppDeps> = {}) {
    const { clock, book, background } = this
    const environment = {
      MODE: 'development',
      ISSUER,
      TRUST_DOMAIN: TRUST_DOMAIN.name,
      SIGNING_KEY: 'local:first',
      ...variables,
    }
    const config = parseConfig(environment, manifest(...objects), 'development')
    const { kms, wrapping, times } = config.keys
    this.keys = new KeyWorld([], { kms, wrapping, times, clock })
    this.keys.settings = config.keys
    const { stub: keyState } = this.keys
    const policyState = newPolicyState()
    this.federation = new FederationWorld(clock)
    this.tokens = new TokenWorld(clock)
    this.deps = {
      ...createDeps(config, {
        now: clock.now,
        waitUntil: background.waitUntil,
        log: book.log,
        keyState: () => keyState,
        policyState: () => policyState,
        federationState: () => this.federation.stub,
        tokenState: this.tokens.stub,
      }),
      ...deps,
    }
    this.app = createApp(this.deps)
  }

  async fetch(path: string, init?: RequestInit): Promise<Response> {
    return this.app.fetch(new Request(new URL(path, this.deps.issuer), init))
  }

  /** @param form laid over a token exchange that has nothing wrong with it */
  async exchange(subjectToken: string, form: Form = {}, init: RequestInit = {}): Promise<Response> {
    return this.app.fetch(exchangeRequest(`${this.deps.issuer}/token`, subjectToken, form, init))
  }

  /** @returns the header and claims of a token that is signed with one of the published keys */
  async read(token: string) {
    const keys = await readKeySet(JSON.parse(await this.publishedJwks()).keys, ['ES256', 'RS256', 'ES384'])
    const jws = parseJwt(token)
    const key = keys.get(jws.header.kid)
    if (!key || !(await verifyCompact(jws, key))) throw new TypeError('not signed with a published key')
    return { header: jws.header, claims: jws.payload }
  }

  async publishedJwks(): Promise<string> {
    return (await this.fetch(`${this.deps.config.basePath}/keys`)).text()
  }
}

/** The body as text, of whatever type it says it is: workerd warns where `text()` reads what it does not take for text. */
export async function textOf(response: Response | undefined): Promise<string> {
  return new TextDecoder().decode(await response?.arrayBuffer())
}

export function exchangeRequest(url: string, subjectToken: string, form: Form = {}, init: RequestInit = {}): Request {
  const fields: Form = {
    grant_type: TOKEN_EXCHANGE,
    subject_token: subjectToken,
    subject_token_type: JWT_TYPE,
    ...form,
  }
  const body = new URLSearchParams(
    Object.entries(fields).flatMap(([name, value]) =>
      [value ?? []].flat().map((one) => [name, one] as [string, string]),
    ),
  )
  return new Request(url, { method: 'POST', body, ...init })
}
