// node scripts/schema.ts: writes docs/manifest.schema.json, by which an editor or a CI job checks a manifest before it is
// deployed. The worker judges by the same schemas, and by more: what holds between objects is not in it.
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { toJSONSchema } from 'zod/mini'
import { ManifestObject } from '../worker/policy/manifest.ts'

export const SCHEMA_FILE = 'docs/manifest.schema.json'

export function renderSchema() {
  const schema = toJSONSchema(ManifestObject, { io: 'input' })
  return `${JSON.stringify({ ...schema, title: 'An object of spiffe-edge’s manifest' }, null, 2)}\n`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(SCHEMA_FILE, renderSchema())
