/**
 * A no in Vault's own words, for what is wrong with a request itself. It is about what the caller has sent, and holds no
 * secret of it; what is decided about who is asking is a Refusal.
 */
export class VaultError extends Error {
  override readonly name = 'VaultError'
  readonly status: 400 | 403 | 404 | 405 | 409 | 413 | 500

  /** For the log: what of the message the caller has written themselves may be a secret in the wrong place. */
  readonly detail: string

  constructor(status: VaultError['status'], message: string, detail = message) {
    super(message)
    this.status = status
    this.detail = detail
  }
}

/** As Vault shows errors that none of its mounts has shaped. */
export function wrapped(text: string): string {
  return `1 error occurred:\n\t* ${text}\n\n`
}
