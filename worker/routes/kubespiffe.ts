/** `GET /v1/svid`: the one route of kubespiffe. A pod's token in; an X.509-SVID, with a private key that is made here, out. */

import { certificatesPem, pem } from '../../keys/pem.ts'
import { Decision, type Log } from '../audit.ts'
import { type IssueDeps, issueX509 } from '../issue.ts'
import { Refusal } from '../refusal.ts'
import { readBearer } from './read_bearer.ts'
import { jsonResponse, kubespiffeError } from './respond.ts'

/** As kubespiffe's. */
const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' }

/**
 * @returns 200 with three members, each base64 of PEM, or an error. Either way one line is in the log.
 */
export async function giveSvidWithKey(request: Request, deps: IssueDeps & { log: Log }): Promise<Response> {
  const decision = new Decision('kubespiffe', deps.now())
  try {
    const subjectToken = readBearer(request)
    if (subjectToken === null) throw new Refusal('bearer_missing', 'no bearer token')
    // The key is in this one answer and nowhere else (T-22).
    let privateKey = new ArrayBuffer()
    const publicKey = async () => {
      const pair = (await crypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify'])) as CryptoKeyPair
      privateKey = (await crypto.subtle.exportKey('pkcs8', pair.privateKey)) as ArrayBuffer
      return (await crypto.subtle.exportKey('spki', pair.publicKey)) as ArrayBuffer
    }
    const asked = { door: 'kubespiffe', subjectToken, spiffeId: null, publicKey } as const
    const { chain, bundle } = await issueX509(asked, deps, decision)
    return jsonResponse({
      x509_svid: btoa(certificatesPem(chain)),
      x509_svid_key: btoa(pem('PRIVATE KEY', new Uint8Array(privateKey))),
      bundle: btoa(certificatesPem(bundle)),
    })
  } catch (error) {
    return kubespiffeError(decision.refused(error), decision.id)
  } finally {
    await decision.write(deps.log)
  }
}
