/**
 * JSON as two parsers would both read it. `JSON.parse` keeps the last of two members with one name and others keep the
 * first, which is how one token comes to mean two things; here such a text is an error.
 *
 * @see [RFC 8259 §4](https://www.rfc-editor.org/rfc/rfc8259#section-4)
 * @see [RFC 7519 §4](https://www.rfc-editor.org/rfc/rfc7519#section-4), which lets a JWT parser refuse duplicate names
 */

/**
 * @param text JSON text whose top level is an object
 * @returns the object
 * @throws SyntaxError if the text is not JSON, not an object, or repeats a member name anywhere
 */
export function parseJsonObject(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError('not a JSON object')
  // What JSON.parse drops without a word is missing in what it returns.
  if (countNames(text) !== countMembers(value)) throw new SyntaxError('a member name is repeated')
  return value as Record<string, unknown>
}

/** @param text what JSON.parse has accepted, so that a string before a colon is a name and nothing else is */
function countNames(text: string): number {
  let names = 0
  let open = text.indexOf('"')
  while (open !== -1) {
    let close = text.indexOf('"', open + 1)
    while (isEscaped(text, close)) close = text.indexOf('"', close + 1)
    let next = close + 1
    while (' \t\n\r'.includes(text[next] ?? '-')) next++
    if (text[next] === ':') names++
    open = text.indexOf('"', close + 1)
  }
  return names
}

/** Without recursion: nesting costs an attacker one byte a level, and us a frame of the stack. */
function countMembers(value: object): number {
  let members = 0
  const open: object[] = [value]
  for (let next = open.pop(); next; next = open.pop()) {
    if (!Array.isArray(next)) members += Object.keys(next).length
    for (const inner of Object.values(next)) if (typeof inner === 'object' && inner !== null) open.push(inner)
  }
  return members
}

/** Whether an odd number of backslashes stands before `at`. */
function isEscaped(text: string, at: number): boolean {
  let before = at
  while (text[before - 1] === '\\') before--
  return (at - before) % 2 === 1
}
