/**
 * `POST /attest/k8s_psat`: SPIRE's node attestation over HTTP. Attestation data and a CSR in; the agent's ID, the node's
 * selectors and, where there is a certificate authority, the agent's SVID out. What is left out is the challenge, which
 * this attestor never makes.
 *
 * @see PS-3, PS-4
 */

import { certificatesPem } from '../../keys/pem.ts'
import type { K8sPsat } from '../attest/k8s_psat.ts'
import { Decision, type Log } from '../audit.ts'
import { type IssueDeps, issueAgentX509 } from '../issue.ts'
import { Refusal } from '../refusal.ts'
import { readJson } from './read_body.ts'
import { decodeCsr, readCsrKey } from './read_csr.ts'
import { jsonResponse, nodeAttestationError } from './respond.ts'

/**
 * @returns 200 with who the agent is, or an error of the same form as the token endpoint's. Either way one line is in the log.
 */
export async function attestK8sPsat(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('k8s_psat', deps.now())
  try {
    const { psat, csr } = readAttestation(await readJson(request))
    const { agentId, selectors, issued } = await issueAgentX509(psat, () => readCsrKey(csr), deps, decision)
    return jsonResponse({
      agent_id: agentId.toString(),
      selectors: [...selectors],
      // SPIRE's word for it: come again when it is over, nothing is renewed (PS-9).
      reattestable: true,
      ...(issued && {
        x509_svid: certificatesPem(issued.chain),
        bundle: certificatesPem(issued.bundle),
        expires_at: issued.expiresAt,
      }),
    })
  } catch (error) {
    return nodeAttestationError(decision.refused(error), decision.id)
  } finally {
    await decision.write(deps.log)
  }
}

/**
 * @throws Refusal
 * @see PS-5, PS-6
 */
function readAttestation(body: Readonly<Record<string, unknown>>): { psat: K8sPsat; csr: Uint8Array<ArrayBuffer> } {
  const unknown = Object.keys(body).find((name) => name !== 'payload' && name !== 'csr')
  if (unknown !== undefined) throw new Refusal('json_malformed', 'a member that is none of ours')
  const { payload } = body
  const csr = decodeCsr(body.csr)
  if (payload === undefined || payload === null) throw new Refusal('attestation_payload_missing', 'no payload')
  if (typeof payload !== 'object' || Array.isArray(payload))
    throw new Refusal('attestation_payload_malformed', 'not an object')
  const { cluster, token } = payload as Readonly<Record<string, unknown>>
  for (const member of [cluster, token])
    if (member !== undefined && typeof member !== 'string')
      throw new Refusal('attestation_payload_malformed', 'a member that is no text')
  if (!cluster) throw new Refusal('attestation_cluster_missing', 'no cluster')
  if (!token) throw new Refusal('attestation_token_missing', 'no token')
  return { psat: { cluster: cluster as string, token: token as string }, csr }
}
