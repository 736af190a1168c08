/**
 * Rotation under load: a real kube-apiserver that is shown a fresh SVID ten times a second, and the same SVID again shortly
 * before it expires, refuses none of them whatever becomes of the keys. Nor does a reader that keeps the JWKS while it may. All times are short, and related as the real ones.
 */

import { randomBytes } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { announceKmsKey } from '../../keys/kms.ts'
import { storedKeys, storedPhases } from '../support/key_storage.ts'
import { type KmsEmulator, startKmsEmulator } from '../support/kms_emulator.ts'
import { patientReader } from '../support/patient_reader.ts'
import { describeLoad, type SteadyLoad, startSteadyLoad } from '../support/steady_load.ts'
import { missing } from '../support/tools.ts'
import { type IssuerSettings, SPIFFE_ID, startTrustedIssuers, type TrustedIssuers } from '../support/trusted_issuers.ts'

/** The shortest life that a registration can give to a token. */
const TTL = 30
/** A key waits 72 s until it signs, and is there for 41 s after that: a rotation takes 113 s, and the next begins in its middle. */
const TIMES = {
  ...{ renew: 1, signingLease: 10, longestTtl: TTL, longestX509Ttl: TTL, refreshHint: 30, skew: 1 },
  replaceAfter: 15,
}
/** Later than the 10 s for which kube-apiserver remembers that a token was good, and long before the token expires. */
const AGAIN_AFTER = 20
/** For two rotations on a machine that is very busy. */
const LONG = { timeout: 400_000 }
const POLL = { timeout: 300_000, interval: 1000 }

function wrapped(change: Partial<IssuerSettings['times']> = {}): IssuerSettings {
  const env = { WRAPPING_KEY: `aes:${randomBytes(32).toString('base64')}` }
  return { signingKey: 'wrapped', times: { ...TIMES, ...change }, ttl: TTL, env }
}

describe.skipIf(missing('go'))('rotation and a kube-apiserver', () => {
  let kms: KmsEmulator | null = null
  let trusted: TrustedIssuers<'wrapped' | 'kms' | 'gated' | 'killed'>

  beforeAll(async () => {
    kms = missing('python') ? null : await startKmsEmulator()
    const inKms = kms && {
      signingKey: 'awskms',
      times: TIMES,
      ttl: TTL,
      env: {
        AWS_REGION: kms.region,
        AWS_ACCESS_KEY_ID: kms.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: kms.credentials.secretAccessKey,
        AWS_ENDPOINT_URL_KMS: kms.endpoint,
      },
    }
    trusted = await startTrustedIssuers({
      wrapped: wrapped(),
      kms: inKms ?? wrapped(),
      gated: wrapped({ replaceAfter: 86_400 }),
      killed: wrapped(),
    })
  })
  afterAll(async () => {
    await trusted?.stop()
    await kms?.stop()
  })

  /**
   * @param look `often`: the API server looks at the keys just before each second use, and so misses any that has left too
   *   early. `seldom`: it looks when it does not know the key of a token. Beside it is a reader that never does that.
   */
  function startLoad(name: keyof typeof trusted.issuers, look: 'often' | 'seldom'): SteadyLoad {
    const issuer = trusted.issuers[name]
    const accepts = patientReader(() => issuer.read('/keys'))
    return startSteadyLoad({
      issue: issuer.fresh,
      everyMs: 100,
      againAfter: AGAIN_AFTER,
      async use(svid, isFirst) {
        if (!isFirst && look === 'often') await trusted.nudge(issuer)
        const username = await trusted.whoami(svid)
        if (isFirst && !(await accepts(svid))) throw new Error('a reader that keeps the JWKS does not know its key')
        return username
      },
    })
  }

  /** @returns how many of the keys that have signed are published no more */
  async function gone(name: keyof typeof trusted.issuers, load: SteadyLoad): Promise<number> {
    const { keys } = JSON.parse((await trusted.issuers[name].read('/keys')).text)
    const published = new Set(keys.map(({ kid }: { kid: string }) => kid))
    return [...load.report.kids.keys()].filter((kid) => !published.has(kid)).length
  }

  async function nothingRefused(name: string, load: SteadyLoad): Promise<void> {
    const report = await load.stop()
    console.log(describeLoad(name, report))
    // Some of them: there may be a thousand.
    expect(report.refused.slice(0, 10)).toEqual([])
    expect(report.usernames).toEqual(new Set([SPIFFE_ID]))
    expect(report.again).toBeGreaterThan(0)
  }

  test.concurrent(
    'T-17, D3: wrapped keys rotate twice by themselves, and no request is refused',
    LONG,
    async ({ expect }) => {
      const load = startLoad('wrapped', 'often')
      await expect.poll(() => gone('wrapped', load), POLL).toBe(2)
      await nothingRefused('wrapped keys', load)
      expect(load.report.kids.size).toBeGreaterThanOrEqual(3)
    },
  )

  test
    .skipIf(missing('python'))
    .concurrent(
      'T-15, KM-10: keys in KMS rotate twice by themselves, no request is refused, and those that are gone are given back',
      LONG,
      async ({ expect }) => {
        const emulator = kms as KmsEmulator
        const load = startLoad('kms', 'seldom')
        await expect.poll(() => gone('kms', load), POLL).toBe(2)
        await nothingRefused('keys in KMS', load)
        expect(load.report.kids.size).toBeGreaterThanOrEqual(3)

        const { keys, orphans } = await trusted.issuers.kms.status()
        const enabled = (await ourKeys(emulator)).filter(({ state }) => state === 'Enabled')
        const access = { region: emulator.region, endpoint: emulator.endpoint, credentials: emulator.credentials }
        const kids = await Promise.all(
          enabled.map(async ({ arn }) => (await announceKmsKey(access, arn, 'ES256')).publicJwk.kid),
        )
        expect([kids.sort(), orphans]).toEqual([keys.map(({ kid }) => kid).sort(), []])
        // It is given back when it has left the JWKS, and not by the request that sees it gone.
        const given = async () => (await ourKeys(emulator)).filter(({ state }) => state === 'PendingDeletion').length
        await expect.poll(given).toBe(load.report.kids.size - 1)
      },
    )

  test.concurrent(
    'D4: rotate, with the key sets that the API servers hold as a gate, refuses until it is safe and says when',
    LONG,
    async ({ expect }) => {
      const { gated } = trusted.issuers
      const rotate = (...more: string[]) => gated.run('rotate', ...trusted.gate, '--output', 'json', ...more)
      const load = startLoad('gated', 'often')
      const waiting = async () => (await gated.status()).keys.find(({ phase }) => phase === 'published')?.kid
      await expect.poll(waiting, { ...POLL, interval: 3000 }).toBeDefined()
      const next = await waiting()
      const early = await rotate()
      expect(early.code).toBe(1)
      expect(early.stderr).toMatch(
        new RegExp(`not rotated:\n  ${next} is safe to sign with from [-0-9]{10}T[0-9:]{8}Z on, in [0-9]+ s\n`),
      )
      expect(JSON.parse(early.stdout)).toMatchObject({
        rotated: false,
        apiservers: [{ cluster: 'real', stated: 1, seen: 1, problem: null }],
      })
      await expect.poll(async () => (await rotate('--dry-run')).code, { ...POLL, interval: 5000 }).toBe(0)
      expect(load.report.kids.size).toBe(1)

      const done = await rotate()
      expect(done.stderr).toContain('rotated\n')
      expect([done.code, JSON.parse(done.stdout)]).toEqual([
        0,
        expect.objectContaining({
          rotated: true,
          refused: [],
          apiservers: [{ cluster: 'real', stated: 1, seen: 1, problem: null }],
        }),
      ])
      // Until the key that signed before has left, and its last token is over.
      await expect
        .poll(async () => (await gated.status()).keys.map(({ phase }) => phase).sort(), { ...POLL, interval: 3000 })
        .toEqual(['active', 'published'])
      await nothingRefused('rotate with a gate', load)
      expect([...load.report.kids.keys()][1]).toBe(next)
    },
  )

  test.concurrent(
    'D1, T-17: a worker that is killed in the middle of a rotation goes on by its alarm, and no SVID is refused',
    LONG,
    async ({ expect }) => {
      const { killed } = trusted.issuers
      const phases = () => storedPhases(killed.state)
      await expect.poll(async () => Object.values(phases() ?? {}).sort(), POLL).toEqual(['active', 'published'])
      const keys = storedKeys(killed.state)
      const { now, keys: reported } = await killed.status()
      const [first = '', second = ''] = ['active', 'published'].map(
        (wanted) => reported.find(({ phase }) => phase === wanted)?.kid,
      )
      const safeAt = reported.find(({ kid }) => kid === second)?.safeAt ?? now

      // Tokens that are still alive when the next key signs.
      await until(safeAt - 15)
      const svids = await Promise.all(Array.from({ length: 20 }, killed.fresh))
      await killed.kill()
      expect(phases()).toEqual({ [first]: 'active', [second]: 'published' })
      await killed.start()
      await expect.poll(phases, POLL).toMatchObject({ [first]: 'retiring', [second]: 'active' })
      expect(killed.worker.log).toEqual([])

      // The API server does not know that key yet, so it reads the key set that there is now.
      const svid = await killed.fresh()
      expect([decodeProtectedHeader(svid).kid, await trusted.whoami(svid)]).toEqual([second, SPIFFE_ID])
      const refused = []
      for (const svid of svids) if ((await trusted.whoami(svid)) === null) refused.push(decodeJwt(svid).exp ?? 0)
      // One that is refused has to be over; and they are not all over, or nothing would be shown.
      expect(refused.filter((exp) => exp > Date.now() / 1000)).toEqual([])
      expect(refused.length).toBeLessThan(svids.length)

      await killed.kill()
      await killed.start()
      await expect.poll(async () => Object.keys(phases() ?? { [first]: 0 }), POLL).not.toContain(first)
      expect(killed.worker.log).toEqual([])
      const left = storedKeys(killed.state)
      expect(left).toContainEqual({ ...keys.find(({ publicJwk }) => publicJwk.kid === second), phase: 'active' })
      const jwks = JSON.parse((await killed.read('/keys')).text)
      expect(jwks.keys).toEqual(left.map(({ publicJwk }) => expect.objectContaining(publicJwk)))
      expect(await trusted.whoami(await killed.fresh())).toBe(SPIFFE_ID)
    },
  )
})

/** @param time seconds since the epoch */
function until(time: number): Promise<void> {
  return new Promise((reached) => setTimeout(reached, time * 1000 - Date.now()))
}

/** @returns the keys in the emulator that carry the tag of our trust domain */
async function ourKeys({ call }: KmsEmulator): Promise<{ arn: string; state: unknown }[]> {
  const { Keys } = (await call('ListKeys', {})) as { Keys: { KeyArn: string }[] }
  const described = await Promise.all(
    Keys.map(async ({ KeyArn }) => {
      const { KeyMetadata } = await call('DescribeKey', { KeyId: KeyArn })
      const { Tags } = await call('ListResourceTags', { KeyId: KeyArn })
      return { arn: KeyArn, state: (KeyMetadata as { KeyState: string }).KeyState, tags: JSON.stringify(Tags) }
    }),
  )
  return described.filter(({ tags }) => tags.includes('"TagKey":"spiffe-edge:trust-domain","TagValue":"example.org"'))
}
