/** Every route on one screen. */

import { type Context, Hono } from 'hono'
import type { Log } from './audit.ts'
import type { Config } from './config.ts'
import type { IssueDeps } from './issue.ts'
import { PATHS } from './oidc/discovery.ts'
import { preflight, servePublicDocument } from './oidc/public_document.ts'
import { Refusal } from './refusal.ts'
import { type AdminDeps, getObjects, getRevocations, postApply } from './routes/admin.ts'
import { type AdminFederationDeps, getFederation, postBundle, postRefresh } from './routes/admin_federation.ts'
import { type AdminKeysDeps, getKeys, postRevoke, postRotate } from './routes/admin_keys.ts'
import { giveBundles } from './routes/bundles.ts'
import { attestK8sPsat } from './routes/k8s_psat.ts'
import { giveSvidWithKey } from './routes/kubespiffe.ts'
import { adminError, methodNotAllowed, plainError } from './routes/respond.ts'
import { structuredAuth } from './routes/structured_auth.ts'
import { certifyKey } from './routes/svid_x509.ts'
import { exchangeToken } from './routes/token.ts'
import { serveVault } from './routes/vault.ts'
import type { VaultDeps } from './routes/vault_call.ts'
import type { PublishedDocuments } from './state/key_ring.ts'

/** What the routes need. Built once per isolate. */
export interface AppDeps extends IssueDeps, AdminDeps, AdminKeysDeps, AdminFederationDeps, VaultDeps {
  readonly config: Config
  log: Log
}

/** What answers requests. */
export interface App {
  fetch(request: Request): Response | Promise<Response>
}

export function createApp(deps: AppDeps): App {
  const app = new Hono()
  // Other methods are told apart in notFound: with one handler for a route, hono has no chain of them to walk.
  const allow = new Map<string, string>()
  const read = (path: string, handler: (context: Context) => Response | Promise<Response>) => {
    app.get(path, handler)
    app.options(path, preflight)
    allow.set(path, 'GET, HEAD, OPTIONS')
  }
  const post = (path: string, handler: (context: Context) => Promise<Response>) => {
    app.post(path, handler)
    allow.set(path, 'POST')
  }
  const at = (path: string) => deps.config.basePath + path

  read(at(PATHS.discovery), async ({ req }) => servePublicDocument(req.raw, (await deps.keyRing.published()).discovery))
  read(at(PATHS.jwks), async ({ req }) => servePublicDocument(req.raw, (await deps.keyRing.published()).jwks))
  read(at(PATHS.bundle), async ({ req }) => servePublicDocument(req.raw, (await deps.keyRing.published()).bundle))
  read(at(PATHS.structuredAuth), async ({ req }) =>
    structuredAuth(req.raw, deps.issuer, (await deps.policyRing.current()).policy),
  )
  post(at(PATHS.token), ({ req }) => exchangeToken(req.raw, deps))
  post(at(PATHS.svidX509), ({ req }) => certifyKey(req.raw, deps))
  app.get(at(PATHS.bundles), ({ req }) => giveBundles(req.raw, deps))
  allow.set(at(PATHS.bundles), 'GET, HEAD')
  // A HEAD would cost a key and a signature, and give nothing.
  app.get(at(PATHS.kubespiffe), ({ req }) =>
    req.method === 'HEAD' ? methodNotAllowed('GET') : giveSvidWithKey(req.raw, deps),
  )
  app.all(at(PATHS.kubespiffe), () => methodNotAllowed('GET'))
  // Administrators see why: what they send is theirs.
  const administer = async (answer: Promise<Response>) => {
    try {
      return await answer
    } catch (error) {
      if (error instanceof Refusal) return adminError(error)
      throw error
    }
  }
  for (const [path, handler] of [
    [PATHS.adminObjects, getObjects],
    [PATHS.adminKeys, getKeys],
    [PATHS.adminFederation, getFederation],
  ] as const) {
    app.get(at(path), ({ req }) => administer(handler(req.raw, deps)))
    allow.set(at(path), 'GET, HEAD')
  }
  app.get(at(PATHS.adminRevocations), ({ req }) =>
    administer(getRevocations(req.raw, req.param('cluster') ?? '', deps)),
  )
  app.all(at(PATHS.adminRevocations), () => methodNotAllowed('GET, HEAD'))
  post(at(PATHS.adminApply), ({ req }) => administer(postApply(req.raw, deps)))
  post(at(PATHS.adminRotate), ({ req }) => administer(postRotate(req.raw, deps)))
  post(at(PATHS.adminRevoke), ({ req }) => administer(postRevoke(req.raw, deps)))
  post(at(PATHS.adminBundle), ({ req }) => administer(postBundle(req.raw, deps)))
  post(at(PATHS.adminRefresh), ({ req }) => administer(postRefresh(req.raw, deps)))
  post(at(PATHS.nodeAttestation), ({ req }) => attestK8sPsat(req.raw, deps))
  // Where there is no secret for its tokens, there is nothing of Vault's here.
  if (deps.tokenSecret)
    app.all(at(`${PATHS.vault}/*`), ({ req }) => serveVault(req.raw, req.path.slice(at(PATHS.vault).length + 1), deps))
  // Answers as long as the process does; ready means that the signing keys are known.
  app.get('/healthz', (context) => context.text('ok\n'))
  app.get('/readyz', async (context) => {
    await deps.keyRing.signer(null)
    return context.text('ok\n')
  })

  app.notFound(({ req }) => {
    const methods = allow.get(req.path)
    if (methods) return methodNotAllowed(methods)
    return new Response('not found\n', { status: 404, headers: { 'cache-control': 'no-store' } })
  })
  app.onError((error) => {
    const refusal = error instanceof Refusal ? error : new Refusal('internal', error.name)
    deps.log({ event: 'request_failed', reason: refusal.reason, detail: refusal.detail })
    return plainError(refusal)
  })

  const documents = new Map<string, keyof PublishedDocuments>([
    [at(PATHS.discovery), 'discovery'],
    [at(PATHS.jwks), 'jwks'],
    [at(PATHS.bundle), 'bundle'],
  ])
  return {
    fetch(request) {
      // What every verifier polls: going through the router would cost a third more (bench/README.md).
      const name = request.method === 'GET' ? documents.get(pathOf(request.url)) : undefined
      const fresh = name && deps.keyRing.fresh
      return fresh ? servePublicDocument(request, fresh[name]) : app.fetch(request)
    },
  }
}

/** Whatever host it is said to be on (D8). A path with a query is another one, and for the router to judge. */
function pathOf(url: string): string {
  return url.slice(url.indexOf('/', url.indexOf('://') + 3))
}
