/** What the browser shows in the end: our own pages, or those that an operator has put onto the machine, as kubekey has them. */

import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { printable, type Terminal } from '../terminal.ts'
import { escapeHtml, parseTemplate, type Values } from './template.ts'

/** Not `./templates`, where kubekey looks too: whoever wrote the files of the folder that somebody happens to be in is not to write in our name. */
const FOLDERS = ['/etc/spiffe-edge', '/etc/kubekey', '/usr/local/share/kubekey', '/usr/share/kubekey']
const MAX_TEMPLATE_BYTES = 256 * 1024

export type Page =
  | { readonly kind: 'ok'; readonly name: string; readonly picture: string }
  | { readonly kind: 'fail'; readonly message: string }

/** Nothing is run, nothing is sent, and nothing knows where it came from: the URL of the page has the code in it. */
export const PAGE_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy':
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
} as const

/** @param folders are looked into behind that of KUBEKEY_TEMPLATEDIR */
export function renderPage(page: Page, { env, say }: Pick<Terminal, 'env' | 'say'>, folders = FOLDERS): string {
  const name = page.kind === 'ok' ? 'html_ok.tmpl' : 'html_fail.tmpl'
  const values: Values =
    page.kind === 'ok'
      ? // What is no such URL is left out: a browser knows other schemes.
        { Name: page.name, Picture: /^https:\/\//i.test(page.picture) ? page.picture : '' }
      : { Msg: page.message }
  for (const folder of [...(env.KUBEKEY_TEMPLATEDIR ? [env.KUBEKEY_TEMPLATEDIR] : []), ...folders]) {
    const path = join(folder, name)
    const source = readTemplate(path)
    if (source === null) continue
    const filled = source === false ? null : parseTemplate(source, Object.keys(values))?.(values)
    if (typeof filled === 'string') return filled
    say(`${printable(path)}: not used, for there is something in it that is not understood`)
    break
  }
  return page.kind === 'ok'
    ? ownPage('You are logged in', page.name === '' ? '' : `as ${page.name}`)
    : ownPage('The login has failed', page.message)
}

/** @returns null if there is none, false if it is none */
function readTemplate(path: string): string | null | false {
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? null : false
  }
  try {
    const stat = fstatSync(file)
    return stat.isFile() && stat.size <= MAX_TEMPLATE_BYTES ? readFileSync(file, 'utf8') : false
  } catch {
    return false
  } finally {
    closeSync(file)
  }
}

export function ownPage(title: string, text: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto 0; padding: 0 1rem; color-scheme: light dark; }
h1 { font-size: 1.5rem; }
</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
${text === '' ? '' : `<p>${escapeHtml(text)}</p>\n`}<p>You can close this window and go back to where you came from.</p>
</body>
</html>
`
}
