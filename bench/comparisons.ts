/** What is held against what: every server of the bench, started, and proven to give answers of one kind. */

import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { AUDIENCE, writePolicies } from './policies.ts'
import { type Server, startServer } from './server.ts'

/** Of this machine: no other issuer gets the demo cluster. Nothing listens there. */
const HOST = '127.0.0.1:8787'
const BASELINES = 'bench/workers/baselines.capnp'
/** More than one, so that nothing on the way could profit from seeing the same text again. */
const SUBJECT_TOKENS = 32

export interface Side {
  readonly name: string
  readonly server: Server
  /** Whole HTTP/1.1 requests, sent in turn. */
  readonly requests: readonly string[]
}

export interface Comparison {
  readonly name: string
  /** How much of the baseline's speed is to be reached. */
  readonly goal: number
  readonly product: Side
  readonly baseline: Side
}

interface Answer {
  readonly headers: Record<string, string>
  readonly body: string
}

/** The development build, as `npm start` runs it: a local ES256 key, and a demo cluster that makes subject tokens. */
export function startProduct(scratch: string): Promise<Server> {
  return startWith('deploy/workerd/development.capnp', join(scratch, 'state'), productLog(scratch))
}

/** @param env beside what every issuer needs */
export function startWith(
  configuration: string,
  state: string,
  log: string,
  env: Record<string, string> = {},
): Promise<Server> {
  mkdirSync(state, { recursive: true })
  return startServer(
    [configuration, `--directory-path=state=${state}`],
    { ISSUER: `http://${HOST}`, TRUST_DOMAIN: 'example.org', SIGNING_KEY: 'local:bench', ...env },
    log,
  )
}

/** Where the audit lines are. A file: whoever collects logs reads them from one, or from a pipe, which costs the same. */
export function productLog(scratch: string): string {
  return join(scratch, 'product.log')
}

/** @returns what starts a constant worker that answers as `product` does at `path` */
export async function constantLike(product: Server, path: string, scratch: string): Promise<() => Promise<Server>> {
  const { headers, body } = await ask(product, get(path))
  // The runtime's own, in either worker.
  const { 'content-length': _, ...kept } = headers
  const env = { BODY: body, HEADERS: JSON.stringify(kept) }
  return () => startServer([BASELINES, 'constant'], env, join(scratch, 'constant.log'))
}

export async function prepareComparisons(product: Server, scratch: string): Promise<Comparison[]> {
  const comparisons = [
    await prepareDocument('discovery', '/.well-known/openid-configuration', product, scratch),
    await prepareDocument('jwks', '/keys', product, scratch),
    await prepareExchange(product, scratch),
    await preparePolicies(scratch),
  ]
  for (const comparison of comparisons) await checkAlike(comparison)
  return comparisons
}

async function prepareDocument(name: string, path: string, product: Server, scratch: string): Promise<Comparison> {
  const requests = [get(path)]
  const startConstant = await constantLike(product, path, scratch)
  return {
    name,
    goal: 0.95,
    product: { name: 'product', server: product, requests },
    baseline: { name: 'constant', server: await startConstant(), requests },
  }
}

async function prepareExchange(product: Server, scratch: string): Promise<Comparison> {
  const subject = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { kid } = JSON.parse((await ask(product, get('/keys'))).body).keys[0]
  const bare = await startServer(
    [BASELINES, 'bare'],
    {
      ISSUER: `http://${HOST}`,
      SUBJECT_KEY: JSON.stringify(subject.publicKey.export({ format: 'jwk' })),
      SIGNING_KEY: JSON.stringify({ ...signing.privateKey.export({ format: 'jwk' }), kid }),
    },
    join(scratch, 'bare.log'),
  )
  const tokens: string[] = []
  while (tokens.length < SUBJECT_TOKENS) tokens.push((await ask(product, get('/demo/token'))).body)
  return {
    name: 'exchange',
    goal: 0.8,
    product: { name: 'product', server: product, requests: tokens.map((token) => exchange(token)) },
    baseline: {
      name: 'bare',
      server: bare,
      requests: tokens.map((token) => exchange(signedBy(subject.privateKey, token))),
    },
  }
}

/** The same exchange, by a policy of one registration and by one of very many. */
async function preparePolicies(scratch: string): Promise<Comparison> {
  const { one, many, tokens } = writePolicies(SUBJECT_TOKENS)
  const start = (configuration: string, name: string) =>
    startWith(configuration, join(scratch, name), join(scratch, `${name}.log`))
  const requests = tokens.map((token) => exchange(token, AUDIENCE))
  return {
    name: 'policies',
    goal: 1 / 1.2,
    product: { name: 'many', server: await start(many, 'many'), requests },
    baseline: { name: 'one', server: await start(one, 'one'), requests },
  }
}

export function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${HOST}\r\nAccept: application/json\r\n\r\n`
}

export function post(path: string, body: string, type: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: ${HOST}\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
}

function exchange(subjectToken: string, audience = 'k8s'): string {
  const body = new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    subject_token: subjectToken,
    audience,
  }).toString()
  return post('/token', body, 'application/x-www-form-urlencoded')
}

/** The same token, signed by another key of the same kind. */
function signedBy(key: KeyObject, token: string): string {
  const signingInput = token.slice(0, token.lastIndexOf('.'))
  return `${signingInput}.${sign('sha256', Buffer.from(signingInput), key).toString('base64url')}`
}

/**
 * Sends one request as the load will.
 *
 * @throws if the answer is not 200
 */
export async function ask({ port }: Server, request: string): Promise<Answer> {
  const [head, body] = request.split('\r\n\r\n') as [string, string]
  const [line, ...lines] = head.split('\r\n') as [string, ...string[]]
  const [method, path] = line.split(' ') as [string, string]
  const headers = lines.map((entry) => entry.split(': ') as [string, string])
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, ...(body && { body }) })
  const text = await response.text()
  if (response.status !== 200) throw new Error(`${path}: ${response.status} ${text}`)
  return { headers: Object.fromEntries(response.headers), body: text }
}

/** A baseline that sends less than the product would be none. */
async function checkAlike({ name, product, baseline }: Comparison): Promise<void> {
  const [ours, theirs] = await Promise.all(
    [product, baseline].map(async ({ server, requests }) => {
      const { headers, body } = await ask(server, requests[0] ?? '')
      // No two SVIDs are equal, but they are equally long.
      if (name === 'policies') return Object.keys(JSON.parse(body)).join()
      return JSON.stringify([headers, name === 'exchange' ? body.length : body])
    }),
  )
  if (ours !== theirs) throw new Error(`${name}: the answers differ:\n${ours}\n${theirs}`)
}
