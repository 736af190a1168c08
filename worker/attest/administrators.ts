/**
 * Who is administering: somebody with a private key whose public half stands in the deployed manifest, or a subject of an
 * identity provider that the manifest names (T-11). Nobody else, and where it names nobody, nobody.
 */

import { thumbprint } from '../../keys/jwks.ts'
import { type VerificationKey, verifyCompact } from '../../keys/jws.ts'
import { checkTimes, JwtError, parseAudience, parseJwt } from '../jwt.ts'
import type { Admin } from '../policy/admin.ts'
import { Refusal } from '../refusal.ts'
import { ClusterKeys, type ClusterKeysDeps, KeyClaims } from './cluster_keys.ts'

/** How old a token may be. An identity provider's may be good for longer elsewhere; here it is not. */
const MAX_TOKEN_AGE_SECONDS = 600

type Claims = Readonly<Record<string, unknown>>

export class Administrators {
  readonly #admins: readonly Admin[]
  readonly #audience: string
  readonly #providers = new Map<string, ClusterKeys>()

  /**
   * @param admins those of the deployed manifest
   * @param issuer our issuer URL: a token that an administrator's own key has signed is made out to `<issuer>/admin`
   */
  constructor(admins: readonly Admin[], issuer: string, deps: Omit<ClusterKeysDeps, 'claims'>) {
    this.#admins = admins
    this.#audience = `${issuer}/admin`
    for (const admin of admins)
      if (admin.by === 'token' && !this.#providers.has(admin.issuer)) {
        const provider = { name: admin.issuer, issuer: admin.issuer, keySource: { from: 'discovery' as const } }
        this.#providers.set(admin.issuer, new ClusterKeys(provider, { ...deps, claims: new KeyClaims() }))
      }
  }

  /**
   * @param token what came as bearer; null for nothing
   * @param now seconds since the epoch
   * @param revocationsOf the cluster whose revocations are asked for; null for whatever else there is to ask for
   * @returns the administrator's name
   * @throws Refusal `admin_none` where there are no administrators, `admin_token` where the token is nobody's or not good,
   * `admin_limited` where it is somebody's who may not do this
   */
  async authenticate(token: string | null, now: number, revocationsOf: string | null = null): Promise<string> {
    if (this.#admins.length === 0) throw new Refusal('admin_none', 'the manifest names no Admin')
    if (token === null) throw new Refusal('admin_token', 'no bearer token')
    try {
      const jws = parseJwt(token)
      const { issuedAt } = checkTimes(jws.payload, now)
      if (issuedAt === null || now - issuedAt > MAX_TOKEN_AGE_SECONDS) throw new JwtError('expired')
      for (const admin of this.#admins) {
        if (!this.#isMeant(admin, jws.payload)) continue
        const key = await this.#keyOf(admin, jws.header.kid)
        if (!key || !(await verifyCompact(jws, key))) continue
        if (admin.revocationsOf !== null && admin.revocationsOf !== revocationsOf)
          throw new Refusal('admin_limited', `Admin ${admin.name} may read the revocations of ${admin.revocationsOf}`)
        return admin.name
      }
      throw new JwtError('signature')
    } catch (error) {
      if (error instanceof JwtError) throw new Refusal('admin_token', error.message)
      throw error
    }
  }

  /** Whether a token says that it is this administrator's, and is made out to us and nobody else. */
  #isMeant(admin: Admin, { iss, sub, aud, exp, iat }: Claims): boolean {
    const [audience, ...more] = parseAudience(aud)
    if (more.length > 0) return false
    if (admin.by === 'token') return iss === admin.issuer && sub === admin.subject && audience === admin.audience
    const lifetime = Number(exp) - Number(iat)
    return iss === admin.name && sub === admin.name && audience === this.#audience && lifetime <= MAX_TOKEN_AGE_SECONDS
  }

  async #keyOf(admin: Admin, kid: string): Promise<VerificationKey | null> {
    if (admin.by === 'token') return (await this.#providers.get(admin.issuer)?.find(kid)) ?? null
    if ((await thumbprint(admin.publicKey)) !== kid) return null
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
    return { alg: 'ES256', key: await crypto.subtle.importKey('jwk', admin.publicKey, algorithm, false, ['verify']) }
  }
}
