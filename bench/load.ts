/**
 * The load: a process of its own, so that what it costs is not counted as the server's. Each connection is kept open and
 * has one request under way at a time. Requests are ready bytes, and of an answer only the status and the length are read.
 */

import { connect } from 'node:net'

export interface LoadOrder {
  readonly port: number
  /** Whole HTTP/1.1 requests, sent in turn. */
  readonly requests: readonly string[]
  readonly connections: number
  readonly seconds: number
}

export interface LoadReport {
  readonly answered: number
  /** Answers that were not 200, and connections that broke. */
  readonly failed: number
  /** From the first request to the last answer. */
  readonly seconds: number
  /** Of this process: where it comes near one core, the load is what is being measured. */
  readonly cpuSeconds: number
}

process.on('message', async (order: LoadOrder) => {
  process.send?.(await run(order))
})

async function run({ port, requests, connections, seconds }: LoadOrder): Promise<LoadReport> {
  const bytes = requests.map((request) => Buffer.from(request, 'latin1'))
  const cpu = process.cpuUsage()
  const start = performance.now()
  const end = start + seconds * 1000
  let sent = 0
  let answered = 0
  let failed = 0
  const next = () => (performance.now() < end ? (bytes[sent++ % bytes.length] as Buffer) : null)
  await Promise.all(
    Array.from({ length: connections }, () =>
      drive(port, next, (ok) => {
        if (ok) answered++
        else failed++
      }),
    ),
  )
  const { user, system } = process.cpuUsage(cpu)
  return { answered, failed, seconds: (performance.now() - start) / 1000, cpuSeconds: (user + system) / 1e6 }
}

/** Resolves when there is no next request, or the connection has broken. */
function drive(port: number, next: () => Buffer | null, done: (ok: boolean) => void): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let waiting = false
  let received: Buffer | null = null
  const advance = () => {
    const request = next()
    waiting = request !== null
    if (request) socket.write(request)
    else socket.end()
  }
  socket.on('connect', advance)
  socket.on('data', (chunk) => {
    received = received ? Buffer.concat([received, chunk]) : chunk
    const length = answerLength(received)
    if (length === null || received.length < length) return
    done(received.length === length && received.toString('latin1', 9, 12) === '200')
    received = null
    advance()
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    if (waiting) done(false)
    resolve()
  })
  return promise
}

/** @returns the bytes of the whole answer, or null if its head is not complete yet */
function answerLength(received: Buffer): number | null {
  const end = received.indexOf('\r\n\r\n')
  if (end === -1) return null
  const head = received.toString('latin1', 0, end).toLowerCase()
  const at = head.indexOf('\r\ncontent-length:')
  if (at === -1) throw new Error('an answer without Content-Length')
  return end + 4 + Number.parseInt(head.slice(at + 17), 10)
}
