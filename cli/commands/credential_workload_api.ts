/**
 * `spiffe-edge credential workload-api`: a JWT-SVID from the SPIFFE Workload API of this machine, which is a SPIRE agent's, ours
 * (`spiffe-edge agent`), or anybody's. It does what k8s-spiffe-workload-jwt-exec-auth does, under its variables.
 */

import { lstatSync } from 'node:fs'
import { dirname } from 'node:path'
import { audienceOf, credentialCommand, DEFAULT_TIMEOUT_SECONDS, SVID_OPTIONS } from '../credential.ts'
import { execCredential, readExecInfo } from '../exec_credential.ts'
import { Failure } from '../failure.ts'
import { isMadeOutTo, readJwtSvid } from '../jwt_svid.ts'
import { NotYet, parseTimeout, patiently } from '../patience.ts'
import { printable, type Terminal } from '../terminal.ts'
import { type EndpointSocket, parseEndpointSocket } from '../workload_api/endpoint_socket.ts'
import { type FetchedJwtSvid, fetchJwtSvids, STATUS, WorkloadApiError } from '../workload_api/fetch_jwt_svid.ts'

/** Where SPIRE's agent is if nobody has said otherwise. */
const DEFAULT_SOCKET = '/tmp/spire-agent/public/api.sock'

const MAX_LISTED = 10

const OPTIONS = {
  socket: {
    type: 'string',
    value: 'uri',
    description: `unix:///path or tcp://<IP address>:<port> (or SPIFFE_ENDPOINT_SOCKET; unix://${DEFAULT_SOCKET})`,
  },
  hint: { type: 'string', value: 'hint', description: 'which identity, by the hint that it comes with' },
  ...SVID_OPTIONS,
} as const

interface Wanted {
  readonly audience: readonly string[]
  readonly spiffeId: string | undefined
  readonly hint: string | undefined
}

export const workloadApi = credentialCommand(
  'from the SPIFFE Workload API of this machine',
  OPTIONS,
  async (values, terminal) => {
    const info = readExecInfo(terminal)
    const { hint, 'spiffe-id': spiffeId } = values
    const wanted = { audience: audienceOf(values.audience, info, terminal), spiffeId, hint }
    const timeoutSeconds = parseTimeout(values.timeout ?? DEFAULT_TIMEOUT_SECONDS)
    const { SPIFFE_ENDPOINT_SOCKET: variable } = terminal.env
    const uri = values.socket ?? (variable || `unix://${DEFAULT_SOCKET}`)
    const socket = parseEndpointSocket(values.socket === undefined ? 'SPIFFE_ENDPOINT_SOCKET' : '--socket', uri)
    const byDefault = values.socket === undefined && !variable
    const fetch = async (timeoutMs: number) => {
      if (byDefault) checkDefaultSocket()
      return fetchOne(socket, uri, wanted, timeoutMs, terminal)
    }
    const { svid, expiresAt } = await patiently(fetch, timeoutSeconds, terminal)
    terminal.print(execCredential(info, { token: svid, expiresAt }, terminal.now() / 1000))
  },
)

/**
 * Anybody may put something into /tmp, and would then choose who we are. What is there and belongs to root stays.
 *
 * @throws NotYet, Failure
 */
function checkDefaultSocket(): void {
  for (const path of [dirname(dirname(DEFAULT_SOCKET)), dirname(DEFAULT_SOCKET), DEFAULT_SOCKET]) {
    const uid = ownerOf(path)
    if (uid === null) throw new NotYet(`the Workload API at unix://${DEFAULT_SOCKET}: is not there`)
    if (uid !== 0 && uid !== process.getuid?.())
      throw new Failure(`${path} belongs to somebody else: if it is meant, set SPIFFE_ENDPOINT_SOCKET`)
  }
}

function ownerOf(path: string): number | null {
  try {
    // Three look-ups, for which `node:fs/promises` would be loaded.
    return lstatSync(path).uid
  } catch {
    return null
  }
}

/** @throws NotYet, Failure */
async function fetchOne(
  socket: EndpointSocket,
  uri: string,
  wanted: Wanted,
  timeoutMs: number,
  terminal: Terminal,
): Promise<{ svid: string; expiresAt: number }> {
  const { audience, spiffeId, hint } = wanted
  let svids: FetchedJwtSvid[]
  try {
    svids = await fetchJwtSvids(socket, audience, spiffeId ?? '', timeoutMs)
  } catch (error) {
    if (error instanceof WorkloadApiError) throw failure(error, uri)
    throw error
  }
  // A server that gives several may know no spiffe_id in the request, and of one hint the first one counts (WA-8).
  const chosen = svids.find(
    (one) => (spiffeId === undefined || one.spiffeId === spiffeId) && (hint === undefined || one.hint === hint),
  )
  if (!chosen && svids.length > 0 && hint !== undefined)
    throw new Failure(
      `the Workload API has no identity with that hint, but: ${svids.slice(0, MAX_LISTED).map(describe).join(', ')}`,
    )
  const claims = chosen ? readJwtSvid(chosen.svid) : null
  // WA-7: such an answer is reported, and dropped.
  if (!chosen || !claims || claims.spiffeId !== chosen.spiffeId || !isMadeOutTo(claims.audience, audience))
    throw new Failure('the Workload API answers with something that is not the JWT-SVID that was asked for')
  // WA-15: a server may have had it for a while.
  if (claims.expiresAt <= terminal.now() / 1000) throw new NotYet('the Workload API answers with an expired JWT-SVID')
  return { svid: chosen.svid, expiresAt: claims.expiresAt }
}

function describe({ spiffeId, hint }: FetchedJwtSvid): string {
  return printable(hint === '' ? spiffeId : `${spiffeId} (${hint})`)
}

/** WA-5: what there is no sense in repeating, and what may be otherwise in a moment. */
const LASTING: ReadonlySet<number> = new Set([STATUS.invalidArgument, STATUS.unimplemented, STATUS.internal])

function failure({ status, message }: WorkloadApiError, uri: string): Failure {
  const said = `the Workload API at ${printable(uri)}: ${message}`
  if (LASTING.has(status)) return new Failure(said)
  return new NotYet(status === STATUS.permissionDenied ? `${said} (is this workload registered?)` : said)
}
