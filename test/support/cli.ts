/** `spiffe-edge` as a test runs it: in this process, with streams and an environment of the test's own. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { main } from '../../cli/main.ts'

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * @param env nothing of this process's own environment is seen
 * @param wait what happens while a command waits: its clock is moved on, and no time passes
 */
export async function cli(
  argv: readonly string[],
  {
    env = {},
    stdin = '',
    wait = () => {},
  }: { env?: Record<string, string>; stdin?: string; wait?: (milliseconds: number) => void | Promise<void> } = {},
): Promise<Outcome> {
  let stdout = ''
  let stderr = ''
  let waited = 0
  const code = await main(argv, {
    env,
    stdin: (async function* () {
      yield Buffer.from(stdin)
    })(),
    print(text) {
      stdout += text
    },
    say(line) {
      stderr += `${line}\n`
    },
    interactive: () => false,
    now: () => Date.now() + waited,
    async wait(milliseconds) {
      waited += milliseconds
      await wait(milliseconds)
    },
  })
  return { code, stdout, stderr }
}

/**
 * The same as a process of its own, in which time passes.
 *
 * @param ca a file with the certificate that the worker's must chain to
 */
export async function cliProcess(argv: readonly string[], ca: string): Promise<Outcome> {
  const child = spawn(process.execPath, ['cli/main.ts', ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { NODE_EXTRA_CA_CERTS: ca },
  })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const [code] = await once(child, 'close')
  return { code, stdout, stderr }
}

/** A folder for the files of one test file. */
export class Folder {
  readonly path = mkdtempSync(join(tmpdir(), 'spiffe-edge-cli-'))
  #count = 0

  /** @returns the path of a new file */
  write(content: string | object, name = `file-${this.#count++}`, mode = 0o644): string {
    const path = join(this.path, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content), { mode })
    return path
  }

  remove(): void {
    rmSync(this.path, { recursive: true })
  }
}
