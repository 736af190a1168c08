/** The architecture as a test: who may import whom. A new arrow is a decision, so it is made here or not at all. */

import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { expect, test } from 'vitest'

/**
 * Each room with the rooms it may import from. A room is a folder, or a file that stands by itself at the top of
 * `worker/`. `worker/` alone means the vocabulary that all of the worker shares.
 */
const ARROWS: Record<string, readonly string[]> = {
  'worker/index': ['worker/config', 'worker/service', 'worker/state'],
  'worker/development': ['worker/config', 'worker/service', 'worker/state', 'worker/demo'],
  'worker/administer': ['worker/federation', 'worker/policy', 'worker/refusal', 'worker/shared_call', 'worker/state'],
  'worker/administer_federation': [
    'worker/key_settings',
    'worker/policy',
    'worker/refusal',
    'worker/shared_call',
    'worker/state',
  ],
  'worker/administer_keys': ['keys', 'worker/cluster', 'worker/config', 'worker/refusal', 'worker/state'],
  'worker/key_settings': ['keys', 'worker/endpoint_url', 'worker/key_times', 'worker/kms_access'],
  'worker/kms_access': ['keys', 'worker/endpoint_url', 'worker/fetch_json'],
  'worker/key_times': ['keys', 'worker/spiffe'],
  'worker/service': [
    'worker/app',
    'worker/attest',
    'worker/audit',
    'worker/cluster',
    'worker/config',
    'worker/issue',
    'worker/refusal',
    'worker/routes',
    'worker/shared_call',
    'worker/state',
    'worker/vault',
  ],
  'worker/app': [
    'worker/audit',
    'worker/config',
    'worker/issue',
    'worker/oidc',
    'worker/refusal',
    'worker/routes',
    'worker/state',
  ],
  'worker/routes': [
    'worker/administer',
    'worker/administer_federation',
    'worker/administer_keys',
    'keys',
    'worker/attest',
    'worker/audit',
    'worker/cluster',
    'worker/federation',
    'worker/issue',
    'worker/oidc',
    'worker/policy',
    'worker/refusal',
    'worker/spiffe',
    'worker/state',
    'worker/strict_json',
    'worker/vault',
  ],
  'worker/issue': [
    'keys',
    'worker/shared_call',
    'worker/attest',
    'worker/audit',
    'worker/federation',
    'worker/mint',
    'worker/oidc',
    'worker/policy',
    'worker/refusal',
    'worker/spiffe',
    'worker/state',
  ],
  'worker/mint': ['keys', 'worker/policy', 'worker/refusal', 'worker/spiffe'],
  'worker/attest': [
    'keys',
    'worker/cluster',
    'worker/federation',
    'worker/fetch_json',
    'worker/jwt',
    'worker/oidc',
    'worker/policy',
    'worker/refusal',
    'worker/shared_call',
    'worker/spiffe',
  ],
  'worker/policy': [
    'keys',
    'worker/attest',
    'worker/endpoint_url',
    'worker/federation',
    'worker/refusal',
    'worker/spiffe',
  ],
  'worker/cluster': [
    'keys',
    'worker/audit',
    'worker/fetch_json',
    'worker/mint',
    'worker/policy',
    'worker/refusal',
    'worker/shared_call',
    'worker/spiffe',
  ],
  'worker/state': [
    'keys',
    'worker/attest',
    'worker/audit',
    'worker/cluster',
    'worker/endpoint_url',
    'worker/federation',
    'worker/fetch_json',
    'worker/key_settings',
    'worker/key_times',
    'worker/oidc',
    'worker/policy',
    'worker/refusal',
    'worker/shared_call',
    'worker/spiffe',
  ],
  // What Vault's clients see of it all. It issues by the one path, and keeps nothing itself.
  'worker/vault': [
    'keys',
    'worker/administer',
    'worker/attest',
    'worker/audit',
    'worker/issue',
    'worker/policy',
    'worker/refusal',
    'worker/state',
    'worker/strict_json',
  ],
  'worker/spiffe': ['keys', 'worker/jwt'],
  'worker/federation': ['keys', 'worker/strict_json'],
  'worker/oidc': ['keys', 'worker/endpoint_url', 'worker/fetch_json'],
  'worker/config': ['worker/fetch_json', 'worker/key_settings', 'worker/policy', 'worker/spiffe', 'worker/vault'],
  'worker/audit': ['worker/attest', 'worker/refusal', 'worker/spiffe'],
  'worker/jwt': ['keys', 'worker/strict_json'],
  'worker/fetch_json': ['worker/strict_json'],
  'worker/demo': [],
  'worker/endpoint_url': [],
  'worker/refusal': [],
  'worker/shared_call': [],
  'worker/strict_json': [],
  keys: [],
  // It judges manifests, and replays decisions, by the code that the worker decides with.
  cli: [
    'keys',
    'worker/attest',
    'worker/endpoint_url',
    'worker/federation',
    'worker/fetch_json',
    'worker/jwt',
    'worker/oidc',
    'worker/policy',
    'worker/refusal',
    'worker/spiffe',
    'worker/strict_json',
  ],
}

/** Packages, with the only places that may import them. */
const PACKAGES: Record<string, readonly string[]> = {
  '@abraham/reflection': ['keys'],
  '@aws-sdk/client-kms': ['keys'],
  '@bufbuild/protobuf': ['cli'],
  '@bufbuild/protobuf/wire': ['cli'],
  '@connectrpc/connect': ['cli'],
  '@connectrpc/connect-node': ['cli'],
  '@napi-rs/keyring': ['cli'],
  '@peculiar/x509': ['keys'],
  aws4fetch: ['keys'],
  'cloudflare:workers': ['worker/service', 'worker/state', 'worker/demo'],
  commander: ['cli'],
  hono: ['worker/app'],
  'ipaddr.js': ['worker/policy'],
  jose: ['keys', 'worker/demo', 'cli'],
  yaml: ['worker/policy', 'worker/cluster', 'cli'],
  'zod/mini': ['worker/attest', 'worker/cluster', 'worker/key_times', 'worker/policy', 'worker/routes'],
  'openid-client': ['cli'],
  'node:child_process': ['cli'],
  'node:crypto': ['cli'],
  'node:events': ['cli'],
  'node:fs': ['cli'],
  'node:fs/promises': ['cli'],
  'node:http': ['cli'],
  'node:http2': ['cli'],
  'node:https': ['cli'],
  'node:module': ['cli'],
  'node:net': ['cli'],
  'node:os': ['cli'],
  'node:path': ['cli'],
  'node:readline': ['cli'],
  'node:sea': ['cli'],
  'node:timers/promises': ['cli'],
  'node:tls': ['cli'],
  'node:util': ['cli'],
  'node:vm': ['cli'],
}

function roomOf(path: string): string {
  const [top = '', next = ''] = path.split('/')
  return top === 'worker' ? `worker/${next.replace(/\.ts$/, '')}` : top
}

function importsOf(file: string): string[] {
  const source = readFileSync(file, 'utf8')
  return [...source.matchAll(/(?<!')(?:\bfrom|\bimport)\s*\(?\s*'([^'\s]+)'/g)].map(
    ([, specifier]) => specifier as string,
  )
}

const files = globSync('{worker,keys,cli}/**/*.ts')

test.each(files)('%s imports only what its room may', (file) => {
  const room = roomOf(file)
  const allowed = ARROWS[room]
  expect(allowed, `${room} has no line in ARROWS`).toBeDefined()
  for (const specifier of importsOf(file)) {
    if (/\.(?:yaml|json)$/.test(specifier)) continue
    if (!specifier.startsWith('.')) {
      expect(PACKAGES[specifier] ?? [], `${room} → ${specifier}`).toContain(room)
      continue
    }
    const target = roomOf(relative('.', join(dirname(file), specifier)))
    if (target !== room) expect(allowed, `${room} → ${target}`).toContain(target)
  }
})

test('every arrow and every package is used', () => {
  const used = new Set(
    files.flatMap((file) =>
      importsOf(file).map((specifier) =>
        specifier.startsWith('.')
          ? `${roomOf(file)} → ${roomOf(relative('.', join(dirname(file), specifier)))}`
          : `${roomOf(file)} → ${specifier}`,
      ),
    ),
  )
  const listed = [
    ...Object.entries(ARROWS).flatMap(([room, targets]) => targets.map((target) => `${room} → ${target}`)),
    ...Object.entries(PACKAGES).flatMap(([name, rooms]) => rooms.map((room) => `${room} → ${name}`)),
  ]
  expect(listed.filter((arrow) => !used.has(arrow))).toEqual([])
})

test('T-5: who makes the identities of the issuer itself, and who believes in them', () => {
  const importers = files.filter((file) => importsOf(file).some((target) => target.endsWith('/internal_grant.ts')))
  // `mint` asks whether a grant is one; everybody else who is here makes them.
  expect(importers.sort()).toEqual([
    'worker/cluster/canary.ts',
    'worker/cluster/reviewer.ts',
    'worker/issue.ts',
    'worker/mint.ts',
  ])
})

test('only code that has to do with it knows what a Request or a Response is', () => {
  const http = [
    'worker/app',
    'worker/routes',
    'worker/service',
    'worker/development',
    'worker/oidc',
    'worker/fetch_json',
  ]
  const offenders = files.filter(
    (file) =>
      !http.includes(roomOf(file)) &&
      file.startsWith('worker/') &&
      /\b(?:Request|Response)\b[^a-z ]/.test(readFileSync(file, 'utf8')),
  )
  expect(offenders).toEqual([])
})
