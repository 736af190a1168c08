/**
 * A real Chromium for one test file, driven over its debugging protocol, and the command by which a program opens a page in it, as it would open
 * one in a person's browser that is running already.
 */

import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'

/** `scripts/get_browser.mjs` has put it there where the machine has none. */
const UNPACKED = 'build/browser'

export interface TestBrowser {
  /** For BROWSER. Its process notes its own arguments and environment. */
  readonly command: string
  /** What the processes have noted. */
  processes(): { readonly argv: readonly string[]; readonly env: Readonly<Record<string, string>> }[]
  /** The next page that is opened. */
  next(): Promise<Page>
  /** How many were. */
  opened(): number
  stop(): Promise<void>
}

export async function startBrowser(): Promise<TestBrowser> {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-browser-'))
  const browser: Browser = await chromium.launch({
    executablePath: existsSync(UNPACKED) ? resolve(UNPACKED, 'usr/lib/chromium/chromium') : '/usr/bin/chromium',
    // Its sandbox needs rights that a container's root does not have. It sees pages of this test alone.
    args: ['--no-sandbox'],
    env: {
      PATH: process.env.PATH ?? '',
      HOME: folder,
      LD_LIBRARY_PATH: globSync(resolve(UNPACKED, 'usr/lib/*-linux-*{,/pulseaudio}')).join(':'),
    },
  })
  const context: BrowserContext = await browser.newContext({ ignoreHTTPSErrors: true })
  const waiting: ((page: Page) => void)[] = []
  const pages: Page[] = []
  let opened = 0
  const server: Server = createServer(async (request, response) => {
    const url = new URL(request.url ?? '', 'http://localhost').searchParams.get('url') ?? ''
    opened++
    const page = await context.newPage()
    response.end()
    // The program that has opened it may be gone before it is there.
    await page.goto(url).catch(() => {})
    const waiter = waiting.shift()
    if (waiter) waiter(page)
    else pages.push(page)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const notes = join(folder, 'notes')
  const { port } = server.address() as AddressInfo
  return {
    command: `${process.execPath} ${resolve('test/support/open_in_browser.mjs')} ${port} ${notes}`,
    processes: () =>
      existsSync(notes)
        ? readFileSync(notes, 'utf8')
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line))
        : [],
    next: () => {
      const page = pages.shift()
      return page ? Promise.resolve(page) : new Promise((done) => waiting.push(done))
    },
    opened: () => opened,
    async stop() {
      await browser.close()
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
      rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
    },
  }
}

/** Types the name into the provider's page, and waits for where the login ends. */
export async function logInAs(name: string, page: Page): Promise<string> {
  await page.fill('input[name=login]', name)
  await page.click('button[type=submit]')
  await page.waitForURL(/\/callback\?/)
  return (await page.textContent('body')) ?? ''
}
