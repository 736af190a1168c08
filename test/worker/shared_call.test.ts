import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { SharedCall, SharedCalls } from '../../worker/shared_call.ts'

/** A little more than the 5 s that an outbound call may take. */
const JOINERS_WAIT_MS = 6000

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** A call that ends when it is told, and counts how often it was made. */
function call<T>() {
  const made: PromiseWithResolvers<T>[] = []
  return {
    made,
    make: () => {
      const one = Promise.withResolvers<T>()
      made.push(one)
      return one.promise
    },
  }
}

const ignore = () => {}

/** Whether a promise has settled by now. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let done = false
  const mark = () => {
    done = true
  }
  promise.then(mark, mark)
  await vi.advanceTimersByTimeAsync(0)
  return done
}

describe('T-18: one call for all who ask while it is under way', () => {
  test('is made once and gives its result to all', async () => {
    const shared = new SharedCall<number>()
    const { made, make } = call<number>()
    const asked = Array.from({ length: 100 }, () => shared.run(make, ignore))
    expect(made).toHaveLength(1)
    expect(shared.underWay).toBe(true)
    made[0]?.resolve(7)
    expect(await Promise.all(asked)).toEqual(Array(100).fill(7))
    expect(shared.underWay).toBe(false)
  })

  test('rejects for all, and leaves nothing behind', async () => {
    const shared = new SharedCall<number>()
    const { made, make } = call<number>()
    const asked = [shared.run(make, ignore), shared.run(make, ignore)]
    made[0]?.reject(new TypeError('down'))
    expect(await Promise.allSettled(asked)).toEqual(
      Array(2).fill({ status: 'rejected', reason: new TypeError('down') }),
    )
    expect(shared.underWay).toBe(false)
    const next = shared.run(make, ignore)
    made[1]?.resolve(1)
    expect(await next).toBe(1)
    expect(made).toHaveLength(2)
  })

  test('is over when it is over: who asks then makes another', async () => {
    const shared = new SharedCall<number>()
    for (const result of [1, 2]) expect(await shared.run(async () => result, ignore)).toBe(result)
  })

  test("keeps its owner's request alive until the end, even a bad one, and no joiner's", async () => {
    const shared = new SharedCall<number>()
    const { made, make } = call<number>()
    const [owners, joiners]: Promise<unknown>[][] = [[], []]
    const owner = shared.run(make, (promise) => owners?.push(promise))
    const joiner = shared.run(make, (promise) => joiners?.push(promise))
    expect([owners?.length, joiners?.length]).toEqual([1, 0])
    expect(await settled(owners?.[0] as Promise<unknown>)).toBe(false)
    made[0]?.reject(new TypeError('down'))
    await Promise.allSettled([owner, joiner])
    // What is given to waitUntil must not reject: that would be an error of the whole worker.
    await expect(owners?.[0]).resolves.toBeUndefined()
  })
})

describe('T-18: an owner that has vanished', () => {
  test('is waited for no longer than any outbound call takes', async () => {
    const shared = new SharedCall<number>()
    shared.run(() => new Promise(ignore), ignore)
    const { made, make } = call<number>()
    const joiner = shared.run(make, ignore)
    await vi.advanceTimersByTimeAsync(JOINERS_WAIT_MS - 1)
    expect(made).toHaveLength(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(made).toHaveLength(1)
    made[0]?.resolve(2)
    expect(await joiner).toBe(2)
    expect(shared.underWay).toBe(false)
  })

  test('is replaced by one of those who waited, and the others join that one', async () => {
    const shared = new SharedCall<number>()
    shared.run(() => new Promise(ignore), ignore)
    const { made, make } = call<number>()
    const joiners = Array.from({ length: 50 }, () => shared.run(make, ignore))
    await vi.advanceTimersByTimeAsync(JOINERS_WAIT_MS)
    expect(made).toHaveLength(1)
    made[0]?.resolve(2)
    expect(await Promise.all(joiners)).toEqual(Array(50).fill(2))
  })

  test('that comes back after all takes nothing away from the one that replaced it', async () => {
    const shared = new SharedCall<number>()
    const late = Promise.withResolvers<number>()
    const owner = shared.run(() => late.promise, ignore)
    const { made, make } = call<number>()
    const joiner = shared.run(make, ignore)
    await vi.advanceTimersByTimeAsync(JOINERS_WAIT_MS)
    late.resolve(1)
    expect(await owner).toBe(1)
    expect(shared.underWay).toBe(true)
    const third = shared.run(make, ignore)
    expect(made).toHaveLength(1)
    made[0]?.resolve(2)
    expect(await Promise.all([joiner, third])).toEqual([2, 2])
  })

  test('or fails late makes no noise', async () => {
    const shared = new SharedCall<number>()
    const late = Promise.withResolvers<number>()
    const owner = shared.run(() => late.promise, ignore)
    const joiner = shared.run(async () => 2, ignore)
    await vi.advanceTimersByTimeAsync(JOINERS_WAIT_MS)
    expect(await joiner).toBe(2)
    late.reject(new TypeError('down'))
    await expect(owner).rejects.toThrow('down')
  })

  test('leaves no timer behind when it was in time', async () => {
    const shared = new SharedCall<number>()
    const { made, make } = call<number>()
    const asked = [shared.run(make, ignore), shared.run(make, ignore)]
    made[0]?.resolve(1)
    await Promise.all(asked)
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('calls by what they are for', () => {
  test('are shared by who asks for the same, and by nobody else', async () => {
    const calls = new SharedCalls<string>()
    const made: string[] = []
    const slow = Promise.withResolvers<void>()
    const ask = (key: string) =>
      calls.run(
        key,
        async () => {
          made.push(key)
          await slow.promise
          return key
        },
        ignore,
      )
    const answers = ['a', 'b', 'a', 'b', 'a'].map(ask)
    expect([made, calls.size, calls.isUnderWay('a'), calls.isUnderWay('c')]).toEqual([['a', 'b'], 2, true, false])
    slow.resolve()
    expect(await Promise.all(answers)).toEqual(['a', 'b', 'a', 'b', 'a'])
    expect([calls.size, calls.isUnderWay('a')]).toEqual([0, false])
  })

  test('leave nothing behind when they fail', async () => {
    const calls = new SharedCalls<string>()
    await expect(calls.run('a', () => Promise.reject(new TypeError('down')), ignore)).rejects.toThrow('down')
    expect(calls.size).toBe(0)
  })
})
