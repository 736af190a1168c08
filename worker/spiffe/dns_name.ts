/**
 * Names of hosts that may stand in a certificate: lower-case letters, digits and hyphens, no wildcard. One whose last label is a
 * number could be taken for an address (RFC 1123 §2.1).
 */
export const DNS_NAME =
  /^(?!(?:.*\.)?[0-9]+$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/
/** In characters (RFC 1035 §2.3.4, without the octets of the wire format). */
export const MAX_DNS_NAME_LENGTH = 253
