/** One workerd as its own process, on a free port, with a look at the CPU time it has used. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { Readable } from 'node:stream'

/** The program itself: `node_modules/.bin/workerd` is a Node wrapper, and would leave workerd behind when it is ended. */
const { default: WORKERD } = createRequire(import.meta.url)('workerd') as { default: string }

const running = new Set<ReturnType<typeof spawn>>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export interface Server {
  readonly port: number
  /** CPU time of all threads since the process was started. */
  cpuMicroseconds(): number
  stop(): Promise<void>
}

/**
 * @param args for `workerd serve`
 * @param log file that takes the process's stdout and stderr
 */
export async function startServer(args: readonly string[], env: Record<string, string>, log: string): Promise<Server> {
  const output = openSync(log, 'a')
  const child = spawn(WORKERD, ['serve', ...args, '--socket-addr=http=127.0.0.1:0', '--control-fd=3'], {
    stdio: ['ignore', output, output, 'pipe'],
    env,
  })
  closeSync(output)
  running.add(child)
  const ended = once(child, 'exit').then(() => {
    running.delete(child)
  })
  const started = once(child.stdio[3] as Readable, 'data').then(
    ([data]) => JSON.parse(String(data)) as { port: number },
  )
  const listening = await Promise.race([started, ended])
  if (!listening) throw new Error(`workerd did not start:\n${readFileSync(log, 'utf8')}`)
  return {
    port: listening.port,
    cpuMicroseconds: () => cpuNanoseconds(child.pid as number) / 1000,
    async stop() {
      child.kill('SIGTERM')
      await ended
    },
  }
}

/**
 * The kernel's own count, which `utime` and `stime` of /proc/<pid>/stat show in steps of 10 ms.
 *
 * @see [schedstats](https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat)
 */
function cpuNanoseconds(pid: number): number {
  return readdirSync(`/proc/${pid}/task`)
    .map((thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]))
    .reduce((sum, time) => sum + time, 0)
}
