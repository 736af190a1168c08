/**
 * Credentials of AWS for a token that somebody else signs for us: a cluster for the pod that we are, so that no credential
 * has to be stored (T-16).
 *
 * The request is made by hand. It takes no signature, and the SDK reads the answer with a DOMParser, which workerd has
 * not.
 *
 * @see [AssumeRoleWithWebIdentity](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html)
 */

import { sendOnce } from './send_once.ts'

/** Renewed so long before they end: AWS gives no session of less than 15 minutes, and ours lasts an hour. */
const RENEW_BEFORE_MS = 600_000
/** Not used any more so long before they end: a request is under way for a while, and clocks differ. */
const MARGIN_MS = 60_000
/** How soon a renewal is tried again. What is left is used in between. */
const RETRY_MS = 10_000
/** A disk of this machine. */
const READ_TIMEOUT_MS = 1_000
/** What the log of AWS calls the session. The role says whose it is. */
const SESSION_NAME = 'spiffe-edge'
/** A JWS, as long as STS takes one. */
const TOKEN = /^(?=.{4,20000}$)[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/
/** What is safe in a header, and needs no unescaping in XML. */
const PLAIN = /^[!-%'-;=-~]+$/

/** Who we are to AWS without a secret of ours. One object stands for one session: keep it. */
export interface WebIdentity {
  readonly roleArn: string
  /** Null is the endpoint of AWS for the region. */
  readonly stsEndpoint: string | null
  /** Reads the token anew: whoever has put it there replaces it before it expires. */
  readToken(signal: AbortSignal): Promise<string>
}

/** What requests are signed with for a while. */
export interface SessionCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string
  readonly expiration: Date
}

interface Session {
  credentials: SessionCredentials | null
  /** When STS was last asked, in milliseconds since the epoch. */
  askedAt: number
  /** AWS has refused a request that was signed with them: they may have been revoked. */
  refused: boolean
}

/** Credentials and no promises of them: in workerd a promise that one request made is not safe to await in another. */
const sessions = new WeakMap<WebIdentity, Session>()

/**
 * @param endpoint finds where STS is, if the identity does not say it
 * @returns the same as long as they are good. While there are none, everybody who asks has STS asked; else one of them at a
 *   time, who gets the old ones if that fails.
 * @throws Error by the name that STS gave it, with the status; or any other
 */
export async function sessionCredentials(
  identity: WebIdentity,
  endpoint: () => Promise<string>,
  abortSignal: AbortSignal,
): Promise<SessionCredentials> {
  const session = sessions.get(identity) ?? { credentials: null, askedAt: 0, refused: false }
  sessions.set(identity, session)
  const now = Date.now()
  const usable = lastingFor(MARGIN_MS, session)
  const due = session.refused || !lastingFor(RENEW_BEFORE_MS, session)
  // A clock that is set back must not put it off.
  if (usable && (!due || Math.abs(now - session.askedAt) < RETRY_MS)) return usable
  session.askedAt = now
  try {
    const url = identity.stsEndpoint ?? (await endpoint())
    const renewed = await assumeRole(identity, url, abortSignal)
    session.credentials = renewed
    session.refused = false
    return renewed
  } catch (error) {
    // Those there were, or those that somebody else has got by now.
    const left = lastingFor(MARGIN_MS, session)
    if (left) return left
    throw error
  }
}

function lastingFor(milliseconds: number, { credentials }: Session): SessionCredentials | null {
  return credentials && credentials.expiration.getTime() - Date.now() > milliseconds ? credentials : null
}

/** To be called when AWS has refused what was signed with them: the next who asks gets others. */
export function distrustSession(identity: WebIdentity): void {
  const session = sessions.get(identity)
  if (session) session.refused = true
}

async function assumeRole(identity: WebIdentity, url: string, abortSignal: AbortSignal): Promise<SessionCredentials> {
  const token = (await identity.readToken(AbortSignal.any([abortSignal, AbortSignal.timeout(READ_TIMEOUT_MS)]))).trim()
  if (!TOKEN.test(token)) throw new Error('no token')
  const body = new URLSearchParams({
    Action: 'AssumeRoleWithWebIdentity',
    Version: '2011-06-15',
    RoleArn: identity.roleArn,
    RoleSessionName: SESSION_NAME,
    WebIdentityToken: token,
  })
  const headers = { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' }
  const answer = await sendOnce(url, { method: 'POST', headers, body: body.toString() }, abortSignal)
  const xml = new TextDecoder().decode(answer.body)
  if (answer.statusCode !== 200) {
    const name = textOf(xml, 'Code') ?? ''
    throw Object.assign(new Error('refused'), { name, $metadata: { httpStatusCode: answer.statusCode } })
  }
  return readCredentials(xml)
}

/** @throws Error if there are none in it that are good for a while */
function readCredentials(xml: string): SessionCredentials {
  const credentials = elementOf(xml, 'Credentials') ?? ''
  const [accessKeyId, secretAccessKey, sessionToken] = ['AccessKeyId', 'SecretAccessKey', 'SessionToken'].map((name) =>
    textOf(credentials, name),
  )
  const expiration = new Date(textOf(credentials, 'Expiration') ?? Number.NaN)
  // Written so that an invalid date is no good either.
  if (!accessKeyId || !secretAccessKey || !sessionToken || !(expiration.getTime() - Date.now() > MARGIN_MS))
    throw new Error('no credentials')
  return { accessKeyId, secretAccessKey, sessionToken, expiration }
}

function textOf(xml: string, name: string): string | null {
  const text = elementOf(xml, name)?.trim() ?? ''
  return PLAIN.test(text) ? text : null
}

/**
 * @returns what is in the one element of that name; null if there is none or more than one, or anything that could make
 *   text look like an element
 */
function elementOf(xml: string, name: string): string | null {
  if (xml.includes('<!')) return null
  const parts = xml.split(`<${name}>`)
  const [content, ...rest] = parts[1]?.split(`</${name}>`) ?? []
  return parts.length === 2 && rest.length === 1 && content !== undefined ? content : null
}
