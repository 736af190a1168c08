/** URLs that an operator gives us to fetch from or to be found at. */

/**
 * @param text compared and used as it stands, so it must already be in the form that a URL parser would give it
 * @param allowLoopbackHttp whether http is good for this machine's own loopback addresses: in development only
 * @param mayHaveQuery whether it is used whole, and nothing is ever put behind it
 * @returns what is wrong with it as an endpoint, or null
 * @see [OpenID Connect Discovery §4](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig)
 */
export function endpointUrlProblem(text: string, allowLoopbackHttp: boolean, mayHaveQuery = false): string | null {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    return 'not a URL'
  }
  if (url.protocol === 'http:') {
    if (!allowLoopbackHttp || !isLoopback(url.hostname)) return 'not https'
  } else if (url.protocol !== 'https:') return 'not https'
  if (url.username !== '' || url.password !== '' || text.includes('@')) return 'has user information'
  if (!mayHaveQuery && text.includes('?')) return 'has a query'
  if (text.includes('#')) return 'has a fragment'
  // `https://host` gains a slash when parsed; nothing else may change.
  if (url.href !== text && url.href !== `${text}/`) return 'not in its normal form'
  return null
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname)
}
