/**
 * SPIFFE IDs and trust domain names, as values that cannot hold anything illegal.
 *
 * The scanner works on the text itself. A URL library would percent-encode, collapse dot segments and drop ports,
 * and so accept what the standard refuses.
 *
 * @see [SPIFFE-ID §2](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#2-spiffe-identity)
 */

const SCHEME = 'spiffe://'
/** SPIFFE-ID §2.3: all parts of the ID count. Every legal character is one byte, so length in characters is length in bytes. */
const MAX_ID_BYTES = 2048
/** SPIFFE-ID §2.3. */
const MAX_TRUST_DOMAIN_BYTES = 255

const TRUST_DOMAIN = /^[a-z0-9._-]+$/
const SEGMENT = /^[a-zA-Z0-9._-]+$/

/** Why a text is not a SPIFFE ID. The names follow the errors of go-spiffe's `spiffeid`. */
export type SpiffeIdErrorCode =
  | 'empty'
  | 'wrong_scheme'
  | 'missing_trust_domain'
  | 'bad_trust_domain_character'
  | 'trust_domain_too_long'
  | 'no_leading_slash'
  | 'empty_segment'
  | 'dot_segment'
  | 'bad_path_character'
  | 'trailing_slash'
  | 'too_long'

/** Thrown by the parsers of this module. The message names the rule and never repeats the input. */
export class SpiffeIdError extends Error {
  override readonly name = 'SpiffeIdError'
  readonly code: SpiffeIdErrorCode

  constructor(code: SpiffeIdErrorCode) {
    super(`not a SPIFFE ID: ${code.replaceAll('_', ' ')}`)
    this.code = code
  }
}

/** A trust domain name (`example.org`). There is no other way to get one than {@link TrustDomain.parse}. */
export class TrustDomain {
  readonly name: string

  private constructor(name: string) {
    this.name = name
  }

  /**
   * @param name the bare name, without scheme
   * @throws SpiffeIdError
   * @see [SPIFFE-ID §2.1](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#21-trust-domain)
   */
  static parse(name: string): TrustDomain {
    if (name === '') throw new SpiffeIdError('missing_trust_domain')
    if (!TRUST_DOMAIN.test(name)) throw new SpiffeIdError('bad_trust_domain_character')
    if (name.length > MAX_TRUST_DOMAIN_BYTES) throw new SpiffeIdError('trust_domain_too_long')
    return new TrustDomain(name)
  }

  /** The trust domain's own SPIFFE ID, which has no path. */
  toString(): string {
    return SCHEME + this.name
  }
}

/** A SPIFFE ID. There is no other way to get one than {@link SpiffeId.parse} and {@link SpiffeId.of}. */
export class SpiffeId {
  readonly trustDomain: TrustDomain
  /** Empty for the trust domain's own ID, else `/segment[/segment…]`. */
  readonly path: string

  private constructor(trustDomain: TrustDomain, path: string) {
    this.trustDomain = trustDomain
    this.path = path
  }

  /**
   * @param text `spiffe://<trust domain>[/<path>]`, compared byte for byte: nothing is lowercased, trimmed or decoded
   * @throws SpiffeIdError
   * @see [SPIFFE-ID §2](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#2-spiffe-identity)
   */
  static parse(text: string): SpiffeId {
    if (text === '') throw new SpiffeIdError('empty')
    if (!text.startsWith(SCHEME)) throw new SpiffeIdError('wrong_scheme')
    const slash = text.indexOf('/', SCHEME.length)
    const host = slash === -1 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash)
    return SpiffeId.of(TrustDomain.parse(host), slash === -1 ? '' : text.slice(slash))
  }

  /**
   * @param path empty, or `/segment[/segment…]`
   * @throws SpiffeIdError
   */
  static of(trustDomain: TrustDomain, path: string): SpiffeId {
    if (path !== '') checkPath(path)
    if (SCHEME.length + trustDomain.name.length + path.length > MAX_ID_BYTES) throw new SpiffeIdError('too_long')
    return new SpiffeId(trustDomain, path)
  }

  toString(): string {
    return SCHEME + this.trustDomain.name + this.path
  }
}

/**
 * Whether `text` may stand between two slashes of a SPIFFE ID's path.
 *
 * @see [SPIFFE-ID §2.2](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#22-path)
 */
export function isPathSegment(text: string): boolean {
  return SEGMENT.test(text) && text !== '.' && text !== '..'
}

function checkPath(path: string): void {
  if (!path.startsWith('/')) throw new SpiffeIdError('no_leading_slash')
  if (path.endsWith('/')) throw new SpiffeIdError('trailing_slash')
  for (const segment of path.slice(1).split('/')) {
    if (isPathSegment(segment)) continue
    if (segment === '') throw new SpiffeIdError('empty_segment')
    throw new SpiffeIdError(segment === '.' || segment === '..' ? 'dot_segment' : 'bad_path_character')
  }
}
