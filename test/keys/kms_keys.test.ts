import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { ALGORITHMS, type AlgorithmName } from '../../keys/algorithms.ts'
import { announceKmsKey, kmsSigner } from '../../keys/kms.ts'
import type { KmsAccess } from '../../keys/kms_client.ts'
import { createKmsKey, findCreatedKmsKeys, scheduleKmsKeyDeletion } from '../../keys/kms_keys.ts'
import { KmsStub, kmsAnswer, kmsError, lies, only, type Trouble, troubles } from '../support/kms_stub.ts'

const INPUT = new TextEncoder().encode('header.payload')
/** How much faster time runs here than for a caller. */
const HURRY = 8
const ARN = 'arn:aws:kms:eu-central-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef'

const kms = new KmsStub()
const { access } = kms
vi.stubGlobal('fetch', kms.fetch)

const realTimeout = AbortSignal.timeout.bind(AbortSignal)

let creations = 0
/** Tags of a creation that there was not before. */
function newTags(): { 'spiffe-edge:trust-domain': string; 'spiffe-edge:creation': string } {
  return { 'spiffe-edge:trust-domain': 'example.org', 'spiffe-edge:creation': `creation-${creations++}` }
}

function byCreation(tags: ReturnType<typeof newTags>) {
  return { key: 'spiffe-edge:creation', value: tags['spiffe-edge:creation'] }
}

function stateOf(arn: string) {
  return kms.createdKeys().find((key) => key.arn === arn)?.state
}

beforeEach(() => {
  kms.trouble = null
  kms.requests.length = 0
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => realTimeout(ms / HURRY))
  vi.spyOn(Math, 'random').mockReturnValue(0)
})

afterEach(() => {
  vi.restoreAllMocks()
})

afterAll(() => {
  vi.unstubAllGlobals()
})

// The first import of the SDK, module by module as Vite serves it, takes its time.
beforeAll(async () => {
  await createKmsKey(access, 'ES256', {})
}, 60_000)

async function code(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  )
  expect(error).toMatchObject({ name: 'SigningError' })
  expect(Object.getOwnPropertyNames(error).sort()).toEqual(['code', 'message', 'name', 'stack'])
  return (error as { code: string }).code
}

/** KM-8, as every question here meets it. */
const TROUBLES: readonly [string, Trouble, string][] = [
  ['throttles', troubles.throttled, 'throttled'],
  ['says 429', async () => kmsAnswer({}, 429), 'throttled'],
  ['has no room for more', async () => kmsError('LimitExceededException'), 'throttled'],
  ['denies', async () => kmsError('AccessDeniedException'), 'denied'],
  ['does not know us', async () => kmsError('UnrecognizedClientException'), 'denied'],
  ['fails inside', troubles.failsInside, 'unavailable'],
  ['hangs', troubles.hangs, 'unavailable'],
  ['hangs in its answer', troubles.hangsInBody, 'unavailable'],
  ['is unreachable', troubles.unreachable, 'unavailable'],
  ['answers without end', troubles.endless, 'unavailable'],
  ['answers with half a text', troubles.truncated, 'unavailable'],
  ['answers with a page', troubles.html, 'unavailable'],
  ['sends us elsewhere', troubles.redirected, 'unavailable'],
]

describe('T-15: creating a key', () => {
  test.each(Object.keys(ALGORITHMS) as AlgorithmName[])('KM-3: for %s gives one that signs it', async (alg) => {
    const tags = newTags()
    const arn = await createKmsKey(access, alg, tags)
    expect(kms.createdKeys().at(-1)).toEqual({ arn, spec: ALGORITHMS[alg].kmsKeySpecs[0], tags, state: 'Enabled' })
    expect(kms.requests).toHaveLength(1)
    expect(kms.requests[0]).toMatchObject({ operation: 'CreateKey', input: { KeyUsage: 'SIGN_VERIFY' } })
    const { publicJwk } = await announceKmsKey(access, arn, alg)
    expect((await (await kmsSigner(access, arn, publicJwk)).sign(INPUT)).length).toBeGreaterThan(0)
  })

  test.each(TROUBLES)('when KMS %s is not asked for a second time', async (_what, trouble, expected) => {
    kms.trouble = trouble
    expect(await code(createKmsKey(access, 'ES256', newTags()))).toBe(expected)
    expect(kms.requests).toHaveLength(1)
  })

  test('whose answer is lost leaves one key, which its tag finds', async () => {
    const tags = newTags()
    kms.trouble = troubles.losesAnswer
    expect(await code(createKmsKey(access, 'ES256', tags))).toBe('unavailable')
    kms.trouble = null
    const made = kms.createdKeys().filter((key) => key.tags['spiffe-edge:creation'] === tags['spiffe-edge:creation'])
    expect(made).toHaveLength(1)
    expect(await findCreatedKmsKeys(access, byCreation(tags))).toEqual([made[0]?.arn])
  })

  test.each([
    ['nothing of the key', {}],
    ['no ARN', { KeyMetadata: { KeyUsage: 'SIGN_VERIFY', KeySpec: 'ECC_NIST_P256' } }],
    [
      'an alias',
      { KeyMetadata: { Arn: ARN.replace('key/', 'alias/'), KeyUsage: 'SIGN_VERIFY', KeySpec: 'ECC_NIST_P256' } },
    ],
    ['another usage', { KeyMetadata: { Arn: ARN, KeyUsage: 'ENCRYPT_DECRYPT', KeySpec: 'ECC_NIST_P256' } }],
    ['another key spec', { KeyMetadata: { Arn: ARN, KeyUsage: 'SIGN_VERIFY', KeySpec: 'ECC_SECG_P256K1' } }],
  ])('12.11: an answer that says %s is refused', async (_what, answer) => {
    kms.trouble = async () => kmsAnswer(answer)
    expect(await code(createKmsKey(access, 'ES256', newTags()))).toBe('key_mismatch')
  })
})

describe('T-15: finding a key by its tag', () => {
  test('finds that one and no other, in any state, with one question', async () => {
    const [tags, others] = [newTags(), newTags()]
    const arn = await createKmsKey(access, 'ES256', tags)
    await createKmsKey(access, 'ES256', others)
    kms.requests.length = 0
    expect(await findCreatedKmsKeys(access, byCreation(tags))).toEqual([arn])
    expect(kms.requests).toHaveLength(1)
    kms.setState(arn, 'PendingDeletion')
    expect(await findCreatedKmsKeys(access, byCreation(tags))).toEqual([arn])
    expect(await findCreatedKmsKeys(access, { key: 'spiffe-edge:trust-domain', value: 'example.net' })).toEqual([])
    expect((await findCreatedKmsKeys(access, { key: 'spiffe-edge:trust-domain', value: 'example.org' })).length).toBe(
      kms.createdKeys().filter((key) => key.tags['spiffe-edge:trust-domain']).length,
    )
  })

  test('KM-12: asks with a filter, never for everything, and signs the request', async () => {
    const session = { ...access, credentials: { ...access.credentials, sessionToken: 'FwoGZXIvYXdzEXAMPLE' } }
    await findCreatedKmsKeys(session, { key: 'spiffe-edge:creation', value: 'ä &' })
    const [{ input, headers, url } = {}] = kms.requests
    expect(input).toEqual({
      TagFilters: [{ Key: 'spiffe-edge:creation', Values: ['ä &'] }],
      ResourceTypeFilters: ['kms:key'],
    })
    expect(url).toBe(`${access.endpoint}/`)
    expect(headers?.get('x-amz-target')).toBe('ResourceGroupsTaggingAPI_20170126.GetResources')
    expect(headers?.get('x-amz-security-token')).toBe('FwoGZXIvYXdzEXAMPLE')
    expect(headers?.get('authorization')).toContain('x-amz-security-token')
  })

  test('asks where it is told to, and KMS where it was', async () => {
    const elsewhere: KmsAccess = { ...access, taggingEndpoint: 'https://tagging.test' }
    await findCreatedKmsKeys(elsewhere, byCreation(newTags()))
    await createKmsKey(elsewhere, 'ES256', newTags())
    expect(kms.requests.map(({ url }) => url)).toEqual(['https://tagging.test/', `${access.endpoint}/`])
  })

  test.each([
    ['eu-central-1', 'https://tagging.eu-central-1.amazonaws.com/'],
    ['us-gov-east-1', 'https://tagging.us-gov-east-1.amazonaws.com/'],
    ['cn-north-1', 'https://tagging.cn-north-1.amazonaws.com.cn/'],
  ])('asks AWS in %s without an endpoint', async (region, url) => {
    const asked: string[] = []
    vi.stubGlobal('fetch', async (input: RequestInfo | URL) => {
      asked.push(String(input))
      return kmsAnswer({ PaginationToken: null, ResourceTagMappingList: [] })
    })
    try {
      for (const taggingEndpoint of [undefined, null]) {
        const { credentials } = access
        const aws = { region, endpoint: null, credentials, ...(taggingEndpoint === null && { taggingEndpoint }) }
        expect(await findCreatedKmsKeys(aws, byCreation(newTags()))).toEqual([])
      }
    } finally {
      vi.stubGlobal('fetch', kms.fetch)
    }
    expect(asked).toEqual([url, url])
  })

  test('follows where AWS ends a page early, and names no key twice', async () => {
    const tags = newTags()
    const arn = await createKmsKey(access, 'ES256', tags)
    kms.requests.length = 0
    kms.trouble = only(2, lies({ PaginationToken: 'more' }))
    expect(await findCreatedKmsKeys(access, byCreation(tags))).toEqual([arn])
    expect(kms.requests.map(({ input }) => input.PaginationToken)).toEqual([undefined, 'more', 'more'])
    kms.trouble = only(1, lies({ PaginationToken: 'more', ResourceTagMappingList: [] }))
    expect(await findCreatedKmsKeys(access, byCreation(tags))).toEqual([arn])
  })

  test('does not follow for ever', async () => {
    kms.trouble = lies({ PaginationToken: 'more' })
    expect(await code(findCreatedKmsKeys(access, byCreation(newTags())))).toBe('unavailable')
    expect(kms.requests).toHaveLength(5)
  })

  test.each(TROUBLES)('when AWS %s is not asked for a second time', async (_what, trouble, expected) => {
    kms.trouble = trouble
    expect(await code(findCreatedKmsKeys(access, byCreation(newTags())))).toBe(expected)
    expect(kms.requests).toHaveLength(1)
  })

  test.each([
    ['com.amazon.resourcegroupstaggingapi#ThrottledException', 'throttled'],
    ['AccessDeniedException', 'denied'],
    ['InvalidParameterException', 'unavailable'],
    ['InternalServiceException', 'unavailable'],
    ['constructor', 'unavailable'],
  ])('KM-8: an error %s is %s', async (type, expected) => {
    kms.trouble = async () => kmsError(type)
    expect(await code(findCreatedKmsKeys(access, byCreation(newTags())))).toBe(expected)
  })

  const tag = { Key: 'spiffe-edge:creation', Value: 'mine' }
  test.each([
    ['a key without tags', [{ ResourceARN: ARN, Tags: [] }]],
    ['a key of another creation', [{ ResourceARN: ARN, Tags: [{ ...tag, Value: 'yours' }] }]],
    ['a key with the value under another name', [{ ResourceARN: ARN, Tags: [{ ...tag, Key: 'Name' }] }]],
    ['something that is no key', [{ ResourceARN: ARN.replace('key/', 'alias/'), Tags: [tag] }]],
    ['something without a name', [{ Tags: [tag] }]],
    [
      'the key and another',
      [
        { ResourceARN: ARN, Tags: [tag] },
        { ResourceARN: ARN.replace('0', '1'), Tags: [] },
      ],
    ],
  ])('12.11: an answer with %s is refused', async (_what, ResourceTagMappingList) => {
    kms.trouble = async () => kmsAnswer({ PaginationToken: '', ResourceTagMappingList })
    expect(await code(findCreatedKmsKeys(access, { key: tag.Key, value: tag.Value }))).toBe('key_mismatch')
  })

  test.each<[unknown]>([
    [{}],
    [null],
    [[]],
    ['text'],
    [{ ResourceTagMappingList: null }],
    [{ ResourceTagMappingList: {} }],
    [{ ResourceTagMappingList: [null] }],
    [{ ResourceTagMappingList: [{ ResourceARN: ARN }] }],
    [{ ResourceTagMappingList: [{ ResourceARN: ARN, Tags: [null] }] }],
  ])('an answer like %j is not taken for "there is no key"', async (answer) => {
    kms.trouble = async () => kmsAnswer(answer as object)
    expect(await code(findCreatedKmsKeys(access, { key: tag.Key, value: tag.Value }))).toBe('unavailable')
  })
})

describe('KM-11: the deletion of a key', () => {
  test('is scheduled once, for 30 days unless something else is asked for', async () => {
    const [first, second] = [await createKmsKey(access, 'ES256', {}), await createKmsKey(access, 'ES256', {})]
    await scheduleKmsKeyDeletion(access, first)
    await scheduleKmsKeyDeletion(access, second, 7)
    expect(kms.requests.slice(2).map(({ input }) => input)).toEqual([
      { KeyId: first, PendingWindowInDays: 30 },
      { KeyId: second, PendingWindowInDays: 7 },
    ])
    expect([stateOf(first), stateOf(second)]).toEqual(['PendingDeletion', 'PendingDeletion'])
  })

  test('is scheduled for a disabled key', async () => {
    const arn = await createKmsKey(access, 'ES256', {})
    kms.setState(arn, 'Disabled')
    await scheduleKmsKeyDeletion(access, arn)
    expect(stateOf(arn)).toBe('PendingDeletion')
  })

  test('that has been scheduled is done, after KMS has said that it has', async () => {
    const arn = await createKmsKey(access, 'ES256', {})
    await scheduleKmsKeyDeletion(access, arn)
    kms.requests.length = 0
    await scheduleKmsKeyDeletion(access, arn)
    expect(kms.requests.map(({ operation }) => operation)).toEqual(['ScheduleKeyDeletion', 'DescribeKey'])
  })

  test('that is past is done, whenever that comes out', async () => {
    const arn = await createKmsKey(access, 'ES256', {})
    await scheduleKmsKeyDeletion(access, arn)
    kms.trouble = async ({ operation }, answer) => {
      if (operation === 'DescribeKey') kms.removeKey(arn)
      return await answer()
    }
    await scheduleKmsKeyDeletion(access, arn)
    await scheduleKmsKeyDeletion(access, arn)
  })

  test('whose answer was lost is done by the second attempt', async () => {
    const arn = await createKmsKey(access, 'ES256', {})
    kms.trouble = only(1, troubles.losesAnswer)
    await scheduleKmsKeyDeletion(access, arn)
    expect(stateOf(arn)).toBe('PendingDeletion')
  })

  test('is not done because the key is in some other state', async () => {
    const arn = await createKmsKey(access, 'ES256', {})
    for (const state of ['Enabled', 'Disabled'] as const) {
      kms.setState(arn, state)
      kms.trouble = async ({ operation }, answer) =>
        operation === 'ScheduleKeyDeletion' ? kmsError('KMSInvalidStateException') : await answer()
      expect(await code(scheduleKmsKeyDeletion(access, arn))).toBe('key_unusable')
    }
  })

  test('is not done because another key is pending deletion', async () => {
    const [arn, other] = [await createKmsKey(access, 'ES256', {}), await createKmsKey(access, 'ES256', {})]
    await scheduleKmsKeyDeletion(access, arn)
    kms.trouble = async ({ operation }, answer) =>
      operation === 'DescribeKey'
        ? kmsAnswer({ KeyMetadata: { Arn: other, KeyState: 'PendingDeletion' } })
        : await answer()
    expect(await code(scheduleKmsKeyDeletion(access, arn))).toBe('key_mismatch')
    kms.trouble = async () => kmsAnswer({ KeyId: other })
    expect(await code(scheduleKmsKeyDeletion(access, arn))).toBe('key_mismatch')
  })

  test.each(['alias/issuer', '01234567-89ab-cdef-0123-456789abcdef', ARN.replace('key/', 'alias/'), ''])(
    'of %j, which is no ARN of a key, is not asked for',
    async (name) => {
      expect(await code(scheduleKmsKeyDeletion(access, name))).toBe('key_mismatch')
      expect(kms.requests).toEqual([])
    },
  )

  test.each(['DisabledException', 'InvalidArnException', 'AccessDeniedException', 'ValidationException'])(
    'that KMS refuses with %s is not done',
    async (type) => {
      kms.trouble = async () => kmsError(type)
      const refusal = type === 'AccessDeniedException' ? 'denied' : 'key_unusable'
      expect(await code(scheduleKmsKeyDeletion(access, ARN))).toBe(refusal)
    },
  )

  test.each(TROUBLES)('when KMS %s is not done', async (_what, trouble, expected) => {
    const arn = await createKmsKey(access, 'ES256', {})
    kms.trouble = trouble
    expect(await code(scheduleKmsKeyDeletion(access, arn))).toBe(expected)
    kms.trouble = null
    await scheduleKmsKeyDeletion(access, arn)
    expect(stateOf(arn)).toBe('PendingDeletion')
    // And when the trouble comes with the second question.
    kms.trouble = async (request, answer, signal) =>
      await (request.operation === 'DescribeKey' ? trouble(request, answer, signal) : answer())
    expect(await code(scheduleKmsKeyDeletion(access, arn))).toBe(expected)
  })
})
