/**
 * The Workload API's methods: what they take, what they answer, and by which code they say no.
 *
 * @see [SPIFFE Workload API](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md)
 */

import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf'
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type HandlerContext,
  type Interceptor,
  type ServiceImpl,
} from '@connectrpc/connect'
import type { ForeignBundle } from '../../worker/federation/foreign_bundle.ts'
import { JwtError } from '../../worker/jwt.ts'
import { SpiffeId, SpiffeIdError } from '../../worker/spiffe/id.ts'
import { Refused } from '../exchange.ts'
import { type AgentDeps, type BundleSource, type Bundles, detailOf } from './bundle_source.ts'
import { isDecided } from './holding.ts'
import type { JwtSource } from './jwt_source.ts'
import { verifyByBundle } from './validation.ts'
import {
  type JWTBundlesResponseSchema,
  type JWTSVIDRequest,
  type JWTSVIDResponseSchema,
  SpiffeWorkloadAPI,
  type ValidateJWTSVIDRequest,
  type ValidateJWTSVIDResponseSchema,
  type X509BundlesResponseSchema,
  type X509SVIDResponseSchema,
} from './workloadapi_pb.ts'
import type { HeldX509Svid, X509Source } from './x509_source.ts'

/** How long callers wait for what has never been tried yet. After that they are told to come again, which they do. */
const STARTING_MS = 5000
/** The issuer takes no more at once, and no token is made out to a longer one. */
const MAX_AUDIENCES = 16
const MAX_AUDIENCE_CHARACTERS = 2048
/** A longer hint SHOULD NOT be supported (WA-8). */
const MAX_HINT_CHARACTERS = 1024

export interface Sources {
  /** Which identities; a null stands for the one that the issuer gives. */
  readonly spiffeIds: readonly (string | null)[]
  readonly bundles: BundleSource
  readonly x509: X509Source
  readonly jwt: JwtSource
}

/** All there is to know at a moment, and a text that is the same as long as it is. */
interface Snapshot<Message> {
  readonly mark: string
  readonly message: Message
}

/** WA-2: there is just one such value, and it is in lower case. A header that is sent twice has both in it. */
export const securityHeader: Interceptor = (next) => (request) => {
  if (request.header.get('workload.spiffe.io') !== 'true')
    throw new ConnectError('security header missing from request', Code.InvalidArgument)
  return next(request)
}

export class WorkloadApiService {
  readonly #sources: Sources
  readonly #deps: Pick<AgentDeps, 'clock' | 'changes'>

  constructor(sources: Sources, deps: Pick<AgentDeps, 'clock' | 'changes'>) {
    this.#sources = sources
    this.#deps = deps
  }

  /** Bound, to be handed over as the routes of a router. */
  readonly routes = (router: ConnectRouter): void => {
    router.service(SpiffeWorkloadAPI, {
      fetchX509SVID: (_, context) => this.#follow(() => this.#x509Svids(), context),
      fetchX509Bundles: (_, context) => this.#follow(() => this.#x509Bundles(), context),
      fetchJWTBundles: (_, context) => this.#follow(() => this.#jwtBundles(), context),
      fetchJWTSVID: (request) => this.#jwtSvids(request),
      validateJWTSVID: (request, context) => this.#validate(request, context),
    } satisfies ServiceImpl<typeof SpiffeWorkloadAPI>)
  }

  /**
   * The state now, and again whenever it is another. Who reads slowly gets the latest and misses what was in between.
   *
   * @param look gives null as long as nothing has been tried yet
   */
  async *#follow<Message>(look: () => Snapshot<Message> | null, { signal }: HandlerContext): AsyncGenerator<Message> {
    const { changes } = this.#deps
    let sent: string | null = null
    let snapshot = await this.#settled(look, signal)
    for (;;) {
      // Before the message is on its way, so that no change is missed meanwhile.
      const change = changes.next(signal)
      if (snapshot.mark !== sent) {
        sent = snapshot.mark
        yield snapshot.message
      }
      await change
      signal.throwIfAborted()
      snapshot = look() ?? snapshot
    }
  }

  /** @throws ConnectError */
  async #settled<T>(look: () => T | null, signal: AbortSignal): Promise<T> {
    const { changes, clock } = this.#deps
    const late = new AbortController()
    const cancel = clock.after(STARTING_MS, () => late.abort())
    const over = AbortSignal.any([signal, late.signal])
    try {
      for (;;) {
        const change = changes.next(over)
        const found = look()
        if (found !== null) return found
        if (over.aborted) break
        await change
      }
    } finally {
      cancel()
    }
    signal.throwIfAborted()
    throw new ConnectError('starting', Code.Unavailable)
  }

  /** @throws ConnectError */
  #bundles(): Bundles | null {
    const { value, problem } = this.#sources.bundles.held
    if (problem) throw refusal(problem)
    return value
  }

  /** @throws ConnectError */
  #x509Svids(): Snapshot<MessageInitShape<typeof X509SVIDResponseSchema>> | null {
    const { settled, svids, problem } = this.#sources.x509
    if (!settled) return null
    // WA-8: the first one is the default, so none is left out that may be there in a moment.
    if (problem && (svids.length === 0 || !isDecided(problem))) throw refusal(problem)
    const bundles = this.#bundles()
    if (svids.length === 0 || !bundles) return null
    const { trustDomain, byName, x509Mark } = bundles
    const others = new Map([...byName].filter(([name]) => name !== trustDomain.name))
    const bundle = certificates(byName.get(trustDomain.name))
    const hints = uniqueHints(svids)
    return {
      mark: JSON.stringify([
        x509Mark,
        svids.map(({ chain }) => chain.map((der) => Buffer.from(der).toString('base64'))),
      ]),
      message: {
        svids: svids.map(({ spiffeId, chain, key }, index) => ({
          ...{ spiffeId, x509Svid: concat(chain), x509SvidKey: key, bundle, hint: hints[index] ?? '' },
        })),
        federatedBundles: x509BundleMap(others),
      },
    }
  }

  /** @throws ConnectError */
  #x509Bundles(): Snapshot<MessageInitShape<typeof X509BundlesResponseSchema>> | null {
    const bundles = this.#bundles()
    return bundles && { mark: bundles.x509Mark, message: { bundles: x509BundleMap(bundles.byName) } }
  }

  /** @throws ConnectError */
  #jwtBundles(): Snapshot<MessageInitShape<typeof JWTBundlesResponseSchema>> | null {
    const bundles = this.#bundles()
    return bundles && { mark: bundles.jwtMark, message: { bundles: jwtBundleMap(bundles.byName) } }
  }

  /** @throws ConnectError */
  async #jwtSvids({ audience, spiffeId }: JWTSVIDRequest): Promise<MessageInitShape<typeof JWTSVIDResponseSchema>> {
    const { jwt } = this.#sources
    if (audience.length === 0 || audience.includes('')) throw invalid('audience must be specified')
    if (audience.length > MAX_AUDIENCES || audience.some(({ length }) => length > MAX_AUDIENCE_CHARACTERS))
      throw invalid('too many audiences, or too long')
    const outcomes = await Promise.allSettled(this.#wanted(spiffeId).map((one) => jwt.svid(audience, one)))
    const svids = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? outcome.value : []))
    const problems = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
    // As with certificates.
    const passing = problems.find((problem) => !isDecided(problem))
    if (passing || svids.length === 0) throw refusal(passing ?? problems[0])
    const hints = uniqueHints(svids.map(({ hint }) => ({ hint: hint ?? '' })))
    return {
      svids: svids.map((svid, index) => ({ spiffeId: svid.spiffeId, svid: svid.svid, hint: hints[index] ?? '' })),
    }
  }

  /**
   * @returns the identities that are asked for
   * @throws ConnectError
   */
  #wanted(spiffeId: string): readonly (string | null)[] {
    const { spiffeIds, bundles } = this.#sources
    if (spiffeId === '') return spiffeIds
    const id = parse(spiffeId)
    const known = bundles.held.value?.trustDomain.name ?? id.trustDomain.name
    // The issuer gives no others anyway: it need not be asked.
    if (id.trustDomain.name !== known || !(spiffeIds.includes(null) || spiffeIds.includes(spiffeId)))
      throw new ConnectError('no identity issued', Code.PermissionDenied)
    return [spiffeId]
  }

  /** @throws ConnectError */
  async #validate(
    { audience, svid }: ValidateJWTSVIDRequest,
    { signal }: HandlerContext,
  ): Promise<MessageInitShape<typeof ValidateJWTSVIDResponseSchema>> {
    if (audience === '') throw invalid('audience must be specified')
    if (svid === '') throw invalid('svid must be specified')
    const judge = async () => {
      const { byName } = await this.#settled(() => this.#bundles(), signal)
      const now = Math.floor(this.#deps.clock.now() / 1000)
      return verifyByBundle(svid, { issuer: null, audience, bundles: byName }, now)
    }
    try {
      const { spiffeId, claims } = await judge().catch(async (error) => {
        if (!(error instanceof JwtError && error.code === 'key')) throw error
        // Perhaps of an authority that is newer than what we know.
        await this.#sources.bundles.refresh()
        return judge()
      })
      return { spiffeId, claims: claims as JsonObject }
    } catch (error) {
      if (error instanceof JwtError) throw invalid(error.message)
      throw error
    }
  }
}

function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument)
}

/** WA-5: what the issuer refuses is not had by asking again soon; all else may be over in a moment. */
function refusal(problem: unknown): ConnectError {
  if (problem instanceof Refused)
    return new ConnectError(`no identity issued: ${problem.message}`, Code.PermissionDenied)
  return new ConnectError(problem instanceof Error ? detailOf(problem) : 'not available', Code.Unavailable)
}

function parse(spiffeId: string): SpiffeId {
  try {
    return SpiffeId.parse(spiffeId)
  } catch (error) {
    if (error instanceof SpiffeIdError) throw invalid(error.message)
    throw error
  }
}

/** WA-8: of several with one hint, clients take the first and drop the others. */
function uniqueHints(svids: readonly Pick<HeldX509Svid, 'hint'>[]): string[] {
  const seen = new Set<string>()
  return svids.map(({ hint }) => {
    if (seen.has(hint) || hint.length > MAX_HINT_CHARACTERS) return ''
    seen.add(hint)
    return hint
  })
}

function certificates(bundle: ForeignBundle | undefined): Uint8Array {
  return concat(bundle?.x509Authorities.map(({ der }) => der) ?? [])
}

/** By SPIFFE ID. Whom nothing can be believed of is left out: clients take an empty bundle for a broken one. */
function x509BundleMap(bundles: ReadonlyMap<string, ForeignBundle>): Record<string, Uint8Array> {
  const full = [...bundles].filter(([, { x509Authorities }]) => x509Authorities.length > 0)
  return Object.fromEntries(full.map(([name, bundle]) => [`spiffe://${name}`, certificates(bundle)]))
}

/** By SPIFFE ID. A set without keys says that nothing is to be believed (BU-4). */
function jwtBundleMap(bundles: ReadonlyMap<string, ForeignBundle>): Record<string, Uint8Array> {
  const jwks = ({ jwtAuthorities }: ForeignBundle) =>
    Buffer.from(
      JSON.stringify({ keys: jwtAuthorities.map(({ kid, publicKey }) => ({ ...publicKey, kid, use: 'jwt-svid' })) }),
    )
  return Object.fromEntries([...bundles].map(([name, bundle]) => [`spiffe://${name}`, jwks(bundle)]))
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts)
}
