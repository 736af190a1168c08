/** The process as a command sees it, and how things are put so that they are safe to look at in a terminal. */

export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdin: AsyncIterable<Uint8Array>
  /** Writes to standard output: the result, and nothing else. */
  print(text: string): void
  /** Writes a line to standard error: messages to whoever is at the keyboard. */
  say(line: string): void
  /** Whether standard input is somebody's keyboard. */
  interactive(): boolean
  /** Milliseconds since the epoch. */
  now(): number
  /** Lets time pass. */
  wait(milliseconds: number): Promise<void>
}

/** What nobody types by hand, and no file of ours needs. */
export const MAX_INPUT_BYTES = 4 * 1024 * 1024

/** Characters that move the cursor, change colours or turn the direction of writing: whoever wrote the text chose them. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** @returns the text with each such character as an escape, on one line */
export function printable(text: string): string {
  return text.replace(UNSAFE, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
}

/** @param time seconds since the epoch, of a year that a calendar holds */
export function formatTime(time: number): string {
  return new Date(time * 1000).toISOString().replace('.000', '')
}

/** @returns columns as wide as their widest cell, the last one as it is */
export function table(rows: readonly (readonly string[])[]): string {
  const safe = rows.map((row) => row.map(printable))
  const widths = safe[0]?.map((_, column) => Math.max(...safe.map((row) => row[column]?.length ?? 0))) ?? []
  return safe
    .map((row) => `${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('   ')}`.trimEnd())
    .map((line) => `${line}\n`)
    .join('')
}

/**
 * @param maxBytes more than this is an error, not cut off
 * @throws RangeError
 */
export async function readStream(stream: AsyncIterable<Uint8Array>, maxBytes = MAX_INPUT_BYTES): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of stream) {
    length += chunk.length
    if (length > maxBytes) throw new RangeError('too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
