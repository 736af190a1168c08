#!/usr/bin/env node
/**
 * A person with a browser, without the browser: follows redirects, keeps cookies, and fills in the forms that it is shown. As a program it is
 * for BROWSER, and its environment says who it is (PERSON) and where it notes what it has seen (PERSON_LOG, a line for each page).
 */

import { appendFileSync } from 'node:fs'

const MAX_STEPS = 30

export interface Seen {
  readonly status: number
  readonly url: string
  readonly text: string
  readonly headers: Headers
}

/**
 * @param until ends at this URL, without visiting it
 * @returns the last page, or an empty one at `until`
 */
export async function visit(url: string, name: string, until: (url: URL) => boolean = () => false): Promise<Seen> {
  const cookies = new Map<string, string>()
  let request: { url: string; body?: URLSearchParams } = { url }
  for (let step = 0; step < MAX_STEPS; step++) {
    if (until(new URL(request.url))) return { status: 0, url: request.url, text: '', headers: new Headers() }
    const response = await fetch(request.url, {
      redirect: 'manual',
      method: request.body ? 'POST' : 'GET',
      headers: { cookie: [...cookies].map(([key, value]) => `${key}=${value}`).join('; ') },
      ...(request.body && { body: request.body }),
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, key = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(key, value)
    }
    const location = response.headers.get('location')
    const text = await response.text()
    const form = /<form([^>]*)>([\s\S]*?)<\/form>/.exec(text)
    if (location) request = { url: new URL(location, request.url).href }
    else if (form) request = fillIn(form, request.url, name)
    else return { status: response.status, url: request.url, text, headers: response.headers }
  }
  throw new Error('this goes on for ever')
}

function fillIn([, attributes = '', content = '']: RegExpExecArray, at: string, name: string) {
  const action = /action="([^"]*)"/.exec(attributes)?.[1] ?? at
  const body = new URLSearchParams()
  for (const [input] of content.matchAll(/<(?:input|button)[^>]*>/g)) {
    const key = /name="([^"]*)"/.exec(input)?.[1]
    const value = /value="([^"]*)"/.exec(input)?.[1]
    if (key === 'login') body.set(key, name)
    else if (key && key !== 'abort') body.set(key, value ?? '')
  }
  return { url: new URL(action.replaceAll('&amp;', '&'), at).href, body }
}

if (import.meta.main) {
  const { PERSON = 'alice', PERSON_LOG } = process.env
  const note = (line: string) => PERSON_LOG && appendFileSync(PERSON_LOG, `${line}\n`)
  note(`opened ${process.argv[2]}`)
  if (PERSON !== 'nobody')
    await visit(process.argv[2] ?? '', PERSON).then(
      ({ status, text }) => note(`saw ${status} ${text.replace(/\s+/g, ' ')}`),
      (error) => note(`failed ${error}`),
    )
}
