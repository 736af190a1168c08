/**
 * JSON as two parsers would both read it. `JSON.parse` keeps the last of two members with one name and others keep the
 * first, which is how one token comes to mean two things; here such a text is an error.
 *
 * @see [RFC 8259 §4](https://www.rfc-editor.org/rfc/rfc8259#section-4)
 * @see [RFC 7519 §4](https://www.rfc-editor.org/rfc/rfc7519#section-4), which lets a JWT parser refuse duplicate names
 */

/** A string, or one of the characters that give JSON its structure. Everything between them is a number or a word. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],]/g

/**
 * @param text JSON text whose top level is an object
 * @returns the object
 * @throws SyntaxError if the text is not JSON, not an object, or repeats a member name anywhere
 */
export function parseJsonObject(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError('not a JSON object')
  refuseRepeatedNames(text)
  return value as Record<string, unknown>
}

/** `text` has already been accepted by `JSON.parse`, so a string right after `{`, or after `,` in an object, is a name. */
function refuseRepeatedNames(text: string): void {
  const open: (Set<string> | null)[] = []
  let nameMayFollow = false
  for (const [token] of text.matchAll(TOKEN)) {
    const names = open.at(-1)
    if (token === '{') {
      open.push(new Set())
      nameMayFollow = true
    } else if (token === '[') {
      open.push(null)
      nameMayFollow = false
    } else if (token === '}' || token === ']') {
      open.pop()
      nameMayFollow = false
    } else if (token === ',') {
      nameMayFollow = names instanceof Set
    } else if (nameMayFollow && names) {
      // `"a"` and `"\u0061"` are one name.
      const name: string = token.includes('\\') ? JSON.parse(token) : token.slice(1, -1)
      if (names.has(name)) throw new SyntaxError('a member name is repeated')
      names.add(name)
      nameMayFollow = false
    }
  }
}
