/** The keys of a worker as its admin API shows them: a fake that goes by the contract, with real keys and a clock of its own. */

import { createHash } from 'node:crypto'
import { calculateJwkThumbprint, type JWK } from 'jose'
import type { AlgorithmName } from '../../keys/algorithms.ts'
import type { KeyUse } from '../../keys/signer.ts'
import { Clock } from './clock.ts'
import { makeTokenKey, signToken, type TokenKey } from './tokens.ts'

export interface KeyEntry {
  kid: string
  alg: AlgorithmName
  keeper: string
  made: boolean
  entry: number | null
  phase: 'announced' | 'published' | 'active' | 'retiring'
  since: number
  publishedAt: number | null
  safeAt: number | null
  dueAt: number | null
  goneAt: number | null
  failed: string | null
}

interface ScriptedAnswer {
  status: number
  body?: unknown
}

const CANARY_LIFETIME_SECONDS = 3600

export class WorkerKeys {
  readonly clock = new Clock()
  signingLeaseSeconds = 240
  defaultAlg: AlgorithmName | null = 'ES256'
  keys: { entry: KeyEntry; key: TokenKey }[] = []
  authorities: { entry: KeyEntry & { certificate: string | null }; key: TokenKey }[] = []
  problems: { use: KeyUse; entry: number; reason: string }[] = []
  orphans: string[] = []
  kms: { hours: object[] } | null = null
  /** What the issuer answers with instead of the right JWKS. */
  stale: () => string | null = () => null
  /** How long a canary is good for. */
  canaryLifetime = CANARY_LIFETIME_SECONDS
  canaryProblem: string | null = null
  /** `alg` of each request to rotate, and `kid` of each to revoke. */
  readonly rotated: unknown[] = []
  readonly revoked: { kid: string; revokedAt: number }[] = []
  /** Every canary that was ever handed out. */
  readonly canaries: string[] = []
  readonly #issuer: () => string
  readonly #clusters: () => string[]

  constructor(issuer: () => string, clusters: () => string[]) {
    this.#issuer = issuer
    this.#clusters = clusters
  }

  async add(phase: KeyEntry['phase'], more: Partial<KeyEntry> = {}): Promise<TokenKey> {
    const alg = more.alg ?? 'ES256'
    const key = await makeTokenKey(alg)
    const now = this.#now()
    const entry = {
      ...{ kid: key.kid, alg, keeper: 'local', made: true, entry: null, phase, since: now - 600, failed: null },
      publishedAt: phase === 'announced' ? null : now - 600,
      safeAt: phase === 'published' ? now - 60 : null,
      dueAt: phase === 'active' ? now + 86_400 : null,
      goneAt: phase === 'retiring' ? now + 3900 : null,
      ...more,
    }
    this.keys.push({ entry, key })
    return key
  }

  /** @param certificate DER in base64: what its end is read from */
  async addAuthority(phase: KeyEntry['phase'], more: Partial<KeyEntry> = {}, certificate = 'AAAA'): Promise<TokenKey> {
    const made = await this.add(phase, more)
    const { entry } = this.keys.pop() ?? {}
    const key = { ...made, kid: await calculateJwkThumbprint(made.publicJwk as JWK) }
    if (entry) this.authorities.push({ entry: { ...entry, kid: key.kid, certificate }, key })
    return key
  }

  /** As it should be. */
  bundle(): string {
    const published = this.authorities.filter(({ entry }) => entry.phase !== 'announced')
    const keys = published.map(({ entry, key: { publicJwk } }) => {
      const { alg: _, kid: __, ...members } = publicJwk as JsonWebKey & { kid: string }
      return { ...members, use: 'x509-svid', x5c: [entry.certificate] }
    })
    return JSON.stringify({ keys, spiffe_sequence: 1, spiffe_refresh_hint: 300 })
  }

  #now(): number {
    return Math.floor(this.clock.seconds)
  }

  /** As it should be. */
  jwks(): string {
    const published = this.keys.filter(({ entry }) => entry.phase !== 'announced')
    return JSON.stringify({ keys: published.map(({ key }) => key.publicJwk) })
  }

  sha256(): string {
    return createHash('sha256').update(this.jwks()).digest('hex')
  }

  document() {
    const authorities = this.authorities.map(({ entry }) => entry)
    const { problems, orphans, revoked, kms, defaultAlg, signingLeaseSeconds } = this
    const keys = this.keys.map(({ entry }) => entry)
    const jwks = { sha256: this.sha256() }
    return {
      now: this.#now(),
      jwks,
      signingLeaseSeconds,
      defaultAlg,
      keys,
      authorities,
      problems,
      orphans,
      revoked,
      kms,
    }
  }

  rotate({ use, alg }: { use: unknown; alg: unknown }): ScriptedAnswer {
    this.rotated.push(alg)
    const wanted = alg ?? this.defaultAlg
    const of = (phase: string) =>
      (use === 'x509-svid' ? this.authorities : this.keys).find(
        ({ entry }) => entry.made && entry.phase === phase && entry.alg === wanted,
      )?.entry
    const next = of('published')
    if (!next) return { status: 409, body: { error: 'no_successor' } }
    if ((next.safeAt ?? Infinity) > this.#now())
      return { status: 409, body: { error: 'not_safe_yet', safeAt: next.safeAt } }
    const old = of('active')
    const now = this.#now()
    if (old) Object.assign(old, { phase: 'retiring', since: now, dueAt: null, goneAt: now + 3900 })
    Object.assign(next, { phase: 'active', since: now, safeAt: null, dueAt: now + 86_400 })
    return { status: 200, body: this.document() }
  }

  async revoke({ kid }: { kid: string }): Promise<ScriptedAnswer> {
    const authority = this.authorities.find(({ entry }) => entry.kid === kid)
    const found = this.keys.find(({ entry }) => entry.kid === kid)
    const before = this.revoked.find((entry) => entry.kid === kid)
    if (!found && !authority && !before) return { status: 404, body: { error: 'no_such_key' } }
    const now = this.#now()
    const revokedAt = before?.revokedAt ?? now
    if (!before) this.revoked.push({ kid, revokedAt })
    this.keys = this.keys.filter((entry) => entry !== found)
    this.authorities = this.authorities.filter((entry) => entry !== authority)
    const canaries = []
    if (found && this.canaryProblem === null)
      for (const cluster of this.#clusters()) {
        const audience = `k8s-${cluster}`
        const exp = now + this.canaryLifetime
        const sub = 'spiffe://example.org/spiffe-edge/canary'
        const claims = { iss: this.#issuer(), aud: [audience], sub, iat: now, exp }
        const token = await signToken({ alg: found.key.alg, kid, typ: 'JWT' }, claims, found.key)
        this.canaries.push(token)
        canaries.push({ cluster, audience, token })
      }
    const { canaryProblem, signingLeaseSeconds } = this
    const use = authority ? 'x509-svid' : 'jwt-svid'
    const body = {
      kid,
      use,
      revokedAt,
      signingStopsAt: revokedAt + signingLeaseSeconds,
      jwks: { sha256: this.sha256() },
    }
    return { status: 200, body: { ...body, canaries, canaryProblem } }
  }
}
