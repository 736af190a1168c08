/** The worker's doors as the agent sees them, with real keys behind them, and everything that a real worker would never do. */

import type { BundleMap, JwtSvid, X509Svid } from '../../cli/exchange.ts'
import type { AgentDeps } from '../../cli/workload_api/bundle_source.ts'
import type { IssuerDoors } from '../../cli/workload_api/issuer_doors.ts'
import { ALGORITHMS } from '../../keys/algorithms.ts'
import { readCsr } from '../../keys/csr.ts'
import { signCompact } from '../../keys/jws.ts'
import { generateLocalKey, localSigner } from '../../keys/local.ts'
import type { Signer } from '../../keys/signer.ts'
import { renderBundle } from '../../worker/spiffe/bundle.ts'
import { SpiffeId, TrustDomain } from '../../worker/spiffe/id.ts'
import { openAuthority, selfSignAuthority, signX509Svid, type X509Authority } from '../../worker/spiffe/x509_svid.ts'
import { NOW } from './clock.ts'

export const ISSUER = 'https://issuer.example.org'
export const WEB = 'spiffe://example.org/ns/shop/sa/web'

type Der = Uint8Array<ArrayBuffer>

/** The authorities of a trust domain. */
export class FakeTrustDomain {
  readonly name: string
  jwt: Signer
  x509: X509Authority
  sequence = 1
  hint = 300

  private constructor(name: string, jwt: Signer, x509: X509Authority) {
    this.name = name
    this.jwt = jwt
    this.x509 = x509
  }

  static async create(name: string): Promise<FakeTrustDomain> {
    return new FakeTrustDomain(name, await newSigner(), await newAuthority(name))
  }

  /** Others from now on, and nobody knows the old ones any more. */
  async replaceAuthorities(): Promise<void> {
    this.jwt = await newSigner()
    this.x509 = await newAuthority(this.name)
    this.sequence++
  }

  get bundle(): string {
    const certificate = Buffer.from(this.x509.certificate).toString('base64')
    const keys = [
      { use: 'x509-svid' as const, publicJwk: this.x509.signer.publicJwk, certificate },
      { use: 'jwt-svid' as const, publicJwk: this.jwt.publicJwk, certificate: null },
    ]
    return renderBundle(keys, this.sequence, this.hint)
  }

  async token(sub: string, aud: string | readonly string[], exp: number, claims: object = {}): Promise<string> {
    const { alg, kid } = this.jwt.publicJwk
    const payload = { iss: ISSUER, sub, aud, exp, iat: exp - 300, ...claims }
    return signCompact({ alg, kid, typ: 'JWT' }, payload, this.jwt)
  }

  certificate(spiffeId: string, publicKey: ArrayBuffer, notBefore: number, notAfter: number): Promise<Der> {
    const terms = { spiffeId: SpiffeId.parse(spiffeId), dnsNames: [], publicKey, notBefore, notAfter }
    return signX509Svid(terms, this.x509)
  }
}

async function newSigner(): Promise<Signer> {
  const { publicJwk, privateJwk } = await generateLocalKey('ES256')
  return localSigner(publicJwk, privateJwk)
}

async function newAuthority(name: string): Promise<X509Authority> {
  const signer = await newSigner()
  const terms = { trustDomain: TrustDomain.parse(name), notBefore: NOW - 60, notAfter: NOW + 30 * 86_400 }
  return openAuthority(await selfSignAuthority(signer, terms), signer)
}

/** What a test puts in the place of an answer; what it throws is thrown, and what never comes never comes. */
export class FakeIssuer implements IssuerDoors {
  readonly issuer = ISSUER
  readonly own: FakeTrustDomain
  /** Those that the workload is to believe, by name. */
  readonly federated = new Map<string, FakeTrustDomain>()
  readonly calls: string[] = []
  terms: string | null = 'one'
  /** Seconds. */
  x509Ttl = 3600
  jwtTtl = 300
  interfere: (call: string) => unknown = () => undefined
  lieAboutBundles: (map: BundleMap) => BundleMap = (map) => map
  lieAboutX509: (svid: X509Svid, publicKey: ArrayBuffer) => X509Svid | Promise<X509Svid> = (svid) => svid
  lieAboutJwt: (svid: JwtSvid) => JwtSvid | Promise<JwtSvid> = (svid) => svid
  readonly #clock: AgentDeps['clock']

  constructor(own: FakeTrustDomain, clock: AgentDeps['clock']) {
    this.own = own
    this.#clock = clock
  }

  /** How often a door has been knocked at. */
  count(call: string): number {
    return this.calls.filter((one) => one === call).length
  }

  async bundles(): Promise<BundleMap> {
    await this.#called('bundles')
    const all = [this.own, ...this.federated.values()]
    const bundles = new Map(all.map(({ name, bundle }) => [name, bundle]))
    return this.lieAboutBundles({ trustDomain: this.own.name, bundles, terms: this.terms })
  }

  async x509Svid(csr: string, spiffeId: string | null): Promise<X509Svid> {
    await this.#called('x509')
    const der = Buffer.from(csr.replace(/-----[^-]+-----|\n/g, ''), 'base64')
    const publicKey = await readCsr(new Uint8Array(der))
    const now = this.#now
    const expiresAt = now + this.x509Ttl
    const id = spiffeId ?? WEB
    const chain = [await this.own.certificate(id, publicKey, now - 10, expiresAt)]
    const rest = { bundle: [], federatedBundles: new Map(), hint: null }
    return this.lieAboutX509({ spiffeId: id, chain, expiresAt, ...rest }, publicKey)
  }

  async jwtSvid(audience: readonly string[], spiffeId: string | null): Promise<JwtSvid> {
    await this.#called('jwt')
    const expiresAt = this.#now + this.jwtTtl
    const id = spiffeId ?? WEB
    const [only = '', ...others] = audience
    const aud = others.length === 0 ? only : audience
    const svid = await this.own.token(id, aud, expiresAt, { iat: this.#now, jti: crypto.randomUUID() })
    return this.lieAboutJwt({ spiffeId: id, svid, expiresAt, hint: null })
  }

  get #now(): number {
    return Math.floor(this.#clock.now() / 1000)
  }

  async #called(call: string): Promise<void> {
    this.calls.push(call)
    const instead = await this.interfere(call)
    if (instead instanceof Error) throw instead
  }
}

/** @returns the SubjectPublicKeyInfo of a key that nobody has asked a certificate for */
export async function anotherKey(): Promise<ArrayBuffer> {
  const pair = (await crypto.subtle.generateKey(ALGORITHMS.ES256.key, true, ['sign', 'verify'])) as CryptoKeyPair
  return (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer
}
