import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { verifyCompact } from '../../../keys/jws.ts'
import type { Signer } from '../../../keys/signer.ts'
import {
  type ReviewerDeps,
  ReviewerError,
  reviewerAudience,
  reviewerId,
  reviewerToken,
} from '../../../worker/cluster/reviewer.ts'
import { parseJwt } from '../../../worker/jwt.ts'
import type { Cluster, Reviewer } from '../../../worker/policy/cluster.ts'
import { Refusal } from '../../../worker/refusal.ts'
import { Clock, NOW } from '../../support/clock.ts'
import { cluster, ISSUER, policyOf, problemsOf, registration, TRUST_DOMAIN } from '../../support/policy.ts'
import { makeTokenKey, type TokenKey } from '../../support/tokens.ts'
import { Background, LogBook } from '../issuer.ts'

let key: TokenKey
beforeAll(async () => {
  key = await makeTokenKey('ES256')
})

let clock: Clock
let book: LogBook
let signatures: number
beforeEach(() => {
  clock = new Clock()
  book = new LogBook()
  signatures = 0
})

const signer = async (): Promise<Signer> => ({
  publicJwk: key.publicJwk as never,
  async sign(bytes) {
    signatures++
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key.privateKey, bytes as never)
    return new Uint8Array(signature)
  },
})

function deps(change: Partial<ReviewerDeps> = {}): ReviewerDeps {
  return {
    issuer: ISSUER,
    trustDomain: TRUST_DOMAIN,
    keyRing: { signer },
    bindings: new Map(),
    unseal: async () => null,
    now: clock.now,
    waitUntil: new Background().waitUntil,
    log: book.log,
    ...change,
  }
}

function tokenOf(reviewer: Reviewer, change: Partial<ReviewerDeps> = {}, name = 'east') {
  const record = policyOf(cluster(name, { connection: { url: 'https://east.example.net' } })).clusters.get(name)
  return reviewerToken({ ...(record as Cluster), reviewer }, deps(change))
}

describe('T-9: the worker as its own reviewer', () => {
  test('signs a JWT-SVID for that cluster, by that cluster’s name, for a minute', async () => {
    const jws = parseJwt(await tokenOf({ by: 'self' })(null))
    expect(jws.payload).toEqual({
      iss: ISSUER,
      sub: 'spiffe://example.org/spiffe-edge/reviewer/east',
      aud: `${ISSUER}/reviewer/east`,
      exp: NOW + 60,
      iat: NOW,
      jti: expect.any(String),
    })
    expect(await verifyCompact(jws, { alg: 'ES256', key: key.publicKey })).toBe(true)
  })

  test('keeps it for half of its life, and signs once for all who ask', async () => {
    const token = tokenOf({ by: 'self' })
    const [first, ...others] = await Promise.all(Array.from({ length: 20 }, () => token(null)))
    expect(new Set(others)).toEqual(new Set([first]))
    clock.advance(29)
    expect(await token(null)).toBe(first)
    clock.advance(1)
    expect(await token(null)).not.toBe(first)
    expect(signatures).toBe(2)
  })

  test('leaves a line for every signature, without the token', async () => {
    const token = await tokenOf({ by: 'self' })(null)
    const { jti, exp } = parseJwt(token).payload
    expect(book.events).toEqual([{ event: 'reviewer_issued', cluster: 'east', id: jti, expires: exp, kid: key.kid }])
    expect(book.text).not.toContain(token.split('.')[2])
  })

  test('shows no cluster’s token to another', async () => {
    const [east, west] = await Promise.all([tokenOf({ by: 'self' })(null), tokenOf({ by: 'self' }, {}, 'west')(null)])
    expect(parseJwt(east).payload.aud).not.toBe(parseJwt(west).payload.aud)
    expect(parseJwt(east).payload.sub).not.toBe(parseJwt(west).payload.sub)
  })

  test('has nothing to show without a key, and tries again', async () => {
    let broken = true
    const keyRing = {
      signer: () => (broken ? Promise.reject(new Refusal('keys_unavailable', 'the reason')) : signer()),
    }
    const token = tokenOf({ by: 'self' }, { keyRing })
    await expect(token(null)).rejects.toThrow(Refusal)
    broken = false
    expect(await token(null)).toEqual(expect.any(String))
  })

  test('T-7: its audience can be in no registration and no record', () => {
    const audience = reviewerAudience(ISSUER, 'east')
    const problems = problemsOf(
      cluster('east', { audiences: [audience], apiServer: { audiences: [audience] } }),
      registration('web', { audiences: [audience] }),
    )
    expect(problems.filter((problem) => problem.includes(`${audience} is reserved`))).toHaveLength(3)
  })

  test('T-5: its ID can be in no registration', () => {
    const spiffeID = reviewerId(TRUST_DOMAIN, 'east').toString()
    expect(problemsOf(cluster('east'), registration('web', { spiffeID }))).toContain(
      'WorkloadRegistration web: spec.spiffeID: is reserved',
    )
  })
})

describe('the other reviewers', () => {
  test('client is the token that is being reviewed, and nothing without one', async () => {
    const token = tokenOf({ by: 'client' })
    expect(await token('the.clients.token')).toBe('the.clients.token')
    await expect(token(null)).rejects.toThrow(ReviewerError)
  })

  test('file is read anew each time, through its binding', async () => {
    const urls: string[] = []
    const disk = {
      async fetch(url: string) {
        urls.push(url)
        return new Response(`token-${urls.length}\n`)
      },
    }
    const bindings = new Map([['CLUSTER_DISK', disk]])
    const token = tokenOf({ by: 'file', binding: 'CLUSTER_DISK', path: 'tokens/reviewer' }, { bindings })
    expect([await token(null), await token(null)]).toEqual(['token-1', 'token-2'])
    expect(urls).toEqual(Array(2).fill('http://disk/tokens/reviewer'))
  })

  test.each([
    ['is not there', () => new Response('', { status: 404 })],
    ['is empty', () => new Response('\n')],
    ['is no token', () => new Response('one\ntwo')],
    ['is a page', () => new Response('<html>')],
    ['cannot be read', () => Promise.reject(new TypeError('SECRET'))],
  ])('file: what %s is nothing to show, and repeated to nobody', async (_, fetch) => {
    const bindings = new Map([['CLUSTER_DISK', { fetch: async () => fetch() }]])
    const token = tokenOf({ by: 'file', binding: 'CLUSTER_DISK', path: 'token' }, { bindings })
    await expect(token(null)).rejects.toThrow(new ReviewerError('there is no token in token in CLUSTER_DISK'))
  })

  test('secret is a string of the platform', async () => {
    const bindings = new Map([['CLUSTER_TOKEN', 'secret-token']])
    expect(await tokenOf({ by: 'secret', binding: 'CLUSTER_TOKEN' }, { bindings })(null)).toBe('secret-token')
    const broken = new Map([['CLUSTER_TOKEN', 'two words']])
    await expect(tokenOf({ by: 'secret', binding: 'CLUSTER_TOKEN' }, { bindings: broken })(null)).rejects.toThrow(
      new ReviewerError('there is no token in CLUSTER_TOKEN'),
    )
  })
})
