/** One at a time: the sockets by which processes agree on who asks the person. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { NOTHING_TO_TELL, type Outcome, type Turn, takeTurn } from '../../../cli/login/turn.ts'

const NAME = '0123456789abcdef0123456789abcdef'
const LONG_MS = 60_000
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-turn-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const take = (onWait = () => {}, name = NAME) => takeTurn(folder, name, LONG_MS, onWait)
async function mine(name = NAME): Promise<Turn> {
  const turn = await take(() => {}, name)
  if (!('end' in turn)) throw new Error('somebody else has it')
  return turn
}

describe('NA: one prompt at a time', () => {
  test('forty at once: there are never two, and in the end each has had it or was told', async () => {
    let holders = 0
    let most = 0
    const failures: (string | null)[] = []
    const one = async () => {
      for (;;) {
        const turn: Turn | Outcome = await take()
        if ('end' in turn) {
          most = Math.max(most, ++holders)
          for (let i = 0; i < 5; i++) await setImmediate()
          holders--
          turn.end({ failure: 'told', prompted: false })
          return
        }
        failures.push(turn.failure)
        if (turn.failure !== null) return
      }
    }
    await Promise.all(Array.from({ length: 40 }, one))
    expect([most, holders]).toEqual([1, 0])
    expect(failures).toContain('told')
    expect(readdirSync(folder)).toEqual([])
  })

  test('who waits hears how it ended, word for word', async () => {
    for (const outcome of [
      NOTHING_TO_TELL,
      { failure: 'refused: "no"\nand why', prompted: false },
      { failure: null, prompted: true },
    ]) {
      const turn = await mine()
      let waiting = () => {}
      const begun = new Promise<void>((resolve) => {
        waiting = resolve
      })
      const other = take(waiting)
      await begun
      turn.end(outcome)
      expect(await other).toEqual(outcome)
    }
  })

  test('other logins do not wait for each other', async () => {
    const one = await mine()
    const other = await mine('f'.repeat(32))
    one.end(NOTHING_TO_TELL)
    other.end(NOTHING_TO_TELL)
  })

  test('a holder that is killed frees it at once, and its socket is cleared away', async () => {
    const script = `
      import { takeTurn } from '${join(process.cwd(), 'cli/login/turn.ts')}'
      await takeTurn(${JSON.stringify(folder)}, '${NAME}', 1000, () => {})
      console.log('mine')
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    let waiting = () => {}
    const begun = new Promise<void>((resolve) => {
      waiting = resolve
    })
    const other = take(waiting)
    await begun
    child.kill('SIGKILL')
    expect(await other).toEqual(NOTHING_TO_TELL)
    // The kernel closes one of its sockets after the other.
    let turn: Turn | Outcome = NOTHING_TO_TELL
    while (!('end' in turn)) turn = await take()
    turn.end(NOTHING_TO_TELL)
    // Whoever met it while it was dying has left its name to the next one.
    ;(await mine()).end(NOTHING_TO_TELL)
    expect(readdirSync(folder)).toEqual([])
  })

  test('a holder that does not end is waited for as long as was said, and no longer', async () => {
    const turn = await mine()
    await expect(takeTurn(folder, NAME, 50, () => {})).rejects.toThrow(/still waiting for a login/)
    turn.end(NOTHING_TO_TELL)
  })

  test('what is no socket, and what nobody listens on, is in nobody’s way', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(join(folder, `${NAME.slice(0, 16)}.0000000000`), resolve))
    // Closed behind the server's back, so that its file stays.
    ;(server as unknown as { _handle: { close(): void } })._handle.close()
    writeFileSync(join(folder, `${NAME.slice(0, 16)}.ffffffffff`), '')
    writeFileSync(join(folder, 'something else'), '')
    const turn = await mine()
    turn.end(NOTHING_TO_TELL)
    expect(readdirSync(folder)).toEqual(['something else'])
  })

  test('one that connects and says something, or leaves, changes nothing', async () => {
    const turn = await mine()
    const [name = ''] = readdirSync(folder)
    const socket = connect(join(folder, name)).resume()
    await once(socket, 'connect')
    socket.end('{"failure":null}\n')
    await once(socket, 'close')
    let waiting = () => {}
    const begun = new Promise<void>((resolve) => {
      waiting = resolve
    })
    const other = take(waiting)
    await begun
    turn.end({ failure: 'no', prompted: false })
    expect(await other).toEqual({ failure: 'no', prompted: false })
  })

  test('a folder that cannot have sockets is an error, and no end of tries', async () => {
    await expect(takeTurn(join(folder, 'absent'), NAME, LONG_MS, () => {})).rejects.toThrow(/no socket can be made/)
  })
})
