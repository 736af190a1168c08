/** What a worker knows of other trust domains, by its admin API, and the two changes that an administrator can make. */

import { type AdminClient, bodyOf, isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import type { Answer } from '../request.ts'
import { formatTime, printable, table } from '../terminal.ts'

/** All times are seconds since the epoch, by the clock of the worker. */
export interface TrustDomainStatus {
  readonly name: string
  readonly trustDomain: string
  readonly bundleEndpointURL: string | null
  readonly bundleEndpointProfile: string | null
  readonly fetchedAt: number | null
  readonly succeededAt: number | null
  readonly nextAt: number | null
  /** Why the last bundle was not had, or not taken. */
  readonly failure: string | null
  readonly keys: { readonly jwt: number; readonly x509: number } | null
  readonly sequence: number | null
  readonly refreshHintSeconds: number | null
  readonly changedAt: number | null
  /** `kid`s and SHA-256 of certificates. */
  readonly change: { readonly added: readonly string[]; readonly removed: readonly string[] }
  /** From when on it may use keys that the worker does not have. */
  readonly breaksAt: number | null
}

export interface Federation {
  readonly now: number
  readonly trustDomains: readonly TrustDomainStatus[]
}

export interface FederationClient {
  /** @throws Failure */
  status(): Promise<Federation>
  /**
   * Has the worker fetch a bundle now.
   *
   * @throws Failure
   */
  refresh(trustDomain: string): Promise<Federation>
  /**
   * @param bundle JSON
   * @throws Failure
   */
  set(trustDomain: string, bundle: string): Promise<Federation>
}

export function federationClient({ issuer, call }: AdminClient): FederationClient {
  const read = (answer: Answer) => {
    const { status, body } = answer
    if (status === 404 && body?.error === 'no_such_trust_domain')
      throw new Failure('the worker has no FederatedTrustDomain of that name: apply one first')
    if (status === 409 && body?.error === 'no_endpoint')
      throw new Failure('it has no bundleEndpointURL: bring the bundle with federation set')
    if (status === 409 && body?.error === 'bundle_not_fetched')
      throw new Failure(`not fetched: ${printable(String(body.code))}. What was known stays`)
    if (status === 422 && body?.error === 'bundle_refused')
      throw new Failure(`the worker refuses the bundle: ${printable(String(body.code))}. What was known stays`)
    const federation = bodyOf(answer)
    if (!isFederation(federation))
      throw new Failure(`${issuer} answers with something that is not what it knows of other trust domains`)
    return federation
  }
  return {
    status: async () => read(await call('federation')),
    refresh: async (trustDomain) => read(await call('federation/refresh', { trustDomain })),
    set: async (trustDomain, bundle) => read(await call('federation/bundle', { trustDomain, bundle })),
  }
}

/** @returns lines for a person */
export function describeFederation({ now, trustDomains }: Federation): string {
  if (trustDomains.length === 0) return 'no other trust domain is believed\n'
  const rows = trustDomains.map((one) => [
    one.trustDomain,
    one.keys ? `${one.keys.jwt} JWT, ${one.keys.x509} X.509` : 'none',
    one.sequence === null ? '-' : String(one.sequence),
    time(one.succeededAt),
    time(one.nextAt),
    one.breaksAt !== null && one.breaksAt <= now ? `since ${time(one.breaksAt)}` : time(one.breaksAt),
    one.failure ?? '-',
  ])
  const changes = trustDomains.flatMap(({ trustDomain, changedAt, change }) =>
    changedAt === null
      ? []
      : [
          `${trustDomain} changed ${time(changedAt)}:`,
          ...change.added.map((key) => `  + ${key}`),
          ...change.removed.map((key) => `  - ${key}`),
        ],
  )
  const head = ['TRUST DOMAIN', 'KEYS', 'SEQUENCE', 'FETCHED', 'NEXT', 'BREAKS', 'FAILURE']
  return table([head, ...rows]) + changes.map((line) => `${printable(line)}\n`).join('')
}

function time(seconds: number | null): string {
  return seconds === null ? '-' : formatTime(seconds)
}

/** ECMA-262 §21.4.1.1: later than this there is no date. */
const LAST_TIME = 8_640_000_000_000

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isTime(value: unknown): boolean {
  return value === null || (isCount(value) && value <= LAST_TIME)
}

function isTextOrNull(value: unknown): boolean {
  return value === null || typeof value === 'string'
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string')
}

function isTrustDomain(value: unknown): boolean {
  return (
    isRecord(value) &&
    typeof value.name === 'string' &&
    typeof value.trustDomain === 'string' &&
    [value.bundleEndpointURL, value.bundleEndpointProfile, value.failure].every(isTextOrNull) &&
    [value.fetchedAt, value.succeededAt, value.nextAt, value.changedAt, value.breaksAt].every(isTime) &&
    [value.sequence, value.refreshHintSeconds].every((number) => number === null || isCount(number)) &&
    (value.keys === null || (isRecord(value.keys) && isCount(value.keys.jwt) && isCount(value.keys.x509))) &&
    isRecord(value.change) &&
    isTexts(value.change.added) &&
    isTexts(value.change.removed)
  )
}

function isFederation(value: unknown): value is Federation {
  return (
    isRecord(value) &&
    isCount(value.now) &&
    value.now <= LAST_TIME &&
    Array.isArray(value.trustDomains) &&
    value.trustDomains.every(isTrustDomain)
  )
}
