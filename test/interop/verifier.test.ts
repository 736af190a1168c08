/**
 * Our verifier beside go-spiffe, go-oidc and the authenticators of three kube-apiservers, over everything that can be
 * wrong with a token. Nothing that we accept is refused by any of them. Where we refuse what some of them accept, it
 * stands here with the reason, and in docs/verifier.md.
 */

import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readKeySet } from '../../keys/key_set.ts'
import { KeyClaims } from '../../worker/attest/cluster_keys.ts'
import { ServiceAccountAttestor } from '../../worker/attest/service_account.ts'
import { TrustDomain } from '../../worker/spiffe/id.ts'
import { type JwtSvidExpectation, verifyJwtSvid } from '../../worker/spiffe/jwt_svid.ts'
import {
  bareAuthenticationConfiguration,
  KUBERNETES_MINORS,
  startKubeJudge,
  startOidcJudge,
  startSpiffeJudge,
} from '../support/judge.ts'
import { forge } from '../support/jwt_forge.ts'
import { MUTATIONS, type Sample } from '../support/jwt_mutations.ts'
import type { LineProgram } from '../support/lines.ts'
import { cluster, policyOf } from '../support/policy.ts'
import { ALGORITHM_NAMES, startTestIssuer, type TestIssuer } from '../support/test_issuer.ts'
import { missing } from '../support/tools.ts'

type Judge = 'spiffe' | 'oidc' | 'kube'

/** Why we refuse, and which judges do not. `kube` stands for all three minors, which must agree. */
const STRICTER: Readonly<Record<string, { readonly accepted: readonly Judge[]; readonly why: string }>> = {
  ...because('a key has one algorithm, and the token does not choose another', {
    'PS256 by an RSA key for RS256': ['spiffe', 'oidc', 'kube'],
    'RS512 by an RSA key for RS256': ['spiffe', 'oidc', 'kube'],
  }),
  ...because('without a kid every key would have to be tried', {
    'kid missing': ['oidc', 'kube'],
    'kid empty': ['oidc', 'kube'],
  }),
  ...because('JWT-SVID §2.3 names the two values of typ', {
    'typ at+jwt': ['oidc', 'kube'],
    'typ wit+jwt': ['oidc', 'kube'],
    'typ jwt': ['oidc', 'kube'],
    'typ empty': ['oidc', 'kube'],
    'typ a number': ['oidc', 'kube'],
  }),
  ...because('JWT-SVID §2 allows no header but alg, kid and typ', {
    'header jku': ['spiffe', 'oidc', 'kube'],
    'header cty': ['spiffe', 'oidc', 'kube'],
    'header with an unknown member': ['spiffe', 'oidc', 'kube'],
  }),
  ...because('one token has one spelling', {
    'JSON serialization': ['oidc'],
    'a blank before': ['oidc', 'kube'],
    'a newline behind': ['spiffe', 'oidc', 'kube'],
    'a newline inside': ['spiffe', 'oidc', 'kube'],
    'a stray bit behind the signature': ['spiffe', 'oidc', 'kube'],
    'payload not UTF-8': ['spiffe', 'oidc', 'kube'],
  }),
  ...because('a token larger than 16 KiB is nobody’s', { 'payload oversized': ['spiffe', 'oidc', 'kube'] }),
  ...because('the subject is what the token is about', { 'sub missing': ['oidc'], 'sub empty': ['oidc', 'kube'] }),
  ...because('two readers would read two tokens', {
    'sub twice': ['oidc', 'kube'],
    'sub twice, the second escaped': ['oidc', 'kube'],
    'SUB beside sub': ['spiffe', 'oidc', 'kube'],
    'long-s sub beside sub': ['spiffe', 'oidc', 'kube'],
    'exp twice': ['oidc', 'kube'],
  }),
  ...because('go-spiffe does not look at iss, which a JWT-SVID need not have', {
    'iss missing': ['spiffe'],
    'iss of another': ['spiffe'],
    'iss with a slash behind': ['spiffe'],
    'iss in upper case': ['spiffe'],
  }),
  ...because('an expired token has expired: go-spiffe grants a minute', { 'exp five seconds ago': ['spiffe'] }),
  ...because('a time is a whole number of seconds', {
    'exp a string': ['oidc', 'kube'],
    'exp a fraction': ['spiffe', 'oidc', 'kube'],
  }),
  ...because('a clock may be 30 seconds ahead, not minutes', {
    'nbf two minutes ahead': ['oidc'],
    'iat an hour ahead': ['oidc', 'kube'],
  }),
}

function because(why: string, cases: Record<string, readonly Judge[]>) {
  return Object.fromEntries(Object.entries(cases).map(([name, accepted]) => [name, { accepted, why }]))
}

/** What a service account token must have or may not be, beyond any JWT. */
const SERVICE_ACCOUNT_ONLY: Readonly<Record<string, string>> = {
  'signed with RS384': 'kube-apiserver signs with RS256 or ECDSA',
  'signed with RS512': 'kube-apiserver signs with RS256 or ECDSA',
  'signed with PS256': 'kube-apiserver signs with RS256 or ECDSA',
  'signed with PS384': 'kube-apiserver signs with RS256 or ECDSA',
  'signed with PS512': 'kube-apiserver signs with RS256 or ECDSA',
  'aud a list with another': 'a token that is good elsewhere too could have come from there',
  'iat missing': 'the lifetime is counted from it',
}

const AUDIENCE = 'spiffe-edge'

describe.skipIf(missing('go'))('the verifier, and the real ones', () => {
  let issuer: TestIssuer
  let judges: Readonly<Record<string, LineProgram>>

  beforeAll(async () => {
    issuer = await startTestIssuer()
    const yaml = bareAuthenticationConfiguration(issuer, AUDIENCE)
    const kube = KUBERNETES_MINORS.map(
      async (minor) => [`kube ${minor}`, await startKubeJudge(minor, yaml, issuer.folder)] as const,
    )
    judges = {
      spiffe: await startSpiffeJudge(issuer, 'example.org', AUDIENCE),
      oidc: await startOidcJudge(issuer, AUDIENCE),
      ...Object.fromEntries(await Promise.all(kube)),
    }
  })
  afterAll(async () => {
    await Promise.all(Object.values(judges ?? {}).map((judge) => judge.stop()))
    issuer?.stop()
  })

  const now = () => Math.floor(Date.now() / 1000)
  function sample(claims: object): Sample {
    const publicPem = createPublicKey(issuer.keys.rs256?.privateKey as never).export({
      type: 'spki',
      format: 'pem',
    }) as string
    const time = now()
    return {
      keys: issuer.keys,
      publicPem,
      now: time,
      claims: { iss: issuer.url, aud: AUDIENCE, exp: time + 300, iat: time, nbf: time, ...claims },
    }
  }
  const svid = () => sample({ sub: 'spiffe://example.org/web' })
  const podToken = () =>
    sample({
      sub: 'system:serviceaccount:shop:web',
      'kubernetes.io': {
        namespace: 'shop',
        serviceaccount: { name: 'web', uid: '1' },
        pod: { name: 'web-0', uid: '2' },
      },
    })

  async function verifier(): Promise<(token: string) => Promise<boolean>> {
    const keys = await readKeySet(issuer.jwks, ALGORITHM_NAMES)
    const expected: JwtSvidExpectation = {
      trustDomain: TrustDomain.parse('example.org'),
      issuer: issuer.url,
      audience: AUDIENCE,
      keys,
    }
    return (token) =>
      verifyJwtSvid(token, expected, now()).then(
        () => true,
        () => false,
      )
  }
  function attestor(): (token: string) => Promise<boolean> {
    const jwks = { inline: { keys: issuer.jwks } }
    const { clusters } = policyOf(cluster('test', { issuer: issuer.url, jwks, audiences: [AUDIENCE] }))
    const ours = new ServiceAccountAttestor(clusters.values(), {
      now,
      waitUntil: () => {},
      log: () => {},
      allowLoopbackHttp: false,
      claims: new KeyClaims(),
      api: () => null,
    })
    return (token) =>
      ours.attest(token, 'token', now()).then(
        () => true,
        () => false,
      )
  }
  /** Which judges accept each token. */
  async function judge(tokens: readonly string[]): Promise<ReadonlySet<string>[]> {
    const accepted = tokens.map(() => new Set<string>())
    for (const [name, program] of Object.entries(judges))
      for (const [index, { ok }] of (await program.ask(tokens)).entries()) if (ok === true) accepted[index]?.add(name)
    return accepted
  }
  const expand = (names: readonly Judge[]) =>
    new Set(names.flatMap((name) => (name === 'kube' ? KUBERNETES_MINORS.map((minor) => `kube ${minor}`) : [name])))

  test('every mutation of a JWT-SVID is judged alike, or stands in the list', async () => {
    const names = Object.keys(MUTATIONS)
    const tokens = names.map((name) => MUTATIONS[name]?.(svid()) ?? '')
    const accepted = await judge(tokens)
    const verify = await verifier()
    for (const [index, name] of names.entries()) {
      const ours = await verify(tokens[index] ?? '')
      const others = accepted[index] ?? new Set()
      if (ours) expect(others, name).toEqual(new Set(Object.keys(judges)))
      else expect(others, name).toEqual(expand(STRICTER[name]?.accepted ?? []))
    }
    expect(Object.keys(STRICTER).filter((name) => !names.includes(name))).toEqual([])
  })

  test('a service account token is judged as a JWT-SVID is, but for what only it must have', async () => {
    const kube = Object.entries(judges).filter(([name]) => name.startsWith('kube'))
    const attest = attestor()
    const verify = await verifier()
    for (const [name, mutate] of Object.entries(MUTATIONS)) {
      const token = mutate(podToken())
      const ours = await attest(token)
      expect([name, ours]).toEqual([name, (await verify(mutate(svid()))) && !(name in SERVICE_ACCOUNT_ONLY)])
      if (ours)
        for (const [, program] of kube) expect([name, (await program.ask([token]))[0]?.ok]).toEqual([name, true])
    }
  })

  test('a token with a character changed is refused by all, or is another spelling of the same octets', async () => {
    const { keys, claims } = svid()
    const token = forge(keys.es256 as never, { alg: 'ES256', kid: 'es256' }, claims)
    const edit = fc.record({
      at: fc.nat(token.length - 1),
      with: fc.constantFrom(...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.='),
      how: fc.constantFrom('replace', 'insert', 'delete'),
    })
    const edited = fc
      .sample(edit, { numRuns: 400, seed: 20261122 })
      .map(
        ({ at, with: character, how }) =>
          token.slice(0, at) + (how === 'delete' ? '' : character) + token.slice(how === 'insert' ? at : at + 1),
      )
    const accepted = await judge(edited)
    const verify = await verifier()
    const octets = (text: string) => text.split('.').map((part) => Buffer.from(part, 'base64url').toString('hex'))
    for (const [index, text] of edited.entries()) {
      expect(await verify(text)).toBe(text === token)
      if (text !== token && accepted[index]?.size !== 0) expect(octets(text)).toEqual(octets(token))
    }
  })

  test('docs/verifier.md lists every difference with its reason', () => {
    const page = readFileSync('docs/verifier.md', 'utf8')
    for (const [name, { why }] of Object.entries(STRICTER)) {
      expect(page).toContain(name)
      expect(page).toContain(why)
    }
    for (const [name, why] of Object.entries(SERVICE_ACCOUNT_ONLY)) {
      expect(page).toContain(name)
      expect(page).toContain(why)
    }
  })
})
