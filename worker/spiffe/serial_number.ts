import { INTEGER, readElement, SEQUENCE } from '../../keys/der.ts'

/** `[0]`, explicit: the version, which every certificate of ours says. */
const VERSION_TAG = 0xa0

/**
 * @param certificate of ours, DER
 * @returns its serial number in lower-case hex
 * @see [RFC 5280 §4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2)
 */
export function serialNumberOf(certificate: Uint8Array<ArrayBuffer>): string {
  const tbs = readElement(readElement(certificate, SEQUENCE).contents, SEQUENCE).contents
  return readElement(readElement(tbs, VERSION_TAG).rest, INTEGER).contents.toHex()
}
