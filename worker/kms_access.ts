/** What the environment says about AWS: where KMS is, and who the worker is there. */

import type { Credentials, KmsAccess } from '../keys/kms_client.ts'
import type { WebIdentity } from '../keys/web_identity.ts'
import { endpointUrlProblem } from './endpoint_url.ts'
import { fetchText, isHttpService } from './fetch_json.ts'

/** Variables and bindings by name. */
export interface Environment {
  /** null where it is not set. */
  read(name: string): string | null
  /** The same, which is a problem then. */
  need(name: string): string
  binding(name: string): unknown
}

/** @see [Identifiers of IAM](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html) */
const ROLE_ARN = /^arn:aws[a-z-]*:iam::[0-9]{12}:role\/(?:[\x21-\x7e]{1,510}\/)?[\w+=,.@-]{1,64}$/
/** In a disk of workerd, where nothing is found whose name begins with a dot. */
const DISK_PATH = /^\/?[A-Za-z0-9_-][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/
const MAX_DISK_PATH_LENGTH = 256

/**
 * @param allowLoopbackHttp whether an endpoint may be http on this machine
 * @param problems what is wrong is added to it, each with the name of its variable
 */
export function readKmsAccess(environment: Environment, allowLoopbackHttp: boolean, problems: string[]): KmsAccess {
  const { read, need } = environment
  const region = need('AWS_REGION')
  const endpoint = read('AWS_ENDPOINT_URL_KMS')
  const taggingEndpoint = read('AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API')
  const stsEndpoint = read('AWS_ENDPOINT_URL_STS')
  const roleArn = read('AWS_ROLE_ARN')
  const tokenFile = read('AWS_WEB_IDENTITY_TOKEN_FILE')
  for (const [name, url] of [
    ['AWS_ENDPOINT_URL_KMS', endpoint],
    ['AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API', taggingEndpoint],
    ['AWS_ENDPOINT_URL_STS', stsEndpoint],
  ] as const) {
    const problem = url && endpointUrlProblem(url, allowLoopbackHttp)
    if (problem) problems.push(`${name}: ${problem}`)
  }
  // Half of a web identity is a mistake, and no reason to take a secret instead.
  const credentials =
    roleArn === null && tokenFile === null
      ? readCredentials(environment)
      : readWebIdentity({ roleArn, tokenFile, stsEndpoint }, environment, problems)
  return { region, endpoint, taggingEndpoint, credentials }
}

function readCredentials({ read, need }: Environment): Credentials {
  const sessionToken = read('AWS_SESSION_TOKEN')
  return {
    accessKeyId: need('AWS_ACCESS_KEY_ID'),
    secretAccessKey: need('AWS_SECRET_ACCESS_KEY'),
    ...(sessionToken !== null && { sessionToken }),
  }
}

interface WebIdentityVariables {
  readonly roleArn: string | null
  readonly tokenFile: string | null
  readonly stsEndpoint: string | null
}

/** The token is read from a disk each time, because who replaces it there tells nobody (T-16). */
function readWebIdentity(
  { roleArn, tokenFile, stsEndpoint }: WebIdentityVariables,
  { read, binding }: Environment,
  problems: string[],
): WebIdentity {
  for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'])
    if (read(name) !== null) problems.push(`${name}: must not be set where there is a web identity`)
  if (roleArn === null) problems.push('AWS_ROLE_ARN: is not set')
  else if (!ROLE_ARN.test(roleArn)) problems.push('AWS_ROLE_ARN: is not the ARN of a role')
  if (tokenFile === null) problems.push('AWS_WEB_IDENTITY_TOKEN_FILE: is not set')
  else if (tokenFile.length > MAX_DISK_PATH_LENGTH || !DISK_PATH.test(tokenFile))
    problems.push('AWS_WEB_IDENTITY_TOKEN_FILE: is not a path, like/this')
  const disk = binding('AWS_WEB_IDENTITY')
  if (!isHttpService(disk)) problems.push('AWS_WEB_IDENTITY: is not bound to a disk')
  const through = isHttpService(disk) ? disk : null
  // The host means nothing to a disk.
  const url = `http://disk/${(tokenFile ?? '').replace(/^\//, '')}`
  return {
    roleArn: roleArn ?? '',
    stsEndpoint,
    readToken: async (signal) => await fetchText(url, { through, signal }),
  }
}
