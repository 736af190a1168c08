/** Opening the person's browser. */

import { spawn } from 'node:child_process'
import type { Terminal } from '../terminal.ts'

/** What a browser, and what it starts in its turn, has no business with. */
const NOT_FOR_CHILDREN = ['CLIENT_SECRET', 'KUBERNETES_EXEC_INFO']

/**
 * Does not wait for it: a browser that was not running before is that process until it is closed.
 *
 * @param url can be read by everybody on this machine, in the list of processes
 * @param onFailure is called if it turns out that nothing was opened
 */
export function openBrowser(url: string, env: Terminal['env'], onFailure: () => void): void {
  const [command, ...args] = opener(url, env)
  const inherited = Object.entries(env).filter(([name]) => !NOT_FOR_CHILDREN.includes(name))
  try {
    const child = spawn(command, args, {
      env: Object.fromEntries(inherited),
      // Neither our output, which kubectl reads to its end, nor our group, which Ctrl-C ends.
      stdio: 'ignore',
      detached: true,
      windowsHide: true,
    })
    child.once('error', onFailure).once('exit', (code) => {
      if (code !== 0) onFailure()
    })
    child.unref()
  } catch {
    onFailure()
  }
}

function opener(url: string, { BROWSER: chosen }: Terminal['env']): [string, ...string[]] {
  // A list, says xdg-open's manual, with %s for the URL; nothing in it is for a shell.
  const [command, ...args] = (chosen ?? '').split(':')[0]?.trim().split(/\s+/) ?? []
  if (command) {
    const filled = args.map((arg) => arg.replaceAll('%s', url))
    return [command, ...filled, ...(args.some((arg) => arg.includes('%s')) ? [] : [url])]
  }
  if (process.platform === 'darwin') return ['open', url]
  if (process.platform === 'win32') return ['rundll32', 'url.dll,FileProtocolHandler', url]
  return ['xdg-open', url]
}
