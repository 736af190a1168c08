/** A workload as it is at the door for X.509-SVIDs, with the files that other programs read its SVID and bundles from. */

import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeCsrWithKey } from './csr.ts'
import { type Answer, send } from './exchange.ts'

/** What `POST /svid/x509` answers. */
export interface X509Answer {
  readonly spiffe_id: string
  readonly x509_svid: string
  readonly bundle: string
  readonly federated_bundles?: Readonly<Record<string, string>>
  readonly expires_at: number
}

export interface Certified {
  readonly answer: X509Answer
  /** PKCS #8 in PEM. */
  readonly key: string
}

/** @param options `ca` is the PEM certificate that the issuer's must chain to */
export async function askForX509Svid(
  issuer: string,
  subjectToken: string,
  options: { ca?: string } = {},
): Promise<Answer & { readonly key: string }> {
  const { csr, key } = await makeCsrWithKey()
  const answer = await send(`${issuer}/svid/x509`, {
    method: 'POST',
    headers: { authorization: `Bearer ${subjectToken}`, 'content-type': 'application/json' },
    body: JSON.stringify({ csr }),
    ...options,
  })
  return { ...answer, key }
}

/** @returns an SVID with its key, or throws what the issuer says instead */
export async function certify(issuer: string, subjectToken: string, options: { ca?: string } = {}): Promise<Certified> {
  const { status, text, key } = await askForX509Svid(issuer, subjectToken, options)
  if (status !== 200) throw new Error(`${status} ${text}`)
  return { answer: JSON.parse(text) as X509Answer, key }
}

/** A folder with `svid.pem`, `key.pem` and `bundles/<trust domain>.pem`. */
export class WorkloadFiles {
  readonly folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-workload-'))

  /** All of it is replaced: a bundle that the issuer gives no more is gone. */
  write({ answer, key }: Certified): void {
    writeFileSync(join(this.folder, 'svid.pem'), answer.x509_svid)
    writeFileSync(join(this.folder, 'key.pem'), key)
    const [current, next] = [join(this.folder, 'bundles'), join(this.folder, 'bundles.new')]
    mkdirSync(next)
    const bundles = { ...answer.federated_bundles, [new URL(answer.spiffe_id).hostname]: answer.bundle }
    for (const [name, bundle] of Object.entries(bundles)) writeFileSync(join(next, `${name}.pem`), bundle)
    rmSync(current, { recursive: true, force: true })
    renameSync(next, current)
  }

  remove(): void {
    rmSync(this.folder, { recursive: true })
  }
}
