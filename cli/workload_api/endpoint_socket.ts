/**
 * The address of a SPIFFE Workload API.
 *
 * @see [SPIFFE Workload Endpoint §4](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_Endpoint.md#4-locating-the-endpoint)
 */

import { isIP } from 'node:net'
import { UsageError } from '../failure.ts'
import { printable } from '../terminal.ts'

/** As `net.connect` takes it. */
export type EndpointSocket = { readonly path: string } | { readonly host: string; readonly port: number }

const TCP = /^tcp:\/\/(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/

/**
 * @param name of the option or variable, for the message
 * @param uri `unix:///absolute/path` or `tcp://<IP address>:<port>` and nothing more; `unix:/absolute/path` is the same (WA-4)
 * @throws UsageError
 */
export function parseEndpointSocket(name: string, uri: string): EndpointSocket {
  const socket = uri.startsWith('unix:') ? parseUnix(uri) : parseTcp(uri)
  if (!socket)
    throw new UsageError(`${name}: ${printable(uri)} is neither unix:///path/to/socket nor tcp://<IP address>:<port>`)
  return socket
}

function parseUnix(uri: string): EndpointSocket | null {
  const path = uri.replace(/^unix:(?:\/\/)?/, '')
  // A query or a fragment may not be there, and of an escape nobody knows whether it is one.
  return /^\/[^?#%\0]+$/.test(path) && !path.startsWith('//') ? { path } : null
}

function parseTcp(uri: string): EndpointSocket | null {
  const [, v6, v4, digits] = TCP.exec(uri) ?? []
  const host = v6 ?? v4 ?? ''
  const port = Number(digits)
  const family = v6 === undefined ? 4 : 6
  return isIP(host) === family && port > 0 && port < 65_536 ? { host, port } : null
}
