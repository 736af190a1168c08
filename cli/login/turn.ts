/**
 * One at a time among the processes of one person on one machine, and nothing to clean up after one that dies: whoever wants
 * the turn listens on a socket of its own, and the kernel closes that with the process.
 *
 * Each first listens, then looks who else does. Who finds nobody, or only such as give way, has the turn. Of two that look at
 * the same time, both see each other, and the one with the later name gives way; the other one waits until that has decided.
 * A socket that nobody listens on is taken away by whoever finds it; who has lost its own that way, between making it and
 * listening on it, starts again. `docs/adr/0010` shows why there cannot be two.
 */

import { randomBytes } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { Failure } from '../failure.ts'

/** What the holder of the turn says to those who wait, each followed by a line break. */
const HOLDING = 'holding'
const MAX_MESSAGE_CHARACTERS = 4096
/** A process that is stopped, or swapped out, and is asked for its decision. */
const DECISION_TIMEOUT_MS = 10_000
/** Whoever lives as long as this in a crowd has something wrong with its folder. */
const MAX_ROUNDS = 100

export interface Turn {
  /** Gives the turn back, and tells those who have waited. */
  end(outcome: Outcome): void
}

/** How a turn went, for those who have waited. */
export interface Outcome {
  /** What they would meet too; null if it went well, or for reasons that are not theirs. */
  readonly failure: string | null
  /** Whether the person has logged in. */
  readonly prompted: boolean
}

/** Of a turn of which nobody has to know anything, or whose holder died. */
export const NOTHING_TO_TELL: Outcome = { failure: null, prompted: false }

/**
 * @param folder nobody else may use it
 * @param onWait is called when it turns out that another has the turn
 * @returns the turn, or how that of another ended
 * @throws Failure if that takes longer than it may
 */
export async function takeTurn(
  folder: string,
  name: string,
  timeoutMs: number,
  onWait: () => void,
): Promise<Turn | Outcome> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const candidate = await Candidate.listen(folder, name)
    const holder = await candidate.findHolder()
    if (holder === null) return candidate
    candidate.giveWay()
    if (holder === 'again') continue
    const waited = await waitFor(holder, timeoutMs, onWait)
    if (waited) return waited
  }
  throw new Failure('too many processes want to log in at once')
}

/**
 * The same for who wants the turn itself, however those of others end.
 *
 * @throws Failure if one of them takes longer than it may
 */
export async function waitForTurn(...wanted: Parameters<typeof takeTurn>): Promise<Turn> {
  for (;;) {
    const turn = await takeTurn(...wanted)
    if ('end' in turn) return turn
  }
}

class Candidate implements Turn {
  readonly #folder: string
  readonly #prefix: string
  readonly #own: string
  readonly #server: Server
  readonly #waiting = new Set<Socket>()
  #holding = false

  private constructor(folder: string, prefix: string, own: string) {
    this.#folder = folder
    this.#prefix = prefix
    this.#own = own
    this.#server = createServer((socket) => {
      // One that goes away is of no interest.
      socket.on('error', () => {}).on('close', () => this.#waiting.delete(socket))
      // What it says is not listened to, but that it closes is.
      socket.resume()
      this.#waiting.add(socket)
      if (this.#holding) socket.write(`${HOLDING}\n`)
    })
  }

  static async listen(folder: string, name: string): Promise<Candidate> {
    // Short, for what a socket's path may have.
    const prefix = `${name.slice(0, 16)}.`
    const candidate = new Candidate(folder, prefix, `${prefix}${randomBytes(5).toString('hex')}`)
    await new Promise<void>((resolve, reject) => {
      candidate.#server.once('error', (error: NodeJS.ErrnoException) =>
        reject(new Failure(`${folder}: no socket can be made there (${error.code})`)),
      )
      candidate.#server.listen(join(folder, candidate.#own), resolve)
    })
    return candidate
  }

  /** @returns a connection to whoever has the turn; null if it is ours now */
  async findHolder(): Promise<Socket | 'again' | null> {
    const names = readdirSync(this.#folder).filter((name) => name.startsWith(this.#prefix))
    if (!names.includes(this.#own)) return 'again'
    for (const name of names) {
      if (name === this.#own) continue
      const socket = await dial(join(this.#folder, name))
      if (socket === null) {
        if (process.platform !== 'win32') rmSync(join(this.#folder, name), { force: true })
        continue
      }
      // Its decision is worth waiting for only where it would not be to give way.
      if (this.#own > name) return socket
      if (await isHolding(socket)) return socket
      socket.destroy()
    }
    this.#holding = true
    for (const socket of this.#waiting) socket.write(`${HOLDING}\n`)
    return null
  }

  giveWay(): void {
    this.#close('')
  }

  end(outcome: Outcome): void {
    this.#close(`${JSON.stringify(outcome)}\n`)
  }

  #close(last: string): void {
    this.#server.close().unref()
    // Whoever waits may be stopped, and this process is to end all the same.
    for (const socket of this.#waiting) socket.end(last).unref()
  }
}

/** @returns null if nobody is there, which is another thing than that nobody answers */
function dial(path: string): Promise<Socket | null> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => resolve(socket))
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      // The last: it has closed while this connection waited to be accepted.
      if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'ECONNRESET') resolve(null)
      else reject(new Failure(`${path}: cannot be asked (${code})`))
    })
  })
}

/** @returns false if it has given way, or died */
async function isHolding(socket: Socket): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Failure('another spiffe-edge process that logs in does not answer. Is it stopped? End it'))
    }, DECISION_TIMEOUT_MS)
    const decide = (holding: boolean) => {
      clearTimeout(timer)
      resolve(holding)
    }
    socket.once('readable', () => decide(socket.readableLength > 0))
    socket.once('close', () => decide(false))
  })
}

/** @returns null if it has given way as well, or died before it had the turn */
async function waitFor(holder: Socket, timeoutMs: number, onWait: () => void): Promise<Outcome | null> {
  let text = ''
  let holding = false
  holder.setEncoding('utf8')
  holder.setTimeout(timeoutMs)
  return new Promise((resolve, reject) => {
    holder.once('timeout', () => {
      holder.destroy()
      reject(new Failure('another process is still waiting for a login. Finish it, or end that process'))
    })
    holder.on('data', (chunk: string) => {
      text = (text + chunk).slice(0, MAX_MESSAGE_CHARACTERS)
      if (holding || !text.startsWith(`${HOLDING}\n`)) return
      holding = true
      onWait()
    })
    holder.once('close', () => resolve(holding ? outcomeIn(text) : null))
  })
}

function outcomeIn(text: string): Outcome {
  try {
    const { failure, prompted } = JSON.parse(text.split('\n').at(-2) ?? '')
    return { failure: typeof failure === 'string' ? failure : null, prompted: prompted === true }
  } catch {
    return NOTHING_TO_TELL
  }
}
