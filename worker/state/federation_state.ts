/**
 * The one place that fetches the bundles of other trust domains and remembers them. Each is fetched by itself, when its own
 * time has come, so whoever is silent, slow or wrong keeps nobody else waiting; and what was good last stays until there is
 * something better, or the trust domain is named no more.
 *
 * @see [SPIFFE Federation §4 and §6](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md)
 */

import { DurableObject } from 'cloudflare:workers'
import { keyMark } from '../../keys/key_set.ts'
import { endpointUrlProblem } from '../endpoint_url.ts'
import { type ForeignBundle, ForeignBundleError, parseForeignBundle } from '../federation/foreign_bundle.ts'
import { FetchError, fetchPublicText } from '../fetch_json.ts'
import type { Stamp } from '../key_settings.ts'
import { FederationStore, type KeyChange, type NamedPeer, type Naming, type Peer } from './federation_store.ts'
import { compareStamp } from './stamp.ts'

/** What an isolate gets, or nothing where it has it already. */
export type FederationReading =
  | { readonly stamp: 'foreign'; readonly field: keyof Stamp }
  | {
      readonly stamp: 'ours'
      /** Whether the asker is to say what its policy names, and then to ask again. */
      readonly unnamed: boolean
      /** Whether what the asker's policy names is what counts. */
      readonly heard: boolean
      /** Of the bundles. */
      readonly version: number
      /** Whether a trust domain has just been named and nobody has heard of it yet. */
      readonly pending: boolean
      readonly bundles: readonly (readonly [trustDomain: string, bundle: ForeignBundle])[] | null
    }

/** A trust domain as an administrator sees it. All times are seconds since the epoch. */
export interface PeerStatus {
  readonly trustDomain: string
  readonly fetchedAt: number | null
  readonly succeededAt: number | null
  /** Why the last bundle was not to be had or not taken. */
  readonly failure: string | null
  readonly nextAt: number | null
  /** null where there is no bundle. */
  readonly keys: { readonly jwt: number; readonly x509: number } | null
  readonly sequence: number | null
  readonly refreshHintSeconds: number | null
  readonly changedAt: number | null
  readonly change: KeyChange
  /** From when on it may sign with what we do not know (FE-10), or has no X.509 authority left; null for never. */
  readonly breaksAt: number | null
}

export type SetOutcome =
  | { readonly outcome: 'set' | 'unknown' }
  | { readonly outcome: 'refused'; readonly code: string }

export type RefreshOutcome =
  | { readonly outcome: 'refreshed' | 'unknown' | 'no_endpoint' }
  | { readonly outcome: 'failed'; readonly code: string }

/** The bundle that a policy names a trust domain with. */
interface Brought {
  /** Of its text, in hexadecimal. */
  readonly sha256: string
  /** null where it was taken or refused before. */
  readonly bundle: ForeignBundle | ForeignBundleError | null
}

/** How often a bundle is fetched that has no hint (BU-3). */
const DEFAULT_REFRESH_SECONDS = 300
/** SPIRE's floor, too. */
const MIN_REFRESH_SECONDS = 60
const MAX_REFRESH_SECONDS = 3600
/** How many hints ahead a trust domain publishes a key at least, before it signs with it (FE-10). */
const HINTS_AHEAD = 3
/** How long isolates with another policy must be silent before theirs does not count any more: longer than the lease of one. */
const NAMING_SECONDS = 75
/** How often it is written down that one has spoken. */
const SPOKEN_SECONDS = 10
/** How long a bundle is kept that no policy names any more: in a rollout, one may still come. */
const UNNAMED_SECONDS = 600
/** How long isolates may be silent altogether before nothing is fetched for them: where they name nobody, they do not ask. */
const SILENCE_SECONDS = 86_400
/** The mark of a policy of which only the version is known: whoever has it is to tell. */
const UNTOLD = ''
/**
 * How late a bundle may be fetched before what is known is believed no more: after a silence, or a lost alarm. Longer than it
 * takes where all of a hundred hang.
 */
const OVERDUE_SECONDS = 300
/** A platform gives as many connections at a time, and has the others wait. */
const CONCURRENT_FETCHES = 5

export class FederationState extends DurableObject<Env> {
  readonly #store = new FederationStore(this.ctx.storage)
  /** What is under way, by trust domain. What is known to be out of date by the time it arrives is taken out. */
  readonly #fetching = new Map<string, Promise<string | null>>()

  /** Seconds since the epoch. */
  protected now(): number {
    return Math.floor(Date.now() / 1000)
  }

  protected log(event: object): void {
    console.log(JSON.stringify(event))
  }

  /**
   * @param naming what the asker's policy is
   * @param known the version of the bundles that the asker has, null for none
   */
  async read(stamp: Stamp, naming: Naming, known: number | null): Promise<FederationReading> {
    const foreign = compareStamp(this.ctx.storage.sql, stamp)
    if (foreign) return { stamp: 'foreign', field: foreign }
    const counts = this.#counts(naming)
    const current = this.#store.naming()
    const same = current?.mark === naming.mark && current.version === naming.version
    if (same && this.now() - current.namedAt >= SPOKEN_SECONDS) this.#store.named(naming, this.now())
    // What may have been taken back while nobody looked is not to be believed until somebody has.
    for (const trustDomain of this.#store.overdue(this.now() - OVERDUE_SECONDS)) this.#store.setStale(trustDomain, true)
    const { version } = this.#store
    // An alarm that failed too often is never tried again.
    await this.#wake()
    return {
      stamp: 'ours',
      unnamed: counts && !same,
      heard: same,
      version,
      pending: this.#store.pending,
      bundles:
        version === known
          ? null
          : this.#store
              .peers()
              .flatMap(({ trustDomain, bundle, unnamedAt, stale }) =>
                bundle && unnamedAt === null && !stale ? [[trustDomain, bundle]] : [],
              ),
    }
  }

  /** Takes a policy for the one that counts, unless there is a newer one. */
  async tell(stamp: Stamp, naming: Naming, named: readonly NamedPeer[]): Promise<void> {
    if (compareStamp(this.ctx.storage.sql, stamp)) return
    const brought = new Map<string, Brought>()
    for (const { trustDomain, bootstrap } of named) {
      if (bootstrap === null) continue
      const sha256 = await digest(bootstrap)
      const bundle = this.#store.hasSeen(trustDomain, sha256) ? null : await judged(bootstrap)
      brought.set(trustDomain, { sha256, bundle })
    }
    // Who has been forgotten in between begins anew.
    if (brought.entries().some(([name, { sha256, bundle }]) => !bundle && !this.#store.hasSeen(name, sha256)))
      return this.tell(stamp, naming, named)
    // By now another may have been told.
    if (!this.#counts(naming)) return
    const now = this.now()
    this.#store.named(naming, now)
    const names = new Set(named.map(({ trustDomain }) => trustDomain))
    for (const { trustDomain, unnamedAt } of this.#store.peers())
      if (!names.has(trustDomain) && unnamedAt === null) this.#store.setUnnamed(trustDomain, now)
    for (const peer of named) this.#admit(peer, brought.get(peer.trustDomain))
    await this.#wake()
  }

  /**
   * Ends the relationship with trust domains at once: what is known of them is deleted (FE-13).
   *
   * @param version of the policy that names them no more. Isolates that have an older one do not bring them back.
   */
  async forget(stamp: Stamp, version: number, trustDomains: readonly string[]): Promise<void> {
    if (compareStamp(this.ctx.storage.sql, stamp)) return
    const current = this.#store.naming()
    const isLatest = !current || version > current.version || (version === current.version && current.mark === UNTOLD)
    // Else somebody may have named it again since.
    const ended = isLatest ? trustDomains : trustDomains.filter((name) => this.#store.peer(name)?.unnamedAt !== null)
    if (version > (current?.version ?? -1)) this.#store.named({ version, mark: UNTOLD }, this.now())
    this.#remove(ended)
    await this.#wake()
  }

  /**
   * Takes a bundle for the latest, whatever its sequence: an administrator has brought it (FE-11).
   *
   * @param text JSON
   */
  async set(stamp: Stamp, trustDomain: string, text: string): Promise<SetOutcome> {
    if (compareStamp(this.ctx.storage.sql, stamp)) return { outcome: 'unknown' }
    const bundle = await judged(text)
    if (bundle instanceof ForeignBundleError) return { outcome: 'refused', code: bundle.code }
    const peer = this.#store.peer(trustDomain)
    if (!peer || peer.unnamedAt !== null) return { outcome: 'unknown' }
    this.#keep(peer, bundle)
    // One that is on its way is older than this one, which counts until the next.
    this.#fetching.delete(trustDomain)
    this.#store.update(trustDomain, { nextAt: this.now() + refreshSeconds(bundle) })
    await this.#wake()
    return { outcome: 'set' }
  }

  /** Fetches a bundle now. */
  async refresh(stamp: Stamp, trustDomain: string): Promise<RefreshOutcome> {
    const peer = this.#store.peer(trustDomain)
    if (compareStamp(this.ctx.storage.sql, stamp) || !peer || peer.unnamedAt !== null) return { outcome: 'unknown' }
    if (peer.url === null) return { outcome: 'no_endpoint' }
    const code = await this.#refresh(trustDomain)
    await this.#wake()
    return code === null ? { outcome: 'refreshed' } : { outcome: 'failed', code }
  }

  /** @returns null where the storage belongs to something else */
  report(stamp: Stamp): PeerStatus[] | null {
    if (compareStamp(this.ctx.storage.sql, stamp)) return null
    return this.#store
      .peers()
      .filter(({ unnamedAt }) => unnamedAt === null)
      .map((peer) => {
        const { trustDomain, fetchedAt, succeededAt, failure, bundle, changedAt, change } = peer
        return {
          ...{ trustDomain, fetchedAt, succeededAt, failure, changedAt, change },
          nextAt: peer.url === null ? null : peer.nextAt,
          keys: bundle && { jwt: bundle.jwtAuthorities.length, x509: bundle.x509Authorities.length },
          sequence: bundle?.sequence ?? null,
          refreshHintSeconds: bundle?.refreshHintSeconds ?? null,
          breaksAt: breaksAt(peer),
        }
      })
  }

  override async alarm(): Promise<void> {
    const now = this.now()
    // Whoever speaks next is to tell everything again. What is known stays, and what has been taken back with it: from a
    // policy's own bundle it could not be told again.
    if (now - (this.#store.naming()?.namedAt ?? 0) >= SILENCE_SECONDS) this.#store.unname()
    this.#remove(
      this.#store
        .peers()
        .filter(({ unnamedAt }) => unnamedAt !== null && now - unnamedAt >= UNNAMED_SECONDS)
        .map(({ trustDomain }) => trustDomain),
    )
    const due = (this.#store.naming() ? this.#store.peers() : [])
      .filter((peer) => isFetched(peer) && peer.nextAt <= now)
      .toSorted((one, other) => one.nextAt - other.nextAt)
      .values()
    // Each takes the next one when it is done, so nobody waits for the slowest.
    await Promise.all(
      Array.from({ length: CONCURRENT_FETCHES }, async () => {
        for (const { trustDomain } of due) await this.#refresh(trustDomain)
      }),
    )
    await this.#wake()
  }

  /** Whether what an isolate says of its policy is to be taken for what holds. */
  #counts({ version, mark }: Naming): boolean {
    const current = this.#store.naming()
    if (!current || version > current.version) return true
    if (version === current.version && (mark === current.mark || current.mark === UNTOLD)) return true
    // In a rollout old isolates and new ones have different manifests: one of them at a time. After the storage of the policy
    // was put back, its version is lower.
    return this.now() - current.namedAt >= NAMING_SECONDS
  }

  /**
   * Takes in a trust domain as it is named now.
   *
   * @param brought the bundle that it is named with, if it is
   */
  #admit({ trustDomain, url }: NamedPeer, brought: Brought | undefined): void {
    const now = this.now()
    const before = this.#store.peer(trustDomain)
    if (!before) this.#store.add(trustDomain, now)
    else if (before.unnamedAt !== null) this.#store.setUnnamed(trustDomain, null)
    const moved = before !== null && before.url !== url
    // An answer from where it was is nobody's any more.
    if (moved) this.#fetching.delete(trustDomain)
    // Sequences are of one server: another's may begin anew.
    const kept = moved && before.bundle?.sequence ? { ...before.bundle, sequence: null } : undefined
    this.#store.update(trustDomain, { url, ...(moved && { nextAt: now }) }, kept)
    // Nobody could be asked.
    if (url === null && before?.stale) this.#store.setStale(trustDomain, false)
    const peer = this.#store.peer(trustDomain)
    if (!brought?.bundle || !peer || this.#store.hasSeen(trustDomain, brought.sha256)) return
    const { bundle } = brought
    // In a rollout, isolates that have an older manifest would bring back what it has been replaced for.
    this.#store.see(trustDomain, brought.sha256)
    if (bundle instanceof ForeignBundleError) {
      this.#store.update(trustDomain, { failure: bundle.code })
      this.log({ event: 'federation_bundle_refused', trust_domain: trustDomain, reason: bundle.code })
    } else this.#keep(peer, bundle)
  }

  /** @returns why there is no new bundle, or null. Never rejects. Who asks while one is under way gets the same. */
  async #refresh(trustDomain: string): Promise<string | null> {
    const underWay = this.#fetching.get(trustDomain)
    if (underWay) return underWay
    const peer = this.#store.peer(trustDomain)
    if (!peer || peer.url === null || peer.unnamedAt !== null) return 'superseded'
    const isCurrent = () => this.#fetching.get(trustDomain) === own
    const own: Promise<string | null> = this.#fetch(trustDomain, peer.url, isCurrent).finally(() => {
      if (isCurrent()) this.#fetching.delete(trustDomain)
    })
    this.#fetching.set(trustDomain, own)
    return own
  }

  /** @param isCurrent whether what has been fetched still counts: nothing has come in between */
  async #fetch(trustDomain: string, url: string, isCurrent: () => boolean): Promise<string | null> {
    const fetchedAt = this.now()
    // Should this object end over it, it is not the first thing that is tried again.
    this.#store.update(trustDomain, {
      nextAt: fetchedAt + refreshSeconds(this.#store.peer(trustDomain)?.bundle ?? null),
    })
    let bundle: ForeignBundle | null = null
    let failure: string | null = null
    try {
      bundle = await parseForeignBundle(await fetchPublicText(url, this.#allowRedirect()))
    } catch (error) {
      failure = error instanceof FetchError || error instanceof ForeignBundleError ? error.code : 'internal'
    }
    const peer = this.#store.peer(trustDomain)
    if (!peer || !isCurrent()) return 'superseded'
    const kept = peer.bundle
    if (kept && bundle && isBefore(bundle, kept)) failure = 'sequence_fell'
    const next = failure === null ? bundle : kept
    this.#store.update(trustDomain, {
      ...{ fetchedAt, failure },
      // After a failure too: no hurry helps whoever is in trouble (FE-9).
      nextAt: fetchedAt + refreshSeconds(next),
    })
    if (failure === null && bundle) this.#keep(peer, bundle, fetchedAt)
    else if (peer.stale) this.#store.setStale(trustDomain, false)
    this.log({
      ...{ event: 'federation_bundle_fetched', trust_domain: trustDomain, failure },
      ...(bundle && { sequence: bundle.sequence }),
    })
    return failure
  }

  /** @param succeededAt when it was asked for, where that was its endpoint */
  #keep({ trustDomain, bundle: kept, stale }: Peer, bundle: ForeignBundle, succeededAt?: number): void {
    if (stale) this.#store.setStale(trustDomain, false)
    const change = compareKeys(kept ? keysOf(kept) : new Map(), keysOf(bundle))
    const changed = kept === null || change.added.length + change.removed.length > 0
    this.#store.update(
      trustDomain,
      {
        ...(succeededAt === undefined ? { failure: null } : { succeededAt }),
        ...(changed && { change, changedAt: this.now() }),
      },
      // What is the same is no new version, for which every isolate would have to read everything again.
      changed || kept.sequence !== bundle.sequence || kept.refreshHintSeconds !== bundle.refreshHintSeconds
        ? bundle
        : undefined,
    )
  }

  /** Every target is judged as the endpoint itself was, and none is remembered (FE-8). */
  #allowRedirect(): (url: string) => boolean {
    const [mode] = this.ctx.storage.sql.exec("select value from stamp where field = 'mode'").toArray()
    return (url) => endpointUrlProblem(url, mode?.value === 'development', true) === null
  }

  #remove(trustDomains: readonly string[]): void {
    for (const trustDomain of trustDomains) this.#fetching.delete(trustDomain)
    this.#store.remove(trustDomains)
  }

  async #wake(): Promise<void> {
    await this.wakeUpAt(this.#store.nextTime(UNNAMED_SECONDS, this.#store.naming() !== null))
  }

  /** @param seconds since the epoch; null for never */
  protected async wakeUpAt(seconds: number | null): Promise<void> {
    const { storage } = this.ctx
    const set = await storage.getAlarm()
    if (seconds === null) {
      if (set !== null) await storage.deleteAlarm()
    } else if (set !== seconds * 1000) await storage.setAlarm(seconds * 1000)
  }
}

/** @returns the bundle that a text is, or why it is none */
async function judged(text: string): Promise<ForeignBundle | ForeignBundleError> {
  try {
    return await parseForeignBundle(text)
  } catch (error) {
    if (error instanceof ForeignBundleError) return error
    throw error
  }
}

async function digest(text: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).toHex()
}

function isFetched({ url, unnamedAt }: Peer): boolean {
  return url !== null && unnamedAt === null
}

/** FE-11: one that says so itself is older. Without a sequence the later one is. */
function isBefore({ sequence }: ForeignBundle, kept: ForeignBundle): boolean {
  return sequence !== null && kept.sequence !== null && sequence < kept.sequence
}

function refreshSeconds(bundle: ForeignBundle | null): number {
  const hint = bundle?.refreshHintSeconds ?? DEFAULT_REFRESH_SECONDS
  return Math.min(Math.max(hint, MIN_REFRESH_SECONDS), MAX_REFRESH_SECONDS)
}

function breaksAt({ url, bundle, succeededAt }: Peer): number | null {
  if (!bundle) return null
  const ends = bundle.x509Authorities.map(({ notAfter }) => notAfter)
  const times = [
    ...(url !== null && succeededAt !== null
      ? [succeededAt + HINTS_AHEAD * (bundle.refreshHintSeconds ?? DEFAULT_REFRESH_SECONDS)]
      : []),
    ...(ends.length > 0 ? [Math.max(...ends)] : []),
  ]
  return times.length > 0 ? Math.min(...times) : null
}

/** @returns what each key is called, by a text that is the same for the same key alone */
function keysOf({ jwtAuthorities, x509Authorities }: ForeignBundle): ReadonlyMap<string, string> {
  return new Map([
    ...jwtAuthorities.map(({ kid, publicKey }) => [`${keyMark(publicKey)} ${kid}`, kid] as const),
    ...x509Authorities.map(({ sha256 }) => [sha256, sha256] as const),
  ])
}

function compareKeys(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): KeyChange {
  const only = (keys: ReadonlyMap<string, string>, others: ReadonlyMap<string, string>) =>
    [...keys].flatMap(([mark, name]) => (others.has(mark) ? [] : [name]))
  return { added: only(after, before), removed: only(before, after) }
}
