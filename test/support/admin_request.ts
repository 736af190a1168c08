/** The admin API without the command line, for what a command would not do, or not so. */

import { keyFile, readAdminKey, signAdminToken } from '../../cli/admin_key.ts'
import { type Answer, send } from './exchange.ts'

/**
 * @param key the file that `spiffe-edge admin create` has made
 * @param path below `/admin/v1/`
 */
export async function askAsAdmin(issuer: string, key: string, path: string, body: object, ca: string): Promise<Answer> {
  const token = await signAdminToken(await readAdminKey(keyFile(key), issuer), Math.floor(Date.now() / 1000))
  return send(`${issuer}/admin/v1/${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ca,
  })
}
