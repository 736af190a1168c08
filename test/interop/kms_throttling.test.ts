/** The deployed build while KMS lets through so many signatures a second and no more. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, exchange } from '../support/exchange.ts'
import { type KmsEmulator, startKmsEmulator } from '../support/kms_emulator.ts'
import { type KmsProxy, startKmsProxy } from '../support/kms_proxy.ts'
import { createServiceAccountKey } from '../support/kube_apiserver.ts'
import { createCa, type TestCa } from '../support/pki.ts'
import { freePort, type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'
import { clusterRecord, podTokenBy, webRegistration } from '../support/pod_token.ts'
import { manifest } from '../support/policy.ts'
import { missing } from '../support/tools.ts'

const SIGNS_PER_SECOND = 10

describe.skipIf(missing('python'))('KM-9: KMS throttles at a rate', () => {
  const clusterKey = createServiceAccountKey('ES256')
  let ca: TestCa
  let kms: KmsEmulator
  let proxy: KmsProxy
  let url: string
  let worker: PlainWorkerd

  beforeAll(async () => {
    ca = await createCa()
    kms = await startKmsEmulator()
    proxy = await startKmsProxy(kms.endpoint, await ca.issue('127.0.0.1'))
    const port = await freePort()
    url = `https://localhost:${port}`
    worker = await startPlainWorkerd({
      entry: 'production',
      env: {
        ISSUER: url,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: `awskms:${await kms.createKey('ECC_NIST_P256')}`,
        AWS_REGION: kms.region,
        AWS_ACCESS_KEY_ID: kms.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: kms.credentials.secretAccessKey,
        AWS_ENDPOINT_URL_KMS: proxy.endpoint,
      },
      manifest: manifest(clusterRecord(clusterKey), webRegistration()),
      tls: await ca.issue('localhost', '127.0.0.1'),
      trusted: ca.certificate,
      port,
    })
    expect((await trade()).status).toBe(200)
    proxy.mode = { signsPerSecond: SIGNS_PER_SECOND }
  })
  afterAll(async () => {
    await worker?.stop()
    await proxy?.stop()
    await kms?.stop()
  })

  const trade = () => exchange(url, podTokenBy(clusterKey), { ca: ca.certificate, audience: 'k8s' })
  const later = (milliseconds: number) => new Promise((turn) => setTimeout(turn, milliseconds))

  async function timed(): Promise<Answer & { took: number }> {
    const asked = Date.now()
    return { ...(await trade()), took: Date.now() - asked }
  }

  /** @returns what came of all that `ask` has asked for */
  async function during(ask: () => Promise<readonly (Answer & { took: number })[]>) {
    proxy.messages.length = 0
    const began = Date.now()
    const answers = await ask()
    const seconds = (Date.now() - began) / 1000
    const issued = answers.filter(({ status }) => status === 200).length
    const signs = proxy.messages.length
    const attempts = new Map<string, number>()
    for (const message of proxy.messages) attempts.set(message, (attempts.get(message) ?? 0) + 1)
    const mostAttempts = Math.max(...attempts.values())
    const slowest = Math.max(...answers.map(({ took }) => took))
    console.log(
      `${answers.length} exchanges in ${seconds.toFixed(1)} s while KMS signs ${SIGNS_PER_SECOND} times a second: ${issued} issued, ${signs} calls to Sign, at most ${mostAttempts} for one, slowest answer ${slowest} ms`,
    )
    return { answers, issued, signs, mostAttempts, seconds }
  }

  /** Less than half of what KMS lets through, however slow the machine is. */
  async function modestly() {
    const answers = []
    for (let count = 0; count < 20; count++) {
      answers.push(await timed())
      await later(250)
    }
    return answers
  }

  /** Four times as much as KMS lets through, whether or not there are answers. */
  const greedily = () => Promise.all(Array.from({ length: 240 }, async (_, index) => later(index * 25).then(timed)))

  test('below the rate all exchanges succeed, with one call each', async () => {
    const { issued, signs } = await during(modestly)
    expect([issued, signs]).toEqual([20, 20])
  })

  test('12.11: above the rate exchanges are 503 with Retry-After, with two calls each at most, and then all is well again', async () => {
    const before = worker.log.length
    const { answers, issued, mostAttempts, seconds } = await during(greedily)
    const others = answers.filter(({ status }) => status !== 200)
    expect(issued).toBeGreaterThan(0)
    expect(others.length).toBeGreaterThan(0)
    // So many get through in each second that has begun, and no more.
    expect(issued).toBeLessThanOrEqual(SIGNS_PER_SECOND * (Math.ceil(seconds) + 1))
    for (const { status, headers, text } of others) {
      expect([status, JSON.parse(text).reason]).toEqual([503, 'signing_unavailable'])
      expect(headers['retry-after']).toMatch(/^[1-9]\d*$/)
    }
    expect(mostAttempts).toBe(2)
    const refused = () => worker.log.slice(before).filter(({ decision }) => decision === 'refused')
    await expect.poll(refused).toHaveLength(others.length)
    for (const line of refused()) expect(line).toMatchObject({ reason: 'signing_unavailable', detail: 'throttled' })

    // Nobody has done anything but come again when it was said, and less often.
    await later(1000 * Math.max(...others.map(({ headers }) => Number(headers['retry-after']))))
    expect((await during(modestly)).issued).toBe(20)
  })
})
