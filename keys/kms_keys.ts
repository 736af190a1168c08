/**
 * Signing keys that the worker itself makes in AWS KMS, finds again and gives back.
 *
 * Whoever makes one writes down that it is about to, under a name of its own that is put in the key's tags, and only then
 * asks: after a crash in between, one look-up by that tag says whether there is a key (T-15).
 *
 * @see [CreateKey](https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html)
 * @see [GetResources](https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html)
 * @see [ScheduleKeyDeletion](https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html)
 */

import type { KeySpec } from '@aws-sdk/client-kms'
import { ALGORITHMS, type AlgorithmName } from './algorithms.ts'
import { ask, type Call, countThrottled, endpointOf, KEY_ARN, type KmsAccess } from './kms_client.ts'
import { sendOnce } from './send_once.ts'
import { SigningError } from './signer.ts'

/** A creation has one key, but AWS may end a page early and even empty. If it goes on like that, we have no answer. */
const MAX_PAGES = 5

/**
 * Asks once, with no second attempt: one that got no answer may have made a key.
 *
 * The new key is in our hands at once, but AWS takes up to five minutes until what is allowed by tags is allowed for it.
 *
 * @param tags names that do not begin with `aws:`
 * @returns the ARN
 * @throws SigningError after which there may be a key, for {@link findCreatedKmsKeys} to find; LimitExceededException,
 *   which stands for too many keys in the account, is `throttled`
 */
export async function createKmsKey(
  access: KmsAccess,
  alg: AlgorithmName,
  tags: Readonly<Record<string, string>>,
): Promise<string> {
  const { CreateKeyCommand } = await import('@aws-sdk/client-kms')
  const spec = ALGORITHMS[alg].kmsKeySpecs[0] as KeySpec
  const command = new CreateKeyCommand({
    KeyUsage: 'SIGN_VERIFY',
    KeySpec: spec,
    Description: `Signs ${alg} for spiffe-edge, which made it`,
    Tags: Object.entries(tags).map(([TagKey, TagValue]) => ({ TagKey, TagValue })),
  })
  const { KeyMetadata } = await ask(access, ({ client, options }) => client.send(command, options), 'once')
  const { Arn = '', KeyUsage, KeySpec } = KeyMetadata ?? {}
  if (!KEY_ARN.test(Arn) || KeyUsage !== 'SIGN_VERIFY' || KeySpec !== spec) throw new SigningError('key_mismatch')
  return Arn
}

/**
 * One question to the Resource Groups Tagging API, never a walk over all keys of the account. A second one follows only
 * where AWS has cut the answer short.
 *
 * @returns ARNs, of keys in any state. None is no proof: a new key's tags may arrive there after the key itself.
 * @throws SigningError `key_mismatch` where the answer holds anything that was not asked for, `unavailable` where there is
 *   no end to it
 */
export async function findCreatedKmsKeys(
  access: KmsAccess,
  tag: { readonly key: string; readonly value: string },
): Promise<readonly string[]> {
  const arns = new Set<string>()
  let PaginationToken = ''
  for (let page = 0; page < MAX_PAGES; page++) {
    const input = {
      TagFilters: [{ Key: tag.key, Values: [tag.value] }],
      ResourceTypeFilters: ['kms:key'],
      ...(PaginationToken !== '' && { PaginationToken }),
    }
    const { found, next } = await ask(access, (call) => countThrottled(access, getResources(access, call, input)))
    for (const { arn, tags } of found) {
      if (!KEY_ARN.test(arn) || tags.get(tag.key) !== tag.value) throw new SigningError('key_mismatch')
      arns.add(arn)
    }
    if (next === '') return [...arns]
    PaginationToken = next
  }
  throw new SigningError('unavailable')
}

/**
 * @param arn of a key that signs for nobody any more: after `days` nothing brings it back
 * @param days 7 to 30
 * @returns also if the deletion was scheduled before, or KMS knows no such key: it is gone, or so new that not all of KMS
 *   has heard of it
 * @throws SigningError
 */
export async function scheduleKmsKeyDeletion(access: KmsAccess, arn: string, days = 30): Promise<void> {
  if (!KEY_ARN.test(arn)) throw new SigningError('key_mismatch')
  const { DescribeKeyCommand, ScheduleKeyDeletionCommand } = await import('@aws-sdk/client-kms')
  const schedule = new ScheduleKeyDeletionCommand({ KeyId: arn, PendingWindowInDays: days })
  const scheduled = await ask(access, ({ client, options }) =>
    client.send(schedule, options).catch(refusedAs('NotFoundException', 'KMSInvalidStateException')),
  )
  if (scheduled === 'NotFoundException') return
  if (scheduled !== 'KMSInvalidStateException') {
    if (scheduled.KeyId !== arn) throw new SigningError('key_mismatch')
    return
  }
  const describe = new DescribeKeyCommand({ KeyId: arn })
  const described = await ask(access, ({ client, options }) =>
    client.send(describe, options).catch(refusedAs('NotFoundException')),
  )
  if (described === 'NotFoundException') return
  const { Arn, KeyState } = described.KeyMetadata ?? {}
  if (Arn !== arn) throw new SigningError('key_mismatch')
  if (KeyState !== 'PendingDeletion') throw new SigningError('key_unusable')
}

/** Makes a value of an error of one of these names, and throws any other. */
function refusedAs<Name extends string>(...names: readonly Name[]): (error: Error) => Name {
  return (error) => {
    const name = names.find((expected) => expected === error.name)
    if (name === undefined) throw error
    return name
  }
}

interface Page {
  readonly found: readonly { readonly arn: string; readonly tags: ReadonlyMap<unknown, unknown> }[]
  /** What to ask for the next page with. Empty after the last one, for which AWS says null or nothing as well. */
  readonly next: string
}

/**
 * The client of this API would be a second SDK for one operation.
 *
 * @throws an error as the SDK throws it: by the name that AWS gave it, with the status
 */
async function getResources(access: KmsAccess, call: Call, input: object): Promise<Page> {
  const { AwsV4Signer } = await import('aws4fetch')
  const { region } = access
  const body = JSON.stringify(input)
  const signer = new AwsV4Signer({
    ...call.credentials,
    region,
    service: 'tagging',
    method: 'POST',
    url: taggingUrl(access, call),
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': 'ResourceGroupsTaggingAPI_20170126.GetResources',
    },
    body,
  })
  const { method, url, headers } = await signer.sign()
  const response = await sendOnce(url.href, { method, headers, body }, call.options.abortSignal)
  const answer = JSON.parse(new TextDecoder().decode(response.body))
  if (response.statusCode !== 200) {
    // A namespace may stand in front of the name.
    const name = String(answer.__type).split('#').at(-1)
    throw Object.assign(new Error('refused'), { name, $metadata: { httpStatusCode: response.statusCode } })
  }
  // Throws where there is no list: an answer of something else is not the answer that there is no key.
  const list = answer.ResourceTagMappingList as { ResourceARN: unknown; Tags: { Key: unknown; Value: unknown }[] }[]
  return {
    found: list.map(({ ResourceARN, Tags }) => ({
      arn: String(ResourceARN),
      tags: new Map(Tags.map(({ Key, Value }) => [Key, Value])),
    })),
    next: String(answer.PaginationToken ?? ''),
  }
}

function taggingUrl({ taggingEndpoint, endpoint, region }: KmsAccess, { client }: Call): string {
  return taggingEndpoint ?? endpoint ?? endpointOf(client, 'tagging', region)
}
