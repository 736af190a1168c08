/** `spiffe-edge agent` as a process of its own, and go-spiffe's programs that talk to it. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { type LineProgram, startLineProgram } from './lines.ts'
import { pythonWith } from './python_venv.ts'

export interface AgentProcess {
  readonly pid: number
  readonly socket: string
  /** What it has logged so far, parsed. */
  readonly log: Record<string, unknown>[]
  /** Everything that it has written. */
  readonly output: () => string
  /** @returns its exit code, null where the signal has ended it */
  stop(signal?: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): Promise<number | null>
}

/**
 * @param args behind `spiffe-edge agent`
 * @param env all of it
 * @returns when it listens, or throws what it says instead
 */
export async function startAgentProcess({
  args,
  env = {},
}: {
  args: readonly string[]
  env?: Readonly<Record<string, string>>
}): Promise<AgentProcess> {
  const child: ChildProcess = spawn(process.execPath, ['cli/main.ts', 'agent', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  })
  const log: Record<string, unknown>[] = []
  let output = ''
  child.stdout?.on('data', (chunk) => {
    output += chunk
  })
  const ended = once(child, 'close')
  await new Promise<void>((listening, failed) => {
    const lines = createInterface({ input: child.stderr as NodeJS.ReadableStream })
    lines.on('line', (line) => {
      output += `${line}\n`
      try {
        log.push(JSON.parse(line))
      } catch {
        log.push({ line })
      }
      if (log.at(-1)?.event === 'listening') listening()
    })
    child.once('close', (code) => failed(new Error(`the agent ended with ${code}: ${output}`)))
  })
  return {
    pid: child.pid as number,
    socket: String(log.at(-1)?.socket),
    log,
    output: () => output,
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      const [code] = await ended
      return code
    },
  }
}

/** @returns a program with go-spiffe: test/workload_api/README.md has what it is asked */
export function startWorkloadProgram(socket: string): Promise<LineProgram> {
  return startLineProgram(resolve('build/go/workload-api'), [`unix://${socket}`])
}

/** @returns the same in Python, with the package `spiffe` */
export async function startPythonWorkloadProgram(socket: string): Promise<LineProgram> {
  const python = await pythonWith('spiffe-venv', resolve('test/workload_api/requirements.txt'))
  return startLineProgram(python, [resolve('test/workload_api/spiffe_client.py'), `unix://${socket}`])
}
