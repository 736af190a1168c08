import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { announceKmsKey } from '../../keys/kms.ts'
import type { KmsAccess } from '../../keys/kms_client.ts'
import { createKmsKey, findCreatedKmsKeys } from '../../keys/kms_keys.ts'
import type { WebIdentity } from '../../keys/web_identity.ts'
import { KmsStub, kmsError } from '../support/kms_stub.ts'
import { accessKeyId, ROLE_ARN, StsStub, type StsTrouble, sessionToken, stsError } from '../support/sts_stub.ts'

const FIRST = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJmaXJzdCJ9.secret-signature'
const SECOND = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNvbmQifQ.secret-signature'
/** How much faster time runs here than for a caller. */
const HURRY = 8
const MINUTE = 60_000

const kms = new KmsStub()
vi.stubGlobal('fetch', kms.fetch)
const sts = new StsStub()
vi.stubGlobal('fetch', sts.fetch)

const realTimeout = AbortSignal.timeout.bind(AbortSignal)

let arn: string
/** What the disk says. */
let token: string
let now: number
let identity: WebIdentity
let access: KmsAccess

// The first import of the SDK, module by module as Vite serves it, takes its time.
beforeAll(async () => {
  arn = await kms.createKey('ECC_NIST_P256')
  await announceKmsKey(kms.access, arn, null)
}, 60_000)

beforeEach(() => {
  kms.trouble = null
  kms.accessKeyIds = Array.from({ length: 50 }, (_, index) => accessKeyId(index + 1))
  kms.requests.length = 0
  sts.trouble = null
  sts.tokens = [FIRST, SECOND]
  sts.lifetimeSeconds = 3600
  sts.requests.length = 0
  sts.sessions = 0
  token = FIRST
  now = Date.now()
  vi.spyOn(Date, 'now').mockImplementation(() => now)
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => realTimeout(ms / HURRY))
  identity = { roleArn: ROLE_ARN, stsEndpoint: 'https://sts.test', readToken: async () => `${token}\n` }
  access = { ...kms.access, credentials: identity }
})

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  vi.unstubAllGlobals()
})

async function ask(): Promise<void> {
  await announceKmsKey(access, arn, null)
}

async function code(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toMatchObject({ name: 'SigningError' })
  expect(Object.getOwnPropertyNames(error).sort()).toEqual(['code', 'message', 'name', 'stack'])
  const { message, stack = '' } = error as Error
  for (const secret of [ROLE_ARN, 'signature', 'arn:', 'may not do that']) expect(message + stack).not.toContain(secret)
  return (error as unknown as { code: string }).code
}

/** The sessions that requests to KMS were signed with, oldest first. */
function signedWith(): string[] {
  return kms.requests.map(({ headers }) => /Credential=([^/]+)/.exec(headers.get('authorization') ?? '')?.[1] ?? '')
}

function shownTokens(): (string | undefined)[] {
  return sts.requests.map(({ form }) => form.WebIdentityToken)
}

describe('T-16: a web identity', () => {
  test('is changed at STS into a session, once for many requests, in every API that is asked', async () => {
    await ask()
    await ask()
    await createKmsKey(access, 'ES256', {})
    await findCreatedKmsKeys(access, { key: 'creation', value: 'none' })
    expect(sts.requests.map(({ form }) => form)).toEqual([
      {
        Action: 'AssumeRoleWithWebIdentity',
        Version: '2011-06-15',
        RoleArn: ROLE_ARN,
        RoleSessionName: 'spiffe-edge',
        WebIdentityToken: FIRST,
      },
    ])
    expect(sts.requests[0]?.headers.get('authorization')).toBeNull()
    expect(signedWith()).toEqual(Array(4).fill(accessKeyId(1)))
    for (const { headers } of kms.requests) expect(headers.get('x-amz-security-token')).toBe(sessionToken(1))
  })

  test('is read anew ten minutes before a session ends, and not before', async () => {
    await ask()
    token = SECOND
    now += 50 * MINUTE - 1
    await ask()
    expect(shownTokens()).toEqual([FIRST])
    now += 1
    await ask()
    await ask()
    expect(shownTokens()).toEqual([FIRST, SECOND])
    expect(signedWith()).toEqual([1, 1, 2, 2].map(accessKeyId))
  })

  test('whose session is renewed holds nobody up but the one who renews it', async () => {
    await ask()
    now += 55 * MINUTE
    sts.trouble = hangs
    const renewing = ask()
    await vi.waitFor(() => expect(sts.requests).toHaveLength(2), 15_000)
    await Promise.all([ask(), ask()])
    expect(sts.requests).toHaveLength(2)
    await renewing
    expect(signedWith()).toEqual(Array(4).fill(accessKeyId(1)))
  })

  test('whose session can’t be renewed signs with it until a minute before it ends, and STS is asked from time to time', async () => {
    await ask()
    now += 50 * MINUTE
    sts.trouble = async () => stsError('InternalFailure', 500)
    for (let i = 0; i < 5; i++) await ask()
    now += 9_999
    await ask()
    expect(sts.requests).toHaveLength(2)
    now += 1
    for (let i = 0; i < 5; i++) await ask()
    expect(sts.requests).toHaveLength(3)
    now += 8 * MINUTE + 49_999
    await ask()
    now += 1
    expect(await code(ask())).toBe('unavailable')
    sts.trouble = null
    await ask()
    expect(signedWith().at(-1)).toBe(accessKeyId(2))
  })

  test('is not put off by a clock that is set back', async () => {
    await ask()
    now += 55 * MINUTE
    sts.trouble = async () => stsError('InternalFailure', 500)
    await ask()
    now -= 4 * MINUTE
    sts.trouble = null
    await ask()
    expect(signedWith()).toEqual([1, 1, 2].map(accessKeyId))
  })

  test('has another session when AWS refuses the one there is, and no more than one in ten seconds', async () => {
    await ask()
    now += MINUTE
    kms.trouble = async () => kmsError('ExpiredTokenException')
    for (let i = 0; i < 3; i++) expect(await code(ask())).toBe('denied')
    expect(sts.requests).toHaveLength(2)
    now += 10_000
    kms.trouble = null
    await ask()
    now += MINUTE
    await ask()
    expect(sts.requests).toHaveLength(3)
    expect(signedWith()).toEqual([1, 1, 2, 2, 3, 3].map(accessKeyId))
  })

  test('T-18: of a request that never ends holds up no other', async () => {
    let asked = 0
    sts.trouble = async (answer, signal) => (asked++ === 0 ? await hangs(answer, signal) : new Response(answer()))
    const stuck = ask()
    await vi.waitFor(() => expect(sts.requests).toHaveLength(1), 15_000)
    await ask()
    // What others have got meanwhile is good for it too.
    await stuck
    expect(sts.requests).toHaveLength(2)
    expect(signedWith()).toEqual([1, 1].map(accessKeyId))
  })

  test.each([
    ['eu-central-1', 'https://sts.eu-central-1.amazonaws.com/'],
    ['us-gov-east-1', 'https://sts.us-gov-east-1.amazonaws.com/'],
    ['cn-north-1', 'https://sts.cn-north-1.amazonaws.com.cn/'],
  ])('is changed by AWS in %s without an endpoint, wherever KMS is', async (region, url) => {
    const asked: string[] = []
    vi.stubGlobal('fetch', async (input: RequestInfo | URL) => {
      asked.push(String(input))
      return stsError('AccessDenied', 403)
    })
    try {
      const aws = { ...access, region, credentials: { ...identity, stsEndpoint: null } }
      expect(await code(announceKmsKey(aws, arn, null))).toBe('denied')
    } finally {
      vi.stubGlobal('fetch', sts.fetch)
    }
    expect(asked).toEqual([url])
  })
})

describe('T-16: without a session nothing is signed', () => {
  test.each<[string, StsTrouble, string]>([
    ['denies', async () => stsError('AccessDenied', 403), 'denied'],
    ['does not believe the token', async () => stsError('InvalidIdentityToken'), 'denied'],
    ['has it that the token has expired', async () => stsError('ExpiredTokenException'), 'denied'],
    ['has the token refused', async () => stsError('IDPRejectedClaim', 403), 'denied'],
    ['knows no such role', async () => stsError('ValidationError'), 'denied'],
    ['is not for this region', async () => stsError('RegionDisabledException', 403), 'denied'],
    ['throttles', async () => stsError('Throttling'), 'throttled'],
    ['can’t reach the cluster', async () => stsError('IDPCommunicationError'), 'unavailable'],
    ['fails inside', async () => stsError('InternalFailure', 500), 'unavailable'],
    ['is a proxy’s page', async () => new Response('<html><h1>502 Bad Gateway</h1>', { status: 502 }), 'unavailable'],
    ['is a page', async () => new Response('<html><h1>Welcome</h1>'), 'unavailable'],
    ['hangs', hangs, 'unavailable'],
    ['hangs in its answer', hangsInBody, 'unavailable'],
    ['goes on for ever', endless, 'unavailable'],
    ['is somewhere else', redirected, 'unavailable'],
    ['can’t be reached', unreachable, 'unavailable'],
    ['says nothing', async () => new Response(''), 'unavailable'],
    ['stops in the middle', lies(/<Expiration>.*/s, ''), 'unavailable'],
    ['leaves out the key', lies(/<AccessKeyId>.*<\/AccessKeyId>/, ''), 'unavailable'],
    ['leaves out the session token', lies(/<SessionToken>.*<\/SessionToken>/, ''), 'unavailable'],
    ['has an empty secret', lies(/(?<=<SecretAccessKey>).*(?=<)/, ''), 'unavailable'],
    ['has a blank in a token', lies(/(?<=<SessionToken>)/, 'a b'), 'unavailable'],
    ['has something to unescape', lies(/(?<=<SessionToken>)/, '&lt;'), 'unavailable'],
    ['has an element in a token', lies(/(?<=<SessionToken>)/, '<b/>'), 'unavailable'],
    ['gives two', lies(/<Credentials>/, '<Credentials></Credentials><Credentials>'), 'unavailable'],
    ['has an element twice', lies(/<SessionToken>/, '<SessionToken>x</SessionToken><SessionToken>'), 'unavailable'],
    ['does not close them', lies(/<\/Credentials>/, ''), 'unavailable'],
    ['closes them twice', lies(/<\/Credentials>/, '</Credentials></Credentials>'), 'unavailable'],
    ['has a comment', lies(/<Audience>/, '<!-- x --><Audience>'), 'unavailable'],
    ['has text that looks like elements', lies(/<Audience>/, '<Audience><![CDATA[<b>]]>'), 'unavailable'],
    ['says when, but not so', lies(/(?<=<Expiration>).*(?=<)/, 'tomorrow'), 'unavailable'],
    ['gives what has ended', lies(/(?<=<Expiration>).*(?=<)/, '2014-10-24T23:00:23Z'), 'unavailable'],
  ])('when STS %s', async (_what, trouble, expected) => {
    sts.trouble = trouble
    expect(await code(ask())).toBe(expected)
    expect(kms.requests).toEqual([])
    expect(sts.requests).toHaveLength(1)
    // Nothing has been kept of it.
    sts.trouble = null
    await ask()
    expect(signedWith()).toEqual([accessKeyId(sts.sessions)])
  })

  test.each<[string, () => Promise<string>]>([
    ['can’t be read', async () => Promise.reject(new Error(FIRST))],
    ['never answers', async () => await new Promise(() => {})],
    ['is empty', async () => ''],
    ['holds something else', async () => 'no token'],
    ['holds two', async () => `${FIRST}\n${SECOND}`],
    ['holds more than STS takes', async () => `${FIRST}${'x'.repeat(20_000)}`],
  ])('when the disk %s, and STS is not asked', async (_what, read) => {
    const readToken = async (signal: AbortSignal) => await Promise.race([read(), untilAborted<string>(signal)])
    access = { ...access, credentials: { ...identity, readToken } }
    expect(await code(ask())).toBe('unavailable')
    expect(sts.requests).toEqual([])
  })
})

async function untilAborted<T>(signal: AbortSignal): Promise<T> {
  return await new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}

async function hangs(_answer: () => string, signal: AbortSignal): Promise<Response> {
  return await untilAborted(signal)
}

async function hangsInBody(answer: () => string, signal: AbortSignal): Promise<Response> {
  return new Response(
    new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode(answer().slice(0, 100)))
        await untilAborted(signal).catch((reason) => controller.error(reason))
      },
    }),
  )
}

async function endless(): Promise<Response> {
  return new Response(new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(4096).fill(0x20)) }))
}

async function redirected(): Promise<Response> {
  return new Response(null, { status: 307, headers: { location: 'https://elsewhere.test/' } })
}

async function unreachable(): Promise<Response> {
  throw new TypeError('Network connection lost.')
}

/** Answers, with a part of the answer replaced. */
function lies(part: RegExp, by: string): StsTrouble {
  return async (answer) => {
    const whole = answer()
    const changed = whole.replace(part, by)
    expect(changed, 'a lie').not.toBe(whole)
    return new Response(changed)
  }
}
