/**
 * The little of DER that certificates of ours are made of, and a reader that takes nothing else for it.
 *
 * Of what others have encoded, only the outside is read with it: where in a request or certificate the key, the names, the
 * times and the signature stand. What is inside of those is read by who knows it: WebCrypto, or a library.
 *
 * @see [X.690](https://www.itu.int/rec/T-REC-X.690) §8 and §10
 */

export const INTEGER = 0x02
export const BIT_STRING = 0x03
export const OCTET_STRING = 0x04
export const SEQUENCE = 0x30
const OBJECT_IDENTIFIER = 0x06
const PRINTABLE_STRING = 0x13
const UTC_TIME = 0x17
const GENERALIZED_TIME = 0x18
const SET = 0x31

export const TRUE = Uint8Array.of(0x01, 0x01, 0xff)
export const NULL = Uint8Array.of(0x05, 0x00)

/** Last second of the year 9999, which is all that four digits can say. */
const END_OF_TIME = 253_402_300_799
/** `2050-01-01T00:00:00Z`, from when on two digits mean a year of the 1900s (RFC 5280 §4.1.2.5). */
const END_OF_UTC_TIME = 2_524_608_000

/** One element: tag, length, and the contents one after another. */
export function element(tag: number, ...contents: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let size = 0
  for (const { length } of contents) size += length
  const header = size < 0x80 ? [tag, size] : [tag, 0x80 | octetsOf(size).length, ...octetsOf(size)]
  const der = new Uint8Array(header.length + size)
  der.set(header)
  let at = header.length
  for (const part of contents) {
    der.set(part, at)
    at += part.length
  }
  return der
}

export function sequence(...contents: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return element(SEQUENCE, ...contents)
}

export function setOf(content: Uint8Array): Uint8Array<ArrayBuffer> {
  return element(SET, content)
}

/** `[number]`, explicit. */
export function explicit(number: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  return element(0xa0 | number, content)
}

/** @param magnitude big-endian, of a number that is not negative; zeros in front do not matter */
export function integer(magnitude: Uint8Array): Uint8Array<ArrayBuffer> {
  const first = magnitude.findIndex((octet) => octet !== 0)
  const shortest = first === -1 ? Uint8Array.of(0) : magnitude.subarray(first)
  return (shortest[0] ?? 0) < 0x80 ? element(INTEGER, shortest) : element(INTEGER, Uint8Array.of(0), shortest)
}

/** @param octets all of whose bits count */
export function bitString(octets: Uint8Array): Uint8Array<ArrayBuffer> {
  return element(BIT_STRING, Uint8Array.of(0), octets)
}

/** @param dotted at least two numbers, each below 2³¹ */
export function objectIdentifier(dotted: string): Uint8Array<ArrayBuffer> {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  return element(OBJECT_IDENTIFIER, Uint8Array.from([40 * first + second, ...rest].flatMap(base128)))
}

/** @param text of the characters that a PrintableString may have: the caller knows */
export function printableString(text: string): Uint8Array<ArrayBuffer> {
  return element(PRINTABLE_STRING, ascii(text))
}

/**
 * @param seconds since the epoch
 * @returns UTCTime before 2050, GeneralizedTime from then on
 * @throws RangeError if it is not a whole number of seconds between 1970 and 9999
 * @see [RFC 5280 §4.1.2.5](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5)
 */
export function time(seconds: number): Uint8Array<ArrayBuffer> {
  if (!Number.isInteger(seconds) || seconds < 0 || seconds > END_OF_TIME)
    throw new RangeError('a time that a certificate cannot say')
  const digits = `${new Date(1000 * seconds).toISOString().slice(0, 19).replace(/\D/g, '')}Z`
  return seconds < END_OF_UTC_TIME
    ? element(UTC_TIME, ascii(digits.slice(2)))
    : element(GENERALIZED_TIME, ascii(digits))
}

/** @param text all of whose characters are below U+0080 */
export function ascii(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text) as Uint8Array<ArrayBuffer>
}

/** Where an element has been found. All three are views of what was read. */
export interface Element {
  /** Tag, length and contents. */
  readonly whole: Uint8Array<ArrayBuffer>
  readonly contents: Uint8Array<ArrayBuffer>
  /** What comes behind the element. */
  readonly rest: Uint8Array<ArrayBuffer>
}

/**
 * @param der begins with an element that has this tag of one octet
 * @throws TypeError if it does not, or if its length is not the shortest definite one, or says more than there is
 */
export function readElement(der: Uint8Array<ArrayBuffer>, tag: number): Element {
  const [first, short = Number.NaN] = der
  const lengthOctets = short < 0x80 ? 0 : short & 0x7f
  const start = 2 + lengthOctets
  // Three octets are enough for 16 MiB. An indefinite length (0x80) says zero, and is not the shortest for it.
  const length = short < 0x80 ? short : der.subarray(2, start).reduce((sum, octet) => 256 * sum + octet, 0)
  const shortest =
    lengthOctets === 0 ? short < 0x80 : lengthOctets <= 3 && length >= Math.max(0x80, 256 ** (lengthOctets - 1))
  // NaN, where the text ends too soon, fails the comparison.
  if (first !== tag || !shortest || !(start + length <= der.length))
    throw new TypeError('not the DER that it should be')
  const end = start + length
  return { whole: der.subarray(0, end), contents: der.subarray(start, end), rest: der.subarray(end) }
}

/**
 * The reverse of {@link time}, for what that has made.
 *
 * @param der begins with a UTCTime or a GeneralizedTime
 * @returns seconds since the epoch, and what comes behind the element
 * @throws TypeError if the text is no time in the form that {@link time} gives it
 */
export function readTime(der: Uint8Array<ArrayBuffer>): { seconds: number; rest: Uint8Array<ArrayBuffer> } {
  const utc = der[0] === UTC_TIME
  const { contents, rest } = readElement(der, utc ? UTC_TIME : GENERALIZED_TIME)
  const text = new TextDecoder().decode(contents)
  const digits = utc ? (text < '50' ? '20' : '19') + text : text
  const iso = digits.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z')
  const seconds = Date.parse(iso) / 1000
  if (iso === digits || Number.isNaN(seconds)) throw new TypeError('not a time')
  return { seconds, rest }
}

/** Whether two encodings are one. Of what is public: it takes as long as they are alike. */
export function isSame(a: ArrayBuffer | Uint8Array, b: ArrayBuffer | Uint8Array): boolean {
  const [these, those] = [new Uint8Array(a), new Uint8Array(b)]
  return these.length === those.length && these.every((octet, index) => octet === those[index])
}

/** @returns big-endian, without zeros in front */
function octetsOf(value: number): number[] {
  return value < 0x100 ? [value] : [...octetsOf(Math.floor(value / 0x100)), value % 0x100]
}

function base128(value: number): number[] {
  const octets = [value % 0x80]
  for (let rest = Math.floor(value / 0x80); rest > 0; rest = Math.floor(rest / 0x80))
    octets.unshift(0x80 | (rest % 0x80))
  return octets
}
