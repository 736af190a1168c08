/**
 * A key that has to end at once, at a real kube-apiserver: what `spiffe-edge revoke key` does there, and what becomes of
 * the key where nobody does it.
 */

import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, type ExpectStatic, expect, test } from 'vitest'
import { describeLoad, type SteadyLoad, startSteadyLoad } from '../support/steady_load.ts'
import { missing } from '../support/tools.ts'
import { SPIFFE_ID, startTrustedIssuers, type TrustedIssuer, type TrustedIssuers } from '../support/trusted_issuers.ts'

/** Tokens live so long that none of them expires here: a refusal is for the key and for nothing else. */
const TTL = 3600
const LEASE_SECONDS = 10
const PAUSE_MS = 200

describe.skipIf(missing('go'))('T-21: a kube-apiserver and a key that has to end at once', () => {
  let trusted: TrustedIssuers<'nudged' | 'alone'>
  beforeAll(async () => {
    const settings = () => ({
      signingKey: 'wrapped',
      times: {
        renew: 1,
        signingLease: LEASE_SECONDS,
        longestTtl: TTL,
        longestX509Ttl: TTL,
        refreshHint: 30,
        skew: 1,
        replaceAfter: 86_400,
      },
      ttl: TTL,
      env: { WRAPPING_KEY: `aes:${randomBytes(32).toString('base64')}` },
    })
    trusted = await startTrustedIssuers({ nudged: settings(), alone: settings() })
  })
  afterAll(() => trusted?.stop())

  /**
   * @returns the key that signs, when the API server knows the one that is to take its place: a token of an unknown key
   *   would make it look at the keys by itself
   */
  async function activeKey({ status, run }: TrustedIssuer, expect: ExpectStatic): Promise<string> {
    const keyIn = async (wanted: string) => (await status()).keys.find(({ phase }) => phase === wanted)?.kid
    await expect.poll(() => keyIn('published')).toBeDefined()
    const { stdout } = await run('rotate', '--dry-run', ...trusted.gate, '--output', 'json')
    expect(JSON.parse(stdout).apiservers).toEqual([{ cluster: 'real', stated: 1, seen: 1, problem: null }])
    return (await keyIn('active')) ?? ''
  }

  /** SVIDs that the API server has not seen, for it remembers for 10 s that a token was good. */
  const fresh = (issuer: TrustedIssuer, count: number) => Promise.all(Array.from({ length: count }, issuer.fresh))
  const pause = () => new Promise((later) => setTimeout(later, PAUSE_MS))
  const startLoad = ({ fresh }: TrustedIssuer) =>
    startSteadyLoad({ issue: fresh, use: trusted.whoami, everyMs: 100, againAfter: TTL })

  /** Lets so many more SVIDs be issued and used. */
  async function goOn(load: SteadyLoad, count: number, expect: ExpectStatic): Promise<void> {
    const before = load.report.issued
    await expect.poll(() => load.report.issued).toBeGreaterThan(before + count)
  }

  async function newOnesAccepted(name: string, load: SteadyLoad, dead: string): Promise<void> {
    const report = await load.stop()
    console.log(describeLoad(name, report))
    // One of the dead key may have been on its way when the key died.
    expect(report.refused.filter(({ kid }) => kid !== dead)).toEqual([])
    expect([...report.kids.keys()].indexOf(dead)).toBe(0)
    expect(report.kids.size).toBe(2)
    expect(report.usernames).toEqual(new Set([SPIFFE_ID]))
  }

  test.concurrent('revoke key: proven; tokens of the key are refused, and new SVIDs are accepted all the time', async ({
    expect,
  }) => {
    const { nudged } = trusted.issuers
    const dead = await activeKey(nudged, expect)
    const old = await fresh(nudged, 300)
    const load = startLoad(nudged)
    await goOn(load, 10, expect)

    const began = Date.now()
    const since = () => ((Date.now() - began) / 1000).toFixed(1)
    const command = nudged.run('revoke', 'key', dead, ...trusted.gate, '--output', 'json')
    const verdicts: boolean[] = []
    let line = ''
    while (old.length > 10 && verdicts.filter((accepted) => !accepted).length < 10) {
      const accepted = (await trusted.whoami(old.pop() as string)) !== null
      verdicts.push(accepted)
      if (!accepted) line ||= `tokens of the key were refused ${since()} s after the command began`
      await pause()
    }
    const { code, stdout, stderr } = await command
    console.log(`${line}, with a lease of ${LEASE_SECONDS} s; it was proven after ${since()} s`)
    await goOn(load, 20, expect)
    await newOnesAccepted('while a key was revoked', load, dead)

    expect([code, stderr.includes('unproven'), JSON.parse(stdout)]).toEqual([
      0,
      false,
      expect.objectContaining({
        kid: dead,
        withdrawn: true,
        problems: [],
        clusters: [{ cluster: 'real', result: 'proven', reasons: [], apiservers: { stated: 1, seen: 1 } }],
      }),
    ])
    // Accepted until it was refused, and never again.
    expect(verdicts).toEqual(verdicts.toSorted((a, b) => Number(b) - Number(a)))
    expect(new Set(verdicts)).toEqual(new Set([true, false]))
    for (const svid of old) expect(await trusted.whoami(svid)).toBeNull()
  })

  test.concurrent('D4: without the nudge the API server goes on accepting tokens of a key that the worker has ended', async ({
    expect,
  }) => {
    const { alone } = trusted.issuers
    const dead = await activeKey(alone, expect)
    const old = await fresh(alone, 30)
    const load = startLoad(alone)
    await goOn(load, 10, expect)

    const answer = await alone.askAsAdmin('keys/revoke', { kid: dead })
    expect([answer.status, JSON.parse(answer.text).kid]).toEqual([200, dead])
    const { signingStopsAt } = JSON.parse(answer.text)
    expect((await alone.read('/keys')).text).not.toContain(dead)
    // Past the lease, and past the 30 s for which a client may keep the key set.
    await expect.poll(() => Date.now() / 1000).toBeGreaterThan(signingStopsAt + 31)
    for (const svid of old.splice(0, 10)) expect(await trusted.whoami(svid)).toBe(SPIFFE_ID)
    await newOnesAccepted('while a key was revoked and nobody was nudged', load, dead)

    // What was missing is the nudge: no more than this is done here.
    await alone.run('rotate', '--dry-run', ...trusted.gate)
    for (const svid of old) expect(await trusted.whoami(svid)).toBeNull()
  })
})
