/**
 * A kubeconfig, as far as this program uses one: an API server, how it is known, and who is asking. What cannot be
 * honoured is refused, never passed over.
 *
 * @see [kubeconfig (v1)](https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/)
 */

import { dirname, resolve } from 'node:path'
import { isRecord } from '../admin_client.ts'
import { Failure } from '../failure.ts'
import { readInput } from '../input_file.ts'
import { parseDocuments } from '../objects/manifest_file.ts'
import { type Answer, requestBytes, requestJson, type Tls } from '../request.ts'
import { printable, type Terminal } from '../terminal.ts'

const MAX_BYTES = 1024 * 1024
/** All that an API server of thousands of nodes counts. */
const MAX_METRICS_BYTES = 128 * 1024 * 1024
/** What a cluster entry may hold, whether or not we need it. */
const CLUSTER_FIELDS = ['server', 'certificate-authority', 'certificate-authority-data', 'tls-server-name']
const USER_FIELDS = [
  'client-certificate',
  'client-certificate-data',
  'client-key',
  'client-key-data',
  'token',
  'tokenFile',
]
/** Good to know, and without effect here. */
const HARMLESS_FIELDS = ['extensions', 'disable-compression']

/** Why a field is refused, and what to do, where there is more to say than that we do not know it. */
const REFUSED: Readonly<Record<string, string>> = {
  'insecure-skip-tls-verify': 'whoever is in between could give other keys. Put the CA into certificate-authority-data',
  'proxy-url': 'no proxy is spoken to. Run this where the API server can be reached',
  exec: 'no program is run for a credential. Run `kubectl proxy`, and give a kubeconfig with server: http://127.0.0.1:8001',
  'auth-provider': 'Kubernetes itself knows it no more. Use a client certificate or a token',
  username: 'Kubernetes itself knows it no more. Use a client certificate or a token',
  as: 'nobody is impersonated. Use a credential of that user',
}

type Fields = Readonly<Record<string, unknown>>

/** An API server, and a way in. */
export interface KubeApi {
  /** Without a slash at the end. */
  readonly server: string
  readonly context: string
  /**
   * @returns the object of a 200 or 201 answer
   * @throws Failure
   */
  ask(path: string, body?: object): Promise<Readonly<Record<string, unknown>>>
  /**
   * @returns what a Prometheus would read
   * @throws Failure
   */
  metrics(): Promise<string>
  /**
   * Asks as somebody else: with this bearer, and without anything that the kubeconfig says of its user, since a client
   * certificate goes before a token.
   *
   * @returns the answer, whatever its status
   * @throws Failure
   */
  askAs(bearer: string, path: string, body: object): Promise<Answer>
}

/**
 * @param context the current one if there is no other
 * @throws Failure
 */
export async function openKubeconfig(path: string, context: string | undefined, terminal: Terminal): Promise<KubeApi> {
  const file = printable(path)
  const fail = (problem: string) => new Failure(`${file}: ${problem}`)
  const [document, ...others] = parseDocuments(await readInput(path, terminal, MAX_BYTES), file)
  if (others.length > 0 || !isRecord(document?.value)) throw fail('is no kubeconfig')
  const config = document.value
  const contextName = context ?? config['current-context']
  if (typeof contextName !== 'string' || contextName === '') throw fail('has no current-context: give --context')
  const { cluster: clusterName, user: userName } = named(config, 'contexts', 'context', contextName, fail)
  const cluster = named(config, 'clusters', 'cluster', clusterName, fail)
  const user = userName === undefined || userName === '' ? {} : named(config, 'users', 'user', userName, fail)
  // An insecure-skip-tls-verify that is false says what is so anyway.
  checkFields(cluster, CLUSTER_FIELDS, 'cluster', fail)
  checkFields(user, USER_FIELDS, 'user', fail)

  const folder = path === '-' ? '.' : dirname(path)
  /** @returns the text of `<field>-data` or of the file that `<field>` names */
  const material = async (fields: Fields, field: string): Promise<string | undefined> => {
    const data = fields[`${field}-data`]
    if (data !== undefined && data !== '') {
      if (typeof data !== 'string') throw fail(`${field}-data: is no text`)
      return Buffer.from(data, 'base64').toString('utf8')
    }
    const name = fields[field]
    if (name === undefined || name === '') return undefined
    if (typeof name !== 'string') throw fail(`${field}: is no text`)
    return readInput(resolve(folder, name), terminal, MAX_BYTES)
  }
  const server = serverOf(cluster.server, fail)
  const [ca, cert, key] = [
    await material(cluster, 'certificate-authority'),
    await material(user, 'client-certificate'),
    await material(user, 'client-key'),
  ]
  if ((cert === undefined) !== (key === undefined))
    throw fail('a client certificate needs its key, and a key its certificate')
  const bearer = await bearerOf(user, folder, terminal, fail)
  if (server.startsWith('http:') && (cert ?? bearer) !== undefined)
    throw fail('a credential is not sent over http. For `kubectl proxy`, use a context without user')
  const servername = cluster['tls-server-name']
  const serverTls: Tls = {
    ...(ca !== undefined && { ca }),
    ...(typeof servername === 'string' && servername !== '' && { servername }),
  }
  const tls: Tls = { ...serverTls, ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) }
  const own = { tls, ...(bearer !== undefined && { bearer }) }
  return {
    server,
    context: contextName,
    async ask(path, body) {
      const options = { ...own, ...(body && { method: 'POST', body }) }
      return objectOf(await requestJson(`${server}${path}`, server, options), `${server}${path}`)
    },
    async metrics() {
      const url = `${server}/metrics`
      const { status, bytes } = await requestBytes(url, server, { ...own, maxBytes: MAX_METRICS_BYTES }, 'text/plain')
      checkStatus(status, url)
      return bytes.toString('utf8')
    },
    askAs: (bearer, path, body) =>
      requestJson(`${server}${path}`, server, { tls: serverTls, bearer, method: 'POST', body }),
  }
}

function objectOf({ status, body }: Answer, url: string): Readonly<Record<string, unknown>> {
  checkStatus(status, url)
  if (!body) throw new Failure(`${url}: the answer is no JSON object`)
  return body
}

function checkStatus(status: number, url: string): void {
  if (status === 401) throw new Failure(`${url}: the API server does not know who this is (401)`)
  if (status === 403) throw new Failure(`${url}: the user of this context may not (403)`)
  if (status !== 200 && status !== 201) throw new Failure(`${url}: the API server answers ${status}`)
}

async function bearerOf(
  { token, tokenFile }: Fields,
  folder: string,
  terminal: Terminal,
  fail: (problem: string) => Failure,
): Promise<string | undefined> {
  // As kubectl has it: the file is the fresher one.
  let text: unknown = token
  if (tokenFile !== undefined && tokenFile !== '') {
    if (typeof tokenFile !== 'string') throw fail('tokenFile: is no text')
    text = (await readInput(resolve(folder, tokenFile), terminal, 64 * 1024)).trim()
  }
  if (text === undefined || text === '') return undefined
  if (typeof text !== 'string' || !/^[\x21-\x7e]+$/.test(text)) throw fail('the token has characters that no token has')
  return text
}

function serverOf(server: unknown, fail: (problem: string) => Failure): string {
  if (typeof server !== 'string' || !URL.canParse(server)) throw fail('the cluster has no server')
  const url = new URL(server)
  const loopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && loopback)) throw fail('server: is not https')
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw fail('server: has user information, a query or a fragment')
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`
}

function named(config: Fields, list: string, field: string, name: unknown, fail: (problem: string) => Failure): Fields {
  const entries = config[list]
  const found = Array.isArray(entries) ? entries.filter((entry) => isRecord(entry) && entry.name === name) : []
  if (typeof name !== 'string' || found.length === 0)
    throw fail(`has no ${field} ${printable(String(name ?? ''))}`.trim())
  // kubectl takes the first, others the last.
  if (found.length > 1) throw fail(`has the ${field} ${printable(name)} twice`)
  const value = found[0][field]
  if (!isRecord(value)) throw fail(`the ${field} ${printable(name)} is empty`)
  return value
}

function checkFields(fields: Fields, known: readonly string[], of: string, fail: (problem: string) => Failure): void {
  for (const [field, value] of Object.entries(fields)) {
    if (known.includes(field) || HARMLESS_FIELDS.includes(field) || value === false || value === '' || value === null)
      continue
    const why = Object.hasOwn(REFUSED, field) ? REFUSED[field] : 'no such field is known'
    throw fail(`${of}: ${printable(field)}: ${why}`)
  }
}
