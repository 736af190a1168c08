/** What a credential plugin leaves behind, as strace sees it: of the tokens nothing but the answer on standard output. */

import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Folder } from '../support/cli.ts'
import {
  createSigner,
  type Ended,
  installCommands,
  run,
  startWorkloadApi,
  V1,
  type WorkloadApi,
} from '../support/exec_plugin.ts'
import { forge } from '../support/jwt_forge.ts'
import { missing } from '../support/tools.ts'

const ID = 'spiffe://example.org/ns/shop/sa/web'

const folder = new Folder()
const PATH = installCommands(folder)
const { privateKey, ...signer } = createSigner()
const key = { alg: 'ES256', kid: signer.kid, privateKey }
const skipped = missing('go') || missing('strace')

function token(claims: object): string {
  const now = Math.floor(Date.now() / 1000)
  return forge(key, { alg: 'ES256', kid: signer.kid }, { iat: now, exp: now + 300, ...claims })
}

const svid = token({ sub: ID, aud: ['k8s'] })
const subjectToken = token({ sub: 'system:serviceaccount:shop:web', aud: ['spiffe-edge'] })

interface Traced extends Ended {
  /** One for each call. */
  readonly calls: readonly string[]
}

/** Programs that are started, with arguments and environment; files that are opened; whatever is written, with what the descriptor stands for. */
const CALLS =
  'execve,execveat,openat,open,creat,rename,renameat2,link,linkat,write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg'

async function traced(args: readonly string[], env: Record<string, string> = {}): Promise<Traced> {
  const log = join(folder.path, 'strace.log')
  const strace = ['-f', '-y', '-v', '-s', '100000', '-qq', '-e', `trace=${CALLS}`, '-o', log, 'spiffe-edge']
  const KUBERNETES_EXEC_INFO = JSON.stringify({ apiVersion: V1, kind: 'ExecCredential', spec: { interactive: false } })
  const ended = await run(folder, 'strace', [...strace, ...args], { env: { PATH, KUBERNETES_EXEC_INFO, ...env } })
  // What a call is interrupted in is on a line of its own, with the arguments before it.
  return { ...ended, calls: readFileSync(log, 'latin1').trim().split('\n') }
}

/** What is secret in a token: of three parts the claims tell who, and the signature lets others in. */
const partsOf = (text: string) => text.split('.').slice(1)
const holding = (calls: readonly string[], secret: string) =>
  calls.filter((call) => partsOf(secret).some((part) => call.includes(part)))
const WRITING = /\bO_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND)\b|^\d+ +(?:creat|rename|renameat2|link|linkat)\(/
const TO_STANDARD_OUTPUT = /^\d+ +writev?\(1</
const TO_SOCKET = /^\d+ +(?:writev?|sendto|sendmsg)\(\d+<(?:UNIX|TCP|socket)/
const isDevice = (call: string) => /"\/dev\/(?:null|tty)"/.test(call)

describe.skipIf(skipped)('strace of a credential plugin', () => {
  let api: WorkloadApi
  let issuer: Server
  let url: string
  let answer: { status: number; body: object } = { status: 200, body: {} }
  beforeAll(async () => {
    api = await startWorkloadApi(folder, { privateKey, ...signer })
    issuer = createServer((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(answer.status, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body))
      })
    })
    await new Promise<void>((listening) => issuer.listen(0, '127.0.0.1', listening))
    url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`
  })
  afterAll(async () => {
    await api?.stop()
    issuer?.close()
    folder.remove()
  })

  test('workload-api: no child but Node, no file, and the SVID on standard output alone', async () => {
    await api.behave({ identities: [{ spiffeId: ID, svid }] })
    const { code, stderr, stdout, calls } = await traced(['credential', 'workload-api', '--socket', api.address])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toContain(svid)
    const holds = holding(calls, svid)
    expect(holds.length).toBeGreaterThan(0)
    expect(holds.filter((call) => !TO_STANDARD_OUTPUT.test(call))).toEqual([])
    expect(calls.filter((call) => WRITING.test(call) && !isDevice(call))).toEqual([])
    // strace names those that were tried along the PATH too.
    const programs = calls.flatMap((call) => /execve\("([^"]+)".* = 0$/.exec(call)?.[1] ?? [])
    expect(programs.filter((program) => !/\/(?:spiffe-edge|node)$|^\/usr\/bin\/env$/.test(program))).toEqual([])
  })

  test('psat: the token goes to the issuer, and the SVID to standard output', async () => {
    answer = { status: 200, body: { access_token: svid } }
    const file = folder.write(subjectToken, 'token', 0o600)
    const { code, stderr, stdout, calls } = await traced(['credential', 'psat', '--issuer', url, '--token-file', file])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toContain(svid)
    expect(holding(calls, svid).filter((call) => !TO_STANDARD_OUTPUT.test(call))).toEqual([])
    const sent = holding(calls, subjectToken)
    expect(sent.length).toBeGreaterThan(0)
    expect(sent.filter((call) => !TO_SOCKET.test(call))).toEqual([])
    expect(calls.filter((call) => WRITING.test(call) && !isDevice(call))).toEqual([])
  })

  test.each([
    ['an SVID for another audience', token({ sub: ID, aud: ['other'] })],
    ['an SVID of somebody else', token({ sub: `${ID}-2`, aud: ['k8s'] })],
    ['an SVID that has expired', token({ sub: ID, aud: ['k8s'], exp: 1_700_000_000 })],
    ['a secret that is no SVID', 'nobody.knows-this-secret.at-all'],
  ])('%s is not shown, and neither is why it is none', async (_, other) => {
    await api.behave({ identities: [{ spiffeId: ID, svid: other }] })
    const args = ['credential', 'workload-api', '--socket', api.address, '--timeout', '1']
    const { code, stdout, calls } = await traced(args)
    expect([code, stdout]).toEqual([1, ''])
    expect(holding(calls, other)).toEqual([])
  })

  test.each([
    [
      'in its answer',
      { status: 400, body: { error: 'invalid_request', error_description: `bad token ${subjectToken}!` } },
    ],
    ['as its trouble', { status: 503, body: { error_description: `cannot verify ${subjectToken}` } }],
    ['as the SVID', { status: 200, body: { access_token: subjectToken } }],
    ['as an id', { status: 400, body: { error_description: 'no', id: subjectToken, reason: subjectToken } }],
  ])('an issuer that repeats the token %s: it is not on standard error', async (_, repeated) => {
    answer = repeated
    const file = folder.write(subjectToken)
    const args = ['credential', 'psat', '--issuer', url, '--token-file', file, '--timeout', '1']
    const { code, stdout, stderr } = await traced(args)
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).not.toBe('')
    // Not the beginning either, which says who.
    for (const part of subjectToken.split('.')) expect(stderr).not.toContain(part.slice(0, 24))
  })
})
