/** `deploy/workerd/config.capnp` as docs/operations.md says to run it: the file itself, in a copy of the folders around it. */

import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { send } from '../support/exchange.ts'
import { createCa } from '../support/pki.ts'
import { freePort } from '../support/plain_workerd.ts'

const { default: workerd } = createRequire(import.meta.url)('workerd') as { default: string }

test('the deployed build serves https as a process of its own, with the variables of its environment', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'spiffe-edge-self-hosted-'))
  const ca = await createCa()
  const { certificate, key } = await ca.issue('localhost')
  const port = await freePort()
  mkdirSync(join(folder, 'deploy/workerd'), { recursive: true })
  // With the spare API servers that stand in it, as who needs them would have them.
  const config = readFileSync('deploy/workerd/config.capnp', 'utf8').replaceAll(/^( +)#(?=\(| {2})/gm, '$1')
  writeFileSync(
    join(folder, 'deploy/workerd/config.capnp'),
    config.replace('/var/run/secrets/spiffe-edge', join(folder, 'state')),
  )
  for (const name of ['cluster-1.crt', 'cluster-2.crt'])
    writeFileSync(join(folder, 'deploy/workerd', name), ca.certificate)
  cpSync('dist/production', join(folder, 'dist/production'), { recursive: true })
  mkdirSync(join(folder, 'worker'))
  mkdirSync(join(folder, 'state'))
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

  const process = spawn(
    workerd,
    ['serve', 'deploy/workerd/config.capnp', `--socket-addr=https=127.0.0.1:${port}`, '--control-fd=3'],
    {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
      env: {
        ISSUER: `https://localhost:${port}`,
        TRUST_DOMAIN: 'example.org',
        SIGNING_KEY: 'awskms:alias/spiffe-edge-jwt',
        AWS_REGION: 'eu-central-1',
        AWS_ACCESS_KEY_ID: 'unused',
        AWS_SECRET_ACCESS_KEY: 'unused',
      },
    },
  )
  try {
    await new Promise((listening) => process.stdio[3]?.once('data', listening))
    const answer = await send(`https://localhost:${port}/structured-auth.yaml`, { ca: ca.certificate })
    expect(answer.status).toBe(200)
    expect(answer.text).toContain(`url: "https://localhost:${port}"`)
  } finally {
    process.kill('SIGTERM')
    await new Promise((ended) => process.once('exit', ended))
    rmSync(folder, { recursive: true })
  }
})
