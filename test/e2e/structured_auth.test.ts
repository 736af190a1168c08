/** The AuthenticationConfiguration at the top of the repository is the one that the deployed build serves. */

import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type PlainWorkerd, startPlainWorkerd } from '../support/plain_workerd.ts'

let worker: PlainWorkerd
beforeAll(async () => {
  worker = await startPlainWorkerd({
    entry: 'production',
    env: {
      ISSUER: 'https://issuer.example.org',
      TRUST_DOMAIN: 'example.org',
      SIGNING_KEY: 'awskms:alias/spiffe-edge-jwt',
      AWS_REGION: 'eu-central-1',
      AWS_ACCESS_KEY_ID: 'unused',
      AWS_SECRET_ACCESS_KEY: 'unused',
    },
    manifest: JSON.stringify({
      apiVersion: 'spiffe-edge.io/v1alpha1',
      kind: 'Cluster',
      metadata: { name: 'example' },
      spec: { issuer: 'https://cluster.example.org', jwks: { discovery: true } },
    }),
  })
})
afterAll(() => worker.stop())

test('structured-auth.yaml is what GET /structured-auth.yaml answers', async () => {
  const response = await fetch(`${worker.origin}/structured-auth.yaml`)
  expect(response.status).toBe(200)
  expect(await response.text()).toBe(readFileSync('structured-auth.yaml', 'utf8'))
})

test('T-13: the choices are closed', async () => {
  for (const [query, status] of [
    ['?version=v1beta1', 200],
    ['?version=v1&mapping=service-account&cluster=example', 200],
    ['?version=v1alpha1', 400],
    ['?mapping=email', 400],
    ['?cluster=other', 404],
    ['?audience=x', 400],
    ['?version=v1&version=v1beta1', 400],
  ] as const)
    expect([query, (await fetch(`${worker.origin}/structured-auth.yaml${query}`)).status]).toEqual([query, status])
})
