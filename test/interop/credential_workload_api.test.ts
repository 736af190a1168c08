/**
 * `spiffe-edge credential workload-api` as a process, and a Workload API on grpc-go with go-spiffe's protocol that behaves as it is told to. Beside it the
 * seed's plugin, in go-spiffe.
 */

import { resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Folder } from '../support/cli.ts'
import {
  type Behaviour,
  createSigner,
  type Ended,
  installCommands,
  run,
  startWorkloadApi,
  type WorkloadApi,
} from '../support/exec_plugin.ts'
import { freePort } from '../support/plain_workerd.ts'
import { missing } from '../support/tools.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'
const OTHER = 'spiffe://example.org/ns/shop/sa/other'
/** gRPC's. */
const CODE = { ok: 0, invalidArgument: 3, permissionDenied: 7, unimplemented: 12, unavailable: 14 }

const folder = new Folder()
const PATH = installCommands(folder)
const signer = createSigner()
const skipped = missing('go')
let api: WorkloadApi

beforeAll(async () => {
  if (!skipped) api = await startWorkloadApi(folder, signer)
})
afterAll(async () => {
  await api?.stop()
  folder.remove()
})

interface Fetched extends Ended {
  readonly codes: readonly number[]
  readonly at: readonly number[]
}

async function fetchFrom(
  behaviour: Behaviour,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<Fetched & { readonly calls: Awaited<ReturnType<WorkloadApi['behave']>> }> {
  await api.behave(behaviour)
  const ended = await run(folder, 'spiffe-edge', ['credential', 'workload-api', ...args], {
    env: { PATH, SPIFFE_ENDPOINT_SOCKET: api.address, ...env },
  })
  const calls = await api.behave({})
  return { ...ended, calls, codes: calls.map(({ code }) => code), at: calls.map(({ at }) => at) }
}

function claimsOf({ stdout }: Ended): Record<string, unknown> {
  const [, payload = ''] = JSON.parse(stdout).status.token.split('.')
  return JSON.parse(Buffer.from(payload, 'base64url').toString())
}

describe.skipIf(skipped)('what the Workload API has', () => {
  test('EX-1, EX-9, WA-2: one line of JSON with the token, which expires there before it does; nothing else anywhere', async () => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }] })
    expect([fetched.code, fetched.stderr]).toEqual([0, ''])
    expect(fetched.stdout).toMatch(/^\{.*\}\n$/)
    const { status, ...rest } = JSON.parse(fetched.stdout)
    expect(rest).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      spec: { interactive: false },
    })
    expect(claimsOf(fetched)).toMatchObject({ sub: ID, aud: ['k8s'] })
    expect(Date.parse(status.expirationTimestamp)).toBeLessThan((claimsOf(fetched).exp as number) * 1000)
    expect(fetched.calls).toMatchObject([{ audience: ['k8s'], spiffeId: '', securityHeader: ['true'], code: CODE.ok }])
  })

  test.each([
    [[], { SPIFFE_JWT_AUDIENCE: 'k8s-one' }, ['k8s-one']],
    [[], { SPIFFE_JWT_AUDIENCE: '' }, ['k8s']],
    [['--audience', 'a', '--audience', 'b'], { SPIFFE_JWT_AUDIENCE: 'k8s-one' }, ['a', 'b']],
  ])('WA-14: asked for by %j and %j it is made out to %j', async (args, env, audience) => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }] }, args, env as Record<string, string>)
    expect([fetched.code, fetched.calls[0]?.audience, claimsOf(fetched).aud]).toEqual([0, audience, audience])
  })

  test.each([
    ['v1', 'v1'],
    ['v1beta1', 'v1beta1'],
    ['', 'v1'],
  ])('EXEC_CREDENTIAL_VERSION %j, as the seed has it, gives %s', async (EXEC_CREDENTIAL_VERSION, version) => {
    const { stdout } = await fetchFrom({ identities: [{ spiffeId: ID }] }, [], { EXEC_CREDENTIAL_VERSION })
    expect(JSON.parse(stdout).apiVersion).toBe(`client.authentication.k8s.io/${version}`)
  })

  test('WA-8: the first identity is the default one; another one by its hint or its SPIFFE ID; of one hint the first', async () => {
    const identities = [
      { spiffeId: ID, hint: 'internal' },
      { spiffeId: OTHER, hint: 'external' },
      { spiffeId: `${OTHER}-2`, hint: 'external' },
    ]
    const subjectOf = async (...args: string[]) => claimsOf(await fetchFrom({ identities }, args)).sub
    expect(await subjectOf()).toBe(ID)
    expect(await subjectOf('--hint', 'external')).toBe(OTHER)
    expect(await subjectOf('--spiffe-id', `${OTHER}-2`)).toBe(`${OTHER}-2`)
    expect(await subjectOf('--spiffe-id', `${OTHER}-2`, '--hint', 'external')).toBe(`${OTHER}-2`)
    const unknown = await fetchFrom({ identities }, ['--hint', 'none'])
    expect([unknown.code, unknown.stdout]).toEqual([1, ''])
    expect(unknown.stderr).toContain(`${OTHER} (external)`)
  })

  test('WA-4: over TCP', async () => {
    const address = `tcp://127.0.0.1:${await freePort()}`
    const tcp = await startWorkloadApi(new Folder(), signer, address)
    await tcp.behave({ identities: [{ spiffeId: ID }] })
    const ended = await run(folder, 'spiffe-edge', ['credential', 'workload-api', '--socket', address], {
      env: { PATH, SPIFFE_ENDPOINT_SOCKET: 'unix:///nowhere' },
    })
    await tcp.stop()
    expect([ended.code, ended.stderr, claimsOf(ended).sub]).toEqual([0, '', ID])
  })

  test('EX-9: of a token that is about to expire, the expiry is not one that is over already', async () => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID, lifetimeSeconds: 8 }] })
    const exp = (claimsOf(fetched).exp as number) * 1000
    const timestamp = Date.parse(JSON.parse(fetched.stdout).status.expirationTimestamp)
    // Eight seconds before `exp` it was made.
    expect(timestamp).toBeGreaterThanOrEqual(exp - 8000)
    expect(timestamp).toBeLessThanOrEqual(exp)
  })
})

describe.skipIf(skipped)('WA-5: what is reported at once, whatever the time limit', () => {
  test.each([
    ['InvalidArgument', { refuse: { code: CODE.invalidArgument, message: 'no such thing' } }, /no such thing/],
    ['Unimplemented', { refuse: { code: CODE.unimplemented, message: 'never heard of it' } }, /never heard of it/],
    ['octets that are no message', { fault: 'garbage' }, /not one message/],
    ['more than it has to say', { fault: 'huge' }, /more than it has to say/],
    ['no SVID', { fault: 'empty' }, /not the JWT-SVID/],
    ['an empty token', { identities: [{ spiffeId: ID, svid: '' }] }, /not the JWT-SVID/],
    ['a token that is none', { identities: [{ spiffeId: ID, svid: 'a.b.c' }] }, /not the JWT-SVID/],
    ['a token of somebody else', { identities: [{ spiffeId: ID, claims: { sub: OTHER } }] }, /not the JWT-SVID/],
    ['a token of nobody', { identities: [{ spiffeId: ID, claims: { sub: null } }] }, /not the JWT-SVID/],
    ['no SPIFFE ID', { identities: [{ spiffeId: 'alice', claims: { sub: 'alice' } }] }, /not the JWT-SVID/],
    ['another audience', { identities: [{ spiffeId: ID, claims: { aud: ['k8s-two'] } }] }, /not the JWT-SVID/],
    ['no audience', { identities: [{ spiffeId: ID, claims: { aud: null } }] }, /not the JWT-SVID/],
    ['a token without an end', { identities: [{ spiffeId: ID, claims: { exp: null } }] }, /not the JWT-SVID/],
    ['an end that is a text', { identities: [{ spiffeId: ID, claims: { exp: '4102444800' } }] }, /not the JWT-SVID/],
  ] as [string, Behaviour, RegExp][])('%s', async (_, behaviour, message) => {
    const fetched = await fetchFrom(behaviour, ['--timeout', '3600'])
    expect([fetched.code, fetched.stdout, fetched.codes.length]).toEqual([1, '', 1])
    expect(fetched.stderr).toMatch(message)
    expect(fetched.stderr.trim().split('\n')).toHaveLength(1)
  })

  test('a SPIFFE ID that is none', async () => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }] }, ['--spiffe-id', 'spiffe://UPPER/x'])
    expect([fetched.code, fetched.stdout]).toEqual([1, ''])
    expect(fetched.stderr).toContain('invalid requested SPIFFE ID')
  })

  test('what a server says is shown on one line, without what moves the cursor', async () => {
    const { stderr } = await fetchFrom({ refuse: { code: CODE.invalidArgument, message: 'one\n\u001b[2Jtwo ä' } })
    expect(stderr).toContain('one\\u{a}\\u{1b}[2Jtwo ä')
  })

  test.each([
    'unix://host/path',
    'unix://relative',
    'tcp://localhost:1',
    'tcp://127.0.0.1',
    'tcp://127.0.0.1:1/x',
    'tcp://127.0.0.1:1?x',
    'http://127.0.0.1:1',
    '/bare/path',
    'unix:///path?query',
    'unix:///path#fragment',
    'unix://user@/path',
    'unix://',
  ])('§12.5: SPIFFE_ENDPOINT_SOCKET=%s', async (SPIFFE_ENDPOINT_SOCKET) => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }] }, [], { SPIFFE_ENDPOINT_SOCKET })
    expect([fetched.code, fetched.stdout, fetched.codes]).toEqual([2, '', []])
    expect(fetched.stderr).toContain('SPIFFE_ENDPOINT_SOCKET')
  })
})

describe.skipIf(skipped)('WA-5: what is tried again, with back-off', () => {
  test.each([
    ['Unavailable', CODE.unavailable],
    ['PermissionDenied', CODE.permissionDenied],
  ])('%s twice, and then it goes', async (_, code) => {
    const behaviour = { identities: [{ spiffeId: ID }], refuse: { code, message: 'not now', times: 2 } }
    const fetched = await fetchFrom(behaviour)
    expect([fetched.code, fetched.codes]).toEqual([0, [code, code, CODE.ok]])
    expect(claimsOf(fetched).sub).toBe(ID)
    // Said once.
    expect(fetched.stderr.match(/not now/g)).toHaveLength(1)
    const [first = 0, second = 0, third = 0] = fetched.at
    expect(second - first).toBeGreaterThanOrEqual(50)
    expect(third - second).toBeGreaterThanOrEqual(100)
  })

  test.each([
    ['a socket that is not there yet, as when the kubelet starts before the agent', false, /is not there/],
    ['a socket that an agent has left behind', true, /is not listening/],
  ])('%s', async (_, stale, message) => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }], listenAfterMilliseconds: 2500, stale })
    expect([fetched.code, fetched.codes]).toEqual([0, [CODE.ok]])
    expect(fetched.stderr).toMatch(message)
  })

  test.each([
    ['Unavailable', { refuse: { code: CODE.unavailable, message: 'not now' } }, /not now/],
    ['PermissionDenied: this workload is not registered', {}, /no identity issued.*registered/],
    ['no socket', { listenAfterMilliseconds: 3_600_000 }, /is not there/],
    ['nobody listens', { listenAfterMilliseconds: 3_600_000, stale: true }, /is not listening/],
    ['no answer', { fault: 'hang' }, /does not answer/],
    ['not a word', { fault: 'mute' }, /does not answer/],
    ['the connection is closed', { fault: 'hang-up' }, /breaks off/],
    ['the connection is closed in the midst of the answer', { fault: 'break-off' }, /breaks off|does not speak gRPC/],
    ['something else than HTTP/2', { fault: 'no-http2' }, /breaks off|does not speak gRPC/],
    ['an expired token', { identities: [{ spiffeId: ID, lifetimeSeconds: -1 }] }, /expired JWT-SVID/],
  ] as [string, Behaviour, RegExp][])('%s, until the time is over', async (_, behaviour, message) => {
    const fetched = await fetchFrom(behaviour, ['--timeout', '1'])
    expect([fetched.code, fetched.stdout]).toEqual([1, ''])
    expect(fetched.stderr).toMatch(message)
  })

  test('WA-14: an identity of which the caller has none', async () => {
    const fetched = await fetchFrom({ identities: [{ spiffeId: ID }] }, ['--spiffe-id', OTHER, '--timeout', '1'])
    expect([fetched.code, new Set(fetched.codes)]).toEqual([1, new Set([CODE.permissionDenied])])
    expect(fetched.codes.length).toBeGreaterThan(1)
  })

  test.each(['0', '-1', '1.5', 'long', ''])('a time limit of %j is none', async (timeout) => {
    const fetched = await fetchFrom({}, [`--timeout=${timeout}`])
    expect([fetched.code, fetched.codes]).toEqual([2, []])
    expect(fetched.stderr).toContain('--timeout')
  })
})

describe.skipIf(skipped)("beside the seed's plugin, in go-spiffe", () => {
  async function bySeed(behaviour: Behaviour, env: Record<string, string> = {}): Promise<Ended> {
    await api.behave(behaviour)
    return run(folder, resolve('build/go/go-spiffe-plugin'), [], {
      env: { PATH, SPIFFE_ENDPOINT_SOCKET: api.address, ...env },
      // It never gives up.
      timeoutMs: 1500,
    })
  }
  const member = ({ stdout }: Ended, name: string) => new RegExp(`"?${name}"?: ?"?([^",}\\n]+)`).exec(stdout)?.[1]

  test.each([
    [{}, [{ spiffeId: ID }]],
    [{ EXEC_CREDENTIAL_VERSION: 'v1beta1' }, [{ spiffeId: ID }]],
    [{ SPIFFE_JWT_AUDIENCE: 'k8s-one' }, [{ spiffeId: ID }, { spiffeId: OTHER }]],
    [{}, [{ spiffeId: OTHER, hint: 'x' }, { spiffeId: ID }]],
    [{}, [{ spiffeId: ID, claims: { aud: 'k8s' } }]],
  ])('the same credential with %j and %j, but for when it expires', async (env, identities) => {
    const [seed, ours] = [
      await bySeed({ identities }, env as Record<string, string>),
      await fetchFrom({ identities }, [], env as Record<string, string>),
    ]
    expect(seed.code).toBe(0)
    for (const name of ['apiVersion', 'kind', 'interactive']) expect(member(ours, name)).toBe(member(seed, name))
    const fixed = (token = '') => {
      const { jti, iat, exp, ...claims } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
      return { claims, exp }
    }
    const [theirs, own] = [fixed(member(seed, 'token')), fixed(member(ours, 'token'))]
    expect(own.claims).toEqual(theirs.claims)
    // The seed's defect: a client goes on with a token that nobody takes any more.
    const expiry = (ended: Ended) => Date.parse(member(ended, 'expirationTimestamp') ?? '') / 1000
    expect(expiry(seed)).toBeGreaterThan(theirs.exp)
    expect(expiry(ours)).toBeLessThan(own.exp)
  })

  test.each([
    ['no identity', {}],
    ['no socket', { listenAfterMilliseconds: 3_600_000 }],
    ['no SVID', { fault: 'empty' }],
    ['octets that are no message', { fault: 'garbage' }],
    ['more than gRPC takes', { fault: 'huge' }],
    ['InvalidArgument', { refuse: { code: CODE.invalidArgument } }],
    ['an empty token', { identities: [{ spiffeId: ID, svid: '' }] }],
    ['another audience', { identities: [{ spiffeId: ID, claims: { aud: ['k8s-two'] } }] }],
    ['no SPIFFE ID', { identities: [{ spiffeId: 'alice', claims: { sub: 'alice' } }] }],
    ['no end', { identities: [{ spiffeId: ID, claims: { exp: null } }] }],
    ['an expired token', { identities: [{ spiffeId: ID, lifetimeSeconds: -120 }] }],
  ] as [string, Behaviour][])(
    '%s: it has no credential, and waits for ever in silence; ours says why',
    async (_, behaviour) => {
      const seed = await bySeed(behaviour)
      expect([seed.code, seed.stdout, seed.stderr]).toEqual([null, '', ''])
      const ours = await fetchFrom(behaviour, ['--timeout', '1'])
      expect([ours.code, ours.stdout]).toEqual([1, ''])
      expect(ours.stderr).not.toBe('')
    },
  )
})
