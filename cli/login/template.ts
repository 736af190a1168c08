/**
 * The part of Go's html/template that pages of this kind are made of: a field, a choice by a field, a comment. Values are put in so that they
 * are text wherever text or an attribute is expected, with quotes around it or not.
 *
 * @see [text/template](https://pkg.go.dev/text/template)
 */

type Part =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'field'; readonly name: string }
  | {
      readonly kind: 'if'
      readonly name: string
      readonly filled: readonly Part[]
      readonly otherwise: readonly Part[]
    }

/** Text within these means something else than what is written, so no value may stand there. */
const CODE = /<(script|style)\b[\s\S]*?(?:<\/\1|$)/gi
const COMMENT_OF_HTML = /<!--[\s\S]*?(?:-->|$)/g
const ACTION = /\{\{(-\s)?([\s\S]*?)(\s-)?\}\}/g

/**
 * @param fields those that there are
 * @returns what fills it in; null if there is something in it that we do not understand
 */
export function parseTemplate(source: string, fields: readonly string[]): ((values: Values) => string) | null {
  for (const pattern of [CODE, COMMENT_OF_HTML])
    if ([...source.matchAll(pattern)].some(([found]) => found.includes('{{'))) return null
  const root: Part[] = []
  const open: { part: { name: string; filled: Part[]; otherwise: Part[] }; inElse: boolean }[] = []
  const into = () => {
    const top = open.at(-1)
    return top ? (top.inElse ? top.part.otherwise : top.part.filled) : root
  }
  let at = 0
  let trim = false
  const addText = (text: string, trimEnd: boolean) => {
    const started = trim ? text.trimStart() : text
    into().push({ kind: 'text', text: trimEnd ? started.trimEnd() : started })
  }
  for (const match of source.matchAll(ACTION)) {
    const [all, before, inner = '', after] = match
    addText(source.slice(at, match.index), before !== undefined)
    at = match.index + all.length
    trim = after !== undefined
    const action = inner.trim()
    const [, verb, name = ''] = /^(?:(if)\s+)?\.([A-Za-z]\w*)$/.exec(action) ?? []
    if (name) {
      if (!fields.includes(name)) return null
      if (!verb) into().push({ kind: 'field', name })
      else {
        const part = { kind: 'if' as const, name, filled: [], otherwise: [] }
        into().push(part)
        open.push({ part, inElse: false })
      }
    } else if (action === 'else') {
      const top = open.at(-1)
      if (!top || top.inElse) return null
      top.inElse = true
    } else if (action === 'end') {
      if (!open.pop()) return null
    } else if (!/^\/\*[\s\S]*\*\/$/.test(action)) return null
  }
  const rest = source.slice(at)
  if (open.length > 0 || rest.includes('{{')) return null
  addText(rest, false)
  return (values) => fill(root, values)
}

/** By the name of the field. */
export type Values = Readonly<Record<string, string>>

function fill(parts: readonly Part[], values: Values): string {
  return parts
    .map((part) => {
      if (part.kind === 'text') return part.text
      const value = values[part.name] ?? ''
      if (part.kind === 'field') return escapeHtml(value)
      return fill(value === '' ? part.otherwise : part.filled, values)
    })
    .join('')
}

/** White space too, so that an attribute without quotes does not end. */
export function escapeHtml(text: string): string {
  return text.replace(/[^\p{L}\p{N}.,:/_-]/gu, (character) => `&#${character.codePointAt(0)};`)
}
