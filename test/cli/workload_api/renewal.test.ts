/** When things are done again: never early, never twice at a time, and never all at the same time. */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Refused } from '../../../cli/exchange.ts'
import { NotYet } from '../../../cli/patience.ts'
import { AgentLog } from '../../../cli/workload_api/agent_log.ts'
import { Changes, Holding, isDecided } from '../../../cli/workload_api/holding.ts'
import { Recurring } from '../../../cli/workload_api/recurring.ts'
import { Backoff, renewAt } from '../../../cli/workload_api/renewal.ts'
import { NOW } from '../../support/clock.ts'
import { ManualClock } from '../../support/manual_clock.ts'

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const settled = () => new Promise((resolve) => setImmediate(resolve))

test('a renewal is near the half of a life, always within it, and not after less than 5 s', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 2 ** 40 }),
      fc.integer({ min: 1, max: 2 ** 32 }),
      chance,
      (from, life, random) => {
        const at = renewAt(from, from + life, () => random)
        expect(at).toBeGreaterThanOrEqual(from + Math.min(life, Math.max(0.39 * life, 5000)))
        expect(at).toBeLessThanOrEqual(from + Math.min(life, Math.max(0.61 * life, 5000)))
      },
    ),
  )
})

test('a back-off grows from half a second to half a minute, is as long as the issuer asks for, and begins anew', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(chance, fc.integer({ min: 0, max: 10 ** 9 })), { minLength: 1 }), (failures) => {
      let random = 0
      const backoff = new Backoff(() => random)
      for (const [one, asked] of failures) {
        random = one
        const waitMs = backoff.after(new NotYet('no', asked))
        expect(waitMs).toBeGreaterThanOrEqual(Math.max(500, Math.min(asked, 300_000)))
        expect(waitMs).toBeLessThanOrEqual(Math.max(30_000, Math.min(asked, 300_000)))
      }
      backoff.reset()
      expect(backoff.after(new Error('no'))).toBeLessThanOrEqual(1000)
    }),
  )
})

describe('what recurs', () => {
  test('is done when it is time, over the longest time, and not before', async () => {
    const clock = new ManualClock()
    const done: number[] = []
    const recurring = new Recurring(async () => {
      done.push(clock.now())
      return clock.now() + 3_600_000
    }, clock)
    await recurring.run()
    clock.advance(3_599_999)
    expect(done).toHaveLength(1)
    clock.advance(1)
    await settled()
    expect(done).toEqual([NOW * 1000, NOW * 1000 + 3_600_000])
    recurring.stop()
    expect(clock.pending).toBe(0)
  })

  test('is done soon after a machine has slept through its time', async () => {
    const clock = new ManualClock()
    let done = 0
    const recurring = new Recurring(async () => {
      done++
      return clock.now() + 3_600_000
    }, clock)
    await recurring.run()
    clock.leap(7_200_000)
    clock.advance(15_000)
    expect(done).toBe(2)
    recurring.stop()
  })

  test('is never done twice at a time, whoever asks, and not at all when it has been stopped', async () => {
    const step = fc.constantFrom('run', 'advance', 'finish')
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const clock = new ManualClock()
        let running = 0
        let finish = () => {}
        const recurring = new Recurring(async () => {
          running++
          expect(running).toBe(1)
          await new Promise<void>((resolve) => {
            finish = resolve
          })
          running--
          return clock.now() + 1000
        }, clock)
        for (const one of steps) {
          if (one === 'run') void recurring.run()
          if (one === 'advance') clock.advance(1000)
          if (one === 'finish') finish()
          await settled()
        }
        recurring.stop()
        finish()
        await settled()
        expect(clock.pending).toBe(0)
        await recurring.run()
        expect(running).toBe(0)
      }),
    )
  })
})

describe('what is held', () => {
  test('stays while something does not work, and goes where it is taken back', () => {
    const held = new Holding<string>(new Changes())
    expect([held.value, held.problem, held.settled]).toEqual([null, null, false])
    held.failed(new Error('first'))
    expect([held.problem?.message, held.settled]).toEqual(['first', true])
    held.hold('x')
    held.failed(new Error('second'))
    expect([held.value, held.problem]).toEqual(['x', null])
    held.drop(new Error('third'))
    expect([held.value, held.problem?.message]).toEqual([null, 'third'])
  })

  test('who waits is told once, or leaves without a trace', async () => {
    const changes = new Changes()
    const over = new AbortController()
    let told = 0
    for (const signal of [new AbortController().signal, over.signal]) void changes.next(signal).then(() => told++)
    over.abort()
    await settled()
    expect(told).toBe(1)
    changes.announce()
    changes.announce()
    await settled()
    expect(told).toBe(2)
    await changes.next(AbortSignal.abort())
  })

  test('what the issuer decides about a workload takes it back, and nothing else does', () => {
    expect(isDecided(new Refused('no', 'banned'))).toBe(true)
    expect(isDecided(new Refused('no', 'registration_none'))).toBe(true)
    expect(isDecided(new Refused('no', 'token_expired'))).toBe(false)
    expect(isDecided(new Refused('no', null))).toBe(false)
    expect(isDecided(new NotYet('no'))).toBe(false)
  })
})

test('the log has floods once a second, with how many were left out, and nothing after the last line', () => {
  const clock = new ManualClock()
  const lines: string[] = []
  const log = new AgentLog((text) => lines.push(text) > 0, clock)
  for (let count = 0; count < 100; count++) log.sayAtTimes({ event: 'flood' })
  log.sayAtTimes({ event: 'other' })
  clock.advance(1000)
  log.sayAtTimes({ event: 'flood' })
  log.end({ event: 'stopping' })
  log.say({ event: 'late' })
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    { time: '2026-11-18T11:06:40.000Z', event: 'flood' },
    { time: '2026-11-18T11:06:40.000Z', event: 'other' },
    { time: '2026-11-18T11:06:41.000Z', event: 'flood', left_out: 99 },
    { time: '2026-11-18T11:06:41.000Z', event: 'stopping' },
  ])
})

test('the log says how many lines were lost, and begins anew after one of which half may be there', () => {
  const clock = new ManualClock()
  let full = false
  const written: string[] = []
  const log = new AgentLog((text) => !full && written.push(text) > 0, clock)
  log.say({ event: 'one' })
  full = true
  log.say({ event: 'two' })
  log.say({ event: 'three' })
  full = false
  log.say({ event: 'four' })
  log.say({ event: 'five' })
  const time = '2026-11-18T11:06:40.000Z'
  expect(written).toEqual([
    `{"time":"${time}","event":"one"}\n`,
    `\n{"time":"${time}","event":"four","lost":2}\n`,
    `{"time":"${time}","event":"five"}\n`,
  ])
})
