import { evictDurableObject, runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { describe, expect, test } from 'vitest'
import type { Stamp } from '../../../worker/key_settings.ts'
import type { PolicyReading } from '../../../worker/state/policy_state.ts'
import { NOW } from '../../support/clock.ts'
import { newPolicyState } from '../issuer.ts'

const STAMP: Stamp = { mode: 'development', issuer: 'https://issuer.example.org', trustDomain: 'example.org' }

const object = (name: string, spec: object = {}) => ({ kind: 'Ban', metadata: { name }, spec })
const row = (name: string, spec?: object) => ({ kind: 'Ban', name, object: object(name, spec) })
const named = (name: string) => ({ kind: 'Ban', name })

/** From now on the storage takes no row of that name, as it takes none that is too large for it. */
function refuse(sql: SqlStorage, table: string, name: string): void {
  sql.exec(`create trigger refuse before insert on ${table} when new.name = '${name}'
    begin select raise(abort, 'no more room'); end`)
}

/** An object of its own, and what is done with it. */
function policyState() {
  const { id } = newPolicyState()
  const stub = () => env.POLICY_STATE.get(id)
  const read = async (known: number | null = null, stamp = STAMP) => {
    const reading = (await stub().read(stamp, known)) as unknown as PolicyReading
    if (reading.stamp !== 'ours') throw new TypeError(`foreign: ${reading.field}`)
    return reading
  }
  return {
    stub,
    read,
    version: async () => (await read()).version,
    applied: async () => (await read()).stored?.applied,
    live: async () => (await read()).stored?.live,
  }
}

describe('what is applied', () => {
  test('is nothing at first', async () => {
    const { read } = policyState()
    expect(await read()).toEqual({ stamp: 'ours', version: 0, stored: { applied: [], live: [] } })
  })

  test('is there after it, as it was, under a new version', async () => {
    const { stub, read } = policyState()
    expect(await stub().apply([row('b', { x: ['ä', null] }), row('a')], [], 0)).toBe(1)
    expect(await read()).toMatchObject({
      version: 1,
      stored: { applied: [object('a'), object('b', { x: ['ä', null] })], live: [] },
    })
  })

  test('takes the place of what had its kind and name, and of nothing else', async () => {
    const { stub, applied } = policyState()
    const cluster = { kind: 'Cluster', name: 'a', object: { kind: 'Cluster', metadata: { name: 'a' } } }
    await stub().apply([row('a', { n: 1 }), row('b'), cluster], [], 0)
    await stub().apply([row('a', { n: 2 })], [named('b')], 1)
    expect(await applied()).toEqual([object('a', { n: 2 }), cluster.object])
  })

  test('survives the object', async () => {
    const { stub, read } = policyState()
    await stub().apply([row('a')], [], 0)
    await stub().keepLive({ cluster: 'east', objects: [object('web')] }, NOW)
    const before = await read()
    await evictDurableObject(stub())
    expect(await read()).toEqual(before)
  })

  test('is sent only to who has another version', async () => {
    const { stub, read } = policyState()
    await stub().apply([row('a')], [], 0)
    expect((await read(1)).stored).toBeNull()
    for (const known of [null, 0, 2]) expect((await read(known)).stored?.applied).toEqual([object('a')])
  })

  test.each(["x'); drop table applied; --", "' or '1'='1", '%', '_', '?', 'a"b', '\u0000', 'ä', '', '__proto__'])(
    'may have the name %j, which is nothing but a name',
    async (name) => {
      const { stub, applied } = policyState()
      await stub().apply([row('a'), row(name)], [], 0)
      expect(await applied()).toHaveLength(2)
      await stub().apply([], [named(name)], 1)
      expect(await applied()).toEqual([object('a')])
    },
  )
})

describe('a change', () => {
  test('that was judged by another version does nothing', async () => {
    const { stub, read } = policyState()
    await stub().apply([row('a')], [], 0)
    for (const ifVersion of [0, 2, -1, Number.NaN])
      expect(await stub().apply([row('b')], [named('a')], ifVersion)).toBeNull()
    expect(await read()).toMatchObject({ version: 1, stored: { applied: [object('a')] } })
  })

  test('is one of several at the same time that are judged by one version', async () => {
    const { stub, applied } = policyState()
    const names = Array.from({ length: 10 }, (_, index) => `r${index}`)
    const versions = await Promise.all(names.map((name) => stub().apply([row(name)], [], 0)))
    expect(versions.filter((version) => version !== null)).toEqual([1])
    expect(await applied()).toEqual([object(names[versions.indexOf(1)] as string)])
  })

  test('happens whole or not at all, also where the storage fails in the middle of it', async () => {
    const { stub, read } = policyState()
    await stub().apply([row('a')], [], 0)
    await runInDurableObject(stub(), (instance, { storage: { sql } }) => {
      refuse(sql, 'applied', 'c')
      expect(() => instance.apply([row('b'), row('c')], [named('a')], 1)).toThrow('no more room')
    })
    expect(await read()).toMatchObject({ version: 1, stored: { applied: [object('a')] } })
  })

  test('that removes what there is not is one all the same', async () => {
    const { stub, version } = policyState()
    expect(await stub().apply([], [named('x')], 0)).toBe(1)
    expect(await version()).toBe(1)
  })
})

describe('T-12: a storage', () => {
  test.each(['mode', 'issuer', 'trustDomain'] as const)('of another %s says so, and nothing more', async (field) => {
    const { stub, read } = policyState()
    await read()
    await stub().apply([row('a')], [], 0)
    expect(await stub().read({ ...STAMP, [field]: 'other' }, null)).toEqual({ stamp: 'foreign', field })
    expect((await read()).stored?.applied).toEqual([object('a')])
  })

  test('that is damaged in one row has all the others', async () => {
    const { stub, read } = policyState()
    await stub().apply([row('a'), row('b'), row('c'), row('d')], [], 0)
    await stub().keepLive({ cluster: 'east', objects: [object('web'), object('db')] }, NOW)
    await runInDurableObject(stub(), (_, { storage: { sql } }) => {
      sql.exec(`update applied set json = '{"kind":' where name = 'b'`)
      sql.exec(`update applied set json = 'null' where name = 'c'`)
      sql.exec(`update live set json = '' where name = 'db'`)
    })
    const nameless = (kind: string, name: string) => ({ kind, metadata: { name } })
    expect((await read()).stored).toEqual({
      applied: [object('a'), nameless('Ban', 'b'), nameless('Ban', 'c'), object('d')],
      live: [{ cluster: 'east', objects: [nameless('WorkloadRegistration', 'db'), object('web')] }],
    })
  })
})

describe('T-1: what clusters say', () => {
  test('takes the place of what that cluster said before, and of nothing else', async () => {
    const { stub, live } = policyState()
    await stub().keepLive({ cluster: 'east', objects: [object('a'), object('b')] }, NOW)
    await stub().keepLive({ cluster: 'west', objects: [object('a')] }, NOW)
    await stub().keepLive({ cluster: 'east', objects: [object('c')] }, NOW)
    expect(await live()).toEqual([
      { cluster: 'east', objects: [object('c')] },
      { cluster: 'west', objects: [object('a')] },
    ])
    await stub().keepLive({ cluster: 'east', objects: [] }, NOW)
    expect(await live()).toEqual([{ cluster: 'west', objects: [object('a')] }])
  })

  test('is a new version only where it is something new', async () => {
    const { stub, version } = policyState()
    const say = async (...objects: object[]) => {
      await stub().keepLive({ cluster: 'east', objects }, NOW)
      return version()
    }
    expect(await say(object('b'), object('a'))).toBe(1)
    expect(await say(object('a'), object('b'))).toBe(1)
    expect(await say(object('a'), object('b'), object('b'))).toBe(1)
    expect(await say(object('a'), object('b', { x: 1 }))).toBe(2)
    expect(await say(object('a'))).toBe(3)
  })

  test('may be anything, for whoever reads it to judge', async () => {
    const { stub, live } = policyState()
    const odd = [{}, { metadata: null }, { metadata: { name: { toString: 1 } } }, { metadata: { name: "'; --" } }]
    await stub().keepLive({ cluster: 'east', objects: odd }, NOW)
    expect((await live())?.[0]?.objects).toContainEqual({ metadata: { name: "'; --" } })
  })

  test('is left as it was where the storage fails in the middle of it', async () => {
    const { stub, read } = policyState()
    await stub().keepLive({ cluster: 'east', objects: [object('a')] }, NOW)
    await runInDurableObject(stub(), (instance, { storage: { sql } }) => {
      refuse(sql, 'live', 'c')
      expect(() => instance.keepLive({ cluster: 'east', objects: [object('b'), object('c')] }, NOW)).toThrow(
        'no more room',
      )
    })
    expect(await read()).toMatchObject({
      version: 1,
      stored: { live: [{ cluster: 'east', objects: [object('a')] }] },
    })
  })

  test('T-18: is to be asked by one isolate in 15 s, who is told how old the last answer is', async () => {
    const { stub } = policyState()
    const due = (seconds: number, ...clusters: string[]) => stub().claimLive(clusters, NOW + seconds)
    const never = (cluster: string) => ({ cluster, age: null })
    expect(await due(0, 'east', 'west')).toEqual([never('east'), never('west')])
    await stub().keepLive({ cluster: 'east', objects: [] }, NOW + 1)
    expect(await due(14, 'east', 'north')).toEqual([never('north')])
    expect(await due(15, 'east', 'west', 'north')).toEqual([{ cluster: 'east', age: 14 }, never('west')])
    expect(await due(29, 'east', 'west', 'north')).toEqual([never('north')])
  })
})
