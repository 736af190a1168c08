/** kubekey's page templates: the fields that they use, and nothing that we do not understand. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { renderPage } from '../../../cli/login/page.ts'
import { parseTemplate } from '../../../cli/login/template.ts'
import { Folder } from '../../support/cli.ts'

const fill = (source: string, values: Record<string, string> = { Name: 'Alice', Picture: '' }) =>
  parseTemplate(source, Object.keys(values))?.(values) ?? null

describe('the part of html/template that is understood', () => {
  test.each([
    ['no action', '<p>hello</p>', '<p>hello</p>'],
    ['a field', '<p>{{.Name}}</p>', '<p>Alice</p>'],
    ['with space around it', '<p>{{ .Name }}</p>', '<p>Alice</p>'],
    ['twice', '{{.Name}}, {{.Name}}', 'Alice, Alice'],
    ['white space that is trimmed', '<p> {{- .Name -}} \n </p>', '<p>Alice</p>'],
    ['a comment', 'a{{/* what {.Name} is */}}b', 'ab'],
    ['a choice', '{{if .Name}}yes{{end}}', 'yes'],
    ['the other choice', '{{if .Picture}}<img>{{else}}none{{end}}', 'none'],
    ['a choice within a choice', '{{if .Name}}[{{if .Picture}}a{{else}}b{{end}}]{{else}}c{{end}}', '[b]'],
  ])('%s', (_, source, expected) => {
    expect(fill(source)).toBe(expected)
  })

  test.each([
    ['an unknown field', '{{.Email}}'],
    ['a field of another page', '{{.Msg}}'],
    ['the dot', '{{.}}'],
    ['a field of a field', '{{.Name.First}}'],
    ['a function', '{{printf "%s" .Name}}'],
    ['a pipe', '{{.Name | js}}'],
    ['a variable', '{{$x := .Name}}'],
    ['another template', '{{template "x"}}'],
    ['range', '{{range .Name}}{{end}}'],
    ['else if', '{{if .Name}}{{else if .Picture}}{{end}}'],
    ['no end', '{{if .Name}}x'],
    ['an end too many', 'x{{end}}'],
    ['else twice', '{{if .Name}}{{else}}{{else}}{{end}}'],
    ['an action that does not close', 'x {{.Name'],
    ['a field in a script', '<script>var x = "{{.Name}}"</script>'],
    ['a field in a script that does not close', '<script>{{.Name}}'],
    ['a field in a style', '<style>a { color: {{.Name}} }</style>'],
    ['a field in a comment of HTML', '<!-- {{.Name}} -->'],
    ['a member of every object', '{{.constructor}}'],
  ])('%s is not', (_, source) => {
    expect(fill(source)).toBeNull()
  })

  test.each([
    '<script>alert(1)</script>',
    '" onerror="alert(1)',
    "' onerror='alert(1)",
    'x onerror=alert(1)',
    '&lt;',
    '`$(1)`',
    '{{.Picture}}',
  ])('the name %s is text, in quotes or without', (Name) => {
    const html = fill('<p title={{.Name}}>{{.Name}}</p><a title="{{.Name}}">', { Name, Picture: 'secret' }) ?? ''
    expect(html).not.toMatch(/<script|onerror=|["'] onerror|`|secret/)
    expect(html.match(/&#\d+;/)).not.toBeNull()
  })
})

describe('pages', () => {
  const folder = new Folder()
  afterAll(() => folder.remove())
  const said: string[] = []
  const terminal = (env: Record<string, string> = {}) => ({ env, say: (line: string) => void said.push(line) })
  const OK = { kind: 'ok', name: 'Alice', picture: 'https://p.example.org/1.png' } as const

  test('html_ok.tmpl and html_fail.tmpl, from the first folder that has them, that of kubekey’s variable before all', () => {
    for (const name of ['first', 'second', 'kubekey']) {
      folder.write(`${name} ok {{.Name}} {{.Picture}}`, `${name}/html_ok.tmpl`)
      folder.write(`${name} fail {{.Msg}}`, `${name}/html_fail.tmpl`)
    }
    const folders = ['none', 'first', 'second'].map((name) => join(folder.path, name))
    expect(renderPage(OK, terminal(), folders)).toBe('first ok Alice https://p.example.org/1.png')
    expect(renderPage({ kind: 'fail', message: 'no' }, terminal(), folders)).toBe('first fail no')
    const env = { KUBEKEY_TEMPLATEDIR: join(folder.path, 'kubekey') }
    expect(renderPage(OK, terminal(env), folders)).toMatch(/^kubekey ok/)
    expect(said).toEqual([])
  })

  test.each(['javascript:alert(1)', 'data:text/html,x', 'http://p.example.org/1.png', '//p.example.org', ''])(
    'a picture at %s is left out',
    (picture) => {
      folder.write('[{{.Picture}}]', 'picture/html_ok.tmpl')
      expect(renderPage({ ...OK, picture }, terminal(), [join(folder.path, 'picture')])).toBe('[]')
    },
  )

  test.each([
    ['is not understood', '{{range .Name}}{{end}}'],
    ['is too large', 'x'.repeat(300_000)],
  ])('one that %s is replaced by our own page, and that is said', (_, source) => {
    const path = folder.write(source, 'odd/html_ok.tmpl')
    said.length = 0
    expect(renderPage(OK, terminal(), [join(folder.path, 'odd')])).toContain('logged')
    expect(said).toEqual([expect.stringContaining(path)])
  })

  test('a folder in the place of a template', () => {
    folder.write('', 'strange/html_ok.tmpl/file')
    expect(renderPage(OK, terminal(), [join(folder.path, 'strange')])).toContain('logged')
  })

  test('templates of the folder that somebody happens to be in are not looked at', () => {
    const before = process.cwd()
    writeFileSync(join(folder.path, 'x'), '')
    folder.write('mine', 'templates/html_ok.tmpl')
    process.chdir(folder.path)
    try {
      expect(renderPage(OK, terminal())).not.toBe('mine')
    } finally {
      process.chdir(before)
    }
  })

  test('our own page has the name as text', () => {
    const html = renderPage({ ...OK, name: '<b>"Eve"</b>' }, terminal(), [])
    expect(html).not.toContain('<b>')
    expect(html).toContain('Eve')
  })
})
