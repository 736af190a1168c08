/**
 * HTTP/2's compression of headers: all of it in what we read, none in what we write.
 *
 * @see [RFC 7541](https://www.rfc-editor.org/rfc/rfc7541)
 */

export type Field = readonly [name: string, value: string]

/** Octets that are no header block. */
export class HpackError extends Error {
  override readonly name = 'HpackError'
}

/** What both sides begin with, and we never ask to have changed (RFC 9113 §6.5.2). */
const TABLE_BYTES = 4096
/** Of an entry beyond its texts (§4.1). */
const ENTRY_BYTES = 32
/** Four octets of seven bits: no length or index is as large. */
const MAX_INTEGER_SHIFT = 21

/** Appendix A, from index 1. */
const STATIC_TABLE: readonly Field[] =
  `:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206|\
:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|accept|\
access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|content-language|content-length|\
content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|\
if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|\
server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate`
    .split('|')
    .map((entry) => {
      const [name = '', ...value] = entry.split(' ')
      return [name, value.join(' ')]
    })

/** Reads the header blocks of one connection, in their order. */
export class HpackDecoder {
  /** The newest first. */
  readonly #table: Field[] = []
  #tableBytes = 0
  #limit = TABLE_BYTES

  /** @throws HpackError */
  decode(block: Uint8Array): Field[] {
    const reader = new Reader(block)
    const fields: Field[] = []
    while (!reader.atEnd) {
      const kind = reader.peek()
      if ((kind & 0b1000_0000) !== 0) fields.push(this.#entry(reader.integer(7)))
      else if ((kind & 0b1110_0000) === 0b0010_0000) this.#resize(reader.integer(5))
      else {
        const indexed = (kind & 0b0100_0000) !== 0
        const index = reader.integer(indexed ? 6 : 4)
        const field = [index === 0 ? reader.text() : this.#entry(index)[0], reader.text()] as const
        if (indexed) this.#add(field)
        fields.push(field)
      }
    }
    return fields
  }

  #entry(index: number): Field {
    const entry = STATIC_TABLE[index - 1] ?? this.#table[index - 1 - STATIC_TABLE.length]
    if (!entry) throw new HpackError()
    return entry
  }

  #resize(limit: number): void {
    if (limit > TABLE_BYTES) throw new HpackError()
    this.#limit = limit
    this.#evict()
  }

  #add(field: Field): void {
    this.#table.unshift(field)
    this.#tableBytes += bytesOf(field)
    // One that is larger than the table empties it (§4.4).
    this.#evict()
  }

  #evict(): void {
    while (this.#tableBytes > this.#limit) this.#tableBytes -= bytesOf(this.#table.pop() as Field)
  }
}

/**
 * @returns a header block of literals that no table is to keep (§6.2.2)
 * @throws RangeError for texts of 127 octets and more
 */
export function encodeFields(fields: readonly Field[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.of(0), encodeText(name), encodeText(value)]))
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  if (bytes.length >= 127) throw new RangeError()
  return Buffer.concat([Buffer.of(bytes.length), bytes])
}

function bytesOf([name, value]: Field): number {
  return name.length + value.length + ENTRY_BYTES
}

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  peek(): number {
    const octet = this.#bytes[this.#at]
    if (octet === undefined) throw new HpackError()
    return octet
  }

  /** §5.1, of a prefix of so many bits. */
  integer(bits: number): number {
    const full = (1 << bits) - 1
    let value = this.#next() & full
    if (value < full) return value
    for (let shift = 0; shift <= MAX_INTEGER_SHIFT; shift += 7) {
      const octet = this.#next()
      value += (octet & 0x7f) << shift
      if (octet < 0x80) return value
    }
    throw new HpackError()
  }

  /** §5.2, one character for each octet. */
  text(): string {
    const compressed = this.peek() >= 0x80
    const length = this.integer(7)
    const bytes = this.#bytes.subarray(this.#at, this.#at + length)
    if (bytes.length < length) throw new HpackError()
    this.#at += length
    return Buffer.from(compressed ? decodeHuffman(bytes) : bytes).toString('latin1')
  }

  #next(): number {
    const octet = this.peek()
    this.#at++
    return octet
  }
}

const END_OF_STRING = 256
const MAX_CODE_BITS = 30

/**
 * Appendix B: for each octet, and at last for the end of the string, how many bits its code has, in the digits of `parseInt(…, 36)`. The codes of one length
 * follow each other in the order of the octets, and those of the next length follow them, so that the lengths are enough.
 */
const CODE_BITS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca' +
  'd67777777777777777777777878djde6f56565666577666567655677777fbeds' +
  'kmkkmmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmm' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu'

interface CodesOfLength {
  readonly first: number
  readonly symbols: readonly number[]
}

let codes: readonly CodesOfLength[] | undefined

function makeCodes(): CodesOfLength[] {
  const made: { first: number; symbols: number[] }[] = []
  let next = 0
  for (let bits = 0; bits <= MAX_CODE_BITS; bits++) {
    const symbols = [...CODE_BITS].flatMap((digit, symbol) => (Number.parseInt(digit, 36) === bits ? [symbol] : []))
    made.push({ first: next, symbols })
    next = (next + symbols.length) << 1
  }
  return made
}

function decodeHuffman(bytes: Uint8Array): number[] {
  codes ??= makeCodes()
  const symbols: number[] = []
  let [code, bits] = [0, 0]
  for (const octet of bytes)
    for (let bit = 7; bit >= 0; bit--) {
      code = (code << 1) | ((octet >> bit) & 1)
      bits++
      const ofLength = codes[bits]
      if (!ofLength) throw new HpackError()
      const symbol = ofLength.symbols[code - ofLength.first]
      if (symbol === undefined) continue
      if (symbol === END_OF_STRING) throw new HpackError()
      symbols.push(symbol)
      code = bits = 0
    }
  // What is left over is the beginning of the end of the string, and less than an octet.
  if (bits > 7 || code !== (1 << bits) - 1) throw new HpackError()
  return symbols
}
