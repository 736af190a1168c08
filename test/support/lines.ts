/** Talks to a program that answers each line on its standard input with one line of JSON on its standard output. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

export interface LineProgram {
  /** The line that said that it is ready. */
  readonly ready: Record<string, unknown>
  /** @returns the answers, in the order of the questions */
  ask(questions: readonly unknown[]): Promise<Record<string, unknown>[]>
  /** Lets it stand still, or go on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
  stop(): Promise<void>
}

/**
 * @param env all that it has for one, in place of ours
 * @returns when the program has printed its first line
 */
export async function startLineProgram(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<LineProgram> {
  const child: ChildProcess = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env })
  let complaints = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const waiting: { resolve(line: Record<string, unknown>): void; reject(error: Error): void }[] = []
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  lines.on('line', (line) => waiting.shift()?.resolve(JSON.parse(line)))
  const ended = new Promise<void>((resolve) => {
    child.once('exit', (code) => {
      for (const { reject } of waiting.splice(0))
        reject(new Error(`${command} ended with ${code}: ${complaints.slice(-2000)}`))
      resolve()
    })
  })
  const next = () => new Promise<Record<string, unknown>>((resolve, reject) => waiting.push({ resolve, reject }))
  const ready = await next()
  return {
    ready,
    ask(questions) {
      const answers = questions.map(next)
      for (const question of questions) child.stdin?.write(`${JSON.stringify(question)}\n`)
      return Promise.all(answers)
    },
    signal(signal) {
      child.kill(signal)
    },
    async stop() {
      child.stdin?.end()
      if (child.exitCode === null && child.signalCode === null) await ended
    },
  }
}
