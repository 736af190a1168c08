/** Finds private keys in octets: by how keys look, however they are encoded, and by what a known one is. */

/** From the version of the structure on. Public keys have the same identifiers, but no version before them. */
const DER: Readonly<Record<string, RegExp>> = {
  'PKCS 8 of an EC key (RFC 5958)': /020100(?:3013|3010)06072a8648ce3d0201/,
  'PKCS 8 of an RSA key (RFC 5958)': /020100300d06092a864886f70d010101/,
  'ECPrivateKey (RFC 5915)': /020101(?:0420.{64}|0430.{96}|0442.{132})a[01]/,
  'RSAPrivateKey (RFC 8017)': /020100028(?:18|20)[12].{256,1026}?0203010001028/,
}

const TEXT: Readonly<Record<string, RegExp>> = {
  'JWK with a private member': /"d\\*"\s*:\s*\\*"[\w-]{20}/,
  // As structured cloning has it: the name with its length, then the tag of a text, its length, and the text.
  'JWK as V8 serializes it': /"\cAd"[\s\S]{1,2}[\w-]{20}/,
  PEM: /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/,
}

/** Shorter than the 43 characters of a private scalar. */
const BASE64_RUN = /[\w+/-]{40,}/g
const HEX_RUN = /[0-9a-fA-F]{60,}/g

/** @returns what is there that looks like a private key, in words; nothing for most octets */
export function privateKeysIn(octets: Buffer): string[] {
  const found = texts(octets).flatMap((text) => Object.keys(TEXT).filter((name) => TEXT[name]?.test(text)))
  for (const view of views(octets)) {
    const hex = view.toString('hex')
    found.push(...Object.keys(DER).filter((name) => DER[name]?.test(hex)))
  }
  return [...new Set(found)]
}

/** @returns whether the secret is in there, as it stands or in base64, base64url or hexadecimal */
export function isIn(octets: Buffer, secret: Buffer): boolean {
  return views(octets).some((view) => view.includes(secret))
}

/** As one octet for each character, and as two. */
function texts(octets: Buffer): string[] {
  // Node 24 writes beyond its memory for an odd number of octets that begin at an odd address: whole characters only.
  const shifted = octets.subarray(1, octets.length - ((octets.length + 1) % 2))
  return [octets.toString('latin1'), octets.toString('utf16le'), shifted.toString('utf16le')]
}

/** The octets themselves, and whatever they may be the encoding of, at any alignment. */
function views(octets: Buffer): Buffer[] {
  const decoded = (text: string) => [
    ...(text.match(BASE64_RUN) ?? []).flatMap((run) => [0, 1, 2, 3].map((at) => Buffer.from(run.slice(at), 'base64'))),
    ...(text.match(HEX_RUN) ?? []).flatMap((run) => [0, 1].map((at) => Buffer.from(run.slice(at), 'hex'))),
  ]
  return [octets, ...texts(octets).flatMap(decoded)]
}
