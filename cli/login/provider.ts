/**
 * A person's identity provider, from the outside: OpenID Connect as openid-client speaks it, over our own requests, with what
 * it says and gives turned into sessions and failures.
 */

import { decodeJwt } from 'jose'
import * as oidc from 'openid-client'
import { Failure } from '../failure.ts'
import { requestBytes, requestJson, Unreachable } from '../request.ts'
import { printable, type Terminal } from '../terminal.ts'
import type { Account } from './account.ts'
import type { Session } from './session.ts'

/** This machine's clock may be off by as much. A token that is over by this clock is not used all the same. */
const CLOCK_TOLERANCE_SECONDS = 60
const TIMEOUT_SECONDS = 20
const MAX_ANSWER_BYTES = 1024 * 1024
const MAX_SAID_CHARACTERS = 200
const DEFAULT_SCOPE = ['openid', 'profile', 'email']
const REFRESH_SCOPE = 'offline_access'
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const FIRST_INTERVAL_SECONDS = 5
/** By RFC 8628 §3.5, for `slow_down`; and for a connection that fails in between. */
const SLOWER_BY_SECONDS = 5
/** The library takes them for good for 300 s. */
const KEYS_GOOD_SECONDS = 240
/** What a provider says of a refresh token, or of the person behind it; all else may be over in a moment. */
const REFUSALS: ReadonlySet<string> = new Set([
  'invalid_grant',
  'invalid_scope',
  'unauthorized_client',
  'unsupported_grant_type',
  'access_denied',
  'interaction_required',
  'login_required',
  'consent_required',
  'account_selection_required',
])

/** What a login is told by, besides what is kept of it. */
export interface Person {
  /** Empty if the provider does not say. */
  readonly name: string
  readonly picture: string
}

export interface LoggedIn {
  readonly session: Session
  readonly person: Person
}

/** Of one attempt. All of it is secret. */
export interface Attempt {
  readonly state: string
  readonly nonce: string
  readonly verifier: string
}

/** The refresh token is of no use any more. */
export class RefreshRefused extends Failure {}

export interface DeviceAuthorization {
  readonly userCode: string
  readonly verificationUri: string
  /** With the code in it; null if the provider has none. */
  readonly verificationUriComplete: string | null
  /** Ends with the person's answer, or when the code is over. */
  finish(wait: Terminal['wait']): Promise<LoggedIn>
}

type Answer = Awaited<ReturnType<typeof oidc.refreshTokenGrant>>

export class Provider {
  readonly #config: oidc.Configuration
  readonly #account: Account
  readonly #now: () => number

  private constructor(config: oidc.Configuration, account: Account, now: () => number) {
    this.#config = config
    this.#account = account
    this.#now = now
  }

  /**
   * @param clientSecret null for a public client
   * @param now milliseconds since the epoch
   * @throws Failure
   */
  static async discover(account: Account, clientSecret: string | null, now: () => number): Promise<Provider> {
    const { issuer, clientId } = account
    const metadata = { [oidc.clockTolerance]: CLOCK_TOLERANCE_SECONDS }
    try {
      const config = await oidc.discovery(new URL(issuer), clientId, metadata, authentication(clientSecret), {
        [oidc.customFetch]: request,
        timeout: TIMEOUT_SECONDS,
        // Known to be this machine, by `settings.ts`.
        ...(issuer.startsWith('http:') && { execute: [oidc.allowInsecureRequests] }),
      })
      oidc.enableNonRepudiationChecks(config)
      return new Provider(config, account, now)
    } catch (error) {
      throw failureOf(error, issuer)
    }
  }

  get hasDeviceFlow(): boolean {
    return this.#config.serverMetadata().device_authorization_endpoint !== undefined
  }

  newAttempt(): Attempt {
    return { state: oidc.randomState(), nonce: oidc.randomNonce(), verifier: oidc.randomPKCECodeVerifier() }
  }

  async challenge({ verifier }: Attempt): Promise<string> {
    return await oidc.calculatePKCECodeChallenge(verifier)
  }

  /** @see [RFC 7636 §4.3](https://www.rfc-editor.org/rfc/rfc7636#section-4.3) */
  authorizationUrl({ state, nonce }: Attempt, challenge: string, redirectUri: string): URL {
    return oidc.buildAuthorizationUrl(this.#config, {
      ...Object.fromEntries(this.#account.parameters),
      redirect_uri: redirectUri,
      scope: this.#scope(),
      state,
      nonce,
      code_challenge: challenge,
      code_challenge_method: 'S256',
    })
  }

  /**
   * @param url the redirect URI with the provider's answer; its `state`, `iss` and the ID token's signature, `iss`, `aud`,
   * `nonce` and times are checked
   * @throws Failure
   */
  async redeem(url: URL, { state, nonce, verifier }: Attempt): Promise<LoggedIn> {
    const checks = { expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier, idTokenExpected: true }
    try {
      return this.#loggedIn(await oidc.authorizationCodeGrant(this.#config, url, checks))
    } catch (error) {
      throw failureOf(error, this.#account.issuer)
    }
  }

  /**
   * @see [RFC 8628 §3.1](https://www.rfc-editor.org/rfc/rfc8628#section-3.1)
   * @throws Failure
   */
  async authorizeDevice(): Promise<DeviceAuthorization> {
    const parameters = { ...Object.fromEntries(this.#account.parameters), scope: this.#scope() }
    try {
      const given = await oidc.initiateDeviceAuthorization(this.#config, parameters)
      const verificationUri = webUrl(given.verification_uri)
      if (!verificationUri) throw new Failure(`${this.#account.issuer} names no web page to enter a code at`)
      return {
        userCode: given.user_code,
        verificationUri,
        verificationUriComplete: webUrl(given.verification_uri_complete),
        finish: (wait) => this.#poll(given, wait),
      }
    } catch (error) {
      throw failureOf(error, this.#account.issuer)
    }
  }

  /**
   * @returns the session with what is new; the old refresh token stays where there is no new one
   * @throws RefreshRefused, Failure
   */
  async refresh(session: Session): Promise<Session> {
    const { issuer } = this.#account
    try {
      await this.#loadKeys()
      const answer = await oidc.refreshTokenGrant(this.#config, session.refreshToken ?? '')
      const refreshed = this.#session(answer, session.refreshToken)
      // Another person's token, by whatever mistake, is not this person's (OpenID Connect Core §12.2).
      if (refreshed.subject !== null && session.subject !== null && refreshed.subject !== session.subject)
        throw new RefreshRefused(`${issuer} has answered for somebody else`)
      return { ...refreshed, subject: refreshed.subject ?? session.subject }
    } catch (error) {
      const refused = error instanceof oidc.ResponseBodyError && REFUSALS.has(error.error)
      const failure = failureOf(error, issuer)
      throw refused ? new RefreshRefused(failure.message) : failure
    }
  }

  /**
   * @returns false if the provider has no such thing
   * @see [RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)
   * @throws Failure
   */
  async revoke(token: string): Promise<boolean> {
    if (this.#config.serverMetadata().revocation_endpoint === undefined) return false
    try {
      await oidc.tokenRevocation(this.#config, token)
      return true
    } catch (error) {
      throw failureOf(error, this.#account.issuer)
    }
  }

  async #poll(given: oidc.DeviceAuthorizationResponse, wait: Terminal['wait']): Promise<LoggedIn> {
    const end = this.#now() + given.expires_in * 1000
    let seconds = given.interval ?? FIRST_INTERVAL_SECONDS
    for (;;) {
      await wait(seconds * 1000)
      if (this.#now() >= end) throw new Failure('the code is over, and nobody has used it')
      let answer: Answer
      try {
        await this.#loadKeys()
        answer = await oidc.genericGrantRequest(this.#config, DEVICE_GRANT, { device_code: given.device_code })
      } catch (error) {
        const code = error instanceof oidc.ResponseBodyError ? error.error : null
        const unreachable = causeOf(error) instanceof Unreachable
        if (code === 'slow_down' || unreachable) seconds += SLOWER_BY_SECONDS
        else if (code !== 'authorization_pending') throw failureOf(error, this.#account.issuer)
        continue
      }
      return this.#loggedIn(answer)
    }
  }

  /** Before anything is spent that is good once: the library asks for them when it has the answer, and forgets that if it cannot. */
  async #loadKeys(): Promise<void> {
    const { jwks_uri: url } = this.#config.serverMetadata()
    const now = Math.floor(Date.now() / 1000)
    const known = oidc.getJwksCache(this.#config)
    if (!url || (known && now - known.uat < KEYS_GOOD_SECONDS)) return
    const { origin } = new URL(url)
    const bounds = { timeoutMs: TIMEOUT_SECONDS * 1000, maxBytes: MAX_ANSWER_BYTES }
    const { status, body } = await requestJson(url, origin, bounds)
    if (status >= 500) throw new Unreachable(`${origin}: its keys cannot be had now (${status})`)
    if (status !== 200 || !Array.isArray(body?.keys)) throw new Failure(`${origin}: its keys cannot be had (${status})`)
    oidc.setJwksCache(this.#config, { jwks: { keys: body.keys }, uat: now })
  }

  /** @throws Failure */
  #loggedIn(answer: Answer): LoggedIn {
    if (answer.id_token === undefined) throw new Failure(`${this.#account.issuer} gives no ID token`)
    const claims: Record<string, unknown> = answer.claims() ?? {}
    const { name, preferred_username: username, email, picture } = claims
    const texts = [name, username, email].filter((text) => typeof text === 'string' && text !== '')
    return {
      session: this.#session(answer, null),
      person: { name: texts[0] ?? '', picture: typeof picture === 'string' ? picture : '' } as Person,
    }
  }

  /** @throws Failure */
  #session(answer: Answer, refreshToken: string | null): Session {
    const { issuer, token: kind } = this.#account
    const claims = answer.claims()
    const now = Math.floor(this.#now() / 1000)
    const [token, expiresAt] =
      kind === 'id'
        ? [answer.id_token, claims && Math.floor(claims.exp)]
        : [answer.access_token, accessTokenEnd(answer.access_token, answer.expires_in, now)]
    if (token === undefined)
      throw new RefreshRefused(`${issuer} gives no new ID token with its answer: --token access may be what you want`)
    if (expiresAt === undefined) throw new Failure(`${issuer} does not say how long its access token is good`)
    if (expiresAt <= now)
      throw new Failure(`${issuer} gives a token that is over by this machine's clock. Is the clock right?`)
    return {
      token,
      expiresAt,
      subject: claims?.sub ?? null,
      refreshToken: answer.refresh_token ?? refreshToken,
      svids: [],
    }
  }

  #scope(): string {
    const { scope } = this.#account
    if (scope) return scope.join(' ')
    const known = this.#config.serverMetadata().scopes_supported ?? []
    return [...DEFAULT_SCOPE, ...(known.includes(REFRESH_SCOPE) ? [REFRESH_SCOPE] : [])].join(' ')
  }
}

/** @see [RFC 6749 §2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1) */
function authentication(secret: string | null): oidc.ClientAuth {
  if (secret === null) return oidc.None()
  const [basic, post] = [oidc.ClientSecretBasic(secret), oidc.ClientSecretPost(secret)]
  return (server, client, body, headers) => {
    const known = server.token_endpoint_auth_methods_supported
    // Who says nothing takes it by Basic (OpenID Connect Discovery §3).
    const method = known?.includes('client_secret_post') && !known.includes('client_secret_basic') ? post : basic
    method(server, client, body, headers)
  }
}

/** The sooner of what the answer and the token say; undefined if neither says anything. */
function accessTokenEnd(token: string, expiresIn: number | undefined, now: number): number | undefined {
  let exp: number | undefined
  try {
    exp = decodeJwt(token).exp
  } catch {
    // It need not be a JWT, and is not for us.
  }
  const ends = [exp, expiresIn === undefined ? undefined : now + expiresIn].filter((end) => end !== undefined)
  return ends.length > 0 ? Math.floor(Math.min(...ends)) : undefined
}

/** The requests of the library, with our own bounds. No redirect is followed. */
const request: oidc.CustomFetch = async (url, { method, headers, body }) => {
  const {
    bytes,
    status,
    headers: given,
  } = await requestBytes(
    url,
    new URL(url).origin,
    {
      method,
      headers,
      timeoutMs: TIMEOUT_SECONDS * 1000,
      maxBytes: MAX_ANSWER_BYTES,
      ...(body instanceof URLSearchParams && { body }),
    },
    headers.accept ?? 'application/json',
  )
  const lines = Object.entries(given).flatMap(([name, values]) =>
    [values ?? []].flat().map((value): [string, string] => [name, value]),
  )
  // A body where there may be none is an error of the constructor.
  const bare = status === 204 || status === 205 || status === 304
  return new Response(bare ? null : new Uint8Array(bytes), { status, headers: lines })
}

/** @returns our own failure to ask, which the library has wrapped; null if it was asked and did answer */
function causeOf(error: unknown): Failure | null {
  if (error instanceof Failure) return error
  return error instanceof Error && error.cause instanceof Failure ? error.cause : null
}

/** By code and by what we know: messages of others may repeat what was sent. */
function failureOf(error: unknown, issuer: string): Failure {
  const own = causeOf(error)
  if (own) return own
  if (error instanceof oidc.AuthorizationResponseError || error instanceof oidc.ResponseBodyError) {
    const { error: code, error_description: description } = error
    return new Failure(`${issuer} refuses: ${said(code)}${description ? ` (${said(description)})` : ''}`)
  }
  const { code } = error as { code?: unknown }
  switch (code) {
    case 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED':
      return new Failure(`${issuer} gives an ID token that is not good at this time. Is this machine's clock right?`)
    case 'OAUTH_JWT_CLAIM_COMPARISON_FAILED':
      return new Failure(`${issuer} gives an ID token that is made out to somebody else, or for another login`)
    case 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED':
      return new Failure(`${issuer} says that it is another issuer: the URL must be the same to the letter`)
    case 'OAUTH_RESPONSE_IS_NOT_CONFORM':
    case 'OAUTH_RESPONSE_IS_NOT_JSON':
    case 'OAUTH_PARSE_ERROR':
      return new Failure(`${issuer} answers with something that is not OpenID Connect. Is the URL right?`)
  }
  // Only names of the library's own get here, and never a value.
  return new Failure(
    `${issuer} gives an answer that cannot be accepted (${typeof code === 'string' ? code : 'no code'})`,
  )
}

function said(text: string): string {
  return printable(text.slice(0, MAX_SAID_CHARACTERS))
}

/** A terminal makes links of other schemes too. */
function webUrl(text: string | undefined): string | null {
  return text && URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) ? new URL(text).href : null
}
