/** `POST /svid/x509`: a subject token and a CSR in, an X.509-SVID for the CSR's key out. */

import { certificatesPem } from '../../keys/pem.ts'
import { Decision, type Log } from '../audit.ts'
import { type IssueDeps, type IssuedX509Svid, issueX509, type X509IssueRequest } from '../issue.ts'
import { Refusal } from '../refusal.ts'
import { readBearer } from './read_bearer.ts'
import { readJson } from './read_body.ts'
import { decodeCsr, readCsrKey } from './read_csr.ts'
import { jsonResponse, oauthError } from './respond.ts'

const MEMBERS: readonly string[] = ['csr', 'spiffe_id']

/**
 * @returns 200 with the SVID, or an error of the same form as the token endpoint's. Either way one line is in the log.
 */
export async function certifyKey(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('svid_x509', deps.now())
  try {
    return shape(await issueX509(await readCertification(request), deps, decision))
  } catch (error) {
    return oauthError(decision.refused(error), decision.id)
  } finally {
    await decision.write(deps.log)
  }
}

/** @throws Refusal */
async function readCertification(request: Request): Promise<X509IssueRequest> {
  const subjectToken = readBearer(request)
  if (subjectToken === null) throw new Refusal('bearer_missing', 'no bearer token')
  const body = await readJson(request)
  if (Object.keys(body).some((name) => !MEMBERS.includes(name)))
    throw new Refusal('json_malformed', 'a member that is none of ours')
  const { spiffe_id: spiffeId = null } = body
  if (spiffeId !== null && typeof spiffeId !== 'string')
    throw new Refusal('json_malformed', 'a spiffe_id that is no text')
  const csr = decodeCsr(body.csr)
  return { door: 'svid_x509', subjectToken, spiffeId, publicKey: () => readCsrKey(csr) }
}

function shape({ chain, bundle, federated, expiresAt, grant: { spiffeId, hint } }: IssuedX509Svid): Response {
  return jsonResponse({
    spiffe_id: spiffeId.toString(),
    x509_svid: certificatesPem(chain),
    bundle: certificatesPem(bundle),
    ...(federated.size > 0 && {
      federated_bundles: Object.fromEntries(
        [...federated].map(([name, authorities]) => [name, certificatesPem(authorities)]),
      ),
    }),
    expires_at: expiresAt,
    ...(hint !== null && { hint }),
  })
}
