/**
 * The textual encoding of keys and certificates.
 *
 * @see [RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)
 */

type Label = 'CERTIFICATE' | 'CERTIFICATE REQUEST' | 'PRIVATE KEY' | 'PUBLIC KEY'

const LINE = /.{1,64}/g

/** @returns DER as PEM, with a newline at its end */
export function pem(label: Label, der: Uint8Array): string {
  const lines = der.toBase64().match(LINE) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** @returns certificates one behind another, as servers and verifiers read them */
export function certificatesPem(certificates: readonly Uint8Array[]): string {
  return certificates.map((certificate) => pem('CERTIFICATE', certificate)).join('')
}

/**
 * @param text one PEM block and nothing else, but perhaps newlines at its end
 * @returns what stands in it: base64, perhaps in lines; null if it is no such block
 */
export function pemContents(text: string, label: Label): string | null {
  // Of two parts next to each other no character fits both, so the time it takes grows with the text and no faster.
  const block = new RegExp(`^-----BEGIN ${label}-----[\\r\\n]([A-Za-z0-9+/=\\r\\n]+)-----END ${label}-----[\\r\\n]*$`)
  return block.exec(text)?.[1] ?? null
}
