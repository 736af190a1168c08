import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure, UsageError } from '../../cli/failure.ts'
import { NotYet, parseTimeout, patiently } from '../../cli/patience.ts'

/** A terminal whose time passes when it is waited for. */
function clock() {
  const waits: number[] = []
  const said: string[] = []
  let now = 0
  return {
    waits,
    said,
    now: () => now,
    wait: async (milliseconds: number) => {
      waits.push(milliseconds)
      now += milliseconds
    },
    say: (line: string) => {
      said.push(line)
    },
  }
}

test('WA-5: tried again with growing pauses, and said once', async () => {
  const terminal = clock()
  let count = 0
  const attempt = async () => {
    if (++count < 8) throw new NotYet('is not there')
    return 'there'
  }
  expect(await patiently(attempt, 30, terminal)).toBe('there')
  expect(terminal.said).toEqual(['is not there; trying for 30 s'])
  terminal.waits.forEach((wait, index) => {
    const longest = Math.min(100 * 2 ** index, 2000)
    expect(wait).toBeGreaterThanOrEqual(longest / 2)
    expect(wait).toBeLessThanOrEqual(longest)
  })
})

test('what is not to be repeated is not', async () => {
  const terminal = clock()
  await expect(patiently(() => Promise.reject(new Failure('no')), 30, terminal)).rejects.toThrow('no')
  expect([terminal.waits, terminal.said]).toEqual([[], []])
})

test('an answer that says when to come back is obeyed, and not waited for if that is too late', async () => {
  const obeyed = clock()
  let count = 0
  const once = async () => {
    if (count++ === 0) throw new NotYet('busy', 7000)
    return obeyed.now()
  }
  expect(await patiently(once, 30, obeyed)).toBe(7000)
  const late = clock()
  await expect(patiently(() => Promise.reject(new NotYet('busy', 31_000)), 30, late)).rejects.toThrow('busy')
  expect(late.waits).toEqual([])
})

test('whatever is thrown, it ends in time', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 600 }), fc.array(fc.nat(10_000)), async (seconds, waits) => {
      const terminal = clock()
      let index = 0
      const attempt = async (leftMs: number) => {
        // Enough for it to fail for a reason of its own.
        expect(leftMs).toBeGreaterThanOrEqual(1000)
        throw new NotYet('no', waits[index++ % (waits.length || 1)] ?? 0)
      }
      await expect(patiently(attempt, seconds, terminal)).rejects.toThrow('no')
      expect(terminal.now()).toBeLessThan(seconds * 1000)
    }),
  )
})

test.each(['0', '-1', '1.5', '', 'x', '1e3', '100000', ' 1'])('a time limit of %j is refused', (text) => {
  expect(() => parseTimeout(text)).toThrow(UsageError)
})
