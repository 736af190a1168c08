/**
 * @returns where a request came from, as the platform says, and never as the client does; null where it does not say (T-23)
 */
export function clientAddress(request: Request): string | null {
  const cf = request.cf as { clientIp?: unknown; colo?: unknown } | undefined
  // Plain workerd: address and port of the connection.
  if (typeof cf?.clientIp === 'string')
    return /^(?:\[(.+)\]|([^:]+)):\d+$/.exec(cf.clientIp)?.slice(1).find(Boolean) ?? null
  // At the edge the header is the platform's, which lets nobody else set it. Elsewhere it is anybody's.
  return typeof cf?.colo === 'string' ? request.headers.get('cf-connecting-ip') : null
}
