/**
 * The part of HCL 1 that SPIRE's configuration is written in: blocks with labels, attributes, strings, numbers, booleans,
 * lists, objects, here-documents and comments. No expressions and no interpolation: `${` stays what it is. docs/adr/0004
 * says why this is ours.
 *
 * @see [HCL 1](https://github.com/hashicorp/hcl/tree/hcl1#syntax)
 */

import { parseJsonObject } from '../../worker/strict_json.ts'

/** A server's configuration is a few kilobytes. */
const MAX_CHARACTERS = 1024 * 1024
/** SPIRE's own go six deep. */
const MAX_DEPTH = 32

export type HclValue = string | number | boolean | null | readonly HclValue[] | HclBody
/** What stands under each name, in order: an attribute once, a block as often as it was written. */
export type HclBody = ReadonlyMap<string, readonly HclValue[]>

/** The message has the line, and nothing of the text. */
export class HclError extends Error {
  override readonly name = 'HclError'
}

/**
 * @param text HCL 1, or the JSON form of it if it begins with a brace
 * @throws HclError
 */
export function parseHcl(text: string): HclBody {
  if (text.length > MAX_CHARACTERS) throw new HclError('too large')
  const source = text.replace(/^\uFEFF/, '')
  if (/^\s*\{/.test(source)) return fromJson(source)
  try {
    return new Parser(source).file()
  } catch (error) {
    // A pattern has run out of memory, over some hundred thousand escapes in one string.
    throw error instanceof HclError ? error : new HclError('cannot be read')
  }
}

export function isBody(value: HclValue): value is HclBody {
  return value instanceof Map
}

function fromJson(text: string): HclBody {
  let object: Record<string, unknown>
  try {
    object = parseJsonObject(text)
  } catch (error) {
    throw new HclError(/repeated/.test((error as Error).message) ? 'a name is there twice' : 'not JSON')
  }
  return convert(object, 0) as HclBody
}

function convert(value: unknown, depth: number): HclValue {
  if (depth > MAX_DEPTH) throw new HclError('nested too deeply')
  if (Array.isArray(value)) return value.map((entry) => convert(entry, depth + 1))
  if (typeof value !== 'object' || value === null) return value as HclValue
  return new Map(Object.entries(value).map(([key, inner]) => [key, [convert(inner, depth + 1)]]))
}

type Token =
  | { readonly type: 'name' | 'string'; readonly text: string }
  | { readonly type: 'number'; readonly value: number }
  | { readonly type: '{' | '}' | '[' | ']' | '=' | ',' | 'end' }

const BLANK = /[ \t\r\n]+|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\//y
const NAME = /[\p{L}_][\p{L}\p{Nd}_.-]*/uy
const NUMBER = /-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/y
const STRING = /"([^"\\\n]*(?:\\.[^"\\\n]*)*)"/y
const HERE_DOCUMENT = /<<(-?)([A-Za-z0-9_]+)\r?\n/y
const PUNCTUATION = /[{}[\]=,]/y
const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '"': '"',
  '\\': '\\',
}

class Parser {
  readonly #text: string
  #at = 0
  #token: Token

  constructor(text: string) {
    this.#text = text
    this.#token = this.#scan()
  }

  file(): HclBody {
    return this.#items('end', 0)
  }

  /** Attributes and blocks as far as `end`, which is taken too. */
  #items(end: '}' | 'end', depth: number): HclBody {
    if (depth > MAX_DEPTH) throw this.#error('nested too deeply')
    const body = new Map<string, HclValue[]>()
    const attributes = new Set<string>()
    while (this.#token.type !== end) {
      const keys = this.#keys()
      const [first = ''] = keys
      let value: HclValue
      if (this.#token.type === '=') {
        if (keys.length > 1) throw this.#error('an attribute with a label')
        this.#next()
        value = this.#value(depth + 1)
      } else if (this.#token.type === '{') {
        this.#next()
        value = this.#items('}', depth + keys.length)
        for (const label of keys.slice(1).reverse()) value = new Map([[label, [value]]])
      } else throw this.#error('neither = nor { after a name')
      const isAttribute = !isBody(value) || keys.length === 1
      if (attributes.has(first) || (isAttribute && body.has(first))) throw this.#error('a name is there twice')
      if (isAttribute) attributes.add(first)
      const values = body.get(first)
      if (values) values.push(value)
      else body.set(first, [value])
      if (end === '}' && this.#is(',')) this.#next()
    }
    if (end === '}') this.#next()
    return body
  }

  #keys(): string[] {
    const keys: string[] = []
    for (let token = this.#token; token.type === 'name' || token.type === 'string'; token = this.#token) {
      keys.push(token.text)
      // A type, and the labels after it: SPIRE's have one.
      if (keys.length > 4) throw this.#error('too many labels')
      this.#next()
    }
    if (keys.length === 0) throw this.#error('a name is missing')
    return keys
  }

  #value(depth: number): HclValue {
    if (depth > MAX_DEPTH) throw this.#error('nested too deeply')
    const token = this.#token
    if (token.type === '{') {
      this.#next()
      return this.#items('}', depth)
    }
    if (token.type === '[') return this.#list(depth)
    this.#next()
    if (token.type === 'string') return token.text
    if (token.type === 'number') return token.value
    if (token.type === 'name' && (token.text === 'true' || token.text === 'false')) return token.text === 'true'
    throw this.#error('not a value')
  }

  #list(depth: number): HclValue[] {
    this.#next()
    const list: HclValue[] = []
    while (this.#token.type !== ']') {
      list.push(this.#value(depth + 1))
      if (this.#is(',')) this.#next()
      else if (!this.#is(']')) throw this.#error('a list without an end')
    }
    this.#next()
    return list
  }

  #is(type: Token['type']): boolean {
    return this.#token.type === type
  }

  #next(): void {
    this.#token = this.#scan()
  }

  #scan(): Token {
    while (this.#match(BLANK)) {}
    if (this.#at >= this.#text.length) return { type: 'end' }
    const name = this.#match(NAME)
    if (name) return { type: 'name', text: name[0] }
    const string = this.#match(STRING)
    if (string) return { type: 'string', text: this.#unescape(string[1] ?? '') }
    const number = this.#match(NUMBER)
    if (number) return { type: 'number', value: Number(number[0]) }
    const punctuation = this.#match(PUNCTUATION)
    if (punctuation) return { type: punctuation[0] as '{' }
    const here = this.#match(HERE_DOCUMENT)
    if (here) return { type: 'string', text: this.#hereDocument(here[2] ?? '', here[1] === '-') }
    throw this.#error('not HCL')
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match) this.#at = pattern.lastIndex
    return match
  }

  #unescape(text: string): string {
    return text.replace(/\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{3}|.)/g, (_, escaped: string) => {
      const known = ESCAPES[escaped]
      if (known !== undefined) return known
      const code = /^[uUx]./.test(escaped) ? Number.parseInt(escaped.slice(1), 16) : Number.parseInt(escaped, 8)
      if (escaped.length < 3 || !(code <= 0x10ffff)) throw this.#error('an unknown escape')
      return String.fromCodePoint(code)
    })
  }

  #hereDocument(marker: string, indented: boolean): string {
    const lines: string[] = []
    for (;;) {
      const end = this.#text.indexOf('\n', this.#at)
      const line = this.#text.slice(this.#at, end === -1 ? undefined : end).replace(/\r$/, '')
      this.#at = end === -1 ? this.#text.length : end + 1
      if (line.trim() === marker) break
      if (end === -1) throw this.#error('a here-document without an end')
      lines.push(`${line}\n`)
    }
    const indents = lines.filter((line) => line.trim() !== '').map((line) => /^[ \t]*/.exec(line)?.[0].length ?? 0)
    const indent = indented ? indents.reduce((least, next) => Math.min(least, next), Number.MAX_SAFE_INTEGER) : 0
    return lines.map((line) => (line.trim() === '' ? '\n' : line.slice(indent))).join('')
  }

  #error(what: string): HclError {
    let line = 1
    for (let index = 0; index < this.#at; index++) if (this.#text[index] === '\n') line++
    return new HclError(`${what}, at line ${line}`)
  }
}
