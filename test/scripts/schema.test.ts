import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { renderSchema, SCHEMA_FILE } from '../../scripts/schema.ts'

test('the published JSON Schema is what the worker reads its manifest by', () => {
  expect(readFileSync(SCHEMA_FILE, 'utf8'), 'run `npm run schema`').toBe(renderSchema())
})

test('unknown fields are errors in it, at every level that has a fixed form', () => {
  const { oneOf } = JSON.parse(renderSchema())
  expect(oneOf).toHaveLength(10)
  for (const kind of oneOf) {
    expect(kind.additionalProperties).toBe(false)
    for (const spec of kind.properties.spec.anyOf ?? [kind.properties.spec])
      expect(spec.additionalProperties).toBe(false)
  }
})
