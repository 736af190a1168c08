/**
 * `POST /attest/k8s_psat`: SPIRE's node attestation over HTTP. Attestation data and a CSR in; the agent's ID and the node's
 * selectors out. What is left out is the challenge, which this attestor never makes.
 *
 * @see PS-3, PS-4
 */

import { CsrError, readCsr } from '../../keys/csr.ts'
import { attestNode, type K8sPsat } from '../attest/k8s_psat.ts'
import { Decision, type Log } from '../audit.ts'
import type { IssueDeps } from '../issue.ts'
import { Refusal } from '../refusal.ts'
import { readJson } from './read_body.ts'
import { jsonResponse, nodeAttestationError } from './respond.ts'

/**
 * @returns 200 with who the agent is, or an error of the same form as the token endpoint's. Either way one line is in the log.
 */
export async function attestK8sPsat(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('k8s_psat', deps.now())
  try {
    const { psat, csr } = readAttestation(await readJson(request))
    decision.presented(psat.token)
    const { attestors, policy } = await deps.policyRing.current()
    const { attestation, agentId } = await attestNode(psat, attestors.serviceAccounts, policy.trustDomain, deps.now())
    decision.attested(attestation)
    policy.bans.check(attestation, agentId)
    // Only now: who is no node does not get to feed a parser (PS-6).
    await checkCsr(csr)
    decision.agent(agentId)
    return jsonResponse({
      agent_id: agentId.toString(),
      selectors: [...attestation.selectors],
      // SPIRE's word for it: come again when it is over, nothing is renewed (PS-9).
      reattestable: true,
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
  const { payload, csr } = body
  if (typeof csr !== 'string' || csr === '') throw new Refusal('csr_missing', 'no csr')
  if (payload === undefined || payload === null) throw new Refusal('attestation_payload_missing', 'no payload')
  if (typeof payload !== 'object' || Array.isArray(payload))
    throw new Refusal('attestation_payload_malformed', 'not an object')
  const { cluster, token } = payload as Readonly<Record<string, unknown>>
  for (const member of [cluster, token])
    if (member !== undefined && typeof member !== 'string')
      throw new Refusal('attestation_payload_malformed', 'a member that is no text')
  if (!cluster) throw new Refusal('attestation_cluster_missing', 'no cluster')
  if (!token) throw new Refusal('attestation_token_missing', 'no token')
  return { psat: { cluster: cluster as string, token: token as string }, csr: decode(csr) }
}

function decode(csr: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.fromBase64(csr, { lastChunkHandling: 'strict' })
  } catch {
    throw new Refusal('csr_invalid', 'not base64')
  }
}

async function checkCsr(csr: Uint8Array<ArrayBuffer>): Promise<void> {
  try {
    await readCsr(csr)
  } catch (error) {
    if (!(error instanceof CsrError)) throw error
    throw new Refusal('csr_invalid', error.message)
  }
}
