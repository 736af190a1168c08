/**
 * A KMS of our own: moto with the corrections of `kms/kms_server.py`, in a Python environment that is made once.
 *
 * It holds what it is told in memory, believes any signature on a request, and forgets everything when it stops.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { pythonWith } from './python_venv.ts'

const REQUIREMENTS = fileURLToPath(new URL('kms/requirements.txt', import.meta.url))
const SERVER = fileURLToPath(new URL('kms/kms_server.py', import.meta.url))

const REGION = 'eu-central-1'
/** Shaped like a SigV4 header, which is where moto reads the region from. */
const AUTHORIZATION = `AWS4-HMAC-SHA256 Credential=test/20260101/${REGION}/kms/aws4_request, SignedHeaders=host, Signature=0`

export interface KmsEmulator {
  /** Plain HTTP on a free port of 127.0.0.1. */
  readonly endpoint: string
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  /**
   * @param spec `KeySpec` of AWS
   * @param usage `SIGN_VERIFY` unless given
   * @returns the key's ARN
   */
  createKey(spec: string, usage?: string): Promise<string>
  /** @param name `alias/…`; one that exists is moved to the key */
  setAlias(name: string, arn: string): Promise<void>
  disableKey(arn: string): Promise<void>
  enableKey(arn: string): Promise<void>
  /** Leaves the key as `PendingDeletion`. */
  scheduleDeletion(arn: string): Promise<void>
  /** Any other operation: `call('TagResource', { … })`. */
  call(operation: string, input: object): Promise<Record<string, unknown>>
  stop(): Promise<void>
}

/** The first start on a machine takes half a minute and the network, for pip. */
export async function startKmsEmulator(): Promise<KmsEmulator> {
  const python = await pythonWith('kms-venv', REQUIREMENTS)
  // The server ends with its standard input, so it is gone even when this process is killed.
  const server = spawn(python, [SERVER], { stdio: ['pipe', 'pipe', 'pipe'] })
  const endpoint = `http://127.0.0.1:${await printedPort(server)}`

  async function call(operation: string, input: object): Promise<Record<string, unknown>> {
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': `TrentService.${operation}`,
        authorization: AUTHORIZATION,
      },
      body: JSON.stringify(input),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`KMS emulator: ${operation}: ${text}`)
    return (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
  }

  return {
    endpoint,
    region: REGION,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    call,
    async createKey(spec, usage = 'SIGN_VERIFY') {
      const { KeyMetadata } = await call('CreateKey', { KeySpec: spec, KeyUsage: usage })
      return (KeyMetadata as { Arn: string }).Arn
    },
    async setAlias(name, arn) {
      const { Aliases } = (await call('ListAliases', {})) as { Aliases: { AliasName: string }[] }
      const exists = Aliases.some(({ AliasName }) => AliasName === name)
      await call(exists ? 'UpdateAlias' : 'CreateAlias', { AliasName: name, TargetKeyId: arn })
    },
    async disableKey(arn) {
      await call('DisableKey', { KeyId: idOf(arn) })
    },
    async enableKey(arn) {
      await call('EnableKey', { KeyId: idOf(arn) })
    },
    async scheduleDeletion(arn) {
      await call('ScheduleKeyDeletion', { KeyId: idOf(arn), PendingWindowInDays: 7 })
    },
    async stop() {
      if (server.exitCode !== null || server.signalCode !== null) return
      server.stdin?.end()
      await once(server, 'exit')
    },
  }
}

/** moto takes an ARN in most places, but fails inside where a key's state is to change. */
function idOf(arn: string): string {
  return arn.slice(arn.indexOf('/') + 1)
}

async function printedPort(server: ChildProcess): Promise<number> {
  let output = ''
  let complaint = ''
  server.stderr?.on('data', (chunk) => {
    complaint += chunk
  })
  return await new Promise((resolve, reject) => {
    server.on('error', reject)
    server.on('exit', () => reject(new Error(`KMS emulator did not start: ${complaint}`)))
    server.stdout?.on('data', (chunk) => {
      output += chunk
      if (output.endsWith('\n')) resolve(Number(output))
    })
  })
}
