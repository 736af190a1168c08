/** `deploy/workerd/config.capnp`, by the commands of docs/operations.md: the file itself, in a copy of the folders around it. */

import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { send } from '../support/exchange.ts'
import { createCa } from '../support/pki.ts'
import { freePort } from '../support/plain_workerd.ts'

const [, commands = ''] = /```sh\n(mkdir [\s\S]*?)```/.exec(readFileSync('docs/operations.md', 'utf8')) ?? []
const [makeState = '', serve = ''] = commands.trim().split('\n')
/** Of util-linux. */
const hasFlock = spawnSync('flock', ['--version']).status === 0

test.skipIf(!hasFlock)('T-20: the deployed build serves https, as the one process that owns its state', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-self-hosted-'))
  const ca = await createCa()
  const { certificate, key } = await ca.issue('localhost')
  const port = await freePort()
  mkdirSync(join(folder, 'deploy/workerd'), { recursive: true })
  // With the spare API servers and disks that stand in it, as who needs them would have them.
  const config = readFileSync('deploy/workerd/config.capnp', 'utf8').replaceAll(/^( +)#(?=\(| {2})/gm, '$1')
  writeFileSync(
    join(folder, 'deploy/workerd/config.capnp'),
    config.replaceAll(/\/var\/run\/secrets\/(spiffe-edge|aws)/g, join(folder, 'state')),
  )
  for (const name of ['cluster-1.crt', 'cluster-2.crt'])
    writeFileSync(join(folder, 'deploy/workerd', name), ca.certificate)
  cpSync('dist/production', join(folder, 'dist/production'), { recursive: true })
  mkdirSync(join(folder, 'worker'))
  symlinkSync(resolve('node_modules'), join(folder, 'node_modules'))
  spawnSync('bash', ['--norc', '-euc', makeState], { cwd: folder })
  writeFileSync(join(folder, 'deploy/workerd/tls.crt'), certificate)
  writeFileSync(join(folder, 'deploy/workerd/tls.key'), key)
  const cluster = {
    apiVersion: 'spiffe-edge.io/v1alpha1',
    kind: 'Cluster',
    metadata: { name: 'home' },
    spec: {
      issuer: 'https://cluster.example.org',
      jwks: { connection: true },
      connection: { url: 'https://10.0.0.1:6443', binding: 'CLUSTER_1' },
      reviewer: { file: { binding: 'CLUSTER_DISK', path: 'token' } },
    },
  }
  writeFileSync(join(folder, 'worker/manifest.yaml'), JSON.stringify(cluster))

  const env = {
    PATH: process.env.PATH,
    ISSUER: `https://localhost:${port}`,
    TRUST_DOMAIN: 'example.org',
    SIGNING_KEY: 'awskms:alias/spiffe-edge-jwt',
    AWS_REGION: 'eu-central-1',
    AWS_ROLE_ARN: 'arn:aws:iam::111122223333:role/unused',
    AWS_WEB_IDENTITY_TOKEN_FILE: 'token',
  }
  // No shell stays in between, so what is sent to the process is sent to workerd.
  const started = spawn(
    'bash',
    ['--norc', '-euc', `exec ${serve} --socket-addr=https=127.0.0.1:${port} --control-fd=3`],
    {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
      env,
    },
  )
  try {
    await new Promise<void>((listening, failed) => {
      started.stdio[3]?.once('data', () => listening())
      started.once('exit', (code) => failed(new Error(`ended with ${code}`)))
    })
    const answer = await send(`https://localhost:${port}/structured-auth.yaml`, { ca: ca.certificate })
    expect(answer.status).toBe(200)
    expect(answer.text).toContain(`url: "https://localhost:${port}"`)

    const elsewhere = `${serve} --socket-addr=https=127.0.0.1:${await freePort()}`
    const second = spawnSync('bash', ['--norc', '-euc', elsewhere], {
      cwd: folder,
      env,
      encoding: 'utf8',
      timeout: 60_000,
    })
    expect([second.status, second.stderr]).toEqual([1, ''])

    const ended = new Promise((done) => started.once('exit', done))
    started.kill('SIGTERM')
    await ended
    expect(spawnSync('flock', ['--nonblock', 'state/.lock', 'true'], { cwd: folder }).status).toBe(0)
  } finally {
    started.kill('SIGKILL')
    rmSync(folder, { recursive: true })
  }
})
