/** One program, two homes (D1): what wrangler uploads and what plain workerd is told must not drift apart. */

import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'

const wrangler = readFileSync('wrangler.toml', 'utf8')
const capnp = readFileSync('deploy/workerd/config.capnp', 'utf8')
const development = readFileSync('deploy/workerd/development.capnp', 'utf8')
const support = readFileSync('test/support/plain_workerd.ts', 'utf8')
const production = readFileSync('dist/production/index.js', 'utf8')

const all = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, name]) => name).sort()

test('D1: both homes have one compatibility date and the same flags', () => {
  const date = /compatibility_date = "([^"]+)"/.exec(wrangler)?.[1]
  const flags = /compatibility_flags = \[([^\]]*)\]/.exec(wrangler)?.[1]
  expect(readFileSync('vitest.config.ts', 'utf8')).toContain(`compatibilityDate: '${date}'`)
  for (const config of [capnp, development, support]) {
    expect(config).toContain(`compatibilityDate = "${date}"`)
    expect(config).toContain(`compatibilityFlags = [${flags}]`)
  }
})

test('D1: both homes have the same Durable Objects, under the same names', () => {
  const classes = all(wrangler, /class_name = "([^"]+)"/g)
  expect(all(capnp, /className = "([^"]+)"/g)).toEqual(classes)
  const made = all(wrangler, /new_sqlite_classes = \["(.+)"\]/g).flatMap((names) => names?.split('", "'))
  expect(made.sort()).toEqual(classes)
  expect(all(capnp, /name = "([^"]+)", durableObjectNamespace/g)).toEqual(
    all(wrangler, /\[\[durable_objects.bindings\]\]\nname = "([^"]+)"/g),
  )
})

test('T-10: both homes show how an API server is bound, under the same names, and neither comes with one', () => {
  const spare = all(wrangler, /^# binding = "(CLUSTER_[^"]+)"/gm)
  expect(spare).toEqual(['CLUSTER_1', 'CLUSTER_2'])
  expect(all(capnp, /^ +#\(name = "(CLUSTER_[^"]+)", external/gm)).toEqual(spare)
  expect(all(capnp, /^ +#\(name = "(CLUSTER_\d)", service/gm)).toEqual(spare)
  for (const config of [capnp, wrangler]) expect(config).not.toMatch(/^[^#\n]*CLUSTER_/m)
})

test('T-16: plain workerd shows where the token of a web identity comes from, and comes with none', () => {
  expect(all(capnp, /^ +#\(name = "(AWS_WEB_IDENTITY)", disk = \(path = "[^"]+"\)\)/gm)).toHaveLength(1)
  expect(all(capnp, /^ +#\(name = "(AWS_WEB_IDENTITY)", service = "AWS_WEB_IDENTITY"\)/gm)).toHaveLength(1)
  for (const config of [capnp, development]) expect(config).not.toMatch(/^[^#\n]*"AWS_WEB_IDENTITY"/m)
})

test('T-12: MODE is in the development configuration and nowhere else', () => {
  expect(development).toContain('(name = "MODE", text = "development")')
  expect(capnp).not.toContain('MODE')
  expect(wrangler).not.toContain('MODE')
})

test('every variable that the worker reads has a binding in plain workerd', () => {
  const sources = ['config', 'key_settings', 'kms_access']
    .map((name) => readFileSync(`worker/${name}.ts`, 'utf8'))
    .join('')
  const read = all(sources, /(?:read|need)\('([A-Z_]+)'\)/g)
  const variables = [...new Set(read)].filter((name) => name !== 'MODE')
  // Times are shortened for tests alone.
  expect(all(capnp, /fromEnvironment = "([^"]+)"/g)).toEqual(variables.filter((name) => name !== 'KEY_TIMES'))
  expect(all(development, /fromEnvironment = "([^"]+)"/g)).toEqual(variables)
})

test('T-12: nothing of the demo is in the production build', () => {
  const demo = readFileSync('dist/development/development.js', 'utf8')
  for (const mark of ['DemoCluster', 'DEMO_CLUSTER', '/demo/token']) {
    expect(demo, 'the mark is a mark').toContain(mark)
    expect(production).not.toContain(mark)
  }
})

test('the Git checkout carries no registry host in its lockfile', () => {
  expect(readFileSync('package-lock.json', 'utf8')).not.toContain('"resolved"')
})

test('the upload fits the smallest plan by far', () => {
  expect(gzipSync(production).length).toBeLessThan(1024 * 1024)
})
