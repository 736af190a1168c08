/** The least that a worker can do for a public document: one body and one set of headers, whatever is asked. */

import { env } from 'cloudflare:workers'

const { BODY, HEADERS } = env as unknown as { readonly BODY: string; readonly HEADERS: string }
const body = new TextEncoder().encode(BODY)
const headers = new Headers(JSON.parse(HEADERS))

export default {
  fetch: () => new Response(body, { headers }),
} satisfies ExportedHandler
